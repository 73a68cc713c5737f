"""Stage 4: roll a model out on test tasks, at temperature 0 and many at once, and score it.

    python eval.py --env_server_base http://127.0.0.1:8000 --model_name NAME --max_steps 100
    python eval.py --mode revise --from test_result/textcraft/NAME_base --panel panel.json --model_name NAME
    python eval.py compare test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned

Writes {output_dir}/{task}/{model}_{MODEL_TYPE}/search_results_{idx}.json, summary.json and manifest.json. Run it again
to go on after an interruption or to retry failed tasks. Exit code 1: some tasks failed; 2: bad input; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mcts_utils.actor import make_actor
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import make_environment, server_about
from mcts_utils.evaluation import Evaluation, protocol_of
from mcts_utils.panel import Start, cut_failures, load_panel, save_panel
from mcts_utils.scheduler import sigterm_as_interrupt
from mcts_utils.scorecard import compare, describe, describe_comparison, episodes_of
from mcts_utils.selection import choose_ids
from mcts_utils.types import ActorError, EnvError, InputError

REVISE_STEPS = 50  # Table 3: at most 50 rounds after the cut
MAIN_STEPS = 100  # Table 2


def flags(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what is left out comes from the environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--env_server_base", help="URL of the environment server (or ENV_SERVER_BASE)")
    add("--model_name", help="as the endpoint knows it (or MODEL_NAME)")
    add("--mode", choices=("main", "revise"), default="main")
    add("--task_ids", default="test", help="test, train or a list such as 0-9,31")
    add("--max_steps", type=int, help=f"steps per episode; {MAIN_STEPS}, or {REVISE_STEPS} after a cut")
    add("--temperature", type=float, default=0.0, help="0: greedy")
    add("--from", dest="source", help="--mode revise: the run whose failures are cut")
    add("--panel", help="--mode revise: file of the cut prefixes; written if missing")
    add("--seed", type=int, help="--mode revise: draws the cuts (or SEED)")
    add("--output_dir", default="test_result")
    add("--overwrite", type=int, choices=(0, 1), default=0, help="1: redo files that were made otherwise")
    return parser.parse_args(argv)


def choose_starts(args: argparse.Namespace, settings: Settings, goals: str) -> list[Start]:
    """Where the episodes begin, on a server of the kind `goals`."""
    if args.mode == "main":
        return [Start(i) for i in choose_ids(settings.task, settings.env_server_base, args.task_ids)]
    if args.panel and Path(args.panel).exists():
        return load_panel(args.panel, settings.task, goals)
    if not args.source:
        raise InputError("--mode revise needs --from RUN_DIR, or --panel with a file that exists")
    episodes = list(episodes_of(args.source))
    if other := {episode["settings"].get("goals", goals) for episode in episodes} - {goals}:
        raise InputError(
            f"--from {args.source}: played on a server of kind {other.pop()}, this one is {goals}"
        )
    starts, left_out = cut_failures(episodes, settings.seed)
    print(f"{len(starts)} failed episodes cut; left out: {left_out}", file=sys.stderr)
    if not starts:
        raise InputError(f"--from {args.source}: no failed episode is left to cut ({left_out})")
    if args.panel:
        source = {"run": Path(args.source).name, "seed": settings.seed}
        save_panel(args.panel, settings.task, goals, starts, source)
    return starts


def evaluate(args: argparse.Namespace) -> int:
    """Run, score, print."""
    settings = settings_from_env().override(
        env_server_base=args.env_server_base, model_name=args.model_name, seed=args.seed
    )
    settings.require("env_server_base", "model_name")
    if not 0 <= args.temperature < float("inf"):
        raise InputError(f"--temperature must be at least 0: {args.temperature}")
    if args.max_steps is not None and args.max_steps < 1:
        raise InputError(f"--max_steps must be at least 1: {args.max_steps}")
    max_steps = args.max_steps or (MAIN_STEPS if args.mode == "main" else REVISE_STEPS)
    goals = server_about(settings.env_server_base)["kind"]
    protocol = protocol_of(settings, args.mode, args.temperature, max_steps, goals)
    starts = choose_starts(args, settings, goals)
    evaluation = Evaluation(settings, protocol, starts, args.output_dir)
    environment = partial(
        make_environment, settings.task, settings.env_server_base, grounding=settings.grounding
    )
    summary = evaluation.run(partial(make_actor, settings), environment, bool(args.overwrite))
    print(describe(summary))
    print(evaluation.folder / "summary.json")
    return 1 if summary["n_failed"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["compare"]:
            parser = argparse.ArgumentParser(prog="eval.py compare")
            parser.add_argument("run_a")
            parser.add_argument("run_b")
            runs = parser.parse_args(argv[1:])
            print(describe_comparison(compare(runs.run_a, runs.run_b)))
            return 0
        sigterm_as_interrupt()
        return evaluate(flags(argv))
    except (InputError, EnvError, ActorError, OSError) as error:
        print(f"eval.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("eval.py: stopped; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
