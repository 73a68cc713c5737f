"""The protocol of an evaluation: all that must be equal for two runs to compare, and what differs. It runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mcts_utils.config import Settings

# Fields that files lack where they say nothing: those of older versions stay readable, and equal to today's.
DEFAULTS: dict[str, Any] = {"goals": "", "grounding": True, "shots": 0, "examples": "", "samples": 1}
LABELS = {"goals": "goals (kind of server)"}
OMITTED = ("shots", "examples")  # written only where they are not the default


@dataclass(frozen=True)
class EvalProtocol:
    """How episodes are made. Two runs compare only where all of it is equal; the model may differ."""

    task: str
    mode: str  # "main" (Table 2) or "revise" (Table 3)
    temperature: float
    max_steps: int  # new steps of one episode; a replayed prefix is not counted
    prompt: str
    max_token_length: int
    seed: int | None  # None: greedy, no randomness
    task_set: str  # kind of the server: what an index means there
    grounding: bool  # refused actions are mapped to the nearest valid one, where the environment lists them
    shots: int = 0  # solved examples before the task's own dialogue
    examples: str = ""  # sha256 of those examples

    def record(self) -> dict[str, Any]:
        """As files have it."""
        kept = {k: v for k, v in asdict(self).items() if k not in OMITTED or v != DEFAULTS[k]}
        return {"goals" if k == "task_set" else k: v for k, v in kept.items()}


def protocol_of(
    settings: Settings,
    mode: str,
    temperature: float,
    max_steps: int,
    task_set: str = "",
    shots: int = 0,
    examples: str = "",
) -> EvalProtocol:
    """The protocol of a run with these settings, on a server of the kind `task_set` (envs.server_about)."""
    return EvalProtocol(
        settings.task,
        mode,
        temperature,
        max_steps,
        settings.prompt,
        settings.max_token_length,
        settings.seed if temperature > 0 else None,
        task_set,
        settings.grounding,
        shots,
        examples,
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`name old -> new` for every key that differs; a hash is shown by its beginning."""
    one, two = ({**DEFAULTS, **record} for record in (old, new))
    return [
        f"{LABELS.get(key, key)} {_short(one.get(key))} -> {_short(two.get(key))}"
        for key in sorted({*one, *two})
        if one.get(key) != two.get(key)
    ]


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else repr(value)
