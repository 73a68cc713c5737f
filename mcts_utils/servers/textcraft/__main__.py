"""Run the bundled TextCraft server until SIGTERM or SIGINT.

python -m mcts_utils.servers.textcraft --port 26001
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mcts_utils.servers.app_server import argument_parser, serve
from mcts_utils.servers.textcraft.app import create_app
from mcts_utils.terminal import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code."""
    parser = argument_parser("textcraft", 26001, __doc__)

    def run() -> int:
        args = parser.parse_args(argv)
        return serve(args, lambda: create_app(args.idle_seconds, max_sessions=args.max_sessions))

    return run_command("", run)


if __name__ == "__main__":
    sys.exit(main())
