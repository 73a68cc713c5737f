"""Check rows by themselves, and compare two of them. Nothing is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from mcts_utils.envs import names, task_id
from mcts_utils.prompts import JUDGE_PROMPTS, judge_messages
from mcts_utils.search.tree import Tree, nodes, path_steps, task_at
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.record import RecordRow, Turn, VerdictRow
from mcts_utils.training import dataset

Row = RecordRow | VerdictRow


def form_faults(row: Row) -> Iterator[str]:
    """Yield what is wrong with a row by itself: the order of roles, the loss flags, the task's name."""
    data = plain(row)
    if isinstance(row, RecordRow) and row.messages is UNSET:
        dataset.preference_pair(data, "")
        turns = [*(row.prompt or ()), *(row.chosen or ()), *(row.rejected or ())]
    else:
        dataset.record_conversation(data, "")
        turns = list(row.messages or ())
    if any(turn.loss for turn in turns if turn.role != "assistant"):
        yield "a turn that is not the assistant's carries loss"
    if not any(turn.loss for turn in turns):
        yield "no turn carries loss"
    if isinstance(row, RecordRow) and isinstance(row.lineage.cut_step, int):
        first, own = row.lineage.cut_step + 1, [turn for turn in turns if turn.role == "assistant"]
        if any(turn.loss for turn in own[:first]):
            yield "a turn up to its cut carries loss"
        if not [turn for turn in own[first : first + 1] if turn.loss and turn.content == row.revise]:
            yield "the turn after its cut is not the revision signal, with loss"
    task = row.lineage.task
    if row.task_num != task.index:
        yield f"task_num is {row.task_num}, its lineage says {task.index}"
    if task.env in names() and task.id != (found := task_id(task.env, row.task_description, task.index)):
        yield f"its task is named {task.id}, its opening is of {found}"


def key_of(row: Row) -> bytes:
    """Return what two rows of a file must not share: the task and the actions, or the judged question."""
    turns = row.messages if isinstance(row, VerdictRow) else [t for c in row.conversations for t in c]
    if isinstance(row, VerdictRow):
        acted = [turn.content for turn in row.messages]
    else:
        acted = [turn.action for turn in turns or () if turn.role == "assistant"]
    return hashlib.sha256(repr((row.lineage.task.id, acted)).encode("utf-8", "backslashreplace")).digest()


def verdict_row_faults(row: VerdictRow, tree: Tree) -> Iterator[str]:
    """Yield what is wrong with a verdict as a training row."""
    node = next((node for node in nodes(tree) if node.id == row.lineage.node), None)
    if node is None or node.parent is None:
        yield f"node {row.lineage.node} is none of the tree's"
        return
    steps, system = path_steps(node), row.messages[0].content
    prompt = next((name for name, text in JUDGE_PROMPTS.items() if text == system), "full")
    asked = [
        Turn.of(message) for message in judge_messages(task_at(tree, node), steps[:-1], steps[-1], prompt)
    ]
    if asked != row.messages[:-1]:
        yield f"its question is not the one about node {node.id}"
    if not row.messages[-1].content.endswith(f"Judgment: {row.lineage.label.capitalize()}"):
        yield f"its answer is not {row.lineage.label!r}"


def difference(found: Any, wanted: Any, place: str = "") -> Iterator[str]:
    """Yield the first place at which two JSON values differ, if any."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        if keys:
            yield from difference(found.get(keys[0]), wanted.get(keys[0]), f"{place}.{keys[0]}")
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        at = next((i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]), None)
        if at is not None:
            yield from difference(found[at], wanted[at], f"{place}[{at}]")
    elif found != wanted:
        yield f"{place.removeprefix('.')} is {shown(found)}, it should be {shown(wanted)}"


def shown(value: Any) -> str:
    """Return a value on one line, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
