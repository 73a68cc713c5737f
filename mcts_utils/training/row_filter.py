"""Which conversations can be trained with one tokenizer and one length: each let through, shortened or counted out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mcts_utils.training import dataset
from mcts_utils.training.chat_format import ChatFormat, Encoded, encode, special_token_pattern
from mcts_utils.training.dataset import Conversation, PreferencePair

CUT, DROP = "cut", "drop"  # what becomes of rows that are too long


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is trained: a conversation in tokens, or a pair of them (chosen, rejected)."""

    conversation: Conversation  # the chosen one of a pair
    sides: tuple[Encoded, ...]


class Screen:
    """Nothing vanishes: what is left out or cut is counted, with the first row it happened to."""

    def __init__(self, tokenizer: Any, chat: ChatFormat, max_length: int, long: str = CUT) -> None:
        self.tokenizer, self.chat, self.max_length, self.long = tokenizer, chat, max_length, long
        self.special = special_token_pattern(tokenizer)
        self.dropped: Counter[str] = Counter()  # by "kind: reason"
        self.cut: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._too_long = f"longer than max_length {max_length}"

    def drop(self, kind: str, reason: str, example: str) -> None:
        """Count a row that is left out."""
        self.dropped[f"{kind}: {reason}"] += 1
        self._examples.setdefault(f"left out, {kind}: {reason}", example)

    def kept(self, conversations: Iterable[Conversation]) -> Iterator[Kept]:
        """Those that pass, as they will be trained. Lazy.

        One that is too long is cut behind a turn, where its revision signal and a trained turn after it fit.
        """
        for conversation, encoded in encode(self.tokenizer, self.chat, self._readable(conversations)):
            length = len(encoded.input_ids)
            if length <= self.max_length:
                yield Kept(conversation, (encoded,))
                continue
            example = f"{conversation.source}, {length} tokens"
            end = self._end(conversation, encoded)
            if end is None:
                self.drop(conversation.kind, self._too_long, example)
                continue
            reason = f"{conversation.kind}: {self._too_long}"
            self.cut[reason] += 1
            example = f"{example}, {end} of its {len(conversation.messages)} messages are kept"
            self._examples.setdefault(f"cut at a turn, {reason}", example)
            yield Kept(*self._single(dataset.shortened(conversation, end)))

    def kept_pairs(self, pairs: Iterable[PreferencePair]) -> Iterator[Kept]:
        """The pairs that pass. Never cut: a pair compares two outcomes."""
        for pair in pairs:
            sides = self._readable([pair.chosen, pair.rejected])
            found = tuple(encoded for _, encoded in encode(self.tokenizer, self.chat, sides))
            if len(found) < 2:
                continue
            length = max(len(encoded.input_ids) for encoded in found)
            if length > self.max_length:
                self.drop(dataset.PREFERENCE, self._too_long, f"{pair.chosen.source}, {length} tokens")
            else:
                yield Kept(pair.chosen, found)

    def notes(self) -> list[str]:
        """One line for each sort of row that was left out or cut."""
        happened = [(f"left out, {why}", n) for why, n in self.dropped.items()]
        happened += [(f"cut at a turn, {why}", n) for why, n in self.cut.items()]
        return [f"{n} rows {what} (first: {self._examples[what]})" for what, n in happened]

    def _end(self, conversation: Conversation, encoded: Encoded) -> int | None:
        """How many messages fit, if enough of them do and cutting is wanted."""
        start = 1 if conversation.messages[0].role == "system" else 0
        for end in dataset.cut_points(conversation) if self.long == CUT else ():
            if encoded.turn_ends[(end - start) // 2 - 1] <= self.max_length:
                return end
        return None

    def _single(self, conversation: Conversation) -> tuple[Conversation, tuple[Encoded, ...]]:
        return conversation, tuple(e for _, e in encode(self.tokenizer, self.chat, [conversation]))

    def _readable(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            if not conversation.trained_turns:
                self.drop(conversation.kind, "no turn carries loss", conversation.source)
            elif any(self.special.search(message.content) for message in conversation.messages):
                reason = "a special token is spelt out in the text"
                self.drop(conversation.kind, reason, conversation.source)
            else:
                yield conversation
