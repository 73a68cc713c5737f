"""Leave out the steps that a path does not need, as long as its replay earns the same. Pure: the replay is an argument.

How an environment refuses an action and which actions only look is in envs/specs. It decides nothing about rewards or
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcts_utils.rollouts.steps import EPSILON, earned, is_idle, is_refused
from mcts_utils.types import Step

Replay = Callable[[Sequence[str]], Sequence[Step]]  # replies -> executed steps, from a reset, up to done


@dataclass(frozen=True, slots=True)
class Shortened:
    """A path after pruning, as its last accepted replay returned it."""

    kept: tuple[int, ...]  # indices into the replies that were offered
    steps: tuple[Step, ...]  # the fixed beginning, then the kept steps
    tried: int  # shorter paths replayed


class _Pruning:
    """The shortest path accepted so far, and the replays left to try shorter ones."""

    def __init__(
        self, fixed: Sequence[str], replies: Sequence[str], replay: Replay, env: str, budget: int
    ) -> None:
        self.fixed, self.replies, self.replay = list(fixed), replies, replay
        self.env, self.budget = env, budget
        self.tried = 0
        self.kept, self.steps = self._run(range(len(replies)))

    def _run(self, kept: Sequence[int]) -> tuple[list[int], list[Step]]:
        steps = list(self.replay(self.fixed + [self.replies[i] for i in kept]))
        executed = max(0, len(steps) - len(self.fixed))  # it may be done before its last step
        return list(kept[:executed]), steps

    def refusals(self, steps: Sequence[Step]) -> int:
        """Return the number of refused steps after the fixed ones."""
        return sum(is_refused(self.env, step) for step in steps[len(self.fixed) :])

    def without(self, out: set[int], reward: float) -> bool:
        """Leave the indices in `out` out if the replay still earns `reward` and refuses no more than before.

        Returns True if they were left out.
        """
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
        """Return the kept indices, each with its executed step."""
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
    """Return the path without the replies whose absence does not cost the reward.

    Args:
        fixed: replies executed before, never left out (the bad prefix and the revision signal; empty for a good path).
        replies: candidates, in order.
        reward: what the whole must earn, in [0, 1].
        budget: the number of shorter paths that may be replayed; 0 only verifies the path as it is.
        every: also try steps that are neither idle nor repeated.

    Returns:
        None if the path as it is does not earn `reward`.
    """
    pruning = _Pruning(fixed, replies, replay, env, budget)
    if len(pruning.steps) <= len(fixed) or earned(pruning.steps) < reward - EPSILON:
        return None
    done_before = {step.action for step in pruning.steps[: len(fixed)]}
    for suspect in (lambda s: is_idle(env, s), lambda s: s.action in done_before):
        out = {i for i, step in pruning.tail() if suspect(step)}
        if not pruning.without(out, reward) and len(out) > 1:
            _one_by_one(pruning, out, reward)
    if every:
        # The step that ended the episode earned its reward.
        _one_by_one(pruning, {i for i, step in pruning.tail() if not step.done}, reward)
    return Shortened(tuple(pruning.kept), tuple(pruning.steps), pruning.tried)


def _one_by_one(pruning: _Pruning, candidates: set[int], reward: float) -> None:
    """Try the candidates from last to first: without a step, those that only supplied it are not needed either."""
    for i in sorted(candidates, reverse=True):
        pruning.without({i}, reward)
