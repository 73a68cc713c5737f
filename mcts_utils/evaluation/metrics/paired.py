"""Runs over the same tasks, compared: the difference, what n tasks can settle, wins and losses, tests. Pure.

Tasks are what is drawn, so they are what every interval resamples; samples and seeds of one task are averaged first.
Tests and power are scipy's and statsmodels'; the latter takes a second to import, so that is done where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mcts_utils.evaluation.metrics.scores import CONFIDENCE, RESAMPLES, bootstrap_mean, is_success

POWER = 0.8
SAME = 1e-9  # rewards are sums of fractions: a smaller difference is a tie

Rewards = Mapping[
    str, float | Sequence[float]
]  # task key -> final reward, or the rewards of the task's samples


def compare_runs(before: Rewards, after: Rewards, seed: int = 0) -> dict[str, Any]:
    """Two runs over the same tasks, paired by task; several samples of a task count as their mean.

    Returns:
        mean_reward and success_rate of both; the keys of `differences`, on rewards; success_difference and its ci95;
        p of a sign-flip test on the rewards. With one sample a task: gained/lost successes and McNemar's exact
        p-value on them; None with several, which are not independent.

    Raises:
        ValueError: when the tasks differ.
    """
    _same_tasks([before, after])
    keys = sorted(before)
    drawn = [[_samples(run[key]) for key in keys] for run in (before, after)]
    rewards = [[_mean(task) for task in run] for run in drawn]
    solved = [[_mean([float(is_success(r)) for r in task]) for task in run] for run in drawn]
    low, success, high = _interval(_gaps(*solved), seed)
    found: dict[str, Any] = {
        "mean_reward": [_mean(run) if run else None for run in rewards],
        "success_rate": [_mean(run) if run else None for run in solved],
        **differences(*rewards, seed=seed),
        "success_difference": success,
        "success_difference_ci95": None if low is None else [low, high],
        "permutation_p": sign_flip(_gaps(*rewards), seed),
        **{"gained": None, "lost": None, "mcnemar_p": None},
    }
    if all(len(task) == 1 for run in drawn for task in run):
        gained = sum(b > a for a, b in zip(*solved, strict=True))
        lost = sum(a > b for a, b in zip(*solved, strict=True))
        found |= {"gained": gained, "lost": lost, "mcnemar_p": mcnemar(gained, lost)}
    return found


def paired_over_seeds(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], seed: int = 0
) -> dict[str, Any]:
    """Two arms, each trained with several seeds and played on the same goals: mean over seeds, paired over goals.

    The interval is about other goals with these very models: with few seeds it does not tell how another training run
    would come out; `by_seed` shows how far the seeds lie apart.

    Args:
        before, after: one mapping goal -> reward a seed; an arm that no seed changes (the untrained model) may have
            one where the other has more.
        seed: draws the bootstrap.

    Returns:
        The keys of `differences`; seeds (of the arm with more); by_seed: a difference per seed where both arms have as
        many, or one of them only one; else None.

    Raises:
        ValueError: when an arm is empty or the goals differ.
    """
    if not before or not after:
        raise ValueError("an arm without seeds")
    _same_tasks([*before, *after])
    goals = sorted(before[0])
    one, two = ([_mean([run[goal] for run in arm]) for goal in goals] for arm in (before, after))
    seeds = max(len(before), len(after))
    pairs = [(before[i % len(before)], after[i % len(after)]) for i in range(seeds)]
    by_seed = [_mean([b[goal] - a[goal] for goal in goals]) for a, b in pairs] if goals else None
    alike = len(before) == len(after) or 1 in (len(before), len(after))
    return {
        **differences(one, two, seed=seed),
        "seeds": seeds,
        "by_seed": by_seed if alike else None,
    }


def differences(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """Values of the same tasks in the same order, paired.

    Returns:
        n; difference = mean(after - before) and difference_ci95, its bootstrap interval over tasks; sd of the single
        differences; detectable: see `power`; wins, losses, ties.
    """
    gaps = _gaps(before, after)
    low, mean, high = _interval(gaps, seed)
    sd = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None
    return {
        "n": len(gaps),
        "difference": mean,
        "difference_ci95": None if low is None else [low, high],
        "sd": sd,
        "detectable": power(len(gaps), sd) if sd is not None else None,
        "wins": sum(gap > 0 for gap in gaps),
        "losses": sum(gap < 0 for gap in gaps),
        "ties": sum(gap == 0 for gap in gaps),
    }


def power(n: int, sd: float, share: float = POWER, alpha: float = 1 - CONFIDENCE) -> float | None:
    """The smallest true difference that a paired two-sided t-test over n tasks finds with the given power.

    Args:
        sd: standard deviation of the paired differences, as observed, in units of the difference.
        share: the power.

    Returns:
        In units of `sd`; None where n < 3 or the runs never differed, so that nothing is known of the spread.
    """
    if n < 3 or not sd > 0:
        return None
    from statsmodels.stats.power import TTestPower

    return sd * float(TTestPower().solve_power(nobs=n, alpha=alpha, power=share, alternative="two-sided"))


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact p-value of tasks that only the second and only the first run solved; 1.0 without any."""
    if not gained + lost:
        return 1.0
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    return min(1.0, float(exact_test([[0, lost], [gained, 0]], exact=True).pvalue))


def sign_flip(gaps: Sequence[float], seed: int = 0) -> float | None:
    """Two-sided p-value of the mean paired difference: how often signs drawn at random give one as large."""
    if len(gaps) < 2:
        return None
    found = stats.permutation_test(
        (np.asarray(gaps, dtype=float),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return min(1.0, float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, adjusted after Holm."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def _same_tasks(runs: Sequence[Mapping[str, Any]]) -> None:
    for run in runs[1:]:
        if run.keys() != runs[0].keys():
            raise ValueError(f"{len(run.keys() ^ runs[0].keys())} tasks are in one of the runs only")


def _samples(rewards: float | Sequence[float]) -> list[float]:
    return [float(r) for r in rewards] if isinstance(rewards, Sequence) else [float(rewards)]


def _gaps(before: Sequence[float], after: Sequence[float]) -> list[float]:
    gaps = [b - a for a, b in zip(before, after, strict=True)]
    return [gap if abs(gap) > SAME else 0.0 for gap in gaps]


def _interval(gaps: Sequence[float], seed: int) -> tuple[float | None, float | None, float | None]:
    """(low, mean, high) of the mean; the gaps the other way round give the same, the other way round."""
    turned = [-gap for gap in gaps]
    if sorted(turned) > sorted(gaps):
        low, mean, high = _interval(turned, seed)
        return tuple(None if x is None else -x for x in (high, mean, low))  # type: ignore[return-value]
    found = bootstrap_mean(gaps, seed)
    low, high = found.ci95 or (None, None)
    return low, found.mean, high


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
