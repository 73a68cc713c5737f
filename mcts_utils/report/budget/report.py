"""Search strategies with the same number of model calls: folders of stage 1 compared, paired over their tasks.

    python -m mcts_utils.report.budget mcts_result/textcraft/NAME best_of_n/textcraft/NAME [--output budget.json]

The other folders are compared with the first. It reads finished trees (mcts_collection.py --strategy) and runs no
search. Environment steps are those that a tree recorded: if the server copies sessions, returning to a node costs none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.evaluation.metrics import bootstrap_mean, compare_runs, success_rate
from mcts_utils.report.budget.measure import COSTS, Outcome, StrategyTrees, check_same_tasks, read_folder
from mcts_utils.revision.pairs import PairRule
from mcts_utils.storage.files import write_json
from mcts_utils.tables import Show, number, percent, text_row
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

GAINS = ("solved", "solved_paths", "pairs")  # compared task by task
SHOWN = 24  # characters of a setting's value


def strategy_summary(folder: StrategyTrees) -> dict[str, Any]:
    """Return the numbers of one strategy."""
    outcomes = list(folder.outcomes.values())
    solved = success_rate([one.solved for one in outcomes])
    best = bootstrap_mean([one.best for one in outcomes])
    lengths = [length for one in outcomes for length in one.lengths]
    n = len(outcomes)
    return {
        "folder": folder.path,
        "strategy": folder.strategy,
        "tasks": n,
        **{name: sum(one.costs[name] for one in outcomes) for name in COSTS},
        "solved_tasks": sum(one.solved for one in outcomes),
        "solved_share": solved.mean,
        "solved_ci95": solved.ci95,
        "best_reward": best.mean,
        "best_reward_ci95": best.ci95,
        "solved_paths": len(lengths),
        "solved_paths_per_task": len(lengths) / n,
        "steps_per_solved_path": sum(lengths) / len(lengths) if lengths else None,
        "pairs": sum(one.pairs for one in outcomes),
        "pairs_per_task": sum(one.pairs for one in outcomes) / n,
        "tasks_with_pairs": sum(one.pairs > 0 for one in outcomes),
    }


def difference(one: StrategyTrees, other: StrategyTrees) -> dict[str, Any]:
    """Return `other` minus `one`, paired over tasks, for the measures of GAINS and for the completions spent."""
    tasks = sorted(one.outcomes)

    def gaps(value: Callable[[Outcome], float]) -> list[float]:
        return [value(other.outcomes[task]) - value(one.outcomes[task]) for task in tasks]

    spent = gaps(lambda found: found.costs["completions"])
    paired = compare_runs(
        {task: one.outcomes[task].solved for task in tasks},
        {task: other.outcomes[task].solved for task in tasks},
    )
    found: dict[str, Any] = {
        "completions": {"equal_tasks": sum(not gap for gap in spent), "largest_gap": max(map(abs, spent))},
        **{name: paired[name] for name in ("gained", "lost", "mcnemar_p")},
    }
    for name in GAINS:
        estimate = bootstrap_mean(gaps(lambda found, name=name: float(getattr(found, name))))  # type: ignore[misc]
        found[name] = {"difference": estimate.mean, "ci95": estimate.ci95}
    return found


def summarise(directories: Sequence[str], rule: PairRule) -> dict[str, Any]:
    """Return the numbers of all strategies and their differences, by name (numbered if several folders share one).

    Raises:
        InputError: the folders cannot be compared.
    """
    folders = [read_folder(path, rule) for path in directories]
    check_same_tasks(folders)
    strategies = [folder.strategy for folder in folders]
    names = [
        name if strategies.count(name) == 1 else f"{name} {strategies[: i + 1].count(name)}"
        for i, name in enumerate(strategies)
    ]
    settings = {name: [folder.settings[name] for folder in folders] for name in folders[0].settings}
    return {
        "alpha": rule.alpha,
        "beta": rule.beta,
        "strategies": {name: strategy_summary(folder) for name, folder in zip(names, folders, strict=True)},
        "against": names[0],
        "differences": {
            name: difference(folders[0], folder) for name, folder in zip(names[1:], folders[1:], strict=True)
        },
        # Old trees did not record every setting: None is unknown, not a difference.
        "settings_that_differ": {
            name: values for name, values in settings.items() if len(set(values) - {None}) > 1
        },
    }


def count(name: str) -> Show:
    """Return a function that formats a count."""
    return lambda found: f"{found[name]:,.0f}"


def mean(name: str) -> Show:
    """Return a function that formats a mean, which may be missing."""
    return lambda found: number(found[name])


ROWS: tuple[tuple[str, Show], ...] = (
    ("tasks", count("tasks")),
    ("requests", count("calls")),
    ("completions", count("completions")),
    ("prompt tokens", count("prompt_tokens")),
    ("completion tokens", count("completion_tokens")),
    ("environment steps", count("env_steps")),
    ("rollouts", count("rollouts")),
    ("tasks solved (95 %)", lambda found: percent(found["solved_share"], found["solved_ci95"])),
    ("best reward (95 %)", lambda found: percent(found["best_reward"], found["best_reward_ci95"])),
    ("solved sequences a task", mean("solved_paths_per_task")),
    ("their steps", mean("steps_per_solved_path")),
    ("pairs by Eq. 4 a task", mean("pairs_per_task")),
    ("tasks with a pair", count("tasks_with_pairs")),
)


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table with one column per strategy, then the comparisons."""
    strategies = summary["strategies"]
    row = text_row(26, 26)
    lines = [row("", strategies)]
    lines += [row(name, map(show, strategies.values())) for name, show in ROWS]
    lines += [
        difference_lines(name, summary["against"], found) for name, found in summary["differences"].items()
    ]
    for name, values in summary["settings_that_differ"].items():
        shown = ", ".join(
            f"{strategy} {str(value)[:SHOWN]}" for strategy, value in zip(strategies, values, strict=True)
        )
        lines.append(f"not the same everywhere: {name.upper()}: {shown}")
    return "\n".join(lines)


def difference_lines(name: str, against: str, found: Mapping[str, Any]) -> str:
    """Return one comparison as four lines of text."""
    spent = found["completions"]
    changes = f"{found['gained']:.0f} gained, {found['lost']:.0f} lost, McNemar p = {found['mcnemar_p']:.3g}"
    return "\n".join(
        (
            f"{name} against {against}, paired over tasks:",
            f"  solved tasks {_gap(found['solved'], 100, ' points')}, {changes}",
            f"  a task: solved sequences {_gap(found['solved_paths'])}, pairs {_gap(found['pairs'])}",
            f"  completions: equal in {spent['equal_tasks']} tasks, at most {spent['largest_gap']:.0f} apart",
        )
    )


def _gap(found: Mapping[str, Any], factor: int = 1, unit: str = "") -> str:
    """Return a difference with its interval, in a unit that is 1 / `factor` of the value's."""
    return number(found["difference"], found["ci95"] or (found["difference"],) * 2, "+.2f", factor, unit)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of search_results_<idx>.json")
    parser.add_argument(
        "--alpha", type=float, default=Settings().alpha, help="a good path's reward is above it"
    )
    parser.add_argument("--beta", type=float, default=Settings().beta, help="least gap between good and bad")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Check the flags, print the table and write the JSON file."""
    for name in ("alpha", "beta"):
        if not 0 <= getattr(args, name) <= 1:
            raise InputError(f"--{name} must be between 0 and 1: {getattr(args, name)}")
    summary = summarise(args.folders, PairRule(args.alpha, args.beta))
    print(table(summary))
    if args.output:
        write_json(args.output, summary)
