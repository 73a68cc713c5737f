"""Play episodes on an environment server without the client's repairs: an error ends the episode and is kept."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs.base import EnvSpec
from mcts_utils.types import EnvError, StepResult

WORD = re.compile(r"[A-Za-z][\w-]*")
NONSENSE = ("xyzzy", "qwfp zxcv", "frobnicate the plugh 7")


@dataclass
class Played:
    """An episode."""

    index: int
    opening: str = ""
    actions: list[str] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    own_rewards: list[Any] = field(default_factory=list)  # as the environment gave them; None: unknown
    error: str = ""  # that ended it
    seconds: float = 0.0  # of the steps
    given: bool = False  # its actions were given, not drawn

    @property
    def done(self) -> bool:
        """Return True if the environment ended the episode."""
        return bool(self.results) and self.results[-1].done


Choice = Callable[["RawSession", Played], str | None]  # the next action; None ends the episode


class RawSession:
    """One session: single requests, nothing repeated."""

    def __init__(self, http: HttpSession, spec: EnvSpec, number: int | None = None) -> None:
        """Create a session, or use the one of id `number`; raise EnvError if there is no usable answer."""
        self._http, self._spec = http, spec
        self._id = (
            spec.session_id(http.post("/create", dict(spec.create_fields))) if number is None else number
        )

    def reset(self, index: int) -> str:
        """Start a task and return its opening."""
        body = {self._spec.id_field: self._id, self._spec.index_field: index, **self._spec.reset_fields}
        answer = self._http.post("/reset", body)
        return self._spec.started(answer, index).task.opening

    def step(self, action: str) -> tuple[StepResult, Any]:
        """Execute an action; return its result and the environment's own reward, None where it is not told."""
        answer = self._http.post("/step", {self._spec.id_field: self._id, "action": self._spec.sent(action)})
        return self._spec.result(answer), answer.get("own_reward") if isinstance(answer, dict) else None

    def fork(self) -> RawSession:
        """Return a copy of the session."""
        number = int(self._http.post("/fork", {self._spec.id_field: self._id})[self._spec.id_field])
        return RawSession(self._http, self._spec, number)

    def valid_actions(self) -> list[str]:
        """Return the actions that the environment lists as valid."""
        return [str(action) for action in self._http.get("/valid_actions", {self._spec.id_field: self._id})]

    def close(self) -> None:
        """Close the session."""
        self._http.post("/close", {self._spec.id_field: self._id})


def begin(session: RawSession, index: int) -> Played:
    """Return an episode after its reset, with its error if that failed."""
    played = Played(index)
    try:
        played.opening = session.reset(index)
    except EnvError as error:
        played.error = said(error)
    return played


def advance(session: RawSession, played: Played, choose: Choice) -> bool:
    """Take one more step; return False if the episode is over."""
    if played.error or played.done:
        return False
    began = time.perf_counter()
    try:
        action = choose(session, played)
        if action is None:
            return False
        played.actions.append(action)
        began = time.perf_counter()
        result, own = session.step(action)
    except EnvError as error:
        played.error = said(error)
        return False
    finally:
        played.seconds += time.perf_counter() - began
    played.results.append(result)
    played.own_rewards.append(own)
    return not result.done


def play(session: RawSession, index: int, choose: Choice, most: int) -> Played:
    """Return an episode of at most so many steps."""
    played = begin(session, index)
    while len(played.actions) < most and advance(session, played, choose):
        pass
    return played


def again(actions: Sequence[str], first: int = 0) -> Choice:
    """Return the choice of these actions, from number `first` on."""

    def choose(_: RawSession, played: Played) -> str | None:
        at = first + len(played.actions)
        return actions[at] if at < len(actions) else None

    return choose


def drawn(rng: random.Random, lists: bool, prompt: str) -> Choice:
    """Return the choice of random actions: valid ones where they are listed, else words that were read."""

    def choose(session: RawSession, played: Played) -> str:
        if lists and (valid := session.valid_actions()):
            return rng.choice(valid)
        seen = [played.opening, *(result.observation for result in played.results[-1:]), prompt]
        words = WORD.findall(" ".join(seen)) or ["look"]
        return " ".join(rng.choices(words, k=rng.randint(1, 3)))

    return choose


def difference(before: Played, now: Played, first: int = 0) -> str:
    """Return how an episode differs from its first execution, from step `first` on; "" if it does not."""
    where = f"index {before.index}"
    if first == 0 and now.opening != before.opening:
        return f"{where}, opening: {short(now.opening)}, before {short(before.opening)}"
    for number, (one, two) in enumerate(zip(before.results[first:], now.results, strict=False), first):
        action = before.actions[number]
        for name in ("observation", "reward", "done"):
            old, new = getattr(one, name), getattr(two, name)
            if old != new:
                what = "text" if name == "observation" else name
                return f"{where}, step {number + 1} {action!r}, {what}: {short(new)}, before {short(old)}"
    if now.error != before.error:
        return f"{where}: {now.error or 'no error'}, before {before.error or 'no error'}"
    return ""


def short(value: Any) -> str:
    """Return a value on one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def said(error: EnvError) -> str:
    """Return an error without the address of the request."""
    return re.sub(r"^(?:GET|POST) http://\S+ ?: ?", "", " ".join(str(error).split()))
