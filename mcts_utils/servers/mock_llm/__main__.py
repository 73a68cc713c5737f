"""Run the mock LLM (endpoint.py) until SIGTERM or Ctrl-C.

python -m mcts_utils.servers.mock_llm --port 8000 --env textcraft
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

from mcts_utils import parent
from mcts_utils.servers.mock_llm.dialects import REFUSALS, SHAPES
from mcts_utils.servers.mock_llm.endpoint import ENVS, Behaviour, ChatServer, model_name
from mcts_utils.servers.yours.source import FORMS, SourceError
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import InputError


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(description="An OpenAI-compatible chat endpoint for tests and benchmarks.")
    add = parser.add_argument
    add("--port", type=between(0, 65535), required=True, help="0 takes a free one; the printed line names it")
    whose = f"the environment whose expert answers: {', '.join(ENVS)}, or {FORMS}"
    add("--env", default="textcraft", help=whose)
    add("--latency", type=between(0, 3600, float), default=0.0, help="seconds of a request")
    add("--slots", type=between(1, 10_000), default=16, help="requests worked on at once")
    slips = "probability of a slip in a turn, and of a random verdict"
    add("--noise", type=between(0, 1, float), default=0.0, help=slips)
    add("--ignore_n", action="store_true", help="return one choice, whatever n is")
    known, others = (*REFUSALS, *SHAPES), "refuse or shape as others do"
    add("--like", action="append", default=[], choices=known, metavar="NAME", help=others)
    add("--fail", choices=("429", "500", "503", "drop"), default="500", help="how requests fail")
    add("--fail_every", type=between(0, 10**9), default=0, help="every N-th request fails; 0: none")
    waiting = "requests that may wait for a slot, others get a 429; -1: any number"
    add("--queue", type=between(-1, 10**9), default=-1, help=waiting)
    add("--retry_after", default="", help="seconds in the Retry-After header of failures")
    add("--context", type=between(0, 10**9), default=0, help="tokens that fit; 0: any number")
    add("--paid", default="", help="a file that grows by one byte with each answer, also over restarts")
    parent.add_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, print the counts as JSON at the end, and return the exit code."""
    return run_command("", lambda: run(vars(parser().parse_args(argv))))


def run(options: dict[str, Any]) -> None:
    """Serve; raise InputError naming a bad flag."""
    port, end_with, options["like"] = options.pop("port"), options.pop("end_with"), tuple(options["like"])
    try:
        server = ChatServer(port, Behaviour(**options), record=False)
    except SourceError as error:
        raise InputError(f"--env {error}") from error
    except OSError as error:
        raise InputError(f"--port {port}: {error}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    print(f"{model_name(server.behaviour.env)} at {server.base_url}", file=sys.stderr, flush=True)
    parent.end_with(end_with)
    server.serve()
    print(json.dumps(server.stats()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
