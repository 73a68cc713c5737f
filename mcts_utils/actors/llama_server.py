"""Serve a GGUF file with llama.cpp's own server, as the package xllamacpp brings it.

    python -m mcts_utils.actors.llama_server --model model.gguf --alias NAME --port 8000

scripts/serve.sh calls it where no `llama-server` is on PATH. The flags are those of llama-server, as far as they are
needed here; the defaults sample from the model's own distribution. LLAMA_API_KEY is the key that requests must carry.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from mcts_utils.actors.chat_tokens import read_template
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

FLAGS = {  # name: (default, help)
    "host": ("127.0.0.1", "address to listen on"),
    "port": (8080, "port"),
    "parallel": (8, "conversations at once"),
    "ctx-size": (32768, "tokens of all conversations together; each has an equal part"),
    "cache-ram": (2048, "MiB for conversations that wait"),
    "threads": (-1, "-1: one for each core"),
    "top-k": (0, "0: all tokens"),
    "top-p": (1.0, "1: all tokens"),
    "min-p": (0.0, "0: all tokens"),
    "chat-template-file": ("", "a chat template in place of the file's own"),
}


def serve(args: argparse.Namespace) -> None:
    """Serve until a signal ends the process.

    Raises:
        InputError: if the package is missing or the server does not start; llama.cpp has printed why.
    """
    try:
        import xllamacpp
    except ImportError:
        raise InputError("the package xllamacpp is missing: run bash scripts/setup.sh --llamacpp") from None
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias, params.use_jinja = args.model, {args.alias}, True
    params.hostnames, params.port = [args.host], args.port
    params.n_parallel, params.n_ctx, params.cache_ram_mib = args.parallel, args.ctx_size, args.cache_ram
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    sampling = params.sampling
    sampling.top_k, sampling.top_p, sampling.min_p = args.top_k, args.top_p, args.min_p
    if args.chat_template_file:
        params.chat_template = read_template(args.chat_template_file)
    params.api_keys = [key for key in [os.environ.get("LLAMA_API_KEY", "")] if key]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise InputError(str(error)) from None
    print(f"{args.alias} on {server.listening_address}", flush=True)
    while True:
        signal.pause()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--alias", required=True, help="what the endpoint calls the model")
    for name, (default, text) in FLAGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    return run_command("llama_server", lambda: serve(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
