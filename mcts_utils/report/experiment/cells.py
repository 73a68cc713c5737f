"""Cells of the experiment: evaluated models, and by goal what their episodes did. It reads files and averages nothing.

A cell is an arm, a seed and an iteration; the base belongs to all arms. A cell counts only when all of its episodes are
there, and all cells of a run start from the same goals under the same protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation.metrics import LOOP_LENGTHS, first, is_success, repeated_sequences
from mcts_utils.evaluation.protocol import differences
from mcts_utils.evaluation.results import by_task, episodes_of, own_steps
from mcts_utils.report.common import only
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.storage.files import read_json
from mcts_utils.types import InputError

BASE = "base"
SOLVED = "solved_"  # begins the measures of single kinds of goals
RESULTS, MODEL = "test_result", "tiny_actor"
SUCCESS, RECOVERY, REPEATS, REVISION = "success_rate", "recovery_rate", "repeats", "revision_length"


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """arms.json: what the experiment is to contain."""

    seeds: tuple[int, ...]
    arms: Mapping[str, int]  # name -> iterations, in the order of the file
    data: Mapping[str, Any]  # name -> [[data type, flags], ...]
    branches: frozenset[str] = frozenset()  # arms whose first iteration is another's

    def cells(self) -> list[tuple[str, int, int]]:
        """(arm, seed, iteration) of every cell."""
        return [
            (arm, seed, i)
            for arm, last in self.arms.items()
            for i in range(1, last + 1)
            for seed in self.seeds
        ]


@dataclass(frozen=True, slots=True)
class Cell:
    """One evaluated model. A measure is goal -> number; a goal whose episode has none is left out."""

    measures: Mapping[str, Mapping[str, float]]  # those of measures()
    protocol: Mapping[str, Any]  # of the main evaluation, with the panel's hash
    recovery: Mapping[str, float] | None  # failed prefix -> 1 where it was recovered; None: not evaluated
    revise_protocol: Mapping[str, Any] | None
    seconds: float  # of both evaluations
    tokens: Mapping[str, int]

    def by_goal(self, measure: str) -> Mapping[str, float] | None:
        """One measure; None where it was not evaluated."""
        return self.recovery if measure == RECOVERY else self.measures.get(measure)


def loops(length: int) -> str:
    """Name of the measure: repeated sequences of `length` actions in an episode (Figure 4)."""
    return f"loops_{length}"


def solved_in(name: str, group: str) -> str:
    """Name of the measure: success on the goals of one kind (contract.strata)."""
    return f"{SOLVED}{name}_{group}"


def read_plan(run: Path) -> ExperimentPlan:
    """What arms.json says.

    Raises:
        InputError: naming the file and what is wrong in it.
    """
    path = run / "arms.json"
    found = read_json(path)
    try:
        arms = {
            str(name): int(arm.get("iterations", found["iterations"])) for name, arm in found["arms"].items()
        }
        data = {str(name): arm.get("data", []) for name, arm in found["arms"].items()}
        branches = frozenset(name for name, arm in found["arms"].items() if arm.get("from"))
        return ExperimentPlan(tuple(sorted(int(seed) for seed in found["seeds"])), arms, data, branches)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not an experiment's arms ({error!r})") from error


class Cells:
    """The finished cells of a run, and why the others do not count."""

    def __init__(self, run: Path, plan: ExperimentPlan) -> None:
        """Reads every episode file.

        Raises:
            InputError: two cells have different panels or protocols; the line names the cells and what differs.
        """
        results = run / RESULTS
        if not results.is_dir():
            raise InputError(f"{results}: nothing was evaluated")
        self._folder = only(results, "*")
        self.missing: dict[str, str] = {}  # model type -> why it does not count
        self._panels: dict[str, tuple[str, Mapping[str, Any]]] = {}  # mode -> (first cell, its protocol)
        self.base = self._cell(BASE)
        self.found = {
            (arm, seed, i): cell
            for arm, seed, i in plan.cells()
            if (cell := self._cell(f"{arm}_s{seed}_i{i}")) is not None
        }
        if self.base is None and not self.found:
            raise InputError(f"{self._folder}: no finished evaluation")

    @property
    def protocols(self) -> dict[str, Mapping[str, Any]]:
        """Mode -> the protocol that all cells have, with the panel's hash."""
        return {mode: protocol for mode, (_, protocol) in self._panels.items()}

    def of(self, arm: str, iteration: int) -> dict[int, Cell]:
        """Seed -> cell."""
        return {s: cell for (name, s, i), cell in sorted(self.found.items()) if (name, i) == (arm, iteration)}

    def _cell(self, name: str) -> Cell | None:
        summary = self._finished(name)
        if summary is None:
            return None
        revise = self._finished(f"{name}_revise")
        kept = [summary] if revise is None else [summary, revise]
        return Cell(
            measures(self._run(name), summary),
            summary["protocol"],
            None if revise is None else successes(self._run(f"{name}_revise")),
            None if revise is None else revise["protocol"],
            sum(float(one.get("seconds", 0)) for one in kept),
            sum_tokens([one.get("tokens", {}) for one in kept]),
        )

    def _run(self, name: str) -> Path:
        return self._folder / f"{MODEL}_{name}"

    def _finished(self, name: str) -> dict[str, Any] | None:
        """The summary of a finished evaluation; else the reason goes to `missing`."""
        path = self._run(name) / "summary.json"
        if not path.exists():
            self.missing[name] = "not evaluated"
            return None
        summary = read_json(path)
        if not isinstance(summary, dict) or not {"n", "n_failed", "indices", "protocol"} <= summary.keys():
            raise InputError(f"{path}: not the summary of an evaluation run")
        if summary["n_failed"] or not summary["n"]:
            self.missing[name] = (
                f"{summary['n_failed']} of {summary['n'] + summary['n_failed']} episodes failed"
            )
            return None
        earlier, protocol = self._panels.setdefault(summary["protocol"]["mode"], (name, summary["protocol"]))
        if changed := differences(protocol, summary["protocol"]):
            raise InputError(
                f"{self._folder}: {MODEL}_{earlier} and {MODEL}_{name} cannot be compared: {'; '.join(changed)}"
            )
        return summary


def measures(run: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Measure -> goal -> number, from a run's episode files; of several samples of a goal, their mean.

    repeats: actions equal to the one before; loops_k: Figure 4. revision_length: actions up to and including the first
    one that the environment refused, of failed episodes that have one (Figure 5 has the judge's first error there).
    solved_NAME_GROUP: success, of the goals of one kind.
    """
    found: dict[str, dict[str, float]] = {
        name: {} for name in (SUCCESS, REPEATS, REVISION, *map(loops, LOOP_LENGTHS))
    }
    env = summary["protocol"]["task"]
    for goal, episodes in keyed(run):
        seen = [of_episode(episode, env) for episode in episodes]
        for name in {name for one in seen for name in one}:
            values = [one[name] for one in seen if name in one]
            found.setdefault(name, {})[goal] = sum(values) / len(values)
    return found


def of_episode(episode: Mapping[str, Any], env: str) -> dict[str, float]:
    """The measures of one episode; revision_length only where it failed and an action was refused, as in loops.py."""
    steps = own_steps(episode)
    actions = [step.action for step in steps]
    found = {loops(length): float(repeated_sequences(actions, length)) for length in LOOP_LENGTHS}
    found |= {SUCCESS: float(is_success(episode["reward"])), REPEATS: found[loops(1)]}
    refused = first(steps, partial(is_refused, env))
    if not found[SUCCESS] and refused is not None:
        found[REVISION] = float(refused)
    task = episode["task"]
    for name, group in env_spec(env).breakdown_keys(task["opening"], task["index"]).items():
        found[solved_in(name, group)] = found[SUCCESS]
    return found


def successes(run: Path) -> dict[str, float]:
    """Goal -> 1 where the episode ended with the full reward, else 0; of several samples, their mean."""
    return {
        goal: sum(is_success(episode["reward"]) for episode in episodes) / len(episodes)
        for goal, episodes in keyed(run)
    }


def keyed(run: Path) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    """(goal, its episodes) by index; a goal that a server lists twice is told apart by its order."""
    seen: Counter[str] = Counter()
    rows: list[tuple[str, Sequence[Mapping[str, Any]]]] = []
    for episodes in by_task(list(episodes_of(run))).values():
        goal = episodes[0]["task"]["id"]
        rows.append((f"{goal}#{seen[goal]}", episodes))
        seen[goal] += 1
    return rows


def sum_tokens(parts: list[Mapping[str, Any]]) -> dict[str, int]:
    """Calls, prompt and completion tokens together."""
    names = ("calls", "prompt_tokens", "completion_tokens")
    return {name: sum(int(part.get(name, 0)) for part in parts) for name in names}
