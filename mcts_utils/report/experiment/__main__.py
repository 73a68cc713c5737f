"""The experiment in numbers, tables and figures: Figures 3 to 5, Table 3 and the ablations.

    python -m mcts_utils.report.experiment runs/experiment --output results

Reads what the stages of scripts/experiment.sh wrote, and writes summary.json, experiment.md and the figures. It runs no
stage; a cell that is missing or not finished is named and left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcts_utils.evaluation.metrics.behaviour import LOOP_LENGTHS
from mcts_utils.evaluation.metrics.scores import Estimate, bootstrap_mean, success_rate
from mcts_utils.report.experiment import provenance
from mcts_utils.report.experiment.cells import (
    BASE,
    BASE_SEED,
    RECOVERY,
    REPEATS,
    REVISION,
    SOLVED,
    SUCCESS,
    Cell,
    Cells,
    ExperimentPlan,
    loops_measure,
    read_plan,
    sum_tokens,
)
from mcts_utils.report.experiment.contrasts import contrasts
from mcts_utils.report.experiment.figures import draw_all
from mcts_utils.report.experiment.tables import document
from mcts_utils.storage.files import sha256_file, write_bytes, write_json
from mcts_utils.storage.formats.base import plain
from mcts_utils.terminal import Parser, run_command

VERSION = 1


def average(cells: Mapping[int, Cell], measure: str) -> tuple[Estimate, dict[int, float]]:
    """Return (mean over goals of the mean over seeds, with its interval over goals; seed -> mean of that seed)."""
    found = {seed: goals for seed, cell in cells.items() if (goals := cell.measures.get(measure))}
    by_seed = {seed: float(np.mean(list(goals.values()))) for seed, goals in found.items()}
    values = [
        float(np.mean([goals[goal] for goals in found.values() if goal in goals]))
        for goal in sorted(set().union(*found.values()))
    ]
    rate = measure in (SUCCESS, RECOVERY) or measure.startswith(SOLVED)
    # A bootstrap of equal values has no width; Wilson's interval has.
    interval = success_rate if rate and set(values) in ({0.0}, {1.0}) else bootstrap_mean
    return interval(values), by_seed


def scores(cells: Mapping[int, Cell]) -> dict[str, Any]:
    """Return the numbers of one arm at one iteration.

    Args:
        cells: seed -> cell; the untrained model has the seed BASE_SEED.

    Returns:
        success_rate, recovery_rate (in [0, 1]), repeats (per episode) and revision_length (in actions), each with its
        ci95 and n (goals); the names of the last two have the measure as a prefix, but for success_rate. seeds,
        recovery_seeds, by_seed (measure -> seed -> mean), loops and loops_ci95 (length -> repeats per episode), kinds
        (kind of goal, such as `depth_1` -> success_rate, ci95 and n of these goals).
    """
    row: dict[str, Any] = {"seeds": sorted(seed for seed in cells if seed != BASE_SEED)}
    by_seed = {}
    for measure in (SUCCESS, RECOVERY, REPEATS, REVISION):
        found, means = average(cells, measure)
        prefix = "" if measure == SUCCESS else f"{measure.removesuffix('_rate')}_"
        row |= {measure: found.mean, f"{prefix}ci95": found.ci95, f"{prefix}n": found.n}
        by_seed[measure] = {str(seed): mean for seed, mean in means.items() if seed != BASE_SEED}
    row["recovery_seeds"] = [seed for seed in row["seeds"] if RECOVERY in cells[seed].measures]
    loops = {str(n): average(cells, loops_measure(n))[0] for n in LOOP_LENGTHS}
    row["loops"] = {n: found.mean for n, found in loops.items()}
    kinds = sorted({m for cell in cells.values() for m in cell.measures if m.startswith(SOLVED)})
    solved = {kind.removeprefix(SOLVED): average(cells, kind)[0] for kind in kinds}
    row["kinds"] = {k: {SUCCESS: found.mean, "ci95": found.ci95, "n": found.n} for k, found in solved.items()}
    row["loops_ci95"] = {n: found.ci95 for n, found in loops.items()}
    return {**row, "by_seed": by_seed}


def evaluation_cost(cells: Mapping[int, Cell]) -> dict[str, Any]:
    """Return the seconds and tokens of the evaluations, summed over seeds."""
    seconds = round(sum(cell.seconds for cell in cells.values()), 3)
    return {"seconds": seconds, "tokens": sum_tokens([cell.tokens for cell in cells.values()])}


def arm_summary(run: Path, plan: ExperimentPlan, cells: Cells, arm: str) -> dict[str, Any]:
    """Return all iterations of one arm: the scores of its models and the cost and data of making them."""
    iterations = []
    for i in range(1, plan.arms[arm] + 1):
        by_seed = cells.by_seed(arm, i)
        made = provenance.combine_seeds([provenance.model_provenance(run, arm, seed, i) for seed in by_seed])
        cost = evaluation_cost(by_seed)
        made["seconds"]["evaluate"], made["tokens"]["evaluate"] = cost["seconds"], cost["tokens"]
        iterations.append({"iteration": i, **scores(by_seed), "made": made})
    seeds = sorted({seed for iteration in iterations for seed in iteration["seeds"]})
    return {"seeds": seeds, "data": plan.data[arm], "iterations": iterations}


def summarise(run: Path) -> dict[str, Any]:
    """Return the contents of summary.json; the same files give the same summary."""
    plan = read_plan(run)
    cells = Cells(run, plan)
    arms = {arm: arm_summary(run, plan, cells, arm) for arm in plan.arms}
    code = provenance.revisions(run)
    base = cells.by_seed(BASE, 0)
    panel = run / "panel.json"
    return {
        "version": VERSION,
        "command": plan.command,
        "code": ", ".join(code),
        "code_revisions": code,
        "seeds": list(plan.seeds),
        "protocols": {mode: plain(protocol) for mode, protocol in cells.protocols.items()},
        "panel_file_sha256": sha256_file(panel) if panel.exists() else None,
        "base": {**scores(base), "cost": evaluation_cost(base)} if base else None,
        "arms": arms,
        "comparisons": contrasts(plan, cells),
        "missing": cells.missing,
        "cells": {"finished": len(cells.finished), "planned": len(plan.cells())},
    }


def write_report(run: Path, output: Path) -> list[Path]:
    """Write the figures, experiment.md and summary.json; return their paths, the summary last."""
    summary = summarise(run)
    pictures = draw_all(summary)
    found = {**pictures, "experiment.md": document(summary, list(pictures)).encode()}
    for name, data in found.items():
        write_bytes(output / name, [data])
    write_json(output / "summary.json", summary)
    return [*(output / name for name in found), output / "summary.json"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of scripts/experiment.sh")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder to write into")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Write the report and print the paths of its files."""
    print(*write_report(args.run_dir, args.output), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
