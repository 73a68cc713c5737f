"""`python -m mcts_utils.servers.mock_llm`: the stand-in endpoint, see endpoint.py."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from mcts_utils.servers.mock_llm.endpoint import ENVS, Behaviour, ChatServer, model_name


def main() -> int:
    """Serve until Ctrl-C or SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(
        description="An OpenAI-compatible chat endpoint for tests and benchmarks."
    )
    add = parser.add_argument
    add("--port", type=int, required=True, help="0 takes a free one; the printed line names it")
    add("--env", choices=ENVS, default="textcraft", help="whose expert answers")
    add("--latency", type=float, default=0.0, help="seconds per request")
    add("--slots", type=int, default=16, help="requests worked on at once")
    add("--noise", type=float, default=0.0, help="chance of a slip per turn, and of a wrong verdict")
    add("--ignore_n", action="store_true", help="one choice, whatever n says")
    add("--fail", choices=("429", "500", "503", "drop"), default="500")
    add("--fail_every", type=int, default=0, help="every how many requests; 0: never")
    add(
        "--queue",
        type=int,
        default=-1,
        help="requests that may wait for a slot, 429 for more; -1: any number",
    )
    add("--retry_after", default="", help="header of failures, seconds")
    add("--context", type=int, default=0, help="tokens that fit; 0: any number")
    options = vars(parser.parse_args())
    port = options.pop("port")
    try:
        server = ChatServer(port, Behaviour(**options), record=False)
    except (OSError, OverflowError) as error:
        print(f"--port {port}: {error}", file=sys.stderr)
        return 2
    print(f"{model_name(server.behaviour.env)} at {server.base_url}", file=sys.stderr, flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    server.serve()
    print(json.dumps(server.stats()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
