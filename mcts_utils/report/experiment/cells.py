"""Cells of the experiment: evaluated models with their measures by goal. It reads files and averages no goals.

A cell is an arm, a seed and an iteration; the untrained model is the base of all arms. A cell counts only if all of its
episodes are finished. All cells of a run have the same eval set and protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation.metrics.behaviour import LOOP_LENGTHS, actions_until, repeated_sequences
from mcts_utils.evaluation.metrics.scores import is_success
from mcts_utils.evaluation.protocol import differences
from mcts_utils.evaluation.results import episodes_by_goal, summary_of
from mcts_utils.report.common import only
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.storage.files import read_json
from mcts_utils.storage.formats.episode import EpisodeFile, EvalProtocol
from mcts_utils.storage.formats.summary import Summary
from mcts_utils.types import InputError

BASE = "base"  # the untrained model
BASE_SEED = -1  # stands for its seed: it does not depend on one
SOLVED = "solved_"  # prefix of the success measures of single kinds of goals
RESULTS = "test_result"
SUCCESS, RECOVERY, REPEATS, REVISION = "success_rate", "recovery_rate", "repeats", "revision_length"


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """The contents of arms.json: the planned cells of the experiment."""

    seeds: tuple[int, ...]
    arms: Mapping[str, int]  # name -> the number of iterations, in the order of the file
    data: Mapping[str, Any]  # name -> [[data type, flags], ...]
    branches: frozenset[str] = frozenset()  # arms whose first iteration is that of another arm
    model: str = "tiny_actor"  # its name in paths
    command: str = "bash scripts/experiment.sh"

    def cells(self) -> list[tuple[str, int, int]]:
        """Return (arm, seed, iteration) of every planned cell."""
        by_iteration = [(arm, i) for arm, last in self.arms.items() for i in range(1, last + 1)]
        return [(arm, seed, i) for arm, i in by_iteration for seed in self.seeds]


@dataclass(frozen=True, slots=True)
class Cell:
    """One evaluated model."""

    # Name -> goal (of RECOVERY: failed prefix) -> number; a measure that was not evaluated and goals without a number
    # are left out.
    measures: Mapping[str, Mapping[str, float]]
    seconds: float  # of both evaluations
    tokens: Mapping[str, int]


def loops_measure(length: int) -> str:
    """Return the name of the measure "repeated sequences of `length` actions per episode" (Figure 4)."""
    return f"loops_{length}"


def read_plan(run: Path) -> ExperimentPlan:
    """Read arms.json; raise InputError naming the file and what is wrong."""
    path = run / "arms.json"
    found = read_json(path)
    try:
        arms = {
            str(name): int(arm.get("iterations", found["iterations"])) for name, arm in found["arms"].items()
        }
        data = {str(name): arm.get("data", []) for name, arm in found["arms"].items()}
        branches = frozenset(name for name, arm in found["arms"].items() if arm.get("from"))
        seeds = tuple(sorted(int(seed) for seed in found["seeds"]))
        more = {name: str(found[name]) for name in ("model", "command") if name in found}
        return ExperimentPlan(seeds, arms, data, branches, **more)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not an experiment's arms ({error!r})") from error


class Cells:
    """The finished cells of a run, and the reasons why the others do not count."""

    def __init__(self, run: Path, plan: ExperimentPlan) -> None:
        """Read every episode file of the planned cells.

        Raises:
            InputError: nothing was evaluated, or two cells have different eval sets or protocols; the message names the
                cells and what differs.
        """
        results = run / RESULTS
        if not results.is_dir():
            raise InputError(f"{results}: nothing was evaluated")
        self._folder, self._model = only(results, "*"), plan.model
        self.missing: dict[str, str] = {}  # model type -> reason why the cell does not count
        self._protocols: dict[str, tuple[str, EvalProtocol]] = {}  # mode -> (first cell, its protocol)
        self.base = self._cell(BASE)
        self.finished = {
            (arm, seed, i): cell
            for arm, seed, i in plan.cells()
            if (cell := self._cell(f"{arm}_s{seed}_i{i}")) is not None
        }
        if self.base is None and not self.finished:
            raise InputError(f"{self._folder}: no finished evaluation")

    @property
    def protocols(self) -> dict[str, EvalProtocol]:
        """Return mode -> the protocol of all cells, with the sha256 of the eval set."""
        return {mode: protocol for mode, (_, protocol) in self._protocols.items()}

    def by_seed(self, arm: str, iteration: int) -> dict[int, Cell]:
        """Return seed -> finished cell of an arm at an iteration; the untrained model has the seed BASE_SEED."""
        if arm == BASE:
            return {BASE_SEED: self.base} if self.base else {}
        found = sorted(self.finished.items())
        return {seed: cell for (name, seed, i), cell in found if (name, i) == (arm, iteration)}

    def _cell(self, name: str) -> Cell | None:
        """Read the evaluations of one model type, or return None if the main one is not finished."""
        summary = self._finished(name)
        if summary is None:
            return None
        found, summaries = measures(self._run(name), summary), [summary]
        # All continue the untrained model's failed prefixes; an experiment without them asks for none of these.
        if self._run(f"{BASE}_revise").is_dir() and (revise := self._finished(f"{name}_revise")):
            summaries.append(revise)
            found[RECOVERY] = measures(self._run(f"{name}_revise"), revise)[SUCCESS]
        seconds, tokens = sum(one.seconds for one in summaries), sum_tokens([one.tokens for one in summaries])
        return Cell(found, seconds, tokens)

    def _run(self, name: str) -> Path:
        return self._folder / f"{self._model}_{name}"

    def _finished(self, name: str) -> Summary | None:
        """Return the summary of a finished evaluation, or None after adding the reason to `missing`."""
        path = self._run(name) / "summary.json"
        if not path.exists():
            self.missing[name] = "not evaluated"
            return None
        summary = summary_of(path.parent)
        if summary.n_failed or not summary.n:
            self.missing[name] = f"{summary.n_failed} of {summary.n + summary.n_failed} episodes failed"
            return None
        earlier, protocol = self._protocols.setdefault(summary.protocol.mode, (name, summary.protocol))
        if changed := differences(protocol, summary.protocol):
            raise InputError(
                f"{self._run(earlier)} and {self._run(name).name} cannot be compared: {'; '.join(changed)}"
            )
        return summary


def measures(run: Path, summary: Summary) -> dict[str, dict[str, float]]:
    """Return measure -> goal -> number from a run's episode files; several samples of a goal count as their mean.

    repeats: the number of actions equal to the one before. loops_k: repeats of sequences of k actions (Figure 4).
    revision_length: the number of actions up to and including the first that the environment refused, for failed
    episodes that have one (Figure 5 uses the judge's first error instead). solved_NAME_GROUP: success on the goals of
    one kind (EnvSpec.breakdown_keys).
    """
    found: dict[str, dict[str, float]] = {SUCCESS: {}, REPEATS: {}, REVISION: {}}
    env = summary.protocol.task
    for goal, episodes in episodes_by_goal(run):
        samples = [episode_measures(episode, env) for episode in episodes]
        for name in set().union(*samples):
            values = [sample[name] for sample in samples if name in sample]
            found.setdefault(name, {})[goal] = sum(values) / len(values)
    return found


def episode_measures(episode: EpisodeFile, env: str) -> dict[str, float]:
    """Return the measures of one episode; revision_length only if it failed and an action was refused."""
    steps = episode.own_steps
    actions = [step.action for step in steps]
    found = {loops_measure(length): float(repeated_sequences(actions, length)) for length in LOOP_LENGTHS}
    found |= {SUCCESS: float(is_success(episode.reward)), REPEATS: found[loops_measure(1)]}
    refused = actions_until(steps, partial(is_refused, env))
    if not found[SUCCESS] and refused is not None:
        found[REVISION] = float(refused)
    for name, group in env_spec(env).breakdown_keys(episode.task.opening, episode.task.index).items():
        found[f"{SOLVED}{name}_{group}"] = found[SUCCESS]
    return found


def sum_tokens(parts: list[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sums of calls, prompt tokens and completion tokens."""
    names = ("calls", "prompt_tokens", "completion_tokens")
    return {name: sum(int(part.get(name, 0)) for part in parts) for name in names}
