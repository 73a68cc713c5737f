"""Counts of a run of stage 1: those of one tree, their sums for the manifest, and the line that is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcts_utils.search.baselines import LIVE, SEARCH
from mcts_utils.search.tree import STATS, Tree, leaves
from mcts_utils.storage.formats.tree import LIVE_COUNTS

TOKEN_COUNTS = ("calls", "completions", "prompt_tokens", "completion_tokens")
TreeTotals = dict[str, float]  # what a finished tree adds to the run's counts


def tree_totals(tree: Tree) -> TreeTotals:
    """Return the tree's counts, the number of its leaves and the sum of their rewards; `trees` is 1."""
    ends = leaves(tree)
    return {"trees": 1, **tree.stats, "leaves": len(ends), "reward_sum": sum(leaf.reward for leaf in ends)}


def run_totals(
    sums: Mapping[str, float], failed: int, held_out: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest's counts, and the actor's calls and tokens apart from them.

    Args:
        sums: of the `tree_totals` of all finished trees.
    """
    total = {name: sums.get(name, 0) for name in (*STATS, "leaves", "reward_sum")}
    total |= {name: sums[name] for name in LIVE_COUNTS if name in sums}
    tokens = {name: total.pop(name) for name in TOKEN_COUNTS}
    reward_sum = total.pop("reward_sum")
    counts = {
        "trees": sums.get("trees", 0),
        "failed": failed,
        "held_out": held_out,
        **total,
        "selections_uct_share": _ratio(total["selections_uct"], total["selections"]),
        "mean_leaf_reward": _ratio(reward_sum, total["leaves"]),
    }
    return counts, tokens


def describe(totals: Mapping[str, Any], folder: Path) -> str:
    """Return the run's summary in one line."""
    if totals["strategy"] == SEARCH:
        what = f"UCT decided {totals['selections_uct_share'] or 0:.0%} of {totals.get('selections', 0)} selections"
    else:
        spent = totals["tokens"]["completions"]
        what = f"{totals['strategy']}: {spent} completions, {totals.get('rollouts', 0)} rollouts"
        if totals["strategy"] == LIVE:
            counts = {name: totals.get(name, 0) for name in LIVE_COUNTS}
            what += " ({plain} plain), {judged} steps judged, {signals} signals".format_map(counts)
    failed = f"{totals['failed']} failed" + f"; the first: {totals['failure']}" * bool(totals["failure"])
    return (
        f"{totals['trees']} trees ({failed}), {totals.get('nodes', 0)} nodes, {what}, "
        f"mean leaf reward {totals['mean_leaf_reward'] or 0:.3f}, {totals['seconds']:.1f} s: {folder}"
    )


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
