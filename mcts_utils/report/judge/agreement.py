"""Agreement of a judge's verdicts with an oracle: shares with intervals, Cohen's kappa, area under the ROC curve. Pure.

It knows no trees and no files. Verdicts on one task are not independent, so `ci95` is a bootstrap over tasks (scipy);
`ci95_wilson` (statsmodels) is given as well and treats verdicts as independent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
RESAMPLES = 1999
VERDICTS = ("good", "bad", "uncertain", "unparsed")
TRUTHS = ("good", "bad", "neutral")
# Verdict -> index in TRUTHS of the truth that it agrees with: "uncertain" agrees with "neutral".
MATCHES = {"good": 0, "bad": 1, "uncertain": 2, "unparsed": 2}
CUT_KINDS = ("exact", "early", "late", "no_error", "missed", "neither")


@dataclass(frozen=True, slots=True)
class JudgedStep:
    """A verdict on a step, and the oracle's label of the same step."""

    group: str  # id of the task
    verdict: str  # one of VERDICTS
    truth: str  # one of TRUTHS
    reason: str  # of the oracle's label
    clean: bool  # no earlier step of the path is bad by the same oracle


@dataclass(frozen=True, slots=True)
class ValuedStep:
    """A verdict and a value that should be low if the verdict is "bad"."""

    group: str
    verdict: str
    value: float


@dataclass(frozen=True, slots=True)
class JudgedPath:
    """A bad path: the judge's cut, and the oracle's first error at or after the first judged step."""

    group: str
    cut: int | None  # index of the first step called bad
    error: int | None  # index of the first error


def step_scores(items: Sequence[JudgedStep], seed: int = 0) -> dict[str, Any]:
    """Return all statistics of verdicts on single steps; a share without a case is None.

    For precision and recall a step is bad or not bad: a neutral step that is called bad lowers the precision.
    """

    def share_of(among: Callable[[JudgedStep], bool], hit: Callable[[JudgedStep], bool]) -> dict[str, Any]:
        return share([(item.group, hit(item)) for item in items if among(item)], seed)

    reasons = sorted({item.reason for item in items if item.truth == "bad"})
    return {
        "n": len(items),
        "tasks": len({item.group for item in items}),
        "confusion": {v: {t: _count(items, v, t) for t in TRUTHS} for v in VERDICTS},
        "truly_bad": share_of(lambda i: True, lambda i: i.truth == "bad"),
        "precision": share_of(lambda i: i.verdict == "bad", lambda i: i.truth == "bad"),
        "recall": share_of(lambda i: i.truth == "bad", lambda i: i.verdict == "bad"),
        "recall_by_reason": {
            reason: share_of(lambda i, r=reason: i.reason == r, lambda i: i.verdict == "bad")  # type: ignore[misc]
            for reason in reasons
        },
        "false_alarms": share_of(lambda i: i.truth == "good", lambda i: i.verdict == "bad"),
        "false_alarms_good_prefix": share_of(
            lambda i: i.truth == "good" and i.clean, lambda i: i.verdict == "bad"
        ),
        "calibration": {
            v: share_of(lambda i, v=v: i.verdict == v, lambda i: i.truth == "bad")  # type: ignore[misc]
            for v in VERDICTS
        },
        "agreement": share_of(lambda i: True, lambda i: TRUTHS[MATCHES[i.verdict]] == i.truth),
        "kappa": kappa(items, seed),
    }


def _count(items: Sequence[JudgedStep], verdict: str, truth: str) -> int:
    return sum(item.verdict == verdict and item.truth == truth for item in items)


def share(hits: Sequence[tuple[str, bool]], seed: int = 0) -> dict[str, Any]:
    """Return the share of hits among pairs (task, hit): share, hits, n, ci95 (over tasks) and ci95_wilson."""
    n, count = len(hits), sum(hit for _, hit in hits)
    wilson = None
    if n:
        low, high = proportion_confint(count, n, alpha=1 - CONFIDENCE, method="wilson")
        wilson = [float(low), float(high)]
    found = mean([(group, float(hit)) for group, hit in hits], seed)
    return {"share": found["mean"], "hits": count, "n": n, "ci95": found["ci95"], "ci95_wilson": wilson}


def mean(values: Sequence[tuple[str, float]], seed: int = 0) -> dict[str, Any]:
    """Return the mean over pairs (task, value): mean, n and ci95, a bootstrap over tasks (None below two tasks)."""
    if not values:
        return {"mean": None, "n": 0, "ci95": None}
    totals: dict[str, list[float]] = {}
    for group, value in values:
        kept = totals.setdefault(group, [0.0, 0.0])
        kept[0], kept[1] = kept[0] + value, kept[1] + 1
    sums, counts = np.array(list(totals.values())).T
    found = float(sums.sum() / counts.sum())
    interval = None
    if len(sums) > 1:
        bounds = stats.bootstrap(
            (sums, counts),
            lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        # Rounding in the resampled means must not put the mean of equal values outside its interval.
        interval = [min(float(bounds.low), found), max(float(bounds.high), found)]
    return {"mean": found, "n": len(values), "ci95": interval}


def kappa(items: Sequence[JudgedStep], seed: int = 0) -> dict[str, Any]:
    """Return Cohen's kappa of verdict and truth, None if undefined; "uncertain" and unparsed agree with "neutral"."""
    groups = {group: i for i, group in enumerate(dict.fromkeys(item.group for item in items))}
    tables = np.zeros((len(groups), len(TRUTHS), len(TRUTHS)))
    for item in items:
        tables[groups[item.group], MATCHES[item.verdict], TRUTHS.index(item.truth)] += 1

    def statistic(weights: np.ndarray) -> float:
        return _kappa_of(np.tensordot(weights, tables, 1))

    return {
        "kappa": _number_or_none(statistic(np.ones(len(groups)))),
        "n": len(items),
        "ci95": _group_bootstrap(statistic, len(groups), seed),
    }


def _kappa_of(table: np.ndarray) -> float:
    """Return kappa of a table of counts; NaN if both raters always use one and the same label."""
    if not table.sum() or np.count_nonzero(table.sum(0)) == 1 == np.count_nonzero(table.sum(1)):
        return float("nan")
    return float(cohens_kappa(table, return_results=False))


def roc_area(scored: Sequence[ValuedStep], seed: int = 0) -> dict[str, Any]:
    """Return the area under the ROC curve: the probability that a step called bad has a lower value than another step.

    0.5 is chance, 1 is perfect; ties count half (the Mann-Whitney statistic). The area is None if only one kind occurs.
    """
    low = [item.value for item in scored if item.verdict == "bad"]
    high = [item.value for item in scored if item.verdict != "bad"]
    counts = {"bad": len(low), "others": len(high)}
    if not low or not high:
        return {"area": None, **counts, "ci95": None}
    wins = stats.mannwhitneyu(high, low, method="asymptotic").statistic
    return {"area": float(wins / (len(low) * len(high))), **counts, "ci95": _area_interval(scored, seed)}


def _area_interval(scored: Sequence[ValuedStep], seed: int) -> list[float] | None:
    """Return the bootstrap interval over tasks; the counts of each value per task give the area of any resample."""
    groups = {group: i for i, group in enumerate(dict.fromkeys(item.group for item in scored))}
    values, columns = np.unique([item.value for item in scored], return_inverse=True)
    table = np.zeros((2, len(groups), len(values)))
    for item, column in zip(scored, columns, strict=True):
        table[int(item.verdict == "bad"), groups[item.group], column] += 1

    def statistic(weights: np.ndarray) -> float:
        others, bad = weights @ table[0], weights @ table[1]
        pairs = others.sum() * bad.sum()
        above = others.sum() - np.cumsum(others) + others / 2
        return float((bad * above).sum() / pairs) if pairs else float("nan")

    return _group_bootstrap(statistic, len(groups), seed)


def _group_bootstrap(statistic: Callable[[np.ndarray], float], groups: int, seed: int) -> list[float] | None:
    """Return the percentile bootstrap interval of a statistic of group weights; None if a resample has no value.

    A weight is the number of times that a group was drawn.
    """
    if groups < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples without a value, for which None is returned
        found = stats.bootstrap(
            (np.arange(groups),),
            lambda drawn: statistic(np.bincount(drawn, minlength=groups).astype(float)),
            vectorized=False,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return None if np.isnan([found.low, found.high]).any() else [float(found.low), float(found.high)]


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def cut_scores(paths: Sequence[JudgedPath], seed: int = 0) -> dict[str, Any]:
    """Return the shares of bad paths that are cut at the oracle's first error, before it (early) or after it (late).

    "no_error": a cut, and no error at or after the first judged step; "missed": an error and no cut; "neither": no cut
    and no error. Distances are in steps, cut minus error, over paths with both.
    """
    kinds = [_cut_kind(path) for path in paths]
    distances = [(p.group, p.cut - p.error) for p in paths if p.cut is not None and p.error is not None]
    return {
        "n": len(paths),
        **{
            kind: share([(p.group, k == kind) for p, k in zip(paths, kinds, strict=True)], seed)
            for kind in CUT_KINDS
        },
        "distance": mean([(group, float(steps)) for group, steps in distances], seed),
        "absolute_distance": mean([(group, float(abs(steps))) for group, steps in distances], seed),
    }


def _cut_kind(path: JudgedPath) -> str:
    """Return one of CUT_KINDS."""
    if path.cut is None:
        return "neither" if path.error is None else "missed"
    if path.error is None:
        return "no_error"
    return "exact" if path.cut == path.error else "early" if path.cut < path.error else "late"
