"""Run the bundled ScienceWorld server until SIGTERM or SIGINT. It needs Java 11 or later and the scienceworld package.

python -m mcts_utils.servers.sciworld --port 26002
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mcts_utils.servers import app_server
from mcts_utils.terminal import between, run_command
from mcts_utils.types import InputError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = app_server.argument_parser("sciworld", 26002, __doc__)
    add = parser.add_argument
    add("--jvms", type=between(1, 1000), default=4, help="number of Java processes, at most")
    add("--heap", default="384m", help="heap memory of each process, in the form of Java's -Xmx")
    add("--java", default="java", help="the Java program")
    repeats = "the same actions always give the same texts; a step takes 1.5 times as long"
    add("--reproducible", action="store_true", help=repeats)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code; 2 if Java or the package is missing, with one line on stderr."""
    return run_command("", lambda: run(parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """Serve and return the exit code; raise InputError if Java or the package is missing."""
    try:
        # The scienceworld package brings py4j, so no module that needs py4j is imported before this.
        from mcts_utils.servers.sciworld import app, jvm, pool
    except ModuleNotFoundError as error:
        line = f"scienceworld: {error.name} is not installed; pip install scienceworld"
        raise InputError(line) from error
    try:
        setup = jvm.Setup(args.java, args.heap, args.reproducible)
        jar = jvm.check(setup)
    except jvm.Missing as error:
        raise InputError(str(error)) from error
    most = args.max_sessions
    made = lambda: app.create_app(pool.Pool(args.jvms, setup, jar), args.idle_seconds, max_sessions=most)  # noqa: E731
    return app_server.serve(args, made)


if __name__ == "__main__":
    sys.exit(main())
