"""Scores with intervals, loops and the paired comparison."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_utils.evaluation.metrics import behaviour, paired, scores
from mcts_utils.types import Step

REWARDS = st.lists(st.floats(0, 1), max_size=30)
ACTIONS = st.lists(st.sampled_from("ab"), max_size=14)
SAMPLES = st.lists(st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=3, max_size=3), min_size=1, max_size=8)
PAIRS = st.dictionaries(
    st.text("abc", max_size=3), st.tuples(st.sampled_from([0, 0.5, 1]), st.floats(0, 1)), max_size=12
)


def steps(actions: str, refused: str = "") -> list[Step]:
    """One step per letter; letters of `refused` are refused."""
    return [Step(f"Action: {a}", a, "Could not" if a in refused else "ok", 0.0) for a in actions]


def test_success_rate_is_wilsons():
    found = scores.success_rate([1.0] * 35 + [0.0] * 64 + [0.5])
    assert (found.mean, found.n) == (0.35, 100)
    # Wilson 1927 for 35 of 100 at z = 1.96: centre (0.35 + z^2/200) / (1 + z^2/100), half-width 0.0921
    assert found.ci95 == pytest.approx((0.2636, 0.4475), abs=1e-4)


def test_no_success_in_ten_does_not_mean_never():
    assert scores.success_rate([0.0] * 10).ci95 == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert scores.mean_reward([0.0] * 10) == scores.success_rate([0.0] * 10)


def test_without_episodes_nothing_is_claimed():
    assert scores.success_rate([]) == scores.mean_reward([]) == scores.Estimate(None, 0, None)
    assert behaviour.behaviour([], lambda step: False)["steps"] is None
    assert scores.bootstrap_mean([0.5]) == scores.Estimate(0.5, 1, None)


def test_shares_count_over_all_actions_of_all_episodes():
    def step(action: str, observation: str, executed: str = "") -> Step:
        return Step("", action, observation, 0.0, grounded_action=executed)

    found = behaviour.behaviour(
        [[step("a", "no"), step("b", "yes", "B"), step("b", "yes")], [step("c", "no", "C")]],
        lambda step: step.observation == "no",
    )
    assert (found["invalid_action_share"], found["grounded_action_share"]) == (0.5, 0.5)
    assert found["repeated_action_share"] == 0.5


@settings(deadline=None, max_examples=40)
@given(REWARDS)
def test_every_mean_lies_in_its_interval(rewards):
    for found in (scores.success_rate(rewards), scores.mean_reward(rewards)):
        if found.ci95 is not None:
            assert 0 <= found.ci95[0] <= found.mean <= found.ci95[1] <= 1


def test_bootstrap_depends_on_its_seed_only():
    values = [0.1, 0.4, 0.35, 0.8, 0.2, 0.6]
    assert scores.bootstrap_mean(values, 3) == scores.bootstrap_mean(values, 3)
    low, high = scores.bootstrap_mean(values * 30).ci95
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
    assert behaviour.repeated_sequences(actions, length) == count


@given(st.integers(1, 5), st.integers(1, 6))
def test_a_sequence_taken_k_times_is_repeated_k_minus_one_times(length, times):
    block = [str(i) for i in range(length)]
    counts = [behaviour.repeated_sequences(block * times, k) for k in behaviour.LOOP_LENGTHS]
    assert counts == [times - 1 if k == length else 0 for k in behaviour.LOOP_LENGTHS]


@given(ACTIONS)
def test_repeats_of_one_action_are_the_immediate_repeats(actions):
    assert behaviour.repeated_sequences(actions, 1) == behaviour.immediate_repeats(actions)


@given(ACTIONS, st.integers(2, 5))
def test_repeats_fit_into_the_episode_and_ignore_how_actions_are_called(actions, length):
    count = behaviour.repeated_sequences(actions, length)
    assert (count + 1) * length <= len(actions) or count == 0
    assert count == behaviour.repeated_sequences([a.upper() for a in actions], length)


def test_behaviour_counts_per_action_and_per_episode():
    found = behaviour.behaviour([steps("xaab", refused="x"), steps("abab")], lambda s: s.observation != "ok")
    assert found["steps"] == {"mean": 4.0, "median": 4.0, "total": 8}
    assert found["invalid_action_share"] == 1 / 8
    assert found["repeated_action_share"] == 1 / 6
    assert found["repeated_sequences"] == {"1": 0.5, "2": 0.5, "3": 0.0, "4": 0.0, "5": 0.0}


def test_comparison_of_two_runs():
    before = {"t1": 0.0, "t2": 1.0, "t3": 0.0, "t4": 0.5, "t5": 1.0}
    after = {"t1": 1.0, "t2": 1.0, "t3": 1.0, "t4": 0.25, "t5": 0.0}
    found = paired.compare_runs(before, after)
    assert (found["n"], found["wins"], found["losses"], found["ties"]) == (5, 2, 2, 1)
    assert (found["gained"], found["lost"]) == (2, 1)
    assert found["difference"] == pytest.approx(0.15)
    assert found["success_rate"] == [0.4, 0.6]
    assert found["mcnemar_p"] == 1.0


def test_mcnemar_is_the_exact_binomial():
    before = {str(i): 0.0 for i in range(10)}
    after = {str(i): 1.0 if i < 8 else 0.0 for i in range(10)}
    found = paired.compare_runs(before, after)
    assert found["mcnemar_p"] == pytest.approx(2 / 2**8)
    assert found["difference_ci95"][0] > 0


@settings(deadline=None, max_examples=25)
@given(PAIRS)
def test_swapping_the_runs_turns_the_comparison_round(pairs):
    before = {key: a for key, (a, _) in pairs.items()}
    after = {key: b for key, (_, b) in pairs.items()}
    one, two = paired.compare_runs(before, after), paired.compare_runs(after, before)
    assert (one["wins"], one["gained"], one["ties"]) == (two["losses"], two["lost"], two["ties"])
    assert one["mcnemar_p"] == pytest.approx(two["mcnemar_p"])
    assert one["wins"] + one["losses"] + one["ties"] == len(pairs)
    if pairs:
        assert one["difference"] == pytest.approx(-two["difference"], abs=1e-12)
    if len(pairs) > 1:
        low, high = one["difference_ci95"]
        assert [-high, -low] == pytest.approx(two["difference_ci95"], abs=1e-12)
        assert low <= one["difference"] <= high


def test_other_tasks_are_not_compared():
    with pytest.raises(ValueError, match="2 tasks"):
        paired.compare_runs({"a": 1.0, "b": 0.0}, {"a": 1.0, "c": 0.0})


@settings(deadline=None, max_examples=15)
@given(PAIRS)
def test_a_run_does_not_differ_from_itself(pairs):
    run = {key: b for key, (_, b) in pairs.items()}
    found = paired.compare_runs(run, run)
    assert (found["wins"], found["losses"], found["ties"]) == (0, 0, len(run))
    assert found["difference"] == (0 if run else None)
    assert found["difference_ci95"] in (None, [0, 0])
    assert found["detectable"] is None  # nothing is known of how runs differ


def test_samples_of_a_task_count_as_their_mean():
    found = paired.compare_runs({"a": [0.0, 0.0], "b": [1.0, 0.0]}, {"a": [1.0, 0.0], "b": [0.5, 0.5]})
    assert (found["n"], found["wins"], found["losses"], found["ties"]) == (2, 1, 0, 1)
    assert found["mean_reward"] == [0.25, 0.5]
    assert found["success_rate"] == [0.25, 0.25]
    assert (found["success_difference"], found["difference"]) == (0, 0.25)
    assert (found["mcnemar_p"], found["gained"]) == (None, None)  # samples of one task are not independent


@settings(deadline=None, max_examples=25)
@given(SAMPLES)
def test_pass_at_k_is_the_share_of_subsets_with_a_success(tasks):
    for k in (1, 2, 3):
        drawn = [[any(r == 1 for r in subset) for subset in combinations(task, k)] for task in tasks]
        expected = sum(sum(hits) / len(hits) for hits in drawn) / len(tasks)
        assert scores.pass_at_k(tasks, k).mean == pytest.approx(expected)
    solved = scores.mean_success(tasks).mean
    assert scores.pass_at_k(tasks, 1).mean == pytest.approx(solved)
    assert solved - 1e-9 <= scores.pass_at_k(tasks, 2).mean <= scores.pass_at_k(tasks, 3).mean + 1e-9
    assert scores.pass_at_k(tasks, 3).mean == pytest.approx(
        sum(any(r == 1 for r in task) for task in tasks) / len(tasks)
    )
    assert scores.pass_at_k(tasks, 4).n == 0


def test_samples_of_a_task_do_not_narrow_the_interval():
    once = scores.mean_success([[1.0], [0.0]] * 20).ci95
    again = scores.mean_success([[1.0] * 50, [0.0] * 50] * 20).ci95
    assert again == pytest.approx(once, abs=0.02)


@settings(deadline=None, max_examples=8)
@given(SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_episodes_changes_nothing(tasks, rng):
    def numbers(order: list[int]) -> list:
        mixed = [rng.sample(tasks[i], 3) for i in order]
        flat = [(r, i) for i, task in zip(order, mixed, strict=True) for r in task]
        runs = [steps("aab" * int(3 * r) + "c", "b") for r, _ in flat]
        return [
            scores.mean_success(mixed),
            scores.mean_at_k(mixed),
            scores.pass_at_k(mixed, 2),
            behaviour.behaviour(runs, lambda step: step.observation != "ok", [i for _, i in flat]),
        ]

    order = list(range(len(tasks)))
    assert numbers(order) == numbers(rng.sample(order, len(order)))


@given(ACTIONS, ACTIONS, st.integers(1, 5))
def test_repeats_of_two_walks_with_something_new_between_add_up(one, two, length):
    both = behaviour.repeated_sequences([*one, "new", *two], length)
    assert both == behaviour.repeated_sequences(one, length) + behaviour.repeated_sequences(two, length)


def test_shares_of_actions_are_drawn_by_task():
    # Ten actions of one task, all refused, and one of another, not refused: two things were drawn, not eleven.
    found = behaviour.behaviour([steps("a" * 10, "a"), steps("b")], lambda s: s.observation != "ok")
    assert found["invalid_action_share"] == 10 / 11
    assert found["ci95"]["invalid_action_share"] == (0.0, 1.0)
    assert found["ci95"]["steps"] == (1.0, 10.0)


def test_the_first_error_counts_its_own_action():
    taken = steps("abxcx", "x")
    assert behaviour.actions_until(taken, lambda step: step.observation != "ok") == 3
    assert behaviour.actions_until(taken[:2], lambda step: step.observation != "ok") is None


def test_power_is_that_of_a_paired_t_test():
    # Normal approximation: (1.960 + 0.842) * sd / sqrt(n)
    assert paired.detectable_difference(198, 0.5) == pytest.approx(2.802 * 0.5 / 198**0.5, rel=0.01)
    assert paired.detectable_difference(2000, 0.4) == pytest.approx(2.802 * 0.4 / 2000**0.5, rel=0.002)
    assert paired.detectable_difference(2, 0.5) is None
    assert paired.detectable_difference(50, 0.0) is None


def test_power_finds_such_a_difference_four_times_in_five():
    n, sd = 40, 0.5
    rng = random.Random(1)
    shift = paired.detectable_difference(n, sd)
    found = 0
    for _ in range(600):
        gaps = [rng.gauss(shift, sd) for _ in range(n)]
        mean = sum(gaps) / n
        spread = (sum((gap - mean) ** 2 for gap in gaps) / (n - 1)) ** 0.5
        found += abs(mean) / (spread / n**0.5) > 2.0227  # t at 39 degrees of freedom, two-sided 5 %
    assert 0.75 < found / 600 < 0.85


def test_holm_is_holms():
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([]) == []


def test_arms_over_seeds_are_paired_by_goal():
    before = [{"a": 0.0, "b": 1.0, "c": 0.0}, {"a": 0.0, "b": 0.0, "c": 0.0}]
    after = [{"a": 1.0, "b": 1.0, "c": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.0}]
    found = paired.paired_over_seeds(before, after)
    assert (found["n"], found["seeds"]) == (3, 2)
    assert (found["wins"], found["losses"], found["ties"]) == (2, 0, 1)
    assert found["difference"] == pytest.approx(0.5)
    assert found["by_seed"] == pytest.approx([1 / 3, 2 / 3])
    assert found["sd"] == pytest.approx(0.5)
    turned = paired.paired_over_seeds(after, before)
    assert turned["difference_ci95"] == [-x for x in reversed(found["difference_ci95"])]
    assert paired.paired_over_seeds(before[:1], after)["by_seed"] == pytest.approx([1 / 3, 1 / 3])
    with pytest.raises(ValueError, match="1 tasks"):
        paired.paired_over_seeds(before, [*after, {"a": 1.0, "b": 1.0}])
    with pytest.raises(ValueError, match="seeds"):
        paired.paired_over_seeds([], after)


def test_the_sign_flip_test_is_exact_where_few_tasks_differ():
    # Of the 2**5 ways to set the signs of five equal gaps, two are as far from 0 as what was seen.
    assert paired.sign_flip([1.0] * 5) == pytest.approx(2 / 32)
    assert paired.sign_flip([0.5]) is None
