"""Is the judge right? The model's verdicts on single steps against TextCraft's planner and the search's own values.

    python -m mcts_utils.report.judge --trees runs/demo_seed_0/mcts_result/textcraft/tiny_actor \\
        --verdicts runs/demo_seed_0/records --output judge.json
    MODEL_DIR=models/tiny_actor python -m mcts_utils.report.judge --trees ... --judge 200 --asked judge_asked

--verdicts are those that stage 2 asked for: steps of bad paths behind the fork, up to the first bad one. --judge asks
about steps drawn at random, half of them on good paths. Exit codes: 0; 2 for bad input; 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.config import settings_from_env
from mcts_utils.report.judge.evidence import JudgeEvidence, on_good_paths
from mcts_utils.report.judge.oracles import RULES, ValueRule
from mcts_utils.report.judge.sampling import Key, VerdictSampler, draw, question_about
from mcts_utils.report.judge.table import table
from mcts_utils.revision.verdict_cache import LABELS, question_sha256
from mcts_utils.search.tree import Tree, nodes
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.layout import tree_files
from mcts_utils.types import ActorError, InputError, Verdict, one_line

USUAL = ValueRule()


def label_of(verdict: Verdict) -> str:
    """One of agreement.VERDICTS."""
    return verdict.label if verdict.parsed else "unparsed"


class TreeFolder:
    """The trees of some folders, read one at a time, as often as they are asked for."""

    def __init__(self, folders: Sequence[Path], env: str) -> None:
        """`env` names the environment of reference trees; ours say it themselves."""
        self.env = env
        self.files: dict[Key, Path] = {
            (number, index): path
            for number, folder in enumerate(folders)
            for index, path in tree_files(folder, "--trees").items()
        }

    def trees(self, keys: Iterable[Key] | None = None) -> Iterator[tuple[Key, Tree]]:
        """The trees of these keys, or all.

        Raises:
            InputError: naming the file that is no tree.
        """
        for key in self.files if keys is None else keys:
            path = self.files[key]
            try:
                yield key, load_tree(read_json(path), self.env, key[1])
            except InputError as error:
                raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def kept_verdicts(path: Path, tree: Tree) -> tuple[dict[int, str], int]:
    """What a verdict file says of the tree's nodes, and how many of its verdicts are on other questions.

    Raises:
        InputError: naming the file that holds no verdicts.
    """
    data = read_json(path)
    by_id = {node.id: node for node in nodes(tree)}
    found: dict[int, str] = {}
    other = 0
    try:
        for name, row in data["verdicts"].items():
            node = by_id.get(int(name))
            if row["label"] not in LABELS:
                raise ValueError(f"label {row['label']!r}")
            if node is None or node.parent is None:
                other += 1
                continue
            if question_sha256(question_about(tree, node, data["prompt"])) != row["question"]:
                other += 1
                continue
            found[int(name)] = label_of(Verdict(row["label"], row["reason"], row["asked"], row["parsed"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a file of verdicts ({one_line(error)})") from error
    return found, other


def of_stage_2(forest: TreeFolder, folders: Sequence[Path], rule: ValueRule, seed: int) -> dict[str, Any]:
    """The verdicts of one records folder (or its `verdicts`) for each folder of trees."""
    evidence = JudgeEvidence(rule, seed)
    counts = {"trees": 0, "files_without_tree": 0, "other_questions": 0}
    for number, folder in enumerate(folders):
        inner = folder / "verdicts"
        files = tree_files(inner if inner.is_dir() else folder, "--verdicts")
        keys = [(number, index) for index in files if (number, index) in forest.files]
        counts["files_without_tree"] += len(files) - len(keys)
        for key, tree in forest.trees(keys):
            found, other = kept_verdicts(files[key[1]], tree)
            counts["trees"] += 1
            counts["other_questions"] += other
            evidence.add(tree, found)
    if not sum(evidence.labels.values()):
        raise InputError(f"--verdicts {folders[0]}: none of its verdicts is on a step of --trees")
    return {**counts, **evidence.summary()}


def on_purpose(
    forest: TreeFolder, asking: VerdictSampler, count: int, rule: ValueRule, seed: int
) -> dict[str, Any]:
    """The verdicts on steps drawn at random, all together and by half."""
    chosen, counts = draw(forest.trees(), count, seed)
    if not chosen:
        raise InputError(f"--judge {count}: the trees have no executed step")
    together, good, bad = (JudgeEvidence(rule, seed) for _ in range(3))
    given = dict(asking.verdicts(forest.trees(chosen), chosen))
    for key, tree in forest.trees(chosen):
        labels = {node: label_of(verdict) for node, verdict in given[key].items()}
        passed = on_good_paths(tree)
        together.add(tree, labels)
        good.add(tree, {node: label for node, label in labels.items() if node in passed})
        bad.add(tree, {node: label for node, label in labels.items() if node not in passed})
    return {
        "model": asking.model,
        "prompt": asking.settings.prompt,
        "drawn": counts,
        "requests": asking.requests,
        **together.summary(),
        "on_good_paths": good.summary(),
        "on_bad_paths_only": bad.summary(),
    }


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = flags.add_argument
    add("--trees", type=Path, nargs="+", required=True, help="folders of stage 1: search_results_<idx>.json")
    add(
        "--verdicts", type=Path, nargs="+", default=[], help="for each of them, the records folder of stage 2"
    )
    add("--judge", type=int, default=0, metavar="N", help="ask the actor about N steps drawn at random")
    add(
        "--asked", type=Path, help="where these verdicts are kept (default: OUTPUT without .json, and _asked)"
    )
    add("--value_rule", choices=RULES, default=USUAL.kind, help="what the node's Q is held against")
    add("--threshold", type=float, default=USUAL.threshold, help="for --value_rule threshold")
    add("--min_visits", type=int, default=USUAL.min_visits, help="nodes with fewer are left out")
    add("--seed", type=int, help="of the drawing and of the bootstraps (SEED)")
    add("--output", type=Path, help="write everything as JSON")
    return flags


def checked(args: argparse.Namespace) -> ValueRule:
    """The rule of the flags.

    Raises:
        InputError: naming the flag and its value.
    """
    if args.judge < 0 or args.judge == 1:
        raise InputError(f"--judge must be at least 2, one half on good paths: {args.judge}")
    if not args.verdicts and not args.judge:
        raise InputError("neither --verdicts nor --judge is given, so there is no verdict")
    if args.verdicts and len(args.verdicts) != len(args.trees):
        raise InputError(f"--verdicts names {len(args.verdicts)} folders, --trees {len(args.trees)}")
    if args.judge and not (args.asked or args.output):
        raise InputError("--judge needs --asked or --output: the verdicts are kept there")
    if not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold must be between 0 and 1: {args.threshold}")
    if args.min_visits < 1:
        raise InputError(f"--min_visits must be at least 1: {args.min_visits}")
    return ValueRule(args.value_rule, args.threshold, args.min_visits)


def run(args: argparse.Namespace) -> Mapping[str, Any]:
    """The summary of what the flags ask for."""
    rule = checked(args)
    settings = settings_from_env().override(seed=args.seed)
    if args.judge:
        settings.require("model_name")
    forest = TreeFolder(args.trees, settings.task)
    found: dict[str, Any] = {
        "trees": [str(folder) for folder in args.trees],
        "value_rule": str(rule),
        "seed": settings.seed,
        "stage_2": None,
        "on_purpose": None,
    }
    if args.verdicts:
        found["stage_2"] = of_stage_2(forest, args.verdicts, rule, settings.seed)
    if args.judge:
        folder = args.asked or args.output.with_name(f"{args.output.stem}_asked")
        found["on_purpose"] = on_purpose(
            forest, VerdictSampler(settings, folder), args.judge, rule, settings.seed
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    args = parser().parse_args(argv)
    try:
        found = run(args)
        print(table(found))
        if args.output:
            write_json(args.output, found)
            print(args.output)
    except (InputError, ActorError) as error:
        print(f"judge: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted: the verdicts so far are kept, the next run asks only for the others",
            file=sys.stderr,
        )
        return 130
    return 0
