"""`eval.py compare`: finished runs over one panel, paired task by task, as a table and as JSON. It plays nothing.

    python eval.py compare test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned
    python eval.py compare --all --json pairs.json RUN_A RUN_B RUN_C

Runs whose panels, protocols or environments differ are refused: exit code 2 and one line that says what differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation import metrics
from mcts_utils.evaluation.results import check_alike, compare, summary_of
from mcts_utils.storage.files import write_json
from mcts_utils.types import InputError


def comparison(runs: Sequence[str | Path], all_pairs: bool = False) -> dict[str, Any]:
    """Every run against the first, or every pair.

    Returns:
        panel, protocol; pairs: before, after, the keys of metrics.compare_runs, score (the headline of this
        environment), test and p: McNemar's where the score is success and each task has one episode, else a sign-flip
        test on rewards; p_holm: p adjusted for the number of pairs.

    Raises:
        InputError: see scorecard.check_alike; less than two runs, or one twice.
    """
    if len(runs) < 2 or len({Path(run).resolve() for run in runs}) < len(runs):
        raise InputError(f"compare: at least two runs, each once: {', '.join(map(str, runs)) or 'none'}")
    protocol = summary_of(runs[0])["protocol"]
    for run in runs[1:]:
        check_alike(runs[0], run)
    chosen = list(combinations(runs, 2)) if all_pairs else [(runs[0], run) for run in runs[1:]]
    pairs = []
    for one, two in chosen:
        found = compare(one, two)
        pairs.append({"before": Path(one).name, "after": Path(two).name, **found, **_test(protocol, found)})
    adjusted = metrics.holm([pair["p"] for pair in pairs if pair["p"] is not None])
    for pair in pairs:
        pair["p_holm"] = adjusted.pop(0) if pair["p"] is not None else None
    return {"panel": protocol["panel"], "protocol": protocol, "pairs": pairs}


def _test(protocol: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    score = env_spec(protocol["task"]).score
    exact = score == "success_rate" and found["mcnemar_p"] is not None
    return {
        "score": score,
        "test": "mcnemar" if exact else "sign_flip",
        "p": found["mcnemar_p" if exact else "permutation_p"],
    }


def describe(found: Mapping[str, Any]) -> str:
    """The comparison for people."""
    many = len(found["pairs"]) > 1
    blocks = [f"panel {found['panel'][:12]}"]
    for pair in found["pairs"]:
        rows = _rows(pair)
        if many:
            rows = {"": f"{pair['before']} -> {pair['after']}", **rows}
            rows["adjusted after Holm"] = _p(pair["p_holm"])
        blocks.append("\n".join(f"{name:<24} {value}" for name, value in rows.items()))
    return ("\n\n" if many else "\n").join(blocks)


def _rows(pair: Mapping[str, Any]) -> dict[str, str]:
    a, b = (f"{value:.3f}" for value in pair["success_rate"])
    c, d = (f"{value:.3f}" for value in pair["mean_reward"])
    rows = {
        "tasks": str(pair["n"]),
        "success rate": f"{a} -> {b}",
        "mean reward": f"{c} -> {d}",
        "difference": f"{_points(pair['difference'], pair['difference_ci95'])} (mean reward)",
        "wins / losses / ties": f"{pair['wins']} / {pair['losses']} / {pair['ties']}",
    }
    if pair["success_difference"] != pair["difference"]:
        interval = pair["success_difference_ci95"]
        rows["difference of success"] = _points(pair["success_difference"], interval)
    if pair["gained"] is not None:
        said = f"{pair['gained']} / {pair['lost']} (McNemar: {_p(pair['mcnemar_p'])})"
        rows["successes gained / lost"] = said
    rows["sign-flip test, rewards"] = _p(pair["permutation_p"])
    rows["power"] = (
        f"n {pair['n']}: a difference of {100 * pair['detectable']:.1f} points would be found with 80 % power"
        if pair["detectable"]
        else f"n {pair['n']}: no two tasks differ enough to say"
    )
    return rows


def _points(mean: float, interval: Sequence[float] | None) -> str:
    return f"{mean:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def _p(value: float | None) -> str:
    return "p = -" if value is None else f"p = {value:.3g}"


def main(argv: Sequence[str]) -> int:
    """Exit code.

    Raises:
        InputError: see `comparison`.
    """
    parser = argparse.ArgumentParser(prog="eval.py compare", description="paired comparison of finished runs")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs; the first is the baseline")
    parser.add_argument("--all", action="store_true", help="all pairs, not only those with the first")
    parser.add_argument("--json", help="write the numbers there, too")
    args = parser.parse_args(argv)
    found = comparison(args.runs, args.all)
    if args.json:
        write_json(args.json, found)
    sys.stdout.write(describe(found) + "\n")
    return 0
