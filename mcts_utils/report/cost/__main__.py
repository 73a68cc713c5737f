"""Cost estimate of a dry run of scripts/run_all.sh, scaled from the sample that it measured.

    python -m mcts_utils.report.cost show SAMPLE_DIR --plan textcraft:374:100 --epochs 3 1 1 ...

The arithmetic is in model.py, the reading of files in sample.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from mcts_utils.report.cost.model import EnvCost, Rates, compact_number, estimate, table
from mcts_utils.report.cost.sample import read_sample
from mcts_utils.terminal import Parser, between, run_command

CAVEATS = (
    "All iterations take the sample's rates: a higher ALPHA leaves fewer rows, a better model acts in fewer steps.",
    "A judge's prompts count as new. So few tasks tell the order of magnitude, no more.",
)
RATES = {  # field of Rates, a flag; in upper case the variable -> what the estimate says of it
    "tokens_per_second": "reply tokens of the whole endpoint, kept full",
    "prefill_tokens_per_second": "prompt tokens that it has not cached",
    "train_tokens_per_second": "of one GPU",
    "gpus": "held all the time; all of them train",
    "dollars_per_gpu_hour": "dollars",
    "overhead_minutes": "of an iteration: loading, converting, starting servers",
    "eta": "share of agent rows",
    "general_tokens_per_row": "tokens of a general row",
}


def sample_text(plan: EnvCost) -> str:
    """Return the measured sample in one line."""
    sample = plan.sample
    search, revision = (usage.times(1 / sample.trees) for usage in (sample.search, sample.revision))
    episode = sample.evaluation.times(1 / sample.episodes)
    prompts = search.new + search.cached
    text = (
        f"{plan.task}: {sample.trees} trees, each {search.calls:.0f} calls, {compact_number(prompts)} prompt tokens "
        f"({search.new / max(1.0, prompts):.0%} new), {compact_number(search.replies)} reply tokens, "
        f"{search.env_steps:.0f} steps; its revision {revision.calls:.0f} calls, {revision.env_steps:.0f} steps, "
        f"{sample.rows / sample.trees:.1f} rows"
    )
    if sample.rows:
        text += f" of {sample.row_tokens / sample.rows:.0f} tokens"
    prompts = episode.new + episode.cached
    text += f"; an episode {episode.calls:.0f} calls, {compact_number(prompts)} prompt tokens"
    if sample.steps_per_second:
        text += f"; {sample.steps_per_second:.0f} environment steps a second"
    return text + f". Planned: {plan.train_tasks} trees, {plan.test_tasks} test tasks"


def estimate_lines(args: argparse.Namespace) -> list[str]:
    """Return the whole estimate as lines of text."""
    rates = Rates(**{field.name: getattr(args, field.name) for field in fields(Rates)})
    plans = [
        EnvCost(task, read_sample(args.sample / task, task, args.scripted), train, test)
        for task, train, test in args.plan
    ]
    shown = list(RATES) if rates.eta < 1 else list(RATES)[:-2]
    lines = ["Measured:", *(f"  {sample_text(plan)}" for plan in plans), "", "Assumed (variables):"]
    lines += [f"  {name.upper()}={getattr(rates, name):g}, {RATES[name]}" for name in shown]
    lines += ["", *table(estimate(plans, args.epochs, rates, bool(args.base)))]
    lines += ["", *CAVEATS]
    if empty := [plan.task for plan in plans if not plan.sample.rows]:
        reason = f"No record came of the sample of {', '.join(empty)}: training there is not in the estimate"
        lines += ["", f"{reason}; a larger SAMPLE says more."]
    return lines


def planned(text: str) -> tuple[str, int, int]:
    """Parse TASK:TRAINING TASKS:TEST TASKS, for argparse; raise ValueError otherwise."""
    task, train, test = text.split(":")
    count = between(1, 1_000_000)
    return task, count(train), count(test)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("command", choices=("show",), help="prints the estimate")
    add("sample", type=Path, help="folder with one folder per environment")
    add("--plan", type=planned, nargs="+", required=True, help="TASK:TRAINING TASKS:TEST TASKS")
    add("--epochs", nargs="+", type=between(1, 10_000), required=True, help="of each iteration")
    parser.add_switch("--base", 1, "0: the starting model is not evaluated")
    add("--scripted", action="store_true", help="nobody waited for a model in the sample")
    defaults = {"overhead_minutes": 0.0, "eta": 1.0, "general_tokens_per_row": 0.0}
    for name, what in RATES.items():
        default = defaults.get(name)
        kind = between(0.0 if default == 0 else 1e-9, 1e12, float)
        add(f"--{name}", type=kind, default=default, required=default is None, help=what)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("report", lambda: print("\n".join(estimate_lines(command_line().parse_args(argv)))))


if __name__ == "__main__":
    sys.exit(main())
