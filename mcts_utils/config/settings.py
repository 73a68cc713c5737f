"""Every setting once: name, default, bounds and sentence.

The one-line errors, docs/configuration.md and .env.example are made from here. It reads no environment: reader.py does.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from mcts_utils.config import checks
from mcts_utils.config.concurrency import MAX_AUTO_CONCURRENCY
from mcts_utils.config.faults import fault_line, variable
from mcts_utils.config.loop_settings import LoopSettings
from mcts_utils.config.model_settings import ModelSettings
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import InputError

# Settings that are recorded only where they are not their defaults.
RARE = (
    *("task_source", "judge_model", "judge_base_url", "judge_model_dir", "judge_votes"),
    *("think_tokens", "history_reasoning", "actions"),
)
SPENDING = ("token_price", "prices", "max_tokens_total", "max_cost", "max_hours")  # they change no result


@dataclass(frozen=True)
class Settings(LoopSettings, ModelSettings):
    """What every stage reads: the fields of both, in the order of the page on configuration."""

    @property
    def local(self) -> bool:
        """Return True if the model of MODEL_DIR answers, not an endpoint."""
        return bool(self.model_dir) and not self.openai_base_url

    @property
    def in_flight(self) -> int:
        """Return the number of requests in flight, at most."""
        return self.concurrency or MAX_AUTO_CONCURRENCY

    @property
    def form(self) -> str:
        """Return how actions are read from replies: `tools`, or ACTION_FORMAT."""
        return self.actions if self.actions == TOOLS else self.action_format

    @property
    def reply_tokens(self) -> int:
        """Return the new tokens of a reply, at most."""
        return self.max_token_length + self.think_tokens

    def public(self) -> dict[str, Any]:
        """Return all settings but the API key and passwords in URLs, as manifests and trees may record them."""
        unsaid = {"openai_api_key", "judge_api_key", "tensorboard_dir", "wandb_project", *SPENDING}
        unsaid |= {name for name in RARE if getattr(self, name) == getattr(Settings, name)}
        plain = {name: value for name, value in asdict(self).items() if name not in unsaid}
        urls = ("env_server_base", "openai_base_url", "judge_base_url")
        return plain | {name: checks.without_password(plain[name]) for name in urls if name in plain}

    def override(self, **changes: Any) -> Settings:
        """Return a copy with the flags that were given; None and "" mean "not given".

        Raises:
            InputError: naming the variable and the value that is out of bounds.
        """
        given = {name: value for name, value in changes.items() if value not in (None, "")}
        try:
            return replace(self, **given)
        except ValidationError as error:
            raise InputError(fault_line(error, given, bounds)) from None

    def require(self, *names: str) -> Settings:
        """Return self; raise InputError if one of the settings is empty.

        Raises:
            InputError: naming the first variable that is missing.
        """
        for name in names:
            if getattr(self, name) == "":
                raise InputError(f"{variable(name)} is not set (environment, .env or flag)")
        return self


def bounds(field: str) -> str:
    """Return what a number must be, such as "between 0 and 1"; empty for other settings."""
    found: dict[str, float] = {}
    for limit in vars(Settings)["__pydantic_fields__"][field].metadata:
        found |= {name: getattr(limit, name) for name in ("ge", "le") if hasattr(limit, name)}
    if "le" in found:
        return f"between {found['ge']} and {found['le']}"
    return ""
