"""A whole run of scripts/run_all.sh in one table: the scores of each iteration's model. Writes RUN/summary.json.

    python -m mcts_utils.report.runs.iterations runs/run_all textcraft sciworld webshop

Summarises every iteration as iteration.py does, and compares the last evaluation with the first, paired by goal.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.results import compare_folders
from mcts_utils.report.common import only, paired_points, print_report
from mcts_utils.report.runs.iteration import MODEL
from mcts_utils.report.runs.iteration import summarise as summarise_iteration
from mcts_utils.tables import NONE, percent, text_row
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError


def gain(folders: Sequence[Path]) -> dict[str, Any] | str:
    """Return the paired comparison of two evaluations, or the reason why they cannot be compared."""
    one, two = (only(folder, f"{MODEL}/*/*/summary.json").parent for folder in folders)
    try:
        return compare_folders(one, two)
    except InputError as error:
        return str(error)


def summarise(run: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the summary of every iteration, and per environment the difference between the first and the last model.

    Raises:
        InputError: there is no iteration, or an output of a stage is missing; the message names it.
    """
    folders = {
        int(match[1]): path
        for path in run.glob("iteration_*")
        if (match := re.fullmatch(r"iteration_(\d+)", path.name))
    }
    if not folders:
        raise InputError(f"{run}: no folder iteration_1")
    found = {number: summarise_iteration(folders[number], tasks) for number in sorted(folders)}
    gains = {}
    for task in tasks:
        scored = [n for n, one in found.items() if (e := one["environments"][task]["evaluation"]) and e["n"]]
        if len(scored) > 1:
            first, last = scored[0], scored[-1]
            difference = gain([folders[number] / task for number in (first, last)])
            gains[task] = {"from": first, "to": last, "difference": difference}
    return {"iterations": {str(number): one for number, one in found.items()}, "gains": gains}


def table(summary: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """Return the mean rewards with one line per iteration and the training that it had, then the gains."""
    row = text_row(20, 26)
    lines = [row("mean reward (95 %)", tasks) + "   trained on"]
    for number, one in summary["iterations"].items():
        cells = []
        for task in tasks:
            e = one["environments"][task]["evaluation"]
            cells.append(percent(e["mean_reward"], e["ci95"]["mean_reward"]) if e else NONE)
        name = "the starting model" if number == "0" else f"iteration {number}"
        lines.append(f"{row(name, cells)}   {trained(one)}")
    for task, found in summary["gains"].items():
        change, name = found["difference"], f"{task}, iteration {found['to']} against {found['from']}"
        if isinstance(change, str):
            lines.append(f"{name}: not compared ({change})")
        else:
            lines.append(f"{name}: {paired_points(change)}, paired over {change['n']} tasks")
    return "\n".join(lines)


def trained(one: Mapping[str, Any]) -> str:
    """Return the training of an iteration, such as `412 rows, loss 1.312 -> 0.702`."""
    if not (training := one.get("training")):
        return NONE
    counts = training["counts"]
    rows, loss = sum(counts["rows"].values()), counts["loss"]
    return f"{rows} rows, loss {loss['first']:.3f} -> {loss['last']:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of scripts/run_all.sh")
    parser.add_argument("tasks", nargs="+", help="environments")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Write summary.json and print the table."""
    summary = summarise(args.run_dir, args.tasks)
    print_report(table(summary, args.tasks), summary, args.run_dir / "summary.json")


if __name__ == "__main__":
    sys.exit(main())
