"""Rollouts on a server that can copy its sessions (extension "fork"): no step of a task is executed twice.

Every node that was executed once is a Place, and a rollout that takes a known action only reads there what happened.
A session is copied where a rollout leaves others behind, and moves on with the last one. A rollout that walked through
known places and then does something new starts from a copy of the nearest session behind it. Servers that announce
"fork" answer the same action in the same state in the same way; for others there is travel.LoneWalk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from mcts_utils.prompts import action_of, is_signal_step
from mcts_utils.rollouts.episode import replay, take_step
from mcts_utils.search.env_sessions import Diverged, SessionManager, same_course
from mcts_utils.types import EnvError, Environment, Step


class StateNode:
    """An executed node as the sessions see it. `lock` is held while a session leaves, then those of places above it."""

    __slots__ = ("here", "lock", "next", "parent", "session", "step")

    def __init__(self, parent: StateNode | None = None, step: Step | None = None) -> None:
        self.parent, self.step = parent, step
        self.next: dict[str, StateNode] = {}  # by action
        self.session: Environment | None = None  # it stands here
        self.here = 0  # rollouts whose next action is not known yet
        self.lock = Lock()

    def path(self) -> list[Step]:
        """The steps from the root."""
        steps = []
        place: StateNode | None = self
        while place is not None and place.step is not None:
            steps.append(place.step)
            place = place.parent
        return steps[::-1]

    def find(self, path: Sequence[Step]) -> StateNode:
        """The place at the end of executed steps from here; they are known from now on."""
        place = self
        for step in path:
            place = place.next.setdefault(step.action, StateNode(place, step))
        return place


class BranchingRollouts:
    """The rollouts of one iteration that start at one place."""

    def __init__(
        self, travel: SessionManager, start: StateNode, session: Environment | None, rollouts: int
    ) -> None:
        """`session`: it stands at the start."""
        self.travel = travel
        self._counting = Lock()
        self._stood: list[StateNode] = []
        self.start = start
        start.here = rollouts
        if session is not None:
            self._stand(start, session)

    def walk(self) -> BranchCursor:
        """One rollout's way."""
        return BranchCursor(self, self.start)

    def close(self) -> None:
        """Forget where the sessions stand."""
        for place in self._stood:
            place.session, place.here = None, 0

    def move(self, place: StateNode, known: StateNode | None = None) -> None:
        """A rollout goes from one place to the next, or out of the tree."""
        with self._counting:
            place.here -= 1
            if known is not None:
                known.here += 1

    def explore(self, place: StateNode, reply: str, before: Sequence[Step]) -> StateNode:
        """Execute what nobody did at this place before; its lock is held."""
        env = self._depart(place)
        try:
            step = self.travel.step(env, reply, before)
        except EnvError:
            self.travel.drop(env)
            raise
        found = place.next[step.action] = StateNode(place, step)
        self._stand(found, env)
        return found

    def _stand(self, place: StateNode, env: Environment) -> None:
        place.session = env
        with self._counting:
            self._stood.append(place)

    def _depart(self, place: StateNode) -> Environment:
        """A session to leave this place with: a copy if others are still here, else the one that stands here."""
        env = place.session or self._copy_from_above(place)
        if place.here > 1:
            if place.session is None:
                self._stand(place, env)
            return self._copy(env) or self._anew(place)
        place.session = None
        return env

    def _copy(self, env: Any) -> Environment | None:
        """A copy, or None where the server cannot make one now."""
        self.travel.check()
        try:
            return self.travel.adopt(env.fork())
        except EnvError:
            return None

    def _copy_from_above(self, place: StateNode) -> Environment:
        """A session brought here from the nearest place above that has one."""
        above, behind = place.parent, [place]
        while above is not None:
            with above.lock:
                env = self._copy(above.session) if above.session is not None else None
            if env is not None:
                return self._follow(env, above, behind[::-1])
            behind.append(above)
            above = above.parent
        return self._anew(place)

    def _follow(self, env: Environment, start: StateNode, places: Sequence[StateNode]) -> Environment:
        """Bring a session from one place through the next ones."""
        score = start.step.reward if start.step else 0.0
        for place in places:
            assert place.step is not None
            try:
                step = take_step(env, place.step.reply, score)
            except EnvError:
                self.travel.drop(env)
                raise
            self.travel.meter.add(replayed_steps=not is_signal_step(step))
            if not same_course([step], [place.step]):
                self.travel.drop(env)
                raise Diverged(f"index {self.travel.task.index}: a copied session answers otherwise")
            score = step.reward
        return env

    def _anew(self, place: StateNode) -> Environment:
        """A session from the pool, brought here from the beginning."""
        env, path = self.travel.take(), place.path()
        try:
            task, steps = replay(env, self.travel.task.index, [step.reply for step in path])
        except EnvError:
            self.travel.drop(env)
            raise
        self.travel.meter.add(replayed_steps=sum(not is_signal_step(step) for step in steps))
        if task.id != self.travel.task.id or not same_course(steps, path):
            self.travel.drop(env)
            raise Diverged(f"index {task.index}: {len(path)} steps do not replay as recorded")
        return env


class BranchCursor:
    """One of several rollouts from one place (travel.Walk)."""

    def __init__(self, forks: BranchingRollouts, start: StateNode) -> None:
        self._forks, self._place = forks, start

    def advance(self, reply: str, before: Sequence[Step]) -> Step:
        """See Walk."""
        place, action = self._place, action_of(reply)
        with place.lock:
            known = place.next.get(action) or self._forks.explore(place, reply, before)
            self._forks.move(place, known)
        self._place = known
        assert known.step is not None
        return replace(known.step, reply=reply)

    def end(self) -> None:
        """See Walk."""
        self._forks.move(self._place)
