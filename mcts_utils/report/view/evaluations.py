"""Pack evaluation runs for the page: goals with their episodes in all runs of one protocol, and the paired numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.metrics import behaviour, paired, scores
from mcts_utils.evaluation.results import episodes_by_goal, summary_of
from mcts_utils.report.view.steps import loop_of, refused, title_of, why
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.episode import EpisodeFile
from mcts_utils.storage.formats.summary import Summary


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    group: str
    summary: Summary
    goals: Mapping[str, list[EpisodeFile]]


def read_run(folder: Path, group: str) -> Run:
    """Return the run of a folder; raise InputError naming the file that is missing or wrong."""
    return Run(folder.name, group, summary_of(folder), dict(episodes_by_goal(folder)))


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs in sets of one protocol and one set of goals, in their order."""
    sets: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([plain(run.summary.protocol), sorted(run.goals)], sort_keys=True)
        sets.setdefault(key, []).append(run)
    return list(sets.values())


def labels(runs: Sequence[Run]) -> list[str]:
    """Return the shortest names that tell the runs of a set apart: type, iteration, or both with the folder."""
    choices = [
        [run.summary.model_type.removesuffix("_revise") for run in runs],
        [run.group.split("/")[0] for run in runs],
        [run.summary.model_name for run in runs],
        [run.name for run in runs],
    ]
    whole = ["/".join(filter(None, (run.group, run.name))) for run in runs]
    return next((names for names in choices if all(names) and len(set(names)) == len(runs)), whole)


def pack_set(runs: Sequence[Run]) -> tuple[dict[str, Any], list[list[list[dict[str, Any]]]]]:
    """Return (set with its runs, pairs and lines of goals; for each goal, for each run, its episodes)."""
    protocol, keys = runs[0].summary.protocol, list(runs[0].goals)
    lines, contents = [], []
    for key in keys:
        samples = [run.goals[key] for run in runs]
        task = samples[0][0].task.task()
        packed = [[_episode(episode) for episode in found] for found in samples]
        lines.append(
            {
                "key": key,
                "index": task.index,
                "title": title_of(task),
                "rewards": [[round(episode.reward, 4) for episode in found] for found in samples],
                "steps": [len(found[0].own_steps) for found in samples],
                "loops": [
                    any(e["loop"] and not scores.is_success(e["reward"]) for e in found) for found in packed
                ],
            }
        )
        contents.append(packed)
    names = labels(runs)
    order = [(0, i) for i in range(1, len(runs))] + [(i, i + 1) for i in range(1, len(runs) - 1)]
    about = {
        "env": protocol.task,
        "mode": protocol.mode,
        "steps": protocol.max_steps,
        "runs": [_run(run, name) for run, name in zip(runs, names, strict=True)],
        "pairs": [_pair(runs, one, two) for one, two in order],
        "goals": lines,
    }
    return about, contents


def _run(run: Run, label: str) -> dict[str, Any]:
    s = run.summary
    firsts = Counter(
        at
        for found in run.goals.values()
        for episode in found
        if not scores.is_success(episode.reward)
        and (at := behaviour.actions_until(episode.own_steps, lambda step: refused(s.protocol.task, step)))
    )
    return {
        "label": label,
        "name": run.name,
        "group": run.group,
        "model": s.model_name,
        "success": s.success_rate,
        "success_ci": s.ci95.get("success_rate"),
        "reward": s.mean_reward,
        "n": s.n,
        "failed": s.n_failed,
        "ends": s.ends,
        "invalid": s.invalid_action_share,
        "repeated": s.repeated_action_share,
        "repeats": s.repeated_sequences,
        "first_refused": dict(sorted(firsts.items())),
    }


def _pair(runs: Sequence[Run], one: int, two: int) -> dict[str, Any]:
    """Return the paired comparison of two runs of a set."""
    rewards = [{key: [e.reward for e in found] for key, found in runs[i].goals.items()} for i in (one, two)]
    found = paired.compare_runs(rewards[0], rewards[1])
    kept = "n success_rate success_difference success_difference_ci95 difference difference_ci95".split()
    return {"a": one, "b": two, **{name: found[name] for name in (*kept, "gained", "lost", "mcnemar_p")}}


def _episode(episode: EpisodeFile) -> dict[str, Any]:
    steps = episode.all_steps
    return {
        "reward": episode.reward,
        "end": episode.end,
        "prefix": episode.prefix_steps,
        "why": why(episode),
        "loop": loop_of([step.action for step in steps]),
        "opening": episode.task.opening,
        "reply": [step.reply for step in steps],
        "action": [step.grounded_action or step.action for step in steps],
        "obs": [step.observation for step in steps],
        "scores": [round(step.reward, 4) for step in steps],
        "cut": [step.cut for step in steps],
        "refused": [refused(episode.task.env, step) for step in steps],
    }
