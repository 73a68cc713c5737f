"""Run the bundled TextCraft server until SIGTERM or SIGINT.

python -m mcts_utils.servers.textcraft --port 26001
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from mcts_utils.servers.textcraft.app import IDLE_SECONDS, Server, create_app, listen


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m mcts_utils.servers.textcraft", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=26001, help="0 takes a free one; the printed line names it"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--idle_seconds", type=float, default=IDLE_SECONDS, help="close sessions unused for so long"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; the exit code. One line on stdout says where, once connections are accepted."""
    args = parse_args(argv)
    if not args.idle_seconds > 0:
        print(f"--idle_seconds must be positive, not {args.idle_seconds}", file=sys.stderr)
        return 2
    try:
        listener = listen(args.host, args.port)
    except (OSError, OverflowError) as error:
        print(f"--port {args.port}: cannot listen on {args.host}:{args.port}: {error}", file=sys.stderr)
        return 2
    url = f"http://{args.host}:{listener.getsockname()[1]}"
    server = Server(create_app(args.idle_seconds), lambda: print(f"TextCraft server on {url}", flush=True))

    def stop(signum: int, frame: object) -> None:
        # Covers a signal before uvicorn sets its own handlers; it also raises each one again here after its clean end.
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run([listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
