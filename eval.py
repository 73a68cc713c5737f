"""Stage 4: roll a model out on test tasks, many at once, and score it.

    python eval.py --env_server_base http://127.0.0.1:8000 --model_name NAME --max_steps 100
    python eval.py --mode revise --from test_result/textcraft/NAME_base --panel panel.json --model_name NAME
    python eval.py compare test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned
    python eval.py loops test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned

Writes {output_dir}/{task}/{model}_{MODEL_TYPE}/episode_{idx}.json, summary.json and manifest.json. Run it again
to go on after an interruption or to retry failed tasks. Exit code 1: some tasks failed; 2: bad input; 3: a limit
(MAX_COST and so on) is reached; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mcts_utils.actors.factory import make_actor, require_actor
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.envs import names
from mcts_utils.envs.own_server import served
from mcts_utils.envs.task_set import open_task_set
from mcts_utils.evaluation import compare, loops
from mcts_utils.evaluation.eval_set import choose_starts, repeat_starts, save_run_as_eval_set
from mcts_utils.evaluation.few_shot import load_examples
from mcts_utils.evaluation.protocol import protocol_of
from mcts_utils.evaluation.stage import EvaluationStage
from mcts_utils.evaluation.summary import describe
from mcts_utils.executors.limits import check_limits
from mcts_utils.pipeline.dry_run import evaluation_lines
from mcts_utils.replies import reply_warnings
from mcts_utils.storage.lock import reserved
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import InputError

REVISE_STEPS = 50  # Table 3: at most 50 rounds after the cut
MAIN_STEPS = 100  # Table 2
COMMANDS = {"compare": compare.main, "loops": loops.main}  # these read finished runs


def flags(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; flags that are left out are read from the environment."""
    more = "eval.py compare -h, eval.py loops -h: on finished runs"
    parser = Parser(description=(__doc__ or "").partition("\n")[0], epilog=more)
    add = parser.add_argument
    add("--env_server_base", help="URL of the environment server (or ENV_SERVER_BASE)")
    add("--model_name", help="as the endpoint knows it (or MODEL_NAME)")
    modes = "whole tasks (Table 2) or cut ones (Table 3)"
    add("--mode", choices=("main", "revise"), default="main", help=modes)
    add("--task_ids", help="--mode main: test (if left out), train or a list such as 0-9,31")
    steps = f"steps per episode; {MAIN_STEPS}, or {REVISE_STEPS} after a cut"
    add("--max_steps", type=between(1, 1_000_000), help=steps)
    add("--temperature", type=between(0, 100, float), default=0.0, help="0: greedy")
    samples = "episodes of each task, for pass@k; above 1 at a temperature"
    add("--samples", type=between(1, 10_000), default=1, help=samples)
    shots = "solved examples shown before each task; 0: zero-shot"
    add("--shots", type=between(0, 1000), default=0, help=shots)
    add("--examples", help="--shots: records with messages (JSONL), or the folder of an evaluation run")
    add("--from", dest="source", help="--mode revise: the run whose failures are cut")
    add("--panel", help="file of the goals or cut prefixes to play; written if missing")
    add("--seed", type=int, help="draws cuts, examples and samples (or SEED)")
    add("--output_dir", default="test_result")
    parser.add_dry_run()
    parser.add_switch("--overwrite", 0, "1: redo files that were made otherwise")
    return parser.parse_args(argv)


def check(args: argparse.Namespace, settings: Settings) -> None:
    """Check that the flags go together.

    Raises:
        InputError: a flag has a bad value; the message names both.
    """
    if args.samples > 1 and not args.temperature:
        raise InputError(f"--samples {args.samples}: greedy episodes are all alike, set --temperature")
    if args.shots and settings.actions == TOOLS:
        raise InputError(f"--shots {args.shots}: examples act in text, ACTIONS is {TOOLS}")
    if bool(args.shots) != bool(args.examples):
        raise InputError(f"--shots {args.shots}: goes with --examples, which is {args.examples or 'not set'}")


def evaluate(args: argparse.Namespace) -> int:
    """Run the episodes, print their scores and return the exit code: 1 if a task failed, else 0."""
    settings = settings_from_env(tasks=names()).override(
        env_server_base=args.env_server_base, model_name=args.model_name, seed=args.seed
    )
    check(args, settings)
    require_actor(settings, say=True)
    with served(settings) as settings:
        settings.require("env_server_base", "model_name")
        check_limits(settings, settings.in_flight)
        return play(args, settings)


def play(args: argparse.Namespace, settings: Settings) -> int:
    """Run the episodes on the server of the settings, print their scores and return the exit code."""
    max_steps = args.max_steps or (MAIN_STEPS if args.mode == "main" else REVISE_STEPS)
    tasks = open_task_set(settings)
    server_kind = tasks.kind()
    examples = load_examples(args.examples, settings.task, args.shots, settings.seed) if args.shots else None
    digest = examples.digest() if examples else ""
    protocol = protocol_of(settings, args.mode, args.temperature, max_steps, server_kind, args.shots, digest)
    asked = args.task_ids, args.source, args.panel
    starts = choose_starts(settings, args.mode, server_kind, *asked, write=not args.dry_run)
    starts = repeat_starts(starts, args.samples)
    inputs = [path for path in (args.panel, args.examples) if path and Path(path).is_file()]
    evaluation = EvaluationStage(settings, protocol, starts, args.output_dir, None, examples, inputs)
    if args.dry_run:
        print("\n".join(evaluation_lines(evaluation, bool(args.overwrite))))
        return 0
    with reserved(evaluation.folder):
        summary = evaluation.run(partial(make_actor, settings), tasks.environment, bool(args.overwrite))
    if args.panel and not summary.n_failed:
        save_run_as_eval_set(args.panel, settings, server_kind, evaluation.folder)
    print(describe(summary))
    for line in reply_warnings(summary.replies or {}, settings.max_token_length):
        print(line, file=sys.stderr)
    print(evaluation.folder / "summary.json")
    return 1 if summary.n_failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 0, 1 after failed tasks, 2 after bad input, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        if argv and argv[0] in COMMANDS:
            return COMMANDS[argv[0]](argv[1:])
        return evaluate(flags(argv))

    return run_command("eval.py", work, "stopped; run the same command again to go on")


if __name__ == "__main__":
    sys.exit(main())
