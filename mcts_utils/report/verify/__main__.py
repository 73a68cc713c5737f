"""Verify a run's folder: hashes, lineage, loss flags, test goals, weights, summaries; a sample is executed again.

    python -m mcts_utils verify runs/demo
    python -m mcts_utils verify runs/demo --env_server_base http://127.0.0.1:26001 --sample 100

Prints a line for each check, and one for each fault, with file and row. Exit code: 0 no fault, 1 faults, 2 no run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mcts_utils.envs import server_about
from mcts_utils.report.verify.again import AGAIN, execute, server_of, test_goals
from mcts_utils.report.verify.run import Audit
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import EnvError, InputError


def parser() -> Parser:
    """Return the parser of the flags."""
    found = Parser(prog="python -m mcts_utils verify", description=(__doc__ or "").partition("\n")[0])
    add, sample = found.add_argument, "rows, trees and episodes, of each, to execute again; 0: none"
    add("run_dir", type=Path, help="folder of a run, of some of its stages, or of several runs")
    server = "a server that plays the run's tasks; bundled TextCraft and WebShop start by themselves"
    add("--env_server_base", default="", help=server)
    add("--sample", type=between(0, 1_000_000), default=20, help=sample)
    add("--seed", type=between(0, 2**32 - 1), default=0, help="draws the sample")
    return found


def verify(args: argparse.Namespace) -> int:
    """Check a folder, print the lines and return the exit code.

    Raises:
        InputError: the server does not answer, or the folder holds no run.
    """
    if args.env_server_base:
        server_about(args.env_server_base)  # report a dead server first
    audit = Audit(Path(os.path.abspath(args.run_dir)), args.sample, args.seed, args.env_server_base)
    digest = audit.run()
    for env in sorted(audit.envs) if args.sample else ():
        ask_server(audit, env, args.env_server_base)
    audit.check_held_out()
    for line in audit.checks.lines():
        print(line)
    faults = sum(map(len, audit.checks.faults.values()))
    print(f"{args.run_dir}: {faults or 'no'} fault{'s' * (faults != 1)}; sha256 of all hashes {digest}")
    return 1 if faults else 0


def ask_server(audit: Audit, env: str, given: str) -> None:
    """Execute the sample of an environment, and add its server's test goals to those of the run."""
    try:
        with server_of(env, given) as url:
            if not url:
                text = f"no server of {env}: nothing of it executed, name one by --env_server_base"
                return audit.checks.note(AGAIN, text)
            for goal in test_goals(env, url):
                audit.tests.setdefault(goal, "the server's test split")
            execute(audit.checks, audit.sampler, env, url)
    except (InputError, EnvError) as error:
        audit.checks.note(AGAIN, f"{env} not executed, {' '.join(str(error).split())}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("verify", lambda: verify(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
