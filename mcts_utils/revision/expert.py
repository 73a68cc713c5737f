"""Expert episodes as records, for behaviour cloning (Table 2) and a warm start: no model, no search.

What is played or taken is said by an ExpertPlan (expert_plan.py).
Every episode is executed before it becomes a row; without a server those of a set are taken as recorded.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings, without_password
from mcts_utils.envs.session_pool import SessionPool, session_limit
from mcts_utils.executors import Saved, ignore
from mcts_utils.prompts import acting_messages, action_of, revision_signal
from mcts_utils.revision.agenttraj import GivenEpisode
from mcts_utils.revision.builder import Built, cut_lineage
from mcts_utils.revision.expert_plan import ExpertActor, ExpertPlan
from mcts_utils.revision.options import EXPERT, Options
from mcts_utils.revision.pairs import CutPoint, Pair, Trajectory
from mcts_utils.revision.pruning import shorten
from mcts_utils.revision.record import Record, Source, to_row
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.rollouts.steps import EPSILON, earned, is_look
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.types import InputError, MakeActor, MakeEnvironment, Step, Task, Verdict

MAX_STEPS = 100  # of an episode, as in the evaluation (Section 4.2)
MIN_TRIED = 10  # tasks; if the expert solves none of them, it knows nothing of this server
SLIP_TRIES = 20  # places drawn until one has a slip
SLIP = Verdict("bad", "a slip, made on purpose", 0, True)


class ExpertStage(RevisionStage):
    """One run of stage 2 without trees: a job is a task, its rows are the expert's episodes."""

    unit = "task"

    def __init__(self, settings: Settings, options: Options, *, plan: ExpertPlan, **more: Any) -> None:
        """Prepare a run; without `tasks` nothing is executed. Arguments as RevisionStage."""
        super().__init__(settings, options, **({"input_dir": ""} | more | {"judged": False, "weights": ""}))
        self.plan, self._more = plan, {"plan": plan}
        self._failed = {Path(line): line for line in plan.refused}
        self._total["no_task"] = plan.missing
        self._solved: list[bool] = []  # of the tasks that the bundled expert has played

    def _find_jobs(self) -> list[tuple[int, str]]:
        return [(index, f"task {index}") for index in sorted(self.plan.given or self.plan.indices)]

    def _inputs(self, done: Container[int]) -> list[Path]:
        return list(self.plan.files)

    def input_files(self, job: tuple[int, str]) -> list[Path]:
        return []

    def _relevant_settings(self) -> dict[str, Any]:
        plan = self.plan
        made = {"indices": list(plan.indices), "noise": plan.noise, "rounds": plan.rounds}
        return super()._relevant_settings() | made

    @contextmanager
    def job_runner(
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, saved: Saved = ignore
    ) -> Iterator[Callable[[tuple[int, str]], Built]]:
        """Yield the function that makes the rows of one task (executors.stage.Stage)."""
        if self.plan.given and not self.options.verified:
            yield lambda job: self._recorded(job[0])
            return
        expert = None if self.plan.given else ExpertActor(self.settings.task)
        with closing(SessionPool(make_environment, session_limit(self.settings, self.server_kind))) as pool:
            with pool.session():
                pass  # report an unusable server before anything else
            yield lambda job: self._executed(job[0], pool, expert)

    def _recorded(self, index: int) -> Built:
        """Return the rows of a set's episodes as they are; nothing says what they earned, so they count as solved."""
        rows = []
        for given in (self.plan.given or {})[index]:
            turns = list(zip(given.replies, given.observations, strict=True))
            last = len(turns) - 1
            steps = tuple(
                Step(reply, action_of(reply), seen, float(i == last), i == last)
                for i, (reply, seen) in enumerate(turns)
            )
            task = Task(self.settings.task, given.index, given.task_id, given.opening)
            rows.append(self._given_row(given, task, steps, replayed=False))
        return Built(rows, {})

    def _executed(self, index: int, pool: SessionPool, expert: ExpertActor | None) -> Built:
        with pool.session() as env:
            task = env.reset(index)
        if not self._allow_test:
            self._held_out.check(task)
        replayer = Replayer(pool, index, task.id, self.stop.is_set)
        counts: Counter[str] = Counter()
        if expert:
            rows = list(self._played(Episodes(self.settings, self.options, expert, replayer, task), counts))
        else:
            rows = list(self._replayed((self.plan.given or {})[index], replayer, counts))
        counts.update(replays=replayer.replays, env_steps=replayer.env_steps)
        return Built(rows, dict(counts))

    def _replayed(
        self, episodes: Sequence[GivenEpisode], replayer: Replayer, counts: Counter[str]
    ) -> Iterator[RecordRow]:
        """Yield the rows of a set's episodes that, executed, earn more than ALPHA."""
        for given in episodes:
            task, steps = replayer.run(given.replies)
            if self.options.rule.good(earned(steps)):
                yield self._given_row(given, task, steps, replayed=True)
            else:
                counts["unsolved"] += 1

    def _given_row(
        self, given: GivenEpisode, task: Task, steps: tuple[Step, ...], replayed: bool
    ) -> RecordRow:
        source = Source(Path(given.path).name, given.sha256, self.settings.prompt, self.settings.seed)
        loss = given.loss[: len(steps)]
        record = Record(EXPERT, steps, 0, trajectory(steps), replayed=replayed, loss=loss)
        return to_row(record, task, source, False, self.options.reference_fields)

    def _played(self, episodes: Episodes, counts: Counter[str]) -> Iterator[RecordRow]:
        """Yield the rows of a task's rounds: the expert's episode, or one with a slip and its repair."""
        settings, plan = self.settings, self.plan
        self._solved.append(episodes.solved is not None)
        if len(self._solved) >= MIN_TRIED and not any(self._solved):
            tried = f"none of {len(self._solved)} tasks at {without_password(settings.env_server_base)}"
            raise InputError(f"the expert of {settings.task} solves {tried}")
        if episodes.solved is None:
            counts["unsolved"] += 1
            return
        for number in range(plan.rounds):
            rng = random.Random(f"{settings.seed}|{episodes.task.id}|{number}")
            slipped = episodes.with_slip(rng) if rng.random() < plan.noise else None
            record = slipped or episodes.clean()
            source = Source("", "", settings.prompt, settings.seed)
            options = self.options
            yield to_row(record, episodes.task, source, options.mask_refused, options.reference_fields)


class Episodes:
    """A bundled expert's episodes of one task, without the steps that they do not need."""

    def __init__(
        self, settings: Settings, options: Options, expert: ExpertActor, replayer: Replayer, task: Task
    ) -> None:
        """Let the expert play the task once."""
        self.task = task
        self._prompt, self._expert, self._replayer = settings.prompt, expert, replayer
        self._budget = options.clean_replays if options.clean else 0
        self.solved = self._finished(())  # the steps; None: the expert does not solve the task

    def clean(self) -> Record:
        """Return the record of the expert's episode."""
        assert self.solved is not None
        return Record(EXPERT, self.solved, 0, trajectory(self.solved))

    def with_slip(self, rng: random.Random) -> Record | None:
        """Return a revision: the episode up to a slip, the revision signal, and the expert's way on from there.

        Returns:
            None if no place has a slip that is no look and after which the expert solves the task.
        """
        assert self.solved is not None
        for at in rng.choices(range(len(self.solved)), k=SLIP_TRIES):
            before = self.solved[:at]
            slip = self._expert.answer(acting_messages(self.task, before, self._prompt), rng, 1.0)
            bad = self._replayer([*(step.reply for step in before), slip])
            wrong = bad[-1].action != self.solved[at].action and not is_look(self.task.env, bad[-1])
            if not wrong or bad[-1].done or bad[-1].disaster:
                continue
            fixed = [*(step.reply for step in bad), revision_signal(rng)]
            if steps := self._finished(fixed):
                return self._revision(steps, bad, at)
        return None

    def _finished(self, fixed: Sequence[str]) -> tuple[Step, ...] | None:
        """Return an executed episode that begins with the replies `fixed`, or None if it is not solved."""
        env, replay = self.task.env, self._replayer
        steps = replay.resume(self._expert, replay(fixed), self._prompt, MAX_STEPS, 0.0, 0)
        if earned(steps) < 1 - EPSILON:
            return None
        tail = [step.reply for step in steps[len(fixed) :]]
        short = shorten(fixed, tail, replay, env=env, reward=1.0, budget=self._budget, every=False)
        return None if short is None else short.steps

    def _revision(self, steps: tuple[Step, ...], bad: Sequence[Step], at: int) -> Record:
        assert self.solved is not None
        good, slip = trajectory(self.solved), len(self.solved) + 1  # the node of the slip
        pair = Pair(good, Trajectory(0, (*good.nodes[:at], slip), tuple(bad), earned(bad)), at, at)
        feedback, extra = cut_lineage(pair, CutPoint(at, ((slip, SLIP),)), at)
        return Record("revision", steps, at + 1, good, pair, feedback=feedback, extra=extra)


def trajectory(steps: Sequence[Step]) -> Trajectory:
    """Return the steps as a path, whose nodes are numbered from 1."""
    return Trajectory(0, tuple(range(1, len(steps) + 1)), tuple(steps), earned(steps))
