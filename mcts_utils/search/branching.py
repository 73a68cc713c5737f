"""Rollouts on a server that can copy its sessions (extension "fork"): no step of a task is executed twice.

Every node that was executed once has a StateNode, and a rollout that takes a known action only reads its result there.
A session is copied where a rollout continues and others remain, and moves on with the last one. A rollout that passed
known nodes and then does something new starts from a copy of the nearest session above. Servers that announce "fork"
answer the same action in the same state in the same way; for others there is env_sessions.ExclusiveCursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from mcts_utils.prompts import env_steps_of
from mcts_utils.replies import Reply
from mcts_utils.rollouts.episode import replay, take_step
from mcts_utils.search.env_sessions import Diverged, SessionManager, same_scores
from mcts_utils.types import EnvError, Environment, Step


class StateNode:
    """An executed node as the sessions see it.

    `lock` is held while a rollout takes its next step here; locks of nodes above may be taken meanwhile, never below.
    """

    __slots__ = ("children", "lock", "parent", "pending", "session", "step")

    def __init__(self, parent: StateNode | None = None, step: Step | None = None) -> None:
        self.parent, self.step = parent, step  # both None at the root
        self.children: dict[str, StateNode] = {}  # by action
        self.session: Environment | None = None  # a session in this state
        self.pending = 0  # rollouts here whose next action is not known yet
        self.lock = Lock()

    def path(self) -> list[Step]:
        """Return the steps from the root."""
        steps = []
        node: StateNode | None = self
        while node is not None and node.step is not None:
            steps.append(node.step)
            node = node.parent
        return steps[::-1]

    def find(self, path: Sequence[Step]) -> StateNode:
        """Return the node at the end of executed steps from here; missing nodes are added."""
        node = self
        for step in path:
            node = node.children.setdefault(step.action, StateNode(node, step))
        return node


class BranchingRollouts:
    """The rollouts of one iteration that start at one node."""

    def __init__(
        self, sessions: SessionManager, start: StateNode, session: Environment | None, rollouts: int
    ) -> None:
        """Prepare `rollouts` rollouts from `start`; `session` is in that state, or None."""
        self._sessions = sessions
        self._counting = Lock()
        self._visited: list[StateNode] = []  # nodes that had a session
        self._start = start
        start.pending = rollouts
        if session is not None:
            self._park(start, session)

    def cursor(self) -> BranchCursor:
        """Return the cursor of one rollout."""
        return BranchCursor(self, self._start)

    def close(self) -> None:
        """Forget which nodes have a session."""
        for node in self._visited:
            node.session, node.pending = None, 0

    def move(self, node: StateNode, child: StateNode | None = None) -> None:
        """Record that a rollout goes from a node to its child, or ends."""
        with self._counting:
            node.pending -= 1
            if child is not None:
                child.pending += 1

    def execute(self, node: StateNode, reply: str, before: Sequence[Step]) -> StateNode:
        """Execute a reply whose action is new at this node, and return the child; the node's lock is held."""
        env = self._session_to_step(node)
        try:
            step = self._sessions.step(env, reply, before)
        except EnvError:
            self._sessions.drop(env)
            raise
        child = node.children[step.action] = StateNode(node, step)
        self._park(child, env)
        return child

    def _park(self, node: StateNode, env: Environment) -> None:
        """Leave a session at the node whose state it is in."""
        node.session = env
        with self._counting:
            self._visited.append(node)

    def _session_to_step(self, node: StateNode) -> Environment:
        """Return a session that may leave this state: a copy if other rollouts are pending, else the one here."""
        env = node.session or self._copy_from_above(node)
        if node.pending > 1:
            if node.session is None:
                self._park(node, env)
            return self._copy(env) or self._replayed(node)
        node.session = None
        return env

    def _copy(self, env: Any) -> Environment | None:
        """Return a copy of the session, or None if the server cannot make one now."""
        self._sessions.check()
        try:
            return self._sessions.adopt(env.fork())
        except EnvError:
            return None

    def _copy_from_above(self, node: StateNode) -> Environment:
        """Return a session in this state, copied from the nearest node above that has one."""
        above, missing = node.parent, [node]
        while above is not None:
            with above.lock:
                env = self._copy(above.session) if above.session is not None else None
            if env is not None:
                return self._catch_up(env, above, missing[::-1])
            missing.append(above)
            above = above.parent
        return self._replayed(node)

    def _catch_up(self, env: Environment, start: StateNode, path: Sequence[StateNode]) -> Environment:
        """Bring a session from the state of `start` through the nodes of the path."""
        score = start.step.reward if start.step else 0.0
        for node in path:
            assert node.step is not None
            try:
                step = take_step(env, node.step.reply, score)
            except EnvError:
                self._sessions.drop(env)
                raise
            self._sessions.counters.add(replayed_steps=env_steps_of(step))
            if not same_scores([step], [node.step]):
                self._sessions.drop(env)
                raise Diverged(f"index {self._sessions.task.index}: a copied session answers otherwise")
            score = step.reward
        return env

    def _replayed(self, node: StateNode) -> Environment:
        """Return a session from the pool, brought to this state by a replay from the root."""
        env, path = self._sessions.take(), node.path()
        try:
            task, steps = replay(env, self._sessions.task.index, [step.reply for step in path])
        except EnvError:
            self._sessions.drop(env)
            raise
        self._sessions.counters.add(replayed_steps=sum(env_steps_of(step) for step in steps))
        if task.id != self._sessions.task.id or not same_scores(steps, path):
            self._sessions.drop(env)
            raise Diverged(f"index {task.index}: {len(path)} steps do not replay as recorded")
        return env


class BranchCursor:
    """The cursor of one of several rollouts from one node."""

    def __init__(self, rollouts: BranchingRollouts, start: StateNode) -> None:
        self._rollouts, self._node = rollouts, start

    def advance(self, reply: Reply, before: Sequence[Step]) -> Step:
        node = self._node
        with node.lock:
            child = node.children.get(reply.action) or self._rollouts.execute(node, reply.text, before)
            self._rollouts.move(node, child)
        self._node = child
        assert child.step is not None
        return replace(child.step, reply=reply.text, cut=reply.cut)

    def end(self) -> None:
        self._rollouts.move(self._node)
