"""Scores of evaluation episodes with 95 % intervals: success, reward, pass@k, shares of actions. Pure.

It reads no files and knows no environment. Intervals are scipy's (the one exception to the rule that pure modules
import no vendor package): Wilson's for shares of tasks, else the bootstrap over tasks. Values are sorted before
anything is drawn, so that the order of episodes changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999  # of each bootstrap


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` tasks (or episodes) with its 95 % interval; without any the mean is None."""

    mean: float | None
    n: int
    ci95: tuple[float, float] | None  # None where n is too small to say anything

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"mean": self.mean, "n": self.n, "ci95": list(self.ci95) if self.ci95 else None}


NOTHING = Estimate(None, 0, None)


def is_success(reward: float) -> bool:
    """Success is the full reward (Section 2.1: r in [0, 1]); rewards are sums of fractions, so up to rounding."""
    return reward >= 1 - 1e-9


def success_rate(rewards: Sequence[float]) -> Estimate:
    """Share of episodes with reward 1, Wilson's interval."""
    n, wins = len(rewards), sum(is_success(r) for r in rewards)
    if not n:
        return NOTHING
    interval = stats.binomtest(wins, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(wins / n, n, (float(interval.low), float(interval.high)))


def mean_reward(rewards: Sequence[float], seed: int = 0) -> Estimate:
    """Mean final reward. All rewards 0 or 1: a share, so Wilson's interval; else a bootstrap interval."""
    if all(r == 0 or is_success(r) for r in rewards):
        return success_rate(rewards)
    return bootstrap_mean(rewards, seed)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean and its percentile bootstrap interval (none below two values)."""
    return bootstrap_ratio(values, [1.0] * len(values), seed)


def bootstrap_ratio(parts: Sequence[float], wholes: Sequence[float], seed: int = 0) -> Estimate:
    """sum(parts) / sum(wholes), such as refused actions over actions, with its percentile bootstrap interval.

    What is drawn are tasks, each with its part and its whole, so actions of one task may hang together as they like.
    Tasks whose whole is 0 say nothing and are left out.
    """
    rows = sorted((float(p), float(w)) for p, w in zip(parts, wholes, strict=True) if w > 0)
    if not rows:
        return NOTHING
    part, whole = (np.asarray(column) for column in zip(*rows, strict=True))
    mean = float(part.sum() / whole.sum())
    if len(rows) < 2:
        return Estimate(mean, 1, None)
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


def solved(tasks: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """Mean over tasks of the share of a task's samples with reward 1.

    Args:
        tasks: the final rewards of each task's samples, at least one; samples of one task are not independent, so the
            interval resamples tasks. With one sample a task it is `success_rate`.
    """
    return mean_reward([sum(map(is_success, samples)) / len(samples) for samples in tasks], seed)


def mean_at_k(tasks: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """Mean over tasks of the mean reward of a task's samples; see `solved`."""
    return mean_reward([sum(sorted(samples)) / len(samples) for samples in tasks], seed)


def pass_at_k(tasks: Sequence[Sequence[float]], k: int, seed: int = 0) -> Estimate:
    """Share of tasks that k samples solve at least once: 1 - C(n-c, k) / C(n, k) a task (Chen et al. 2021, Eq. 1).

    A task with n samples and c successes; those with fewer than k samples are left out.
    """
    values = []
    for samples in tasks:
        n, lost = len(samples), sum(not is_success(r) for r in samples)
        if n >= k:
            values.append(1 - comb(lost, k) / comb(n, k))
    return mean_reward(values, seed)
