"""Names of the experiment's arms, and what its tables and figures say of seeds. It draws and counts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.experiment.contrasts import is_ablation

Summary = Mapping[str, Any]
LABELS = {
    "optimal": "Optimal",
    "optimal_good": "Optimal + Good",
    "direct": "Direct-Revision + Good",
    "agent_r": "Agent-R",
    "dpo": "DPO",
    "optimal_good_long": "Optimal + Good, 9 epochs",
    "best_of_n": "Agent-R on best of N",
    "direct_search": "Agent-R on direct revision",
    "agent_r_unverified": "not verified",
    "agent_r_uncleaned": "not cleaned",
    "agent_r_duplicates": "duplicates kept",
    "agent_r_raw": "none of the three",
    "agent_r_self": "trained model judges",
    "agent_r_rehearsal": "Agent-R, rehearsed",
    "agent_r_optimal": "Agent-R, shortest good paths",
    "base": "untrained",
}


def label(arm: str) -> str:
    """An arm's name for people."""
    return LABELS.get(arm, arm.replace("_", " "))


def last_iteration(summary: Summary) -> int:
    """How many iterations the longest arm has."""
    return max((len(arm["iterations"]) for arm in summary["arms"].values()), default=0)


def drawn_arms(summary: Summary) -> list[str]:
    """Arms that run all iterations, in the order of arms.json: the lines of the figures. If there is one iteration
    alone, those that are no ablation."""
    last = last_iteration(summary)
    arms = [arm for arm, found in summary["arms"].items() if len(found["iterations"]) == last]
    return arms if last > 1 else [arm for arm in arms if not is_ablation(arm)]


def listed_arms(summary: Summary) -> list[str]:
    """The arms of the tables by iteration: those of the figures, and all that are no ablation."""
    drawn = drawn_arms(summary)
    return [arm for arm in summary["arms"] if arm in drawn or not is_ablation(arm)]


def seeds_text(seeds: Sequence[int]) -> str:
    """`seeds 0, 1, 2`."""
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds)) if seeds else "no seed"


def source(summary: Summary, mode: str) -> str:
    """Command, seeds and n of a table."""
    key = "recovery_n" if mode == "revise" else "n"
    rows = [summary["base"] or {}, *(row for arm in summary["arms"].values() for row in arm["iterations"])]
    sizes = sorted({row[key] for row in rows if row.get(key)})
    size = ", ".join(map(str, sizes)) or "0"
    unit = "failed prefixes" if mode == "revise" else "goals"
    return f"`{summary['command']}`, {seeds_text(summary['seeds'])}, n = {size} {unit}."
