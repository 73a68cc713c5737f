"""Data files -> the rows of one training run: checked, measured with the tokenizer, mixed, shuffled, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mcts_utils import dataset, storage
from mcts_utils.dataset import Conversation
from mcts_utils.types import InputError, Message
from xtuner_config.chat import ChatFormat, encode, special_token_pattern


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on, and what became of the rest."""

    rows: list[tuple[Message, ...]]  # as XTuner is given them
    counts: dict[str, int]  # rows by kind
    dropped: dict[str, int]  # left out, by "kind: reason"
    tokens: dict[str, dict[str, int]]  # by kind: "input" and, of these, "trained"
    notes: list[str]  # what a person should know, one line each


class Screen:
    """Lets rows through that can be trained whole, and counts the others: nothing is cut, nothing vanishes."""

    def __init__(self, tokenizer: Any, chat: ChatFormat, max_length: int) -> None:
        self.tokenizer, self.chat, self.max_length = tokenizer, chat, max_length
        self.special = special_token_pattern(tokenizer)
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}  # by reason, the first row dropped for it

    def drop(self, kind: str, reason: str, example: str) -> None:
        """Count a row that is left out."""
        self.dropped[f"{kind}: {reason}"] += 1
        self.examples.setdefault(f"{kind}: {reason}", example)

    def kept(self, conversations: Iterable[Conversation]) -> Iterator[tuple[Conversation, int, int]]:
        """(conversation, tokens, trained tokens) of those that pass. Lazy."""
        for conversation, encoded in encode(self.tokenizer, self.chat, self._readable(conversations)):
            length = len(encoded.input_ids)
            if length > self.max_length:
                reason = f"longer than max_length {self.max_length}"
                self.drop(conversation.kind, reason, f"{conversation.source}, {length} tokens")
            else:
                yield conversation, length, encoded.trained

    def _readable(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            if not conversation.trained_turns:
                self.drop(conversation.kind, "no turn carries loss", conversation.source)
            elif any(self.special.search(message.content) for message in conversation.messages):
                self.drop(conversation.kind, "a special token is spelt out in the text", conversation.source)
            else:
                yield conversation


def build(
    data: Sequence[str], general: Sequence[str], eta: float, seed: int, chat: ChatFormat, screen: Screen
) -> Corpus:
    """Every usable record, and general rows in the share 1 - eta, in an order that depends on the seed alone.

    Raises:
        InputError: naming the file and row of a record that cannot be trained, or when nothing is left.
    """
    kept = list(screen.kept(read_records(data)))
    if not kept:
        raise InputError(f"--data {' '.join(data)}: no row is left to train on ({dict(screen.dropped)})")
    quota = dataset.general_quota(len(kept), eta)
    pool = dataset.shuffled(read_general(general, screen) if quota else [], seed)
    drawn = list(islice(screen.kept(pool), quota))
    notes = [f"{n} rows left out, {why} (first: {screen.examples[why]})" for why, n in screen.dropped.items()]
    if len(drawn) < quota:
        share = len(kept) / (len(kept) + len(drawn))
        notes.append(
            f"--general holds {len(drawn)} of the {quota} rows that --eta {eta} asks for: eta is {share:.3f}"
        )
    tokens: dict[str, dict[str, int]] = {}
    for conversation, length, trained in kept + drawn:
        sums = tokens.setdefault(conversation.kind, {"input": 0, "trained": 0})
        sums["input"] += length
        sums["trained"] += trained
    mixed = dataset.shuffled([conversation for conversation, _, _ in kept + drawn], seed)
    rows = [chat.prepare(conversation.messages) for conversation in mixed]
    return Corpus(rows, dataset.count_kinds(mixed), dict(sorted(screen.dropped.items())), tokens, notes)


def read_records(paths: Iterable[str]) -> list[Conversation]:
    """Stage 2's rows. A row that cannot be trained ends the run: it is a fault of the file, not of the world."""
    return [
        dataset.record_conversation(row, f"{path} row {number}")
        for path in paths
        for number, row in enumerate(storage.read_jsonl(path), start=1)
    ]


def read_general(paths: Iterable[str], screen: Screen) -> list[Conversation]:
    """ShareGPT rows, JSONL or one JSON list; rows of another form are counted and left out."""
    found = []
    for path in paths:
        rows = storage.read_json(path) if Path(path).suffix == ".json" else storage.read_jsonl(path)
        if not isinstance(rows, list):
            raise InputError(f"{path}: not a list of rows")
        for number, row in enumerate(rows, start=1):
            source = f"{path} row {number}"
            try:
                found.append(dataset.general_conversation(row if isinstance(row, dict) else {}, source))
            except dataset.RowError as error:
                screen.drop(dataset.GENERAL, error.reason, source)
    return found
