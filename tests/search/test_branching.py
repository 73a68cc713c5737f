"""Rollouts on servers that copy sessions: no step twice, the same trees as without, and nothing left open."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from random import Random

import pytest

from mcts_utils.config import Settings
from mcts_utils.envs import make_environment
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import reply_text
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import replay
from mcts_utils.search.mcts import Rules, run_search
from mcts_utils.search.simulator import TaskSimulator
from mcts_utils.search.tree import Tree, new_tree, nodes
from mcts_utils.search.tree_io import tree_from_dict, tree_to_dict
from mcts_utils.types import Actor, EnvError, Environment, Message, Sample, StepResult, Task
from tests.helpers.noisy_player import NoisyPlayer

TASK = Task("textcraft", 7, "maze:7", "Goal: leave.")


@dataclass
class Server:
    """What its sessions did."""

    extensions: frozenset[str] = frozenset({"fork", "replay"})
    taken: list[tuple[str, ...]] = field(default_factory=list)  # every step, as the actions up to it
    replays: int = 0
    copies: int = 0
    open: int = 0
    fork_fails: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def session(self) -> Maze:
        with self.lock:
            self.open += 1
        return Maze(self)


class Maze(Environment):
    """An environment in memory: what an action does depends on all actions before it; episodes end by chance."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.path: tuple[str, ...] = ()
        self.users = threading.Lock()

    @property
    def extensions(self) -> frozenset[str]:
        return self.server.extensions

    def reset(self, index: int) -> Task:
        self.path = ()
        return Task("textcraft", index, f"maze:{index}", "Goal: leave.")

    def step(self, action: str) -> StepResult:
        assert self.users.acquire(blocking=False), "two users of one session"
        self.path += (action,)
        with self.server.lock:
            self.server.taken.append(self.path)
        chance = Random(str(self.path)).random()
        result = StepResult(f"at {chance:.3f}", float(chance > 0.9), chance > 0.85)
        self.users.release()
        return result

    def fork(self) -> Maze:
        assert self.users.acquire(blocking=False), "two users of one session"
        if self.server.fork_fails:
            self.users.release()
            raise EnvError("no room")
        twin = self.server.session()
        twin.path = self.path
        with self.server.lock:
            self.server.copies += 1
        self.users.release()
        return twin

    def replay(self, index: int, actions: Sequence[str]) -> tuple[Task, list[StepResult]]:
        with self.server.lock:
            self.server.replays += 1
        task, results = self.reset(index), []
        for action in actions:
            results.append(self.step(action))
            if results[-1].done:
                break
        return task, results

    def close(self) -> None:
        with self.server.lock:
            self.server.open -= 1


class Wanderer(Actor):
    """Draws one of a few letters, by seed."""

    def __init__(self, letters: str = "abc") -> None:
        self.letters = letters

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        return [
            Sample(reply_text(f"{seed}:{i}", Random(f"{seed}:{i}").choice(self.letters))) for i in range(n)
        ]


def searched(
    server: Server, itera: int = 5, tree: Tree | None = None, actor: Wanderer | None = None
) -> tuple[Tree, dict[str, int]]:
    """A tree of the maze, and the run's counts."""
    settings, counters = Settings(prompt="brief", max_depth=12), Counters()
    tree = tree or new_tree(TASK)
    with closing(SessionPool(server.session)) as pool, ThreadPoolExecutor(8) as threads:
        simulator = TaskSimulator(TASK, settings, actor or Wanderer(), pool, threads, counters)
        simulator.preload(tree)
        for _ in run_search(tree, itera, Rules(n_rollout=8, max_depth=12), Random, simulator):
            pass
    return tree, counters.counts()


def executed(tree: Tree) -> int:
    return sum(node.executed for node in nodes(tree)) - 1


def test_the_trees_are_the_same_as_with_reset_and_replay():
    plain, _ = searched(Server(extensions=frozenset()))
    forked, _ = searched(Server())
    assert tree_to_dict(forked)["nodes"] == tree_to_dict(plain)["nodes"]
    assert executed(plain) > 100


def test_a_new_node_costs_hardly_more_than_its_step():
    server = Server()
    tree, counts = searched(server)
    assert len(server.taken) == counts["env_steps"] + counts.get("replayed_steps", 0)
    assert counts["env_steps"] <= 1.2 * executed(tree)
    plain = Server(extensions=frozenset())
    searched(plain)
    assert len(plain.taken) > len(server.taken)


def test_what_a_tree_cost_is_the_same_every_time():
    """Whatever the threads' timing: so a tree that is made again is the same file."""
    first = tree_to_dict(searched(Server())[0])
    assert all(tree_to_dict(searched(Server())[0]) == first for _ in range(5))


def test_a_tree_that_is_gone_on_with_costs_what_it_would_have_cost():
    whole, _ = searched(Server(), 5)
    half, _ = searched(Server(), 2)
    again, _ = searched(Server(), 5, tree_from_dict(tree_to_dict(half)))
    assert tree_to_dict(again) == tree_to_dict(whole)


def test_known_steps_are_not_executed_at_all():
    """One action, always: the first iteration executes the only path, the others nothing but the way to their node."""
    server = Server()
    tree, _ = searched(server, 1, actor=Wanderer("a"))
    assert len(server.taken) == executed(tree)
    before = len(server.taken)
    searched(server, 4, tree, Wanderer("a"))
    assert len(server.taken) == before


def test_all_sessions_are_closed_in_the_end():
    server = Server()
    searched(server)
    assert server.copies > 5
    assert server.open == 0


def test_where_copies_fail_the_rollouts_replay():
    plain, _ = searched(Server(extensions=frozenset()))
    server = Server(fork_fails=True)
    tree, _ = searched(server)
    assert tree_to_dict(tree)["nodes"] == tree_to_dict(plain)["nodes"]
    assert (server.copies, server.open) == (0, 0)
    assert server.replays > 5


def test_a_failing_step_ends_the_iteration_and_leaves_nothing_open():
    server = Server()

    class Failing(Maze):
        def step(self, action: str) -> StepResult:
            if len(self.path) == 4:
                raise EnvError("gone")
            return super().step(action)

        def fork(self) -> Maze:
            twin = Failing(self.server)
            twin.path = self.path
            with self.server.lock:
                self.server.open += 1
            return twin

    def session() -> Environment:
        with server.lock:
            server.open += 1
        return Failing(server)

    settings = Settings(prompt="brief", max_depth=12)
    with closing(SessionPool(session)) as pool, ThreadPoolExecutor(8) as threads:
        simulator = TaskSimulator(TASK, settings, Wanderer(), pool, threads, Counters())
        with pytest.raises(EnvError, match="gone"), simulator.iteration(0) as explorer:
            explorer.rollouts([], 8)
    assert server.open == 0


def test_a_replay_is_one_request_where_the_server_offers_it():
    server = Server()
    replies = [reply_text("t", action) for action in ("a", "wait", "b")]
    _, at_once = replay(server.session(), 7, replies)
    assert server.replays == 1
    _, stepwise = replay(Server(extensions=frozenset()).session(), 7, replies)
    assert at_once == stepwise
    assert [step.action for step in at_once] == ["a", "wait", "b"][: len(at_once)]


def test_on_the_bundled_server_a_new_node_costs_at_most_1_2_steps(textcraft_url):
    settings, counters = Settings(prompt="brief", n_rollout=6, max_depth=10), Counters()
    with closing(SessionPool(lambda: make_environment("textcraft", textcraft_url))) as pool:
        with pool.session() as env:
            tree = new_tree(env.reset(240))
        with ThreadPoolExecutor(6) as threads:
            simulator = TaskSimulator(tree.task, settings, NoisyPlayer(0.5), pool, threads, counters)
            for _ in run_search(tree, 4, Rules(n_rollout=6, max_depth=10), Random, simulator):
                pass
    # The steps of copies that catch up depend on the threads' timing, so the benchmark counts them, not a test.
    assert counters.counts()["env_steps"] <= 1.2 * executed(tree)
    assert executed(tree) > 40
