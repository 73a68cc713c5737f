"""A judge's verdicts against what is true: shares with intervals, Cohen's kappa, areas under the ROC curve. Pure.

It knows no trees and no files. Verdicts on one task are not independent: `ci95` is a bootstrap over tasks (scipy);
`ci95_wilson` (statsmodels) takes every verdict as independent and stands beside it.
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
MATCHES = {
    "good": 0,
    "bad": 1,
    "uncertain": 2,
    "unparsed": 2,
}  # index in TRUTHS: "uncertain" matches "neutral"


@dataclass(frozen=True, slots=True)
class Item:
    """One verdict and what an oracle says of the same step."""

    group: str  # id of the task
    verdict: str  # one of VERDICTS
    truth: str  # one of TRUTHS
    reason: str  # the oracle's
    clean: bool  # by the same oracle, no step before this one on its path is bad


@dataclass(frozen=True, slots=True)
class Scored:
    """A verdict and a number that should be low where the verdict is "bad"."""

    group: str
    verdict: str
    value: float


@dataclass(frozen=True, slots=True)
class JudgedPath:
    """A bad path: where the judge cuts it, and the oracle's first error from the first judged step on."""

    group: str
    cut: int | None  # index of the first step called bad
    error: int | None


def score(items: Sequence[Item], seed: int = 0) -> dict[str, Any]:
    """Everything about verdicts on single steps; shares without a case are None.

    For precision and recall a step is bad or not: one that is neutral and called bad counts against the precision.
    """

    def share_of(among: Callable[[Item], bool], hit: Callable[[Item], bool]) -> dict[str, Any]:
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


def _count(items: Sequence[Item], verdict: str, truth: str) -> int:
    return sum(item.verdict == verdict and item.truth == truth for item in items)


def share(hits: Sequence[tuple[str, bool]], seed: int = 0) -> dict[str, Any]:
    """Share of hits among (task, hit): share, hits, n, ci95 (over tasks) and ci95_wilson."""
    n, count = len(hits), sum(hit for _, hit in hits)
    wilson = None
    if n:
        low, high = proportion_confint(count, n, alpha=1 - CONFIDENCE, method="wilson")
        wilson = [float(low), float(high)]
    found = mean([(group, float(hit)) for group, hit in hits], seed)
    return {"share": found["mean"], "hits": count, "n": n, "ci95": found["ci95"], "ci95_wilson": wilson}


def mean(values: Sequence[tuple[str, float]], seed: int = 0) -> dict[str, Any]:
    """Mean of (task, value) over all values, with its percentile bootstrap over tasks (none below two tasks)."""
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


def kappa(items: Sequence[Item], seed: int = 0) -> dict[str, Any]:
    """Cohen's kappa of verdict and truth ("uncertain" and unparsed match "neutral"); None where it is not defined."""
    groups = {group: i for i, group in enumerate(dict.fromkeys(item.group for item in items))}
    tables = np.zeros((len(groups), len(TRUTHS), len(TRUTHS)))
    for item in items:
        tables[groups[item.group], MATCHES[item.verdict], TRUTHS.index(item.truth)] += 1

    def of(times: np.ndarray) -> float:
        return _kappa_of(np.tensordot(times, tables, 1))

    return {
        "kappa": _number(of(np.ones(len(groups)))),
        "n": len(items),
        "ci95": _over_groups(of, len(groups), seed),
    }


def _kappa_of(table: np.ndarray) -> float:
    """NaN where both always say the same one thing."""
    if not table.sum() or np.count_nonzero(table.sum(0)) == 1 == np.count_nonzero(table.sum(1)):
        return float("nan")
    return float(cohens_kappa(table, return_results=False))


def area(scored: Sequence[Scored], seed: int = 0) -> dict[str, Any]:
    """Area under the ROC curve: how often a step called bad has the lower value of two, the other not called bad.

    0.5 says nothing, 1 is perfect; ties count half (the Mann-Whitney statistic). None without both kinds.
    """
    low = [item.value for item in scored if item.verdict == "bad"]
    high = [item.value for item in scored if item.verdict != "bad"]
    counts = {"bad": len(low), "others": len(high)}
    if not low or not high:
        return {"area": None, **counts, "ci95": None}
    wins = stats.mannwhitneyu(high, low, method="asymptotic").statistic
    return {"area": float(wins / (len(low) * len(high))), **counts, "ci95": _area_interval(scored, seed)}


def _area_interval(scored: Sequence[Scored], seed: int) -> list[float] | None:
    """Over tasks. How often each value occurs per task is enough to have the statistic of any resample."""
    groups = {group: i for i, group in enumerate(dict.fromkeys(item.group for item in scored))}
    values, places = np.unique([item.value for item in scored], return_inverse=True)
    table = np.zeros((2, len(groups), len(values)))
    for item, place in zip(scored, places, strict=True):
        table[int(item.verdict == "bad"), groups[item.group], place] += 1

    def of(times: np.ndarray) -> float:
        others, bad = times @ table[0], times @ table[1]
        pairs = others.sum() * bad.sum()
        above = others.sum() - np.cumsum(others) + others / 2
        return float((bad * above).sum() / pairs) if pairs else float("nan")

    return _over_groups(of, len(groups), seed)


def _over_groups(of: Callable[[np.ndarray], float], groups: int, seed: int) -> list[float] | None:
    """Percentile bootstrap of a statistic of how often each group was drawn; None where a resample has no value."""
    if groups < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about resamples without a value, which give None
        found = stats.bootstrap(
            (np.arange(groups),),
            lambda drawn: of(np.bincount(drawn, minlength=groups).astype(float)),
            vectorized=False,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return None if np.isnan([found.low, found.high]).any() else [float(found.low), float(found.high)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def cuts(paths: Sequence[JudgedPath], seed: int = 0) -> dict[str, Any]:
    """Where bad paths are cut: on the oracle's first error, before it (early) or behind it (late).

    Distances are in steps, cut minus error, over paths with both. "no_error": a cut, and no error from the first judged
    step on; "missed": an error and no cut; "neither": no cut and no error.
    """
    kinds = [_kind(path) for path in paths]
    apart = [(p.group, p.cut - p.error) for p in paths if p.cut is not None and p.error is not None]
    return {
        "n": len(paths),
        **{
            kind: share([(p.group, k == kind) for p, k in zip(paths, kinds, strict=True)], seed)
            for kind in KINDS
        },
        "distance": mean([(group, float(gap)) for group, gap in apart], seed),
        "absolute_distance": mean([(group, float(abs(gap))) for group, gap in apart], seed),
    }


KINDS = ("exact", "early", "late", "no_error", "missed", "neither")


def _kind(path: JudgedPath) -> str:
    if path.cut is None:
        return "neither" if path.error is None else "missed"
    if path.error is None:
        return "no_error"
    return "exact" if path.cut == path.error else "early" if path.cut < path.error else "late"
