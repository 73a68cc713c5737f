"""The experiment in numbers, tables and figures: Figures 3 to 5, Table 3 and the ablations.

    python -m mcts_utils.report.experiment runs/experiment --output results

Reads what the stages of scripts/experiment.sh wrote, and writes summary.json, experiment.md and the figures. It runs no
stage; a cell that is missing or not finished is named and left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcts_utils.evaluation import metrics
from mcts_utils.report.experiment import provenance
from mcts_utils.report.experiment.cells import (
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
from mcts_utils.report.experiment.contrasts import Goals, contrasts
from mcts_utils.report.experiment.figures import draw_all
from mcts_utils.report.experiment.tables import document
from mcts_utils.storage.files import sha256_file, write_bytes, write_json
from mcts_utils.storage.formats.base import plain
from mcts_utils.terminal import Parser, run_command

VERSION = 1
COMMAND = "bash scripts/experiment.sh"


def mean_by_goal(found: Sequence[Goals]) -> dict[str, float]:
    """Return goal -> mean over the seeds in which the goal has a number."""
    goals = sorted({goal for one in found for goal in one})
    return {goal: float(np.mean([one[goal] for one in found if goal in one])) for goal in goals}


def average(cells: Mapping[int, Cell], measure: str) -> tuple[metrics.Estimate, dict[int, float]]:
    """Return (mean over goals of the mean over seeds, with its interval over goals; seed -> mean of that seed)."""
    found = {seed: goals for seed, cell in cells.items() if (goals := cell.by_goal(measure)) is not None}
    by_seed = {seed: float(np.mean(list(goals.values()))) for seed, goals in found.items() if goals}
    values = list(mean_by_goal(list(found.values())).values())
    rate = measure in (SUCCESS, RECOVERY) or measure.startswith(SOLVED)
    # A bootstrap of equal values has no width; Wilson's interval has.
    interval = metrics.success_rate if rate and set(values) in ({0.0}, {1.0}) else metrics.bootstrap_mean
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
        row |= {
            measure: found.mean,
            f"{prefix}ci95": list(found.ci95) if found.ci95 else None,
            f"{prefix}n": found.n,
        }
        by_seed[measure] = {str(seed): mean for seed, mean in means.items() if seed != BASE_SEED}
    row["recovery_seeds"] = [s for s in row["seeds"] if cells[s].recovery is not None]
    repeated = {str(n): average(cells, loops_measure(n))[0] for n in metrics.LOOP_LENGTHS}
    row["loops"] = {n: found.mean for n, found in repeated.items()}
    row["kinds"] = {kind: kind_scores(cells, kind) for kind in kinds_of(cells)}
    row["loops_ci95"] = {n: list(found.ci95) if found.ci95 else None for n, found in repeated.items()}
    return {**row, "by_seed": by_seed}


def kinds_of(cells: Mapping[int, Cell]) -> list[str]:
    """Return the kinds of goals by which success is broken down, sorted."""
    return sorted(
        {m.removeprefix(SOLVED) for cell in cells.values() for m in cell.measures if m.startswith(SOLVED)}
    )


def kind_scores(cells: Mapping[int, Cell], kind: str) -> dict[str, Any]:
    """Return the success on the goals of one kind."""
    found, _ = average(cells, SOLVED + kind)
    return {SUCCESS: found.mean, "ci95": list(found.ci95) if found.ci95 else None, "n": found.n}


def evaluation_cost(cells: Mapping[int, Cell]) -> dict[str, Any]:
    """Return the seconds and tokens of the evaluations, summed over seeds."""
    return {
        "seconds": round(sum(cell.seconds for cell in cells.values()), 3),
        "tokens": sum_tokens([cell.tokens for cell in cells.values()]),
    }


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
    """Return the contents of summary.json; the same files give the same summary.

    Raises:
        InputError: arms.json is missing, nothing was evaluated, or the evaluations cannot be compared.
    """
    plan = read_plan(run)
    cells = Cells(run, plan)
    arms = {arm: arm_summary(run, plan, cells, arm) for arm in plan.arms}
    code = provenance.revisions(run)
    base = cells.base_by_seed()
    panel = run / "panel.json"
    return {
        "version": VERSION,
        "command": COMMAND,
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
    written = []
    for name, picture in draw_all(summary).items():
        write_bytes(output / name, [picture])
        written.append(output / name)
    text = document(summary, [path.name for path in written])
    write_bytes(output / "experiment.md", [text.encode()])
    write_json(output / "summary.json", summary)
    return [*written, output / "experiment.md", output / "summary.json"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of scripts/experiment.sh")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder to write into")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Write the report and print the paths of its files."""
    for path in write_report(args.run_dir, args.output):
        print(path)
