"""The records of live episodes (live.py): rows of what was played, as it was played. Nothing is executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from mcts_utils.executors.stage import Saved
from mcts_utils.prompts import is_signal_step
from mcts_utils.revision.builder import Built, cut_lineage
from mcts_utils.revision.judge import SIGNAL
from mcts_utils.revision.options import KINDS, Options
from mcts_utils.revision.pairs import CutPoint, Pair, Trajectory, paths, trained_from, useful_steps
from mcts_utils.revision.record import Record, Source, to_row
from mcts_utils.revision.verdict_cache import verdict_file
from mcts_utils.search.baselines import LIVE
from mcts_utils.search.tree import Tree, nodes, task_at
from mcts_utils.search.tree_io import BadTree, read_tree
from mcts_utils.storage.files import write_json
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.storage.layout import tree_files, verdicts_path
from mcts_utils.types import Verdict

MADE = ("centric", "good", "optimal")  # data types that live episodes become


def is_live(tree: Tree) -> bool:
    """Return True if the tree holds live episodes."""
    return tree.settings.get("strategy") == LIVE


def is_live_folder(folder: str | Path, env: str) -> bool:
    """Return True if the first tree of a folder holds live episodes; raise InputError if there is no tree."""
    index, path = next(iter(tree_files(folder, "--input_dir").items()))
    try:
        return is_live(read_tree(path, env, index))
    except BadTree:
        return False  # the stage says what is wrong with it


def usual_reward(tree: Tree) -> float:
    """Return the mean reward of the task's plain episodes, in [0, 1]; 0 without any."""
    plain = paths(tree)[: tree.stats.get("plain", 0)]
    return fmean(path.reward for path in plain) if plain else 0.0


class LiveBuilder:
    """Builds the rows of one tree of live episodes."""

    def __init__(self, tree: Tree, source: Source, options: Options) -> None:
        self.tree, self.source, self.options = tree, source, options
        self.kind, rule = KINDS[options.data_type], options.rule
        self._rule = replace(rule, alpha=1.0) if self.kind == "optimal" else rule
        self._usual = usual_reward(tree)
        self._verdicts = {node: kept.verdict() for node, kept in tree.verdicts.items()}
        self._first = {node.id: node for node in nodes(tree) if node.parent is tree.root}

    def build(self) -> Built:
        """Return the rows: revisions of the judged episodes, or good episodes that needed none."""
        found, env = paths(self.tree), self.tree.task.env
        if self.kind == "revision":
            chosen = found[self.tree.stats.get("plain", 0) :]
            counts = Counter(paths=len(found), pairs=len(chosen))
        else:
            chosen = [path for path in found if self._rule.good(path.reward) and not self._bad(path)]
            counts = Counter(paths=len(found), good_paths=len(chosen))
        rows: list[RecordRow] = []
        written: set[tuple[str, ...]] = set()
        # Those with the fewest errors first, then the shortest.
        for path in sorted(chosen, key=lambda path: (len(self._bad(path)), useful_steps(path, env))):
            row = self.row(path)
            if isinstance(row, str):
                counts[row] += 1
            elif path.actions in written and self.options.unique:
                counts["duplicate"] += 1
            elif len(rows) >= self.options.max_per_task:
                counts["cap"] += 1
            else:
                written.add(path.actions)
                rows.append(row)
        labels = Counter(f"verdict {verdict.label}" for verdict in self._verdicts.values())
        unparsed = [verdict.reason for verdict in self._verdicts.values() if not verdict.parsed]
        counts.update(written=len(rows), **labels, **{"verdict unparsed": len(unparsed)})
        return Built(rows, dict(counts), next(iter(unparsed), ""))

    def row(self, path: Trajectory) -> RecordRow | str:
        """Return the row of an episode, or the reason why there is none."""
        record = self._revision(path) if self.kind == "revision" else self._good(path)
        if isinstance(record, str):
            return record
        task, options = task_at(self.tree, self._first[path.nodes[0]]), self.options
        return to_row(record, task, self.source, options.mask_refused, options.reference_fields)

    def _bad(self, path: Trajectory) -> list[int]:
        """Return the places of the steps that were judged bad."""
        return [i for i, node in enumerate(path.nodes) if self._verdict(node).label == "bad"]

    def _verdict(self, node: int) -> Verdict:
        return self._verdicts.get(node, SIGNAL)

    def _good(self, path: Trajectory) -> Record:
        extra = {"kept": list(range(len(path.steps))), "signals": []}
        return Record(self.kind, path.steps, 0, path, extra=extra)

    def _revision(self, path: Trajectory) -> Record | str:
        """Return the record of a judged episode, or the reason why there is none."""
        bad, usual, rule = self._bad(path), self._usual, self._rule
        if not bad:
            return "no_bad_step"
        at = bad[0]
        if len(path.steps) < at + 3 or not is_signal_step(path.steps[at + 1]):
            return "bad_ended"
        if not (rule.good(path.reward) and rule.apart(path.reward, usual)):
            return "no_gain"
        begun = Trajectory(path.root, path.nodes[: at + 1], path.steps[: at + 1], usual)
        pair = Pair(path, begun, at, path.nodes[at - 1] if at else path.root)
        verdicts = tuple((node, self._verdict(node)) for node in begun.nodes)
        feedback, extra = cut_lineage(pair, CutPoint(at, verdicts), at)
        extra["signals"] = [path.nodes[i + 1] for i in bad if i + 1 < len(path.nodes)]
        loss = self._loss(path, bad)
        return Record("revision", path.steps, at + 1, path, pair, (), feedback, extra, loss=loss)

    def _loss(self, path: Trajectory, bad: Sequence[int]) -> tuple[bool, ...]:
        """Return the loss flags: the first signal and the steps after it are trained, but not those judged bad."""
        trained = trained_from(bad[0] + 1, self.tree.task.env, self.options.mask_refused)
        return tuple(trained(i, step) and i not in bad for i, step in enumerate(path.steps))


def live_rows(tree: Tree, source: Source, options: Options, output_dir: str | Path, saved: Saved) -> Built:
    """Build the rows of live episodes, and write the verdicts on them, as those on other trees.

    Args:
        saved: is told of the file of verdicts.

    Raises:
        BadTree: the data type needs a replay.
    """
    if options.data_type not in MADE:
        raise BadTree(f"live episodes become --data_type {', '.join(MADE)}, not {options.data_type}")
    verdicts = verdicts_path(output_dir, tree.task.index)
    prompt = tree.settings.get("judge_prompt", tree.prompt)
    if tree.verdicts:
        write_json(verdicts, verdict_file(tree.settings.get("judge", ""), prompt, tree.verdicts))
        saved(verdicts)
    built = LiveBuilder(tree, source, options).build()
    built.counts["partial_trees"] = int(tree.status != "done")
    return built
