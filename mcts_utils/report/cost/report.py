"""Cost estimate of a dry run of scripts/run_all.sh, scaled from the sample that it measured.

    python -m mcts_utils.report.cost pick webshop http://127.0.0.1:36001 train 2
    python -m mcts_utils.report.cost show SAMPLE_DIR --plan textcraft:374:100 --epochs 3 1 1 ...

`pick` prints the number of tasks in a split or list, and the ids of some of them. `show` prints the estimate. The
arithmetic is in model.py, the reading of files in sample.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mcts_utils.envs.task_ids import choose_ids
from mcts_utils.report.cost.model import EnvCost, Rates, compact_number, estimate, table
from mcts_utils.report.cost.sample import read_sample
from mcts_utils.terminal import Parser, run_command

CAVEATS = (
    "All iterations take the sample's rates: a higher ALPHA leaves fewer rows, a better model acts in fewer steps.",
    "A judge's prompts count as new. So few tasks tell the order of magnitude, no more.",
)


def evenly_spaced(ids: Sequence[int], count: int) -> list[int]:
    """Return `count` of the ids, evenly spaced; all of them if there are fewer."""
    count = min(count, len(ids))
    return [ids[i * len(ids) // count] for i in range(count)]


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
    rates = Rates(
        args.tokens_per_second,
        args.prefill_tokens_per_second,
        args.train_tokens_per_second,
        args.gpus,
        args.dollars_per_gpu_hour,
        args.overhead_minutes,
        args.eta,
        args.general_tokens_per_row,
    )
    plans = []
    for one in args.plan:
        task, train, test = one.split(":")
        sample = read_sample(args.sample / task, task, args.scripted)
        plans.append(EnvCost(task, sample, int(train), int(test)))
    lines = ["Measured:", *(f"  {sample_text(plan)}" for plan in plans), "", "Assumed (variables):"]
    lines += [f"  {name}={value:g}, {unit}" for name, value, unit in assumptions(args)]
    lines += ["", *table(estimate(plans, args.epochs, rates, bool(args.base)))]
    lines += ["", *CAVEATS]
    empty = [plan.task for plan in plans if not plan.sample.rows]
    if empty:
        reason = f"No record came of the sample of {', '.join(empty)}: training there is not in the estimate"
        lines += ["", f"{reason}; a larger SAMPLE says more."]
    return lines


def assumptions(args: argparse.Namespace) -> list[tuple[str, float, str]]:
    """Return (variable, value, unit) of every assumption."""
    found = [
        ("TOKENS_PER_SECOND", args.tokens_per_second, "reply tokens of the whole endpoint, kept full"),
        ("PREFILL_TOKENS_PER_SECOND", args.prefill_tokens_per_second, "prompt tokens that it has not cached"),
        ("TRAIN_TOKENS_PER_SECOND", args.train_tokens_per_second, "of one GPU"),
        ("GPUS", args.gpus, "held all the time; all of them train"),
        ("DOLLARS_PER_GPU_HOUR", args.dollars_per_gpu_hour, "dollars"),
        ("OVERHEAD_MINUTES", args.overhead_minutes, "of an iteration: loading, converting, starting servers"),
    ]
    if args.eta < 1:
        found.append(("ETA", args.eta, "share of agent rows"))
        found.append(("GENERAL_TOKENS_PER_ROW", args.general_tokens_per_row, "tokens of a general row"))
    return found


def positive(text: str) -> float:
    """Parse a number above 0, for argparse; raise ValueError otherwise."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def command_line() -> argparse.ArgumentParser:
    """Return the parser of both commands."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    pick = commands.add_parser("pick", help="prints the number of tasks, and some of their ids")
    pick.add_argument("task")
    pick.add_argument("url")
    pick.add_argument("wanted", help="train, test, a file or a list")
    pick.add_argument("count", type=int)
    add = commands.add_parser("show", help="prints the estimate").add_argument
    add("sample", type=Path, help="folder with one folder per environment")
    add("--plan", nargs="+", required=True, help="TASK:TRAINING TASKS:TEST TASKS")
    add("--epochs", nargs="+", type=int, required=True, help="of each iteration")
    add("--base", type=int, default=1, help="0: the starting model is not evaluated")
    add("--scripted", action="store_true", help="nobody waited for a model in the sample")
    rates = ("tokens", "prefill_tokens", "train_tokens")
    for name in (*(f"{rate}_per_second" for rate in rates), "gpus", "dollars_per_gpu_hour"):
        add(f"--{name}", type=positive, required=True)
    for name, default in (("overhead_minutes", 0.0), ("general_tokens_per_row", 0.0)):
        add(f"--{name}", type=float, default=default)
    add("--eta", type=positive, default=1.0)
    return parser


def report(args: argparse.Namespace) -> None:
    """Print some task ids, or the estimate."""
    if args.command == "pick":
        ids = choose_ids(args.task, args.url, args.wanted)
        print(len(ids), ",".join(map(str, evenly_spaced(ids, args.count))))
    else:
        print("\n".join(estimate_lines(args)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("report", lambda: report(command_line().parse_args(argv)))
