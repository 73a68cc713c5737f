"""Labels of the experiment: names of arms, lists of seeds, sources of tables. It draws and computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.experiment.contrasts import is_ablation

Summary = Mapping[str, Any]
WARM = "warm_start"
LABELS = {
    "optimal": "Optimal",
    "optimal_good": "Optimal + Good",
    "direct": "Direct-Revision + Good",
    "agent_r": "Agent-R",
    "dpo": "DPO",
    "optimal_good_long": "Optimal + Good, 9 epochs",
    "best_of_n": "Agent-R on best of N",
    "direct_search": "Agent-R on direct revision",
    "live": "Agent-R on live revision",
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
    """Return an arm's name for tables and figures."""
    return LABELS.get(arm, arm.replace("_", " "))


def start_of(summary: Summary) -> tuple[str, Mapping[str, Any] | None]:
    """Return the name and the row of the model that all arms start from: the warm start, else the untrained one."""
    warm = summary["arms"].get(WARM, {}).get("iterations") if summary["base"] else None
    return (WARM, warm[0]) if warm and warm[0]["seeds"] else ("base", summary["base"])


def last_iteration(summary: Summary) -> int:
    """Return the number of iterations of the longest arm."""
    return max((len(arm["iterations"]) for arm in summary["arms"].values()), default=0)


def drawn_arms(summary: Summary) -> list[str]:
    """Return the arms that the figures show, in the order of arms.json: those that run all iterations.

    If there is only one iteration, the ablations are left out.
    """
    last = last_iteration(summary)
    arms = [arm for arm, found in summary["arms"].items() if len(found["iterations"]) == last and arm != WARM]
    return arms if last > 1 else [arm for arm in arms if not is_ablation(arm)]


def listed_arms(summary: Summary) -> list[str]:
    """Return the arms of the tables by iteration: those of the figures, and all that are not ablations."""
    drawn = drawn_arms(summary)
    return [arm for arm in summary["arms"] if arm in drawn or not is_ablation(arm)]


def seeds_text(seeds: Sequence[int]) -> str:
    """Return the list of seeds, such as `seeds 0, 1, 2`."""
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds)) if seeds else "no seed"


def source_note(summary: Summary, mode: str) -> str:
    """Return the note on a table's source: command, seeds and n."""
    key = "recovery_n" if mode == "revise" else "n"
    rows = [summary["base"] or {}, *(row for arm in summary["arms"].values() for row in arm["iterations"])]
    sizes = sorted({row[key] for row in rows if row.get(key)})
    size = ", ".join(map(str, sizes)) or "0"
    unit = "failed prefixes" if mode == "revise" else "goals"
    return f"`{summary['command']}`, {seeds_text(summary['seeds'])}, n = {size} {unit}."
