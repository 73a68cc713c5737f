"""Pairs, cleaning, splice and loss flags, each record executed on the bundled server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import REVISION_THOUGHTS, WAIT_OBSERVATION, action_of, reply_text
from mcts_utils.replies import parse_reply
from mcts_utils.revision.builder import REASONS, TreeBuilder
from mcts_utils.revision.options import Options
from mcts_utils.revision.pairs import CutPoint, Pair, PairRule, first_refused, pair_up, paths
from mcts_utils.revision.pruning import shorten
from mcts_utils.revision.record import Source, UniqueRows
from mcts_utils.revision.verification import verify_rows
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.search.tree import Tree
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.types import Environment, Step, Verdict
from tests.helpers.hand_trees import (
    BUTTON,
    CRAFT,
    DOOR,
    PLANKS,
    SHORT,
    STEM,
    SURPLUS,
    Scripted,
    TreeMaker,
    noisy_paths,
    pool_at,
    replies,
)

RULE = PairRule(0.5, 0.2)
DIRTY = (CRAFT, STEM, "inventory", SURPLUS, PLANKS, "dance", PLANKS, CRAFT)
BAD = (STEM, CRAFT, CRAFT, "inventory")


@pytest.fixture
def pool(textcraft_url: str) -> Iterator[SessionPool]:
    with pool_at(textcraft_url) as found:
        yield found


@pytest.fixture
def maker(pool: SessionPool) -> Iterator[TreeMaker]:
    with pool.session() as env:
        yield TreeMaker(env)


@dataclass
class Made:
    """What was built of a tree, its rows as they are written."""

    rows: list[dict[str, Any]]
    counts: dict[str, int]


def build(tree: Tree, pool: SessionPool, data_type: str = "centric", **options: object) -> Made:
    """Rows of a tree; the cut is the first refused step unless `find_cut` is given."""
    find_cut, actor = options.pop("find_cut", None), options.pop("actor", None)
    chosen = Options(data_type, options.pop("rule", RULE), **options)  # type: ignore[arg-type]
    replayer = Replayer(pool, tree.task.index, tree.task.id)
    source = Source("t.json", "00", "brief", 0)
    built = TreeBuilder(tree, source, chosen, replayer, find_cut, actor).build()  # type: ignore[arg-type]
    return Made(to_builtins(built.rows), built.counts)


def records(rows: list[dict[str, Any]]) -> list[RecordRow]:
    """The rows as they are read again."""
    return [parsed(row, RecordRow) for row in rows]


def verify(rows: list[dict[str, Any]], env: Environment) -> dict[str, int]:
    return verify_rows(records(rows), env)


def dropped(built: Made) -> dict[str, int]:
    return {name: built.counts[name] for name in REASONS if built.counts.get(name)}


def actions(row: dict) -> list[str]:
    return [action_of(m["content"]) for m in row["messages"] if m["role"] == "assistant"]


def losses(row: dict) -> list[bool]:
    return [m["loss"] for m in row["messages"] if m["role"] == "assistant"]


# Pairs (Eq. 4)


@pytest.mark.parametrize(
    ("rule", "good", "bad", "expected"),
    [
        (PairRule(0.5, 0.2), 1.0, 0.0, True),
        (PairRule(0.5, 0.2), 0.5, 0.0, False),  # r(good) > alpha
        (PairRule(0.5, 0.2), 0.7, 0.5, False),  # r(good) - r(bad) > beta
        (PairRule(0.5, 0.2), 0.71, 0.5, True),
        (PairRule(1.0, 0.2), 1.0, 0.0, True),  # at 1.0 an optimal one is meant
        (PairRule(1.0, 0.2), 0.99, 0.0, False),
        (PairRule(0.5, 0.2, strict=True), 1.0, 0.3, False),  # r(bad) < beta
        (PairRule(0.5, 0.2, strict=True), 1.0, 0.1, True),
    ],
)
def test_eq_4(rule: PairRule, good: float, bad: float, expected: bool) -> None:
    assert (rule.good(good) and rule.apart(good, bad)) is expected


def test_paths_fork_at_a_tree_node_and_twin_nodes_behind_it_belong_to_the_prefix(maker: TreeMaker) -> None:
    maker.play(SHORT)
    leaf = maker.play([STEM, PLANKS, CRAFT])
    good, bad = paths(maker.tree)
    pair = pair_up(good, bad)
    assert isinstance(pair, Pair)
    assert (pair.shared, pair.fork) == (2, leaf.parent.id)  # type: ignore[union-attr]
    twin = maker.play([STEM, PLANKS, CRAFT], merge=False)
    apart = pair_up(good, next(path for path in paths(maker.tree) if path.leaf == twin.id))
    assert isinstance(apart, Pair)
    assert (apart.shared, apart.fork) == (2, 0)  # the same two steps, though their nodes are others


def test_a_pair_needs_a_bad_step_of_its_own(maker: TreeMaker) -> None:
    maker.play(SHORT)
    middle = maker.play(SHORT[:2])
    good = next(path for path in paths(maker.tree) if path.reward == 1)
    assert pair_up(good, next(p for p in paths(maker.tree) if p.leaf == middle.id)) == "no_error_branch"
    maker.add(maker.forged(SHORT, 0.0), merge=False)
    assert pair_up(good, next(p for p in paths(maker.tree) if p.leaf > good.leaf)) == "same_actions"


# Cleaning


def test_a_dirty_good_path_comes_out_as_the_plan(maker: TreeMaker, pool: SessionPool) -> None:
    leaf = maker.play(DIRTY)
    built = build(maker.tree, pool, "good")
    assert [actions(row) for row in built.rows] == [list(SHORT)]
    assert losses(built.rows[0]) == [True] * 4
    assert built.rows[0]["lineage"]["kept"] == [1, 4, 6, 7]
    assert built.rows[0]["lineage"]["good_leaf"] == leaf.id
    assert built.rows[0]["messages"][-1]["role"] == "assistant"
    assert [len(built.rows[0][log]) for log in ("high_log", "low_log")] == [len(DIRTY), 0]


def test_uncleaned_good_paths_keep_every_step_and_train_no_refused_one(
    maker: TreeMaker, pool: SessionPool
) -> None:
    maker.play(DIRTY)
    row = build(maker.tree, pool, "good", clean=False).rows[0]
    assert actions(row) == list(DIRTY)
    assert losses(row) == [False, True, True, True, True, False, True, True]
    assert all(losses(build(maker.tree, pool, "good", clean=False, mask_refused=False).rows[0]))


def test_what_cannot_be_left_out_stays() -> None:
    def stubborn(replies: list[str]) -> list[Step]:
        """Rewards nothing but the whole path."""
        steps = [Step(r, action_of(r), "Could not find it", 0.0) for r in replies]
        whole = len(replies) == 4
        return [*steps[:-1], Step(replies[-1], "x", "Done", float(whole), whole)]

    whole = [reply_text("t", f"get {i}") for i in range(4)]
    found = shorten((), whole, stubborn, env="textcraft", reward=1.0, budget=40)  # type: ignore[arg-type]
    assert found is not None
    assert found.kept == (0, 1, 2, 3)
    assert shorten((), whole[:3], stubborn, env="textcraft", reward=1.0, budget=40) is None  # type: ignore[arg-type]


def test_cleaning_stays_within_its_replays(maker: TreeMaker, pool: SessionPool) -> None:
    replayer = Replayer(pool, DOOR, maker.tree.task.id)
    found = shorten((), replies(DIRTY), replayer, env="textcraft", reward=1.0, budget=1)
    assert found is not None
    assert found.tried == 1
    assert replayer.replays == 2  # the path as it is, and one shorter


# Revision rows


def test_a_revision_is_bad_steps_signal_and_the_clean_tail(maker: TreeMaker, pool: SessionPool) -> None:
    maker.play(DIRTY)
    bad = maker.play(BAD)
    built = build(maker.tree, pool)
    (row,) = built.rows
    # The stem that the bad steps got already is not got again.
    assert actions(row) == [STEM, CRAFT, "wait", PLANKS, PLANKS, CRAFT]
    assert losses(row) == [False, False, True, True, True, True]
    thought, action, *_ = parse_reply(row["messages"][6]["content"])
    assert thought in REVISION_THOUGHTS
    assert action == "wait"
    assert row["messages"][7] == {"role": "user", "content": WAIT_OBSERVATION, "loss": False}
    lineage = row["lineage"]
    assert (lineage["cut_step"], lineage["fork"], lineage["bad_leaf"]) == (1, 0, bad.id)
    assert lineage["rewards"] == {"good": 1.0, "bad": 0.0, "record": 1.0}
    assert lineage["verdicts"] == [{"node": lineage["cut"], "label": "bad", "reason": row["revise_feedback"]}]
    assert row["revise"] == row["messages"][6]["content"]
    assert "revise_log" not in row
    kept = build(maker.tree, pool, reference_fields=True).rows[0]
    assert kept["revise_log"] == kept["messages"]


def test_a_clean_tail_that_lacks_what_the_bad_steps_used_up_falls_back_to_the_whole_tail(
    maker: TreeMaker, pool: SessionPool
) -> None:
    # The spare stem and planks of the good path are surplus there, but needed after three wasted planks.
    maker.play([STEM, "get 1 crimson stem", PLANKS, PLANKS, PLANKS, CRAFT])
    maker.play([STEM, PLANKS, BUTTON, BUTTON, BUTTON, CRAFT])
    (row,) = build(maker.tree, pool).rows
    assert actions(row) == [
        STEM,
        PLANKS,
        BUTTON,
        BUTTON,
        BUTTON,
        CRAFT,
        "wait",
        "get 1 crimson stem",
        *[PLANKS] * 2,
        CRAFT,
    ]
    assert row["lineage"]["rewards"]["record"] == 1


def test_direct_cuts_at_the_end_and_optimal_keeps_reward_one_only(
    maker: TreeMaker, pool: SessionPool
) -> None:
    maker.play(DIRTY)
    maker.play(BAD)
    (direct,) = build(maker.tree, pool, "direct").rows
    assert actions(direct) == [*BAD, "wait", PLANKS, PLANKS, CRAFT]
    assert (direct["kind"], direct["lineage"]["cut_step"]) == ("direct", 3)
    maker.add(maker.forged([SURPLUS], 0.7, done=True))
    assert len(build(maker.tree, pool, "good").rows) == 1  # 0.7 is good, but the replay says otherwise
    optimal = build(maker.tree, pool, "optimal")
    assert optimal.counts["good_paths"] == 1
    assert optimal.rows[0]["kind"] == "optimal"


def test_preference_rows_share_their_prompt_and_differ_from_the_fork_on(
    maker: TreeMaker, pool: SessionPool
) -> None:
    maker.play(SHORT)
    maker.play(BAD)
    (row,) = build(maker.tree, pool, "preference").rows
    assert [m["role"] for m in row["prompt"]] == ["system", "user", "assistant", "user"]
    assert [action_of(m["content"]) for m in row["chosen"][::2]] == list(SHORT[1:])
    assert [action_of(m["content"]) for m in row["rejected"][::2]] == list(BAD[1:])
    assert "messages" not in row
    with pool.session() as env:
        assert verify([row], env) == {
            "rows": 1, "exact": 1, "observations": 10, "observations_exact": 10, "rewards": 2, "rewards_exact": 2
        }  # fmt: skip


def all_good(task: object, path: object, start: int) -> CutPoint:
    return CutPoint(None, ((1, Verdict("good", "fine", 1, True)),))


def test_without_a_bad_step_the_pair_is_dropped_or_cut_at_the_end(
    maker: TreeMaker, pool: SessionPool
) -> None:
    maker.play(SHORT)
    maker.play(BAD)
    assert dropped(build(maker.tree, pool, find_cut=all_good)) == {"no_bad_step": 1}
    (row,) = build(maker.tree, pool, find_cut=all_good, drop_unjudged=False).rows
    assert (row["lineage"]["cut"], row["lineage"]["cut_step"]) == ("none", 3)


def test_judging_the_prefix_can_cut_inside_it(maker: TreeMaker, pool: SessionPool) -> None:
    maker.play([CRAFT, *SHORT])
    maker.play([CRAFT, STEM, "dance"])
    (row,) = build(maker.tree, pool).rows
    assert actions(row)[:4] == [CRAFT, STEM, "dance", "wait"]
    (row,) = build(maker.tree, pool, judge_prefix=True).rows
    assert actions(row) == [CRAFT, "wait", *SHORT]
    assert row["lineage"]["cut_step"] == 0


def test_a_splice_that_breaks_is_repaired_by_the_actor_on_demand(maker: TreeMaker, pool: SessionPool) -> None:
    maker.play(SHORT)
    maker.play([STEM, PLANKS, BUTTON, BUTTON, BUTTON, "dance"])
    assert dropped(build(maker.tree, pool)) == {"replay_reward": 1}
    plan = iter(replies(["inventory", "get 1 crimson stem", PLANKS, CRAFT]))
    actor = Scripted(lambda messages, temperature, seed: next(plan))
    (row,) = build(maker.tree, pool, repair=True, actor=actor).rows
    assert actions(row)[-5:] == [
        "wait",
        PLANKS,
        "get 1 crimson stem",
        PLANKS,
        CRAFT,
    ]  # the look is cleaned away
    assert row["lineage"]["rewards"]["record"] == 1


# Every reason


def forge_same(maker: TreeMaker) -> None:
    maker.play(SHORT)
    maker.add(maker.forged(SHORT, 0.0), merge=False)


def forge_prefix(maker: TreeMaker) -> None:
    maker.play(SHORT)
    maker.play(SHORT[:2])


def forge_ended(maker: TreeMaker) -> None:
    maker.play(SHORT)
    maker.add(maker.forged([STEM, "dance"], 0.0, done=True))


def forge_good(maker: TreeMaker) -> None:
    maker.add(maker.forged([STEM, SURPLUS], 1.0, done=True))
    maker.play(BAD)


def waste(maker: TreeMaker) -> None:
    maker.play(SHORT)
    maker.play([STEM, PLANKS, BUTTON, BUTTON, BUTTON, "dance"])


def plain(maker: TreeMaker) -> None:
    maker.play(SHORT)
    maker.play(BAD)


def forge_bad(maker: TreeMaker) -> None:
    maker.play([CRAFT, *SHORT])
    maker.add(maker.forged(SHORT, 0.0))  # in truth it solves the task


def same_cut(maker: TreeMaker) -> None:
    maker.play(SHORT)
    maker.play([STEM, CRAFT, "inventory"])
    maker.play([STEM, CRAFT, "dance"])


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (forge_same, {}, {"same_actions": 1}),
        (forge_prefix, {}, {"no_error_branch": 1}),
        (plain, {"find_cut": all_good}, {"no_bad_step": 1}),
        (forge_ended, {}, {"bad_ended": 1}),
        (forge_good, {}, {"good_replay": 1}),
        (waste, {}, {"replay_reward": 1}),
        (forge_bad, {"data_type": "preference"}, {"bad_replay": 1}),
        (same_cut, {}, {"duplicate": 1}),
        (same_cut, {"max_per_task": 1, "data_type": "direct"}, {"cap": 1}),
        (plain, {"max_replays": 0}, {"replay_budget": 1}),
    ],
    ids=REASONS,
)
def test_every_dropped_pair_is_counted_under_its_reason(
    maker: TreeMaker, pool: SessionPool, make, options: dict, expected: dict
) -> None:
    make(maker)
    built = build(maker.tree, pool, **options)
    assert dropped(built) == expected
    assert built.counts["pairs"] == built.counts["written"] + sum(expected.values())


def test_a_server_whose_index_is_another_goal_is_refused(maker: TreeMaker, pool: SessionPool) -> None:
    plain(maker)
    with pytest.raises(ValueError, match=f"index {DOOR + 1} is the task"):
        Replayer(pool, DOOR + 1, maker.tree.task.id)([])


# Properties over noisy trees


@given(
    seed=st.integers(0, 10_000),
    index=st.sampled_from([0, 5, 150, DOOR]),
    data_type=st.sampled_from(["centric", "direct", "good"]),
)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_row_alternates_trains_the_right_turns_and_replays(
    textcraft_url: str, seed: int, index: int, data_type: str
) -> None:
    with pool_at(textcraft_url) as pool, pool.session() as env:
        tree = noisy_paths(env, index, 5, random.Random(seed), depth=12)
        built = build(tree, pool, data_type, max_per_task=3)
        again = build(tree, pool, data_type, max_per_task=3)
        assert built == again  # nothing but the seed decides
        candidates = built.counts["pairs" if data_type != "good" else "good_paths"]
        assert candidates == built.counts["written"] + sum(dropped(built).values())
        checked = verify(built.rows, env)
        assert checked["exact"] == checked["rows"] == len(built.rows)
    for row in built.rows:
        roles = [m["role"] for m in row["messages"]]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)]
        assert not any(m["loss"] for m in row["messages"] if m["role"] != "assistant")
        begin = row["lineage"].get("cut_step", -1) + 1
        turns = actions(row)
        if data_type != "good":
            assert turns[begin] == "wait"
        observations = [m["content"] for m in row["messages"][3::2]] + [""]
        for i, (action, seen, loss) in enumerate(zip(turns, observations, losses(row), strict=True)):
            refused = is_refused("textcraft", Step("", action, seen, 0.0))
            assert loss == (i >= begin and not refused)


def test_verify_notices_a_changed_observation_and_a_changed_reward(
    maker: TreeMaker, pool: SessionPool
) -> None:
    plain(maker)
    (row,) = build(maker.tree, pool).rows
    with pool.session() as env:
        assert verify([row], env)["exact"] == 1
        row["messages"][3]["content"] += " "
        assert verify([row], env) | {"observations": 0} == {
            "rows": 1, "exact": 0, "observations": 0, "observations_exact": 6, "rewards": 1, "rewards_exact": 1
        }  # fmt: skip
        row["lineage"]["rewards"]["record"] = 0.5
        assert verify([row], env)["rewards_exact"] == 0
        del row["lineage"]
        with pytest.raises(ValueError, match=r"lineage"):
            verify([row], env)


def test_rows_of_two_trees_with_the_same_actions_are_written_once(
    maker: TreeMaker, pool: SessionPool
) -> None:
    plain(maker)
    rows = build(maker.tree, pool).rows
    unique = UniqueRows(records([*rows, *build(maker.tree, pool).rows]))
    assert list(unique) == records(rows)
    assert (unique.left_out, unique.tasks) == (1, {maker.tree.task.id})


def test_the_predicate_cuts_at_a_lost_episode_too(maker: TreeMaker) -> None:
    steps = (
        Step("a", "go", "You walk", 0.0),
        Step("b", "focus on the wrong thing", "You focus", 0.0, True, True),
    )
    maker.add(steps)
    (path,) = paths(maker.tree)
    assert first_refused("sciworld", path, 0).step == 1


def test_without_execution_a_splice_is_written_as_recorded_and_does_not_come_back(
    maker: TreeMaker, pool: SessionPool
) -> None:
    # The bad steps use up what the good tail needs: executed, it is refused; put together, nobody notices.
    waste(maker)
    (row,) = build(maker.tree, pool, verified=False).rows
    assert row["messages"][-2]["content"].startswith("Crafted 4")
    assert actions(row)[-2:] == list(SHORT[-2:])
    assert row["lineage"]["replay"]["exact"] is None
    assert row["lineage"]["replay"]["env_steps"] == 0
    with pool.session() as env:
        found = verify([row], env)
    assert found["exact"] == 0
    assert found["rewards_exact"] == 0
    rows = UniqueRows(records([row, *build(maker.tree, pool, "good").rows]))
    assert (len(list(rows)), rows.replayed) == (2, 1)  # good paths are executed to be cleaned


def test_good_paths_as_recorded_cost_no_replay(maker: TreeMaker, pool: SessionPool) -> None:
    maker.play(DIRTY)
    built = build(maker.tree, pool, "good", verified=False, clean=False, mask_refused=False)
    (row,) = built.rows
    assert actions(row) == list(DIRTY)
    assert all(losses(row))
    assert built.counts["replays"] == 0


def test_duplicates_are_kept_on_request_up_to_the_cap(maker: TreeMaker, pool: SessionPool) -> None:
    same_cut(maker)
    assert len(build(maker.tree, pool).rows) == 1
    twins = build(maker.tree, pool, unique=False).rows
    assert len(twins) == 2
    assert actions(twins[0]) == actions(twins[1])
    assert len(build(maker.tree, pool, unique=False, max_per_task=1).rows) == 1
    assert len(list(UniqueRows(records(twins), unique=False))) == 2
