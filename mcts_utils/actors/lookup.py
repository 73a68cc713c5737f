"""Guess a reply's next tokens from what the conversation already says, so that one pass of the model checks several.

An agent repeats itself: its actions name what the environment listed, and earlier actions come again. A guess changes
no reply: a token is kept only where the model itself chooses it (prompt lookup decoding, Saxena 2023; verification as
in Leviathan et al. 2023, section 2.3, for choices that are fixed by their own random numbers).
"""

from __future__ import annotations

import numpy as np

GUESSES = 7  # tokens guessed at once: with the token before them a pass has 8 rows a conversation
LEAST_GAIN = 1.5  # tokens per conversation and pass; a pass with guesses costs about so many without
PAUSE = 32  # passes without guesses after too little gain
MEMORY = 0.9  # weight of the past in the mean of the gain
RETRY = 1.2  # of LEAST_GAIN: where the mean stands after a pause, so that a few passes decide


def guess(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return [B, GUESSES] token ids: those that followed the last occurrence of each row's last three tokens.

    Where three did not occur before, two or one count. Rows without any get some tokens of theirs.

    Args:
        ids: [B, L], token ids, of which the first `known` count.
        known: [B], at least 1.
    """
    rows, places = np.arange(len(ids)), np.arange(ids.shape[1])
    alike = np.zeros(ids.shape, np.int64)  # how many of the last three tokens end here
    so_far = places < known[:, None] - 1
    for back in range(3):
        last = ids[rows, np.maximum(known - 1 - back, 0)]
        so_far[:, back:] &= ids[:, : ids.shape[1] - back] == last[:, None]
        so_far[:, :back] = False
        alike += so_far
    best = (alike * ids.shape[1] + places * (alike > 0)).argmax(1)
    wanted = best[:, None] + 1 + np.arange(GUESSES)
    return ids[rows[:, None], np.minimum(wanted, known[:, None] - 1)]


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
