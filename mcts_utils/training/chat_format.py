"""The text of a training conversation, as XTuner composes it, and the proof that the actor sees the same tokens.

XTuner does not use a tokenizer's chat template: it fills its own three patterns. The actor is shown what it was
trained on only where both give the same token ids, so every row is compared.
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
    """One of XTuner's prompt templates, and what must be done to the messages so that it equals the chat template."""

    system: str  # pattern with {system}
    instruction: str  # pattern with {input}; ends where the assistant's text begins
    suffix: str  # ends an assistant turn; trained with it
    preamble: str = ""  # the chat template always has a system turn, which begins with this
    strip: bool = False  # the chat template trims every content

    def prepare(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages that XTuner is given."""
        turns = list(messages)
        if self.strip:
            turns = [replace(turn, content=turn.content.strip()) for turn in turns]
        if self.preamble:
            system = turns.pop(0).content if turns[0].role == "system" else ""
            turns.insert(0, Message("system", self.preamble + system))
        return tuple(turns)

    def pieces(self, prepared: Sequence[Message]) -> list[tuple[str, bool]]:
        """(text, trained) in order; each piece is tokenised on its own, as xtuner.dataset.utils.encode_fn does."""
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
class Encoded:
    """A conversation in tokens. Both lists have the same length; a label is the id itself or IGNORED."""

    input_ids: list[int]
    labels: list[int]
    turn_ends: list[int]  # for each assistant turn in order, how many tokens there are up to its end

    @property
    def trained(self) -> int:
        """Tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)


def encode(
    tokenizer: Any, chat: ChatFormat, conversations: Iterable[Conversation]
) -> Iterator[tuple[Conversation, Encoded]]:
    """Each conversation as the trainer will see it, before any cut to length. Lazy, some hundred at a time.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.

    Raises:
        InputError: naming the row where the tokenizer's chat template gives other tokens.
    """
    stream = iter(conversations)
    while batch := list(islice(stream, BATCH)):
        pieces = [chat.pieces(chat.prepare(conversation.messages)) for conversation in batch]
        texts = [text for row in pieces for text, _ in row]
        ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
        turns = [[{"role": m.role, "content": m.content} for m in c.messages] for c in batch]
        shown = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        for conversation, row, actor_ids in zip(batch, pieces, shown, strict=True):
            encoded = _joined(tokenizer.bos_token_id, [(next(ids), trained) for _, trained in row])
            _must_agree(tokenizer, conversation.source, encoded.input_ids, list(actor_ids))
            yield conversation, encoded


def prompt_ids(tokenizer: Any, chat: ChatFormat, messages: Sequence[Message]) -> list[int]:
    """What is trained in front of the answer to `messages`, which end in a user turn."""
    texts = [text for text, _ in chat.pieces(chat.prepare(messages))]
    pieces = [(ids, False) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return _joined(tokenizer.bos_token_id, pieces).input_ids


def special_token_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Finds a special token spelt out in a text: there it would become the token itself and end or begin a turn."""
    added = tokenizer.added_tokens_decoder.values()
    names = sorted(re.escape(token.content) for token in added if token.special)
    return re.compile("|".join(names) or r"(?!)")


def _joined(bos: int | None, pieces: Sequence[tuple[list[int], bool]]) -> Encoded:
    ids = [] if bos is None else [bos]
    labels, ends = [IGNORED] * len(ids), []
    for piece, trained in pieces:
        ids += piece
        labels += piece if trained else [IGNORED] * len(piece)
        ends.append(len(ids))
    return Encoded(ids, labels, ends[1::2])  # user and assistant alternate


def _must_agree(tokenizer: Any, source: str, trained: list[int], shown: list[int]) -> None:
    if trained == shown:
        return
    pairs = enumerate(zip(trained, shown, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(trained), len(shown)))
    here = slice(max(at - 2, 0), at + 6)
    raise InputError(
        f"{source}: --config trains other tokens than the model's chat template shows the actor, from token {at}: "
        f"{tokenizer.decode(trained[here])!r} against {tokenizer.decode(shown[here])!r}"
    )
