"""One tree -> verified training records (Section 3.1, Eq. 3 and 4): each is executed and written as it came back.

It chooses pairs and paths, and gives each of them either a row or a reason. pairs.py says which pairs there are,
judge.py where to cut; splicing.py executes, record.py formats.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import UNSET

from mcts_utils.revision.options import KINDS, Options
from mcts_utils.revision.pairs import (
    CutPoint,
    Pair,
    Trajectory,
    candidate_pairs,
    first_refused,
    paths,
    shuffle_unique_first,
    tail_start,
    useful_steps,
)
from mcts_utils.revision.record import Record, Source, UniqueRows, to_row
from mcts_utils.revision.splicing import Splicer
from mcts_utils.revision.verdict_cache import LABELS
from mcts_utils.revision.votes import agreement
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.rollouts.steps import earned
from mcts_utils.search.tree import Tree
from mcts_utils.storage.formats.manifest import RevisionCounts
from mcts_utils.storage.formats.record import NodeVerdict, RecordRow
from mcts_utils.types import Actor, Task

# Why a candidate is not in the output. Every pair (or good path) is written, or counted under one of these.
REASONS = (
    "same_actions",  # both paths of the pair send the same actions
    "no_error_branch",  # the bad path has no step of its own past the fork
    "no_bad_step",  # the judge (or, without it, the predicate) found nothing to revise
    "bad_ended",  # the episode is over at the cut, so nothing can follow it
    "good_replay",  # the good path, executed again, does not earn its reward
    "replay_reward",  # the spliced path, executed, does not earn r(good)
    "bad_replay",  # preference: the bad path, executed, is no longer apart from the good one
    "duplicate",  # same actions as a record that is written
    "cap",  # the task has its --max_per_task records
    "replay_budget",  # the task has used its --max_replays
)
OTHER_REASONS = (  # of rows that are not built here
    "no_gain",  # live: the episode earns too little, or not enough more than the task's usual reward
    "over_n",  # --n rows are written
    "unsolved",  # expert: the episode, executed, does not earn what it should
    "no_task",  # expert: the server has no such training task
)
LATER = "later"  # not a reason: the pair is tried again after the others
FindCut = Callable[[Task, Trajectory, int], CutPoint]  # (task, bad path, first step to judge)


@dataclass(frozen=True)
class Built:
    """The rows of one tree, and its counts: paths, pairs or good_paths, written, replays, env_steps, REASONS."""

    rows: list[RecordRow]
    counts: dict[str, int]
    unparsed: str = ""  # the reason of a verdict that did not parse


class TreeBuilder:
    """Builds the rows of one tree. Every choice is drawn from (seed, task id, leaves), so trees need no order."""

    def __init__(
        self,
        tree: Tree,
        source: Source,
        options: Options,
        replayer: Replayer,
        find_cut: FindCut | None = None,
        actor: Actor | None = None,
    ) -> None:
        """`find_cut` is the judge, None for the predicate of `--revise 0`; `actor` repairs, if asked to."""
        self.tree, self.source, self.options, self.replayer = tree, source, options, replayer
        self.find_cut, self.env = find_cut, tree.task.env
        self.kind = KINDS[options.data_type]
        self.paths = paths(tree)
        replayer.cuts.update({s.reply: s.cut for path in self.paths for s in path.steps if s.cut})
        self.counts: Counter[str] = Counter(paths=len(self.paths))
        self.rows: list[RecordRow] = []
        self._splicer = Splicer(self.env, options, replayer, source.prompt, actor, source.form)
        self._written: set[tuple[str, ...]] = set()  # actions of the rows
        self._beginnings: set[tuple[str, ...]] = set()  # bad actions up to the cut, of the rows
        # (beginning, pruned tail) that gave a row, or a duplicate of one
        self._spliced: set[tuple[tuple[str, ...], ...]] = set()

    def build(self) -> Built:
        """Return all rows of the tree, in the order in which they were chosen."""
        rule = self.options.rule
        if self.kind == "optimal":
            rule = replace(rule, alpha=1.0)
        good = [path for path in self.paths if rule.good(path.reward)]
        if self.kind in ("good", "optimal"):
            self._try_paths(good)
        else:
            self._try_pairs(good)
        self.counts.update(
            written=len(self.rows),
            repairs_tried=self._splicer.repairs_tried,
            replays=self.replayer.replays,
            env_steps=self.replayer.env_steps,
        )
        return Built(self.rows, dict(self.counts))

    def _rng(self, *parts: object) -> random.Random:
        return random.Random("|".join(map(str, (self.source.seed, self.tree.task.id, *parts))))

    def _limit_reached(self) -> str:
        """Return the reason why no more is tried, or ""."""
        if len(self.rows) >= self.options.max_per_task:
            return "cap"
        return "replay_budget" if self.replayer.replays >= self.options.max_replays else ""

    def _try_paths(self, good: Sequence[Trajectory]) -> None:
        """Try each good path, the shortest first."""
        self.counts["good_paths"] = len(good)
        drawn = shuffle_unique_first(good, self._rng("good"))
        for path in sorted(drawn, key=lambda path: useful_steps(path, self.env)):
            if reason := self._limit_reached() or self._add_good(path):
                self.counts[reason] += 1

    def _try_pairs(self, good: Sequence[Trajectory]) -> None:
        """Try each pair; first those with a new cut, then the others."""
        queue, counts = candidate_pairs(good, self.paths, self.options.rule, self.env, self._rng("pairs"))
        self.counts.update(counts)
        add = self._add_preference if self.kind == "preference" else self._add_revision
        later: list[Pair] = []
        for pair in queue:
            reason = self._limit_reached() or add(pair, True)
            if reason == LATER:
                later.append(pair)
            elif reason:
                self.counts[reason] += 1
        for pair in later:
            if reason := self._limit_reached() or add(pair, False):
                self.counts[reason] += 1

    def _add_good(self, path: Trajectory) -> str:
        """Add the row of a good path; return the reason if there is none."""
        pruned = self._splicer.prune(path)
        if pruned is None:
            return "good_replay"
        extra = {"kept": list(pruned.kept)}
        replayed = self.options.executes_good
        return self._add_row(Record(self.kind, pruned.steps, 0, path, extra=extra, replayed=replayed))

    def _cut(self, pair: Pair) -> CutPoint:
        start = 0 if self.options.judge_prefix else pair.shared
        if self.kind == "direct":
            return CutPoint(len(pair.bad.steps) - 1)
        if self.find_cut is None:
            return first_refused(self.env, pair.bad, start)
        return self.find_cut(self.tree.task, pair.bad, start)

    def _add_revision(self, pair: Pair, new_cuts_only: bool) -> str:
        """Add the row of a revision; return the reason, or LATER, if there is none."""
        cut = self._cut(pair)
        if cut.step is None and self.options.drop_unjudged:
            return "no_bad_step"
        at = len(pair.bad.steps) - 1 if cut.step is None else cut.step
        if pair.bad.steps[at].done or pair.bad.steps[at].disaster:
            return "bad_ended"
        beginning = pair.bad.actions[: at + 1]
        if new_cuts_only and beginning in self._beginnings:
            return LATER
        pruned = self._splicer.prune(pair.good)
        if pruned is None:
            return "good_replay"
        kept = [i for i in pruned.kept if i >= tail_start(pair, at)]
        spliced = (beginning, tuple(pair.good.steps[i].action for i in kept))
        if spliced in self._spliced and self.options.unique:
            return "duplicate"
        rng = self._rng(pair.good.leaf, pair.bad.leaf)
        steps = self._splicer.splice(pair, at, pruned, kept, rng)
        if steps is None:
            return "replay_reward"
        self._spliced.add(spliced)
        feedback, extra = cut_lineage(pair, cut, at)
        replayed = self.options.verified
        record = Record(
            self.kind, steps, at + 1, pair.good, pair, feedback=feedback, extra=extra, replayed=replayed
        )
        return self._add_row(record, beginning)

    def _add_preference(self, pair: Pair, new_cuts_only: bool) -> str:
        """Add the row (prompt, chosen, rejected) from the fork on (the ETO baseline); return the reason if none."""
        pruned = self._splicer.prune(pair.good)
        if pruned is None:
            return "good_replay"
        if new_cuts_only and pair.bad.actions in self._beginnings:
            return LATER
        prefix = [step.reply for step in pair.bad.steps[: pair.shared]]
        kept = [pair.good.steps[i].reply for i in pruned.kept if i >= pair.shared]
        chosen = self._splicer.shorten(prefix, kept, pair.good.reward, False)
        if chosen is None:
            return "replay_reward"
        rejected = self.replayer([step.reply for step in pair.bad.steps])
        rule = self.options.rule
        if len(rejected) <= pair.shared or not rule.apart(earned(chosen.steps), earned(rejected)):
            return "bad_replay"
        record = Record(self.kind, chosen.steps, pair.shared, pair.good, pair, rejected=rejected)
        return self._add_row(record, pair.bad.actions)

    def _add_row(self, record: Record, beginning: tuple[str, ...] = ()) -> str:
        """Add the record's row; return the reason if a row with the same actions is there."""
        if record.actions in self._written and self.options.unique:
            return "duplicate"
        self._written.add(record.actions)
        self._beginnings.add(beginning)
        task = self.tree.task
        if record.replayed:  # costs no replay: these steps were executed before
            task, _ = self.replayer.run([step.reply for step in record.steps])
        options = self.options
        self.rows.append(to_row(record, task, self.source, options.mask_refused, options.reference_fields))
        return ""


def cut_lineage(pair: Pair, cut: CutPoint, at: int) -> tuple[str, dict[str, Any]]:
    """Return the judge's reason at the cut, and the lineage of the cut before which step `at` is the last."""
    node = pair.bad.nodes[at]
    feedback = next((v.reason for n, v in cut.verdicts if n == node and v.label == "bad"), "")
    verdicts = [NodeVerdict(node=n, label=v.label, reason=v.reason) for n, v in cut.verdicts]
    return feedback, {"cut": "none" if cut.step is None else node, "cut_step": at, "verdicts": verdicts}


def run_counts(
    total: Counter[str], rows: UniqueRows, written: int, trees: int, failures: list[str]
) -> RevisionCounts:
    """Return the counts of a run: the sums over its trees, and what was written."""
    return RevisionCounts(
        trees=trees,
        trees_partial=total["partial_trees"],
        trees_failed=len(failures),
        failures=failures,
        **{name: total[name] for name in ("paths", "good_paths", "pairs") if name in total},
        written=written,
        replayed=rows.replayed,
        tasks_written=len(rows.tasks),
        dropped={name: total[name] for name in (*REASONS, *OTHER_REASONS) if total[name]},
        verdicts={name: total[f"verdict {name}"] for name in (*LABELS, "unparsed", "requests")},
        agreement=agreement(total) or UNSET,
        repairs_tried=total["repairs_tried"],
        replays=total["replays"],
        env_steps=total["env_steps"],
    )
