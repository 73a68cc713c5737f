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
from mcts_utils.evaluation.eval_set import eval_set_hash
from mcts_utils.evaluation.metrics import behaviour, scores
from mcts_utils.evaluation.results import by_task
from mcts_utils.replies import Reply, count_replies
from mcts_utils.rollouts.steps import is_invalid
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
    tasks, duplicates = _once(by_task(done))
    first = [found[0] for found in tasks.values()]  # a sample of each task
    panel = eval_set_hash((episode.task.id, episode.settings.prefix) for episode in first)
    acted, scored = _behaviour(tasks, protocol.task), _scores(list(tasks.values()))
    summary = {
        **model,
        **scored,
        "ci95": {**acted.pop("ci95"), **scored["ci95"]},
        "score": env_spec(protocol.task).score,
        "n_failed": len(failed),
        "failures": [{"index": episode.index, "error": episode.error} for episode in failed],
        "ends": dict(sorted(Counter(episode.end for episode in done).items())),
        **acted,
        "breakdown": breakdown(tasks, protocol.task),
        "panel": panel,
        "protocol": replace(protocol, panel=panel, samples=samples if samples > 1 else UNSET),
        "indices": [episode.task.index for episode in first],
        "duplicates": duplicates or UNSET,
        "replies": _replies(done, protocol.actions or protocol.action_format or "any"),
    }
    if samples > 1:
        none = [e.index for e in failed if (e.index, e.settings.prefix) not in by_task(done)]
        summary |= _sample_scores(list(tasks.values()), samples, dict.fromkeys(none, 0))
    if protocol.mode == "revise":
        _add_recovery(summary, done)
    return parsed({name: value for name, value in summary.items() if value is not UNSET}, Summary)


def _once(tasks: Tasks) -> tuple[Tasks, dict[str, int]]:
    """Return the tasks without those whose goal and prefix came before, and (index of such a one -> first index)."""
    kept: dict[tuple[int, str], Sequence[EpisodeFile]] = {}
    seen: dict[tuple[str, str], int] = {}
    duplicates = {}
    for (index, prefix), found in tasks.items():
        first = seen.setdefault((found[0].task.id, prefix), index)
        if first == index:
            kept[index, prefix] = found
        else:
            duplicates[str(index)] = first
    return kept, duplicates


def _behaviour(tasks: Tasks, env: str) -> dict[str, Any]:
    """Return behaviour.behaviour of the agent's own steps, with intervals over tasks."""
    keys = [key for key, found in tasks.items() for _ in found]
    steps = [episode.own_steps for found in tasks.values() for episode in found]
    return behaviour.behaviour(steps, lambda step: is_invalid(env, step), keys)


def _replies(done: Sequence[EpisodeFile], form: str) -> dict[str, int]:
    """Return the number of the agent's own turns, and of those that are not a whole turn with an action."""
    turns = [Reply(s.reply, s.action, s.cut) for episode in done for s in episode.own_steps]  # type: ignore[arg-type]
    return {"total": len(turns), **count_replies(turns, form)}


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
    found = dict(zip(SCORES, (scores.mean_success(rewards), scores.mean_at_k(rewards)), strict=True))
    return {
        **{name: estimate.mean for name, estimate in found.items()},
        "n": len(tasks),
        "ci95": {name: estimate.ci95 for name, estimate in found.items()},
    }


def _sample_scores(
    tasks: Sequence[Sequence[EpisodeFile]], samples: int, none: Mapping[int, int]
) -> dict[str, Any]:
    """Return pass@k for every k up to `samples`, and the mean reward over all samples.

    `none`: indices of further tasks, which have no finished sample, and 0.
    """
    rewards = _rewards(tasks)
    fewer = {found[0].task.index: len(found) for found in tasks if len(found) < samples} | dict(none)
    every = [*rewards, *([] for _ in none)]
    return {
        "samples": samples,
        "episodes": sum(map(len, tasks)),
        "unfinished_samples": {str(index): fewer[index] for index in sorted(fewer)} or UNSET,
        "pass_at_k": {str(k): scores.pass_at_k(every, k) for k in range(1, samples + 1)},
        "mean_at_k": {"k": samples, **plain(scores.mean_at_k(rewards))},
    }


def describe(summary: Summary) -> str:
    """Return the summary as text: one line of scores, pass@k if there are several samples, then the breakdowns."""
    failed = f"failed {summary.n_failed}"
    if summary.failures:
        failed += f" (the first: index {summary.failures[0].index}: {summary.failures[0].error})"
    if not summary.n or not summary.steps:
        return f"no episode finished; {failed}"
    names = sorted(SCORES, key=lambda name: name != summary.score)
    texts = ", ".join(f"{name.replace('_', ' ')} {score_text(summary, name)}" for name in names)
    invalid, repeated = summary.invalid_action_share or 0, summary.repeated_action_share or 0
    lines = [
        f"{texts}; n {summary.n}, {failed}; {summary.steps['mean']:.1f} steps, "
        f"{invalid:.1%} invalid, {repeated:.1%} repeated; panel {summary.panel[:12]}"
    ]
    if summary.pass_at_k and summary.mean_at_k:
        lines += [f"pass@{k} {estimate_text(found)}" for k, found in summary.pass_at_k.items()]
        if summary.unfinished_samples:
            few = ", ".join(f"index {index}: {n}" for index, n in summary.unfinished_samples.items())
            lines.append(f"pass@k without a value: some tasks have fewer finished samples ({few})")
        lines.append(f"mean@{summary.samples} {estimate_text(summary.mean_at_k)}")
    if summary.duplicates:
        same = ", ".join(f"{index} is {first}" for index, first in summary.duplicates.items())
        lines.append(f"counted once: indices with the goal of an earlier one ({same})")
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
