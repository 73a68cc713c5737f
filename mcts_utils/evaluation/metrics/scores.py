"""Scores of evaluation episodes with 95 % intervals: success, reward, pass@k, shares of actions. Pure.

It reads no files and knows no environment. Intervals are computed with scipy (imported where it is used: it takes half
a second): Wilson's interval for shares of tasks, else a bootstrap over tasks. Values are sorted before resampling, so
that the order of episodes changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np

from mcts_utils.storage.formats.summary import Estimate

CONFIDENCE = 0.95
RESAMPLES = 9999  # per bootstrap
NO_DATA = Estimate(None, 0, None)


def is_success(reward: float) -> bool:
    """Return True for the full reward, 1 (Section 2.1: r in [0, 1]), up to rounding: rewards are sums of fractions."""
    return reward >= 1 - 1e-9


def success_rate(rewards: Sequence[float]) -> Estimate:
    """Return the share of episodes with reward 1, with Wilson's interval."""
    n, wins = len(rewards), sum(is_success(r) for r in rewards)
    if not n:
        return NO_DATA
    from scipy import stats

    interval = stats.binomtest(wins, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(wins / n, n, (float(interval.low), float(interval.high)))


def mean_reward(rewards: Sequence[float]) -> Estimate:
    """Return the mean final reward; with Wilson's interval if all rewards are 0 or 1, else a bootstrap interval."""
    if all(r == 0 or is_success(r) for r in rewards):
        return success_rate(rewards)
    return bootstrap_mean(rewards)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean with its percentile bootstrap interval (None for fewer than two values)."""
    return bootstrap_ratio(values, [1.0] * len(values), seed)


def bootstrap_ratio(parts: Sequence[float], wholes: Sequence[float], seed: int = 0) -> Estimate:
    """Return sum(parts) / sum(wholes), such as refused actions over actions, with its percentile bootstrap interval.

    The bootstrap resamples tasks, each with its part and its whole, so that actions of a task may depend on each other.
    Tasks whose whole is 0 are left out.
    """
    rows = sorted((float(p), float(w)) for p, w in zip(parts, wholes, strict=True) if w > 0)
    return _ratio(tuple(rows), seed)


@lru_cache(maxsize=128)  # tables and checks ask for the same ones again, and many columns are all 0
def _ratio(rows: tuple[tuple[float, float], ...], seed: int) -> Estimate:
    """Return sum / sum of rows (part, whole), sorted, with the interval."""
    if not rows:
        return NO_DATA
    part, whole = (np.asarray(column) for column in zip(*rows, strict=True))
    mean = float(part.sum() / whole.sum())
    if len(rows) < 2:
        return Estimate(mean, 1, None)
    from scipy import stats

    found = stats.bootstrap(
        (part, whole),
        lambda p, w, axis: p.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # Rounding in the resampled means must not put the mean of equal values outside its interval.
    return Estimate(mean, len(rows), (min(float(found.low), mean), max(float(found.high), mean)))


def mean_success(tasks: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean over tasks of the share of a task's samples, at least one, with reward 1.

    With one sample per task this is `success_rate`. Samples of one task are not independent, so the interval is over
    tasks.
    """
    return mean_reward([sum(map(is_success, samples)) / len(samples) for samples in tasks])


def mean_at_k(tasks: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean over tasks of the mean reward of a task's samples; arguments as for `mean_success`."""
    return mean_reward([sum(sorted(samples)) / len(samples) for samples in tasks])


def pass_at_k(tasks: Sequence[Sequence[float]], k: int) -> Estimate:
    """Return the mean over tasks of pass@k = 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, Eq. 1).

    n is the number of a task's samples, c that of its successes. All k are over the same tasks: where a task has fewer
    than k samples the mean is None, and `n` is the number of tasks that have k.
    """
    enough = [samples for samples in tasks if len(samples) >= k]
    if len(enough) < len(tasks):
        return Estimate(None, len(enough), None)
    lost = [sum(not is_success(r) for r in samples) for samples in tasks]
    values = [1 - comb(bad, k) / comb(len(samples), k) for bad, samples in zip(lost, tasks, strict=True)]
    return mean_reward(values)
