"""One round of self-training in one table: evaluation before and after, records, tokens, seconds per stage.

    python -m mcts_utils.report.round runs/demo
    python -m mcts_utils.report.round --compare runs/demo_seed_0 runs/demo_seed_1 runs/demo_seed_2

Reads only what the stages wrote in the run's folder and writes summary.json there. It measures nothing itself.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.scorecard import compare
from mcts_utils.storage import read_json, write_json
from mcts_utils.types import InputError

BEFORE, AFTER = "before", "after"
GAIN = 0.10  # what a round must add to the share of solved goals
RECORDS = ("centric", "good")  # data types that a round trains on


def only(folder: Path, pattern: str) -> Path:
    """The one path that matches; a round has one task and one model.

    Raises:
        InputError: naming the folder and what is missing or ambiguous.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} files match {pattern}, not one")
    return found[0]


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


def records(run: Path) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """(counts, in all and by data type; seconds by stage; tokens by stage)."""
    dropped: Counter[str] = Counter()
    counts: dict[str, Any] = {"written": 0, "by_type": {}, "verdicts": {}}
    seconds, tokens = 0.0, dict[str, Any]()
    for kind in RECORDS:
        manifest = read_json(only(run, f"records/*_{kind}.manifest.json"))
        found = manifest["counts"]
        counts["by_type"][kind] = {"written": found["written"], "dropped": found["dropped"]}
        counts["written"] += found["written"]
        dropped.update(found["dropped"])
        seconds += manifest["seconds"]
        if any(found["verdicts"].values()):
            counts["verdicts"] = found["verdicts"]
            tokens["revise"] = manifest["tokens"]
    return counts | {"dropped": dict(dropped)}, {"revise": seconds}, tokens


def replay_check(run: Path) -> float | None:
    """Share of the written rows that a second execution found exact, as `path_collection.py --verify` reported."""
    rows = exact = 0
    for path in sorted(run.glob("verified*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            counts = line.rpartition(": ")[2]
            found = dict(part.rsplit(" ", 1) for part in counts.split(", ") if " " in part)
            rows, exact = rows + int(found.get("rows", 0)), exact + int(found.get("exact", 0))
    return exact / rows if rows else None


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


def percent(value: float | None, interval: Any = None) -> str:
    """`46.0 %`, with its interval where there is one."""
    if value is None:
        return "-"
    low_high = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * value:.1f} %{low_high}"


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


def describe_reasons(dropped: Mapping[str, int]) -> str:
    """`12 duplicate, 3 cap`, most frequent first."""
    return ", ".join(f"{n} {why}" for why, n in sorted(dropped.items(), key=lambda x: -x[1])) or "none"


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
