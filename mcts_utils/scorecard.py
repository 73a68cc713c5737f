"""Scorecards: the numbers of an evaluation run's episode files, and the paired comparison of two runs.

It reads result files and rolls nothing out; the statistics are metrics.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils import metrics
from mcts_utils.cleaning import is_refused
from mcts_utils.panel import panel_hash
from mcts_utils.storage import read_json
from mcts_utils.types import InputError, Step

VERSION = 1


def summarise(
    records: Sequence[Mapping[str, Any]],
    protocol: Mapping[str, Any],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """The numbers of a run; failed tasks are counted beside the scores, never in them."""
    done = [record for record in records if record["status"] == "done"]
    failed = [record for record in records if record["status"] != "done"]
    rewards = [record["reward"] for record in done]
    success, reward = metrics.success_rate(rewards), metrics.mean_reward(rewards)
    own = [[Step(**step) for step in record["steps"][record["prefix_steps"] :]] for record in done]
    keyed = [(record["task"]["id"], record["settings"]["prefix"]) for record in done]
    summary = {
        "version": VERSION,
        **model,
        "success_rate": success.mean,
        "mean_reward": reward.mean,
        "n": success.n,
        "ci95": {"success_rate": success.ci95, "mean_reward": reward.ci95},
        "n_failed": len(failed),
        "failures": [{"index": record["index"], "error": record["error"]} for record in failed],
        "ends": dict(sorted(Counter(record["end"] for record in done).items())),
        **metrics.behaviour(own, lambda step: is_refused(protocol["task"], step)),
        "protocol": {**protocol, "panel": panel_hash(keyed)},
        "indices": [record["task"]["index"] for record in done],
    }
    if protocol["mode"] == "revise":  # Table 3: how many of the failed prefixes still end well
        summary["recovery_rate"] = success.mean
        summary["prefixes_replayed_exactly"] = sum(record["prefix_exact"] for record in done)
    return _plain(summary)


def compare(run_a: str | Path, run_b: str | Path) -> dict[str, Any]:
    """Two finished runs over the same panel, paired by goal (metrics.compare_runs).

    Raises:
        InputError: when a run has no summary, or the panels or protocols differ; it names what differs.
    """
    one, two = summary_of(run_a), summary_of(run_b)
    for run, summary in ((run_a, one), (run_b, two)):
        if not summary["n"]:
            raise InputError(f"{run}: summary.json counts no finished episode")
    changed = differences(one["protocol"], two["protocol"])
    if changed:
        raise InputError(f"{run_a} and {run_b} cannot be compared: {'; '.join(changed)}")
    return metrics.compare_runs(_rewards(run_a, one), _rewards(run_b, two))


def _rewards(run: str | Path, summary: Mapping[str, Any]) -> dict[str, float]:
    """Goal -> final reward; a goal that a server lists twice is told apart by its order."""
    seen: Counter[str] = Counter()
    rewards = {}
    for record in episodes_of(run, summary["indices"]):
        goal = record["task"]["id"]
        rewards[f"{goal}#{seen[goal]}"] = record["reward"]
        seen[goal] += 1
    return rewards


def episodes_of(run: str | Path, indices: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Finished episodes of a run folder, by index; those of its summary unless `indices` are given."""
    if indices is None:
        indices = summary_of(run)["indices"]
    for index in sorted(indices):
        record = read_json(Path(run) / f"search_results_{index}.json")
        if not isinstance(record, dict) or record.get("status") != "done":
            raise InputError(f"{run}: search_results_{index}.json is no finished episode; run eval.py again")
        yield record


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


def describe(summary: Mapping[str, Any]) -> str:
    """One line a person reads at the end of a run."""
    if not summary["n"]:
        return f"no episode finished, {summary['n_failed']} failed"
    parts = [
        f"{name} {summary[key]:.3f} [{summary['ci95'][key][0]:.3f}, {summary['ci95'][key][1]:.3f}]"
        if summary["ci95"][key]
        else f"{name} {summary[key]:.3f}"
        for name, key in (("success rate", "success_rate"), ("mean reward", "mean_reward"))
    ]
    invalid, repeated = summary["invalid_action_share"] or 0, summary["repeated_action_share"] or 0
    return (
        f"{', '.join(parts)}; n {summary['n']}, failed {summary['n_failed']}; {summary['steps']['mean']:.1f} steps, "
        f"{invalid:.1%} invalid, {repeated:.1%} repeated"
    )


def describe_comparison(found: Mapping[str, Any]) -> str:
    """The paired comparison as a small table."""
    a, b = (f"{found['success_rate'][side]:.3f}" for side in (0, 1))
    c, d = (f"{found['mean_reward'][side]:.3f}" for side in (0, 1))
    interval = found["difference_ci95"]
    rows = {
        "tasks": str(found["n"]),
        "success rate": f"{a} -> {b}",
        "mean reward": f"{c} -> {d}",
        "difference": f"{found['difference']:+.3f}"
        + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""),
        "wins / losses / ties": f"{found['wins']} / {found['losses']} / {found['ties']}",
        "successes gained / lost": f"{found['gained']} / {found['lost']} (McNemar: p = {found['mcnemar_p']:.3g})",
    }
    return "\n".join(f"{name:<24} {value}" for name, value in rows.items())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`name old -> new` for every key that differs."""
    return [f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a summary equals its own JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
