"""Is the judge right? The model's verdicts on single steps against TextCraft's planner and the search's own values.

    python -m mcts_utils.report.judge --trees runs/demo_seed_0/mcts_result/textcraft/tiny_actor \\
        --verdicts runs/demo_seed_0/records --output judge.json
    MODEL_DIR=models/tiny_actor python -m mcts_utils.report.judge --trees ... --judge 200 --asked judge_asked

--verdicts are those of stage 2: on steps of bad paths after the fork, up to the first bad one. --judge asks about steps
drawn at random, half of them on good paths. Exit code 2: bad input; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.actors.factory import require_actor
from mcts_utils.config import settings_from_env
from mcts_utils.envs import names
from mcts_utils.report.common import print_report
from mcts_utils.report.judge.evidence import JudgeEvidence, on_good_paths
from mcts_utils.report.judge.oracles import RULES, ValueRule
from mcts_utils.report.judge.sampling import TreeKey, VerdictSampler, draw_steps, question_about
from mcts_utils.report.judge.table import table
from mcts_utils.revision.verdict_cache import question_sha256
from mcts_utils.search.tree import Tree, nodes
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_as, read_json
from mcts_utils.storage.formats.verdicts import VerdictFile
from mcts_utils.storage.layout import tree_files, verdict_files
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import InputError, Verdict

DEFAULT_RULE = ValueRule()


def label_of(verdict: Verdict) -> str:
    """Return the verdict as one of agreement.VERDICTS."""
    return verdict.label if verdict.parsed else "unparsed"


class TreeFolder:
    """The trees of some folders, read one at a time at every pass."""

    def __init__(self, folders: Sequence[Path], env: str) -> None:
        """List the tree files. `env`: environment of trees in the reference format, which do not name it."""
        self.env = env
        self.files: dict[TreeKey, Path] = {
            (number, index): path
            for number, folder in enumerate(folders)
            for index, path in tree_files(folder, "--trees").items()
        }

    def trees(self, keys: Iterable[TreeKey] | None = None) -> Iterator[tuple[TreeKey, Tree]]:
        """Yield the trees of these keys, or all; raise InputError naming a file that is no tree."""
        for key in self.files if keys is None else keys:
            path = self.files[key]
            try:
                yield key, load_tree(read_json(path), self.env, key[1])
            except InputError as error:
                raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def kept_verdicts(path: Path, tree: Tree) -> tuple[dict[int, str], int]:
    """Return node id -> verdict from a verdict file, and the number of its verdicts on other questions."""
    file = read_as(path, VerdictFile)
    found = {}
    for node in nodes(tree):
        kept = file.verdicts.get(str(node.id)) if node.parent else None
        if kept and kept.question == question_sha256(question_about(tree, node, file.prompt)):
            found[node.id] = label_of(kept.verdict())
    return found, len(file.verdicts) - len(found)


def stage_2_verdicts(
    tree_folder: TreeFolder, folders: Sequence[Path], rule: ValueRule, seed: int
) -> dict[str, Any]:
    """Return the statistics of stage 2's verdicts.

    Args:
        folders: for each folder of trees, a records folder or its `verdicts`.

    Raises:
        InputError: a folder has no verdicts, or none of them is on a step of the trees.
    """
    evidence = JudgeEvidence(rule, seed)
    counts = {"trees": 0, "files_without_tree": 0, "other_questions": 0}
    for number, folder in enumerate(folders):
        inner = folder / "verdicts"
        files = verdict_files(inner if inner.is_dir() else folder, "--verdicts")
        keys = [(number, index) for index in files if (number, index) in tree_folder.files]
        counts["files_without_tree"] += len(files) - len(keys)
        for key, tree in tree_folder.trees(keys):
            found, other = kept_verdicts(files[key[1]], tree)
            counts["trees"] += 1
            counts["other_questions"] += other
            evidence.add(tree, found)
    if not sum(evidence.labels.values()):
        raise InputError(f"--verdicts {folders[0]}: none of its verdicts is on a step of --trees")
    return {**counts, **evidence.summary()}


def sampled_verdicts(
    tree_folder: TreeFolder, sampler: VerdictSampler, count: int, rule: ValueRule, seed: int
) -> dict[str, Any]:
    """Return the statistics of verdicts on steps drawn at random: on all of them and on each half.

    Raises:
        InputError: the trees have no executed step.
    """
    chosen, counts = draw_steps(tree_folder.trees(), count, seed)
    if not chosen:
        raise InputError(f"--judge {count}: the trees have no executed step")
    every, good, bad = (JudgeEvidence(rule, seed) for _ in range(3))
    given = sampler.verdicts(tree_folder.trees(chosen), chosen)
    for key, tree in tree_folder.trees(chosen):
        labels = {node: label_of(verdict) for node, verdict in given[key].items()}
        on_good = on_good_paths(tree)
        every.add(tree, labels)
        good.add(tree, {node: label for node, label in labels.items() if node in on_good})
        bad.add(tree, {node: label for node, label in labels.items() if node not in on_good})
    return {
        "model": sampler.model,
        "prompt": sampler.settings.prompt,
        "drawn": counts,
        "requests": sampler.requests,
        **every.summary(),
        "on_good_paths": good.summary(),
        "on_bad_paths_only": bad.summary(),
    }


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--trees", type=Path, nargs="+", required=True, help="folders of stage 1: search_results_<idx>.json")
    stage_2, drawn = "for each of them, the records folder of stage 2", between(0, 1_000_000)
    add("--verdicts", type=Path, nargs="+", default=[], help=stage_2)
    asked = "ask the actor about N steps drawn at random"
    add("--judge", type=drawn, default=0, metavar="N", help=asked)
    add("--asked", type=Path, help="folder for these verdicts (default: OUTPUT without .json, and _asked)")
    add("--value_rule", choices=RULES, default=DEFAULT_RULE.kind, help="what the node's Q is compared with")
    share, least = between(0, 1, float), between(1, 10**9)
    add("--threshold", type=share, default=DEFAULT_RULE.threshold, help="for --value_rule threshold")
    add("--min_visits", type=least, default=DEFAULT_RULE.min_visits, help="nodes with fewer are left out")
    add("--seed", type=int, help="of the sample and of the bootstraps (SEED)")
    add("--output", type=Path, help="write everything as JSON")
    return parser


def value_rule(args: argparse.Namespace) -> ValueRule:
    """Check the flags and return their value rule.

    Raises:
        InputError: a flag has a bad value; the message names both.
    """
    if args.judge == 1:
        raise InputError(f"--judge must be at least 2, one half on good paths: {args.judge}")
    if not args.verdicts and not args.judge:
        raise InputError("neither --verdicts nor --judge is given, so there is no verdict")
    if args.verdicts and len(args.verdicts) != len(args.trees):
        raise InputError(f"--verdicts names {len(args.verdicts)} folders, --trees {len(args.trees)}")
    if args.judge and not (args.asked or args.output):
        raise InputError("--judge needs --asked or --output: the verdicts are kept there")
    return ValueRule(args.value_rule, args.threshold, args.min_visits)


def summarise(args: argparse.Namespace) -> Mapping[str, Any]:
    """Return the statistics that the flags ask for."""
    rule = value_rule(args)
    settings = settings_from_env(tasks=names()).override(seed=args.seed)
    if args.judge:
        require_actor(settings, say=True)
    tree_folder, seed = TreeFolder(args.trees, settings.task), settings.seed
    found: dict[str, Any] = {
        "trees": [str(folder) for folder in args.trees],
        "value_rule": str(rule),
        "seed": seed,
        "stage_2": stage_2_verdicts(tree_folder, args.verdicts, rule, seed) if args.verdicts else None,
        "on_purpose": None,
    }
    if args.judge:
        folder = args.asked or args.output.with_name(f"{args.output.stem}_asked")
        sampler = VerdictSampler(settings, folder)
        found["on_purpose"] = sampled_verdicts(tree_folder, sampler, args.judge, rule, seed)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    if_interrupted = "interrupted: the verdicts so far are kept, the next run asks only for the others"

    def report() -> None:
        args = command_line().parse_args(argv)
        found = summarise(args)
        print_report(table(found), found, args.output)

    return run_command("report", report, if_interrupted)


if __name__ == "__main__":
    sys.exit(main())
