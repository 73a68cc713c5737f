"""Stage 1: search trees over training tasks.

    python mcts_collection.py --env_server_base http://127.0.0.1:8000 --model_name NAME --min 0 --max 200
    python mcts_collection.py --task_ids train            (or 0,3,5-9, or a file with such a list)

Writes {output_dir}/{task}/{model}/search_results_{idx}.json and manifest.json. Run it again to go on after Ctrl-C or to
retry failed trees. Exit code 1: some trees failed; 2: bad input; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mcts_utils.actor import make_actor
from mcts_utils.collection import Collection, describe
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.panel import choose_ids
from mcts_utils.scheduler import sigterm_as_interrupt
from mcts_utils.types import ActorError, EnvError, InputError


def flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what is left out comes from the environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--env_server_base", help="URL of the environment server (or ENV_SERVER_BASE)")
    add("--model_name", help="as the endpoint knows it (or MODEL_NAME)")
    add("--task_ids", help="train (default), a list such as 0,3,5-9, or a file with a list")
    add("--min", type=int, help="with --max: indices min..max-1 of the server, test ids left out")
    add("--max", type=int)
    add("--task_num", type=int, help="sciworld: task number")
    add("--task_iteration", type=int, help="sciworld: variations of each task")
    add("--output_dir", default="mcts_result")
    add("--allow_test", action="store_true", help="search test ids too: never train on them")
    return parser.parse_args(argv)


def chosen_ids(args: argparse.Namespace, settings: Settings) -> list[int]:
    """Indices to search.

    Raises:
        InputError: a test id was asked for by name, or nothing is left.
    """
    if (args.task_num, args.task_iteration) != (None, None) and settings.task != "sciworld":
        raise InputError(f"--task_num and --task_iteration are for TASK=sciworld, not {settings.task}")
    ids = partial(choose_ids, settings.task, settings.env_server_base)
    test = set() if args.allow_test else set(ids("test"))
    if (args.min, args.max) == (None, None):
        asked = ids(listed(args.task_ids or "train"))
        if named := sorted(test.intersection(asked)):
            raise InputError(
                f"--task_ids: {named[0]} is a test id ({len(named)} in all); --allow_test overrides"
            )
        return asked
    low, high = args.min or 0, 500 if args.max is None else args.max
    if args.task_ids or not 0 <= low < high:
        raise InputError(f"--min {low} --max {high}: must be 0 <= min < max, and without --task_ids")
    left = [index for index in range(low, high) if index not in test]
    if not left:
        raise InputError(f"--min {low} --max {high}: all are test ids; --allow_test overrides")
    return left


def listed(wanted: str) -> str:
    """The ids as given, or those that a file of that name holds, between commas, blanks or lines."""
    if not Path(wanted).is_file():
        return wanted
    return ",".join(Path(wanted).read_text(encoding="utf-8").strip(" \n[]").replace(",", " ").split())


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    try:
        sigterm_as_interrupt()
        args = flags(argv)
        settings = settings_from_env().override(
            env_server_base=args.env_server_base, model_name=args.model_name
        )
        settings.require("env_server_base", "model_name")
        collection = Collection(settings, chosen_ids(args, settings), args.output_dir)
        environment = partial(make_environment, settings.task, settings.env_server_base)
        totals = collection.run(partial(make_actor, settings), environment)
        print(describe(totals, collection.manifest.parent))
        return 1 if totals["failed"] else 0
    except (InputError, EnvError, ActorError, OSError) as error:
        print(f"mcts_collection.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mcts_collection.py: stopped; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
