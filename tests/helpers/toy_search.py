"""A toy task for the search: no actor, no environment, every draw from a seed.

Actions are letters, drawn evenly. An episode ends after `depth` steps, with reward 1 at the chance of its first action.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from mcts_utils.replies import Reply
from mcts_utils.search.mcts import Rules, run_search
from mcts_utils.search.tree import Tree, new_tree
from mcts_utils.types import Step, Task

TASK = Task("textcraft", 5, "textcraft:toy", "Goal: craft a toy.")


@dataclass
class Toy:
    """mcts.Simulator and mcts.Explorer in one; `asked` counts the turns drawn for expansions."""

    seed: int = 0
    chances: Mapping[str, float] = field(default_factory=lambda: {"a": 0.2, "b": 0.8, "c": 0.5})
    depth: int = 4
    asked: list[int] = field(default_factory=list)
    executed: int = 0
    number: int = 0

    @contextmanager
    def iteration(self, number: int) -> Iterator[Toy]:
        self.number = number
        yield self

    def sample(self, path: Sequence[Step], n: int) -> list[Reply]:
        self.asked.append(n)
        return [self._turn(path, f"draw{i}") for i in range(n)]

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        self.executed += 1
        return self._answer(path, reply)

    def rollouts(
        self, path: Sequence[Step], k: int, max_steps: int | None = None
    ) -> list[tuple[Step, ...] | None]:
        return [self._rollout(path, i) for i in range(k)]

    def counts(self) -> Mapping[str, int]:
        return {"calls": 1}

    def _rollout(self, path: Sequence[Step], number: int) -> tuple[Step, ...]:
        steps = list(path)
        while not steps or not steps[-1].done:
            steps.append(self._answer(steps, self._turn(steps, f"rollout{number}")[0]))
        return tuple(steps[len(path) :])

    def _turn(self, path: Sequence[Step], what: str) -> Reply:
        action = Random(f"{self.seed}:{self.number}:{len(path)}:{what}").choice(sorted(self.chances))
        return Reply(f"Thought: {what}\nAction: {action}", action)

    def _answer(self, path: Sequence[Step], reply: str) -> Step:
        actions = [step.action for step in path] + [reply[-1]]
        done = len(actions) >= self.depth
        won = done and Random(f"{self.seed}:{actions}").random() < self.chances[actions[0]]
        return Step(reply, reply[-1], f"did {reply[-1]}", float(won), done)


def toy_tree(
    toy: Toy, itera: int, rules: Rules | None = None, seed: int = 0, tree: Tree | None = None
) -> Tree:
    """A search of the toy task, new or resumed."""
    tree = tree or new_tree(TASK, {"itera": itera}, "brief", seed)
    for _ in run_search(tree, itera, rules or Rules(), lambda i: Random(f"{seed}:{i}"), toy):
        pass
    return tree


def shape(tree: Tree) -> Counter[int]:
    """Nodes by depth."""
    found: Counter[int] = Counter()
    stack = [tree.root]
    while stack:
        node = stack.pop()
        found[node.depth] += 1
        stack += node.children
    return found
