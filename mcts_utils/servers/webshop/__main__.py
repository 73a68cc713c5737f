"""Run the bundled WebShop server until SIGTERM or SIGINT.

python -m mcts_utils.servers.webshop --port 26003
python -m mcts_utils.servers.webshop --port 26003 --data_dir FOLDER --goals human --products 0
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from mcts_utils.servers.app_server import argument_parser, serve
from mcts_utils.servers.webshop.app import create_app
from mcts_utils.servers.webshop.official import AGENTGYM_PRODUCTS, DataError, load_shop
from mcts_utils.servers.webshop.shop import Shop, bundled_shop
from mcts_utils.terminal import between, run_command
from mcts_utils.types import InputError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argument_parser("webshop", 26003, __doc__)
    add = parser.add_argument
    add("--data_dir", type=Path, help="folder of WebShop's own files; without it, the synthetic catalogue")
    goals = "which goals of the official files; AgentGym has the synthetic ones"
    add("--goals", choices=("synthetic", "human"), default="synthetic", help=goals)
    products = "the number of products read from the official files; 0: all; AgentGym has %(default)s"
    add("--products", type=between(0, 10**8), default=AGENTGYM_PRODUCTS, help=products)
    return parser.parse_args(argv)


def shop_of(args: argparse.Namespace) -> Shop:
    """Return the shop that the flags name, and print one line about one made of official files.

    Raises:
        DataError: a data file is missing or broken.
    """
    if args.data_dir is None:
        return bundled_shop()
    began = time.monotonic()
    shop = load_shop(args.data_dir, args.goals == "human", args.products)
    took = time.monotonic() - began
    print(
        f"{len(shop.products)} products, {len(shop.goals)} goals, kind {shop.kind}, read in {took:.1f} s",
        flush=True,
    )
    return shop


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and return the exit code; 2 after a bad flag or data file, with one line on stderr."""

    def run() -> int:
        args = parse_args(argv)

        def app() -> FastAPI:
            return create_app(shop_of(args), args.idle_seconds, max_sessions=args.max_sessions)

        try:
            return serve(args, app)
        except DataError as error:
            raise InputError(f"--data_dir: {error}") from error

    return run_command("", run)


if __name__ == "__main__":
    sys.exit(main())
