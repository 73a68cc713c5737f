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

from mcts_utils.servers.app_server import parser, serve
from mcts_utils.servers.webshop.app import create_app
from mcts_utils.servers.webshop.official import AGENTGYM_PRODUCTS, DataError, load_shop
from mcts_utils.servers.webshop.shop import Shop, bundled_shop


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags of the command line."""
    flags = parser("webshop", 26003, __doc__)
    flags.add_argument(
        "--data_dir", type=Path, help="folder of WebShop's own files; without it, the synthetic catalogue"
    )
    flags.add_argument(
        "--goals",
        choices=("synthetic", "human"),
        default="synthetic",
        help="of the official files; AgentGym's: synthetic",
    )
    flags.add_argument(
        "--products",
        type=int,
        default=AGENTGYM_PRODUCTS,
        help="of the official files, how many are read; 0 for all; AgentGym's: %(default)s",
    )
    return flags.parse_args(argv)


def shop_of(args: argparse.Namespace) -> Shop:
    """The shop that the flags name.

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
    """Serve; the exit code. One line on stdout says where, once connections are accepted."""
    args = parse_args(argv)
    if args.products < 0:
        print(f"--products must be 0 or more, not {args.products}", file=sys.stderr)
        return 2

    def app() -> FastAPI:
        return create_app(shop_of(args), args.idle_seconds)

    try:
        return serve(args, app)
    except DataError as error:
        print(f"--data_dir: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
