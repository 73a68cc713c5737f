"""The verdicts of stage 2 as training rows: a model that is trained on trajectories alone forgets how to judge.

Each row is the judge's question about one step and the answer that the model itself gave, so nothing comes in from
outside. Which verdicts there are is judge.py's business. In large models general data (Section 3.2) does the same.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.prompts import judge_messages
from mcts_utils.revision.verdict_cache import LABELS, VerdictCache, judge_name, question_sha256
from mcts_utils.search.tree import Node, Tree, nodes, path_steps, step_of
from mcts_utils.search.tree_io import read_tree
from mcts_utils.storage.files import sha256_file, write_jsonl
from mcts_utils.storage.layout import manifest_path, records_path, tree_files, verdicts_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.types import Message, Verdict

DATA_TYPE = "verdicts"
KIND = "verdict"


def answer(verdict: Verdict) -> str:
    """The reply that parses as this verdict: reason first, then the judgment in a line of its own (Appendix A)."""
    return f"{verdict.reason}\nJudgment: {verdict.label.capitalize()}"


def verdict_rows(
    tree: Tree, file: Path, verdicts_dir: str | Path, model: str, prompt: str, most: int, seed: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """At most `most` rows of one tree, the labels in turn, and what was left out and why.

    Args:
        file: the tree's, for the lineage.
        verdicts_dir: the output folder of stage 2 that holds the verdicts.
        model: whose verdicts they must be; others are not taken.
        prompt: key of conversation.JUDGES.

    Returns:
        rows as stage 3 takes them: kind, messages with loss on the answer alone, lineage.
    """
    cache = VerdictCache(verdicts_path(verdicts_dir, tree.task.index), model, prompt)
    left_out: Counter[str] = Counter()
    found: dict[str, list[tuple[Node, list[Message], Verdict]]] = {label: [] for label in LABELS}
    for node in nodes(tree):
        if node.parent is None or not node.executed:
            continue
        question = judge_messages(tree.task, path_steps(node.parent), step_of(node), prompt)
        verdict = cache.get(node.id, question_sha256(question))
        if verdict is None:
            continue
        if verdict.parsed:
            found[verdict.label].append((node, question, verdict))
        else:
            left_out["unparsed"] += 1
    rng = random.Random(f"{seed}|{tree.task.id}|rehearsal")
    for kept in found.values():
        rng.shuffle(kept)
    chosen = list(in_turn(list(found.values())))
    left_out["cap"] += len(chosen[most:])
    source = {"tree": file.name, "tree_sha256": sha256_file(file)}
    return [_row(tree, source, *one) for one in chosen[:most]], left_out


def in_turn(groups: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """One of each group, then a second one of each that has it, and so on."""
    for place in range(max(map(len, groups), default=0)):
        for group in groups:
            if place < len(group):
                yield group[place]


def _row(
    tree: Tree, source: dict[str, str], node: Node, question: Sequence[Message], verdict: Verdict
) -> dict[str, Any]:
    task = tree.task
    turns = [*question, Message("assistant", answer(verdict), True)]
    return {
        "kind": KIND,
        "task_num": task.index,
        "task_description": task.opening,
        "messages": [{"role": m.role, "content": m.content, "loss": m.loss} for m in turns],
        "lineage": {
            **source,
            "task": {"env": task.env, "index": task.index, "id": task.id},
            "node": node.id,
            "label": verdict.label,
        },
    }


def write_verdicts(
    settings: Settings, input_dir: str | Path, output_dir: str | Path, most: int
) -> dict[str, Any]:
    """{task}_verdicts.jsonl and its manifest, from trees and the verdicts on them in output_dir; returns the counts.

    Where this model has judged nothing, the file is empty.

    Raises:
        InputError: no trees, or one that cannot be read.
    """
    began, output = time.monotonic(), records_path(output_dir, settings.task, DATA_TYPE)
    judge = judge_name(settings.model_name, fingerprint(settings.model_dir))
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    files = tree_files(input_dir, "--input_dir")
    for index, path in files.items():
        tree = read_tree(path, settings.task, index)
        found, why = verdict_rows(tree, path, output_dir, judge, settings.prompt, most, settings.seed)
        rows += found
        left_out.update(why)
    write_jsonl(output, rows)
    labels = Counter(row["lineage"]["label"] for row in rows)
    counts = {
        "trees": len(files),
        "written": len(rows),
        "verdicts": {label: labels[label] for label in LABELS},
        "dropped": {reason: count for reason, count in left_out.items() if count},
    }
    known = {**settings.public(), "data_type": DATA_TYPE, "max_per_task": most, "judge": judge}
    manifest = manifest_path(output_dir, settings.task, DATA_TYPE)
    inputs = list(files.values())
    write_manifest(manifest, "rehearsal", known, inputs, [output], counts, {}, time.monotonic() - began)
    return counts
