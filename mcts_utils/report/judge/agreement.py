"""Agreement of a judge's verdicts with an oracle: shares with intervals, Cohen's kappa, area under the ROC curve. Pure.

It knows no trees and no files. Verdicts on one task are not independent, so `ci95` is a bootstrap over tasks (scipy);
`ci95_wilson` (statsmodels) is given as well and treats verdicts as independent.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

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


class JudgedStep(NamedTuple):
    """A verdict on a step, and the oracle's label of the same step."""

    group: str  # id of the task
    verdict: str  # one of VERDICTS
    truth: str  # one of TRUTHS
    reason: str  # of the oracle's label
    clean: bool  # no earlier step of the path is bad by the same oracle


class ValuedStep(NamedTuple):
    """A verdict and a value that should be low if the verdict is "bad"."""

    group: str
    verdict: str
    value: float


class JudgedPath(NamedTuple):
    """A bad path: the judge's cut, and the oracle's first error at or after the first judged step."""

    group: str
    cut: int | None  # index of the first step called bad
    error: int | None  # index of the first error

    @property
    def kind(self) -> str:
        """Return one of CUT_KINDS."""
        if self.cut is None:
            return "neither" if self.error is None else "missed"
        if self.error is None:
            return "no_error"
        return "exact" if self.cut == self.error else "early" if self.cut < self.error else "late"


def step_scores(items: Sequence[JudgedStep], seed: int = 0) -> dict[str, Any]:
    """Return all statistics of verdicts on single steps; a share without a case is None.

    For precision and recall a step is bad or not bad: a neutral step that is called bad lowers the precision.
    """

    def truly_bad(among: Iterable[JudgedStep]) -> dict[str, Any]:
        return share([(item.group, item.truth == "bad") for item in among], seed)

    def called_bad(among: Iterable[JudgedStep]) -> dict[str, Any]:
        return share([(item.group, item.verdict == "bad") for item in among], seed)

    bad, good = ([item for item in items if item.truth == truth] for truth in ("bad", "good"))
    given = {verdict: [item for item in items if item.verdict == verdict] for verdict in VERDICTS}
    pairs = Counter((item.verdict, item.truth) for item in items)
    return {
        "n": len(items),
        "tasks": len({item.group for item in items}),
        "confusion": {v: {t: pairs[v, t] for t in TRUTHS} for v in VERDICTS},
        "truly_bad": truly_bad(items),
        "precision": truly_bad(given["bad"]),
        "recall": called_bad(bad),
        "recall_by_reason": {
            reason: called_bad(item for item in bad if item.reason == reason)
            for reason in sorted({item.reason for item in bad})
        },
        "false_alarms": called_bad(good),
        "false_alarms_good_prefix": called_bad(item for item in good if item.clean),
        "calibration": {verdict: truly_bad(found) for verdict, found in given.items()},
        "agreement": share([(i.group, TRUTHS[MATCHES[i.verdict]] == i.truth) for i in items], seed),
        "kappa": kappa(items, seed),
    }


def share(hits: Sequence[tuple[str, bool]], seed: int = 0) -> dict[str, Any]:
    """Return the share of hits among pairs (task, hit): share, hits, n, ci95 (over tasks) and ci95_wilson."""
    n, count = len(hits), sum(hit for _, hit in hits)
    wilson = proportion_confint(count, n, alpha=1 - CONFIDENCE, method="wilson") if n else None
    found = mean(hits, seed)
    return {
        "share": found["mean"],
        "hits": count,
        "n": n,
        "ci95": found["ci95"],
        "ci95_wilson": [float(end) for end in wilson] if wilson else None,
    }


def mean(values: Sequence[tuple[str, float]], seed: int = 0) -> dict[str, Any]:
    """Return the mean over pairs (task, value): mean, n and ci95, a bootstrap over tasks (None below two tasks)."""
    if not values:
        return {"mean": None, "n": 0, "ci95": None}
    groups = _numbered(group for group, _ in values)
    sums, counts = np.bincount(groups, [value for _, value in values]), np.bincount(groups)
    found = float(sums.sum() / counts.sum())
    interval = None
    if len(sums) > 1:
        low, high = _bootstrap(
            (sums, counts), lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis), seed, paired=True
        )
        # Rounding in the resampled means must not put the mean of equal values outside its interval.
        interval = [min(low, found), max(high, found)]
    return {"mean": found, "n": len(values), "ci95": interval}


def kappa(items: Sequence[JudgedStep], seed: int = 0) -> dict[str, Any]:
    """Return Cohen's kappa of verdict and truth, None if undefined; "uncertain" and unparsed agree with "neutral"."""
    groups = _numbered(item.group for item in items)
    tables = np.zeros((max(groups, default=-1) + 1, len(TRUTHS), len(TRUTHS)))
    for group, item in zip(groups, items, strict=True):
        tables[group, MATCHES[item.verdict], TRUTHS.index(item.truth)] += 1

    def statistic(weights: np.ndarray) -> float:
        """Return kappa; NaN if both raters always use one and the same label."""
        table = np.tensordot(weights, tables, 1)
        if not table.sum() or np.count_nonzero(table.sum(0)) == 1 == np.count_nonzero(table.sum(1)):
            return float("nan")
        return float(cohens_kappa(table, return_results=False))

    found = statistic(np.ones(len(tables)))
    interval = _group_bootstrap(statistic, len(tables), seed)
    return {"kappa": None if np.isnan(found) else found, "n": len(items), "ci95": interval}


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
    # The counts of each value per task give the area of any resample.
    groups = _numbered(item.group for item in scored)
    values, columns = np.unique([item.value for item in scored], return_inverse=True)
    table = np.zeros((2, max(groups) + 1, len(values)))
    for item, group, column in zip(scored, groups, columns, strict=True):
        table[int(item.verdict == "bad"), group, column] += 1

    def statistic(weights: np.ndarray) -> float:
        others, bad = weights @ table[0], weights @ table[1]
        pairs = others.sum() * bad.sum()
        above = others.sum() - np.cumsum(others) + others / 2
        return float((bad * above).sum() / pairs) if pairs else float("nan")

    area = float(wins / (len(low) * len(high)))
    return {"area": area, **counts, "ci95": _group_bootstrap(statistic, table.shape[1], seed)}


def cut_scores(paths: Sequence[JudgedPath], seed: int = 0) -> dict[str, Any]:
    """Return the shares of bad paths that are cut at the oracle's first error, before it (early) or after it (late).

    "no_error": a cut, and no error at or after the first judged step; "missed": an error and no cut; "neither": no cut
    and no error. Distances are in steps, cut minus error, over paths with both.
    """
    distances = [(p.group, p.cut - p.error) for p in paths if p.cut is not None and p.error is not None]
    return {
        "n": len(paths),
        **{kind: share([(path.group, path.kind == kind) for path in paths], seed) for kind in CUT_KINDS},
        "distance": mean(distances, seed),
        "absolute_distance": mean([(group, abs(steps)) for group, steps in distances], seed),
    }


def _numbered(groups: Iterable[str]) -> list[int]:
    """Return the number of each group, from 0 in the order of their first appearance."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups]


def _group_bootstrap(statistic: Callable[[np.ndarray], float], groups: int, seed: int) -> list[float] | None:
    """Return the percentile bootstrap interval of a statistic of group weights; None if a resample has no value.

    A weight is the number of times that a group was drawn.
    """
    if groups < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples without a value, for which None is returned
        found = _bootstrap(
            (np.arange(groups),),
            lambda drawn: statistic(np.bincount(drawn, minlength=groups).astype(float)),
            seed,
            vectorized=False,
        )
    return None if np.isnan(found).any() else found


def _bootstrap(
    data: tuple[np.ndarray, ...], statistic: Callable[..., Any], seed: int, **how: bool
) -> list[float]:
    rng, options = (
        np.random.default_rng(seed),
        {"method": "percentile", "confidence_level": CONFIDENCE, **how},
    )
    found = stats.bootstrap(data, statistic, n_resamples=RESAMPLES, rng=rng, **options).confidence_interval
    return [float(found.low), float(found.high)]
