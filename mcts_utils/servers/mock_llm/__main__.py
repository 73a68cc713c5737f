"""Run the mock LLM (endpoint.py) until SIGTERM or Ctrl-C.

python -m mcts_utils.servers.mock_llm --port 8000 --env textcraft
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from mcts_utils import parent
from mcts_utils.servers.mock_llm.dialects import REFUSALS, SHAPES
from mcts_utils.servers.mock_llm.endpoint import ENVS, Behaviour, ChatServer, model_name
from mcts_utils.servers.yours.source import FORMS, SourceError


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="An OpenAI-compatible chat endpoint for tests and benchmarks."
    )
    add = parser.add_argument
    add("--port", type=int, required=True, help="0 takes a free one; the printed line names it")
    whose = f"the environment whose expert answers: {', '.join(ENVS)}, or {FORMS}"
    add("--env", default="textcraft", help=whose)
    add("--latency", type=float, default=0.0, help="seconds of a request")
    add("--slots", type=int, default=16, help="requests worked on at once")
    add("--noise", type=float, default=0.0, help="probability of a slip in a turn, and of a random verdict")
    add("--ignore_n", action="store_true", help="return one choice, whatever n is")
    known = (*REFUSALS, *SHAPES)
    add(
        "--like",
        action="append",
        default=[],
        choices=known,
        metavar="NAME",
        help="refuse or shape as others do",
    )
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
    add("--paid", default="", help="a file that grows by one byte with each answer, also over restarts")
    parent.add_flag(parser)
    return parser


def main() -> int:
    """Serve, print the counts as JSON at the end, and return the exit code."""
    options = vars(parser().parse_args())
    port, end_with, options["like"] = options.pop("port"), options.pop("end_with"), tuple(options["like"])
    if not 1 <= options["slots"] <= 10_000 or not 0 <= options["latency"] <= 3600:
        print("--slots must be from 1 to 10000, and --latency from 0 to 3600 seconds", file=sys.stderr)
        return 2
    try:
        server = ChatServer(port, Behaviour(**options), record=False)
    except SourceError as error:
        print(f"--env {error}", file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(f"--port {port}: {error}", file=sys.stderr)
        return 2
    print(f"{model_name(server.behaviour.env)} at {server.base_url}", file=sys.stderr, flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    parent.end_with(end_with)
    server.serve()
    print(json.dumps(server.stats()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
