"""Token ids of conversations, equal to the tokenizer's own apply_chat_template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mcts_utils.types import Message

TOKENS_KEPT = 65536  # distinct texts whose token ids are remembered


PROBES = ("a b", " a\n", "\nThought: x\nAction: get 2 oak log", "", "  ", "é 1,")


class ChatTokens:
    """Token ids of conversations, equal to the tokenizer's own apply_chat_template.

    Special tokens cut a text into pieces that are tokenized on their own, so a growing conversation costs only its
    new turns: the pieces' ids are remembered. Where a probe shows that a tokenizer
    does not work like that, whole texts are tokenized.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = {
            str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._special = added
        pattern = "|".join(re.escape(token) for token in sorted(added, key=len, reverse=True))
        self._cut = re.compile(f"({pattern})") if added else None
        self._piece = lru_cache(maxsize=TOKENS_KEPT)(self._tokenize)
        self._system = True  # the template takes a system turn
        self._probe()

    def ids(self, messages: Sequence[Message]) -> np.ndarray:
        """Token ids [tokens] of the conversation with the generation prompt behind it."""
        text = self.render(messages)
        if self._cut is None:
            return np.array(self._piece(text), np.int64)
        found: list[int] = []
        for piece in self._cut.split(text):
            if piece in self._special:
                found.append(self._special[piece])
            elif piece:
                found.extend(self._piece(piece))
        return np.array(found, np.int64)

    def render(self, messages: Sequence[Message]) -> str:
        """The template's text. A template without a system turn gets it in front of the first user turn."""
        turns = [{"role": m.role, "content": m.content} for m in messages]
        if not self._system and len(turns) > 1 and turns[0]["role"] == "system":
            turns = [
                {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"},
                *turns[2:],
            ]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def text(self, ids: Sequence[int]) -> str:
        """A reply's text, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _probe(self) -> None:
        """Find out whether the template takes a system turn, and whether pieces tokenize like the whole."""
        try:
            self.render([Message("system", "s"), Message("user", "u")])
        except Exception:  # templates refuse in their own words (jinja2.TemplateError and others)
            self._system = False
        for text in PROBES:
            turns = [
                Message("system", text),
                Message("user", text),
                Message("assistant", text),
                Message("user", text),
            ]
            if self._cut is not None and self.ids(turns).tolist() != self._tokenize(self.render(turns)):
                self._cut = None
