"""Which indices a stage runs: splits of public and bundled servers, lists, ScienceWorld's numbers; held-out goals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.envs import make_environment, task_id, task_ids
from mcts_utils.envs.contamination import HeldOut, HeldOutTask, look_up
from mcts_utils.envs.specs.sciworld import TASKS, VARIATIONS
from mcts_utils.servers.sciworld import games
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.types import InputError, Task


class Public(BaseHTTPRequestHandler):
    """A server of AgentGym's has no /split."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def public_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Public) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_public_servers_get_the_public_ids(public_url):
    ids = {
        (task, name): task_ids.choose_ids(task, public_url, name)
        for task in ("textcraft", "webshop", "sciworld")
        for name in ("test", "train")
    }
    assert {which: len(set(found)) for which, found in ids.items()} == {
        ("textcraft", "test"): 100,  # Section 4.1: 200 / 200 / 100
        ("textcraft", "train"): 374,
        ("webshop", "test"): 200,
        ("webshop", "train"): 3930,
        ("sciworld", "test"): 200,
        ("sciworld", "train"): 114,  # 23 tasks x 5 variations, less the test ids among them
    }
    for task in ("textcraft", "webshop", "sciworld"):
        assert not set(ids[task, "test"]) & set(ids[task, "train"])


def test_an_environment_without_known_ids_wants_a_list(public_url):
    with pytest.raises(InputError, match="TASK=babyai"):
        task_ids.choose_ids("babyai", public_url, "train")
    assert task_ids.choose_ids("babyai", public_url, "3-5") == [3, 4, 5]
    assert task_ids.split_ids("babyai", public_url, "test") == []


def test_a_bundled_server_names_its_own_split(textcraft_url):
    split = load_world().split()
    for name in ("train", "test"):
        assert task_ids.choose_ids("textcraft", textcraft_url, name) == split[name]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), min_size=1, max_size=6))
def test_id_lists_read_back(ranges):
    text = ",".join(f"{a}-{a + k}" if k else str(a) for a, k in ranges)
    ids = task_ids.parse_ids(text)
    assert set(ids) == {i for a, k in ranges for i in range(a, a + k + 1)}
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "text",
    [
        '[{"item_id": "textcraft_7", "conversations": []}, {"item_id": "textcraft_3"}]',
        '\n["textcraft_7", "textcraft_3"]',
        "[7, 3]",
        "7\n3\n",
    ],
)
def test_a_file_of_ids_may_be_agentgyms(textcraft_url, tmp_path, text):
    (tmp_path / "ids.json").write_text(text)
    assert task_ids.choose_ids("textcraft", textcraft_url, str(tmp_path / "ids.json")) == [7, 3]


@pytest.mark.parametrize("text", ["", "3-1", "a", "1,,2", "-4", "1-2-3", "9" * 5000, "0-9999999"])
def test_bad_id_lists_are_refused(text):
    with pytest.raises(InputError, match="task_ids"):
        task_ids.parse_ids(text)


def test_the_bundled_sciworld_server_has_agentgyms_split(public_url):
    served = games.split()
    for name in ("train", "test"):
        assert served[name] == task_ids.choose_ids("sciworld", public_url, name)


def test_sciworld_tasks_are_counted_as_the_simulator_does():
    assert len(TASKS) == 30
    assert len(VARIATIONS) == 23
    assert sum(VARIATIONS.values()) == 4639
    numbers = [number for number, name in enumerate(TASKS) if name in VARIATIONS]
    assert numbers == [
        *range(10),
        12,
        13,
        *range(17, 23),
        *range(25, 30),
    ]  # those that the paper's data names
    assert TASKS[2] == "chemistry-mix"
    assert task_ids.training_variations("sciworld", 2, None, set()) == [4136, 4137, 4138, 4139, 4140]
    assert task_ids.training_variations("sciworld", 2, 3, {4137}) == [4136, 4138]
    assert task_ids.training_variations("sciworld", 13, 99, set()) == list(range(4629, 4639))
    assert task_id("sciworld", "", 4136) == "sciworld:chemistry-mix:0"


@pytest.mark.parametrize(
    ("task", "number", "count", "named"),
    [
        ("textcraft", 1, 5, "TASK=sciworld"),
        ("sciworld", None, 5, "--task_num"),
        ("sciworld", 10, 5, "--task_num 10"),  # growing fruit: no AgentGym server has it
        ("sciworld", 30, 5, "--task_num 30"),
        ("sciworld", 0, 0, "--task_iteration must be at least 1: 0"),
        ("sciworld", 0, 2, "all are test ids"),
    ],
)
def test_wrong_sciworld_numbers_are_named(task, number, count, named):
    with pytest.raises(InputError, match=named):
        task_ids.training_variations(task, number, count, {0, 1})


def test_held_out_goals_are_known_by_index_and_by_content(textcraft_url):
    def environment():
        return make_environment("textcraft", textcraft_url)

    test = load_world().split()["test"][:5]
    held_out = look_up("textcraft", test, environment)
    with pytest.raises(HeldOutTask, match=f"index {test[0]} is a test id"):
        held_out.check(Task("textcraft", test[0], "textcraft:other", ""))
    env = environment()
    same_goal = env.reset(test[2])
    with pytest.raises(HeldOutTask, match="shows the goal of a test task"):
        held_out.check(Task("textcraft", 9999, same_goal.id, ""))
    held_out.check(env.reset(load_world().split()["train"][0]))
    env.close()


def test_sciworld_goals_are_held_out_without_a_reset():
    def unreachable():
        raise AssertionError("no session is needed")

    held_out = look_up("sciworld", [4136], unreachable)
    assert held_out == HeldOut(frozenset({4136}), frozenset({"sciworld:chemistry-mix:0"}))


def test_a_file_of_ids_may_begin_with_a_byte_order_mark_and_must_be_utf8(tmp_path):
    path = tmp_path / "ids"
    path.write_bytes(b"\xef\xbb\xbf3\n5-6\n")
    assert task_ids.choose_ids("textcraft", "http://127.0.0.1:9", str(path)) == [3, 5, 6]
    path.write_bytes("3, 5\n".encode("utf-16"))
    with pytest.raises(InputError, match="not UTF-8"):
        task_ids.choose_ids("textcraft", "http://127.0.0.1:9", str(path))
