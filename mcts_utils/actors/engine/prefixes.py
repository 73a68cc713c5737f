"""Remember which beginnings of prompts a process has computed, in blocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 32  # tokens
MOST = 50_000  # blocks remembered before the older ones are forgotten; at most twice as many


def block_keys(ids: np.ndarray) -> list[int]:
    """Return a key for each whole block of a prompt, [tokens], which stands for all tokens up to the block's end."""
    ids, key, keys = ids.astype(np.int32), 0, []
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        key = hash((key, ids[end - BLOCK : end].tobytes()))
        keys.append(key)
    return keys


class Prefixes:
    """The blocks of prompts that were sent to one process."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: set[int] = set()

    def known(self, keys: Sequence[int]) -> int:
        """Return the number of blocks at the beginning of a prompt that were sent before."""
        for count, key in enumerate(keys):
            if key not in self._recent and key not in self._older:
                return count
        return len(keys)

    def add(self, keys: Sequence[int]) -> None:
        """Remember the blocks of a prompt."""
        self._recent.update(keys)
        if len(self._recent) > MOST:
            self._recent, self._older = set(), self._recent
