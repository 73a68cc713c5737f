"""Comparisons of the experiment's arms, paired over goals, averaged over common seeds, with power. It reads no files.

Families: Agent-R against the other arms; Agent-R against its ablations; Agent-R with rehearsal against the other arms;
every arm against the untrained model. p-values are adjusted within a family and a measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mcts_utils.evaluation.metrics.paired import holm, paired_over_seeds, sign_flip
from mcts_utils.evaluation.metrics.scores import CONFIDENCE
from mcts_utils.report.experiment.cells import (
    BASE,
    BASE_SEED,
    RECOVERY,
    REPEATS,
    SUCCESS,
    Cells,
    ExperimentPlan,
)

AGENT_R, REHEARSAL = "agent_r", "agent_r_rehearsal"
ARMS, ABLATIONS, REHEARSED, UNTRAINED = "arms", "ablations", "rehearsed", "base"
MEASURES = (SUCCESS, RECOVERY, REPEATS)
RELEVANT_DIFFERENCE = 0.05  # of rates: the smallest that matters
Goals = Mapping[str, float]


def is_ablation(arm: str) -> bool:
    """Return True for Agent-R with one thing changed or left out."""
    return arm.startswith(f"{AGENT_R}_")


def contrasts(plan: ExperimentPlan, cells: Cells) -> list[dict[str, Any]]:
    """Return every comparison whose two sides exist, in the order of families, measures, iterations and arms."""
    found = []
    for family, pairs in _families(plan).items():
        for measure in MEASURES:
            rows = [row for sides in pairs if (row := contrast(cells, measure, *sides)) is not None]
            for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
                found.append({"family": family, **with_adjusted_p(row, p), "comparisons": len(rows)})
    return found


def _families(plan: ExperimentPlan) -> dict[str, list[tuple[str, str, int]]]:
    """Return family -> [(before, after, iteration)]; a difference is after - before."""
    others = [arm for arm in plan.arms if arm != AGENT_R and not is_ablation(arm)]
    iterations = plan.arms.get(AGENT_R, 0)

    def against_others(after: str) -> list[tuple[str, str, int]]:
        last = plan.arms.get(after, 0)
        return [(arm, after, i) for i in range(1, last + 1) for arm in others if i <= plan.arms[arm]]

    return {
        ARMS: against_others(AGENT_R),
        ABLATIONS: [
            (arm, AGENT_R, i)
            for arm, last in plan.arms.items()
            if is_ablation(arm)
            for i in range(1 + (arm in plan.branches), min(last, iterations) + 1)
        ],
        REHEARSED: against_others(REHEARSAL),
        UNTRAINED: [(BASE, arm, i) for arm, last in plan.arms.items() for i in range(1, last + 1)],
    }


def contrast(cells: Cells, measure: str, before: str, after: str, iteration: int) -> dict[str, Any] | None:
    """Compare two arms over the seeds that both have; return None without common seeds.

    Returns:
        The keys of metrics.paired_over_seeds, where `seeds` lists the seeds and `by_seed` is seed -> difference;
        seeds_ci95, a t-interval over the seeds' differences (None for fewer than two seeds); p of a sign-flip test over
        goals; for rates settles_worth, True if a difference of RELEVANT_DIFFERENCE would be found with 80 % power, and
        verdict (see `verdict`).
    """
    sides = []
    for arm in (before, after):
        found = cells.by_seed(arm, iteration).items()
        sides.append({seed: cell.measures[measure] for seed, cell in found if measure in cell.measures})
    if before == BASE and sides[0]:
        sides[0] = dict.fromkeys(sides[1], sides[0][BASE_SEED])
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    one, two = ([side[seed] for seed in seeds] for side in sides)
    row: dict[str, Any] = {"measure": measure, "iteration": iteration, "before": before, "after": after}
    row |= paired_over_seeds(one, two)
    gaps = [
        float(np.mean([b[goal] - a[goal] for a, b in zip(one, two, strict=True)])) for goal in sorted(one[0])
    ]
    row |= {"seeds": seeds, "by_seed": {str(s): d for s, d in zip(seeds, row["by_seed"], strict=True)}}
    row["seeds_ci95"] = training_interval(list(row["by_seed"].values()))
    row["p"] = 1.0 if not any(gaps) else sign_flip(gaps) or 1.0
    if measure != REPEATS:
        settled = row["detectable"] is not None and row["detectable"] <= RELEVANT_DIFFERENCE
        row |= {"settles_worth": settled, "verdict": verdict(row)}
    return row


def with_adjusted_p(row: Mapping[str, Any], p_holm: float) -> dict[str, Any]:
    """Add the adjusted p-value; if it is above 0.05, the verdict of a difference says so."""
    found = {**row, "p_holm": p_holm}
    if row.get("verdict", "").startswith(("higher", "lower")) and p_holm > 1 - CONFIDENCE:
        found["verdict"] += "; not after Holm"
    return found


def training_interval(gaps: Sequence[float]) -> list[float] | None:
    """Return the t-interval of the mean over other training runs; None for fewer than two seeds."""
    if len(gaps) < 2:
        return None
    if len(set(gaps)) == 1:
        return [gaps[0], gaps[0]]
    found = stats.ttest_1samp(gaps, 0.0).confidence_interval(CONFIDENCE)
    return [float(found.low), float(found.high)]


def verdict(row: Mapping[str, Any]) -> str:
    """Return what the interval over goals shows: higher, lower, within RELEVANT_DIFFERENCE, or open.

    The verdict names a difference that some seed does not share: the interval does not cover other training runs.
    """
    if row["detectable"] is None:
        return "too few goals" if row["sd"] is None or row["sd"] > 0 else "no goal differs"
    low, high = row["difference_ci95"]
    small = -RELEVANT_DIFFERENCE < low and high < RELEVANT_DIFFERENCE
    if low > 0 or high < 0:
        side = 1 if low > 0 else -1
        shared = all(side * gap > 0 for gap in row["by_seed"].values())
        word = "higher" if low > 0 else "lower"
        few, some = ", by less than 5 points" if small else "", "" if shared else ", but not with every seed"
        return word + few + some
    return "within 5 points" if small else "open"
