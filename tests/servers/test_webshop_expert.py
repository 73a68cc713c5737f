"""The scripted WebShop expert: reward 1 on every goal without noise, mistakes with it, and sensible verdicts."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from mcts_utils.servers.webshop import planner
from mcts_utils.servers.webshop.app import running_server
from mcts_utils.servers.webshop.engine import ShopSession
from mcts_utils.servers.webshop.expert import answer
from mcts_utils.servers.webshop.page_state import parse_page
from mcts_utils.servers.webshop.shop import Shop, bundled_shop
from tests.helpers.http_client import HttpClient
from tests.helpers.small_shop import shop

STEPS = 15
REPLY = re.compile(r"Thought: .+\nAction: (.+)")


def action_of(reply: str) -> str:
    found = REPLY.fullmatch(reply)
    assert found, reply
    return found[1]


def told(opening: str) -> list[dict]:
    return [{"role": "system", "content": "You shop."}, {"role": "user", "content": opening}]


def play(
    where: Shop, index: int, rng: random.Random, noise: float, steps: int = STEPS
) -> tuple[float, list[tuple[str, str]]]:
    """Reward and turns of one episode."""
    player = ShopSession(where, where.goals[index])
    messages, turns = told(player.page().text), []
    for _ in range(steps):
        reply = answer(messages, rng, noise)
        text, paid, done = player.step(action_of(reply))
        turns.append((action_of(reply), text))
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": text}]
        if done:
            return paid, turns
    return 0.0, turns


@pytest.mark.slow
def test_every_goal_is_bought_for_reward_one():
    where = bundled_shop()
    results = [play(where, index, random.Random(0), 0.0) for index in range(len(where.goals))]
    failed = [where.goals[index].text for index, (paid, _) in enumerate(results) if paid != 1.0]
    assert len(results) >= 1500 and not failed
    lengths = Counter(len(turns) for _, turns in results)
    assert 3 <= min(lengths) and max(lengths) <= 10


def test_a_sample_of_goals_over_http():
    rng = random.Random(1)
    with running_server() as url, HttpClient(url) as client:
        env = client.post("/create").json()
        goals = client.get("/about").json()["goals"]
        for index in rng.sample(range(goals), 40):
            opening = client.post("/reset", json={"env_idx": env, "session_id": index}).json()[0]
            messages, done, paid = told(opening), False, 0.0
            while not done and len(messages) < 2 * STEPS:
                reply = answer(messages, rng, 0.0)
                said = client.post("/step", json={"env_idx": env, "action": action_of(reply)}).json()
                messages += [
                    {"role": "assistant", "content": reply},
                    {"role": "user", "content": said["state"]},
                ]
                done, paid = said["done"], said["reward"]
            assert (done, paid) == (True, 1.0), index


def test_noise_spreads_the_rewards():
    where, rng = bundled_shop(), random.Random(2)
    rewards = [play(where, index, rng, 0.4)[0] for index in range(300)]
    assert 0.5 < sum(rewards) / len(rewards) < 0.95
    assert rewards.count(1.0) > 60 and rewards.count(0.0) > 3
    assert len({round(paid, 2) for paid in rewards if 0 < paid < 1}) >= 6


def test_noise_makes_paths_of_one_goal_diverge():
    where = bundled_shop()
    spread = 0
    for index in range(30):
        rewards = [play(where, index, random.Random(f"{index} {n}"), 0.4)[0] for n in range(8)]
        spread += max(rewards) == 1.0 and min(rewards) < 1.0
    assert spread >= 20


def test_slips_are_of_several_kinds():
    where, rng = bundled_shop(), random.Random(3)
    seen = Counter()
    for index in range(120):
        for action, _ in play(where, index, rng, 1.0, steps=8)[1]:
            kind = re.sub(r"b0\w{8}", "<product>", action)
            seen[
                kind
                if kind in ("click[buy now]", "click[description]", "click[next >]", "click[<product>]")
                else action[:6]
            ] += 1
    assert {
        "click[buy now]",
        "click[description]",
        "click[next >]",
        "click[<product>]",
        "search",
        "click[",
    } == set(seen)


def test_it_recovers_from_any_page():
    """Dropped into the middle of a bad path, it still earns 1 unless the path has bought."""
    where = bundled_shop()
    for index in range(60):
        _, turns = play(where, index, random.Random(index), 1.0, steps=4)
        player = ShopSession(where, where.goals[index])
        messages, done = told(player.page().text), False
        for action, _ in turns:
            text, _, done = player.step(action)
            messages += [
                {"role": "assistant", "content": f"Thought: x\nAction: {action}"},
                {"role": "user", "content": text},
            ]
        paid = 0.0
        while not done and len(messages) < 60:
            reply = answer(messages, random.Random(0), 0.0)
            text, paid, done = player.step(action_of(reply))
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": text}]
            assert not done or paid == 1.0, where.goals[index].text


def test_same_seed_same_reply():
    opening = ShopSession(bundled_shop(), bundled_shop().goals[0]).page().text
    replies = {answer(told(opening), random.Random(5), 0.5) for _ in range(5)}
    assert len(replies) == 1


def test_a_reply_in_another_shop_is_still_an_action():
    player = ShopSession(shop(), shop().goals[0])
    messages = told(player.page().text)
    actions = []
    for _ in range(3):
        reply = answer(messages, random.Random(0), 0.0)
        actions.append(action_of(reply))
        text, _, _ = player.step(actions[-1])
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": text}]
    assert parse_page(text).kind == "done" and actions[0].startswith("search[floor lamps with brass finish")


def test_no_instruction():
    assert action_of(answer([{"role": "user", "content": "hello"}], random.Random(0), 0.0))
    assert answer([], random.Random(0), 0.0)


# --- the judge's question


def question(opening: str, log: list[tuple[str, str]], current: tuple[str, str]) -> list[dict]:
    lines = "\n".join(f"Action: {a}\nObservation: {o}" for a, o in log)
    text = f"{opening}\n\nLog:\n{lines}\n\nCurrent action: {current[0]}\nCurrent observation: {current[1]}"
    return [{"role": "system", "content": "Judge."}, {"role": "user", "content": text}]


def verdict(index: int, actions: list[str], noise: float = 0.0, seed: int = 0) -> str:
    """The verdict on the last of some actions."""
    player = ShopSession(bundled_shop(), bundled_shop().goals[index])
    opening = player.page().text
    turns = [(action, player.step(action)[0]) for action in actions]
    reply = answer(question(opening, turns[:-1], turns[-1]), random.Random(seed), noise)
    found = re.fullmatch(r".+\nJudgment: (Good|Bad|Uncertain)", reply)
    assert found, reply
    return found[1]


def with_two_options() -> int:
    goals = bundled_shop().goals
    return next(
        i
        for i, goal in enumerate(goals)
        if len(goal.options) == 2 and len(play(bundled_shop(), i, random.Random(0), 0.0)[1]) == 5
    )


def test_every_step_of_the_plan_is_good():
    for index in range(40):
        actions = [action for action, _ in play(bundled_shop(), index, random.Random(0), 0.0)[1]]
        for end in range(1, len(actions) + 1):
            assert verdict(index, actions[:end]) == "Good", actions[:end]


def test_verdicts_on_mistakes():
    index = with_two_options()
    goal = bundled_shop().goals[index]
    search, product, first, second, buy = (
        a for a, _ in play(bundled_shop(), index, random.Random(0), 0.0)[1]
    )
    page = ShopSession(bundled_shop(), goal)
    page.step(search)
    stranger = next(a for a in parse_page(page.page().text).asins if not planner.perfect(goal.content, a))
    name, value = goal.options[0]
    other = next(v for v in goal.target.options[name] if v != value)
    assert verdict(index, ["hello"]) == "Bad"  # nothing happened
    assert verdict(index, [search, "click[buy now]"]) == "Bad"
    assert verdict(index, [search, f"click[{stranger.lower()}]"]) == "Bad"
    assert verdict(index, [search, f"click[{stranger.lower()}]", "click[< prev]"]) == "Good"
    assert verdict(index, [search, product, "click[description]"]) == "Uncertain"
    assert verdict(index, [search, product, first, first]) == "Bad"  # already chosen
    assert verdict(index, [search, product, f"click[{other}]"]) == "Bad"
    assert verdict(index, [search, product, buy]) == "Bad"  # options forgotten
    assert verdict(index, [search, product, first, second, "click[back to search]"]) == "Bad"


def test_noise_turns_verdicts():
    index = with_two_options()
    said = Counter(verdict(index, ["hello"], noise=1.0, seed=seed) for seed in range(60))
    assert set(said) == {"Good", "Bad", "Uncertain"}


@pytest.mark.parametrize("text", ["", "Nothing happens.", "Instruction: [SEP] x", "WebShop"])
def test_a_text_that_is_no_page_changes_nothing(text):
    assert parse_page(text).kind == ""
    opening = ShopSession(bundled_shop(), bundled_shop().goals[0]).page().text
    messages = [
        *told(opening),
        {"role": "assistant", "content": "Thought: x\nAction: y"},
        {"role": "user", "content": text},
    ]
    assert action_of(answer(messages, random.Random(0), 0.0)).startswith("search[")
