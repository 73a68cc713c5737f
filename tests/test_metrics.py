"""Scores with intervals, loops and the paired comparison."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_utils import metrics
from mcts_utils.types import Step

REWARDS = st.lists(st.floats(0, 1), max_size=30)
ACTIONS = st.lists(st.sampled_from("ab"), max_size=14)


def steps(actions: str, refused: str = "") -> list[Step]:
    """One step per letter; letters of `refused` are refused."""
    return [Step(f"Action: {a}", a, "Could not" if a in refused else "ok", 0.0) for a in actions]


def test_success_rate_is_wilsons():
    found = metrics.success_rate([1.0] * 35 + [0.0] * 64 + [0.5])
    assert (found.mean, found.n) == (0.35, 100)
    # Wilson 1927 for 35 of 100 at z = 1.96: centre (0.35 + z^2/200) / (1 + z^2/100), half-width 0.0921
    assert found.ci95 == pytest.approx((0.2636, 0.4475), abs=1e-4)


def test_no_success_in_ten_does_not_mean_never():
    assert metrics.success_rate([0.0] * 10).ci95 == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert metrics.mean_reward([0.0] * 10) == metrics.success_rate([0.0] * 10)


def test_without_episodes_nothing_is_claimed():
    assert metrics.success_rate([]) == metrics.mean_reward([]) == metrics.Estimate(None, 0, None)
    assert metrics.behaviour([], lambda step: False)["steps"] is None
    assert metrics.bootstrap_mean([0.5]) == metrics.Estimate(0.5, 1, None)


def test_shares_count_over_all_actions_of_all_episodes():
    def step(action: str, observation: str, executed: str = "") -> Step:
        return Step("", action, observation, 0.0, executed=executed)

    found = metrics.behaviour(
        [[step("a", "no"), step("b", "yes", "B"), step("b", "yes")], [step("c", "no", "C")]],
        lambda step: step.observation == "no",
    )
    assert (found["invalid_action_share"], found["grounded_action_share"]) == (0.5, 0.5)
    assert found["repeated_action_share"] == 0.5


@settings(deadline=None, max_examples=40)
@given(REWARDS)
def test_every_mean_lies_in_its_interval(rewards):
    for found in (metrics.success_rate(rewards), metrics.mean_reward(rewards)):
        if found.ci95 is not None:
            assert 0 <= found.ci95[0] <= found.mean <= found.ci95[1] <= 1


def test_bootstrap_depends_on_its_seed_only():
    values = [0.1, 0.4, 0.35, 0.8, 0.2, 0.6]
    assert metrics.bootstrap_mean(values, 3) == metrics.bootstrap_mean(values, 3)
    low, high = metrics.bootstrap_mean(values * 30).ci95
    assert 0 < high - low < 0.1  # 180 values with sd 0.24: 2 * 1.96 * 0.24 / sqrt(180) = 0.07


@pytest.mark.parametrize(
    ("actions", "length", "count"),
    [
        ("aaaa", 1, 3),
        ("aaaa", 2, 0),  # a loop of one action, not of two
        ("ababab", 2, 2),
        ("cabababd", 2, 2),
        ("abaab", 1, 1),
        ("abcabc", 3, 1),
        ("abcabc", 2, 0),
        ("abab", 4, 0),
        ("", 1, 0),
    ],
)
def test_repeated_sequences(actions, length, count):
    assert metrics.repeated_sequences(actions, length) == count


@given(st.integers(1, 5), st.integers(1, 6))
def test_a_sequence_taken_k_times_is_repeated_k_minus_one_times(length, times):
    block = [str(i) for i in range(length)]
    counts = [metrics.repeated_sequences(block * times, k) for k in metrics.LOOP_LENGTHS]
    assert counts == [times - 1 if k == length else 0 for k in metrics.LOOP_LENGTHS]


@given(ACTIONS)
def test_repeats_of_one_action_are_the_immediate_repeats(actions):
    assert metrics.repeated_sequences(actions, 1) == metrics.immediate_repeats(actions)


@given(ACTIONS, st.integers(2, 5))
def test_repeats_fit_into_the_episode_and_ignore_how_actions_are_called(actions, length):
    count = metrics.repeated_sequences(actions, length)
    assert (count + 1) * length <= len(actions) or count == 0
    assert count == metrics.repeated_sequences([a.upper() for a in actions], length)


def test_behaviour_counts_per_action_and_per_episode():
    found = metrics.behaviour([steps("xaab", refused="x"), steps("abab")], lambda s: s.observation != "ok")
    assert found["steps"] == {"mean": 4.0, "median": 4.0, "total": 8}
    assert found["invalid_action_share"] == 1 / 8
    assert found["repeated_action_share"] == 1 / 6
    assert found["repeated_sequences"] == {"1": 0.5, "2": 0.5, "3": 0.0, "4": 0.0, "5": 0.0}


def test_comparison_of_two_runs():
    before = {"t1": 0.0, "t2": 1.0, "t3": 0.0, "t4": 0.5, "t5": 1.0}
    after = {"t1": 1.0, "t2": 1.0, "t3": 1.0, "t4": 0.25, "t5": 0.0}
    found = metrics.compare_runs(before, after)
    assert (found["n"], found["wins"], found["losses"], found["ties"]) == (5, 2, 2, 1)
    assert (found["gained"], found["lost"]) == (2, 1)
    assert found["difference"] == pytest.approx(0.15)
    assert found["success_rate"] == [0.4, 0.6]
    assert found["mcnemar_p"] == 1.0


def test_mcnemar_is_the_exact_binomial():
    before = {str(i): 0.0 for i in range(10)}
    after = {str(i): 1.0 if i < 8 else 0.0 for i in range(10)}
    found = metrics.compare_runs(before, after)
    assert found["mcnemar_p"] == pytest.approx(2 / 2**8)
    assert found["difference_ci95"][0] > 0


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.text(max_size=3), st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12))
def test_swapping_the_runs_turns_the_comparison_round(pairs):
    before = {key: a for key, (a, _) in pairs.items()}
    after = {key: b for key, (_, b) in pairs.items()}
    one, two = metrics.compare_runs(before, after), metrics.compare_runs(after, before)
    assert (one["wins"], one["gained"], one["ties"]) == (two["losses"], two["lost"], two["ties"])
    assert one["mcnemar_p"] == pytest.approx(two["mcnemar_p"])
    assert one["wins"] + one["losses"] + one["ties"] == len(pairs)


def test_other_tasks_are_not_compared():
    with pytest.raises(ValueError, match="2 tasks"):
        metrics.compare_runs({"a": 1.0, "b": 0.0}, {"a": 1.0, "c": 0.0})
