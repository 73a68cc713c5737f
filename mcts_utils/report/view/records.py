"""Pack training rows for the page: the parts of each conversation, its nodes in the tree, and the pairs left out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.report.view.steps import title_of
from mcts_utils.report.view.trees import Packed
from mcts_utils.revision.live_rows import is_live
from mcts_utils.revision.options import KINDS
from mcts_utils.revision.pairs import Pair, PairRule, candidate_pairs, first_refused
from mcts_utils.storage.files import iter_jsonl
from mcts_utils.storage.formats.base import parsed, plain
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.formats.record import RecordRow, Turn, VerdictRow, exchanges
from mcts_utils.types import Task

PER_TREE = 100  # dropped pairs that are listed of each tree
# Reasons that depend on an execution or on the order of the pairs, which no file holds.
OPEN = ("good_replay", "replay_reward", "bad_replay", "duplicate", "cap", "replay_budget")
Row = RecordRow | VerdictRow


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of a file of stage 2; nothing if its first row is none.

    Raises:
        InputError: naming the file, the row and the field that is wrong.
    """
    for number, row in iter_jsonl(path):
        if not isinstance(row.get("lineage"), dict) or "kind" not in row:
            return
        where = f"{path} row {number}"
        judged = row["kind"] == "verdict"
        yield number, parsed(row, VerdictRow, where) if judged else parsed(row, RecordRow, where)


def pack_record(row: Row, source: Packed | None, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (line in the list, content) of a row; the nodes of its tree, if that is known, link to it."""
    origin = plain(row.lineage)
    task = Task(**origin["task"], opening=row.task_description)
    line: dict[str, Any] = {"kind": row.kind, "env": task.env, "title": title_of(task)}
    line["tree"] = source.key if source else ""
    head: Sequence[Turn]
    if isinstance(row, VerdictRow):
        head, steps = row.messages[:-1], [_step("", row.messages[-1], (), origin["node"])]
        line |= {"label": origin["label"]}
    else:
        head, steps = _parts(row, origin, source)
        line |= {"steps": len(steps), "reward": origin["rewards"]["record"]}
        line |= {"cut": origin["cut_step"] + 1} if "cut_step" in origin else {}
        line |= {"exact": origin["replay"]["exact"] is True}
    nodes = {step["node"]: step["part"] or "judged" for step in steps if step["node"] is not None}
    ends = ((origin.get("good_leaf"), "good end"), (origin.get("bad_leaf"), "bad end"))
    nodes |= {node: part for node, part in ends if node is not None and node not in nodes}
    if source:
        for node, part in nodes.items():
            source.links.setdefault(node, []).append((number, part))
    return line, {"head": [plain(turn) for turn in head], "steps": steps, "lineage": origin}


def _step(part: str, turn: Turn, answers: Sequence[Turn], node: int | None) -> dict[str, Any]:
    obs = "\n".join(answer.content for answer in answers)
    return {"part": part, "reply": turn.reply, "loss": turn.loss, "obs": obs, "node": node}


def _parts(
    row: RecordRow, origin: Mapping[str, Any], source: Packed | None
) -> tuple[Sequence[Turn], list[dict[str, Any]]]:
    """Return the turns before the first step, and the steps with part, node in the tree and verdict.

    The parts are `shared` (with the good path), `bad` (up to the cut), `signal` and `good`.
    """
    cut, fork = origin.get("cut_step", -1), origin.get("fork_step", 0)
    if row.messages:
        head, pairs = exchanges(row.messages)
        same = min(fork, cut + 1)
        parts = ["shared" if i < same else "bad" if i <= cut else "good" for i in range(len(pairs))]
        if cut >= 0:
            parts[cut + 1] = "signal"
    else:
        head, pairs = exchanges(row.prompt or [])
        sides = [exchanges(turns or [])[1] for turns in (row.rejected, row.chosen)]
        parts = ["shared"] * len(pairs) + ["bad"] * len(sides[0]) + ["good"] * len(sides[1])
        pairs = [*pairs, *sides[0], *sides[1]]
    steps = [_step(part, *pair, None) for part, pair in zip(parts, pairs, strict=True)]
    if steps:
        steps[-1]["obs"] = origin["replay"]["final_observation"]
    _add_nodes(steps, [turn.action for turn, _ in pairs], origin, source)
    judged = origin.get("verdicts", [])
    at_cut = (i for i, verdict in enumerate(judged) if verdict["node"] == origin.get("cut"))
    last = next(at_cut, len(judged) - 1)
    for i, verdict in enumerate(judged):
        if 0 <= (at := cut - last + i) < len(steps):
            steps[at]["verdict"] = [verdict["label"], verdict["reason"]]
    return head, steps


def _add_nodes(
    steps: list[dict[str, Any]], actions: Sequence[str], origin: Mapping[str, Any], source: Packed | None
) -> None:
    """Name the tree's node of each step: of bad ones by place, of good ones by their actions in the path's order."""
    known = source.paths if source else {}
    good = known.get(origin["good_leaf"])
    bad = good if "signals" in origin else known.get(origin.get("bad_leaf", -1))
    at = 0
    for i, step in enumerate(steps):
        if step["part"] in ("shared", "bad") and bad and i < len(bad.nodes):
            step["node"] = bad.nodes[i]
        elif step["part"] == "good" and good and actions[i] in good.actions[at:]:
            at = good.actions.index(actions[i], at)
            step["node"], at = good.nodes[at], at + 1


def dropped_pairs(source: Packed, rows: Sequence[RecordRow], manifest: Manifest) -> list[dict[str, Any]]:
    """Return the pairs of a tree that became no row of a file, each with the reason as far as files tell it.

    A pair that was cut like a row is a duplicate. Where the reason depends on an execution, those are named that the
    manifest counts.
    """
    s, env = manifest.settings, source.tree.task.env
    paired = KINDS.get(s.get("data_type", ""), "good") not in ("good", "optimal")
    if is_live(source.tree) or "rule" not in s or not paired:
        return []
    rule, rng = PairRule(**s["rule"]), random.Random(f"{s.get('seed', 0)}|{source.tree.task.id}|pairs")
    every = list(source.paths.values())
    pairs, _ = candidate_pairs([path for path in every if rule.good(path.reward)], every, rule, env, rng)
    lines = [plain(row.lineage) for row in rows]
    written = {(line["good_leaf"], line.get("bad_leaf")) for line in lines}
    cuts = {
        source.paths[line["bad_leaf"]].actions[: line["cut_step"] + 1] for line in lines if "cut_step" in line
    }
    counted = [reason for reason in OPEN if manifest.counts.get("dropped", {}).get(reason)]
    found: list[dict[str, Any]] = []
    for pair in pairs:
        if (pair.good.leaf, pair.bad.leaf) not in written and len(found) < PER_TREE:
            cut = _cut(source, pair, s)
            reason = _reason(pair, cut, cuts, counted)
            ends = {"good": pair.good.leaf, "bad": pair.bad.leaf, "shared": pair.shared, "cut": cut}
            found.append({"type": s["data_type"], "reason": reason, **ends})
    return found


def _cut(source: Packed, pair: Pair, settings: Mapping[str, Any]) -> int | None:
    """Return the first step that the kept verdicts (without any: the environment) call bad."""
    start = 0 if settings.get("judge_prefix") else pair.shared
    if settings["data_type"] == "direct":
        return len(pair.bad.steps) - 1
    if not source.verdicts:
        return first_refused(source.tree.task.env, pair.bad, start).step
    nodes = pair.bad.nodes
    bad = (i for i in range(start, len(nodes)) if source.verdicts.get(nodes[i], ("",))[0] == "bad")
    return next(bad, None)


def _reason(pair: Pair, cut: int | None, cuts: set[tuple[str, ...]], counted: Sequence[str]) -> str:
    if cut is None:
        return "no_bad_step"
    if pair.bad.steps[cut].done or pair.bad.steps[cut].disaster:
        return "bad_ended"
    if pair.bad.actions[: cut + 1] in cuts and "duplicate" in counted:
        return "duplicate"
    return " or ".join(counted) or "unknown"
