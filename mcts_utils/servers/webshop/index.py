"""Search over product texts by BM25 (package bm25s), with the settings of the search engine that WebShop uses.

k1 0.9, b 0.4, Lucene's stop words and idf. Plurals are folded by a rule of three endings where Lucene's analyzer has a
full Porter stemmer. Equal scores come in the order of the products, so a search always answers the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import bm25s
import numpy as np

RESULTS = 50  # at most
K1, B = 0.9, 0.4
WORD = re.compile(r"[a-z0-9]+")
STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with".split()
)


def tokens(text: str) -> list[str]:
    """The words of a text as the index knows them."""
    words = WORD.findall(text.lower().replace("'s", ""))
    return [singular(word) for word in words if word not in STOP_WORDS]


def singular(word: str) -> str:
    """`berries` -> `berry`, `dresses` -> `dress`, `shoes` -> `shoe`."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "shes", "ches", "xes", "zes")) else word[:-1]


class Index:
    """A fixed list of texts, found by words."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._engine = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._engine.index([tokens(text) or [""] for text in texts], show_progress=False)

    def search(self, words: str, limit: int = RESULTS) -> list[int]:
        """Positions of the texts that hold any of the words, best first, at most `limit`."""
        asked = tokens(words)
        if not asked:
            return []
        scores = self._engine.get_scores(asked)
        found = np.flatnonzero(scores > 0)
        if len(found) > limit:
            least = np.partition(scores[found], -limit)[-limit]
            found = found[scores[found] >= least]  # all that tie with the last one, so that the order decides
        order = np.argsort(-scores[found], kind="stable")
        return [int(position) for position in found[order][:limit]]
