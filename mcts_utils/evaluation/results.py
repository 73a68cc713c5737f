"""Read the files of evaluation runs, and check that two runs can be compared. Rolls nothing out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.evaluation import metrics
from mcts_utils.evaluation.protocol import differences
from mcts_utils.storage.files import read_json
from mcts_utils.storage.layout import episode_name
from mcts_utils.types import InputError, Step


def by_task(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Finished records by the task and prefix that they are samples of."""
    tasks: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        tasks.setdefault((str(record["task"]["index"]), record["settings"]["prefix"]), []).append(record)
    return tasks


def own_steps(record: Mapping[str, Any]) -> list[Step]:
    """The steps that the agent took itself: a replayed prefix left out."""
    return [Step(**step) for step in record["steps"][record["prefix_steps"] :]]


def compare(run_a: str | Path, run_b: str | Path) -> dict[str, Any]:
    """Two finished runs over the same panel, paired by goal (metrics.compare_runs).

    Raises:
        InputError: see `check_alike`.
    """
    check_alike(run_a, run_b)
    return metrics.compare_runs(rewards_of(run_a), rewards_of(run_b))


def check_alike(run_a: str | Path, run_b: str | Path) -> None:
    """Nothing, if two finished runs may be compared.

    Raises:
        InputError: when a run has no summary, or the panels or protocols differ; it names what differs.
    """
    one, two = summary_of(run_a), summary_of(run_b)
    for run, summary in ((run_a, one), (run_b, two)):
        if not summary["n"]:
            raise InputError(f"{run}: summary.json counts no finished episode")
    if changed := differences(one["protocol"], two["protocol"]):
        if one["protocol"]["panel"] != two["protocol"]["panel"]:
            left, right = (rewards_of(run).keys() for run in (run_a, run_b))
            changed.append(
                f"goals only in the first {len(left - right)}, only in the second {len(right - left)}"
            )
        raise InputError(f"{run_a} and {run_b} cannot be compared: {'; '.join(changed)}")


def rewards_of(run: str | Path) -> dict[str, list[float]]:
    """Goal -> the final rewards of its samples; a goal that a server lists twice is told apart by its order."""
    seen: Counter[str] = Counter()
    rewards = {}
    for found in by_task(list(episodes_of(run))).values():
        goal = found[0]["task"]["id"]
        rewards[f"{goal}#{seen[goal]}"] = [record["reward"] for record in found]
        seen[goal] += 1
    return rewards


def episodes_of(run: str | Path, indices: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Finished episodes of a run folder, by index and sample; those of its summary unless `indices` are given.

    Raises:
        InputError: an episode is missing or not finished; of several samples of a task, some may be.
    """
    summary = summary_of(run)
    samples = summary.get("samples", 1)
    for index in sorted(summary["indices"] if indices is None else indices):
        for sample in range(samples):
            record = read_json(Path(run) / episode_name(index, sample))
            if isinstance(record, dict) and record.get("status") == "done":
                yield record
            elif samples == 1:
                raise InputError(f"{run}: {episode_name(index)} is no finished episode; run eval.py again")


def summary_of(run: str | Path) -> dict[str, Any]:
    """The summary of a run folder.

    Raises:
        InputError: when there is none, or it is no evaluation's.
    """
    path = Path(run) / "summary.json"
    summary = read_json(path)
    if not isinstance(summary, dict) or not {"n", "indices", "protocol"} <= summary.keys():
        raise InputError(f"{path}: not the summary of an evaluation run")
    return summary
