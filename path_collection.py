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
from mcts_utils.revision.flags import JUDGED, cap_of, check_flags, options_of, parser
from mcts_utils.revision.live_rows import is_live_folder
from mcts_utils.revision.options import EXPERT, KINDS
from mcts_utils.revision.rejudge import RejudgeStage
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.revision.verdict_cache import LABELS
from mcts_utils.revision.verdict_rows import DATA_TYPE, write_verdicts
from mcts_utils.revision.verification import verify_file
from mcts_utils.storage.formats.manifest import Agreement, RevisionCounts
from mcts_utils.storage.layout import records_path
from mcts_utils.storage.lock import reserved
from mcts_utils.terminal import run_command
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import Environment, InputError

MAX_UNPARSED = 0.2  # share of the verdicts; above it the model cannot judge


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
    if warning := cannot_judge(counts.verdicts, (stage.judge or stage).settings.model_name, stage.unparsed):
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
