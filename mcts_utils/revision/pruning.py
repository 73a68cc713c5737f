"""Leaving out what a path does not need, wherever its replay earns the same. Pure: the replay is an argument.

How an environment refuses an action and which actions only look, its contract says. Decides nothing about rewards or
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcts_utils.prompts import action_of
from mcts_utils.rollouts.steps import EPSILON, earned, is_idle, is_refused
from mcts_utils.types import Step

Replay = Callable[
    [Sequence[str]], Sequence[Step]
]  # replies -> the steps that came back, from a reset, up to done


@dataclass(frozen=True, slots=True)
class Shortened:
    """What is left of a path, as its last accepted replay returned it."""

    kept: tuple[int, ...]  # indices into the replies that were offered
    steps: tuple[Step, ...]  # the fixed beginning, then the kept steps
    tried: int  # shorter paths replayed


class _Leaving:
    """The shortest path accepted so far, and the replays left to try shorter ones."""

    def __init__(
        self, fixed: Sequence[str], replies: Sequence[str], replay: Replay, env: str, budget: int
    ) -> None:
        self.fixed, self.replies, self.replay, self.env, self.budget = (
            list(fixed),
            replies,
            replay,
            env,
            budget,
        )
        self.tried = 0
        self.kept, self.steps = self._run(range(len(replies)))

    def _run(self, kept: Sequence[int]) -> tuple[list[int], list[Step]]:
        steps = list(self.replay(self.fixed + [self.replies[i] for i in kept]))
        return list(
            kept[: max(0, len(steps) - len(self.fixed))]
        ), steps  # it may be done before its last step

    def refusals(self, steps: Sequence[Step]) -> int:
        return sum(is_refused(self.env, step) for step in steps[len(self.fixed) :])

    def without(self, out: set[int], reward: float) -> bool:
        """Leave these out if the replay still earns `reward` and refuses no more than before."""
        kept = [i for i in self.kept if i not in out]
        if not out or len(kept) == len(self.kept) or self.tried >= self.budget:
            return False
        self.tried += 1
        kept, steps = self._run(kept)
        if earned(steps) < reward - EPSILON or self.refusals(steps) > self.refusals(self.steps):
            return False
        self.kept, self.steps = kept, steps
        return True

    def tail(self) -> list[tuple[int, Step]]:
        return list(zip(self.kept, self.steps[len(self.fixed) :], strict=True))


def shorten(
    fixed: Sequence[str],
    replies: Sequence[str],
    replay: Replay,
    *,
    env: str,
    reward: float,
    budget: int,
    every: bool = True,
) -> Shortened | None:
    """Leave out, one by one, the replies whose absence does not cost the reward.

    Args:
        fixed: replies executed before, never left out (the bad prefix and the revision signal; empty for a good path).
        replies: candidates, in order.
        reward: what the whole must earn, in [0, 1].
        budget: how many shorter paths may be replayed; 0 only verifies the path as it is.
        every: also try steps that do not look idle or repeated.

    Returns:
        None if the path as it is does not earn `reward`.
    """
    state = _Leaving(fixed, replies, replay, env, budget)
    if len(state.steps) <= len(fixed) or earned(state.steps) < reward - EPSILON:
        return None
    done_before = {action_of(reply) for reply in fixed}
    for suspect in (lambda s: is_idle(env, s), lambda s: s.action in done_before):
        out = {i for i, step in state.tail() if suspect(step)}
        if not state.without(out, reward) and len(out) > 1:
            _one_by_one(state, out, reward)
    if every:
        # The step that ended the episode earned its reward.
        _one_by_one(state, {i for i, step in state.tail() if not step.done}, reward)
    return Shortened(tuple(state.kept), tuple(state.steps), state.tried)


def _one_by_one(state: _Leaving, candidates: set[int], reward: float) -> None:
    """From the end to the beginning: a step that nothing uses any more may free the steps that supplied it."""
    for i in sorted(candidates, reverse=True):
        state.without({i}, reward)
