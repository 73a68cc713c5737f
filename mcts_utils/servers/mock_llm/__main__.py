"""Run the mock LLM (endpoint.py) until SIGTERM or Ctrl-C.

python -m mcts_utils.servers.mock_llm --port 8000 --env textcraft
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from mcts_utils.servers.mock_llm.endpoint import ENVS, Behaviour, ChatServer, model_name


def main() -> int:
    """Serve, print the counts as JSON at the end, and return the exit code."""
    parser = argparse.ArgumentParser(
        description="An OpenAI-compatible chat endpoint for tests and benchmarks."
    )
    add = parser.add_argument
    add("--port", type=int, required=True, help="0 takes a free one; the printed line names it")
    add("--env", choices=ENVS, default="textcraft", help="the environment whose expert answers")
    add("--latency", type=float, default=0.0, help="seconds of a request")
    add("--slots", type=int, default=16, help="requests worked on at once")
    add("--noise", type=float, default=0.0, help="probability of a slip in a turn, and of a random verdict")
    add("--ignore_n", action="store_true", help="return one choice, whatever n is")
    add("--fail", choices=("429", "500", "503", "drop"), default="500", help="how requests fail")
    add("--fail_every", type=int, default=0, help="every N-th request fails; 0: none")
    add(
        "--queue",
        type=int,
        default=-1,
        help="requests that may wait for a slot, others get a 429; -1: any number",
    )
    add("--retry_after", default="", help="seconds in the Retry-After header of failures")
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
