"""An environment that its server describes in the answer to GET /about (docs/fork-protocol.md). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from mcts_utils.envs.specs.base import NO_MATCH, EnvSpec, digest, field
from mcts_utils.types import StepResult

FORM = (
    "In every turn reply with exactly two lines:\n"
    "Thought: one short sentence on what to do next and why\n"
    "Action: one command"
)
MOST_TEXTS = 1 << 16  # whose refusal is remembered
GENERAL = "You act in a text world. Read what it says, and reach the goal that it states."


class Refusals:
    """Stands for a pattern: `match` says whether a text refuses its action, as the server's answers did or does now."""

    def __init__(self, ask: Callable[[str], bool]) -> None:
        self._ask, self._known = ask, dict[str, bool]()

    def note(self, text: str, refuses: bool) -> None:
        """Keep what the server said of a text."""
        if len(self._known) >= MOST_TEXTS:
            self._known.clear()
        self._known[text] = refuses

    def match(self, text: str) -> bool:
        """Return what is known of a text, else ask."""
        if (known := self._known.get(text)) is None:
            self.note(text, known := self._ask(text))
        return known


class DescribedSpec(EnvSpec):
    """An environment with the fields of the base; a name with a colon. Undescribed, it refuses nothing.

    Its tasks are told apart by index and opening, because many worlds show the same opening for all goals; in mode live
    by index alone, because there the opening may be another at each reset.
    """

    brief_prompt = "Reach the goal."
    full_prompt = f"{GENERAL}\n{FORM}"

    def __init__(self, name: str) -> None:
        self.name = self.title = name
        self._about: tuple[Mapping[str, Any], str] | None = None

    def describe(self, about: Mapping[str, Any], server: str, ask: Callable[[str], bool]) -> None:
        """Take what the server says of itself; `ask` is its judgement whether a text is a refusal."""
        if self._about == (about, server):
            return
        prompt = str(about.get("prompt") or GENERAL).rstrip()
        self.full_prompt = prompt if "Action:" in prompt else f"{prompt}\n{FORM}"
        self.tools = about.get("tools") or EnvSpec.tools
        asks = "is_refusal" in about.get("offers", ())
        self.refusal = cast("re.Pattern[str]", Refusals(ask)) if asks else NO_MATCH
        self.live = about.get("mode") == "live"
        self._about = about, server

    def result(self, answer: Any) -> StepResult:
        """Return the result; keep whether the server says that it is a refusal."""
        result = super().result(answer)
        if isinstance(self.refusal, Refusals) and "refused" in answer:
            self.refusal.note(result.observation.lstrip(), field(answer, "refused", bool))
        return result

    def task_id(self, opening: str, index: int) -> str:
        return f"{self.name}:{index}" if self.live else f"{self.name}:{index}:{digest(opening)}"
