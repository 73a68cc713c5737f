"""The client on the bundled ScienceWorld server: gold paths of all task types, step by step, replayed and reworded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcts_utils.envs import make_environment
from mcts_utils.envs.client import AgentGym
from mcts_utils.envs.specs.sciworld import VARIATIONS
from mcts_utils.servers.sciworld.expert import known_games
from tests.helpers.http_client import HttpClient
from tests.helpers.sciworld_process import running_sciworld

pytestmark = pytest.mark.java

# The simulator's command -> what actors write and it does not understand, in so many words.
REWORDED = {
    "pick up ": "take the ",
    "activate ": "turn on the ",
    "deactivate ": "turn off the ",
    "go to ": "walk to the ",
    "look in ": "look inside the ",
    "open door to ": "open the door that leads to ",
}

STEPPED = sorted(VARIATIONS)[::3]  # tasks whose paths are played step by step, too


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    # Circuits answer a step earlier or later from one execution to the next where nothing fixes their order.
    with running_sciworld(reproducible=True) as url:
        yield url


@pytest.fixture(scope="module")
def env(base_url: str) -> Iterator[AgentGym]:
    client = make_environment("sciworld", base_url)
    yield client
    client.close()


def firsts() -> dict[str, int]:
    """The index of the first variation of every task type."""
    found, index = {}, 0
    for name, count in VARIATIONS.items():
        found[name] = index
        index += count
    return found


def gold(base_url: str, index: int) -> list[str]:
    answer = HttpClient(base_url).get("/gold", params={"data_idx": index}).json()
    return list(answer["actions"])


@pytest.mark.parametrize("name", sorted(VARIATIONS))
def test_gold_paths_earn_everything(env: AgentGym, name: str) -> None:
    known = [game for game in known_games().values() if game.task == name]
    game = min(known, key=lambda game: len(game.path))
    index, actions = game.id, game.path
    task, replayed = env.replay(index, actions)
    assert task.id == f"sciworld:{name}:{index - firsts()[name]}"
    assert replayed[-1].reward == 1.0 and replayed[-1].done
    if name not in STEPPED:
        return
    again = env.reset(index)
    assert again.id == task.id
    for action, before in zip(actions, replayed, strict=False):
        result = env.step(action)
        assert (result.reward, result.done, result.grounded_action) == (before.reward, before.done, "")
        if result.done:
            break
    assert result.reward == 1.0


@pytest.mark.parametrize("name", ["boil", "find-plant", "chemistry-mix", "power-component"])
def test_reworded_gold_paths_are_grounded(base_url: str, env: AgentGym, name: str) -> None:
    index = firsts()[name]
    grounded = 0
    env.reset(index)
    for action in gold(base_url, index):
        begins = next((begin for begin in REWORDED if action.startswith(begin)), "")
        result = env.step(REWORDED.get(begins, "") + action.removeprefix(begins))
        assert result.grounded_action in ("", action)
        grounded += bool(result.grounded_action)
        if result.done:
            break
    assert result.reward == 1.0
    assert grounded > 0


def test_a_wrong_focus_is_a_disaster(env: AgentGym) -> None:
    env.reset(0)
    result = env.step("focus on agent")
    assert (result.reward, result.done, result.disaster) == (0.0, True, True)


def test_a_decorated_action_is_tried_bare_before_it_is_grounded(base_url: str, env: AgentGym) -> None:
    env.reset(0)
    quoted = env.step('"look around".')
    assert quoted.grounded_action == "look around" and "This room is called" in quoted.observation
