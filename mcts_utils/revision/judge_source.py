"""Say who judges the steps of a stage, the actor itself or another model (JUDGE_MODEL and so on), and open it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcts_utils.actors.factory import make_actor
from mcts_utils.config import Settings, judge_settings
from mcts_utils.revision.builder import FindCut
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.verdict_cache import VerdictCache, judge_name
from mcts_utils.rollouts.recorded import RecordedActor
from mcts_utils.storage.journal import Journal
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import Actor


@dataclass(frozen=True, slots=True)
class JudgeSource:
    """The judge of a stage."""

    settings: Settings  # those of the judge: its model, endpoint and prompt
    name: str  # under which its verdicts are kept
    is_actor: bool  # the actor judges itself

    @classmethod
    def of(cls, settings: Settings, weights: str) -> JudgeSource:
        """Return the judge that the settings name; `weights`: fingerprint of the actor's model.

        Raises:
            InputError: the judge has no name.
        """
        found = judge_settings(settings)
        if found is settings:
            return cls(settings, judge_name(settings.model_name, weights), True)
        return cls(found, judge_name(found.model_name, fingerprint(found.model_dir)), False)

    def cuts(self, judge: Judge, cache: VerdictCache, journal: Journal) -> FindCut:
        """Return the function that finds the cuts of one tree with verdicts and answers that are kept."""
        asked = RecordedActor(judge.actor, journal, "" if self.is_actor else "judge")
        return lambda task, bad, start: judge.first_bad(task, bad.steps, bad.nodes, start, cache, asked)

    @contextmanager
    def opened(
        self, actor: Actor | None, stopped: Callable[[], bool], usage: dict[str, Any]
    ) -> Iterator[Judge]:
        """Yield the judge. If it is another model than `actor`, it is opened here, and its use noted as usage["judge"].

        Raises:
            InputError: it cannot be opened.
        """
        s = self.settings
        asked = actor if self.is_actor else make_actor(s)
        assert asked is not None
        judge = Judge(asked, s.prompt, seed=s.seed, wave=s.judge_wave, slots=s.in_flight, stopped=stopped)
        try:
            yield judge
        finally:
            judge.close()
            if asked is not actor:
                usage["judge"] = asked.stats()
                asked.close()
