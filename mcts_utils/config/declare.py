"""Declare a setting: the groups of the page on configuration, and a field with its sentence and bounds."""

from __future__ import annotations

from typing import Any

from pydantic import Field

ANSWERS, ACTS, SEARCH, REVISION, MACHINES = (
    "Who answers",
    "What it acts in",
    "Stage 1, search",
    "Stage 2, revision (Equation 4)",
    "More than one machine",
)
MAX_SEED = 2**32 - 1  # the largest that NumPy takes
JUDGE, LIVE = "Who judges, if not the actor", "While it runs"


def var(default: Any, group: str, sentence: str, shown: str | None = None, **bounds: Any) -> Any:
    """Return a field; `shown` is the default as people read it, where it depends on other settings."""
    return Field(default, description=sentence, json_schema_extra={"group": group, "shown": shown}, **bounds)
