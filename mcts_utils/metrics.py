"""Numbers about evaluation episodes: scores with intervals, loops, refused actions, two runs compared. Pure.

It reads no files and knows no environment: what counts as a refused action is an argument. Intervals and tests are
scipy's (the one exception to the rule that pure modules import no vendor package).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mcts_utils.types import Step

CONFIDENCE = 0.95
RESAMPLES = 9999  # of each bootstrap
LOOP_LENGTHS = (1, 2, 3, 4, 5)  # Figure 4: how long the repeated action sequences are


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` episodes with its 95 % interval; without episodes the mean is None."""

    mean: float | None
    n: int
    ci95: tuple[float, float] | None  # None where n is too small to say anything


def is_success(reward: float) -> bool:
    """Success is the full reward (Section 2.1: r in [0, 1]); rewards are sums of fractions, so up to rounding."""
    return reward >= 1 - 1e-9


def success_rate(rewards: Sequence[float]) -> Estimate:
    """Share of episodes with reward 1, Wilson's interval."""
    n, wins = len(rewards), sum(is_success(r) for r in rewards)
    if not n:
        return Estimate(None, 0, None)
    interval = stats.binomtest(wins, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(wins / n, n, (float(interval.low), float(interval.high)))


def mean_reward(rewards: Sequence[float], seed: int = 0) -> Estimate:
    """Mean final reward. All rewards 0 or 1: a share, so Wilson's interval; else a bootstrap interval."""
    if all(r == 0 or is_success(r) for r in rewards):
        return success_rate(rewards)
    return bootstrap_mean(rewards, seed)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean and its percentile bootstrap interval (none below two values)."""
    if not values:
        return Estimate(None, 0, None)
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, len(values), None)
    found = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # Rounding in the resampled means must not put the mean of equal values outside its interval.
    return Estimate(mean, len(values), (min(float(found.low), mean), max(float(found.high), mean)))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def immediate_repeats(actions: Sequence[str]) -> int:
    """How many actions are the same as the one before."""
    return sum(a == b for a, b in zip(actions, actions[1:], strict=False))


def repeated_sequences(actions: Sequence[str], length: int) -> int:
    """How often a sequence of `length` actions is taken again right after itself (Figure 4).

    Occurrences do not overlap, and a sequence that is itself a loop of something shorter counts there only:
    `a a a a` is three repeats of length 1 and none of length 2; `a b a b a b` two repeats of length 2.
    """
    count = at = 0
    while at + 2 * length <= len(actions):
        block = list(actions[at : at + length])
        if block == list(actions[at + length : at + 2 * length]) and not _is_loop(block):
            count += 1
            at += length
        else:
            at += 1
    return count


def _is_loop(block: list[str]) -> bool:
    """True for a whole number of copies of something shorter."""
    size = len(block)
    return any(size % k == 0 and block == block[:k] * (size // k) for k in range(1, size))


def action_share(episodes: Sequence[Sequence[Step]], counts: Callable[[Step], bool]) -> float | None:
    """Share of the actions that count; None without actions."""
    answers = [counts(step) for steps in episodes for step in steps]
    return sum(answers) / len(answers) if answers else None


def behaviour(episodes: Sequence[Sequence[Step]], refused: Callable[[Step], bool]) -> dict[str, Any]:
    """What the agent did, episode by episode: steps, refused actions, repeats; plain numbers for a summary.

    Args:
        episodes: the steps that the agent took itself (a replayed prefix left out).
        refused: tells a step that the environment refused.
    """
    actions = [[step.action for step in steps] for steps in episodes]
    steps = [len(taken) for taken in actions]
    follow_ups = sum(max(0, n - 1) for n in steps)
    repeats = sum(immediate_repeats(taken) for taken in actions)
    n = len(episodes)
    loops = {
        str(k): sum(repeated_sequences(taken, k) for taken in actions) / n if n else None
        for k in LOOP_LENGTHS
    }
    return {
        "steps": {"mean": float(np.mean(steps)), "median": float(np.median(steps)), "total": sum(steps)}
        if n
        else None,
        "invalid_action_share": action_share(episodes, refused),
        "grounded_action_share": action_share(episodes, lambda step: bool(step.executed)),
        "repeated_action_share": repeats / follow_ups if follow_ups else None,
        "repeated_sequences": loops,  # mean count per episode, by length (Figure 4)
    }


def compare_runs(before: Mapping[str, float], after: Mapping[str, float], seed: int = 0) -> dict[str, Any]:
    """Two runs over the same tasks, paired.

    Args:
        before, after: task key -> final reward; the keys must be the same.

    Returns:
        n, both means and both success rates; difference = mean(after - before) with its bootstrap interval;
        wins/losses/ties by reward; gained/lost successes and McNemar's exact p-value on them.

    Raises:
        ValueError: when the tasks differ.
    """
    if before.keys() != after.keys():
        raise ValueError(f"{len(before.keys() ^ after.keys())} tasks are in one of the runs only")
    pairs = [(before[key], after[key]) for key in sorted(before)]
    gaps = [b - a for a, b in pairs]
    difference = bootstrap_mean(gaps, seed)
    gained = sum(is_success(b) and not is_success(a) for a, b in pairs)
    lost = sum(is_success(a) and not is_success(b) for a, b in pairs)
    return {
        "n": len(pairs),
        "mean_reward": [_mean([p[side] for p in pairs]) for side in (0, 1)],
        "success_rate": [success_rate([p[side] for p in pairs]).mean for side in (0, 1)],
        "difference": difference.mean,
        "difference_ci95": list(difference.ci95) if difference.ci95 else None,
        "wins": sum(gap > 0 for gap in gaps),
        "losses": sum(gap < 0 for gap in gaps),
        "ties": sum(gap == 0 for gap in gaps),
        "gained": gained,
        "lost": lost,
        "mcnemar_p": float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    }
