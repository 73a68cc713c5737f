"""Where a run's episodes begin: the tasks of a split, those of a panel file, or another run's failures, cut.

It asks the server for its split and reads files; it plays nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mcts_utils.config import Settings
from mcts_utils.panel import Start, cut_failures, load_panel, save_panel
from mcts_utils.scorecard import episodes_of, summary_of
from mcts_utils.selection import choose_ids
from mcts_utils.types import InputError


def choose_starts(
    settings: Settings,
    mode: str,
    goals: str,
    task_ids: str | None = None,
    source: str | None = None,
    panel: str | None = None,
) -> list[Start]:
    """The starts of a run on a server of the kind `goals`.

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
        starts = load_panel(panel, settings.task, mode, goals)
        if task_ids:
            _check_same(
                starts, choose_ids(settings.task, settings.env_server_base, task_ids), task_ids, panel
            )
        return starts
    if mode == "main":
        return [Start(i) for i in choose_ids(settings.task, settings.env_server_base, task_ids or "test")]
    if not source:
        raise InputError("--mode revise needs --from RUN_DIR, or --panel with a file that exists")
    starts = _cut(settings, goals, source)
    if panel:
        save_panel(
            panel, settings.task, mode, goals, starts, {"run": Path(source).name, "seed": settings.seed}
        )
    return starts


def _check_same(starts: list[Start], wanted: list[int], task_ids: str, panel: str) -> None:
    if other := {start.index for start in starts} ^ set(wanted):
        raise InputError(
            f"--panel {panel}: it has other tasks than --task_ids {task_ids} (index {min(other)} is in one only)"
        )


def _cut(settings: Settings, goals: str, source: str) -> list[Start]:
    episodes = list(episodes_of(source))
    if other := {episode["settings"].get("goals", goals) for episode in episodes} - {goals}:
        raise InputError(f"--from {source}: played on a server of kind {other.pop()}, this one is {goals}")
    starts, left_out = cut_failures(episodes, settings.seed)
    sys.stderr.write(f"{len(starts)} failed episodes cut; left out: {left_out}\n")
    if not starts:
        raise InputError(f"--from {source}: no failed episode is left to cut ({left_out})")
    return starts


def freeze(panel: str, settings: Settings, goals: str, run: Path) -> None:
    """Write the goals of a finished run as a panel, unless the file is there."""
    if not Path(panel).exists():
        ids = {episode["task"]["index"]: episode["task"]["id"] for episode in episodes_of(run)}
        starts = [Start(index, (), ids[index]) for index in summary_of(run)["indices"]]
        save_panel(panel, settings.task, "main", goals, starts, {"run": run.name})
