"""Guess a reply's next tokens from what conversations said before, so that one pass of the model checks several.

An agent repeats itself, and so do the rollouts of one goal: what followed some tokens in any conversation comes again.
A guess changes no reply: a token is kept only where the model itself chooses it (prompt lookup decoding, Saxena 2023;
verification as in Leviathan et al. 2023, section 2.3, for choices that are fixed by their own random numbers).
"""

from __future__ import annotations

import numpy as np

GUESSES = 7  # tokens guessed at once: with the token before them a pass has 8 rows a conversation
CONTEXTS = (16, 8, 4, 2, 1)  # tokens before a guess; the longest that occurred before counts
MOST = 100_000  # contexts remembered before the older ones are forgotten; at most twice as many, some 60 MB
LEAST_GAIN = 1.5  # tokens per conversation and pass; a pass with guesses costs about so many without
PAUSE = 32  # passes without guesses after too little gain
MEMORY = 0.9  # weight of the past in the mean of the gain
RETRY = 1.2  # of LEAST_GAIN: where the mean stands after a pause, so that a few passes decide


class Lookup:
    """What followed each context of up to 16 tokens when it occurred last."""

    def __init__(self) -> None:
        self._recent: dict[bytes, np.ndarray] = {}  # tokens of the context -> at most GUESSES tokens after it
        self._older: dict[bytes, np.ndarray] = {}

    def learn(self, ids: np.ndarray, start: int) -> None:
        """Remember what follows what in a conversation, `ids`, [tokens], of which those from `start` on are new."""
        ids = ids.astype(np.int32)
        for at in range(max(start - GUESSES + 1, 1), len(ids)):
            after = ids[at : at + GUESSES].copy()
            for length in CONTEXTS:
                if length <= at:
                    self._recent[ids[at - length : at].tobytes()] = after
        if len(self._recent) > MOST:
            self._recent, self._older = {}, self._recent

    def guess(self, ids: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return [B, GUESSES] token ids: what followed the longest context that is known; 0 where nothing is.

        Args:
            ids: [B, L], token ids, of which the first `known` count.
            known: [B], at least 1.
        """
        guesses = np.zeros((len(ids), GUESSES), np.int64)
        for row, end in enumerate(known.tolist()):
            last = ids[row, max(0, end - CONTEXTS[0]) : end].astype(np.int32)
            for length in CONTEXTS:
                context = last[-length:].tobytes()
                after = self._recent.get(context, self._older.get(context))
                if after is not None:
                    guesses[row, : len(after)] = after
                    break
        return guesses


class Gain:
    """Decides whether guesses are worth their passes, from how many tokens they have won."""

    def __init__(self) -> None:
        self.mean = float(GUESSES)
        self.pause = 0

    def worth(self) -> bool:
        """Return True if the next pass should check guesses."""
        self.pause = max(0, self.pause - 1)
        return self.pause == 0

    def add(self, tokens: float) -> None:
        """Count the mean number of tokens per conversation that a pass with guesses has made."""
        self.mean = MEMORY * self.mean + (1 - MEMORY) * tokens
        if self.mean < LEAST_GAIN:
            self.mean, self.pause = RETRY * LEAST_GAIN, PAUSE
