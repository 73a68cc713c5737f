"""The flags of stage 2 (path_collection.py), and the options that they mean."""

from __future__ import annotations

import argparse

from mcts_utils.config import Settings
from mcts_utils.revision.options import EXPERT, KINDS, Options
from mcts_utils.revision.pairs import PairRule
from mcts_utils.revision.verdict_rows import DATA_TYPE
from mcts_utils.terminal import Parser, between
from mcts_utils.types import InputError

MAX_PER_TASK = {"good": 4, "optimal": 4, DATA_TYPE: 4}  # most rows per task; 8 for the kinds made of pairs
JUDGED = "centric"  # the data type whose cuts the judge finds, with --revise 1
MOST = 1_000_000  # rows


def parser() -> Parser:
    """Return the parser of the flags; environment variables replace those that are not given."""
    flags = Parser(description="Search trees -> verified revision records (stage 2).")
    add, switch = flags.add_argument, flags.add_switch
    trees = "a folder of search_results_<idx>.json, ours or the reference's"
    given = "a file or folder of AgentGym's trajectories, in place of the bundled expert"
    add("--input_dir", help=f"{trees}; expert: {given}")
    add("--output_dir", default="mcts_training_data")
    add("--data_type", choices=(*KINDS, DATA_TYPE, EXPERT), default="centric")
    add("--env_server_base", help="environment server (ENV_SERVER_BASE)")
    add("--model_name", help="the model that judges (MODEL_NAME)")
    switch("--revise", 1, "1: the actor judges; 0: cut at the first refused step")
    add("--alpha", type=float, help="the reward of a good path is above it (ALPHA)")
    add("--beta", type=float, help="least gap between good and bad (BETA)")
    switch("--strict", 0, "1: r(bad) < beta < r(good)")
    switch("--clean", 1, "1: leave out steps that good paths do not need")
    switch("--verified", 1, "0: splices as recorded, not executed")
    switch("--unique", 1, "0: keep rows with the same actions")
    switch("--mask_refused", 1, "1: no loss on refused steps that could not be left out")
    switch("--judge_prefix", 0, "1: judge the shared prefix too")
    switch("--drop_unjudged", 1, "0: no bad step found: cut at the end")
    switch("--repair", 0, "1: the actor continues where a splice fails")
    most = "most rows per task (default: 8 for pairs, 4 for good paths)"
    add("--max_per_task", type=between(1, MOST), help=most)
    add("--n", type=between(1, MOST), help="most rows in all, spread over the tasks (default: no limit)")
    add("--task_ids", help="expert: train (default), a list such as 0-9,31, or a file with a list")
    slips = "expert: share of the episodes with a slip and its repair (default 0)"
    add("--noise", type=between(0, 1, float), help=slips)
    switch("--reference_fields", 0, "1: also write revise_log")
    add("--allow_test", action="store_true", help="take trees of test tasks too: never train on them")
    add("--seed", type=int, help="(SEED)")
    flags.add_dry_run()
    again = "ask the judge again about the steps that were judged before; executes nothing, writes no records"
    add("--rejudge", action="store_true", help=again)
    rows = "execute the rows of a records file again and report; writes nothing"
    add("--verify", metavar="FILE", help=rows)
    return flags


def cap_of(args: argparse.Namespace) -> int:
    """Return the most rows per task."""
    return int(args.max_per_task or MAX_PER_TASK.get(args.data_type, Options.max_per_task))


def options_of(args: argparse.Namespace, settings: Settings) -> Options:
    """Return the options of the stage from flags and settings."""
    switches = "clean verified unique mask_refused judge_prefix drop_unjudged repair reference_fields"
    return Options(
        data_type=args.data_type,
        rule=PairRule(settings.alpha, settings.beta, bool(args.strict)),
        max_per_task=cap_of(args),
        max_depth=settings.max_depth,
        temperature=settings.temp,
        **{name: bool(getattr(args, name)) for name in switches.split()},
    )


def check_flags(args: argparse.Namespace) -> None:
    """Check the flags of expert episodes and --n; raise InputError naming the first wrong one."""
    if args.n is not None and args.data_type == DATA_TYPE:
        raise InputError(f"--n {args.n} goes with all data types but {DATA_TYPE}")
    if args.dry_run and (args.verify or args.rejudge or args.data_type in (DATA_TYPE, EXPERT)):
        trees = "goes with the data types that are made of trees"
        raise InputError(f"--dry-run {trees}, without --verify and --rejudge")
    if args.rejudge and (args.verify or args.data_type != JUDGED or not args.revise):
        raise InputError("--rejudge goes with --data_type centric --revise 1, and without --verify")
    for name in ("task_ids", "noise"):
        value = getattr(args, name)
        if value is not None and (args.data_type != EXPERT or args.input_dir):
            raise InputError(f"--{name} {value} goes with --data_type expert without --input_dir")
    if not (args.input_dir or args.verify or args.data_type == EXPERT):
        raise InputError("--input_dir is not given")
