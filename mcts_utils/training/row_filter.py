"""Filter conversations by one tokenizer and one maximal length: each is kept, shortened, or left out and counted.

The module reads no files; where a conversation may be cut is decided in dataset.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mcts_utils.training import dataset
from mcts_utils.training.chat_format import ChatFormat, EncodedConversation, encode, special_token_pattern
from mcts_utils.training.dataset import Conversation, PreferencePair

CUT, DROP = "cut", "drop"  # rows that are too long are shortened or left out


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row to train on, in tokens."""

    conversation: Conversation  # the chosen one of a pair
    sides: tuple[EncodedConversation, ...]  # one, or two (chosen, rejected) for a pair


class RowFilter:
    """Decides which conversations are trained; counts those left out or cut, by reason, with a first example each."""

    def __init__(self, tokenizer: Any, chat: ChatFormat, max_length: int, long: str = CUT) -> None:
        self.tokenizer, self.chat, self.max_length, self.long = tokenizer, chat, max_length, long
        self.special = special_token_pattern(tokenizer)
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
        """
        for conversation, encoded in encode(self.tokenizer, self.chat, self._trainable(conversations)):
            length = len(encoded.input_ids)
            if length <= self.max_length:
                yield EncodedRow(conversation, (encoded,))
                continue
            example = f"{conversation.source}, {length} tokens"
            end = self._cut_point(conversation, encoded)
            if end is None:
                self.drop(conversation.kind, self._too_long, example)
                continue
            reason = f"{conversation.kind}: {self._too_long}"
            self.cut[reason] += 1
            example = f"{example}, {end} of its {len(conversation.messages)} messages are kept"
            self._examples.setdefault(f"cut at a turn, {reason}", example)
            yield EncodedRow(*self._encode(dataset.shortened(conversation, end)))

    def filter_pairs(self, pairs: Iterable[PreferencePair]) -> Iterator[EncodedRow]:
        """Yield the pairs that can be trained, in tokens. Pairs are never cut, since they compare two outcomes."""
        for pair in pairs:
            sides = self._trainable([pair.chosen, pair.rejected])
            found = tuple(encoded for _, encoded in encode(self.tokenizer, self.chat, sides))
            if len(found) < 2:
                continue
            length = max(len(encoded.input_ids) for encoded in found)
            if length > self.max_length:
                self.drop(dataset.PREFERENCE, self._too_long, f"{pair.chosen.source}, {length} tokens")
            else:
                yield EncodedRow(pair.chosen, found)

    def notes(self) -> list[str]:
        """Return one line for each reason for which rows were left out or cut."""
        events = [(f"left out, {why}", n) for why, n in self.dropped.items()]
        events += [(f"cut at a turn, {why}", n) for why, n in self.cut.items()]
        return [f"{n} rows {what} (first: {self._examples[what]})" for what, n in events]

    def _cut_point(self, conversation: Conversation, encoded: EncodedConversation) -> int | None:
        """Return the largest number of messages that fits, or None if none does or rows are not to be cut."""
        start = 1 if conversation.messages[0].role == "system" else 0
        for end in dataset.cut_points(conversation) if self.long == CUT else ():
            if encoded.turn_ends[(end - start) // 2 - 1] <= self.max_length:
                return end
        return None

    def _encode(self, conversation: Conversation) -> tuple[Conversation, tuple[EncodedConversation, ...]]:
        return conversation, tuple(e for _, e in encode(self.tokenizer, self.chat, [conversation]))

    def _trainable(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            if not conversation.trained_turns:
                self.drop(conversation.kind, "no turn carries loss", conversation.source)
            elif any(self.special.search(message.content) for message in conversation.messages):
                reason = "a special token is spelt out in the text"
                self.drop(conversation.kind, reason, conversation.source)
            else:
                yield conversation
