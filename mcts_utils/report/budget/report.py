"""What strategies make of the same number of model calls: folders of stage 1 side by side, paired over their tasks.

    python -m mcts_utils.report.budget mcts_result/textcraft/NAME best_of_n/textcraft/NAME [--output budget.json]

The first folder is what the others are compared with. It reads finished trees (mcts_collection.py --strategy) and runs
nothing. Environment steps are those that a tree recorded: where the server copies sessions, ways back cost none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.evaluation.metrics import bootstrap_mean, compare_runs, success_rate
from mcts_utils.report.budget.measure import COSTS, Folder, Outcome, read_folder, same_tasks
from mcts_utils.report.common import percent
from mcts_utils.revision.pairs import PairRule
from mcts_utils.storage.files import write_json
from mcts_utils.types import InputError

GAINS = ("solved", "solved_paths", "pairs")  # compared task by task
SHOWN = 24  # characters of a setting


def summary_of(folder: Folder) -> dict[str, Any]:
    """The numbers of one strategy."""
    found = list(folder.outcomes.values())
    solved = success_rate([one.solved for one in found])
    best = bootstrap_mean([one.best for one in found])
    lengths = [length for one in found for length in one.lengths]
    n = len(found)
    return {
        "folder": folder.path,
        "strategy": folder.strategy,
        "tasks": n,
        **{name: sum(one.costs[name] for one in found) for name in COSTS},
        "solved_tasks": sum(one.solved for one in found),
        "solved_share": solved.mean,
        "solved_ci95": solved.ci95,
        "best_reward": best.mean,
        "best_reward_ci95": best.ci95,
        "solved_paths": len(lengths),
        "solved_paths_per_task": len(lengths) / n,
        "steps_per_solved_path": sum(lengths) / len(lengths) if lengths else None,
        "pairs": sum(one.pairs for one in found),
        "pairs_per_task": sum(one.pairs for one in found) / n,
        "tasks_with_pairs": sum(one.pairs > 0 for one in found),
    }


def difference(one: Folder, other: Folder) -> dict[str, Any]:
    """The other minus the one, task by task: what GAINS names, and how far the budgets are apart."""
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
    """Everything, by the strategies' names (numbered where several folders have the same).

    Raises:
        InputError: folders that cannot be compared.
    """
    folders = [read_folder(path, rule) for path in directories]
    same_tasks(folders)
    kinds = [folder.strategy for folder in folders]
    names = [
        kind if kinds.count(kind) == 1 else f"{kind} {kinds[: i + 1].count(kind)}"
        for i, kind in enumerate(kinds)
    ]
    values = {name: [folder.how[name] for folder in folders] for name in folders[0].how}
    return {
        "alpha": rule.alpha,
        "beta": rule.beta,
        "strategies": {name: summary_of(folder) for name, folder in zip(names, folders, strict=True)},
        "against": names[0],
        "differences": {
            name: difference(folders[0], folder) for name, folder in zip(names[1:], folders[1:], strict=True)
        },
        # What old trees did not record is None, and says nothing.
        "settings_that_differ": {name: all_ for name, all_ in values.items() if len(set(all_) - {None}) > 1},
    }


def count(name: str) -> Callable[[Mapping[str, Any]], str]:
    """Text of a whole number."""
    return lambda found: f"{found[name]:,.0f}"


def mean(name: str) -> Callable[[Mapping[str, Any]], str]:
    """Text of a mean that may be missing."""
    return lambda found: "-" if found[name] is None else f"{found[name]:.2f}"


ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
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
    """The summary for people: one column per strategy, then a line per comparison."""
    strategies = summary["strategies"]
    lines = [f"{'':26}" + "".join(f"{name:>26}" for name in strategies)]
    lines += [
        f"{name:26}" + "".join(f"{show(one):>26}" for one in strategies.values()) for name, show in ROWS
    ]
    lines += [compared(name, summary["against"], found) for name, found in summary["differences"].items()]
    for name, values in summary["settings_that_differ"].items():
        shown = ", ".join(
            f"{who} {str(value)[:SHOWN]}" for who, value in zip(strategies, values, strict=True)
        )
        lines.append(f"not the same everywhere: {name.upper()}: {shown}")
    return "\n".join(lines)


def compared(name: str, against: str, found: Mapping[str, Any]) -> str:
    """One comparison in four lines."""
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


def _gap(found: Mapping[str, Any], times: int = 1, unit: str = "") -> str:
    low, high = found["ci95"] or (found["difference"],) * 2
    return f"{times * found['difference']:+.2f}{unit} ({times * low:+.2f} to {times * high:+.2f})"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of search_results_<idx>.json")
    parser.add_argument(
        "--alpha", type=float, default=Settings.alpha, help="a good path's reward is above it"
    )
    parser.add_argument("--beta", type=float, default=Settings.beta, help="least gap between good and bad")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    try:
        for name in ("alpha", "beta"):
            if not 0 <= getattr(args, name) <= 1:
                raise InputError(f"--{name} must be between 0 and 1: {getattr(args, name)}")
        summary = summarise(args.folders, PairRule(args.alpha, args.beta))
        print(table(summary))
        if args.output:
            write_json(args.output, summary)
    except (InputError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0
