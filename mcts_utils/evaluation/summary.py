"""The summary of an evaluation run: scores with intervals, behaviour and breakdowns, as JSON and as text.

It is given the episodes: it reads no files and rolls nothing out. The statistics are those of metrics/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation import metrics
from mcts_utils.evaluation.eval_set import eval_set_hash
from mcts_utils.evaluation.results import by_task
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.storage.formats.base import parsed, plain
from mcts_utils.storage.formats.episode import EpisodeFile, EvalProtocol, FailedEpisode
from mcts_utils.storage.formats.summary import Estimate, MeanAtK, Scores, Summary
from mcts_utils.tables import BRACKETS, number

SCORES = ("success_rate", "mean_reward")

# (index, prefix digest) -> its samples
Tasks = Mapping[tuple[int, str], Sequence[EpisodeFile]]


def summarise(
    episodes: Sequence[EpisodeFile | FailedEpisode],
    protocol: EvalProtocol,
    model: Mapping[str, Any],
    samples: int = 1,
) -> Summary:
    """Return the summary of a run, as in summary.json. Failed episodes are counted, but are not part of the scores.

    Args:
        episodes: contents of the episode files, finished or failed.
        model: names of the model, copied into the summary.
        samples: episodes requested for each task; a task is scored on those that finished.
    """
    done = [episode for episode in episodes if isinstance(episode, EpisodeFile)]
    failed = [episode for episode in episodes if isinstance(episode, FailedEpisode)]
    tasks = by_task(done)
    first = [found[0] for found in tasks.values()]  # a sample of each task
    panel = eval_set_hash((episode.task.id, episode.settings.prefix) for episode in first)
    behaviour, scores = _behaviour(tasks, protocol.task), _scores(list(tasks.values()))
    summary = {
        **model,
        **scores,
        "ci95": {**behaviour.pop("ci95"), **scores["ci95"]},
        "score": env_spec(protocol.task).score,
        "n_failed": len(failed),
        "failures": [{"index": episode.index, "error": episode.error} for episode in failed],
        "ends": dict(sorted(Counter(episode.end for episode in done).items())),
        **behaviour,
        "breakdown": breakdown(tasks, protocol.task),
        "panel": panel,
        "protocol": replace(protocol, panel=panel, samples=samples if samples > 1 else UNSET),
        "indices": [episode.task.index for episode in first],
    }
    if samples > 1:
        summary |= _sample_scores(list(tasks.values()), samples)
    if protocol.mode == "revise":
        _add_recovery(summary, done)
    return parsed(summary, Summary)


def _behaviour(tasks: Tasks, env: str) -> dict[str, Any]:
    """Return metrics.behaviour of the agent's own steps, with intervals over tasks."""
    keys = [key for key, found in tasks.items() for _ in found]
    steps = [episode.own_steps for found in tasks.values() for episode in found]
    return metrics.behaviour(steps, lambda step: is_refused(env, step), keys)


def _add_recovery(summary: dict[str, Any], done: Sequence[EpisodeFile]) -> None:
    """Add the share of failed prefixes that end with the full reward (Table 3)."""
    summary["recovery_rate"] = summary["success_rate"]
    summary["ci95"]["recovery_rate"] = summary["ci95"]["success_rate"]
    summary["prefixes_replayed_exactly"] = sum(episode.prefix_exact for episode in done)


def breakdown(tasks: Tasks, env: str) -> dict[str, dict[str, Any]]:
    """Return name of a breakdown (EnvSpec.breakdown_keys) -> group -> n, both scores and their intervals."""
    groups: dict[str, dict[str, list[Sequence[EpisodeFile]]]] = {}
    for found in tasks.values():
        task = found[0].task
        for name, group in env_spec(env).breakdown_keys(task.opening, task.index).items():
            groups.setdefault(name, {}).setdefault(group, []).append(found)
    return {
        name: {group: _scores(members) for group, members in sorted(found.items(), key=_numeric_order)}
        for name, found in sorted(groups.items())
    }


def _numeric_order(item: tuple[str, Any]) -> tuple[int, str]:
    """Return the sort key of a group: words first, then numbers by value."""
    return (int(item[0]) if item[0].isdecimal() else -1, item[0])


def _rewards(tasks: Sequence[Sequence[EpisodeFile]]) -> list[list[float]]:
    return [[episode.reward for episode in found] for found in tasks]


def _scores(tasks: Sequence[Sequence[EpisodeFile]]) -> dict[str, Any]:
    """Return n (tasks), both scores and their intervals."""
    rewards = _rewards(tasks)
    found = dict(zip(SCORES, (metrics.mean_success(rewards), metrics.mean_at_k(rewards)), strict=True))
    return {
        **{name: estimate.mean for name, estimate in found.items()},
        "n": len(tasks),
        "ci95": {name: estimate.ci95 for name, estimate in found.items()},
    }


def _sample_scores(tasks: Sequence[Sequence[EpisodeFile]], samples: int) -> dict[str, Any]:
    """Return pass@k for every k up to `samples`, and the mean reward over all samples."""
    rewards = _rewards(tasks)
    return {
        "samples": samples,
        "episodes": sum(map(len, tasks)),
        "pass_at_k": {str(k): metrics.pass_at_k(rewards, k) for k in range(1, samples + 1)},
        "mean_at_k": {"k": samples, **plain(metrics.mean_at_k(rewards))},
    }


def describe(summary: Summary) -> str:
    """Return the summary as text: one line of scores, pass@k if there are several samples, then the breakdowns."""
    if not summary.n or not summary.steps:
        return f"no episode finished, {summary.n_failed} failed"
    names = sorted(SCORES, key=lambda name: name != summary.score)
    scores = ", ".join(f"{name.replace('_', ' ')} {score_text(summary, name)}" for name in names)
    invalid, repeated = summary.invalid_action_share or 0, summary.repeated_action_share or 0
    lines = [
        f"{scores}; n {summary.n}, failed {summary.n_failed}; {summary.steps['mean']:.1f} steps, "
        f"{invalid:.1%} invalid, {repeated:.1%} repeated; panel {summary.panel[:12]}"
    ]
    if summary.pass_at_k and summary.mean_at_k:
        lines += [f"pass@{k} {estimate_text(found)}" for k, found in summary.pass_at_k.items()]
        lines.append(f"mean@{summary.samples} {estimate_text(summary.mean_at_k)}")
    for name, groups in summary.breakdown.items():
        width = max(len(name), *(len(group) for group in groups))
        lines.append(f"{name.replace('_', ' '):{width}} {'n':>5}  {'success rate':24}mean reward")
        lines += [
            f"{group:{width}} {found.n:>5}  {score_text(found, SCORES[0]):24}{score_text(found, SCORES[1])}"
            for group, found in groups.items()
        ]
    return "\n".join(lines)


def score_text(found: Summary | Scores, name: str) -> str:
    """Return one score of a summary with its interval, such as `0.500 [0.254, 0.746]`."""
    return number(getattr(found, name), found.ci95[name], ".3f", ends=BRACKETS)  # type: ignore[arg-type]


def estimate_text(found: Estimate | MeanAtK) -> str:
    """Return an estimate as text, such as `0.500 [0.254, 0.746]`; `-` without a mean."""
    return number(found.mean, found.ci95, ".3f", ends=BRACKETS)
