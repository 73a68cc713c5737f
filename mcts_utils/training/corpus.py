"""The rows of one training run: read from the data files, filtered, capped, mixed by eta, shuffled and counted.

How a row becomes a conversation is in dataset.py, which rows can be trained in row_filter.py.
"""

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
from mcts_utils.training.row_filter import CUT, EncodedRow, RowFilter
from mcts_utils.types import InputError

FEW_TASKS = 10  # with rows of fewer a note is given: 4 rows of one task cost SmolLM2-135M most of its reward


@dataclass(frozen=True, slots=True)
class DataMix:
    """The data files of a run, and the rule by which their rows are mixed."""

    data: Sequence[str]  # files of agent rows
    general: Sequence[str]  # files of general rows (ShareGPT)
    eta: float  # share of agent rows, in (0, 1] (Section 3.2)
    seed: int
    max_per_task: int = 0  # most rows of one task and kind; 0: no limit
    long: str = CUT  # what becomes of rows that are too long: CUT or DROP
    pairs: bool = False  # whether `data` holds preference pairs, for DPO


@dataclass(frozen=True, slots=True)
class Corpus:
    """The training rows, with counts of the rows that were used, cut or left out."""

    rows: list[dict[str, Any]]  # as XTuner is given them
    # rows by kind, envs by environment and kind, tasks, dropped and cut by "kind: reason"
    counts: dict[str, Any]
    tokens: dict[str, dict[str, int]]  # by kind: "input" and, of these, "trained"
    notes: list[str]  # messages for the user, one line each


def build(mix: DataMix, row_filter: RowFilter) -> Corpus:
    """Return every usable record and general rows in the share 1 - eta, in an order set by the seed alone.

    Raises:
        InputError: naming the file and row of a record that cannot be trained, or if no row is left.
    """
    kept, notes = agent_rows(mix, row_filter)
    quota = dataset.general_quota(len(kept), mix.eta)
    pool = dataset.shuffled(read_general(mix.general, row_filter) if quota else [], mix.seed)
    drawn = list(islice(one_sequence_each(row_filter.filter_rows(pool)), quota))
    if quota and mix.general and not drawn:
        raise InputError(f"--general {' '.join(mix.general)}: no usable row ({dict(row_filter.dropped)})")
    if len(drawn) < quota:
        share = len(kept) / (len(kept) + len(drawn))
        notes.append(
            f"--general holds {len(drawn)} of the {quota} rows that --eta {mix.eta} asks for: eta is {share:.3f}"
        )
    mixed = dataset.shuffled([*kept, *drawn], mix.seed)
    tasks = len({item.conversation.task for item in kept})
    if tasks < FEW_TASKS:
        notes.append(
            f"little to learn from: {len(kept)} rows of {tasks} task{'s' * (tasks > 1)}; "
            "a model trained on so few may play worse than before"
        )
    counts = _counts(mixed, row_filter) | {"share_of_agent_rows": round(len(kept) / len(mixed), 4)}
    return Corpus([row_of(item) for item in mixed], counts, _tokens(mixed), row_filter.notes() + notes)


def one_sequence_each(items: Iterable[EncodedRow]) -> Iterator[EncodedRow]:
    """Yield a row for each sequence."""
    return (EncodedRow(item.conversation, (sequence,)) for item in items for sequence in item.sequences)


def agent_rows(mix: DataMix, row_filter: RowFilter) -> tuple[list[EncodedRow], list[str]]:
    """Return the records that can be trained, at most max_per_task of each task and kind, and notes for the user.

    A row is one sequence, or the two of a pair.

    Raises:
        InputError: if a record is malformed, or no row is left.
    """
    if mix.pairs:
        pairs = (dataset.preference_pair(row, source) for row, source in read_records(mix.data))
        kept = list(row_filter.filter_pairs(pairs))
    else:
        records = (dataset.record_conversation(row, source) for row, source in read_records(mix.data))
        kept = list(row_filter.filter_rows(records))
    notes = []
    if mix.max_per_task:
        before = len(kept)
        kept = dataset.cap_per_task(kept, lambda item: item.conversation, mix.max_per_task, mix.seed)
        if len(kept) < before:
            notes.append(f"{before - len(kept)} rows left out, over --max_per_task {mix.max_per_task}")
    if not kept:
        reasons = dict(row_filter.dropped) or "there is none"
        raise InputError(f"--data {' '.join(mix.data)}: no row is left to train on ({reasons})")
    if not mix.pairs:
        conversations, kept = len(kept), list(one_sequence_each(kept))
        if len(kept) > conversations:
            notes.append(
                f"the chat template rewrites earlier turns, or drops their reasoning: {conversations} "
                f"conversations are {len(kept)} rows, each trained as it is served"
            )
    zeros = sum(side.labels.count(0) for item in kept for side in item.sequences) if mix.pairs else 0
    if zeros:
        text = "trained tokens have the id 0, which XTuner's DPO takes for padding: no loss on them"
        notes.append(f"{zeros} {text}")
    return kept, notes


def read_records(paths: Iterable[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (row, "file row n") of stage 2's files.

    Raises:
        InputError: naming the file that cannot be read, or the row that is not a JSON object.
    """
    for path in paths:
        for number, row in enumerate(files.read_jsonl(path), start=1):
            yield row, f"{path} row {number}"


def read_general(paths: Iterable[str], row_filter: RowFilter) -> list[Conversation]:
    """Return the conversations of ShareGPT files; rows of another form are counted and left out."""
    found = []
    for path in paths:
        for number, row in enumerate(general_rows(path), start=1):
            source = f"{path} row {number}"
            if not isinstance(row, dict):
                row_filter.drop(GENERAL, "not a JSON object", source)
                continue
            try:
                found.append(dataset.general_conversation(row, source))
            except dataset.RowError as error:
                row_filter.drop(GENERAL, error.reason, source)
    return found


def general_rows(path: str) -> Iterator[Any]:
    """Yield the rows of a JSON list or of a JSONL file; None for a line that is not JSON.

    The first character decides which of the two it is, not the file's name.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if text.lstrip().startswith("["):
        yield from files.read_json(path)
        return
    for line in text.split("\n"):
        if line.strip():
            try:
                yield files.loads(line)
            except (json.JSONDecodeError, RecursionError):
                yield None


def any_conversation(row: dict[str, Any], source: str) -> Conversation:
    """Return the conversation of a record (it names its kind or origin, or holds revise_log) or of a general row.

    Raises:
        RowError: if it cannot be trained.
    """
    is_record = {"kind", "lineage", "revise_log"} & set(row)
    return (dataset.record_conversation if is_record else dataset.general_conversation)(row, source)


def row_of(item: EncodedRow) -> dict[str, Any]:
    """Return a row of train.jsonl: one sequence in tokens, or the two of a pair."""
    if len(item.sequences) == 1:
        return {"input_ids": item.sequences[0].input_ids, "labels": item.sequences[0].labels}
    row: dict[str, Any] = {}
    for name, side in zip(("chosen", "rejected"), item.sequences, strict=True):
        row |= {f"{name}_ids": side.input_ids, f"{name}_labels": side.labels}
    return row


def _counts(items: Sequence[EncodedRow], row_filter: RowFilter) -> dict[str, Any]:
    conversations = [item.conversation for item in items]
    return {
        "rows": dataset.count_kinds(conversations),
        "envs": dataset.count_envs(conversations),
        "tasks": len({c.task for c in conversations if c.kind != GENERAL}),
        "dropped": dict(sorted(row_filter.dropped.items())),
        "cut": dict(sorted(row_filter.cut.items())),
    }


def _tokens(items: Iterable[EncodedRow]) -> dict[str, dict[str, int]]:
    tokens: dict[str, dict[str, int]] = {}
    for item in items:
        sums = tokens.setdefault(item.conversation.kind, {"input": 0, "trained": 0})
        for side in item.sequences:
            sums["input"] += len(side.input_ids)
            sums["trained"] += side.trained_tokens
    return tokens
