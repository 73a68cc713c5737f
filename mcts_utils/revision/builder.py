"""One tree -> verified training records (Section 3.1, Eq. 3 and 4): each is executed and written as it came back.

revision.py says which pairs and how to splice, cleaning.py what can be left out, judge.py where to cut, execution.py
runs it; this module puts them together and gives every pair either a row or a reason.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcts_utils.prompts import WAIT_OBSERVATION, action_of, signal
from mcts_utils.revision.pairs import (
    CutPoint,
    Pair,
    PairRule,
    Trajectory,
    candidates,
    first_refused,
    paths,
    shuffle_unique_first,
    splice,
    tail_start,
    useful_steps,
)
from mcts_utils.revision.pruning import Shortened, shorten
from mcts_utils.revision.record import Record, Source, to_row
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.rollouts.steps import earned, is_idle, is_refused
from mcts_utils.search.tree import Tree
from mcts_utils.types import Actor, Step, Task

KINDS = {
    "centric": "revision",
    "direct": "direct",
    "good": "good",
    "optimal": "optimal",
    "preference": "preference",
}
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
FindCut = Callable[[Task, Trajectory, int], CutPoint]  # (task, bad path, first step to judge)


@dataclass(frozen=True)
class Options:
    """What stage 2 was asked for; recorded in the manifest."""

    data_type: str  # a key of KINDS
    rule: PairRule
    max_per_task: int = 8
    clean: bool = True
    verified: bool = True  # False: splices are put together as recorded, and nothing executes them
    unique: bool = True  # False: rows with the same actions are written again
    clean_replays: int = 40  # shorter paths tried per good path and per tail
    max_replays: int = 2000  # per tree
    mask_refused: bool = True
    judge_prefix: bool = False
    drop_unjudged: bool = True
    repair: bool = False
    max_depth: int = 20  # new steps of a repair
    temperature: float = 1.0  # of a repair
    reference_fields: bool = False


@dataclass(frozen=True)
class Built:
    """The rows of one tree, and its counts: paths, pairs or good_paths, written, replays, env_steps, REASONS."""

    rows: list[dict[str, Any]]
    counts: dict[str, int]


class TreeBuilder:
    """Builds the rows of one tree. Every choice is drawn from (seed, task id, leaves), so trees need no order."""

    def __init__(
        self,
        tree: Tree,
        source: Source,
        options: Options,
        run: Replayer,
        find_cut: FindCut | None = None,
        actor: Actor | None = None,
    ) -> None:
        """`find_cut` is the judge, None for the predicate of `--revise 0`; `actor` repairs, if asked to."""
        self.tree, self.source, self.options, self.run = tree, source, options, run
        self.find_cut, self.actor, self.env = find_cut, actor, tree.task.env
        self.kind = KINDS[options.data_type]
        self.paths = paths(tree)
        self.counts: Counter[str] = Counter(paths=len(self.paths))
        self.rows: list[dict[str, Any]] = []
        self._written: set[tuple[str, ...]] = set()
        self._beginnings: set[tuple[str, ...]] = set()  # bad actions up to the cut, of the rows written
        self._spliced: set[tuple[tuple[str, ...], ...]] = (
            set()
        )  # (beginning, clean tail) that gave a row or its twin
        self._cleaned: dict[int, Shortened | None] = {}

    def build(self) -> Built:
        """All rows of the tree, in the order of their choice."""
        rule = self.options.rule
        if self.kind == "optimal":
            rule = replace(rule, alpha=1.0)
        good = [path for path in self.paths if rule.good(path.reward)]
        if self.kind in ("good", "optimal"):
            self._try_paths(good)
        else:
            self._try_pairs(good)
        self.counts.update(written=len(self.rows), replays=self.run.replays, env_steps=self.run.env_steps)
        return Built(self.rows, dict(self.counts))

    def _rng(self, *parts: object) -> random.Random:
        return random.Random("|".join(map(str, (self.source.seed, self.tree.task.id, *parts))))

    def _spent(self) -> str:
        """Why no more is tried, or nothing."""
        if len(self.rows) >= self.options.max_per_task:
            return "cap"
        return "replay_budget" if self.run.replays >= self.options.max_replays else ""

    def _try_paths(self, good: Sequence[Trajectory]) -> None:
        self.counts["good_paths"] = len(good)
        for path in sorted(
            shuffle_unique_first(good, self._rng("good")), key=lambda path: useful_steps(path, self.env)
        ):
            reason = self._spent() or self._good(path)
            if reason:
                self.counts[reason] += 1

    def _try_pairs(self, good: Sequence[Trajectory]) -> None:
        """Each pair in turn; first those that bring a new cut, then the others."""
        queue, counts = candidates(good, self.paths, self.options.rule, self.env, self._rng("pairs"))
        self.counts.update(counts)
        make = self._preference if self.kind == "preference" else self._revision
        later: list[Pair] = []
        for pair in queue:
            reason = self._spent() or make(pair, True)
            if reason == "later":
                later.append(pair)
            elif reason:
                self.counts[reason] += 1
        for pair in later:
            reason = self._spent() or make(pair, False)
            if reason:
                self.counts[reason] += 1

    def _good(self, path: Trajectory) -> str:
        short = self._clean(path)
        if short is None:
            return "good_replay"
        extra = {"kept": list(short.kept)}
        return self._write(Record(self.kind, short.steps, 0, path, extra=extra, executed=self._executes))

    @property
    def _executes(self) -> bool:
        """True if good paths are executed: to be cleaned, or to be verified as they are."""
        return self.options.clean or self.options.verified

    def _clean(self, path: Trajectory) -> Shortened | None:
        """The path without what it does not need (as it is with `--clean 0`); None if it fails when replayed."""
        if not self._executes:
            return Shortened(tuple(range(len(path.steps))), path.steps, 0)
        if path.leaf not in self._cleaned:
            self._cleaned[path.leaf] = self._shorten(
                (), [step.reply for step in path.steps], path.reward, True
            )
        return self._cleaned[path.leaf]

    def _shorten(
        self, fixed: Sequence[str], replies: Sequence[str], reward: float, every: bool
    ) -> Shortened | None:
        budget = self.options.clean_replays if self.options.clean else 0
        return shorten(fixed, replies, self.run, env=self.env, reward=reward, budget=budget, every=every)

    def _cut(self, pair: Pair) -> CutPoint:
        start = 0 if self.options.judge_prefix else pair.shared
        if self.kind == "direct":
            return CutPoint(len(pair.bad.steps) - 1)
        if self.find_cut is None:
            return first_refused(self.env, pair.bad, start)
        return self.find_cut(self.tree.task, pair.bad, start)

    def _revision(self, pair: Pair, new_cuts_only: bool) -> str:
        cut = self._cut(pair)
        if cut.step is None and self.options.drop_unjudged:
            return "no_bad_step"
        at = len(pair.bad.steps) - 1 if cut.step is None else cut.step
        if pair.bad.steps[at].done or pair.bad.steps[at].disaster:
            return "bad_ended"
        beginning = pair.bad.actions[: at + 1]
        if new_cuts_only and beginning in self._beginnings:
            return "later"
        rng = self._rng(pair.good.leaf, pair.bad.leaf)
        clean = self._clean(pair.good)
        if clean is None:
            return "good_replay"
        kept = [i for i in clean.kept if i >= tail_start(pair, at)]
        splicing = (beginning, tuple(pair.good.steps[i].action for i in kept))
        if splicing in self._spliced and self.options.unique:
            return "duplicate"
        steps = self._spliced_steps(pair, at, clean, kept, rng)
        if steps is None:
            return "replay_reward"
        self._spliced.add(splicing)
        node = pair.bad.nodes[at]
        feedback = next((v.reason for n, v in cut.verdicts if n == node and v.label == "bad"), "")
        verdicts = [{"node": n, "label": v.label, "reason": v.reason} for n, v in cut.verdicts]
        extra = {"cut": "none" if cut.step is None else node, "cut_step": at, "verdicts": verdicts}
        record = Record(
            self.kind,
            steps,
            at + 1,
            pair.good,
            pair,
            feedback=feedback,
            extra=extra,
            executed=self.options.verified,
        )
        return self._write(record, beginning)

    def _spliced_steps(
        self, pair: Pair, cut: int, clean: Shortened, kept: Sequence[int], rng: random.Random
    ) -> tuple[Step, ...] | None:
        """tau^r as it was executed, or None where it does not earn its reward; with `--verified 0` as recorded."""
        rs = signal(rng)
        if not self.options.verified:
            tail = clean.steps[len(clean.steps) - len(kept) :]
            before = pair.bad.steps[: cut + 1]
            return (*before, Step(rs, action_of(rs), WAIT_OBSERVATION, before[-1].reward), *tail)
        short = self._follow(pair, cut, kept, splice(pair.bad.steps, cut, rs, ()), rng)
        return None if short is None else short.steps

    def _follow(
        self, pair: Pair, cut: int, kept: Sequence[int], fixed: Sequence[str], rng: random.Random
    ) -> Shortened | None:
        """The executed tau^r: bad steps and signal, then the clean good tail, else the whole one, else a repair."""
        good = [step.reply for step in pair.good.steps]
        start = tail_start(pair, cut)
        # Where the bad steps changed nothing, the clean tail has nothing left to leave out.
        changed = any(not is_idle(self.env, step) for step in pair.bad.steps[pair.shared : cut + 1])
        short = self._shorten(fixed, [good[i] for i in kept], pair.good.reward, changed)
        if short is None and len(kept) < len(good) - start:
            short = self._shorten(fixed, good[start:], pair.good.reward, True)
        if short is None and self.options.repair and self.actor is not None:
            short = self._repair(self.actor, fixed, good[start:], pair.good.reward, rng)
        return short

    def _repair(
        self, actor: Actor, fixed: Sequence[str], replies: Sequence[str], reward: float, rng: random.Random
    ) -> Shortened | None:
        """From the first good step that is refused behind the bad ones, the actor goes on by itself."""
        executed = self.run([*fixed, *replies])
        own = [i for i, step in enumerate(executed) if i >= len(fixed) and is_refused(self.env, step)]
        prefix = executed[: own[0]] if own else executed
        if len(executed) <= len(fixed) or prefix[-1].done or prefix[-1].disaster:
            return None
        self.counts["repairs_tried"] += 1
        options = self.options
        seed = rng.randrange(2**31)
        steps = self.run.resume(
            actor, prefix, self.source.prompt, options.max_depth, options.temperature, seed
        )
        return self._shorten(fixed, [step.reply for step in steps[len(fixed) :]], reward, True)

    def _preference(self, pair: Pair, new_cuts_only: bool) -> str:
        """(prompt, chosen, rejected) from the fork on (the ETO baseline)."""
        clean = self._clean(pair.good)
        if clean is None:
            return "good_replay"
        if new_cuts_only and pair.bad.actions in self._beginnings:
            return "later"
        prefix = [step.reply for step in pair.bad.steps[: pair.shared]]
        kept = [pair.good.steps[i].reply for i in clean.kept if i >= pair.shared]
        chosen = self._shorten(prefix, kept, pair.good.reward, False)
        if chosen is None:
            return "replay_reward"
        rejected = self.run([step.reply for step in pair.bad.steps])
        if len(rejected) <= pair.shared or not self.options.rule.apart(
            earned(chosen.steps), earned(rejected)
        ):
            return "bad_replay"
        record = Record(self.kind, chosen.steps, pair.shared, pair.good, pair, rejected=rejected)
        return self._write(record, pair.bad.actions)

    def _write(self, record: Record, beginning: tuple[str, ...] = ()) -> str:
        """Add the record's row, unless one with the same actions is there."""
        if record.actions in self._written and self.options.unique:
            return "duplicate"
        self._written.add(record.actions)
        self._beginnings.add(beginning)
        task = self.tree.task
        if record.executed:  # known: this is the replay that was accepted
            task, _ = self.run.run([step.reply for step in record.steps])
        options = self.options
        self.rows.append(to_row(record, task, self.source, options.mask_refused, options.reference_fields))
        return ""
