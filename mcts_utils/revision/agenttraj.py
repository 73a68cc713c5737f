"""Read AgentGym's trajectory sets (AgentTraj-L): lists of {"conversations": [...], "item_id": "textcraft_12"}.

A turn is {"from": "human" or "gpt", "loss": true, false or null, "value": text}. It executes nothing; expert.py does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.envs import task_id
from mcts_utils.envs.task_ids import INDEX, ITEM
from mcts_utils.storage.files import iter_jsonl, read_json, sha256_file
from mcts_utils.types import EnvError, InputError


@dataclass(frozen=True, slots=True)
class GivenEpisode:
    """An episode of a set. `replies`, `observations` and `loss` have the same length; the opening is in none."""

    path: str
    sha256: str  # of the file
    index: int  # AgentGym's
    task_id: str  # from the opening (EnvSpec.task_id)
    opening: str
    replies: tuple[str, ...]
    observations: tuple[str, ...]  # the last one is "" where the episode ends with a reply
    loss: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class GivenSet:
    """The episodes of one environment in a file or folder, and a line for each of a test task."""

    files: tuple[Path, ...]
    episodes: tuple[GivenEpisode, ...]
    held_out: tuple[str, ...]


def read_set(path: str | Path, env: str, test: Collection[int]) -> GivenSet:
    """Return the episodes of an environment; `test` are AgentGym's test ids, whose rows are refused.

    Args:
        path: a JSON list or a JSONL file, or a folder of such files.

    Raises:
        InputError: naming the file and row that cannot be read, or the path without an episode of the environment.
    """
    files = _files(Path(path))
    episodes: list[GivenEpisode] = []
    held_out: list[str] = []
    other = ""
    for file in files:
        digest = sha256_file(file)
        for number, row in _rows(file):
            where = f"{file} row {number}"
            item = ITEM.fullmatch(str(row.get("item_id")))
            if item is None or (item[1] == env and not INDEX.fullmatch(item[2])):
                shown = repr(row.get("item_id"))
                raise InputError(f"{where}: item_id is not NAME_INDEX, such as {env}_12: {shown[:60]}")
            if item[1] != env:
                other = other or f"; {where} is of {item[1]}"
            elif int(item[2]) in test:
                held_out.append(f"{where}: {item[0]} is a test id")
            else:
                episodes.append(_episode(row, where, env, int(item[2]), (str(file), digest)))
    if not episodes and not held_out:
        raise InputError(f"--input_dir {path}: no episode of TASK={env}{other}")
    return GivenSet(tuple(files), tuple(episodes), tuple(held_out))


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"--input_dir is no file or folder: {str(path)!r}")
    found = sorted(p for p in path.iterdir() if p.suffix in (".json", ".jsonl")) if path.is_dir() else [path]
    if not found:
        raise InputError(f"--input_dir {path}: no .json or .jsonl file in it")
    return found


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, row). The first character says whether a file is one JSON list or JSONL."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as opened:
            is_list = next((line.lstrip()[0] for line in opened if line.strip()), "") == "["
    except OSError as error:
        raise InputError(f"--input_dir {file}: {error.strerror}") from error
    if not is_list:
        yield from iter_jsonl(file)
        return
    for number, row in enumerate(read_json(file), start=1):
        if not isinstance(row, dict):
            raise InputError(f"{file} row {number}: not a JSON object: {json.dumps(row)[:60]}")
        yield number, row


def _episode(row: dict[str, Any], where: str, env: str, index: int, source: tuple[str, str]) -> GivenEpisode:
    turns = _turns(row.get("conversations"), where)
    instructed = turns[1:2] and not turns[1][2] and "Action:" not in turns[1][1]
    if instructed:  # AgentGym's instruction and the answer to it: the project's system turn takes their place
        turns = turns[2:]
    said, texts = [turn for turn in turns if turn[0] == "gpt"], [t for t in turns if t[0] == "human"]
    if not said or [turn[0] for turn in turns] != (["human", "gpt"] * len(turns))[: len(turns)]:
        raise InputError(f"{where}: human and gpt turns do not alternate, from an observation on")
    try:
        task = task_id(env, texts[0][1], index)
    except EnvError as error:
        raise InputError(f"{where}: {error}") from error
    seen = [text for _, text, _ in texts[1:]] + [""]
    return GivenEpisode(
        *source, index, task, texts[0][1], tuple(t for _, t, _ in said), tuple(seen[: len(said)]),
        tuple(loss for _, _, loss in said),
    )  # fmt: skip


def _turns(turns: Any, where: str) -> Sequence[tuple[str, str, bool]]:
    """Return (from, value, loss) of every turn. Where no turn has a flag, every reply with an action is trained."""
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where}: no list of turns under conversations")
    found = []
    flagged = any(isinstance(turn, dict) and "loss" in turn for turn in turns)
    for number, turn in enumerate(turns, start=1):
        who, text, loss = (turn.get(k) if isinstance(turn, dict) else None for k in ("from", "value", "loss"))
        if who not in ("human", "gpt") or not isinstance(text, str) or not isinstance(loss, bool | None):
            raise InputError(f"{where}: turn {number} is no {{from, value, loss}}: {json.dumps(turn)[:80]}")
        trained = loss if flagged else "Action:" in text
        found.append((who, text, trained is True and who == "gpt"))
    return found
