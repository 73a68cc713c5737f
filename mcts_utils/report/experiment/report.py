"""The experiment in numbers, tables and figures: Figures 3 to 5, Table 3 and the ablations in our small world.

    python -m mcts_utils.report.experiment runs/experiment --output results

Reads what the stages of scripts/experiment.sh wrote and writes summary.json, experiment.md and the figures. It measures
nothing itself; a cell that is not there, or not finished, is named and left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcts_utils.evaluation import metrics
from mcts_utils.report.experiment import provenance
from mcts_utils.report.experiment.cells import (
    RECOVERY,
    REPEATS,
    REVISION,
    SOLVED,
    SUCCESS,
    Cell,
    Cells,
    ExperimentPlan,
    loops,
    read_plan,
    sum_tokens,
)
from mcts_utils.report.experiment.contrasts import contrasts
from mcts_utils.report.experiment.figures import draw_all
from mcts_utils.report.experiment.tables import document
from mcts_utils.storage.files import sha256_file, write_bytes, write_json
from mcts_utils.types import InputError

VERSION = 1
COMMAND = "bash scripts/experiment.sh"
Goals = Mapping[str, float]


def over_seeds(found: Sequence[Goals]) -> dict[str, float]:
    """Goal -> mean over the seeds in which it has a number."""
    goals = sorted({goal for one in found for goal in one})
    return {goal: float(np.mean([one[goal] for one in found if goal in one])) for goal in goals}


def average(cells: Mapping[int, Cell], measure: str) -> tuple[metrics.Estimate, dict[int, float]]:
    """(mean over goals of the mean over seeds, with its interval over goals; seed -> its own mean)."""
    found = {seed: goals for seed, cell in cells.items() if (goals := cell.by_goal(measure)) is not None}
    own = {seed: float(np.mean(list(goals.values()))) for seed, goals in found.items() if goals}
    values = list(over_seeds(list(found.values())).values())
    rate = measure in (SUCCESS, RECOVERY) or measure.startswith(SOLVED)
    # A bootstrap of equal values has no width; Wilson's interval has.
    interval = metrics.success_rate if rate and set(values) in ({0.0}, {1.0}) else metrics.bootstrap_mean
    return interval(values), own


def scores(cells: Mapping[int, Cell]) -> dict[str, Any]:
    """The numbers of one arm at one iteration. Rates in [0, 1]; repeats and loops per episode; lengths in actions.

    Returns:
        success_rate, recovery_rate, repeats and revision_length with ci95 (success_rate's has no prefix), n (goals),
        seeds, by_seed (measure -> seed -> mean), loops and loops_ci95 (by length), recovery_n and recovery_seeds,
        kinds (`depth_1` -> success_rate, ci95 and n of these goals).
    """
    row: dict[str, Any] = {"seeds": sorted(seed for seed in cells if seed >= 0)}
    by_seed = {}
    for measure in (SUCCESS, RECOVERY, REPEATS, REVISION):
        found, own = average(cells, measure)
        prefix = "" if measure == SUCCESS else f"{measure.removesuffix('_rate')}_"
        row |= {
            measure: found.mean,
            f"{prefix}ci95": list(found.ci95) if found.ci95 else None,
            f"{prefix}n": found.n,
        }
        by_seed[measure] = {str(seed): mean for seed, mean in own.items() if seed >= 0}
    row["recovery_seeds"] = [s for s, cell in sorted(cells.items()) if s >= 0 and cell.recovery is not None]
    repeated = {str(n): average(cells, loops(n))[0] for n in metrics.LOOP_LENGTHS}
    row["loops"] = {n: found.mean for n, found in repeated.items()}
    row["kinds"] = {kind: kind_scores(cells, kind) for kind in kinds_of(cells)}
    row["loops_ci95"] = {n: list(found.ci95) if found.ci95 else None for n, found in repeated.items()}
    return {**row, "by_seed": by_seed}


def kinds_of(cells: Mapping[int, Cell]) -> list[str]:
    """The kinds of goals by which success is broken down."""
    return sorted(
        {m.removeprefix(SOLVED) for cell in cells.values() for m in cell.measures if m.startswith(SOLVED)}
    )


def kind_scores(cells: Mapping[int, Cell], kind: str) -> dict[str, Any]:
    """Success on the goals of one kind."""
    found, _ = average(cells, SOLVED + kind)
    return {SUCCESS: found.mean, "ci95": list(found.ci95) if found.ci95 else None, "n": found.n}


def evaluation_cost(cells: Mapping[int, Cell]) -> dict[str, Any]:
    """Seconds and tokens of the evaluations, summed over seeds."""
    return {
        "seconds": round(sum(cell.seconds for cell in cells.values()), 3),
        "tokens": sum_tokens([cell.tokens for cell in cells.values()]),
    }


def arm_summary(run: Path, plan: ExperimentPlan, cells: Cells, arm: str) -> dict[str, Any]:
    """All iterations of one arm: scores of its models, and what made them."""
    iterations = []
    for i in range(1, plan.arms[arm] + 1):
        found = cells.of(arm, i)
        made = provenance.over_seeds([provenance.one_model(run, arm, seed, i) for seed in found])
        cost = evaluation_cost(found)
        made["seconds"]["evaluate"], made["tokens"]["evaluate"] = cost["seconds"], cost["tokens"]
        iterations.append({"iteration": i, **scores(found), "made": made})
    seeds = sorted({seed for one in iterations for seed in one["seeds"]})
    return {"seeds": seeds, "data": plan.data[arm], "iterations": iterations}


def summarise(run: Path) -> dict[str, Any]:
    """Everything that summary.json says; the same files give the same summary.

    Raises:
        InputError: arms.json is missing, nothing is evaluated, or the evaluations cannot be compared.
    """
    plan = read_plan(run)
    cells = Cells(run, plan)
    arms = {arm: arm_summary(run, plan, cells, arm) for arm in plan.arms}
    code = provenance.revisions(run)
    base = {-1: cells.base} if cells.base else {}
    panel = run / "panel.json"
    return {
        "version": VERSION,
        "command": COMMAND,
        "code": ", ".join(code),
        "code_revisions": code,
        "seeds": list(plan.seeds),
        "protocols": {mode: dict(protocol) for mode, protocol in cells.protocols.items()},
        "panel_file_sha256": sha256_file(panel) if panel.exists() else None,
        "base": {**scores(base), "cost": evaluation_cost(base)} if base else None,
        "arms": arms,
        "comparisons": contrasts(plan, cells),
        "missing": cells.missing,
        "cells": {"finished": len(cells.found), "planned": len(plan.cells())},
    }


def write_report(run: Path, output: Path) -> list[Path]:
    """Write summary.json, the figures and experiment.md; returns their paths, the summary last."""
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
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of scripts/experiment.sh")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder to write into")
    args = parser.parse_args(argv)
    try:
        for path in write_report(args.run_dir, args.output):
            print(path)
    except InputError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0
