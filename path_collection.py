"""Stage 2: build verified revision records from search trees.

    python path_collection.py --input_dir mcts_result/textcraft/MODEL --output_dir mcts_training_data \\
        --data_type centric --revise 1 --env_server_base http://127.0.0.1:26001
    python path_collection.py --data_type expert --task_ids train --n 100 --env_server_base URL
    python path_collection.py --verify mcts_training_data/textcraft_centric.jsonl --env_server_base URL

Writes {output_dir}/{task}_{data_type}.jsonl, its .manifest.json and the judge's verdicts. Exit code: 0 done, 2 bad
input (records of the usable trees are written all the same), 3 a limit (MAX_COST and so on) is reached, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from mcts_utils.actors.factory import make_actor, require_actor
from mcts_utils.config import Settings, judge_settings, settings_from_env
from mcts_utils.envs import names
from mcts_utils.envs.own_server import served
from mcts_utils.envs.task_set import TaskSet, open_task_set
from mcts_utils.executors.limits import check_limits
from mcts_utils.pipeline.dry_run import revision_lines
from mcts_utils.revision.expert import ExpertStage
from mcts_utils.revision.expert_plan import set_to_take, tasks_to_play
from mcts_utils.revision.live_rows import is_live_folder
from mcts_utils.revision.options import EXPERT, KINDS, Options
from mcts_utils.revision.pairs import PairRule
from mcts_utils.revision.rejudge import RejudgeStage
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.revision.verdict_cache import LABELS
from mcts_utils.revision.verdict_rows import DATA_TYPE, write_verdicts
from mcts_utils.revision.verification import verify_file
from mcts_utils.storage.formats.manifest import Agreement, RevisionCounts
from mcts_utils.storage.layout import records_path
from mcts_utils.storage.lock import reserved
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import Environment, InputError

MAX_PER_TASK = {"good": 4, "optimal": 4, DATA_TYPE: 4}  # most rows per task; 8 for the kinds made of pairs
JUDGED = "centric"  # the data type whose cuts the judge finds, with --revise 1
MOST = 1_000_000  # rows
MAX_UNPARSED = 0.2  # share of the verdicts; above it the model cannot judge


def parser() -> Parser:
    """Return the parser of the flags; environment variables replace those that are not given."""
    flags = Parser(description="Search trees -> verified revision records (stage 2).")
    add = flags.add_argument
    add(
        "--input_dir",
        help="a folder of search_results_<idx>.json, ours or the reference's; expert: a file or folder of AgentGym's "
        "trajectories, in place of the bundled expert",
    )
    add("--output_dir", default="mcts_training_data")
    add("--data_type", choices=(*KINDS, DATA_TYPE, EXPERT), default="centric")
    add("--env_server_base", help="environment server (ENV_SERVER_BASE)")
    add("--model_name", help="the model that judges (MODEL_NAME)")
    add(
        "--revise",
        type=int,
        choices=(0, 1),
        default=1,
        help="1: the actor judges; 0: cut at the first refused step",
    )
    add("--alpha", type=float, help="the reward of a good path is above it (ALPHA)")
    add("--beta", type=float, help="least gap between good and bad (BETA)")
    add("--strict", type=int, choices=(0, 1), default=0, help="1: r(bad) < beta < r(good)")
    add("--clean", type=int, choices=(0, 1), default=1, help="1: leave out steps that good paths do not need")
    add("--verified", type=int, choices=(0, 1), default=1, help="0: splices as recorded, not executed")
    add("--unique", type=int, choices=(0, 1), default=1, help="0: keep rows with the same actions")
    add(
        "--mask_refused",
        type=int,
        choices=(0, 1),
        default=1,
        help="1: no loss on refused steps that could not be left out",
    )
    add("--judge_prefix", type=int, choices=(0, 1), default=0, help="1: judge the shared prefix too")
    add("--drop_unjudged", type=int, choices=(0, 1), default=1, help="0: no bad step found: cut at the end")
    add("--repair", type=int, choices=(0, 1), default=0, help="1: the actor continues where a splice fails")
    add(
        "--max_per_task",
        type=between(1, MOST),
        help="most rows per task (default: 8 for pairs, 4 for good paths)",
    )
    add("--n", type=between(1, MOST), help="most rows in all, spread over the tasks (default: no limit)")
    add("--task_ids", help="expert: train (default), a list such as 0-9,31, or a file with a list")
    add(
        "--noise",
        type=between(0, 1, float),
        help="expert: share of the episodes with a slip and its repair (default 0)",
    )
    add("--reference_fields", type=int, choices=(0, 1), default=0, help="1: also write revise_log")
    add("--allow_test", action="store_true", help="take trees of test tasks too: never train on them")
    add("--seed", type=int, help="(SEED)")
    add(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="say what it would do, cost and take; asks no model",
    )
    add(
        "--rejudge",
        action="store_true",
        help="ask the judge again about the steps that were judged before; executes nothing, writes no records",
    )
    add(
        "--verify", metavar="FILE", help="execute the rows of a records file again and report; writes nothing"
    )
    return flags


def cap_of(args: argparse.Namespace) -> int:
    """Return the most rows per task."""
    return int(args.max_per_task or MAX_PER_TASK.get(args.data_type, Options.max_per_task))


def options_of(args: argparse.Namespace, settings: Settings) -> Options:
    """Return the options of the stage from flags and settings."""
    return Options(
        data_type=args.data_type,
        rule=PairRule(settings.alpha, settings.beta, bool(args.strict)),
        max_per_task=cap_of(args),
        clean=bool(args.clean),
        verified=bool(args.verified),
        unique=bool(args.unique),
        mask_refused=bool(args.mask_refused),
        judge_prefix=bool(args.judge_prefix),
        drop_unjudged=bool(args.drop_unjudged),
        repair=bool(args.repair),
        max_depth=settings.max_depth,
        temperature=settings.temp,
        reference_fields=bool(args.reference_fields),
    )


def cannot_judge(verdicts: Mapping[str, int], model: str, unparsed: str) -> str:
    """Return a warning if too many verdicts did not parse, else ""."""
    asked = sum(verdicts[label] for label in LABELS)
    if verdicts["unparsed"] <= MAX_UNPARSED * asked:
        return ""
    return (
        f"warning: {verdicts['unparsed']} of {asked} verdicts of {model} did not parse, so it cannot judge. Train on "
        "its own verdicts too (--data_type verdicts) or on general data, or let the model judge that it was before"
        + (f" ({unparsed})" if unparsed else "")
    )


def run(args: argparse.Namespace) -> int:
    """Do what the flags ask for; return the exit code.

    Raises:
        InputError: if a flag is missing or has a bad value.
    """
    given = ("env_server_base", "model_name", "alpha", "beta", "seed")
    settings = settings_from_env(tasks=names()).override(**{name: getattr(args, name) for name in given})
    check_flags(args)
    if args.verify:
        with served(settings) as settings:
            return verify(args.verify, open_task_set(settings.require("env_server_base")))
    # The steps of live episodes were judged when they were played.
    args.live = args.data_type in KINDS and is_live_folder(args.input_dir, settings.task)
    if args.dry_run:
        return revise(args, settings, None)
    if args.live and args.rejudge:
        raise InputError(f"--rejudge: {args.input_dir} holds live episodes, judged when they were played")
    if args.data_type == JUDGED and args.revise and not args.live:
        require_actor(judge_settings(settings), say=True)
    if args.repair and not args.live:
        require_actor(settings, say=True)
    check_limits(settings, settings.workers + settings.in_flight)
    file = records_path(args.output_dir, settings.task, args.data_type)
    if args.rejudge or args.data_type == DATA_TYPE:
        with reserved(file.parent, file.name):
            return (rejudge if args.rejudge else collect_verdicts)(args, settings)
    with served(settings) as settings:
        if args.data_type == EXPERT:
            collect = partial(collect_expert, args, settings)
        else:
            collect = partial(revise, args, settings, open_task_set(settings.require("env_server_base")))
        with reserved(file.parent, file.name):
            return collect()


def check_flags(args: argparse.Namespace) -> None:
    """Check the flags of expert episodes and --n; raise InputError naming the first wrong one."""
    if args.n is not None and args.data_type == DATA_TYPE:
        raise InputError(f"--n {args.n} goes with all data types but {DATA_TYPE}")
    if args.dry_run and (args.verify or args.rejudge or args.data_type in (DATA_TYPE, EXPERT)):
        raise InputError(
            "--dry-run goes with the data types that are made of trees, without --verify and --rejudge"
        )
    if args.rejudge and (args.verify or args.data_type != JUDGED or not args.revise):
        raise InputError("--rejudge goes with --data_type centric --revise 1, and without --verify")
    for name in ("task_ids", "noise"):
        value = getattr(args, name)
        if value is not None and (args.data_type != EXPERT or args.input_dir):
            raise InputError(f"--{name} {value} goes with --data_type expert without --input_dir")
    if not (args.input_dir or args.verify or args.data_type == EXPERT):
        raise InputError("--input_dir is not given")


def collect_expert(args: argparse.Namespace, settings: Settings) -> int:
    """Write expert episodes as records: the bundled expert's, or those of a trajectory set; return the exit code."""
    if settings.actions == TOOLS:
        raise InputError(f"--data_type expert: the episodes act in text, ACTIONS is {TOOLS}")
    tasks = open_task_set(settings) if settings.env_server_base and args.verified else None
    options = replace(options_of(args, settings), verified=tasks is not None)
    if args.input_dir:
        plan = set_to_take(settings, tasks, args.input_dir, args.allow_test)
        if tasks is None:
            print("note: the episodes are taken as recorded, not executed", file=sys.stderr)
    else:
        tasks = open_task_set(settings.require("env_server_base"))
        wanted, most, noise = args.task_ids or "train", args.n or 0, args.noise or 0.0
        plan = tasks_to_play(settings, tasks, wanted, most, noise, args.allow_test)
    made = {"output_dir": args.output_dir, "allow_test": args.allow_test, "most": args.n or 0, "tasks": tasks}
    stage = ExpertStage(settings, options, plan=plan, **made)
    counts = stage.run(None, tasks.environment if tasks else no_environment)
    code = written(stage, counts)
    return code if counts.written else 2


def no_environment() -> Environment:
    """Raise InputError: nothing is executed without a server."""
    raise InputError("ENV_SERVER_BASE is not set (environment, .env or flag)")


def collect_verdicts(args: argparse.Namespace, settings: Settings) -> int:
    """Write the judge's verdicts as training rows; return the exit code."""
    settings.require("model_name")
    counts = write_verdicts(settings, args.input_dir, args.output_dir, cap_of(args))
    left_out = ", ".join(f"{name} {count}" for name, count in counts["dropped"].items()) or "none"
    print(f"{counts['written']} verdicts of {counts['trees']} trees; left out: {left_out}")
    return 0


def verify(path: str, tasks: TaskSet) -> int:
    """Execute the rows of a records file again and print the counts; return 2 unless all rows are exact."""
    tasks.require_replay("records of --strategy live are as they were played")
    counts = verify_file(path, tasks)
    print(f"{path}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0 if counts.get("exact", 0) == counts.get("rows", 0) else 2


def revise(args: argparse.Namespace, settings: Settings, tasks: TaskSet | None) -> int:
    """Build the records, print failures and the summary line; return the exit code."""
    options = options_of(args, settings)
    judged = args.data_type == JUDGED and args.revise == 1 and not args.live
    stage = RevisionStage(
        settings,
        options,
        args.input_dir,
        args.output_dir,
        judged=judged,
        allow_test=args.allow_test,
        tasks=tasks,
        most=args.n or 0,
    )
    if args.dry_run:
        print("\n".join(revision_lines(stage)))
        return 0
    actor = None
    if (options.repair and not args.live) or (stage.judge and stage.judge.is_actor):
        actor = partial(make_actor, settings.require("model_name"))
    assert tasks
    return written(stage, stage.run(actor, tasks.environment))


def rejudge(args: argparse.Namespace, settings: Settings) -> int:
    """Ask the judge again, print what changes, and return the exit code."""
    if not args.input_dir:
        raise InputError("--input_dir is not given")
    settings = replace(settings, executor="threads")
    stage = RejudgeStage(settings, options_of(args, settings), args.input_dir, args.output_dir)
    own = stage.judge and not stage.judge.is_actor
    counts = stage.ask_again(None if own else partial(make_actor, settings.require("model_name")))
    for line in stage.failures:
        print(line, file=sys.stderr)
    print_agreement(counts["agreement"])
    changes = ", ".join(f"{n} {change}" for change, n in sorted(counts["changes"].items())) or "none"
    print(
        f"{stage.output_dir}: {counts['asked_again']} verdicts on {counts['trees']} trees asked again, differences: "
        f"{changes}; records: {counts['kept']} kept, {counts['changed']} changed. Without --rejudge, the same command "
        "makes them from the new verdicts"
    )
    return 2 if stage.failures else 0


def print_agreement(votes: Agreement | None) -> None:
    """Print how far several verdicts a step agree."""
    if votes:
        kappa = "" if votes.fleiss_kappa is None else f", Fleiss' kappa {votes.fleiss_kappa:.2f}"
        print(
            f"{votes.votes} verdicts a step: unanimous on {votes.unanimous:.1%} of {votes.steps} steps{kappa}"
        )


def written(stage: RevisionStage, counts: RevisionCounts) -> int:
    """Print failures and the summary line; return the exit code."""
    for line in stage.failures:
        print(line, file=sys.stderr)
    if warning := cannot_judge(
        counts.verdicts,
        (stage.judge or stage).settings.model_name,
        stage.unparsed,
    ):
        print(warning, file=sys.stderr)
    print_agreement(counts.agreement or None)
    reasons = sorted(counts.dropped.items(), key=lambda item: -item[1])
    dropped = ", ".join(f"{name} {count}" for name, count in reasons) or "none"
    already = " (done before, nothing executed again)" if stage.resumed else ""
    print(
        f"{stage.output}: {counts.written} records of {counts.trees} {stage.unit}s; dropped: {dropped}{already}"
    )
    return 2 if stage.failures else 0


def main(argv: list[str] | None = None) -> int:
    """Run stage 2; return the exit code."""
    if_interrupted = "interrupted: verdicts are kept, the next run asks only for the others"
    return run_command("path_collection.py", lambda: run(parser().parse_args(argv)), if_interrupted)


if __name__ == "__main__":
    sys.exit(main())
