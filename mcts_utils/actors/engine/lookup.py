"""Guess a reply's next tokens from what conversations said before, so that one pass of the model checks several.

An agent repeats itself, and so do the rollouts of one goal: what followed some tokens in any conversation comes again.
A guess changes no reply: a token is kept only where the model itself chooses it (prompt lookup decoding, Saxena 2023;
verification as in Leviathan et al. 2023, section 2.3, for choices that are fixed by their own random numbers).
"""

from __future__ import annotations

import numpy as np

GUESSES = 15  # tokens guessed at once, at most
CONTEXTS = (16, 8, 4, 2, 1)  # tokens before a guess; the longest that occurred before counts
BYTES = np.int32().nbytes  # of a token
LENGTHS = tuple(BYTES * length for length in CONTEXTS)
MOST = 100_000  # contexts remembered before the older ones are forgotten; at most twice as many, some 60 MB
MORE = 1.6  # times as many tokens are guessed as were right before: a wrong one costs less than a pass for a right one
LEAST = 0.2  # right guesses below which nothing is guessed
PAUSE = 32  # passes until guesses are tried again
MEMORY = 0.9  # weight of the past in the mean of right guesses


class Lookup:
    """What followed each context of up to 16 tokens when it occurred last."""

    def __init__(self) -> None:
        self._recent: dict[bytes, bytes] = {}  # tokens of the context -> at most GUESSES tokens after it
        self._older: dict[bytes, bytes] = {}

    def learn(self, ids: np.ndarray, start: int) -> None:
        """Remember what follows what in a conversation, `ids`, [tokens], of which those from `start` on are new."""
        data, recent = ids.astype(np.int32).tobytes(), self._recent
        for end in range(BYTES * max(start - GUESSES + 1, 1), len(data), BYTES):
            after = data[end : end + BYTES * GUESSES]
            for length in LENGTHS:
                if length <= end:
                    recent[data[end - length : end]] = after
        if len(self._recent) > MOST:
            self._recent, self._older = {}, self._recent

    def guess(self, ids: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what followed the longest context that is known: [B, GUESSES] token ids, 0 where nothing did.

        And the contexts, [B]: indices of CONTEXTS, len(CONTEXTS) for none.

        Args:
            ids: [B, L], token ids, of which the first `known` count.
            known: [B], at least 1.
        """
        guesses = np.zeros((len(ids), GUESSES), np.int64)
        contexts = np.full(len(ids), len(CONTEXTS))
        for row, end in enumerate(known.tolist()):
            last = ids[row, max(0, end - CONTEXTS[0]) : end].astype(np.int32).tobytes()
            for context, length in enumerate(LENGTHS):
                key = last[-length:]
                after = self._recent.get(key, self._older.get(key))
                if after is not None:
                    guesses[row, : len(after) // BYTES] = np.frombuffer(after, np.int32)
                    contexts[row] = context
                    break
        return guesses, contexts


class Gain:
    """Decides how many tokens to guess after each context, from how many were right before."""

    def __init__(self) -> None:
        self.right = np.array([float(GUESSES)] * len(CONTEXTS) + [0.0])  # after no context: nothing

    def counts(self, contexts: np.ndarray) -> np.ndarray:
        """Return how many tokens to guess, [B], after `contexts`, [B], as Lookup.guess returns them."""
        wanted = np.ceil(MORE * self.right).clip(max=GUESSES).astype(np.int64)
        wanted[self.right < LEAST] = 0
        self.right[:-1][self.right[:-1] < LEAST] += LEAST / PAUSE
        return wanted[contexts]

    def add(self, contexts: np.ndarray, asked: np.ndarray, right: np.ndarray) -> None:
        """Count a pass: of `asked` guesses, [B], after `contexts`, [B], the first `right`, [B], were right."""
        counts = (asked > 0) & (contexts < len(CONTEXTS))
        for context in np.unique(contexts[counts]):
            rows = (contexts == context) & counts
            mean = MEMORY * self.right[context] + (1 - MEMORY) * right[rows].mean()
            self.right[context] = mean if mean >= LEAST else 0.0
