"""Filter conversations by one chat template and one maximal length: each is kept, shortened, or left out and counted.

The module reads no files; where a conversation may be cut is decided in dataset.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mcts_utils.actors.chat_tokens import FIXED_DATE, load_tokenizer
from mcts_utils.config import env_file
from mcts_utils.training import checkpoint, dataset
from mcts_utils.training.dataset import GENERAL, Conversation, PreferencePair, RowError
from mcts_utils.training.encoding import EncodedSequence, Encoder

CUT, DROP = "cut", "drop"  # rows that are too long are shortened or left out


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row to train on, in tokens."""

    conversation: Conversation  # the chosen one of a pair
    # (chosen, rejected) for a pair; else one, or several where the chat template rewrites earlier turns
    sequences: tuple[EncodedSequence, ...]


def default_template(environ: Mapping[str, str]) -> str:
    """Return CHAT_TEMPLATE of the environment, else of the `.env` file, as the other stages read it."""
    return environ.get("CHAT_TEMPLATE", env_file().get("CHAT_TEMPLATE")) or ""


def row_filter_of(model: Path, max_length: int, chat_template: str = "", long: str = CUT) -> RowFilter:
    """Return a filter with the model's tokenizer and chat template.

    Raises:
        InputError: if the model has no usable tokenizer or chat template.
    """
    encoder = Encoder(load_tokenizer(model, chat_template), checkpoint.stop_ids(model))
    return RowFilter(encoder, max_length, long)


class RowFilter:
    """Decides which conversations are trained; counts those left out or cut, by reason, with a first example each."""

    def __init__(self, encoder: Encoder, max_length: int, long: str = CUT) -> None:
        self.encoder, self.max_length, self.long = encoder, max_length, long
        self.dropped: Counter[str] = Counter()  # by "kind: reason"
        self.cut: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._too_long = f"longer than max_length {max_length}"

    def drop(self, kind: str, reason: str, example: str) -> None:
        """Count a row that is left out; `example` names it."""
        self.dropped[f"{kind}: {reason}"] += 1
        self._examples.setdefault(f"left out, {kind}: {reason}", example)

    def filter_rows(self, conversations: Iterable[Conversation]) -> Iterator[EncodedRow]:
        """Yield the conversations that can be trained, in tokens. Lazy.

        A conversation that is too long is cut after a trained turn, if its revision signal and a trained turn after
        the signal fit.

        Raises:
            RowError: naming a record to which the chat template cannot be applied; general rows are left out.
        """
        for conversation in self._trainable(conversations):
            try:
                sequences = self.encoder.encode(conversation)
            except RowError as error:
                if conversation.kind != GENERAL:
                    raise
                self.drop(GENERAL, error.reason, conversation.source)
                continue
            length = max(len(sequence.input_ids) for sequence in sequences)
            if length > self.max_length:
                example = f"{conversation.source}, {length} tokens"
                end = self._cut_point(conversation, sequences)
                if end is None:
                    self.drop(conversation.kind, self._too_long, example)
                    continue
                reason = f"{conversation.kind}: {self._too_long}"
                self.cut[reason] += 1
                example = f"{example}, {end} of its {len(conversation.messages)} messages are kept"
                self._examples.setdefault(f"cut at a turn, {reason}", example)
                conversation = dataset.shortened(conversation, end)
                sequences = self.encoder.encode(conversation)
            yield EncodedRow(conversation, tuple(sequences))

    def filter_pairs(self, pairs: Iterable[PreferencePair]) -> Iterator[EncodedRow]:
        """Yield the pairs that can be trained, in tokens. Pairs are never cut, since they compare two outcomes.

        Raises:
            RowError: naming a pair of which the chat template makes more than two sequences.
        """
        for pair in pairs:
            sides = list(self._trainable([pair.chosen, pair.rejected]))
            if len(sides) < 2:
                continue
            found = [sequence for side in sides for sequence in self.encoder.encode(side)]
            if len(found) != 2:
                raise RowError(
                    pair.chosen.source,
                    "the chat template rewrites earlier turns, or drops their reasoning: no sequence holds a side",
                )
            length = max(len(sequence.input_ids) for sequence in found)
            if length > self.max_length:
                self.drop(dataset.PREFERENCE, self._too_long, f"{pair.chosen.source}, {length} tokens")
            else:
                yield EncodedRow(pair.chosen, tuple(found))

    def notes(self) -> list[str]:
        """Return a line for each reason for which rows were left out or cut, and one for a fixed date."""
        events = [(f"left out, {why}", n) for why, n in self.dropped.items()]
        events += [(f"cut at a turn, {why}", n) for why, n in self.cut.items()]
        notes = [f"{n} rows {what} (first: {self._examples[what]})" for what, n in events]
        if self.encoder.chat.template != self.encoder.tokenizer.get_chat_template():
            notes.append(f"the chat template writes today's date, which here is always {FIXED_DATE:%d %b %Y}")
        return notes

    def _cut_point(self, conversation: Conversation, sequences: Iterable[EncodedSequence]) -> int | None:
        """Return the largest number of messages that fits, or None if none does or rows are not to be cut."""
        ends = [end for sequence in sequences for end in sequence.ends]
        for end in dataset.cut_points(conversation) if self.long == CUT else ():
            if all(tokens <= self.max_length for messages, tokens in ends if messages <= end):
                return end
        return None

    def _trainable(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            if not conversation.trained_turns:
                self.drop(conversation.kind, "no turn carries loss", conversation.source)
            elif any(map(self.encoder.special.search, _texts(conversation))):
                reason = "a special token is spelt out in the text"
                self.drop(conversation.kind, reason, conversation.source)
            else:
                yield conversation


def _texts(conversation: Conversation) -> Iterator[str]:
    """Yield the texts of a conversation."""
    for message in conversation.messages:
        yield message.content
        yield from (call.arguments for call in message.tool_calls)
