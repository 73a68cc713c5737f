"""Run the bundled ScienceWorld server until SIGTERM or SIGINT. It needs Java 11 or later and the scienceworld package.

python -m mcts_utils.servers.sciworld --port 26002
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mcts_utils.servers import app_server


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = app_server.argument_parser("sciworld", 26002, __doc__)
    parser.add_argument("--jvms", type=int, default=4, help="number of Java processes, at most")
    parser.add_argument(
        "--heap", default="384m", help="heap memory of each process, in the form of Java's -Xmx"
    )
    parser.add_argument("--java", default="java", help="the Java program")
    parser.add_argument(
        "--reproducible",
        action="store_true",
        help="the same actions always give the same texts; a step takes 1.5 times as long",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code; 2 if Java or the package is missing, with one line on stderr."""
    args = parse_args(argv)
    if args.jvms < 1:
        print(f"--jvms must be at least 1, not {args.jvms}", file=sys.stderr)
        return 2
    try:
        # The scienceworld package brings py4j, so no module that needs py4j is imported before this.
        from mcts_utils.servers.sciworld import app, jvm, pool
    except ModuleNotFoundError as error:
        print(f"scienceworld: {error.name} is not installed; pip install scienceworld", file=sys.stderr)
        return 2
    try:
        setup = jvm.Setup(args.java, args.heap, args.reproducible)
        jar = jvm.check(setup)
    except jvm.Missing as error:
        print(error, file=sys.stderr)
        return 2
    return app_server.serve(
        args,
        lambda: app.create_app(
            pool.Pool(args.jvms, setup, jar), args.idle_seconds, max_sessions=args.max_sessions
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
