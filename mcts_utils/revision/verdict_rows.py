"""The verdicts of stage 2 as training rows: a model that is trained on trajectories alone forgets how to judge.

Each row is the judge's question about one step and the answer that the model itself gave, so no other data is needed.
It asks nothing; judge.py makes the verdicts. For large models, general data (Section 3.2) has the same effect.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings, judge_settings
from mcts_utils.prompts import judge_messages
from mcts_utils.revision.verdict_cache import LABELS, VerdictCache, judge_name, question_sha256
from mcts_utils.revision.votes import votes_of
from mcts_utils.search.tree import Node, Tree, nodes, path_steps, step_of, task_at
from mcts_utils.search.tree_io import read_tree
from mcts_utils.storage.files import sha256_file, write_jsonl
from mcts_utils.storage.formats.record import RowTask, Turn, VerdictLineage, VerdictRow
from mcts_utils.storage.layout import manifest_path, records_path, tree_files, verdicts_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.types import Message, Verdict

DATA_TYPE = "verdicts"


def answer(verdict: Verdict) -> str:
    """Return the reply that parses as this verdict: the reason, then the judgment on its own line (Appendix A)."""
    return f"{verdict.reason}\nJudgment: {verdict.label.capitalize()}"


def verdict_rows(
    tree: Tree, file: Path, verdicts_dir: str | Path, model: str, prompt: str, max_rows: int, seed: int
) -> tuple[list[VerdictRow], Counter[str]]:
    """Return at most `max_rows` rows of one tree, the labels in turn, and the counts of what was left out, by reason.

    Args:
        file: the tree's file, for the lineage.
        verdicts_dir: the output folder of stage 2 that holds the verdicts.
        model: the judge (verdict_cache.judge_name); verdicts of others are not taken.
        prompt: key of prompts.JUDGE_PROMPTS.

    Returns:
        rows in the format of stage 3 (kind, messages with loss on the answer alone, lineage), and the counts.
    """
    cache = VerdictCache(verdicts_path(verdicts_dir, tree.task.index), model, prompt)
    left_out: Counter[str] = Counter()
    found: dict[str, list[tuple[Node, list[Message], Verdict]]] = {label: [] for label in LABELS}
    for node in nodes(tree):
        if node.parent is None or not node.executed:
            continue
        question = judge_messages(task_at(tree, node), path_steps(node.parent), step_of(node), prompt)
        verdict = cache.get(node.id, question_sha256(question))
        if verdict is None:
            continue
        if verdict.parsed and verdict.label in {vote.label for vote in votes_of(verdict)}:
            found[verdict.label].append((node, question, verdict))
        else:
            left_out["tie" if verdict.parsed else "unparsed"] += 1
    rng = random.Random(f"{seed}|{tree.task.id}|rehearsal")
    for group in found.values():
        rng.shuffle(group)
    chosen = list(in_turn(list(found.values())))
    left_out["cap"] += len(chosen[max_rows:])
    source = (file.name, sha256_file(file))
    return [_row(tree, source, *item) for item in chosen[:max_rows]], left_out


def in_turn(groups: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Yield the first item of each group, then the second of each group that has one, and so on."""
    for position in range(max(map(len, groups), default=0)):
        for group in groups:
            if position < len(group):
                yield group[position]


def _row(
    tree: Tree, source: tuple[str, str], node: Node, question: Sequence[Message], verdict: Verdict
) -> VerdictRow:
    task = tree.task
    turns = [*question, Message("assistant", answer(verdict), True)]
    return VerdictRow(
        task_num=task.index,
        task_description=task.opening,
        messages=[Turn.of(message) for message in turns],
        lineage=VerdictLineage(
            tree=source[0],
            tree_sha256=source[1],
            task=RowTask(env=task.env, index=task.index, id=task.id),
            node=node.id,
            label=verdict.label,
        ),
    )


def write_verdicts(
    settings: Settings, input_dir: str | Path, output_dir: str | Path, max_rows: int
) -> dict[str, Any]:
    """Write {task}_verdicts.jsonl and its manifest, and return the counts.

    The rows come from the trees in `input_dir` and the verdicts on them in `output_dir`; if this model has judged
    nothing, the file is empty.

    Args:
        max_rows: of one tree.

    Raises:
        InputError: if there is no tree, or one that cannot be read.
    """
    began, output = time.monotonic(), records_path(output_dir, settings.task, DATA_TYPE)
    asked = judge_settings(settings)
    judge = judge_name(asked.model_name, fingerprint(asked.model_dir, asked.chat_template))
    rows: list[VerdictRow] = []
    left_out: Counter[str] = Counter()
    files = tree_files(input_dir, "--input_dir")
    for index, path in files.items():
        tree = read_tree(path, settings.task, index)
        tree_rows, dropped = verdict_rows(
            tree, path, output_dir, judge, asked.prompt, max_rows, settings.seed
        )
        rows += tree_rows
        left_out.update(dropped)
    write_jsonl(output, rows)
    labels: Counter[str] = Counter(row.lineage.label for row in rows)
    counts = {
        "trees": len(files),
        "written": len(rows),
        "verdicts": {label: labels[label] for label in LABELS},
        "dropped": {reason: count for reason, count in left_out.items() if count},
    }
    known = {**settings.public(), "data_type": DATA_TYPE, "max_per_task": max_rows, "judge": judge}
    manifest = manifest_path(output_dir, settings.task, DATA_TYPE)
    inputs = list(files.values())
    write_manifest(manifest, "rehearsal", known, inputs, [output], counts, {}, time.monotonic() - began)
    return counts
