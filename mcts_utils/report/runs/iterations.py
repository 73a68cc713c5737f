"""A whole run of scripts/run_all.sh in one table: what each iteration's model scores; writes RUN/summary.json.

    python -m mcts_utils.report.runs.iterations runs/run_all textcraft sciworld webshop

Reads the summaries that stages.py wrote, and pairs the last evaluation with the first one, goal by goal.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.report.common import only
from mcts_utils.report.common import percent
from mcts_utils.report.runs.iteration import MODEL
from mcts_utils.report.runs.iteration import summarise as summarise_iteration
from mcts_utils.evaluation.results import compare
from mcts_utils.storage.files import write_json
from mcts_utils.types import InputError


def iterations(run: Path) -> list[tuple[int, Path]]:
    """(number, folder) in order."""
    found = [
        (int(match[1]), path)
        for path in run.glob("iteration_*")
        if (match := re.fullmatch(r"iteration_(\d+)", path.name))
    ]
    if not found:
        raise InputError(f"{run}: no folder iteration_1")
    return sorted(found)


def gain(run: Path, task: str, first: int, last: int) -> dict[str, Any] | str:
    """The paired comparison of two iterations' evaluations, or why there is none."""
    one, two = (
        only(run / f"iteration_{number}" / task, f"{MODEL}/*/*/summary.json").parent
        for number in (first, last)
    )
    try:
        return compare(one, two)
    except InputError as error:
        return str(error)


def summarise(run: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Every iteration as stages.py has it, and by environment the difference between the first and the last model.

    Raises:
        InputError: a stage's output is missing; the line names it.
    """
    found = {number: summarise_iteration(folder, tasks) for number, folder in iterations(run)}
    gains = {}
    for task in tasks:
        scores = [n for n, one in found.items() if (e := one["environments"][task]["evaluation"]) and e["n"]]
        if len(scores) > 1:
            first, last = scores[0], scores[-1]
            gains[task] = {"from": first, "to": last, "difference": gain(run, task, first, last)}
    return {"iterations": {str(number): one for number, one in found.items()}, "gains": gains}


def table(summary: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """Mean reward with its interval, a line an iteration; what was trained before it; then the gains."""
    lines = [f"{'mean reward (95 %)':20}" + "".join(f"{task:>26}" for task in tasks) + "   trained on"]
    for number, one in summary["iterations"].items():
        cells = []
        for task in tasks:
            e = one["environments"][task]["evaluation"]
            cells.append(percent(e["mean_reward"], e["ci95"]["mean_reward"]) if e else "-")
        name = "the starting model" if number == "0" else f"iteration {number}"
        lines.append(f"{name:20}" + "".join(f"{cell:>26}" for cell in cells) + f"   {trained(one)}")
    for task, found in summary["gains"].items():
        change, who = found["difference"], f"{task}, iteration {found['to']} against {found['from']}"
        if isinstance(change, str):
            lines.append(f"{who}: not compared ({change})")
        else:
            low, high = change["difference_ci95"] or (change["difference"],) * 2
            lines.append(
                f"{who}: {100 * change['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), paired "
                f"over {change['n']} tasks"
            )
    return "\n".join(lines)


def trained(one: Mapping[str, Any]) -> str:
    """`412 rows, loss 1.312 -> 0.702`."""
    if not (training := one.get("training")):
        return "-"
    counts = training["counts"]
    rows, loss = sum(counts["rows"].values()), counts["loss"]
    return f"{rows} rows, loss {loss['first']:.3f} -> {loss['last']:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of scripts/run_all.sh")
    parser.add_argument("tasks", nargs="+", help="environments")
    args = parser.parse_args(argv)
    try:
        summary = summarise(args.run_dir, args.tasks)
        write_json(args.run_dir / "summary.json", summary)
        print(f"{table(summary, args.tasks)}\n{args.run_dir / 'summary.json'}")
    except InputError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
