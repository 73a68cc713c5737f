"""Panels: from where an evaluation's episodes begin, and the sha256 that two comparable runs share.

A panel is goals, or failed episodes cut at a random step (Table 3), kept in a file so that every model on every machine
plays the very same. It chooses no indices (selection.py) and rolls nothing out.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.envs.task_ids import choose_ids
from mcts_utils.evaluation.results import episodes_of, summary_of
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.types import InputError, Step

PANEL_VERSION = 1


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """Where one episode begins: a reset, or a reset and the replay of a prefix."""

    index: int  # the server's index of the goal
    prefix: tuple[Step, ...] = ()
    task_id: str = ""  # the goal that must be there; empty: whatever the index shows
    sample: int = 0  # number of the episode among those of this task

    def digest(self) -> str:
        """sha256 of the prefix's replies; empty without a prefix."""
        return _sha256([step.reply for step in self.prefix]) if self.prefix else ""


def sampled(starts: Iterable[EpisodeStart], samples: int) -> list[EpisodeStart]:
    """Every start `samples` times."""
    return [replace(start, sample=k) for start in starts for k in range(samples)]


def cut_failures(
    episodes: Iterable[Mapping[str, Any]], seed: int
) -> tuple[list[EpisodeStart], dict[str, int]]:
    """Failed episodes (r = 0, as in Table 3), each cut at a random step, and how many were left out and why.

    At least one step is kept and the step that ended the episode is not, so something can still be changed. The cut
    depends on the seed and the goal alone. Of a task with several samples the first that can be cut counts.
    """
    starts: list[EpisodeStart] = []
    left_out = {"not_failed": 0, "too_short": 0}
    for episode in episodes:
        steps = [Step(**step) for step in episode["steps"]]
        ended = bool(steps) and (steps[-1].done or steps[-1].disaster)
        most = len(steps) - 1 if ended else len(steps)
        if episode["reward"] > 0:
            left_out["not_failed"] += 1
        elif most < 1:
            left_out["too_short"] += 1
        elif starts and starts[-1].index == episode["task"]["index"]:
            left_out["same_task"] = left_out.get("same_task", 0) + 1
        else:
            task = episode["task"]
            cut = random.Random(f"{seed}:{task['id']}").randint(1, most)
            starts.append(EpisodeStart(task["index"], tuple(steps[:cut]), task["id"]))
    return sorted(starts, key=lambda start: start.index), left_out


def save_eval_set(
    path: str | Path,
    task: str,
    mode: str,
    task_set: str,
    starts: Sequence[EpisodeStart],
    source: Mapping[str, Any],
) -> None:
    """Write what other models are to start from.

    Args:
        mode: "main" for whole tasks, "revise" for cut prefixes.
        task_set: kind of the server.
        source: where the panel comes from: a run, a seed.
    """
    write_json(
        path,
        {
            "version": PANEL_VERSION,
            "task": task,
            "mode": mode,
            "goals": task_set,
            "sha256": hash_of(starts),
            "source": dict(source),
            "prefixes": [
                {"index": s.index, "task_id": s.task_id, "steps": [asdict(x) for x in s.prefix]}
                for s in starts
            ],
        },
    )


def load_eval_set(path: str | Path, task: str, mode: str, task_set: str) -> list[EpisodeStart]:
    """The starts of a panel file.

    Raises:
        InputError: when it is no panel, was changed by hand, or is one of another task, mode or kind of server.
    """
    data = read_json(path)
    try:
        here = {"task": task, "mode": mode, "goals": task_set}
        there = {
            "task": data["task"],
            "mode": data.get("mode", "revise"),
            "goals": data.get("goals", task_set),
        }
        starts = [
            EpisodeStart(int(row["index"]), tuple(Step(**step) for step in row["steps"]), str(row["task_id"]))
            for row in data["prefixes"]
        ]
        written = data.get("sha256", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"--panel {path}: not a panel file ({error!r})") from error
    for name, says in {
        "task": "it is for TASK={}, not {}",
        "mode": "it is for --mode {}, not {}",
        "goals": "its server was of kind {}, this one is {}",
    }.items():
        if here[name] != there[name]:
            raise InputError(f"--panel {path}: {says.format(there[name], here[name])}")
    if written and written != hash_of(starts):
        raise InputError(f"--panel {path}: its goals are not those that its sha256 {written[:12]} names")
    return starts


def hash_of(starts: Iterable[EpisodeStart]) -> str:
    """The panel's name; its goals must be known."""
    return eval_set_hash((start.task_id, start.digest()) for start in starts)


def eval_set_hash(rows: Iterable[tuple[str, str]]) -> str:
    """sha256 of the sorted (task id, prefix digest) pairs: equal exactly where the tasks and prefixes are."""
    return _sha256(sorted(f"{task_id} {digest}".strip() for task_id, digest in rows))


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()


def choose_starts(
    settings: Settings,
    mode: str,
    task_set: str,
    task_ids: str | None = None,
    source: str | None = None,
    panel: str | None = None,
) -> list[EpisodeStart]:
    """The starts of a run on a server of the kind `task_set`.

    Args:
        mode: "main" or "revise".
        task_ids: split, list or file; the test split if left out. In mode main only.
        source: folder of the run whose failures are cut, in mode revise.
        panel: file of starts; where it exists it decides.

    Raises:
        InputError: the flags do not go together, or name nothing to play.
    """
    if mode == "revise" and task_ids:
        raise InputError(f"--task_ids {task_ids}: --mode revise plays what --from or --panel names")
    if panel and Path(panel).exists():
        starts = load_eval_set(panel, settings.task, mode, task_set)
        if task_ids:
            _check_same(
                starts, choose_ids(settings.task, settings.env_server_base, task_ids), task_ids, panel
            )
        return starts
    if mode == "main":
        return [
            EpisodeStart(i) for i in choose_ids(settings.task, settings.env_server_base, task_ids or "test")
        ]
    if not source:
        raise InputError("--mode revise needs --from RUN_DIR, or --panel with a file that exists")
    starts = _cut(settings, task_set, source)
    if panel:
        save_eval_set(
            panel, settings.task, mode, task_set, starts, {"run": Path(source).name, "seed": settings.seed}
        )
    return starts


def _check_same(starts: list[EpisodeStart], wanted: list[int], task_ids: str, panel: str) -> None:
    if other := {start.index for start in starts} ^ set(wanted):
        raise InputError(
            f"--panel {panel}: it has other tasks than --task_ids {task_ids} (index {min(other)} is in one only)"
        )


def _cut(settings: Settings, task_set: str, source: str) -> list[EpisodeStart]:
    episodes = list(episodes_of(source))
    if other := {episode["settings"].get("goals", task_set) for episode in episodes} - {task_set}:
        raise InputError(f"--from {source}: played on a server of kind {other.pop()}, this one is {task_set}")
    starts, left_out = cut_failures(episodes, settings.seed)
    sys.stderr.write(f"{len(starts)} failed episodes cut; left out: {left_out}\n")
    if not starts:
        raise InputError(f"--from {source}: no failed episode is left to cut ({left_out})")
    return starts


def freeze(panel: str, settings: Settings, task_set: str, run: Path) -> None:
    """Write the goals of a finished run as a panel, unless the file is there."""
    if not Path(panel).exists():
        ids = {episode["task"]["index"]: episode["task"]["id"] for episode in episodes_of(run)}
        starts = [EpisodeStart(index, (), ids[index]) for index in summary_of(run)["indices"]]
        save_eval_set(panel, settings.task, "main", task_set, starts, {"run": run.name})
