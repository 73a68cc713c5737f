"""Live revision: the judge looks at each step while the actor plays, for environments that cannot go back to a state.

A task is played N_ROLLOUT times as it is; the mean of these plain episodes is its usual reward. Then it is played ITERA
times with the judge: a revision signal follows each step that is judged bad, in the same session, and the actor goes
on. Nothing is replayed or copied. live_rows.py makes records of the episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from random import Random
from threading import Event
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.executors import Saved, ignore
from mcts_utils.prompts import env_steps_of, is_signal_step, judge_messages, revision_signal
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.judge_source import JudgeSource, models_of
from mcts_utils.revision.live_rows import usual_reward
from mcts_utils.revision.verdict_cache import question_sha256
from mcts_utils.rollouts.episode import derive_seed, ending, take_step
from mcts_utils.rollouts.steps import EPSILON, earned
from mcts_utils.search.baselines import LIVE, Baseline
from mcts_utils.search.mcts import fill
from mcts_utils.search.simulator import TaskSimulator
from mcts_utils.search.stage import SearchStage
from mcts_utils.search.strategy import RNG, Strategy
from mcts_utils.search.tree import Tree, backup
from mcts_utils.storage.formats.verdicts import KeptVerdict
from mcts_utils.storage.journal import Journal
from mcts_utils.types import Actor, EnvError, InputError, MakeActor, MakeEnvironment, ServiceGone, Step, Task


@dataclass(frozen=True)
class LiveStrategy(Strategy):
    """Live revision and its settings."""

    judge: str = ""  # verdict_cache.judge_name
    judge_prompt: str = ""  # key of prompts.JUDGE_PROMPTS

    name = LIVE
    unused = ("n_gen", "uct_c")

    def fixed(self) -> dict[str, Any]:
        """Return what all trees of the folder share; each of them records it."""
        votes = {"judge_votes": self.settings.judge_votes}
        return {**super().fixed(), "judge": self.judge, "judge_prompt": self.judge_prompt, **votes}


@dataclass(frozen=True)
class Played:
    """An episode."""

    task: Task  # as the episode opened
    steps: Sequence[Step]
    verdicts: Mapping[int, KeptVerdict]  # by the place of the step
    counts: Mapping[str, int]  # by names of a tree's stats


@dataclass
class Player:
    """Plays the episodes of one task. Safe for threads."""

    task: Task
    settings: Settings
    simulate: Callable[[Task], TaskSimulator]  # asks the actor
    pool: SessionPool
    stopped: Callable[[], bool]
    judge: Judge | None = None  # None: plain episodes

    def play(self, number: int) -> Played:
        """Play episode `number`; once more from its reset if the server fails.

        Raises:
            EnvError: it failed twice.
        """
        try:
            return self._play(number)
        except EnvError as error:
            if isinstance(error, ServiceGone):
                raise
            return self._play(number)

    def _play(self, number: int) -> Played:
        settings, index = self.settings, self.task.index
        rng = Random(derive_seed(settings.seed, index, number, RNG))
        steps: list[Step] = []
        turns = 0  # of the actor; what is put in is not counted
        verdicts: dict[int, KeptVerdict] = {}
        with self.pool.session(self.stopped) as env:
            task = env.reset(index)
            if task.id != self.task.id:
                raise EnvError(f"index {index} was {self.task.id} and is now {task.id}")
            simulator = self.simulate(task)
            with simulator.iteration(number) as explorer:
                while turns < settings.max_depth and not ending(steps):
                    drawn = explorer.sample(steps, 1)
                    if not drawn:  # the context is full
                        break
                    steps.append(replace(take_step(env, drawn[0].text, earned(steps)), cut=drawn[0].cut))
                    turns += 1
                    # A signal that no step could follow would be of no use.
                    if turns < settings.max_depth and (found := self._verdict(task, steps)):
                        verdicts[len(steps) - 1] = found
                        if found.label == "bad":
                            steps.append(take_step(env, revision_signal(rng, settings.form), earned(steps)))
                counts = dict(explorer.counts())
        taken = sum(map(env_steps_of, steps))
        simulator.counters.add(env_steps=taken)
        counts |= {"env_resets": 1, "env_steps": taken}
        if self.judge:
            counts["judged"] = len(verdicts)
            counts["judge_requests"] = sum(verdict.asked for verdict in verdicts.values())
            counts["signals"] = sum(verdict.label == "bad" for verdict in verdicts.values())
        return Played(task, steps, verdicts, counts)

    def _verdict(self, task: Task, steps: Sequence[Step]) -> KeptVerdict | None:
        """Return the verdict on the last step; None if there is no judge, or nothing to be judged."""
        if self.judge is None or ending(steps) or is_signal_step(steps[-1]):
            return None
        question = judge_messages(task, steps[:-1], steps[-1], self.judge.prompt)
        return KeptVerdict.of(question_sha256(question), self.judge.ask(question))


class LiveStage(SearchStage):
    """One run of live revision. Its trees hold one branch an episode: first the plain ones, then the judged ones."""

    judge: JudgeSource | None
    _judge: Judge

    def _make_strategy(self, weights: str, baseline: Baseline | None) -> Strategy:
        if self.settings.n_rollout < 1:
            raise InputError(
                f"N_ROLLOUT must be at least 1 for --strategy {LIVE}, whose plain episodes it counts: "
                f"{self.settings.n_rollout}"
            )
        self.judge = source = JudgeSource.of(self.settings, weights)
        self.models = models_of(self.settings, source)
        judge = (source.name, source.settings.prompt)
        return LiveStrategy(self.settings, self.server_kind, weights, None, *judge)

    @contextmanager
    def job_runner(
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, saved: Saved = ignore
    ) -> Iterator[Callable[[int], Any]]:
        """Yield the function that plays the episodes of one task (executors.stage.Stage)."""
        assert make_actor is not None and self.judge is not None
        made: list[Actor] = []
        used: dict[str, Any] = {}

        def make() -> Actor:
            made.append(make_actor())
            return made[0]

        try:
            with (
                super().job_runner(make, make_environment, saved) as run_job,
                self.judge.opened(made[0], self, used) as self._judge,
            ):
                yield run_job
        finally:
            self.usage |= used

    def _sessions(self, pool: SessionPool) -> AbstractContextManager[SessionPool]:
        # An episode has a session and an opening of its own, so none must be the tree's alone.
        return nullcontext(pool)

    def _journal(self, index: int, shared: bool) -> Journal:
        return Journal()  # the answers to an episode that cannot be continued are of no use

    def _iterations(
        self, tree: Tree, actor: Actor, pool: SessionPool, threads: ThreadPoolExecutor
    ) -> Iterator[int]:
        """Play the episodes that are missing; yield the number of each one when it is in the tree."""
        s, done, failed = self.settings, tree.stats["iterations"], Event()
        stopped = lambda: failed.is_set() or self.stop.is_set()  # noqa: E731
        simulate = lambda task: TaskSimulator(task, s, actor, pool, threads, self.counters, stopped)  # noqa: E731
        player = Player(tree.task, s, simulate, pool, stopped)
        try:
            yield from _wave(tree, player, range(done, s.n_rollout), threads)
            if usual_reward(tree) < 1 - EPSILON:  # otherwise no episode can earn more
                player, done = replace(player, judge=self._judge), max(done, s.n_rollout)
                yield from _wave(tree, player, range(done, s.n_rollout + s.itera), threads)
        except BaseException:
            failed.set()
            raise


def _wave(tree: Tree, player: Player, numbers: range, threads: ThreadPoolExecutor) -> Iterator[int]:
    """Play these episodes at once; add each to the tree in the order of the numbers, and yield its number."""
    futures = [threads.submit(player.play, number) for number in numbers]
    for number, future in zip(numbers, futures, strict=True):
        add_episode(tree, future.result(), plain=player.judge is None)
        yield number


def add_episode(tree: Tree, played: Played, plain: bool) -> None:
    """Add an episode to the tree, as a branch of its own: in a live environment, equal actions are not equal states."""
    node, nodes = tree.root, []
    for place, step in enumerate(played.steps):
        node = tree.add(node, step.reply, step.action, step.cut)
        fill(node, step, math.inf)
        before = played.verdicts.get(place - 1)
        node.samples = int(before is None or before.label != "bad")  # else a signal that was put in
        nodes.append(node)
    counts = {**played.counts, "iterations": 1, "plain": 0}
    if nodes:
        node.is_terminal = True
        backup(node, node.reward)
        if played.task.opening != tree.task.opening:
            tree.openings[nodes[0].id] = played.task.opening
        tree.verdicts |= {nodes[place].id: verdict for place, verdict in played.verdicts.items()}
        counts |= {"rollouts": 1, "plain": int(plain)}
    for name, count in counts.items():
        tree.stats[name] = tree.stats.get(name, 0) + count
