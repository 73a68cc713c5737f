"""Check the rows of a records file: each against its tree, as stage 2 would write it again, and the file as a whole.

Nothing is executed: what the environment answered in a record is taken from the record. again.py executes a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET

from mcts_utils.envs.specs import env_spec
from mcts_utils.prompts import REVISION_THOUGHTS, action_of
from mcts_utils.replies import parse_reply
from mcts_utils.report.verify.row_form import difference
from mcts_utils.revision.builder import cut_lineage
from mcts_utils.revision.live_rows import LiveBuilder, is_live
from mcts_utils.revision.options import KINDS, Options
from mcts_utils.revision.pairs import (
    CutPoint,
    Pair,
    PairRule,
    Trajectory,
    first_refused,
    pair_up,
    paths,
    tail_start,
)
from mcts_utils.revision.record import Record, Source, prompt_sha256, to_row
from mcts_utils.revision.votes import combined, votes_of
from mcts_utils.rollouts.steps import EPSILON
from mcts_utils.search.tree import Tree
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.record import Lineage, RecordRow, said_and_seen
from mcts_utils.storage.formats.verdicts import VerdictFile
from mcts_utils.tool_calls import form_of, without_ids
from mcts_utils.types import Step, Task, Verdict

SPLICED = ("revision", "direct")


class TreeRows:
    """Checks the rows of one tree."""

    def __init__(self, tree: Tree, verdicts: VerdictFile | None, settings: Mapping[str, Any]) -> None:
        """Take the settings of the rows' manifest ({} without one), and the verdicts that its judge has given."""
        self.tree, self.settings = tree, settings
        judge, _, votes = str(settings.get("judge", "")).partition(" votes ")  # as relevant_settings names it
        kept = verdicts.verdicts if verdicts and verdicts.model == judge else {}
        self.kept = {
            node: combined(votes_of(found.verdict())[: int(votes or 1)]) for node, found in kept.items()
        }
        self.paths = {path.leaf: path for path in paths(tree)}
        self.form = form_of(tree.settings)
        steps = [step for path in self.paths.values() for step in path.steps]
        self.cuts = {without_ids(step.reply): step.cut for step in steps if step.cut}
        self.fixed = env_spec(tree.task.env).fixed_observations

    def faults(self, row: RecordRow) -> Iterator[str]:
        """Yield what is wrong with a row."""
        line, task = row.lineage, self.tree.task
        named = (line.task.env, line.task.index, line.task.id)
        wanted = (task.env, task.index, task.id)
        if named != wanted:
            yield f"its task is {named}, its tree's is {wanted}"
            return
        good = self.paths.get(line.good_leaf)
        if good is not None and is_live(self.tree):
            yield from self._live_faults(row, good)
            return
        bad = None if line.bad_leaf is UNSET else self.paths.get(line.bad_leaf)
        if good is None or (line.bad_leaf is not UNSET and bad is None):
            yield f"node {line.bad_leaf if good else line.good_leaf} is no end of a path of its tree"
            return
        pair = pair_up(good, bad) if bad else None
        if isinstance(pair, str):
            yield f"its paths are no pair ({pair})"
            return
        yield from self._reward_faults(row, good, pair)
        if line.replay.exact is not True and self.settings.get("verified", True):
            yield "it was not executed"
        if pair and row.kind in SPLICED:
            yield from self._cut_faults(row, pair)
        yield from self._step_faults(row, good, pair)
        yield from self._difference(row, good, pair)

    def _source(self, line: Lineage) -> Source:
        seed = self.settings.get("seed", line.seed)
        history = self.tree.settings.get("history_reasoning", "drop")
        return Source(line.tree, line.tree_sha256, self.tree.prompt, seed, history, self.form)

    def _live_faults(self, row: RecordRow, path: Trajectory) -> Iterator[str]:
        """Yield the first field that differs from the row that stage 2 makes of a live episode."""
        known = self.settings
        rule = PairRule(**known["rule"]) if "rule" in known else PairRule(0.0, 0.0)
        data_type = next((name for name, kind in KINDS.items() if kind == row.kind), row.kind)
        options = Options(data_type, rule, mask_refused=known.get("mask_refused", True))
        options = replace(options, reference_fields=row.revise_log is not UNSET)
        wanted = LiveBuilder(self.tree, self._source(row.lineage), options).row(path)
        if isinstance(wanted, str):
            yield f"its episode becomes no row ({wanted})"
        else:
            yield from difference(plain(row), plain(wanted))

    def _reward_faults(self, row: RecordRow, good: Trajectory, pair: Pair | None) -> Iterator[str]:
        found = row.lineage.rewards
        if abs(found.record - good.reward) > EPSILON:
            yield f"its reward is {found.record:g}, that of its good path {good.reward:g}"
        if "rule" in self.settings:
            rule = PairRule(**self.settings["rule"])
            needed = PairRule(1.0, rule.beta) if row.kind == "optimal" else rule
            if not needed.good(good.reward):
                yield f"reward {good.reward:g} of its good path is not above alpha {rule.alpha:g}"
            if pair and not rule.apart(good.reward, pair.bad.reward):
                yield f"rewards {good.reward:g} and {pair.bad.reward:g} are not {rule.beta:g} apart"

    def _cut_faults(self, row: RecordRow, pair: Pair) -> Iterator[str]:
        """Yield what is wrong with the place of the cut."""
        line, nodes_of = row.lineage, pair.bad.nodes
        verdicts = line.verdicts or []
        start = 0 if self.settings.get("judge_prefix") else pair.shared
        cut = line.cut_step if isinstance(line.cut_step, int) else -1
        labels = [verdict.label for verdict in verdicts]
        if not 0 <= cut < len(nodes_of) or line.cut not in (nodes_of[cut], "none"):
            yield f"cut {line.cut} is not step {cut} of its bad path"
        elif row.kind == "direct":
            if cut != len(nodes_of) - 1:
                yield "its cut is not the end of its bad path"
        elif self.settings.get("judge") == "":
            if (found := first_refused(self.tree.task.env, pair.bad, start).step) not in (cut, None):
                yield f"its cut is step {cut}, the first refused step is {found}"
        elif [verdict.node for verdict in verdicts] != list(nodes_of[start : start + len(verdicts)]):
            yield "its verdicts are not on the steps of its bad path after the fork"
        elif line.cut != "none" and (start + len(labels) - 1 != cut or "bad" not in labels[-1:]):
            yield f"its cut is step {cut}, which no verdict calls bad"
        elif "bad" in labels[:-1] or (line.cut == "none" and "bad" in labels):
            yield f"a step before its cut is called bad (node {verdicts[labels.index('bad')].node})"
        for verdict in verdicts:
            kept = self.kept.get(str(verdict.node))
            if kept and (kept.label, kept.reason) != (verdict.label, verdict.reason):
                yield f"verdict on node {verdict.node}: {verdict.label}, kept is {kept.label} ({kept.reason[:60]!r})"
        if not row.lineage.verdicts and self.settings.get("judge"):
            yield "it names no verdict"

    def _step_faults(self, row: RecordRow, good: Trajectory, pair: Pair | None) -> Iterator[str]:
        """Yield where the turns of a row are not those of its paths."""
        line, (steps, *others) = row.lineage, self._steps(row)
        tail, begin, replies = 0, 0, [without_ids(step.reply) for step in good.steps]
        if pair and isinstance(line.cut_step, int):
            begin, tail = line.cut_step + 2, tail_start(pair, line.cut_step)
            if (
                len(steps) <= begin - 1
                or parse_reply(steps[begin - 1].reply, self.form).thought not in REVISION_THOUGHTS
            ):
                yield "no revision signal follows its cut"
        elif pair:
            begin = tail = pair.shared
            yield from self._unlike(others[0] if others else [], pair.bad.steps, "the rejected conversation")
        own = max(0, begin - (1 if row.kind in SPLICED else 0))
        if pair:
            yield from self._unlike(steps[:own], pair.bad.steps[:own], "its bad part")
        if line.kept is not UNSET:
            chosen = [replies[place] for place in line.kept if place < len(replies)]
            if [without_ids(step.reply) for step in steps] != chosen:
                yield "its turns are not the steps of its good path that `kept` names"
        elif not self.settings.get("repair"):
            left = iter(replies[tail:])
            if not all(without_ids(step.reply) in left for step in steps[begin:]):
                yield "its good part has a turn that its good path does not have there"

    def _unlike(self, steps: Sequence[Step], wanted: Sequence[Step], what: str) -> Iterator[str]:
        """Yield the first step that is not the tree's."""
        for number, (step, known) in enumerate(zip(steps, wanted, strict=False)):
            if without_ids(step.reply) != without_ids(known.reply) or (
                self.fixed and step.observation != known.observation
            ):
                yield f"step {number + 1} of {what} is not the tree's"
                return
        if len(steps) > len(wanted):
            yield f"{what} is longer than the tree's path"

    def _steps(self, row: RecordRow) -> list[list[Step]]:
        """Return the steps of each conversation, with the reward that the row names at the end."""
        replay, rewards = row.lineage.replay, row.lineage.rewards
        ends = [
            (replay.final_observation, rewards.record),
            (replay.final_observation_rejected or "", rewards.rejected or 0.0),
        ]
        found = []
        for turns, (last, reward) in zip(row.conversations, ends, strict=False):
            steps = []
            for reply, answers in said_and_seen(turns, last):
                cut, many = self.cuts.get(without_ids(reply), ""), answers if len(answers) > 1 else ()
                text = "\n".join(answers)
                steps.append(Step(reply, action_of(reply, self.form), text, reward, answers=many, cut=cut))
            found.append(steps)
        return found

    def _difference(self, row: RecordRow, good: Trajectory, pair: Pair | None) -> Iterator[str]:
        """Yield the first field that differs from the row that stage 2 makes of these steps: loss flags, logs, ..."""
        line, (steps, *others) = row.lineage, self._steps(row)
        first, feedback, extra = 0, "", dict[str, Any]()
        if pair and isinstance(line.cut_step, int):
            verdicts = tuple((v.node, Verdict(v.label, v.reason, 0, True)) for v in line.verdicts or [])
            step = None if line.cut == "none" else line.cut_step
            first = line.cut_step + 1
            feedback, extra = cut_lineage(pair, CutPoint(step, verdicts), line.cut_step)
        elif pair:
            first = pair.shared
        elif line.kept is not UNSET:
            extra = {"kept": line.kept}
        other, exact = tuple(others[0]) if others else (), line.replay.exact is True
        record = Record(row.kind, tuple(steps), first, good, pair, other, feedback, extra, replayed=exact)
        task = self.tree.task
        opening = task.opening if self.fixed else row.task_description
        task = Task(task.env, task.index, line.task.id, opening)
        mask, reference = self.settings.get("mask_refused", True), row.revise_log is not UNSET
        wanted, found = plain(to_row(record, task, self._source(line), mask, reference)), plain(row)
        if row.history_reasoning is UNSET:  # of a version that did not say it
            wanted.pop("history_reasoning", None)
        # Of a version with other prompts.
        if line.prompt_sha256 != prompt_sha256(self.tree.prompt, task.env, self.form):
            for data in (wanted, found):
                data["lineage"].pop("prompt_sha256")
                (data.get("messages") or data["prompt"])[0]["content"] = ""
        yield from difference(found, wanted)
