"""Data files -> the rows of one training run: read, screened, capped, mixed by eta, shuffled, counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mcts_utils.storage import files
from mcts_utils.training import dataset
from mcts_utils.training.dataset import GENERAL, Conversation
from mcts_utils.training.row_filter import CUT, Kept, Screen
from mcts_utils.types import InputError


@dataclass(frozen=True, slots=True)
class DataMix:
    """What is wanted of the data files."""

    data: Sequence[str]
    general: Sequence[str]
    eta: float  # share of agent rows, in (0, 1]
    seed: int
    max_per_task: int = 0  # rows of one task and kind; 0: all
    long: str = CUT
    pairs: bool = False  # preference pairs, for DPO


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on, and what became of the rest."""

    rows: list[dict[str, Any]]  # as XTuner is given them
    counts: dict[
        str, Any
    ]  # rows by kind, envs by environment and kind, tasks, dropped and cut by "kind: reason"
    tokens: dict[str, dict[str, int]]  # by kind: "input" and, of these, "trained"
    notes: list[str]  # what a person should know, one line each


def build(recipe: DataMix, screen: Screen) -> Corpus:
    """Every usable record, and general rows in the share 1 - eta, in an order that depends on the seed alone.

    Raises:
        InputError: naming the file and row of a record that cannot be trained, or when nothing is left.
    """
    kept, notes = agent_rows(recipe, screen)
    quota = dataset.general_quota(len(kept), recipe.eta)
    pool = dataset.shuffled(read_general(recipe.general, screen) if quota else [], recipe.seed)
    drawn = list(islice(screen.kept(pool), quota))
    if len(drawn) < quota:
        share = len(kept) / (len(kept) + len(drawn))
        notes.append(
            f"--general holds {len(drawn)} of the {quota} rows that --eta {recipe.eta} asks for: eta is {share:.3f}"
        )
    mixed = dataset.shuffled([*kept, *drawn], recipe.seed)
    counts = _counts(mixed, screen) | {"share_of_agent_rows": round(len(kept) / len(mixed), 4)}
    return Corpus([row_of(item, screen) for item in mixed], counts, _tokens(mixed), screen.notes() + notes)


def agent_rows(recipe: DataMix, screen: Screen) -> tuple[list[Kept], list[str]]:
    """The records that can be trained, at most max_per_task of each task and kind, and what to say about them."""
    if recipe.pairs:
        pairs = (dataset.preference_pair(row, source) for row, source in read_records(recipe.data))
        kept = list(screen.kept_pairs(pairs))
    else:
        records = (dataset.record_conversation(row, source) for row, source in read_records(recipe.data))
        kept = list(screen.kept(records))
    notes = []
    if recipe.max_per_task:
        before = len(kept)
        kept = dataset.capped(kept, lambda item: item.conversation, recipe.max_per_task, recipe.seed)
        if len(kept) < before:
            notes.append(f"{before - len(kept)} rows left out, over --max_per_task {recipe.max_per_task}")
    if not kept:
        reasons = dict(screen.dropped)
        raise InputError(f"--data {' '.join(recipe.data)}: no row is left to train on ({reasons})")
    zeros = sum(side.labels.count(0) for item in kept for side in item.sides) if recipe.pairs else 0
    if zeros:
        notes.append(
            f"{zeros} trained tokens have the id 0, which XTuner's DPO takes for padding: no loss on them"
        )
    return kept, notes


def read_records(paths: Iterable[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """(row, "file row n") of stage 2. A bad row ends the run: it is a fault of the file, not of the world."""
    for path in paths:
        for number, row in enumerate(files.read_jsonl(path), start=1):
            yield row, f"{path} row {number}"


def read_general(paths: Iterable[str], screen: Screen) -> list[Conversation]:
    """ShareGPT rows, JSONL or one JSON list; rows of another form are counted and left out."""
    found = []
    for path in paths:
        for number, row in enumerate(general_rows(path), start=1):
            source = f"{path} row {number}"
            if not isinstance(row, dict):
                screen.drop(GENERAL, "not a JSON object", source)
                continue
            try:
                found.append(dataset.general_conversation(row, source))
            except dataset.RowError as error:
                screen.drop(GENERAL, error.reason, source)
    return found


def general_rows(path: str) -> Iterator[Any]:
    """The rows of a file by what it holds, not by its name: a list, or an object a line; None for a broken line."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if text.lstrip().startswith("["):
        yield from files.read_json(path)
        return
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                yield None


def any_conversation(row: dict[str, Any], source: str) -> Conversation:
    """A record's conversation, or a general one: general rows carry no flags."""
    turns = row.get("messages", row.get("revise_log"))
    flagged = isinstance(turns, list) and any(isinstance(turn, dict) and "loss" in turn for turn in turns)
    make = dataset.record_conversation if flagged else dataset.general_conversation
    return make(row, source)


def row_of(item: Kept, screen: Screen) -> dict[str, Any]:
    """The line of train.jsonl: messages for XTuner to tokenize, or a pair in tokens."""
    if len(item.sides) == 1:
        return dataset.training_row(screen.chat.prepare(item.conversation.messages))
    row: dict[str, Any] = {}
    for name, side in zip(("chosen", "rejected"), item.sides, strict=True):
        row |= {f"{name}_ids": side.input_ids, f"{name}_labels": side.labels}
    return row


def _counts(items: Sequence[Kept], screen: Screen) -> dict[str, Any]:
    conversations = [item.conversation for item in items]
    return {
        "rows": dataset.count_kinds(conversations),
        "envs": dataset.count_envs(conversations),
        "tasks": len({c.task for c in conversations if c.kind != GENERAL}),
        "dropped": dict(sorted(screen.dropped.items())),
        "cut": dict(sorted(screen.cut.items())),
    }


def _tokens(items: Iterable[Kept]) -> dict[str, dict[str, int]]:
    tokens: dict[str, dict[str, int]] = {}
    for item in items:
        sums = tokens.setdefault(item.conversation.kind, {"input": 0, "trained": 0})
        for side in item.sides:
            sums["input"] += len(side.input_ids)
            sums["trained"] += side.trained
    return tokens
