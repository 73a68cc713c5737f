"""Pairs of paths, the splice and the loss flags of revision trajectories (Sections 3.1 and 4.4, Eq. 4 and 6). Pure.

It asks no judge and executes nothing; builder.py does, and passes the results in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcts_utils.prompts import opening_messages, step_messages, with_ids
from mcts_utils.rollouts.steps import EPSILON, earned, is_idle, is_refused
from mcts_utils.search.tree import Tree, leaves, path_nodes, path_steps
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import Message, Step, Task, Verdict


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The path from the root to one leaf. `nodes` and `steps` have the same length; the root is in neither."""

    root: int  # node id
    nodes: tuple[int, ...]
    steps: tuple[Step, ...]
    reward: float  # of the leaf, in [0, 1]

    @property
    def leaf(self) -> int:
        """Return the node id of the last step."""
        return self.nodes[-1]

    @property
    def actions(self) -> tuple[str, ...]:
        """Return the actions, as they were sent to the environment."""
        return tuple(step.action for step in self.steps)


@dataclass(frozen=True, slots=True)
class Pair:
    """A good and a bad path of one tree that satisfy Eq. 4."""

    good: Trajectory
    bad: Trajectory
    shared: int  # steps of tau^i: the fork is after them
    fork: int  # node id of the last tree node that both paths pass


@dataclass(frozen=True, slots=True)
class CutPoint:
    """Where a bad path is cut (transition point t')."""

    # Index into the bad path's steps, of the last one that is kept; None: no bad step was found.
    step: int | None
    verdicts: tuple[tuple[int, Verdict], ...] = ()  # (node id, verdict) in the order of the path


@dataclass(frozen=True, slots=True)
class PairRule:
    """Eq. 4: r(good) > alpha and r(good) - r(bad) > beta; strict is r(bad) < beta < r(good) instead."""

    alpha: float
    beta: float
    strict: bool = False

    def good(self, reward: float) -> bool:
        """Return True if a path of this reward is good. At alpha = 1 that is an optimal one, r = 1."""
        return reward >= 1 - EPSILON if self.alpha >= 1 else reward > self.alpha

    def apart(self, good: float, bad: float) -> bool:
        """Return True if the rewards differ enough for a pair."""
        return bad < self.beta < good if self.strict else good - bad > self.beta + EPSILON


def paths(tree: Tree) -> list[Trajectory]:
    """Return every executed path of the tree that has a step, in the order of leaf ids."""
    found = []
    for leaf in leaves(tree):
        steps = tuple(path_steps(leaf))
        if steps:
            nodes = tuple(node.id for node in path_nodes(leaf))[-len(steps) :]
            found.append(Trajectory(tree.root.id, nodes, steps, float(earned(steps))))
    return sorted(found, key=lambda path: path.leaf)


def pair_up(good: Trajectory, bad: Trajectory) -> Pair | str:
    """Return the pair, or the reason why it is none: "same_actions" or "no_error_branch" (builder.REASONS).

    The fork is the last tree node that both pass. Nodes after it with the same action and the same observation are the
    same situation, so they belong to tau^i: an error is where the paths differ.
    """
    if good.actions == bad.actions:
        return "same_actions"
    common = 0  # nodes
    while common < min(len(good.nodes), len(bad.nodes)) and good.nodes[common] == bad.nodes[common]:
        common += 1
    shared = common
    while shared < min(len(good.steps), len(bad.steps)) and _alike(good.steps[shared], bad.steps[shared]):
        shared += 1
    if shared == len(bad.steps) or good.actions[: len(bad.steps)] == bad.actions:
        return "no_error_branch"
    return Pair(good, bad, shared, bad.nodes[common - 1] if common else bad.root)


def _alike(a: Step, b: Step) -> bool:
    return a.action == b.action and a.observation == b.observation


def candidate_pairs(
    good: Sequence[Trajectory], bad: Sequence[Trajectory], rule: PairRule, env: str, rng: random.Random
) -> tuple[list[Pair], dict[str, int]]:
    """Return the pairs in the order to try them, and counts: "pairs" by rewards, and those dropped by reason.

    Every bad path comes once before any comes twice (in an order drawn by `rng`, those that repeat another's
    actions last), each first with the good path that needs the fewest steps.
    """
    counts = {"pairs": 0}
    queue: list[tuple[int, int, Pair]] = []
    shortest = sorted(good, key=lambda path: (useful_steps(path, env), path.leaf))
    for order, path in enumerate(shuffle_unique_first(bad, rng)):
        rank = 0
        for partner in shortest:
            if not rule.apart(partner.reward, path.reward):
                continue
            counts["pairs"] += 1
            pair = pair_up(partner, path)
            if isinstance(pair, str):
                counts[pair] = counts.get(pair, 0) + 1
            else:
                queue.append((rank, order, pair))
                rank += 1
    return [pair for _, _, pair in sorted(queue, key=lambda item: item[:2])], counts


def shuffle_unique_first(trajectories: Sequence[Trajectory], rng: random.Random) -> list[Trajectory]:
    """Return the paths in an order drawn by `rng`, those that repeat an earlier one's actions last."""
    drawn = rng.sample(list(trajectories), len(trajectories))
    seen: set[tuple[str, ...]] = set()
    first: list[Trajectory] = []
    again: list[Trajectory] = []
    for path in drawn:
        (again if path.actions in seen else first).append(path)
        seen.add(path.actions)
    return first + again


def useful_steps(path: Trajectory, env: str) -> int:
    """Return the number of steps that are neither refused nor looks: the pruned length, estimated without a replay."""
    return sum(not is_idle(env, step) for step in path.steps)


def first_refused(env: str, path: Trajectory, start: int) -> CutPoint:
    """Return the cut without a judge: the first refused step from `start` on, or the disaster (`--revise 0`)."""
    for index in range(start, len(path.steps)):
        step = path.steps[index]
        if step.disaster or is_refused(env, step):
            reason = "the score went negative" if step.disaster else "the environment refused the action"
            return CutPoint(index, ((path.nodes[index], Verdict("bad", reason, 0, True)),))
    return CutPoint(None)


def tail_start(pair: Pair, cut: int) -> int:
    """Return the index of the first good step that can follow the cut: after the fork, or after a cut inside tau^i."""
    return min(pair.shared, cut + 1)


def splice(bad: Sequence[Step], cut: int, signal: str, tail: Sequence[Step]) -> list[str]:
    """Return the replies of tau^r = (bad steps up to and with t', revision signal, good steps after the fork)."""
    return [step.reply for step in bad[: cut + 1]] + [signal] + [step.reply for step in tail]


def conversation(
    task: Task, steps: Sequence[Step], prompt: str, trained: Callable[[int, Step], bool], form: str = "any"
) -> list[Message]:
    """Return the messages of a path up to its last assistant turn; `trained` gives the loss flag of step i (Eq. 6)."""
    turns = [
        turn for index, step in enumerate(steps) for turn in step_messages([step], trained(index, step), form)
    ]
    while turns and turns[-1].role != "assistant":
        turns.pop()
    return opening_messages(task, prompt, form) + (with_ids(turns) if form == TOOLS else turns)


def trained_from(first: int, env: str, mask_refused: bool = True) -> Callable[[int, Step], bool]:
    """Return the loss flags: steps from `first` on are trained.

    Not those whose reply MAX_TOKEN_LENGTH cut, nor, with `mask_refused`, refused ones.
    """
    return lambda index, step: (
        index >= first and step.cut != "length" and not (mask_refused and is_refused(env, step))
    )
