"""Serve an environment of yours until SIGTERM or SIGINT.

python -m mcts_utils.servers.yours ./my_env.py:make --port 26010
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fastapi import FastAPI

from mcts_utils.servers.app_server import argument_parser, serve
from mcts_utils.servers.yours.app import LIMIT_SECONDS, create_app
from mcts_utils.servers.yours.source import FORMS, SourceError
from mcts_utils.servers.yours.world import World


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code; 2 after a bad flag or source, with one line on stderr."""
    parser = argument_parser("yours", 26010, __doc__)
    add = parser.add_argument
    add("source", help=FORMS)
    add(
        "--limit_seconds",
        type=float,
        default=LIMIT_SECONDS,
        help="a call of your code that takes longer is an error",
    )
    args = parser.parse_args(argv)
    if not args.limit_seconds > 0:
        print(f"--limit_seconds must be positive, not {args.limit_seconds:g}", file=sys.stderr)
        return 2

    def app() -> FastAPI:
        return create_app(World(args.source), args.idle_seconds, args.limit_seconds, args.max_sessions)

    try:
        return serve(args, app)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
