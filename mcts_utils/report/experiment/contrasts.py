"""Arms of the experiment compared: paired over goals, mean over the seeds that both have, with power. Reads no files.

Families: Agent-R against the other arms, Agent-R against its ablations, Agent-R that judges for itself and is rehearsed
against the other arms, every arm against the untrained model. p-values are adjusted within a family and a measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mcts_utils.evaluation.metrics import CONFIDENCE, holm, paired_over_seeds
from mcts_utils.evaluation.metrics.paired import sign_flip
from mcts_utils.report.experiment.cells import BASE, RECOVERY, REPEATS, SUCCESS, Cells, ExperimentPlan

HERO, REHEARSAL = "agent_r", "agent_r_rehearsal"
ARMS, ABLATIONS, REHEARSED, UNTRAINED = "arms", "ablations", "rehearsed", "base"
MEASURES = (SUCCESS, RECOVERY, REPEATS)
WORTH = 0.05  # the difference of rates that the experiment is to settle
Goals = Mapping[str, float]


def is_ablation(arm: str) -> bool:
    """True for Agent-R with one thing changed or left out."""
    return arm.startswith(f"{HERO}_")


def contrasts(plan: ExperimentPlan, cells: Cells) -> list[dict[str, Any]]:
    """Every comparison that both sides are there for, in the order of families, measures, iterations and arms."""
    found = []
    for family, pairs in _families(plan).items():
        for measure in MEASURES:
            rows = [
                row
                for before, after, iteration in pairs
                if (row := contrast(cells, measure, before, after, iteration)) is not None
            ]
            adjusted = holm([row["p"] for row in rows])
            found += [
                {"family": family, **with_adjusted_p(row, p), "comparisons": len(rows)}
                for row, p in zip(rows, adjusted, strict=True)
            ]
    return found


def _families(plan: ExperimentPlan) -> dict[str, list[tuple[str, str, int]]]:
    """Family -> (before, after, iteration). A difference is after - before."""
    others = [arm for arm in plan.arms if arm != HERO and not is_ablation(arm)]
    hero = plan.arms.get(HERO, 0)

    def against(one: str) -> list[tuple[str, str, int]]:
        last = plan.arms.get(one, 0)
        return [(arm, one, i) for i in range(1, last + 1) for arm in others if i <= plan.arms[arm]]

    return {
        ARMS: against(HERO),
        ABLATIONS: [
            (arm, HERO, i)
            for arm, last in plan.arms.items()
            if is_ablation(arm)
            for i in range(1 + (arm in plan.branches), min(last, hero) + 1)
        ],
        REHEARSED: against(REHEARSAL),
        UNTRAINED: [(BASE, arm, i) for arm, last in plan.arms.items() for i in range(1, last + 1)],
    }


def contrast(cells: Cells, measure: str, before: str, after: str, iteration: int) -> dict[str, Any] | None:
    """One comparison over the seeds that both arms have; None without any.

    Returns:
        metrics.paired_over_seeds, where `seeds` are the seeds themselves and `by_seed` is seed -> difference;
        seeds_ci95: a t-interval over the seeds' differences (None below two); p of a sign-flip test over goals; for
        rates `settles_worth`: whether a difference of WORTH would be found with 80 % power, and `verdict`.
    """
    sides = [_by_seed(cells, measure, arm, iteration) for arm in (before, after)]
    if before == BASE:
        sides[0] = dict.fromkeys(sides[1], sides[0][-1]) if sides[0] else {}
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    one, two = ([side[seed] for seed in seeds] for side in sides)
    row: dict[str, Any] = {
        "measure": measure,
        "iteration": iteration,
        "before": before,
        "after": after,
        **paired_over_seeds(one, two),
    }
    gaps = [_mean([two[k][goal] - one[k][goal] for k in range(len(seeds))]) for goal in sorted(one[0])]
    row |= {"seeds": seeds, "by_seed": {str(s): d for s, d in zip(seeds, row["by_seed"], strict=True)}}
    row["seeds_ci95"] = over_training(list(row["by_seed"].values()))
    row["p"] = 1.0 if not any(gaps) else sign_flip(gaps) or 1.0
    if measure != REPEATS:
        settled = row["detectable"] is not None and row["detectable"] <= WORTH
        row |= {"settles_worth": settled, "verdict": verdict(row)}
    return row


def with_adjusted_p(row: Mapping[str, Any], p_holm: float) -> dict[str, Any]:
    """A comparison as one of a table: a difference that the adjusted p does not bear out is called so."""
    named = row.get("verdict", "").startswith(("higher", "lower")) and p_holm > 1 - CONFIDENCE
    return {**row, "p_holm": p_holm, **({"verdict": f"{row['verdict']}; not after Holm"} if named else {})}


def over_training(gaps: Sequence[float]) -> list[float] | None:
    """t-interval of the mean of the seeds' differences: what other training runs would give. None below two seeds."""
    if len(gaps) < 2:
        return None
    if len(set(gaps)) == 1:
        return [gaps[0], gaps[0]]
    found = stats.ttest_1samp(gaps, 0.0).confidence_interval(CONFIDENCE)
    return [float(found.low), float(found.high)]


def verdict(row: Mapping[str, Any]) -> str:
    """What the interval over goals says: which side is higher, that they are within WORTH of each other, or open.

    A difference that some seed does not share is called so: the interval knows nothing of other training runs.
    """
    if row["detectable"] is None:
        return "too few goals" if row["sd"] is None or row["sd"] > 0 else "no goal differs"
    low, high = row["difference_ci95"]
    small = -WORTH < low and high < WORTH
    if low > 0 or high < 0:
        side = 1 if low > 0 else -1
        shared = all(side * gap > 0 for gap in row["by_seed"].values())
        word = "higher" if low > 0 else "lower"
        return (
            word
            + (", by less than 5 points" if small else "")
            + ("" if shared else ", but not with every seed")
        )
    return "within 5 points" if small else "open"


def _by_seed(cells: Cells, measure: str, arm: str, iteration: int) -> dict[int, Goals]:
    """Seed -> goal -> number; the base under -1."""
    found = cells.of(arm, iteration)
    if arm == BASE:
        found = {-1: cells.base} if cells.base else {}
    values = {seed: cell.by_goal(measure) for seed, cell in found.items()}
    return {seed: goals for seed, goals in values.items() if goals is not None}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
