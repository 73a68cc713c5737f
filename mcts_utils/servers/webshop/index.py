"""Full-text search over products by BM25 (package bm25s), with the settings of WebShop's search engine.

k1 0.9, b 0.4, Lucene's stop words and idf. Plurals are reduced by simple rules, where Lucene's analyzer has a full
Porter stemmer. Equal scores are in the order of the products, so the results of a search are always the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import bm25s
import numpy as np

RESULTS = 50  # of a search, at most
K1, B = 0.9, 0.4
WORD = re.compile(r"[a-z0-9]+")
STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with".split()
)


def tokens(text: str) -> list[str]:
    """Return the words of a text in the form that is indexed."""
    words = WORD.findall(text.lower().replace("'s", ""))
    return [singular(word) for word in words if word not in STOP_WORDS]


def singular(word: str) -> str:
    """Return the singular of a word: `berries` -> `berry`, `dresses` -> `dress`, `shoes` -> `shoe`."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "shes", "ches", "xes", "zes")) else word[:-1]


class Index:
    """A search index over a fixed list of texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._engine = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._engine.index([tokens(text) or [""] for text in texts], show_progress=False)

    def search(self, words: str, limit: int = RESULTS) -> list[int]:
        """Return the positions of the texts that contain any of the words, best first, at most `limit`."""
        query = tokens(words)
        if not query:
            return []
        scores = self._engine.get_scores(query)
        found = np.flatnonzero(scores > 0)
        if len(found) > limit:
            least = np.partition(scores[found], -limit)[-limit]
            found = found[scores[found] >= least]  # keeps all ties with the last one; the order then decides
        order = np.argsort(-scores[found], kind="stable")
        return [int(position) for position in found[order][:limit]]
