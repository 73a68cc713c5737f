"""The executed steps of records: pruned good paths, and splices of a bad beginning and a good tail (Eq. 3 and 4).

It executes what it is given; which paths are paired, where they are cut and what becomes a row is in builder.py.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mcts_utils.prompts import WAIT_ACTION, WAIT_OBSERVATION, revision_signal
from mcts_utils.revision.options import Options
from mcts_utils.revision.pairs import Pair, Trajectory, splice, tail_start
from mcts_utils.revision.pruning import Shortened, shorten
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.rollouts.steps import is_idle, is_refused
from mcts_utils.types import Actor, Step


class Splicer:
    """Executes the paths of one tree's records, as short as they still earn their reward."""

    def __init__(
        self,
        env: str,
        options: Options,
        replayer: Replayer,
        prompt: str,
        actor: Actor | None,
        form: str = "any",
    ) -> None:
        """Use `actor` (with the prompt of that name) for repairs, if the options ask for them.

        `form`: how actions are read from replies.
        """
        self._env, self._options, self._replayer = env, options, replayer
        self._prompt, self._actor, self._form = prompt, actor, form
        self._pruned: dict[int, Shortened | None] = {}  # good paths by leaf
        self.repairs_tried = 0

    def prune(self, path: Trajectory) -> Shortened | None:
        """Return the good path without the steps it does not need, or None if it fails when replayed.

        With `--clean 0` the path is only replayed, with `--verified 0` as well it is returned as recorded.
        """
        if not self._options.executes_good:
            return Shortened(tuple(range(len(path.steps))), path.steps, 0)
        if path.leaf not in self._pruned:
            replies = [step.reply for step in path.steps]
            self._pruned[path.leaf] = self.shorten((), replies, path.reward, True)
        return self._pruned[path.leaf]

    def shorten(
        self, fixed: Sequence[str], replies: Sequence[str], reward: float, every: bool
    ) -> Shortened | None:
        """Return the executed path of `fixed` and what it needs of `replies` (pruning.shorten)."""
        budget = self._options.clean_replays if self._options.clean else 0
        return shorten(
            fixed, replies, self._replayer, env=self._env, reward=reward, budget=budget, every=every
        )

    def splice(
        self, pair: Pair, cut: int, pruned: Shortened, kept: Sequence[int], rng: random.Random
    ) -> tuple[Step, ...] | None:
        """Return the revision trajectory tau^r as executed; with `--verified 0` as recorded.

        Args:
            cut: index of the last bad step that is kept.
            pruned: the pair's good path after `prune`.
            kept: indices of the good steps that follow the revision signal.

        Returns:
            None if the executed trajectory does not earn the good path's reward.
        """
        signal = revision_signal(rng, self._form)
        if not self._options.verified:
            tail = pruned.steps[len(pruned.steps) - len(kept) :]
            before = pair.bad.steps[: cut + 1]
            return (*before, Step(signal, WAIT_ACTION, WAIT_OBSERVATION, before[-1].reward), *tail)
        short = self._execute(pair, cut, kept, splice(pair.bad.steps, cut, signal, ()), rng)
        return None if short is None else short.steps

    def _execute(
        self, pair: Pair, cut: int, kept: Sequence[int], fixed: Sequence[str], rng: random.Random
    ) -> Shortened | None:
        """Execute `fixed` (bad steps and signal), then the pruned good tail, else the whole one, else a repair."""
        good = [step.reply for step in pair.good.steps]
        start = tail_start(pair, cut)
        # If the bad steps changed nothing, the pruned tail has nothing left to leave out.
        changed = any(not is_idle(self._env, step) for step in pair.bad.steps[pair.shared : cut + 1])
        short = self.shorten(fixed, [good[i] for i in kept], pair.good.reward, changed)
        if short is None and len(kept) < len(good) - start:
            short = self.shorten(fixed, good[start:], pair.good.reward, True)
        if short is None and self._options.repair and self._actor is not None:
            short = self._repair(self._actor, fixed, good[start:], pair.good.reward, rng)
        return short

    def _repair(
        self, actor: Actor, fixed: Sequence[str], replies: Sequence[str], reward: float, rng: random.Random
    ) -> Shortened | None:
        """Let the actor continue from the first good step that is refused after the bad ones."""
        executed = self._replayer([*fixed, *replies])
        refused = [i for i, step in enumerate(executed) if i >= len(fixed) and is_refused(self._env, step)]
        prefix = executed[: refused[0]] if refused else executed
        if len(executed) <= len(fixed) or prefix[-1].done or prefix[-1].disaster:
            return None
        self.repairs_tried += 1
        options = self._options
        seed = rng.randrange(2**31)
        steps = self._replayer.resume(
            actor, prefix, self._prompt, options.max_depth, options.temperature, seed
        )
        return self.shorten(fixed, [step.reply for step in steps[len(fixed) :]], reward, True)
