"""Eval sets: the starts of an evaluation's episodes, and the sha256 that comparable runs share.

A start is a goal, or a failed episode cut at a random step (Table 3). A set is kept in a file (`--panel`), so that all
models on all machines get the same starts. It chooses no indices (envs/task_ids.py) and rolls nothing out.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.envs.task_ids import MAX_IDS, choose_ids
from mcts_utils.evaluation.results import episodes_of, summary_of
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.formats.base import StepFields, parsed
from mcts_utils.storage.formats.episode import EpisodeFile, PanelFile, PanelStart
from mcts_utils.types import InputError, Step


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """The start of one episode: a reset, followed by the replay of a prefix if there is one."""

    index: int  # the server's index of the goal
    prefix: tuple[Step, ...] = ()
    task_id: str = ""  # id that the task of this index must have; empty: any
    sample: int = 0  # number (from 0) of the episode among those of this task

    def digest(self) -> str:
        """Return the sha256 of the prefix's replies, or an empty string without a prefix."""
        return _sha256([step.reply for step in self.prefix]) if self.prefix else ""

    def replayed_exactly(self, steps: Sequence[Step]) -> bool:
        """Return True if the environment answered the replayed prefix as it was recorded."""
        replayed = steps[: len(self.prefix)]
        return [(s.observation, s.reward) for s in self.prefix] == [
            (s.observation, s.reward) for s in replayed
        ]


def repeat_starts(starts: Iterable[EpisodeStart], samples: int) -> list[EpisodeStart]:
    """Return every start `samples` times, with sample numbers from 0; raise InputError if they are too many."""
    starts = list(starts)
    if len(starts) * samples > MAX_IDS:
        raise InputError(f"--samples {samples}: of {len(starts)} tasks, more than {MAX_IDS} episodes")
    return [replace(start, sample=k) for start in starts for k in range(samples)]


def cut_failures(episodes: Iterable[EpisodeFile], seed: int) -> tuple[list[EpisodeStart], dict[str, int]]:
    """Cut failed episodes (r = 0, as in Table 3) at a random step.

    At least one step is kept, and the step that ended the episode is left out, so that the agent can still act. The cut
    depends only on the seed and the goal. Of several samples of a task the first that can be cut is used.

    Returns:
        The starts by index, and reason -> the number of episodes that were left out.
    """
    starts: list[EpisodeStart] = []
    left_out = {"not_failed": 0, "too_short": 0}
    for episode in episodes:
        steps, task = episode.all_steps, episode.task
        ended = bool(steps) and (steps[-1].done or steps[-1].disaster)
        last_cut = len(steps) - 1 if ended else len(steps)
        if episode.reward > 0:
            left_out["not_failed"] += 1
        elif last_cut < 1:
            left_out["too_short"] += 1
        elif starts and starts[-1].index == task.index:
            left_out["same_task"] = left_out.get("same_task", 0) + 1
        else:
            cut = random.Random(f"{seed}:{task.id}").randint(1, last_cut)
            starts.append(EpisodeStart(task.index, tuple(steps[:cut]), task.id))
    return sorted(starts, key=lambda start: start.index), left_out


def save_eval_set(
    path: str | Path,
    task: str,
    mode: str,
    server_kind: str,
    starts: Sequence[EpisodeStart],
    source: Mapping[str, Any],
) -> None:
    """Write an eval set to a file.

    Args:
        mode: "main" for whole tasks, "revise" for cut prefixes.
        server_kind: kind of server that the indices belong to.
        source: origin of the starts, such as the run and the seed.
    """
    prefixes = [
        PanelStart(index=s.index, task_id=s.task_id, steps=[StepFields.of(step) for step in s.prefix])
        for s in starts
    ]
    panel = PanelFile(
        task=task,
        mode=mode,
        server_kind=server_kind,
        sha256=starts_hash(starts),
        source=dict(source),
        prefixes=prefixes,
    )
    write_json(path, panel)


def load_eval_set(path: str | Path, task: str, mode: str, server_kind: str) -> list[EpisodeStart]:
    """Read the starts of an eval set from its file.

    Raises:
        InputError: the file is not an eval set, does not match its sha256, or is for another task, mode or server.
    """
    data = read_json(path)
    try:
        panel = parsed(data, PanelFile)
    except InputError as error:
        raise InputError(f"--panel {path}: not a panel file ({error})") from error
    for found, expected, message in (
        (panel.task, task, "it is for TASK={}, not {}"),
        (panel.mode, mode, "it is for --mode {}, not {}"),
        (panel.server_kind or server_kind, server_kind, "its server was of kind {}, this one is {}"),
    ):
        if found != expected:
            raise InputError(f"--panel {path}: {message.format(found, expected)}")
    starts = [
        EpisodeStart(start.index, tuple(step.step() for step in start.steps), start.task_id)
        for start in panel.prefixes
    ]
    if not starts:
        raise InputError(f"--panel {path}: it has no task")
    if panel.sha256 and panel.sha256 != starts_hash(starts):
        raise InputError(f"--panel {path}: its goals are not those that its sha256 {panel.sha256[:12]} names")
    return starts


def starts_hash(starts: Iterable[EpisodeStart]) -> str:
    """Return the sha256 that names an eval set; every start needs its task id."""
    return eval_set_hash((start.task_id, start.digest()) for start in starts)


def eval_set_hash(rows: Iterable[tuple[str, str]]) -> str:
    """Return the sha256 of the sorted (task id, prefix digest) pairs: equal if and only if tasks and prefixes are."""
    return _sha256(sorted(f"{task_id} {digest}".strip() for task_id, digest in rows))


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()


def choose_starts(
    settings: Settings,
    mode: str,
    server_kind: str,
    task_ids: str | None = None,
    source: str | None = None,
    panel: str | None = None,
    write: bool = True,
) -> list[EpisodeStart]:
    """Return the starts of a run on a server of the kind `server_kind`.

    Args:
        mode: "main" or "revise".
        task_ids: split, list or file of indices; the test split if left out. Only in mode "main".
        source: folder of the run whose failures are cut, in mode "revise".
        panel: file of an eval set; if it exists, its starts are used.
        write: write the cut starts to `panel` if it does not exist.

    Raises:
        InputError: the flags do not go together, or select no task.
    """
    wanted = partial(choose_ids, settings.task, settings.env_server_base)
    if mode == "revise" and task_ids:
        raise InputError(f"--task_ids {task_ids}: --mode revise plays what --from or --panel names")
    if panel and Path(panel).exists():
        starts = load_eval_set(panel, settings.task, mode, server_kind)
        if task_ids:
            _check_same_tasks(starts, wanted(task_ids), task_ids, panel)
        return starts
    if mode == "main":
        return [EpisodeStart(index) for index in wanted(task_ids or "test")]
    if not source:
        raise InputError("--mode revise needs --from RUN_DIR, or --panel with a file that exists")
    starts = _cut_run(settings, server_kind, source)
    if panel and write:
        save_eval_set(
            panel, settings.task, mode, server_kind, starts, {"run": Path(source).name, "seed": settings.seed}
        )
    return starts


def _check_same_tasks(starts: list[EpisodeStart], wanted: list[int], task_ids: str, panel: str) -> None:
    """Check that an eval set has the wanted indices; raise InputError if not."""
    if other := {start.index for start in starts} ^ set(wanted):
        raise InputError(
            f"--panel {panel}: it has other tasks than --task_ids {task_ids} (index {min(other)} is in one only)"
        )


def _cut_run(settings: Settings, server_kind: str, source: str) -> list[EpisodeStart]:
    """Return the cut failures of a run folder; raise InputError if there is none or the server is of another kind."""
    episodes = list(episodes_of(source))
    if other := {episode.settings.server_kind for episode in episodes} - {server_kind, ""}:
        raise InputError(
            f"--from {source}: played on a server of kind {other.pop()}, this one is {server_kind}"
        )
    if other := {episode.settings.actions or Settings.actions for episode in episodes} - {settings.actions}:
        raise InputError(f"--from {source} was played with ACTIONS={other.pop()}, now {settings.actions}")
    starts, left_out = cut_failures(episodes, settings.seed)
    sys.stderr.write(f"{len(starts)} failed episodes cut; left out: {left_out}\n")
    if not starts:
        raise InputError(f"--from {source}: no failed episode is left to cut ({left_out})")
    return starts


def save_run_as_eval_set(panel: str, settings: Settings, server_kind: str, run: Path) -> None:
    """Write the tasks of a finished run as an eval set, unless the file exists."""
    if not Path(panel).exists():
        ids = {episode.task.index: episode.task.id for episode in episodes_of(run)}
        starts = [EpisodeStart(index, (), ids[index]) for index in summary_of(run).indices]
        save_eval_set(panel, settings.task, "main", server_kind, starts, {"run": run.name})
