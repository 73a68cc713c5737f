"""`eval.py compare`: compare finished runs over one eval set, paired by task, as a table and JSON. Rolls nothing out.

    python eval.py compare test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned
    python eval.py compare --all --json pairs.json RUN_A RUN_B RUN_C

Runs whose eval sets, protocols or environments differ are refused: exit code 2 and one line that says what differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from msgspec.structs import replace

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation.metrics import paired
from mcts_utils.evaluation.results import check_comparable, compare_folders, summary_of
from mcts_utils.storage.files import write_json
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.summary import Comparison, PairedRuns
from mcts_utils.tables import BRACKETS, number
from mcts_utils.terminal import Parser
from mcts_utils.types import InputError


def comparison(runs: Sequence[str | Path], all_pairs: bool = False) -> Comparison:
    """Compare every run with the first, or every pair of runs.

    The test is McNemar's if the environment's main score is success and each task has one episode, else a sign-flip
    test on rewards.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs that results.check_comparable refuses.
    """
    if len(runs) < 2 or len({Path(run).resolve() for run in runs}) < len(runs):
        raise InputError(f"compare: at least two runs, each once: {', '.join(map(str, runs)) or 'none'}")
    protocol = summary_of(runs[0]).protocol
    for run in runs[1:]:
        check_comparable(runs[0], run)
    score, pairs = env_spec(protocol.task).score, []
    for one, two in combinations(runs, 2) if all_pairs else [(runs[0], run) for run in runs[1:]]:
        found = compare_folders(one, two)
        found |= {"before": Path(one).name, "after": Path(two).name, "score": score}
        exact = score == "success_rate" and found["mcnemar_p"] is not None
        test, p = ("mcnemar", "mcnemar_p") if exact else ("sign_flip", "permutation_p")
        found |= {"test": test, "p": found[p]}
        pairs.append(parsed(found, PairedRuns))
    adjusted = iter(paired.holm([pair.p for pair in pairs if pair.p is not None]))
    pairs = [pair if pair.p is None else replace(pair, p_holm=next(adjusted)) for pair in pairs]
    return Comparison(panel=protocol.panel or None, protocol=protocol, pairs=pairs)


def describe(found: Comparison) -> str:
    """Return the comparison as text, one block for each pair."""
    several = len(found.pairs) > 1
    blocks = [f"panel {(found.panel or '')[:12]}"]
    for pair in found.pairs:
        rows = _rows(pair)
        if several:
            rows = {"": f"{pair.before} -> {pair.after}", **rows}
            rows["adjusted after Holm"] = _p(pair.p_holm)
        blocks.append("\n".join(f"{name:<24} {value}" for name, value in rows.items()))
    return ("\n\n" if several else "\n").join(blocks)


def _rows(pair: PairedRuns) -> dict[str, str]:
    rows = {
        "tasks": str(pair.n),
        "success rate": " -> ".join(f"{value:.3f}" for value in pair.success_rate),
        "mean reward": " -> ".join(f"{value:.3f}" for value in pair.mean_reward),
        "difference": f"{_points(pair.difference, pair.difference_ci95)} (mean reward)",
        "wins / losses / ties": f"{pair.wins} / {pair.losses} / {pair.ties}",
    }
    if pair.success_difference != pair.difference:
        rows["difference of success"] = _points(pair.success_difference, pair.success_difference_ci95)
    if pair.gained is not None:
        rows["successes gained / lost"] = f"{pair.gained} / {pair.lost} (McNemar: {_p(pair.mcnemar_p)})"
    rows["sign-flip test, rewards"] = _p(pair.permutation_p)
    power = "no two tasks differ enough to say"
    if pair.detectable:
        power = f"a difference of {100 * pair.detectable:.1f} points would be found with 80 % power"
    return rows | {"power": f"n {pair.n}: {power}"}


def _points(mean: float | None, interval: Sequence[float] | None) -> str:
    return number(mean, interval, "+.3f", ends=BRACKETS)


def _p(value: float | None) -> str:
    return "p = -" if value is None else f"p = {value:.3g}"


def main(argv: Sequence[str]) -> int:
    """Run `eval.py compare` and return the exit code 0.

    Raises:
        InputError: the runs cannot be compared (see `comparison`).
    """
    parser = Parser(prog="eval.py compare", description="paired comparison of finished runs")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs; the first is the baseline")
    parser.add_argument("--all", action="store_true", help="all pairs, not only those with the first")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args(argv)
    found = comparison(args.runs, args.all)
    if args.json:
        write_json(args.json, found)
    sys.stdout.write(describe(found) + "\n")
    return 0
