"""The protocol of an evaluation: what must be equal for two runs to be compared, and what differs. Runs nothing."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from mcts_utils.config import Settings
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.episode import EvalProtocol

# Values of fields that a file leaves out where nothing else was chosen.
RARE = ("actions", "action_format", "think_tokens", "history_reasoning")
OMITTED: dict[str, Any] = {name: getattr(Settings, name) for name in RARE}
OMITTED |= {"shots": 0, "examples": "", "samples": 1}
LABELS = {"goals": "goals (kind of server)"}


def protocol_of(
    settings: Settings,
    mode: str,
    temperature: float,
    max_steps: int,
    server_kind: str = "",
    shots: int = 0,
    examples: str = "",
) -> EvalProtocol:
    """Return the protocol of a run with these settings, on a server of the kind `server_kind` (envs.server_about)."""
    return EvalProtocol(
        task=settings.task,
        mode=mode,
        temperature=temperature,
        max_steps=max_steps,
        prompt=settings.prompt,
        max_token_length=settings.max_token_length,
        seed=settings.seed if temperature > 0 else None,
        server_kind=server_kind,
        grounding=settings.grounding,
        shots=shots or UNSET,
        examples=examples or UNSET,
        **{name: value for name in RARE if (value := getattr(settings, name)) != OMITTED[name]},
    )


def differences(old: EvalProtocol, new: EvalProtocol) -> list[str]:
    """Return `name old -> new` for every key that differs; of a hash, the first 12 characters are shown."""
    one, two = ({**OMITTED, **plain(protocol)} for protocol in (old, new))
    return [
        f"{LABELS.get(key, key)} {_short(one.get(key))} -> {_short(two.get(key))}"
        for key in sorted({*one, *two})
        if one.get(key) != two.get(key)
    ]


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else repr(value)
