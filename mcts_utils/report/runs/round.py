"""One round of self-training in one table: evaluation before and after, records, tokens, seconds per stage.

    python -m mcts_utils.report.runs.round runs/demo
    python -m mcts_utils.report.runs.round --compare runs/demo_seed_0 runs/demo_seed_1 runs/demo_seed_2

Reads only what the stages wrote in the run's folder and writes summary.json there. It measures nothing itself.
"""

from __future__ import annotations

from mcts_utils.report.common import describe_reasons
from mcts_utils.report.common import only
from mcts_utils.report.common import percent
from mcts_utils.report.common import records
from mcts_utils.report.common import replay_check

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.results import compare
from mcts_utils.storage.files import read_json
from mcts_utils.storage.files import write_json
from mcts_utils.types import InputError

BEFORE, AFTER = "before", "after"
GAIN = 0.10  # what a round must add to the share of solved goals




def evaluation(run: Path, which: str) -> dict[str, Any]:
    """The numbers of one evaluation, and its recovery from failed prefixes where that was measured."""
    summary = read_json(only(run, f"test_result/*/*_{which}/summary.json"))
    kept = ("success_rate", "mean_reward", "n", "steps", "invalid_action_share", "repeated_action_share")
    numbers = {name: summary[name] for name in kept}
    numbers["ci95"] = summary["ci95"]["success_rate"]
    numbers["seconds"] = summary["seconds"]
    for path in run.glob(f"test_result/*/*_{which}_revise/summary.json"):
        revise = read_json(path)
        numbers["recovery"] = {
            "recovery_rate": revise["recovery_rate"],
            "n": revise["n"],
            "ci95": revise["ci95"]["success_rate"],
        }
        numbers["seconds"] += revise["seconds"]
    return numbers






def summarise(run: Path) -> dict[str, Any]:
    """Everything a round says of itself.

    Raises:
        InputError: a stage's output is missing; the line names it.
    """
    before, after = evaluation(run, BEFORE), evaluation(run, AFTER)
    search = read_json(only(run, "mcts_result/*/*/manifest.json"))
    training = read_json(run / "model" / "manifest.json")
    counts, seconds, tokens = records(run)
    counts["replay_exact"] = replay_check(run)
    folders = [only(run, f"test_result/*/*_{which}") for which in (BEFORE, AFTER)]
    return {
        "before": before,
        "after": after,
        "difference": compare(*folders),
        "trees": search["counts"]["trees"],
        "search": search["counts"],
        "records": counts,
        "training": training["counts"],
        "tokens": {"search": search["tokens"], **tokens, "train": training["tokens"]},
        "seconds": {
            "evaluate_before": before.pop("seconds"),
            "search": search["seconds"],
            **seconds,
            "train": training["seconds"],
            "evaluate_after": after.pop("seconds"),
        },
        "code_revision": search["code_revision"],
        "seed": search["settings"]["seed"],
    }




def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{'':34}{'before':>26}{'after':>26}"]

    def row(name: str, show: Any) -> None:
        lines.append(f"{name:34}{show(summary[BEFORE]):>26}{show(summary[AFTER]):>26}")

    row("solved, held-out goals (95 %)", lambda e: percent(e["success_rate"], e["ci95"]))
    row("goals", lambda e: str(e["n"]))
    if all("recovery" in summary[which] for which in (BEFORE, AFTER)):
        row("recovered from failed prefixes", lambda e: percent(*recovery_of(e)))
        row("prefixes", lambda e: str(e["recovery"]["n"]))
    row("refused actions", lambda e: percent(e["invalid_action_share"]))
    row("repeated actions", lambda e: percent(e["repeated_action_share"]))
    kinds = summary["records"]["by_type"]
    written = ", ".join(f"{found['written']} {kind}" for kind, found in kinds.items())
    dropped = "; ".join(f"{kind}: {describe_reasons(found['dropped'])}" for kind, found in kinds.items())
    search = summary["search"]
    exact = summary["records"]["replay_exact"]
    lines += [
        "",
        f"difference   {describe_difference(summary['difference'])}",
        f"trees        {summary['trees']} ({search['nodes']} nodes, "
        f"UCT decided {search['selections_uct_share'] or 0:.0%} of {search['selections']} selections)",
        f"written      {written}; executed again: {percent(exact)} exact",
        f"dropped      {dropped}",
        f"tokens       {describe_tokens(summary['tokens'])}",
        "seconds      " + ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items()),
    ]
    return "\n".join(lines)


def recovery_of(numbers: Mapping[str, Any]) -> tuple[float, Any]:
    """(rate, interval) of the recovery from failed prefixes."""
    return numbers["recovery"]["recovery_rate"], numbers["recovery"]["ci95"]




def describe_difference(found: Mapping[str, Any]) -> str:
    """The paired comparison in one line."""
    low, high = found["difference_ci95"] or (found["difference"],) * 2
    return (
        f"{100 * found['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), paired over goals: "
        f"{found['gained']} goals gained, {found['lost']} lost (McNemar p = {found['mcnemar_p']:.2g})"
    )


def describe_tokens(tokens: Mapping[str, Any]) -> str:
    """Tokens per stage: of prompts and replies, or of training rows (one epoch) and how many of them carry loss."""
    parts = []
    for name, found in tokens.items():
        if "prompt_tokens" in found:
            parts.append(f"{name} {found['prompt_tokens']:,} in + {found['completion_tokens']:,} out")
        else:
            total = {key: sum(kind[key] for kind in found.values()) for key in ("input", "trained")}
            parts.append(f"{name} {total['input']:,} per epoch, {total['trained']:,} with loss")
    return "; ".join(parts)


def compare_seeds(runs: list[Path]) -> tuple[str, bool]:
    """Rounds side by side, and whether every one gained GAIN points and recovers more often than before."""
    lines = [
        f"{'run':24}{'before':>9}{'after':>9}{'gain':>9}{'recovery before':>17}{'after':>9}{'records':>9}{'exact':>8}"
    ]
    all_good = True
    for run in runs:
        summary = read_json(run / "summary.json")
        before, after = summary[BEFORE], summary[AFTER]
        gain = after["success_rate"] - before["success_rate"]
        recovery = [e["recovery"]["recovery_rate"] for e in (before, after)]
        all_good &= gain >= GAIN and recovery[1] > recovery[0]
        lines.append(
            f"{run.name:24}{percent(before['success_rate']):>9}{percent(after['success_rate']):>9}{100 * gain:>+8.1f} "
            f"{percent(recovery[0]):>17}{percent(recovery[1]):>9}{summary['records']['written']:>9}"
            f"{percent(summary['records']['replay_exact']):>8}"
        )
    return "\n".join(lines), all_good


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "run_dir", type=Path, nargs="+", help="folder of one round, as scripts/demo.sh leaves it"
    )
    parser.add_argument("--compare", action="store_true", help="several finished rounds side by side")
    args = parser.parse_args(argv)
    try:
        if args.compare:
            text, all_good = compare_seeds(args.run_dir)
            print(text)
            return 0 if all_good else 1
        for run in args.run_dir:
            summary = summarise(run)
            write_json(run / "summary.json", summary)
            print(f"{table(summary)}\n\n{run / 'summary.json'}")
    except InputError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
