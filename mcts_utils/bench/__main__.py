"""Measure searches and their revision against a stub endpoint, and write a table and summary.json.

python -m mcts_utils.bench --tasks 64 --output_dir runs/bench
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mcts_utils.bench import scenarios
from mcts_utils.bench.local_model import local_model
from mcts_utils.bench.long_run import long_run, long_table
from mcts_utils.bench.own_world import step_cost
from mcts_utils.bench.scenarios import EndpointLoad, SearchSize
from mcts_utils.bench.table import Figures, summary, table
from mcts_utils.storage.files import write_json
from mcts_utils.storage.manifest import code_revision
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import InputError

PARTS = "slots_16 slots_64 auto revision public descent serial serial_reference own_world local_model".split()
LONG = "long"  # measured only where it is asked for
SERIAL_ITERA = 4  # iterations of the reference's setting


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; raise InputError if a value is out of range."""
    parser = Parser(prog="python -m mcts_utils.bench", description=__doc__)
    add = parser.add_argument
    count, share, seconds = between(1, 1_000_000), between(0, 1, float), between(0, 3600, float)
    add("--tasks", type=count, default=64, help="trees of the measured searches")
    add("--serial_tasks", type=count, default=4, help="trees of the serial search")
    add("--trees", type=count, default=10_000, help=f"trees of the part {LONG}")
    add("--itera", type=count, default=4, help="iterations of a tree, with 8 rollouts each")
    add("--noise", type=share, default=0.65, help="probability of the expert's slips")
    add("--descent_noise", type=share, default=0.9, help="the same for N_ROLLOUT=0 and the serial search")
    add("--latency_16", type=seconds, default=0.05, help="seconds of a request at the endpoint with 16 slots")
    add("--latency_64", type=seconds, default=0.5, help="seconds of a request at the endpoint with 64 slots")
    add("--concurrency_16", default="24", help="requests in flight at 16 slots, or auto")
    add("--concurrency_64", default="80", help="requests in flight at 64 slots, or auto")
    add("--model_dir", default="models/tiny_actor", help="folder of the local model")
    add("--rollouts", type=count, default=128, help="rollouts that it plays")
    add("--parts", default=",".join(PARTS), help="parts to measure, separated by commas")
    add("--output_dir", default="runs/bench")
    args = parser.parse_args(argv)
    args.parts = args.parts.split(",")
    for name in args.parts:
        if name not in (*PARTS, LONG):
            raise InputError(f"--parts: {name!r} is none of {', '.join((*PARTS, LONG))}")
    return args


def plan(args: argparse.Namespace, root: Path) -> dict[str, Callable[[], Figures]]:
    """Return the measurement of each part."""
    small = EndpointLoad(16, args.latency_16, args.concurrency_16, args.noise)
    large = EndpointLoad(64, args.latency_64, args.concurrency_64, args.noise)
    auto = EndpointLoad(16, args.latency_16, "auto", args.noise)
    descending = EndpointLoad(16, args.latency_16, args.concurrency_16, args.descent_noise)
    size = SearchSize(args.tasks, args.itera, 8)
    few = SearchSize(min(16, args.tasks), args.itera, 8)
    descent, serial = (SearchSize(tasks, SERIAL_ITERA, 0) for tasks in (args.tasks, args.serial_tasks))
    alone = EndpointLoad(16, args.latency_16, "1", args.descent_noise)
    trees = root / "slots_16" / "mcts_result"
    return {
        "slots_16": partial(scenarios.search, small, size, root / "slots_16"),
        "slots_64": partial(scenarios.search, large, size, root / "slots_64"),
        "auto": partial(scenarios.search, auto, size, root / "auto"),
        "revision": partial(scenarios.revision, small, trees, root / "revision"),
        "public": partial(scenarios.public, small, few, root / "public"),
        "descent": partial(scenarios.search, descending, descent, root / "descent"),
        "serial": partial(scenarios.serial, alone, serial, root / "serial", False),
        "serial_reference": partial(scenarios.serial, alone, serial, root / "serial_reference", True),
        "own_world": step_cost,
        "local_model": partial(local_model, args.model_dir, args.rollouts),
        LONG: partial(long_run, args.trees, root / LONG),
    }


def run(args: argparse.Namespace) -> None:
    """Measure the parts, write summary.json and print the table."""
    root = Path(args.output_dir).resolve()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    load_before = os.getloadavg()
    found: dict[str, Figures] = {}
    for name, measure in plan(args, root).items():
        if name in args.parts:
            print(f"bench: {name} ...", file=sys.stderr, flush=True)
            found[name] = measure()
    machine = {"cpus": os.cpu_count(), "load_before": load_before, "load_after": os.getloadavg()}
    settings = {**vars(args), "output_dir": Path(args.output_dir).name}
    result = {**summary(found), "machine": machine, "settings": settings, "code_revision": code_revision()}
    write_json(root / "summary.json", {**result, "parts": found})
    if LONG in found:
        print(long_table(found.pop(LONG)), end="\n\n")
    if found:
        print(table(found, result))
    print(
        f"{args.output_dir}/summary.json; load of the machine {load_before[0]:.1f} to {os.getloadavg()[0]:.1f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    return run_command("bench", lambda: run(parse_args(argv)), "stopped")


if __name__ == "__main__":
    sys.exit(main())
