"""Turn conversations into token ids, equal to those of the tokenizer's own apply_chat_template. No model here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mcts_utils.types import Message

CACHED_TEXTS = 65536  # texts whose token ids are cached
PROBES = ("a b", " a\n", "\nThought: x\nAction: get 2 oak log", "", "  ", "é 1,")


class ChatTokens:
    """Conversations as token ids.

    Special tokens cut a text into pieces that are tokenized separately and cached, so that a growing conversation costs
    only its new turns. Where a probe shows that a tokenizer gives other ids like that, whole texts are tokenized.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._special = {
            str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        pattern = "|".join(re.escape(token) for token in sorted(self._special, key=len, reverse=True))
        self._separator = re.compile(f"({pattern})") if self._special else None  # None: texts are not cut
        self._cached_ids = lru_cache(maxsize=CACHED_TEXTS)(self._tokenize)
        self._takes_system = True  # the template does
        self._probe()

    def ids(self, messages: Sequence[Message]) -> np.ndarray:
        """Return the token ids, [tokens], of the conversation with the generation prompt after it."""
        text = self.render(messages)
        if self._separator is None:
            return np.array(self._cached_ids(text), np.int64)
        found: list[int] = []
        for piece in self._separator.split(text):
            if piece in self._special:
                found.append(self._special[piece])
            elif piece:
                found.extend(self._cached_ids(piece))
        return np.array(found, np.int64)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the template's text. If it takes no system turn, that turn's text begins the first user turn."""
        turns = [{"role": m.role, "content": m.content} for m in messages]
        if not self._takes_system and len(turns) > 1 and turns[0]["role"] == "system":
            turns = [
                {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"},
                *turns[2:],
            ]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def text(self, ids: Sequence[int]) -> str:
        """Return a reply's text without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _probe(self) -> None:
        """Find out whether the template takes a system turn, and whether pieces tokenize like the whole."""
        try:
            self.render([Message("system", "s"), Message("user", "u")])
        except Exception:  # templates raise jinja2.TemplateError and others
            self._takes_system = False
        for text in PROBES:
            turns = [
                Message("system", text),
                Message("user", text),
                Message("assistant", text),
                Message("user", text),
            ]
            if self._separator is not None and self.ids(turns).tolist() != self._tokenize(self.render(turns)):
                self._separator = None
