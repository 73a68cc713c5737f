"""One round of self-training in one table: evaluation before and after, records, tokens, seconds per stage.

    python -m mcts_utils.report.runs.round runs/demo
    python -m mcts_utils.report.runs.round --compare runs/demo_seed_0 runs/demo_seed_1 runs/demo_seed_2

Reads only what the stages wrote in the run's folder, and writes summary.json there. It computes no scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.results import compare_folders, summary_of
from mcts_utils.report.common import only, paired_points, print_report, record_counts, replay_check
from mcts_utils.storage.files import read_json
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.tables import describe_reasons, percent, text_row
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

BEFORE, AFTER = "before", "after"
SCORES = ("success_rate", "mean_reward", "n", "steps", "invalid_action_share", "repeated_action_share")
MIN_GAIN = 0.10  # of the share of solved goals, that a round must reach


def evaluation(run: Path, which: str) -> dict[str, Any]:
    """Return the numbers of one evaluation, with its recovery from failed prefixes if that was measured."""
    summary = summary_of(only(run, f"test_result/*/*_{which}/summary.json").parent)
    numbers = {name: getattr(summary, name) for name in SCORES}
    numbers |= {"ci95": summary.ci95["success_rate"], "seconds": summary.seconds}
    for path in run.glob(f"test_result/*/*_{which}_revise/summary.json"):
        revise = summary_of(path.parent)
        recovery = {"recovery_rate": revise.recovery_rate, "n": revise.n, "ci95": revise.ci95["success_rate"]}
        numbers |= {"recovery": recovery, "seconds": numbers["seconds"] + revise.seconds}
    return numbers


def summarise(run: Path) -> dict[str, Any]:
    """Return the numbers of a round, as in summary.json; raise InputError naming the output that is missing."""
    before, after = (evaluation(run, which) for which in (BEFORE, AFTER))
    search = read_manifest(only(run, "mcts_result/*/*/manifest.json"))
    training = read_manifest(run / "model" / "manifest.json")
    counts, seconds, tokens = record_counts(run)
    return {
        "before": before,
        "after": after,
        "difference": compare_folders(*(only(run, f"test_result/*/*_{which}") for which in (BEFORE, AFTER))),
        "trees": search.counts["trees"],
        "search": search.counts,
        "records": {**counts, "replay_exact": replay_check(run)},
        "training": training.counts,
        "tokens": {"search": search.tokens, **tokens, "train": training.tokens},
        "seconds": {
            "evaluate_before": before.pop("seconds"),
            "search": search.seconds,
            **seconds,
            "train": training.seconds,
            "evaluate_after": after.pop("seconds"),
        },
        "code_revision": search.code_revision,
        "seed": search.settings["seed"],
    }


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table and lines of text."""
    line, both = text_row(34, 26), [summary[which] for which in (BEFORE, AFTER)]
    recovery = [e["recovery"] for e in both if "recovery" in e]
    records, search, change = summary["records"], summary["search"], summary["difference"]
    kinds = records["by_type"].items()
    lines = [
        line("", (BEFORE, AFTER)),
        line("solved, held-out goals (95 %)", [percent(e["success_rate"], e["ci95"]) for e in both]),
        line("goals", [str(e["n"]) for e in both]),
    ]
    if len(recovery) == 2:
        rates = [percent(found["recovery_rate"], found["ci95"]) for found in recovery]
        lines.append(line("recovered from failed prefixes", rates))
        lines.append(line("prefixes", [str(found["n"]) for found in recovery]))
    return "\n".join(
        [
            *lines,
            line("refused actions", [percent(e["invalid_action_share"]) for e in both]),
            line("repeated actions", [percent(e["repeated_action_share"]) for e in both]),
            "",
            f"difference   {paired_points(change)}, paired over goals: "
            f"{change['gained']} goals gained, {change['lost']} lost (McNemar p = {change['mcnemar_p']:.2g})",
            f"trees        {summary['trees']} ({search['nodes']} nodes, "
            f"UCT decided {search['selections_uct_share'] or 0:.0%} of {search['selections']} selections)",
            "written      "
            + ", ".join(f"{found['written']} {kind}" for kind, found in kinds)
            + f"; executed again: {percent(records['replay_exact'])} exact",
            "dropped      "
            + "; ".join(f"{kind}: {describe_reasons(found['dropped'])}" for kind, found in kinds),
            f"tokens       {describe_tokens(summary['tokens'])}",
            "seconds      " + ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items()),
        ]
    )


def describe_tokens(tokens: Mapping[str, Any]) -> str:
    """Return the tokens per stage: of prompts and replies, or of training rows (one epoch) and those with loss."""
    parts = []
    for name, found in tokens.items():
        if "prompt_tokens" in found:
            parts.append(f"{name} {found['prompt_tokens']:,} in + {found['completion_tokens']:,} out")
        else:
            total = {key: sum(kind[key] for kind in found.values()) for key in ("input", "trained")}
            parts.append(f"{name} {total['input']:,} per epoch, {total['trained']:,} with loss")
    return "; ".join(parts)


def compare_seeds(runs: list[Path]) -> tuple[str, bool]:
    """Return a table of rounds, and whether each gained MIN_GAIN and recovers more often than before."""
    row = text_row(24, 9, 9, 9, 17, 9, 9, 8)
    lines = [row("run", (BEFORE, AFTER, "gain", "recovery before", AFTER, "records", "exact"))]
    all_good = True
    for run in runs:
        summary = read_json(run / "summary.json")
        try:
            before, after = summary[BEFORE], summary[AFTER]
            gain = after["success_rate"] - before["success_rate"]
            recovery = [e["recovery"]["recovery_rate"] for e in (before, after)]
            all_good &= gain >= MIN_GAIN and recovery[1] > recovery[0]
            records = summary["records"]
            cells = [percent(before["success_rate"]), percent(after["success_rate"]), f"{100 * gain:+.1f} "]
            cells += [*map(percent, recovery), str(records["written"]), percent(records["replay_exact"])]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{run}/summary.json: not the summary of a round ({error!r})") from error
        lines.append(row(run.name, cells))
    return "\n".join(lines), all_good


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; with --compare it is 1 if a round gained too little."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("run_dir", type=Path, nargs="+", help="folder of one round, as scripts/demo.sh leaves it")
    add("--compare", action="store_true", help="several finished rounds side by side")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> int:
    """Compare finished rounds, or write summary.json of each and print its table."""
    if args.compare:
        text, all_good = compare_seeds(args.run_dir)
        print(text)
        return 0 if all_good else 1
    for run in args.run_dir:
        summary = summarise(run)
        print_report(f"{table(summary)}\n", summary, run / "summary.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
