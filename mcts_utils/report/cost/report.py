"""The estimate of a dry run of scripts/run_all.sh: scales the sample that it made, prints it.

    python -m mcts_utils.report.cost pick webshop http://127.0.0.1:36001 train 2
    python -m mcts_utils.report.cost show SAMPLE_DIR --plan textcraft:374:100 --epochs 3 1 1 ...

`pick` prints how many tasks a split or list holds, and some of them. The arithmetic is
estimate.py's, the reading sample.py's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mcts_utils.envs.task_ids import choose_ids
from mcts_utils.report.cost.model import EnvCost, Rates, estimate, short, table
from mcts_utils.report.cost.sample import read_sample
from mcts_utils.types import InputError

CAVEATS = (
    "All iterations take the sample's rates: a higher ALPHA leaves fewer rows, a better model acts in fewer steps.",
    "A judge's prompts count as new. So few tasks tell the order of magnitude, no more.",
)


def spread(ids: Sequence[int], count: int) -> list[int]:
    """`count` of the ids, evenly spaced."""
    count = min(count, len(ids))
    return [ids[place * len(ids) // count] for place in range(count)]


def per_tree(plan: EnvCost) -> str:
    """The measured sample in one line."""
    s = plan.sample
    a, b = s.search.times(1 / s.trees), s.revision.times(1 / s.trees)
    e = s.evaluation.times(1 / s.episodes)
    text = (
        f"{plan.task}: {s.trees} trees, each {a.calls:.0f} calls, {short(a.new + a.cached)} prompt tokens "
        f"({a.new / max(1.0, a.new + a.cached):.0%} new), {short(a.replies)} reply tokens, {a.env_steps:.0f} steps; "
        f"its revision {b.calls:.0f} calls, {b.env_steps:.0f} steps, {s.rows / s.trees:.1f} rows"
    )
    if s.rows:
        text += f" of {s.row_tokens / s.rows:.0f} tokens"
    text += f"; an episode {e.calls:.0f} calls, {short(e.new + e.cached)} prompt tokens"
    if s.steps_per_second:
        text += f"; {s.steps_per_second:.0f} environment steps a second"
    return text + f". Planned: {plan.train_tasks} trees, {plan.test_tasks} test tasks"


def show(args: argparse.Namespace) -> list[str]:
    """The whole estimate as lines."""
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
    lines = ["Measured:", *(f"  {per_tree(plan)}" for plan in plans), "", "Assumed (variables):"]
    lines += [f"  {name}={value:g}, {unit}" for name, value, unit in assumptions(args)]
    lines += ["", *table(estimate(plans, args.epochs, rates, bool(args.base)))]
    lines += ["", *CAVEATS]
    empty = [plan.task for plan in plans if not plan.sample.rows]
    if empty:
        lines += [
            "",
            f"No record came of the sample of {', '.join(empty)}: training there is not in the estimate",
        ]
        lines[-1] += "; a larger SAMPLE says more."
    return lines


def assumptions(args: argparse.Namespace) -> list[tuple[str, float, str]]:
    """(variable, value, unit)."""
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
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
    args = parser.parse_args(argv)
    try:
        if args.command == "pick":
            ids = choose_ids(args.task, args.url, args.wanted)
            print(len(ids), ",".join(map(str, spread(ids, args.count))))
        else:
            print("\n".join(show(args)))
    except InputError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0
