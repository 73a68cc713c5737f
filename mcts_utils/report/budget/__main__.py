"""Search strategies with the same number of model calls: folders of stage 1 compared, paired over their tasks.

    python -m mcts_utils.report.budget mcts_result/textcraft/NAME best_of_n/textcraft/NAME [--output budget.json]

The other folders are compared with the first. It reads finished trees (mcts_collection.py --strategy) and runs no
search. Environment steps are those that a tree recorded: if the server copies sessions, returning to a node costs none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.evaluation.metrics.paired import mcnemar
from mcts_utils.evaluation.metrics.scores import bootstrap_mean, success_rate
from mcts_utils.report.budget.measure import COSTS, StrategyTrees, check_same_tasks, read_folder
from mcts_utils.revision.pairs import PairRule
from mcts_utils.storage.files import write_json
from mcts_utils.tables import number, percent, text_row
from mcts_utils.terminal import Parser, between, run_command

GAINS = ("solved", "solved_paths", "pairs")  # compared task by task
SHOWN = 24  # characters of a setting's value


def strategy_summary(folder: StrategyTrees) -> dict[str, Any]:
    """Return the numbers of one strategy."""
    outcomes = list(folder.outcomes.values())
    solved = success_rate([one.solved for one in outcomes])
    best = bootstrap_mean([one.best for one in outcomes])
    lengths = [length for one in outcomes for length in one.lengths]
    n, pairs = len(outcomes), sum(one.pairs for one in outcomes)
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
        "pairs": pairs,
        "pairs_per_task": pairs / n,
        "tasks_with_pairs": sum(one.pairs > 0 for one in outcomes),
    }


def difference(one: StrategyTrees, other: StrategyTrees) -> dict[str, Any]:
    """Return `other` minus `one`, paired over tasks, for the measures of GAINS and for the completions spent."""
    both = [(one.outcomes[task], other.outcomes[task]) for task in sorted(one.outcomes)]
    spent = [b.costs["completions"] - a.costs["completions"] for a, b in both]
    gaps = {name: [float(getattr(b, name) - getattr(a, name)) for a, b in both] for name in GAINS}
    gained, lost = (sum(sign * gap > 0 for gap in gaps["solved"]) for sign in (1, -1))
    means = {name: bootstrap_mean(values) for name, values in gaps.items()}
    return {
        "completions": {"equal_tasks": spent.count(0), "largest_gap": max(map(abs, spent))},
        **{"gained": gained, "lost": lost, "mcnemar_p": mcnemar(gained, lost)},
        **{name: {"difference": found.mean, "ci95": found.ci95} for name, found in means.items()},
    }


def summarise(directories: Sequence[str], rule: PairRule) -> dict[str, Any]:
    """Return the numbers of all strategies and their differences, by name (numbered if several folders share one)."""
    folders = [read_folder(path, rule) for path in directories]
    check_same_tasks(folders)
    strategies = [folder.strategy for folder in folders]
    names = [
        name if strategies.count(name) == 1 else f"{name} {strategies[: i + 1].count(name)}"
        for i, name in enumerate(strategies)
    ]
    settings = {name: [folder.settings[name] for folder in folders] for name in folders[0].settings}
    named = dict(zip(names, folders, strict=True))
    return {
        "alpha": rule.alpha,
        "beta": rule.beta,
        "strategies": {name: strategy_summary(folder) for name, folder in named.items()},
        "against": names[0],
        "differences": {name: difference(folders[0], named[name]) for name in names[1:]},
        # Old trees did not record every setting: None is unknown, not a difference.
        "settings_that_differ": {
            name: values for name, values in settings.items() if len(set(values) - {None}) > 1
        },
    }


COUNTS = {  # key of strategy_summary -> name of the row
    "tasks": "tasks",
    "calls": "requests",
    "completions": "completions",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "completion tokens",
    "env_steps": "environment steps",
    "rollouts": "rollouts",
}
MEANS = {
    "solved_paths_per_task": "solved sequences a task",
    "steps_per_solved_path": "their steps",
    "pairs_per_task": "pairs by Eq. 4 a task",
}


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table with one column per strategy, then the comparisons."""
    strategies = summary["strategies"]
    columns, row = strategies.values(), text_row(26, 26)
    lines = [
        row("", strategies),
        *(row(name, [f"{c[key]:,.0f}" for c in columns]) for key, name in COUNTS.items()),
        row("tasks solved (95 %)", [percent(c["solved_share"], c["solved_ci95"]) for c in columns]),
        row("best reward (95 %)", [percent(c["best_reward"], c["best_reward_ci95"]) for c in columns]),
        *(row(name, [number(c[key]) for c in columns]) for key, name in MEANS.items()),
        row("tasks with a pair", [f"{c['tasks_with_pairs']:,.0f}" for c in columns]),
        *(difference_lines(name, summary["against"], d) for name, d in summary["differences"].items()),
    ]
    for name, values in summary["settings_that_differ"].items():
        shown = (
            f"{strategy} {str(value)[:SHOWN]}" for strategy, value in zip(strategies, values, strict=True)
        )
        lines.append(f"not the same everywhere: {name.upper()}: {', '.join(shown)}")
    return "\n".join(lines)


def difference_lines(name: str, against: str, found: Mapping[str, Any]) -> str:
    """Return one comparison as four lines of text."""
    spent = found["completions"]
    changes = f"{found['gained']:.0f} gained, {found['lost']:.0f} lost, McNemar p = {found['mcnemar_p']:.3g}"
    return (
        f"{name} against {against}, paired over tasks:\n"
        f"  solved tasks {_gap(found['solved'], 100, ' points')}, {changes}\n"
        f"  a task: solved sequences {_gap(found['solved_paths'])}, pairs {_gap(found['pairs'])}\n"
        f"  completions: equal in {spent['equal_tasks']} tasks, at most {spent['largest_gap']:.0f} apart"
    )


def _gap(found: Mapping[str, Any], factor: int = 1, unit: str = "") -> str:
    """Return a difference with its interval, in a unit that is 1 / `factor` of the value's."""
    return number(found["difference"], found["ci95"] or (found["difference"],) * 2, "+.2f", factor, unit)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add, default = parser.add_argument, Settings()
    add("folders", nargs="+", metavar="DIR", help="folders of search_results_<idx>.json")
    add("--alpha", type=between(0, 1, float), default=default.alpha, help="a good path's reward is above it")
    add("--beta", type=between(0, 1, float), default=default.beta, help="least gap between good and bad")
    add("--output", type=Path, help="JSON file to write")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Print the table and write the JSON file."""
    summary = summarise(args.folders, PairRule(args.alpha, args.beta))
    print(table(summary))
    if args.output:
        write_json(args.output, summary)


if __name__ == "__main__":
    sys.exit(main())
