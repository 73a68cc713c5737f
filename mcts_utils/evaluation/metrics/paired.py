"""Paired comparison of runs over the same tasks: difference, power, wins and losses, tests. Pure.

Tasks are the independent units, so every interval resamples tasks; samples and seeds of a task are averaged first.
Tests and power come from scipy and statsmodels, which take a second to import and are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mcts_utils.evaluation.metrics.scores import CONFIDENCE, RESAMPLES, Estimate, bootstrap_mean, is_success

POWER = 0.8
SAME = 1e-9  # rewards are sums of fractions: a smaller difference is a tie

# Task key -> final reward, or the rewards of the task's samples.
Rewards = Mapping[str, float | Sequence[float]]


def compare_runs(before: Rewards, after: Rewards) -> dict[str, Any]:
    """Compare two runs over the same tasks, paired by task; several samples of a task count as their mean.

    Returns:
        mean_reward and success_rate of both runs; the keys of `paired_differences`, on rewards; success_difference and
        its ci95; permutation_p, the p-value of a sign-flip test on the rewards; gained, lost and mcnemar_p, the
        successes gained and lost with McNemar's exact p-value: None if a task has several samples, as these are not
        independent.

    Raises:
        ValueError: the tasks differ.
    """
    _check_same_tasks([before, after])
    samples = [[np.ravel(run[key]).tolist() for key in sorted(before)] for run in (before, after)]
    rewards = [[_mean(task) for task in run] for run in samples]
    solved = [[_mean([float(is_success(r)) for r in task]) for task in run] for run in samples]
    success = _estimate(_gaps(*solved))
    found: dict[str, Any] = {
        "mean_reward": [_mean(run) if run else None for run in rewards],
        "success_rate": [_mean(run) if run else None for run in solved],
        **paired_differences(*rewards),
        "success_difference": success.mean,
        "success_difference_ci95": list(success.ci95) if success.ci95 else None,
        "permutation_p": sign_flip(_gaps(*rewards)),
        **{"gained": None, "lost": None, "mcnemar_p": None},
    }
    if all(len(task) == 1 for run in samples for task in run):
        gained, lost = (sum(sign * gap > 0 for gap in _gaps(*solved)) for sign in (1, -1))
        found |= {"gained": gained, "lost": lost, "mcnemar_p": mcnemar(gained, lost)}
    return found


def paired_over_seeds(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Compare two arms, each trained with several seeds and evaluated on the same goals.

    Rewards are averaged over seeds and paired over goals. The interval is about other goals with these trained models;
    it does not cover other training runs. `by_seed` shows how much the seeds differ.

    Args:
        before, after: one mapping goal -> reward per seed; an arm that does not depend on the seed (the untrained
            model) may have one mapping.

    Returns:
        The keys of `paired_differences`; seeds, the number of seeds of the arm with more; by_seed, a difference per
        seed, or None if the arms have different numbers of seeds and neither has one.

    Raises:
        ValueError: an arm is empty or the goals differ.
    """
    if not before or not after:
        raise ValueError("an arm without seeds")
    _check_same_tasks([*before, *after])
    goals = sorted(before[0])
    one, two = ([_mean([run[goal] for run in arm]) for goal in goals] for arm in (before, after))
    seeds = max(len(before), len(after))
    pairs = [(before[i % len(before)], after[i % len(after)]) for i in range(seeds)]
    matched = goals and (len(before) == len(after) or 1 in (len(before), len(after)))
    by_seed = [_mean([b[goal] - a[goal] for goal in goals]) for a, b in pairs] if matched else None
    return {**paired_differences(one, two), "seeds": seeds, "by_seed": by_seed}


def paired_differences(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Compare values of the same tasks, in the same order.

    Returns:
        n; difference = mean(after - before); difference_ci95, its bootstrap interval over tasks; sd of the differences;
        detectable (see `detectable_difference`); wins, losses, ties.
    """
    gaps = _gaps(before, after)
    found = _estimate(gaps)
    sd = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None
    return {
        "n": len(gaps),
        "difference": found.mean,
        "difference_ci95": list(found.ci95) if found.ci95 else None,
        "sd": sd,
        "detectable": detectable_difference(len(gaps), sd) if sd is not None else None,
        "wins": sum(gap > 0 for gap in gaps),
        "losses": sum(gap < 0 for gap in gaps),
        "ties": sum(gap == 0 for gap in gaps),
    }


def detectable_difference(n: int, sd: float) -> float | None:
    """Return the smallest true difference that a paired two-sided t-test over n tasks finds with power POWER.

    It is in the units of `sd`, the observed standard deviation of the paired differences; None if n < 3 or sd is 0, as
    the spread is not known then.
    """
    if n < 3 or not sd > 0:
        return None
    from statsmodels.stats.power import TTestPower

    how = {"alpha": 1 - CONFIDENCE, "power": POWER, "alternative": "two-sided"}
    return sd * float(TTestPower().solve_power(nobs=n, **how))


def mcnemar(gained: int, lost: int) -> float:
    """Return McNemar's exact p-value for tasks that only the second or only the first run solved; 1.0 without any."""
    if not gained + lost:
        return 1.0
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    return min(1.0, float(exact_test([[0, lost], [gained, 0]], exact=True).pvalue))


def sign_flip(gaps: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the mean paired difference under random signs; None for fewer than two tasks."""
    if len(gaps) < 2:
        return None
    from scipy import stats

    found = stats.permutation_test(
        (np.asarray(gaps, dtype=float),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(0),
    )
    return min(1.0, float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several comparisons, adjusted by Holm's method."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def _check_same_tasks(runs: Sequence[Mapping[str, Any]]) -> None:
    """Check that the runs have the same tasks; raise ValueError if not."""
    for run in runs[1:]:
        if run.keys() != runs[0].keys():
            raise ValueError(f"{len(run.keys() ^ runs[0].keys())} tasks are in one of the runs only")


def _gaps(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Return the paired differences; those within rounding of 0 become 0."""
    gaps = [b - a for a, b in zip(before, after, strict=True)]
    return [gap if abs(gap) > SAME else 0.0 for gap in gaps]


def _estimate(gaps: Sequence[float]) -> Estimate:
    """Return the mean and its interval; for negated gaps the result is the exact negative."""
    negated = [-gap for gap in gaps]
    if sorted(negated) <= sorted(gaps):
        return bootstrap_mean(gaps)
    found = bootstrap_mean(negated)
    assert found.mean is not None
    return Estimate(-found.mean, found.n, (-found.ci95[1], -found.ci95[0]) if found.ci95 else None)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
