"""The tree's codec and its readers: ours, and reference trees."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_utils.search.mcts import Rules
from mcts_utils.search.tree import Tree, backup, leaves, new_tree, nodes, path_nodes, path_steps
from mcts_utils.search.tree_io import load_tree, tree_from_dict, tree_to_dict
from mcts_utils.types import InputError, Step
from tests.helpers.toy_search import TASK, Toy, toy_tree
from tests.search.make_golden_tree import GOLDEN, golden

texts = st.text(max_size=12)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Any tree: shape, texts, rewards, backups."""
    tree = new_tree(TASK, draw(st.dictionaries(texts, st.integers())), draw(texts), draw(st.integers(0, 99)))
    known = [tree.root]
    for _ in range(draw(st.integers(0, 12))):
        node = tree.add(draw(st.sampled_from(known)), draw(texts), draw(texts))
        node.executed = draw(st.booleans())
        if node.executed:
            node.obs, node.reward = draw(texts), draw(st.floats(0, 1))
            node.done, node.disaster, node.is_terminal = draw(st.booleans()), draw(st.booleans()), True
        node.samples = draw(st.integers(0, 5))
        known.append(node)
    for leaf in draw(st.lists(st.sampled_from(known), max_size=6)):
        backup(leaf, draw(st.floats(0, 1)))
    tree.status = draw(st.sampled_from(["partial", "done", "failed"]))
    return tree


@settings(max_examples=60, deadline=None)
@given(trees())
def test_a_tree_comes_back_as_it_was_written(tree):
    data = json.loads(json.dumps(tree_to_dict(tree)))
    again = load_tree(data)
    assert tree_to_dict(again) == data
    assert [n.action for n in nodes(again)] == [n.action for n in nodes(tree)]
    assert [path_steps(n) for n in nodes(again)] == [path_steps(n) for n in nodes(tree)]
    assert again.root.obs == TASK.opening
    # And it can be searched on: ids stay unique.
    added = again.add(again.root, "x", "x")
    assert sum(n.id == added.id for n in nodes(again)) == 1


@settings(max_examples=60, deadline=None)
@given(trees())
def test_visits_bound_the_value(tree):
    assert all(0 <= n.value <= n.visits + 1e-9 for n in nodes(tree))
    assert all(sum(c.visits for c in n.children) <= n.visits for n in nodes(tree))


def test_the_file_grows_with_the_nodes_and_not_with_their_depth():
    def size_per_node(depth: int) -> float:
        tree = toy_tree(Toy(depth=depth), 8, Rules(max_depth=1000))
        return len(json.dumps(tree_to_dict(tree))) / tree.stats["nodes"]

    assert size_per_node(160) < 1.15 * size_per_node(10)


def test_each_text_is_there_once():
    tree = new_tree(TASK)
    node = tree.root
    for i in range(30):
        node = tree.add(node, f"Thought: thought-{i}-\nAction: look", "look")
        node.obs, node.executed = f"saw-{i}-", True
    text = json.dumps(tree_to_dict(tree))
    assert text.count(TASK.opening) == 1
    assert all(text.count(f"thought-{i}-") == text.count(f"saw-{i}-") == 1 for i in range(30))


def test_paths_and_leaves():
    tree = toy_tree(Toy(depth=3), 3)
    ends = leaves(tree)
    assert ends
    for leaf in ends:
        steps = path_steps(leaf)
        assert len(steps) == leaf.depth == 3
        assert steps[-1] == Step(leaf.reply, leaf.action, leaf.obs, leaf.reward, True)
        assert path_nodes(leaf)[0] is tree.root
    unexecuted = [n for n in nodes(tree) if not n.executed]
    assert not set(unexecuted) & set(ends)


def test_the_golden_tree_is_made_again_to_the_letter(textcraft_url):
    """If this fails by intention: python tests/search/make_golden_tree.py"""
    assert golden(textcraft_url) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_golden_tree_reads_as_a_search():
    tree = load_tree(json.loads(GOLDEN.read_text(encoding="utf-8")))
    assert tree.task.id.startswith("textcraft:")
    assert tree.stats["iterations"] == 2
    assert len({leaf.reward for leaf in leaves(tree)}) == 2  # it has good and bad ends
    assert any(not n.executed for n in nodes(tree))


def reference_node(
    action, depth, children=(), score=0.0, terminal=False, disaster=False, visits=1, value=0.0
):
    """One node in the reference's shape; `state` holds the conversation so far."""
    reply = "ROOT" if depth == 0 else f"Thought: t\nAction: {action}"
    return {
        "visits": visits,
        "value": value,
        "prior": 1,
        "puct_value": 0.3,
        "obs": None if depth == 0 else f"did {action}",
        "llm_response": reply,
        "depth": depth,
        "is_terminal": terminal,
        "recent_actions": [[action, f"did {action}"]] * depth,
        "action": "ROOT" if depth == 0 else action,
        "env_score": score,
        "disaster": disaster,
        "state": [
            {"role": "system", "content": ""},
            {"role": "user", "content": "the rules"},
            {"role": "assistant", "content": "Ok."},
            {"role": "user", "content": "Goal: craft a stick."},
        ]
        + [{"role": "assistant", "content": reply}, {"role": "user", "content": f"did {action}"}]
        * (depth > 0),
        "children": list(children),
    }


def reference_tree(scale=1.0):
    win = reference_node("craft stick", 2, score=scale, terminal=True, value=scale)
    lost = reference_node("look", 2, terminal=True)
    broken = reference_node("focus", 1, score=0, terminal=True, disaster=True)
    # The reference marks a node terminal when all its children are.
    first = reference_node("get log", 1, [win, lost], terminal=True, visits=2, value=scale)
    return reference_node("", 0, [first, broken], visits=3, value=scale)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_reference_tree_loads(scale):
    tree = load_tree(json.loads(json.dumps(reference_tree(scale))), "textcraft", 12)
    assert (tree.task.env, tree.task.index, tree.task.opening) == ("textcraft", 12, "Goal: craft a stick.")
    assert tree.status == "done"
    ends = {leaf.action: (leaf.reward, leaf.disaster) for leaf in leaves(tree)}
    assert ends == {"craft stick": (1.0, False), "look": (0.0, False), "focus": (0.0, True)}
    win = next(leaf for leaf in leaves(tree) if leaf.reward == 1)
    assert [step.action for step in path_steps(win)] == ["get log", "craft stick"]
    assert path_steps(win)[0].observation == "did get log"
    assert (tree.root.visits, tree.root.value) == (3, 1.0)
    assert tree_to_dict(load_tree(tree_to_dict(tree))) == tree_to_dict(tree)


def test_a_small_best_score_of_a_science_world_tree_stays_small():
    root = reference_node(
        "", 0, [reference_node("look", 1, score=1, terminal=True, value=1)], visits=1, value=1
    )
    assert [leaf.reward for leaf in leaves(load_tree(root, "sciworld", 3))] == [0.01]
    assert [leaf.reward for leaf in leaves(load_tree(root, "textcraft", 3))] == [1.0]


@pytest.mark.parametrize("visits", [-3, float("nan"), 10**14, "x", None])
def test_impossible_visits_are_refused_by_name(visits):
    with pytest.raises(InputError, match="not a reference tree: "):
        load_tree(reference_node("", 0, visits=visits), "textcraft", 3)
    ours = json.loads(json.dumps(tree_to_dict(toy_tree(Toy(), 2))))
    ours["nodes"]["visits"][1] = visits
    with pytest.raises(InputError, match=r"visits\[1\]|\$.nodes.visits\[...\]"):
        load_tree(ours)


def test_siblings_of_a_reference_tree_keep_their_order():
    tree = load_tree(reference_tree())
    assert [n.action for n in nodes(tree)] == ["", "get log", "craft stick", "look", "focus"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"format": "agent-r-tree"},
        {"children": [], "llm_response": "ROOT"},
        {"children": [{"action": "x"}], "llm_response": "ROOT", "visits": 0, "value": 0},
    ],
)
def test_what_is_no_tree_is_refused_in_one_line(data):
    with pytest.raises(InputError) as caught:
        load_tree(data)
    assert "\n" not in str(caught.value)


def test_a_damaged_tree_is_refused():
    whole = tree_to_dict(toy_tree(Toy(), 2))
    rng = Random(0)
    for field in ("task", "nodes", "stats", "status", "seed", "prompt", "settings", "version"):
        with pytest.raises(InputError):
            tree_from_dict({k: v for k, v in whole.items() if k != field})
    columns = whole["nodes"]
    for field in columns:
        short = list(columns[field])
        del short[rng.randrange(len(short))]
        for bad in (
            {**columns, field: short},
            {name: values for name, values in columns.items() if name != field},
        ):
            with pytest.raises(InputError):
                tree_from_dict({**whole, "nodes": bad})
    for cut in (lambda v: v[1:], lambda v: [*v, v[-1]], lambda v: []):
        with pytest.raises(InputError):
            tree_from_dict({**whole, "nodes": {name: cut(values) for name, values in columns.items()}})
    with pytest.raises(InputError):
        tree_from_dict({**whole, "nodes": {**columns, "parent": [7, *columns["parent"][1:]]}})


def test_trees_of_version_1_are_read():
    whole = json.loads(json.dumps(tree_to_dict(toy_tree(Toy(), 2))))
    names = list(whole["nodes"])
    rows = [dict(zip(names, values, strict=True)) for values in zip(*whole["nodes"].values(), strict=True)]
    for row in rows:
        for flag in ("is_terminal", "done", "disaster", "executed"):
            row[flag] = bool(row[flag])
    assert tree_to_dict(load_tree({**whole, "version": 1, "nodes": rows})) == whole
