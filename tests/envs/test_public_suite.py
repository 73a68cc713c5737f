"""The further servers of AgentGym's suite: Maze and Wordle against recorded answers, the others against their code."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from mcts_utils.config import Settings
from mcts_utils.envs import make_environment
from mcts_utils.envs.session_pool import UNLIMITED, session_limit
from mcts_utils.envs.specs import env_spec
from mcts_utils.envs.task_ids import public_ids
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.types import EnvError, InputError, Step, Task
from tests.helpers.faulty_server import serving

GOAL = "The goal is at position 8, 6. "
BETWEEN = "There are walls to your right, to your left."
AT_6, AT_7 = (f"{GOAL}Your current position is at position {row}, 6. {BETWEEN}" for row in (6, 7))
NO_SESSION = {"error": "The id -1 is not valid."}
ROOM = (
    "You are in the middle of a room. You see a desk 1 and a drawer 1.\nYour task is to: put a pen in drawer."
)
QUESTION = "Now new trial starts.\nYou should perform actions to accomplish the goal: {}\nGive me one action."
TABLES = "CREATE TABLE lamps (id INTEGER)\nHow many lamps are there?"
CALL = 'get_elevation with Action Input: {"latitude": 1, "longitude": 2}'


def said(observation: str, reward: float = 0, done: bool = False) -> dict[str, Any]:
    return {"observation": observation, "reward": reward, "done": done}


# Environment -> opening, requests in order with their answers, and the rewards of the steps.
Exchange = tuple[str, dict[str, Any], Any]
RECORDED: dict[str, tuple[str, list[Exchange]]] = {
    "maze": (
        AT_6,
        [
            ("/maze/available_actions", {}, ["move left", "move right", "move up", "move down"]),
            ("/maze/create", {}, {"id": 0}),
            ("/maze/reset", {"id": 0, "game": 17}, {"observation": AT_6}),
            ("/maze/step", {"id": 0, "action": "move left"}, said(AT_6)),
            ("/maze/step", {"id": 0, "action": "move down"}, said(AT_7)),
            ("/maze/step", {"id": 0, "action": "move down"}, said("Success\n", 1.0, True)),
        ],
    ),
    "wordle": (
        "Let's start Wordle!",
        [
            ("/wordle/filtered_vocab", {"id": -1}, NO_SESSION),
            ("/wordle/create", {}, {"id": 0}),
            ("/wordle/reset", {"id": 0, "seed": 17}, {"id": 0, "observation": "Let's start Wordle!"}),
            ("/wordle/step", {"id": 0, "action": "c r a n e"}, said("invalid word", 0.0)),
            ("/wordle/step", {"id": 0, "action": "o t h e r"}, said("b b b b y\n")),
            ("/wordle/step", {"id": 0, "action": "s h a r d"}, said("g g g g g\n", 1.0, True)),
        ],
    ),
    "alfworld": (
        ROOM,
        [
            ("/", {}, "This is environment AlfWorld."),
            ("/create", {}, {"id": 4}),
            ("/reset", {"id": 4, "game": 17, "world_type": "Text"}, {"id": 4, "observation": ROOM}),
            ("/step", {"id": 4, "action": "take pen 1 from desk 2"}, said("Nothing happens.", 0.0)),
            ("/step", {"id": 4, "action": "take pen 1 from desk 1"}, said("You pick up the pen 1.", 0.0)),
            ("/step", {"id": 4, "action": "put pen 1 in/on drawer 1"}, said("You put it there.", 1.0, True)),
        ],
    ),
    "sqlgym": (
        TABLES,
        [
            ("/list_envs", {}, []),
            ("/create", {}, 81234),
            ("/reset", {"env_idx": 81234, "item_id": 17}, [TABLES, None]),
            (
                "/step",
                {"env_idx": 81234, "action": "SELECT count(*) FROM lamps"},
                {"state": "[(3,)]", "reward": 1.0, "done": True, "info": {}},
            ),
        ],
    ),
    **{
        name: (
            QUESTION.format("Find it."),
            [
                ("/list_envs", {}, []),
                ("/create", {"id": 0}, 2),
                ("/reset", {"env_idx": 2, "id": 17}, QUESTION.format("Find it.")),
                (
                    "/step",
                    {"env_idx": 2, "action": "Action: look"},
                    said("Format error, please respond", 0.0),
                ),
                (
                    "/step",
                    {"env_idx": 2, "action": f"Action: {CALL}"},
                    said("Observation: 3\nGive me one action.", 0.5),
                ),
                (
                    "/step",
                    {"env_idx": 2, "action": 'Action: finish with Action Input: {"answer": 3}'},
                    said("Observation: 3\nGive me one action.", 1.0, True),
                ),
            ],
        )
        for name in ("weather", "movie", "todo", "sheet", "academia")
    },
}
SPLITS = {"alfworld": (2420, 200), "sqlgym": (9428, 1534), "maze": (0, 0), "wordle": (0, 0), "todo": (0, 0)}


class Recorded:
    """Answers the requests of a list, each step once and in order; 404 for all others, as a public server."""

    id_field = "id"

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.steps = [each for each in exchanges if each[0].endswith("/step")]
        self.others = [each for each in exchanges if each not in self.steps]

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/step"):
            wanted, expected, answer = self.steps.pop(0)
            assert (path, body) == (wanted, expected)
            return 200, answer
        found = [
            answer for wanted, expected, answer in self.others if (path, body or {}) == (wanted, expected)
        ]
        return (200, found[0]) if found else (404, {"detail": "Not Found"})


@pytest.mark.parametrize("name", RECORDED)
def test_an_episode_is_played_as_the_server_wants_it(name: str) -> None:
    opening, exchanges = RECORDED[name]
    with serving(lambda: Recorded(exchanges)) as server:
        base = server.url + (f"/{name}" if name in ("maze", "wordle") else "")
        with closing(make_environment(name, base)) as env:
            assert env.reset(17) == Task(name, 17, f"{name}:17", opening)
            results = []
            for path, body, _ in exchanges:
                if path.endswith("/step"):
                    results.append(env.step(body["action"].removeprefix("Action: ")))
            assert (results[-1].reward, results[-1].done) == (1.0, True)
            refused = [is_refused(name, Step("x", "x", result.observation, 0.0)) for result in results]
            assert refused == [name not in ("maze", "sqlgym")] + [False] * (len(results) - 1)
            with pytest.raises(EnvError, match="after the episode was done"):
                env.step("more")
        assert isinstance(server.world, Recorded) and not server.world.steps


def test_the_end_of_a_lost_maze_counts_as_nothing() -> None:
    result = env_spec("maze").result(said("Failure\n", -1.0, True))
    assert (result.reward, result.done, result.disaster) == (0.0, True, False)


def test_another_address_of_the_same_server_is_bad_input() -> None:
    with serving(lambda: Recorded(RECORDED["maze"][1])) as server:
        for base in (server.url, f"{server.url}/wordle"):
            with pytest.raises(InputError, match=f"{base} is no Maze server"):
                make_environment("maze", base)


@pytest.mark.parametrize("name", SPLITS)
def test_the_splits_that_are_known(name: str) -> None:
    assert tuple(len(public_ids(name, split)) for split in ("train", "test")) == SPLITS[name]


def test_a_server_of_eight_sessions_is_asked_for_no_more() -> None:
    assert session_limit(Settings(task="sqlgym"), "agentgym") == 8
    assert session_limit(Settings(task="alfworld"), "agentgym") == UNLIMITED
