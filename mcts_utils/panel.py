"""Panels: from where an evaluation's episodes begin, and the sha256 that two comparable runs share.

A panel is indices of tasks (selection.py), or failed episodes cut at a random step (Table 3), kept in a file so that
every model starts from the very same prefixes. It rolls nothing out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcts_utils.storage import read_json, write_json
from mcts_utils.types import InputError, Step

PANEL_VERSION = 1


@dataclass(frozen=True, slots=True)
class Start:
    """Where one episode begins: a reset, or a reset and the replay of a prefix."""

    index: int  # the server's index of the goal
    prefix: tuple[Step, ...] = ()
    task_id: str = ""  # the goal that the prefix belongs to; empty: whatever the index shows

    def digest(self) -> str:
        """sha256 of the prefix's replies; empty without a prefix."""
        return _sha256([step.reply for step in self.prefix]) if self.prefix else ""


def cut_failures(episodes: Iterable[Mapping[str, Any]], seed: int) -> tuple[list[Start], dict[str, int]]:
    """Failed episodes (r = 0, as in Table 3), each cut at a random step, and how many were left out and why.

    At least one step is kept and the step that ended the episode is not, so something can still be changed. The cut
    depends on the seed and the goal alone.
    """
    starts = []
    left_out = {"not_failed": 0, "too_short": 0}
    for episode in episodes:
        steps = [Step(**step) for step in episode["steps"]]
        ended = bool(steps) and (steps[-1].done or steps[-1].disaster)
        most = len(steps) - 1 if ended else len(steps)
        if episode["reward"] > 0:
            left_out["not_failed"] += 1
        elif most < 1:
            left_out["too_short"] += 1
        else:
            task = episode["task"]
            cut = random.Random(f"{seed}:{task['id']}").randint(1, most)
            starts.append(Start(task["index"], tuple(steps[:cut]), task["id"]))
    return sorted(starts, key=lambda start: start.index), left_out


def save_panel(
    path: str | Path, task: str, goals: str, starts: Sequence[Start], source: Mapping[str, Any]
) -> None:
    """Write prefixes for other models to start from. `goals`: kind of the server. `source`: who failed, which seed."""
    rows = [{"index": s.index, "task_id": s.task_id, "steps": [asdict(x) for x in s.prefix]} for s in starts]
    write_json(
        path,
        {"version": PANEL_VERSION, "task": task, "goals": goals, "source": dict(source), "prefixes": rows},
    )


def load_panel(path: str | Path, task: str, goals: str) -> list[Start]:
    """The prefixes of a panel file.

    Raises:
        InputError: when it is no panel, or one of another task or kind of server.
    """
    data = read_json(path)
    try:
        if data["task"] != task:
            raise InputError(f"--panel {path}: it is for TASK={data['task']}, not {task}")
        if data.get("goals", goals) != goals:
            raise InputError(f"--panel {path}: its server was of kind {data['goals']}, this one is {goals}")
        return [
            Start(int(row["index"]), tuple(Step(**step) for step in row["steps"]), str(row["task_id"]))
            for row in data["prefixes"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--panel {path}: not a panel file ({error!r})") from error


def panel_hash(rows: Iterable[tuple[str, str]]) -> str:
    """sha256 of the sorted (task id, prefix digest) pairs: equal exactly where the tasks and prefixes are."""
    return _sha256(sorted(f"{task_id} {digest}".strip() for task_id, digest in rows))


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()
