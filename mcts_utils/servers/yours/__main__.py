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
from mcts_utils.terminal import between, run_command
from mcts_utils.types import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code; 2 after a bad flag or source, with one line on stderr."""
    parser = argument_parser("yours", 26010, __doc__)
    add = parser.add_argument
    add("source", help=FORMS)
    seconds, late = between(0.001, 10**9, float), "a call of your code that takes longer is an error"
    add("--limit_seconds", type=seconds, default=LIMIT_SECONDS, help=late)

    def run() -> int:
        args = parser.parse_args(argv)

        def app() -> FastAPI:
            return create_app(World(args.source), args.idle_seconds, args.limit_seconds, args.max_sessions)

        try:
            return serve(args, app)
        except SourceError as error:
            raise InputError(str(error)) from error

    return run_command("", run)


if __name__ == "__main__":
    sys.exit(main())
