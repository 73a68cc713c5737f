"""The text and the tokens of a training conversation, as XTuner composes them, compared with the chat template.

XTuner does not use the tokenizer's chat template: it fills three patterns of its own. The actor is prompted with the
chat template, so the two must give the same token ids; this is checked for every row. The module reads no files and
decides nothing about rows that are too long (row_filter.py does).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mcts_utils.training.dataset import Conversation
from mcts_utils.types import InputError, Message

IGNORED = -100  # the label of a token without loss
BATCH = 256  # conversations tokenised at once


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """One of XTuner's prompt templates, and the changes to the messages that make it equal to the chat template."""

    system: str  # pattern with {system}
    instruction: str  # pattern with {input}; up to the assistant's text
    suffix: str  # ends an assistant turn and is trained with it
    preamble: str = ""  # text that the chat template puts before every system message, present or not
    strip: bool = False  # whether the chat template strips white space from every message

    def prepare(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the messages to give to XTuner."""
        turns = list(messages)
        if self.strip:
            turns = [replace(turn, content=turn.content.strip()) for turn in turns]
        if self.preamble:
            system = turns.pop(0).content if turns[0].role == "system" else ""
            turns.insert(0, Message("system", self.preamble + system))
        return tuple(turns)

    def pieces(self, prepared: Sequence[Message]) -> list[tuple[str, bool]]:
        """Return the conversation's (text, trained) pieces in order.

        Each piece is to be tokenised on its own, as xtuner.dataset.utils.encode_fn does.
        """
        pieces, before = [], ""
        for turn in prepared:
            if turn.role == "system":
                before = self.system.format(system=turn.content)
            elif turn.role == "user":
                pieces.append((before + self.instruction.format(input=turn.content), False))
                before = ""
            else:
                pieces.append((turn.content + self.suffix, turn.loss))
        return pieces


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """A conversation in tokens."""

    input_ids: list[int]
    labels: list[int]  # one per input id: the id itself, or IGNORED
    turn_ends: list[int]  # one per assistant turn, in order: the number of tokens up to its end

    @property
    def trained_tokens(self) -> int:
        """Return the number of tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)


def encode(
    tokenizer: Any, chat: ChatFormat, conversations: Iterable[Conversation]
) -> Iterator[tuple[Conversation, EncodedConversation]]:
    """Yield each conversation with its tokens as the trainer sees them, before any cut to length.

    Lazy: BATCH conversations are tokenised at a time.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.

    Raises:
        InputError: naming the row, if the tokenizer's chat template gives other tokens.
    """
    stream = iter(conversations)
    while batch := list(islice(stream, BATCH)):
        pieces = [chat.pieces(chat.prepare(conversation.messages)) for conversation in batch]
        texts = [text for row in pieces for text, _ in row]
        ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
        turns = [[{"role": m.role, "content": m.content} for m in c.messages] for c in batch]
        template_ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        for conversation, row, prompted in zip(batch, pieces, template_ids, strict=True):
            encoded = _join(tokenizer.bos_token_id, [(next(ids), trained) for _, trained in row])
            _require_same_tokens(tokenizer, conversation.source, encoded.input_ids, list(prompted))
            yield conversation, encoded


def prompt_ids(tokenizer: Any, chat: ChatFormat, messages: Sequence[Message]) -> list[int]:
    """Return the tokens that precede the assistant's answer in training; `messages` end with a user turn."""
    texts = [text for text, _ in chat.pieces(chat.prepare(messages))]
    pieces = [(ids, False) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return _join(tokenizer.bos_token_id, pieces).input_ids


def special_token_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Return a pattern that finds special tokens spelt out in a text.

    The tokenizer would turn such a text into the special token, which begins or ends a turn.
    """
    added = tokenizer.added_tokens_decoder.values()
    names = sorted(re.escape(token.content) for token in added if token.special)
    return re.compile("|".join(names) or r"(?!)")


def _join(bos: int | None, pieces: Sequence[tuple[list[int], bool]]) -> EncodedConversation:
    ids = [] if bos is None else [bos]
    labels, ends = [IGNORED] * len(ids), []
    for piece, trained in pieces:
        ids += piece
        labels += piece if trained else [IGNORED] * len(piece)
        ends.append(len(ids))
    return EncodedConversation(ids, labels, ends[1::2])  # user and assistant alternate


def _require_same_tokens(tokenizer: Any, source: str, trained: list[int], prompted: list[int]) -> None:
    if trained == prompted:
        return
    pairs = enumerate(zip(trained, prompted, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(trained), len(prompted)))
    here = slice(max(at - 2, 0), at + 6)
    raise InputError(
        f"{source}: --config trains other tokens than the model's chat template gives the actor, from token {at}: "
        f"{tokenizer.decode(trained[here])!r} against {tokenizer.decode(prompted[here])!r}"
    )
