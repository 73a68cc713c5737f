"""Read the files of evaluation runs and check that two runs can be compared. It rolls nothing out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.metrics import paired
from mcts_utils.evaluation.protocol import differences
from mcts_utils.storage.files import read_json
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.episode import EpisodeFile, parse_episode
from mcts_utils.storage.formats.summary import Summary
from mcts_utils.storage.layout import episode_path, existing
from mcts_utils.types import InputError


def by_task(episodes: Iterable[EpisodeFile]) -> dict[tuple[int, str], list[EpisodeFile]]:
    """Group finished episodes by (index, prefix digest): those of one group are samples of the same task."""
    tasks: dict[tuple[int, str], list[EpisodeFile]] = {}
    for episode in episodes:
        tasks.setdefault((episode.task.index, episode.settings.prefix), []).append(episode)
    return tasks


def compare_folders(run_a: str | Path, run_b: str | Path) -> dict[str, Any]:
    """Compare two finished runs, paired by goal (paired.compare_runs), after `check_comparable`."""
    check_comparable(run_a, run_b)
    return paired.compare_runs(rewards_of(run_a), rewards_of(run_b))


def check_comparable(run_a: str | Path, run_b: str | Path) -> None:
    """Check that two finished runs can be compared.

    Raises:
        InputError: a run has no summary or no finished episode, or the eval sets or protocols differ; the message
            names what differs.
    """
    one, two = summary_of(run_a), summary_of(run_b)
    for run, summary in ((run_a, one), (run_b, two)):
        if not summary.n:
            raise InputError(f"{run}: summary.json counts no finished episode")
    if changed := differences(one.protocol, two.protocol):
        if one.protocol.panel != two.protocol.panel:
            left, right = (rewards_of(run).keys() for run in (run_a, run_b))
            changed.append(
                f"goals only in the first {len(left - right)}, only in the second {len(right - left)}"
            )
        raise InputError(f"{run_a} and {run_b} cannot be compared: {'; '.join(changed)}")


def episodes_by_goal(run: str | Path) -> list[tuple[str, list[EpisodeFile]]]:
    """Return (goal, its finished samples) by index.

    A goal has the name `id#n`, where n counts the tasks with the same id: a server may list a goal twice.
    """
    seen: Counter[str] = Counter()
    goals = []
    for samples in by_task(episodes_of(run)).values():
        goal = samples[0].task.id
        goals.append((f"{goal}#{seen[goal]}", samples))
        seen[goal] += 1
    return goals


def rewards_of(run: str | Path) -> dict[str, list[float]]:
    """Return goal (see `episodes_by_goal`) -> final rewards of its samples."""
    return {goal: [episode.reward for episode in samples] for goal, samples in episodes_by_goal(run)}


def episodes_of(run: str | Path) -> Iterator[EpisodeFile]:
    """Yield the finished episodes of a run folder by index and sample; the tasks are those of its summary.

    Raises:
        InputError: an episode is missing or not finished. If a task has several samples, unfinished ones are skipped.
    """
    summary = summary_of(run)
    samples = summary.samples or 1
    for index in sorted(summary.indices):
        for sample in range(samples):
            path = existing(episode_path(run, index, sample))
            episode = parse_episode(read_json(path), str(path))
            if isinstance(episode, EpisodeFile):
                yield episode
            elif samples == 1:
                raise InputError(f"{run}: {path.name} is no finished episode; run eval.py again")


def summary_of(run: str | Path) -> Summary:
    """Return the summary of a run folder; raise InputError if there is none."""
    path = Path(run) / "summary.json"
    return parsed(read_json(path), Summary, f"{path}: not the summary of an evaluation run")
