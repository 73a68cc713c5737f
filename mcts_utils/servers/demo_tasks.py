"""Print ids of tasks that a bundled server's scripted expert can solve: training ids, then test ids.

python -m mcts_utils.servers.demo_tasks webshop --train 24 --test 24
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mcts_utils.servers.mock_llm.endpoint import ENVS
from mcts_utils.servers.sciworld.expert import demo_ids
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.servers.webshop.shop import bundled_shop
from mcts_utils.terminal import Parser, between, run_command


def tasks(env: str, split: str, count: int) -> list[int]:
    """Return at most `count` task ids, spread evenly over that part ("train" or "test") of the server's split.

    ScienceWorld's ids are those of games with a known solution.
    """
    if env == "sciworld":
        return evenly(demo_ids(split), count)
    return evenly((load_world() if env == "textcraft" else bundled_shop()).split()[split], count)


def known_ids(env: str) -> set[int] | None:
    """Return the ids of the tasks that the expert knows, or None if it may know any."""
    return {*demo_ids("train"), *demo_ids("test")} if env == "sciworld" else None


def evenly(ids: Sequence[int], count: int) -> list[int]:
    """Return `count` of the ids, evenly spaced, or all where there are fewer."""
    count = min(count, len(ids))
    return [ids[place * len(ids) // count] for place in range(count)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print both lines and return the exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("env", choices=ENVS)
    add("--train", type=between(1, 1_000_000), default=24, help="number of training ids, in the first line")
    add("--test", type=between(1, 1_000_000), default=24, help="number of test ids, in the second line")

    def run() -> None:
        args = parser.parse_args(argv)
        for split in ("train", "test"):
            print(",".join(map(str, tasks(args.env, split, getattr(args, split)))))

    return run_command("demo_tasks", run)


if __name__ == "__main__":
    sys.exit(main())
