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
from mcts_utils.report.common import only, paired_points, record_counts, replay_check
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.tables import Show, describe_reasons, percent, text_row
from mcts_utils.terminal import Parser, run_command

BEFORE, AFTER = "before", "after"
MIN_GAIN = 0.10  # of the share of solved goals, that a round must reach


def evaluation(run: Path, which: str) -> dict[str, Any]:
    """Return the numbers of one evaluation, with its recovery from failed prefixes if that was measured."""
    summary = summary_of(only(run, f"test_result/*/*_{which}/summary.json").parent)
    kept = ("success_rate", "mean_reward", "n", "steps", "invalid_action_share", "repeated_action_share")
    numbers = {name: getattr(summary, name) for name in kept}
    numbers["ci95"] = summary.ci95["success_rate"]
    numbers["seconds"] = summary.seconds
    for path in run.glob(f"test_result/*/*_{which}_revise/summary.json"):
        revise = summary_of(path.parent)
        numbers["recovery"] = {
            "recovery_rate": revise.recovery_rate,
            "n": revise.n,
            "ci95": revise.ci95["success_rate"],
        }
        numbers["seconds"] += revise.seconds
    return numbers


def summarise(run: Path) -> dict[str, Any]:
    """Return the numbers of a round, as in summary.json.

    Raises:
        InputError: an output of a stage is missing; the message names it.
    """
    before, after = evaluation(run, BEFORE), evaluation(run, AFTER)
    search = read_manifest(only(run, "mcts_result/*/*/manifest.json"))
    training = read_manifest(run / "model" / "manifest.json")
    counts, seconds, tokens = record_counts(run)
    counts["replay_exact"] = replay_check(run)
    folders = [only(run, f"test_result/*/*_{which}") for which in (BEFORE, AFTER)]
    return {
        "before": before,
        "after": after,
        "difference": compare_folders(*folders),
        "trees": search.counts["trees"],
        "search": search.counts,
        "records": counts,
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
    line = text_row(34, 26)
    lines = [line("", (BEFORE, AFTER))]

    def row(name: str, show: Show) -> None:
        lines.append(line(name, (show(summary[BEFORE]), show(summary[AFTER]))))

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
    """Return (rate, interval) of the recovery from failed prefixes."""
    return numbers["recovery"]["recovery_rate"], numbers["recovery"]["ci95"]


def describe_difference(found: Mapping[str, Any]) -> str:
    """Return the paired comparison in one line."""
    return (
        f"{paired_points(found)}, paired over goals: "
        f"{found['gained']} goals gained, {found['lost']} lost (McNemar p = {found['mcnemar_p']:.2g})"
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
        before, after = summary[BEFORE], summary[AFTER]
        gain = after["success_rate"] - before["success_rate"]
        recovery = [e["recovery"]["recovery_rate"] for e in (before, after)]
        all_good &= gain >= MIN_GAIN and recovery[1] > recovery[0]
        records = summary["records"]
        cells = [percent(before["success_rate"]), percent(after["success_rate"]), f"{100 * gain:+.1f} "]
        cells += [*map(percent, recovery), str(records["written"]), percent(records["replay_exact"])]
        lines.append(row(run.name, cells))
    return "\n".join(lines), all_good


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; with --compare it is 1 if a round gained too little."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "run_dir", type=Path, nargs="+", help="folder of one round, as scripts/demo.sh leaves it"
    )
    parser.add_argument("--compare", action="store_true", help="several finished rounds side by side")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> int:
    """Compare finished rounds, or write summary.json of each and print its table."""
    if args.compare:
        text, all_good = compare_seeds(args.run_dir)
        print(text)
        return 0 if all_good else 1
    for run in args.run_dir:
        summary = summarise(run)
        write_json(run / "summary.json", summary)
        print(f"{table(summary)}\n\n{run / 'summary.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
