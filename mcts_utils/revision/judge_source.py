"""Say who judges the steps of a stage, the actor itself or another model (JUDGE_MODEL and so on), and open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from mcts_utils.actors.factory import make_actor
from mcts_utils.config import Settings, judge_settings
from mcts_utils.executors.spending import MeteredActor, Spending
from mcts_utils.revision.builder import FindCut
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.verdict_cache import VerdictCache, judge_name
from mcts_utils.rollouts.recorded import RecordedActor
from mcts_utils.storage.journal import Journal
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import Actor, MakeActor


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

    def cache(self, path: Path) -> VerdictCache:
        """Return the kept verdicts of this judge."""
        return VerdictCache(path, self.name, self.settings.prompt, self.settings.max_token_length)

    @contextmanager
    def opened(self, actor: Actor | None, stage: JudgedStage, usage: dict[str, Any]) -> Iterator[Judge]:
        """Yield the judge. If it is another model than `actor`, it is opened here, and its use noted as usage["judge"].

        Raises:
            InputError: it cannot be opened.
        """
        s = self.settings
        asked = actor if self.is_actor else MeteredActor(make_actor(s), stage.spending, "judge")
        assert asked is not None
        how = {"seed": s.seed, "wave": s.judge_wave, "slots": s.in_flight, "votes": s.judge_votes}
        judge = Judge(asked, s.prompt, **how, stopped=stage.stop.is_set)
        try:
            yield judge
        finally:
            judge.close()
            if asked is not actor:
                usage["judge"] = asked.stats()
                asked.close()


def models_of(settings: Settings, judge: JudgeSource | None) -> dict[str, Settings]:
    """Return the settings of the models of a stage (executors.stage.Stage)."""
    return {"actor": settings} | ({"judge": judge.settings} if judge and not judge.is_actor else {})


class JudgedStage(Protocol):
    """What is needed of a stage to open its models."""

    judge: JudgeSource | None
    stop: Event
    spending: Spending
    usage: dict[str, Any]


@contextmanager
def models_opened(
    stage: JudgedStage, make_actor: MakeActor | None
) -> Iterator[tuple[Actor | None, Judge | None]]:
    """Open the actor and the judge of a stage; note in its `usage` what they were asked at the end."""
    actor = make_actor() if make_actor else None
    used: dict[str, Any] = {}
    try:
        with stage.judge.opened(actor, stage, used) if stage.judge else nullcontext() as judge:
            yield actor, judge
    finally:
        stage.usage = used
        if actor is not None:
            stage.usage = {**actor.stats(), **used}
            actor.close()
