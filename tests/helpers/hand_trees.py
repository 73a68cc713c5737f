"""Trees made by hand over the bundled server, and a scripted judge: what the tests of stage 2 share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from mcts_utils.envs import make_environment
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import reply_text
from mcts_utils.rollouts.episode import replay
from mcts_utils.search.tree import Node, Tree, new_tree
from mcts_utils.servers.textcraft.planner import Planner
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.types import Actor, Environment, Message, Sample, Step

DOOR = 200  # crimson door: the four steps below
STEM, PLANKS = "get 2 crimson stem", "craft 4 crimson planks using 1 crimson stem"
CRAFT = "craft 3 crimson door using 6 crimson planks"
BUTTON = "craft 1 crimson button using 1 crimson planks"  # wastes one of the eight planks, six are needed
SHORT = (STEM, PLANKS, PLANKS, CRAFT)  # the planner's plan
BAD = (STEM, CRAFT, CRAFT, "inventory")
SURPLUS = "get 1 ink sac"


def replies(actions: Sequence[str]) -> list[str]:
    """Turns with numbered thoughts."""
    return [reply_text(f"step {i}", action) for i, action in enumerate(actions)]


class TreeMaker:
    """Makes a tree of the paths that it plays on a real server."""

    def __init__(self, env: Environment, index: int = DOOR) -> None:
        task, _ = replay(env, index, [])
        self.env, self.index, self.tree = env, index, new_tree(task, prompt="brief")
        self.tree.status = "done"

    def play(self, actions: Sequence[str], merge: bool = True) -> Node:
        """The leaf of a path as the environment answers it; equal beginnings share their nodes."""
        return self.add(replay(self.env, self.index, replies(actions))[1], merge)

    def add(self, steps: Sequence[Step], merge: bool = True) -> Node:
        """The leaf of a path that is given, true or forged."""
        node = self.tree.root
        for step in steps:
            same = [c for c in node.children if (c.action, c.obs) == (step.action, step.observation)]
            if not (merge and same):
                same = [self.tree.add(node, step.reply, step.action)]
            node = same[0]
            node.obs, node.reward, node.executed = step.observation, step.reward, True
            node.done, node.disaster = step.done, step.disaster
        node.is_terminal = True
        return node

    def forged(self, actions: Sequence[str], reward: float, done: bool = False) -> list[Step]:
        """The true steps, with another end than the environment gave them."""
        steps = replay(self.env, self.index, replies(actions))[1]
        return [*steps[:-1], replace(steps[-1], reward=reward, done=done)]


@contextmanager
def pool_at(url: str) -> Iterator[SessionPool]:
    """Sessions with a server."""
    pool = SessionPool(lambda: make_environment("textcraft", url))
    try:
        yield pool
    finally:
        pool.close()


def noisy_paths(env: Environment, index: int, count: int, rng: random.Random, depth: int = 20) -> Tree:
    """A tree of `count` plays of a planner with bad habits: early crafts, repeats, looks, surplus gets."""
    world = load_world()
    goal = world.goals[index]
    planner = Planner(world, goal, world.commands(goal))
    maker = TreeMaker(env, index)
    for _ in range(count):
        game, done = Session(world, goal), False
        actions: list[str] = []
        clumsy = rng.choice((0.2, 0.5, 0.9))
        while not done and len(actions) < depth:
            plan = [a.command for a in planner.plan(game.inventory)]
            noise = [plan[-1], rng.choice(plan), "inventory", SURPLUS, "dance", *actions[-1:]]
            actions.append(rng.choice(noise) if rng.random() < clumsy else plan[0])
            done = game.step(actions[-1])[2]
        maker.play(actions)
    return maker.tree


class Scripted(Actor):
    """An actor that answers by a function of (messages, temperature, seed) and counts what it was asked."""

    def __init__(self, answer: Callable[[Sequence[Message], float, int | None], str]) -> None:
        self.answer, self.asked, self._lock = answer, [], Lock()  # type: ignore[var-annotated]

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        with self._lock:
            self.asked.append((messages[-1].content, temperature, seed))
        return [Sample(self.answer(messages, temperature, seed)) for _ in range(n)]


def strict_judge(messages: Sequence[Message], temperature: float, seed: int | None) -> str:
    """Bad: what the game refused; good: everything else."""
    observation = messages[-1].content.rpartition("Current observation: ")[2]
    refused = observation.startswith(("Could not", "Wrong item"))
    return "It was refused.\nJudgment: Bad" if refused else "It helps.\nJudgment: Good"
