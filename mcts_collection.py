"""Stage 1: build search trees of training tasks, or those of another strategy with as many model calls.

    python mcts_collection.py --env_server_base http://127.0.0.1:8000 --model_name NAME --min 0 --max 200
    python mcts_collection.py --task_ids train            (or 0,3,5-9, or a file with such a list)
    python mcts_collection.py --strategy live            (for environments that cannot be replayed)
    python mcts_collection.py --strategy best_of_n --budget_from mcts_result/textcraft/NAME --output_dir best_of_n

Writes {output_dir}/{task}/{model}/search_results_{idx}.json and manifest.json. Run it again to continue after Ctrl-C or
to retry failed trees. Exit code: 0 done, 1 some trees failed, 2 bad input, 3 a limit (MAX_COST and so on) is reached,
130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

from mcts_utils.actors.factory import make_actor, require_actor
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import names
from mcts_utils.envs.own_server import served
from mcts_utils.envs.task_ids import MAX_INDEX, training_list, training_range, training_variations
from mcts_utils.envs.task_set import open_task_set
from mcts_utils.executors.limits import check_limits
from mcts_utils.pipeline.dry_run import search_lines
from mcts_utils.replies import reply_warnings
from mcts_utils.revision.live import LiveStage
from mcts_utils.search.baselines import LIVE, SEARCH, Baseline
from mcts_utils.search.budget import baseline, check_strategy, spent_by
from mcts_utils.search.stage import SearchStage, rollout_threads
from mcts_utils.search.totals import describe
from mcts_utils.storage.layout import tree_folder
from mcts_utils.storage.lock import reserved
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import InputError


def flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's values; environment variables replace those that are not given."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--env_server_base", help="URL of the environment server (or ENV_SERVER_BASE)")
    add("--model_name", help="the model's name at the endpoint (or MODEL_NAME)")
    add("--task_ids", help="train (default), a list such as 0,3,5-9, or a file with a list")
    indices = "with --max: indices min..max-1 of the server, test ids left out"
    add("--min", type=between(0, MAX_INDEX), help=indices)
    add("--max", type=between(1, MAX_INDEX))
    add("--task_num", type=between(0, 29), help="sciworld: number of a task, from 0, in alphabetical order")
    variations = "sciworld: number of its variations, from the first (default 5)"
    add("--task_iteration", type=between(1, 1000), help=variations)
    add("--strategy", default=SEARCH, help="mcts (default), live, best_of_n or direct_revision")
    add("--budget", type=between(1, 1_000_000), help="best_of_n, direct_revision: most completions per task")
    add("--budget_from", help="or a folder of trees: as many as each of them took; its tasks are the default")
    add("--output_dir", default="mcts_result")
    parser.add_dry_run()
    add("--allow_test", action="store_true", help="search test ids too: never train on them")
    return parser.parse_args(argv)


def chosen_ids(args: argparse.Namespace, settings: Settings, test: set[int], default: str) -> list[int]:
    """Return the indices to search; `default` if no flag names any.

    Raises:
        InputError: if flags do not go together, a test id is named, or no index is left.
    """
    ways = {
        "--task_ids": args.task_ids is not None,
        "--min/--max": (args.min, args.max) != (None, None),
        "--task_num/--task_iteration": (args.task_num, args.task_iteration) != (None, None),
    }
    given = [name for name, used in ways.items() if used]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} do not go together")
    if ways["--task_num/--task_iteration"]:
        return training_variations(settings.task, args.task_num, args.task_iteration, test)
    if ways["--min/--max"]:
        return training_range(args.min, args.max, test)
    return training_list(settings.task, settings.env_server_base, args.task_ids or default, test)


def collect(args: argparse.Namespace, settings: Settings, number: int | None) -> int:
    """Search, print the summary line and return the exit code; `number` is the value of --budget."""
    tasks = open_task_set(settings)
    test = set() if args.allow_test else tasks.test_ids()
    kind = tasks.kind()
    if args.strategy != LIVE:
        tasks.require_replay(f"--strategy {LIVE} does not need it")
    spent = spent_by(args.budget_from, settings.task, kind) if args.budget_from is not None else {}
    ids = chosen_ids(args, settings, test, ",".join(map(str, spent)) or "train")
    held_out = tasks.held_out(test)
    other: Baseline | None = None
    if args.strategy not in (SEARCH, LIVE):
        other = baseline(args.strategy, number, args.budget_from or "", spent, ids)
    stage = (LiveStage if args.strategy == LIVE else SearchStage)(
        settings, ids, args.output_dir, kind, held_out, baseline=other
    )
    if args.dry_run:
        print("\n".join(search_lines(stage)))
        return 0
    totals = stage.run(partial(make_actor, settings), tasks.environment)
    print(describe(totals, stage.manifest.parent))
    turns = {**totals, "total": totals["tokens"]["completions"], "no_action": totals["invalid"]}
    for line in reply_warnings(turns, settings.max_token_length):
        print(line, file=sys.stderr)
    if not totals["trees"] and not totals["failed"]:
        reason = f"all {len(ids)} tasks are test tasks; --allow_test overrides"
        raise InputError(f"--task_ids: no tree, since {reason}")
    return 1 if totals["failed"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run stage 1; return the exit code."""

    def work() -> int:
        args = flags(argv)
        given = {"env_server_base": args.env_server_base, "model_name": args.model_name}
        settings = settings_from_env(tasks=names()).override(**given)
        require_actor(settings, say=True)
        with served(settings) as settings:
            settings.require("env_server_base", "model_name")
            number = check_strategy(args.strategy, args.budget, args.budget_from)
            check_limits(settings, settings.workers + rollout_threads(settings))
            folder = tree_folder(args.output_dir, settings.task, settings.model_name)
            with nullcontext() if args.dry_run else reserved(folder):
                return collect(args, settings, number)

    return run_command("mcts_collection.py", work, "stopped; run the same command again to go on")


if __name__ == "__main__":
    sys.exit(main())
