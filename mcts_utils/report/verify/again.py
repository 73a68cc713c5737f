"""Execute a sample of a run again: rows, paths of trees and episodes, each from its replies alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

from mcts_utils.envs import make_environment, server_about
from mcts_utils.envs.contamination import look_up
from mcts_utils.envs.specs import env_spec
from mcts_utils.envs.task_ids import split_ids
from mcts_utils.report.verify.checks import Checks
from mcts_utils.rollouts.episode import replay
from mcts_utils.rollouts.steps import EPSILON, earned
from mcts_utils.types import Environment, Step, Task

AGAIN = "execution"
BUNDLED = ("textcraft", "webshop")  # servers that run in this process


@dataclass(frozen=True)
class Played:
    """What was executed, and what came back."""

    path: Path
    row: int  # from 1; 0 for a tree or an episode
    task: Task
    steps: Sequence[Step]
    reward: float
    kind: str = ""  # of the server; empty: not known
    grounding: bool = True
    action_format: str = "any"


class Sampler:
    """Draws at most `count` of each sort of what was executed; which ones depends on the seed and on their order."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._rng = count, Random(seed)
        self._offered: Counter[str] = Counter()
        self.drawn: dict[str, list[Played]] = {}

    def offer(self, sort: str, played: Played) -> None:
        """Take one more, or not."""
        self._offered[sort] += 1
        drawn = self.drawn.setdefault(sort, [])
        place = len(drawn) if len(drawn) < self._count else self._rng.randrange(self._offered[sort])
        if place < self._count:
            drawn[place : place + 1] = [played]


@contextmanager
def server_of(env: str, url: str) -> Iterator[str]:
    """Yield the URL of a server of an environment: the given one, else a bundled one for the block, else none."""
    if not url and env in BUNDLED:
        with import_module(f"mcts_utils.servers.{env}.app").running_server() as started:
            yield started
    else:
        yield url


def execute(checks: Checks, sampler: Sampler, env: str, url: str) -> None:
    """Execute what was drawn of an environment on its server; what comes back otherwise is a fault."""
    kind = str(server_about(url)["kind"])
    for sort, drawn in sampler.drawn.items():
        for played in [played for played in drawn if played.task.env == env]:
            if played.kind and played.kind != kind:
                checks.note(AGAIN, f"{sort} of another server, of kind {played.kind}, not executed")
                continue
            with checks.reading(AGAIN, played.path, played.row):
                grounding, form = played.grounding, played.action_format
                made = make_environment(env, url, grounding=grounding, action_format=form)
                with closing(made) as session:
                    for fault in differences(played, session):
                        checks.fault(AGAIN, played.path, fault, played.row)
                checks.seen(AGAIN, sort)


def differences(played: Played, session: Environment) -> Iterator[str]:
    """Yield what comes back otherwise. Where an environment's texts vary, rewards alone count."""
    task, steps = replay(session, played.task.index, [step.reply for step in played.steps])
    if task.id != played.task.id:
        yield f"the server's index {task.index} is {task.id}, not {played.task.id}"
        return
    if env_spec(task.env).fixed_observations:
        # Public servers draw parts of some openings anew: distractors, price limits.
        if played.kind not in ("", "agentgym") and task.opening != played.task.opening:
            yield "the server opens the task with another text"
        for number, (old, new) in enumerate(zip(played.steps, steps, strict=False), start=1):
            if old.observation != new.observation:
                yield f"step {number}: {old.observation[:60]!r}, the server answers {new.observation[:60]!r}"
                return
    if len(steps) < len(played.steps):
        yield f"the episode ends after {len(steps)} of {len(played.steps)} steps"
    elif abs(earned(steps) - played.reward) > EPSILON:
        yield f"its reward is {played.reward:g}, the server gives {earned(steps):g}"


def test_goals(env: str, url: str) -> frozenset[str]:
    """Return the goals of a server's test split."""
    return look_up(env, split_ids(env, url, "test"), lambda: make_environment(env, url)).task_ids
