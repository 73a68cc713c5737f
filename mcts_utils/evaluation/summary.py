"""Scorecards: the numbers of an evaluation run's episode files, and two runs over the same panel side by side.

It reads result files and rolls nothing out; the statistics are those of metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation import metrics
from mcts_utils.evaluation.eval_set import eval_set_hash
from mcts_utils.evaluation.results import by_task, own_steps
from mcts_utils.rollouts.steps import is_refused

VERSION = 1
SCORES = ("success_rate", "mean_reward")

Tasks = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]  # (index, prefix) -> the records of its samples


def summarise(
    records: Sequence[Mapping[str, Any]],
    protocol: Mapping[str, Any],
    model: Mapping[str, Any],
    samples: int = 1,
) -> dict[str, Any]:
    """The numbers of a run; failed episodes are counted beside the scores, never in them.

    Args:
        samples: episodes asked for of each task; a task counts with those that finished.
    """
    done = [record for record in records if record["status"] == "done"]
    failed = [record for record in records if record["status"] != "done"]
    tasks = by_task(done)
    keys = [key for key, found in tasks.items() for _ in found]
    own = [own_steps(record) for found in tasks.values() for record in found]
    seen = metrics.behaviour(own, lambda step: is_refused(protocol["task"], step), keys)
    score = _scores(list(tasks.values()))
    panel = eval_set_hash(
        (found[0]["task"]["id"], found[0]["settings"]["prefix"]) for found in tasks.values()
    )
    summary = {
        "version": VERSION,
        **model,
        **score,
        "ci95": {**seen.pop("ci95"), **score["ci95"]},
        "score": env_spec(protocol["task"]).score,
        "n_failed": len(failed),
        "failures": [{"index": record["index"], "error": record["error"]} for record in failed],
        "ends": dict(sorted(Counter(record["end"] for record in done).items())),
        **seen,
        "breakdown": breakdown(tasks, protocol["task"]),
        "panel": panel,
        "protocol": {**protocol, "panel": panel},
        "indices": [found[0]["task"]["index"] for found in tasks.values()],
    }
    if samples > 1:
        summary["protocol"]["samples"] = samples
        summary |= _sampled(list(tasks.values()), samples)
    if protocol["mode"] == "revise":  # Table 3: how many of the failed prefixes still end well
        summary["recovery_rate"] = summary["success_rate"]
        summary["ci95"]["recovery_rate"] = summary["ci95"]["success_rate"]
        summary["prefixes_replayed_exactly"] = sum(record["prefix_exact"] for record in done)
    return _plain(summary)


def breakdown(tasks: Tasks, env: str) -> dict[str, dict[str, Any]]:
    """Name of a breakdown (contract.strata) -> group -> n, both scores and their intervals."""
    groups: dict[str, dict[str, list[Sequence[Mapping[str, Any]]]]] = {}
    for found in tasks.values():
        task = found[0]["task"]
        for name, group in env_spec(env).breakdown_keys(task["opening"], task["index"]).items():
            groups.setdefault(name, {}).setdefault(group, []).append(found)
    return {
        name: {group: _scores(members) for group, members in sorted(of.items(), key=_by_number)}
        for name, of in sorted(groups.items())
    }


def _by_number(item: tuple[str, Any]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdecimal() else -1, item[0])


def _rewards(tasks: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[float]]:
    return [[record["reward"] for record in found] for found in tasks]


def _scores(tasks: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """n (tasks), both scores and their intervals."""
    rewards = _rewards(tasks)
    found = dict(zip(SCORES, (metrics.solved(rewards), metrics.mean_at_k(rewards)), strict=True))
    return {
        **{name: estimate.mean for name, estimate in found.items()},
        "n": len(tasks),
        "ci95": {name: estimate.ci95 for name, estimate in found.items()},
    }


def _sampled(tasks: Sequence[Sequence[Mapping[str, Any]]], samples: int) -> dict[str, Any]:
    """pass@k for every k, and the mean over all samples, where there are several."""
    rewards = _rewards(tasks)
    return {
        "samples": samples,
        "episodes": sum(map(len, tasks)),
        "pass_at_k": {str(k): metrics.pass_at_k(rewards, k).row() for k in range(1, samples + 1)},
        "mean_at_k": {"k": samples, **metrics.mean_at_k(rewards).row()},
    }


def describe(summary: Mapping[str, Any]) -> str:
    """What a person reads at the end of a run: one line, then the breakdowns."""
    if not summary["n"]:
        return f"no episode finished, {summary['n_failed']} failed"
    names = sorted(SCORES, key=lambda name: name != summary["score"])
    scores = ", ".join(f"{name.replace('_', ' ')} {number(summary, name)}" for name in names)
    invalid, repeated = summary["invalid_action_share"] or 0, summary["repeated_action_share"] or 0
    lines = [
        f"{scores}; n {summary['n']}, failed {summary['n_failed']}; {summary['steps']['mean']:.1f} steps, "
        f"{invalid:.1%} invalid, {repeated:.1%} repeated; panel {summary['panel'][:12]}"
    ]
    if "pass_at_k" in summary:
        lines += [f"pass@{k} {estimate(found)}" for k, found in summary["pass_at_k"].items()]
        lines.append(f"mean@{summary['samples']} {estimate(summary['mean_at_k'])}")
    for name, groups in summary["breakdown"].items():
        width = max(len(name), *(len(group) for group in groups))
        lines.append(f"{name.replace('_', ' '):{width}} {'n':>5}  {'success rate':24}mean reward")
        lines += [
            f"{group:{width}} {found['n']:>5}  {number(found, SCORES[0]):24}{number(found, SCORES[1])}"
            for group, found in groups.items()
        ]
    return "\n".join(lines)


def number(found: Mapping[str, Any], name: str) -> str:
    """`0.500 [0.254, 0.746]`: a mean and its interval under "ci95"."""
    return estimate({"mean": found[name], "ci95": found["ci95"][name]})


def estimate(found: Mapping[str, Any]) -> str:
    """`0.500 [0.254, 0.746]` of an Estimate's row."""
    if found["mean"] is None:
        return "-"
    interval = found["ci95"]
    return f"{found['mean']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a summary equals its own JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
