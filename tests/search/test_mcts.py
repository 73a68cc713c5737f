"""The search itself, on a toy task: who is visited, what is drawn, what is backed up, and where it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_utils.replies import Reply
from mcts_utils.search.mcts import Rules, uct
from mcts_utils.search.tree import leaves, new_tree, nodes
from mcts_utils.search.tree_io import tree_from_dict, tree_to_dict
from mcts_utils.types import Step
from tests.helpers.toy_search import TASK, Toy, toy_tree


def child(tree, action):
    return next(node for node in tree.root.children if node.action == action)


def test_the_better_child_gets_more_visits():
    """Not at one seed: over ten searches the visits follow the means, in order."""
    visits = dict.fromkeys("abc", 0)
    for seed in range(10):
        tree = toy_tree(Toy(seed, {"a": 0.1, "b": 0.9, "c": 0.5}, depth=6), 40, seed=seed)
        for node in tree.root.children:
            visits[node.action] += node.visits
        best = max(tree.root.children, key=lambda node: node.q)
        assert best.visits == max(node.visits for node in tree.root.children)
    assert visits["b"] > 2 * visits["c"] > 2 * visits["a"]


def test_the_choice_falls_with_uct_and_not_with_the_mean():
    """Q 0.55 after 40 visits loses to Q 0.5 after 2 at c = 0.25, and wins without exploration."""
    for c, expected in ((0.25, "b"), (0.0, "a")):
        tree = new_tree(TASK)
        tree.root.visits = 42
        for action, visits, value in (("a", 40, 22.0), ("b", 2, 1.0)):
            node = tree.add(tree.root, f"Action: {action}", action)
            node.executed, node.samples, node.visits, node.value = True, 4, visits, value
        toy_tree(Toy(depth=3), 1, Rules(uct_c=c), tree=tree)
        assert child(tree, expected).visits > {"a": 40, "b": 2}[expected]


def test_uct_is_the_papers_formula():
    tree = new_tree(TASK)
    node = tree.add(tree.root, "Action: a", "a")
    assert uct(node, 0.25) == float("inf")
    tree.root.visits, node.visits, node.value = 8, 2, 1.0
    assert uct(node, 0.25) == pytest.approx(0.5 + 0.25 * (2.0794415 / 2) ** 0.5)


@pytest.mark.parametrize(("itera", "share"), [(8, 1 / 3), (32, 2 / 3)])
def test_uct_decides(itera, share):
    for seed in range(5):
        stats = toy_tree(Toy(seed, depth=10), itera, seed=seed).stats
        assert stats["selections"] >= itera
        assert stats["selections_uct"] / stats["selections"] >= share


def test_the_descent_of_the_reference_decides_next_to_nothing_by_uct():
    """N_ROLLOUT=0 at ITERA=4: what the public reference does, where UCT decides nothing."""
    stats = toy_tree(Toy(depth=20), 4, Rules(n_rollout=0, n_gen=4)).stats
    assert stats["rollouts"] == 0
    assert stats["selections"] > 40
    assert stats["selections_uct"] / stats["selections"] < 0.1


def test_an_expansion_is_one_request_for_what_the_node_lacks():
    toy = Toy(depth=6)
    tree = toy_tree(toy, 12)
    assert toy.asked[0] == 4
    assert all(1 <= n <= 4 for n in toy.asked)
    assert 4 in toy.asked
    assert min(toy.asked) < 4  # a rollout's node had some turns already
    assert len(toy.asked) <= 12
    for node in nodes(tree):
        actions = [(c.action, c.obs) for c in node.children]
        assert len(actions) == len(set(actions))


def test_rollouts_from_one_node_share_their_common_beginning():
    toy = Toy(chances={"a": 1.0}, depth=5)
    tree = toy_tree(toy, 1)
    assert [node.action for node in nodes(tree)] == ["", "a", "a", "a", "a", "a"]
    assert tree.stats["rollouts"] == tree.root.visits == 8
    assert leaves(tree)[0].visits == 8


def test_same_action_but_another_observation_is_another_node():
    class Weather(Toy):
        def _answer(self, path, reply):
            step = super()._answer(path, reply)
            return Step(
                step.reply, step.action, f"{step.observation} at {reply[9:17]}", step.reward, step.done
            )

    tree = toy_tree(Weather(chances={"a": 0.5}, depth=2), 1)
    first = tree.root.children[0]
    assert len({c.obs for c in first.children}) == len(first.children) > 1
    assert {c.action for c in first.children} == {"a"}


def test_a_terminal_candidate_backs_up_its_own_reward():
    toy = Toy(chances={"a": 1.0, "b": 1.0}, depth=1)
    tree = toy_tree(toy, 2)
    assert tree.stats["rollouts"] == 0
    assert [(n.visits, n.value) for n in tree.root.children] == [(1, 1.0), (1, 1.0)]


def test_no_iteration_is_idle_when_the_whole_tree_is_played_out():
    """A confident actor: one action, always. Every iteration still rolls out, from the root."""
    tree = toy_tree(Toy(chances={"a": 1.0}, depth=3), 6)
    assert tree.stats["rollouts"] == 6 * 8
    assert tree.root.visits == 48


def test_where_something_is_left_to_try_nothing_played_out_is_selected():
    class OneWay(Toy):
        """After `a` there is one way only, and it wins; after `b` there are many, and they lose."""

        def _turn(self, path, what):
            drawn = super()._turn(path, what)
            return Reply("Action: a", "a") if path and path[0].action == "a" else drawn

    toy = OneWay(chances={"a": 1.0, "b": 0.0, "c": 0.0}, depth=8)
    tree = toy_tree(toy, 10)
    assert child(tree, "a").visits == 8
    assert tree.root.visits == 80


def test_a_full_context_ends_the_node_and_not_the_search():
    class Full(Toy):
        def sample(self, path, n):
            return [] if len(path) == 1 else super().sample(path, n)

        def rollouts(self, path, k, max_steps=None):
            return [()] * k if len(path) == 1 else super().rollouts(path, k)

    tree = toy_tree(Full(), 2)
    assert all(node.is_terminal and not node.done for node in tree.root.children if node.visits)
    assert {leaf.depth for leaf in leaves(tree)} == {1}


def test_rollouts_that_did_not_replay_are_left_out():
    class Flaky(Toy):
        def rollouts(self, path, k, max_steps=None):
            return [None if i % 2 else trail for i, trail in enumerate(super().rollouts(path, k))]

    tree = toy_tree(Flaky(), 3)
    assert tree.stats["rollouts"] == tree.root.visits == 12


def test_max_depth_makes_a_leaf():
    tree = toy_tree(Toy(depth=4), 3, Rules(n_rollout=0, max_depth=2))
    assert {leaf.depth for leaf in leaves(tree)} == {2}
    assert all(leaf.is_terminal and not leaf.done for leaf in leaves(tree))


@pytest.mark.parametrize("n_rollout", [0, 1, 8])
def test_a_resumed_search_goes_on_as_if_it_had_not_stopped(n_rollout):
    rules = Rules(n_rollout=n_rollout)
    whole = toy_tree(Toy(3), 6, rules)
    half = tree_from_dict(tree_to_dict(toy_tree(Toy(3), 3, rules)))
    again = toy_tree(Toy(3), 6, rules, tree=half)
    assert tree_to_dict(again)["nodes"] == tree_to_dict(whole)["nodes"]
    assert again.stats == whole.stats


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 5), st.integers(0, 5), st.integers(1, 6))
def test_visits_and_values_are_what_was_backed_up(seed, itera, n_gen, n_rollout, depth):
    tree = toy_tree(Toy(seed, depth=depth), itera, Rules(n_gen, n_rollout, 20, 0.25), seed)
    assert itera <= tree.root.visits <= itera * max(1, n_rollout)
    for node in nodes(tree):
        assert 0 <= node.value <= node.visits
        if node.is_terminal:
            assert node.value == node.visits * node.reward
            assert not node.children
        else:
            assert node.visits == sum(c.visits for c in node.children)
            assert node.value == sum(c.value for c in node.children)
        if not node.executed:
            assert node.visits == 0
            assert node.obs == ""
    assert sorted(node.id for node in nodes(tree)) == list(range(tree.stats["nodes"]))
