"""Play an environment of yours: one session a made object, its answers checked, each fault named in one line.

What an object may have is in docs/your-environment.md; only `reset` and `step` are needed. A Gymnasium environment is
one with `unwrapped` and `action_space`: its reset takes `seed=`, its step returns five values.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import numpy

from mcts_utils.servers.yours.random_state import RandomState
from mcts_utils.servers.yours.rewards import RewardError, rule_of
from mcts_utils.servers.yours.source import SourceError, digest_of, load, name_of

FORK, REPLAY, LIVE = "fork", "replay", "live"
MOST = 1_000_000  # indices of a part of the split, as a stage takes (envs/task_ids.py)
EXTENSIONS = {FORK: ["fork", "replay"], REPLAY: ["replay"], LIVE: []}


class WorldError(ValueError):
    """The environment's code failed or returned what cannot be used."""


class World:
    """An environment of yours: it makes the objects, and says what they state about themselves."""

    def __init__(self, source: str) -> None:
        """Load the source and make one object, which is only asked for what it states.

        Raises:
            SourceError: it cannot be loaded or made, or states something wrong.
        """
        self.name = name_of(source)
        self._make, self._state = load(source), RandomState()
        try:
            self.stated = self.make()
            inner = getattr(self.stated, "unwrapped", self.stated)
            self.rule = rule_of(inner)
            self.split = _split(self.call("split()", inner.split)) if hasattr(inner, "split") else None
            self.mode = _mode(self.stated, inner)
            prompt = getattr(inner, "prompt", None) or ""
            prompt = self.call("prompt()", prompt) if callable(prompt) else prompt
            prompt = _text("prompt", prompt, "the system turn")
            tools = _tools(getattr(inner, "tools", None) or {})
        except Exception as error:  # what it states is code of somebody else
            kind = "" if isinstance(error, (WorldError, RewardError)) else f"{type(error).__name__}: "
            raise SourceError(f"{source}: {kind}{' '.join(str(error).split())}") from error
        self._inner = inner
        self.offers = [name for name in ("expert", "is_refusal", "valid_actions") if hasattr(inner, name)]
        self.about: dict[str, Any] = {
            "env": self.name,
            "kind": f"agent-r-yours-{self.mode}-{digest_of(source, inner)}",
            "goals": len({index for ids in (self.split or {}).values() for index in ids}),
            "mode": self.mode,
            "extensions": EXTENSIONS[self.mode],
            "prompt": prompt,
            "offers": self.offers,
        } | ({"tools": tools} if tools else {})

    def make(self) -> Any:
        """Return a new object; raise WorldError if it cannot be made, or has no `reset` or `step`."""
        env = self.call("making it", self._make)
        if missing := [name for name in ("reset", "step") if not callable(getattr(env, name, None))]:
            raise WorldError(f"a {type(env).__name__} has no {missing[0]}()")
        return env

    def expert(self, index: int) -> list[str]:
        """Return actions that solve a task; empty where none are known."""
        self._state.seed(index)
        return _texts("expert()", self.call(f"expert({index})", self._inner.expert, index) or [])

    def is_refusal(self, text: str) -> bool:
        """Return True if an observation refuses its action."""
        self._state.enter()
        return bool(self.call(f"is_refusal({text[:60]!r})", self._inner.is_refusal, text))

    def call(self, what: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Return what the environment's code returns.

        Raises:
            WorldError: it raises anything, SystemExit and KeyboardInterrupt included.
        """
        try:
            return function(*args, **named)
        except BaseException as error:
            raise WorldError(
                f"{what} raised {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error


class Session:
    """One object in use. Its methods raise WorldError where the environment fails, ValueError for a wrong request."""

    def __init__(self, world: World, env: Any = None, state: RandomState | None = None) -> None:
        self.world, self._state = world, state or RandomState()
        self._state.enter()
        self._env = world.make() if env is None else env
        self._totals: dict[str, float] = {}
        self.shown: str | None = None  # the last observation; None before the first reset
        self.done = False

    def reset(self, index: int) -> str:
        """Start task `index` with generators seeded by it, and return the opening."""
        if index < 0:
            raise ValueError(f"There is no task {index}.")
        self._state.seed(index)
        self._totals, self.done, self.shown = {}, False, None
        reset = self._env.reset
        gym = hasattr(self._env, "unwrapped") and hasattr(self._env, "action_space")
        args, named = ((), {"seed": index}) if gym else ((index,), {})
        answer = self.world.call(f"reset({index})", reset, *args, **named)
        self.shown = _text(f"reset({index})", answer[0] if isinstance(answer, tuple) and answer else answer)
        return self.shown

    def step(self, action: str) -> dict[str, Any]:
        """Execute an action and return observation, score so far and whether the episode is done."""
        if self.shown is None or self.done:
            raise ValueError("The episode has finished." if self.done else "Reset the session first.")
        self._state.enter()
        what = f"step({action[:60]!r})"
        answer = self.world.call(what, self._env.step, action)
        if not isinstance(answer, tuple | list) or len(answer) not in (3, 5):
            raise WorldError(f"{what} returned {_kind(answer)}, not (text, reward, done)")
        text, reward, *ends = answer[:4] if len(answer) == 5 else answer
        if bad := [end for end in ends if type(end).__name__ not in ("bool", "bool_")]:
            raise WorldError(f"{what} returned done={bad[0]!r}, not True or False")
        try:
            self._totals = self.world.rule.add(self._totals, reward)
            score = self.world.rule.score(self._totals)
        except RewardError as error:
            raise WorldError(f"{what}: {error}") from error
        self.shown, self.done = _text(what, text), any(ends)
        own = reward.items() if isinstance(reward, Mapping) else [("", reward)]
        given = {str(name): float(value) for name, value in own}
        result = {"observation": self.shown, "reward": score, "done": self.done}
        if "is_refusal" in self.world.offers:
            result["refused"] = self.world.is_refusal(self.shown.lstrip())
        return {**result, "own_reward": given.get("", given)}

    def valid_actions(self) -> list[str]:
        """Return the actions that are valid now; the session draws the same numbers after it."""
        kept = self._state.copy()
        inner = getattr(self._env, "unwrapped", self._env)
        valid = _texts("valid_actions()", self.world.call("valid_actions()", inner.valid_actions))
        self._state = kept
        return valid

    def copy(self) -> Session:
        """Return another session in the same state."""
        self._state.enter()
        call, env = self.world.call, self._env
        if hasattr(env, "copy"):
            other = call("copy()", env.copy)
            if type(other) is not type(env) or other is env:
                raise WorldError(f"copy() returned {_kind(other)}, not another {type(env).__name__}")
        else:
            other, saved = self.world.make(), call("save()", env.save)
            call("load()", other.load, copy.deepcopy(saved))
        twin = Session(self.world, other, self._state.copy())
        twin._totals, twin.shown, twin.done = dict(self._totals), self.shown, self.done
        return twin

    def close(self) -> None:
        """Close the object, where it can be closed."""
        self._state.enter()
        if hasattr(self._env, "close"):
            self.world.call("close()", self._env.close)


def _mode(env: Any, inner: Any) -> str:
    """Return the mode that is stated, else what the object's methods allow."""
    copies = hasattr(env, "copy") or (hasattr(env, "save") and hasattr(env, "load"))
    mode = getattr(inner, "search_mode", FORK if copies else REPLAY)
    if mode not in EXTENSIONS:
        raise WorldError(f"search_mode must be one of {', '.join(EXTENSIONS)}: {mode!r}")
    if mode == FORK and not copies:
        raise WorldError("search_mode 'fork' needs copy(), or save() and load()")
    return str(mode)


def _split(found: Any) -> dict[str, list[int]]:
    """Return the split; every index is at least 0 and in one part."""
    if not isinstance(found, Mapping) or not {"train", "test"} & set(found):
        raise WorldError(f"split() returned {_kind(found)}, not {{'train': indices, 'test': indices}}")
    split: dict[str, list[int]] = {}
    seen: dict[int, str] = {}
    for name, ids in found.items():
        split[str(name)] = listed = _listed(ids) or []
        if _listed(ids) is None or any(type(index) is not int or index < 0 for index in listed):
            raise WorldError(f"split()[{name!r}] is no list of indices from 0: {str(ids)[:60]}")
        if len(listed) > MOST:
            raise WorldError(f"split()[{name!r}] has more than {MOST} indices")
        for index in listed:
            if seen.setdefault(index, str(name)) != str(name):
                raise WorldError(f"split(): index {index} is in {seen[index]!r} and in {name!r}")
    return split


def _tools(found: Any) -> dict[str, str]:
    """Return the tools that an environment states: name -> command with its places, such as `go {direction}`."""
    if not isinstance(found, Mapping):
        raise WorldError(f"tools is {_kind(found)}, not {{name: command}}")
    for name, command in found.items():
        if (
            not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(name))
            or not isinstance(command, str)
            or not command.strip()
        ):
            raise WorldError(
                f"tools: {name!r} is no name of a tool, or its command no text: {command!r}"[:200]
            )
    return dict(found)


def _text(what: str, value: Any, role: str = "its observation") -> str:
    """Return a text with lone surrogates, which UTF-8 cannot encode, replaced by `?`."""
    if not isinstance(value, str):
        raise WorldError(f"{what} returned {_kind(value)} as {role}, not text")
    return value.encode("utf-8", "replace").decode("utf-8")


def _texts(what: str, value: Any) -> list[str]:
    texts = _listed(value)
    if texts is None or any(not isinstance(text, str) for text in texts):
        raise WorldError(f"{what} returned {_kind(value)}, not a list of actions")
    return texts


def _listed(value: Any) -> list[Any] | None:
    """Return a list, tuple, set, range, generator or array as a list of at most MOST + 1; None for anything else."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return None
    return list(islice(value.tolist() if isinstance(value, numpy.ndarray) else value, MOST + 1))


def _kind(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {' '.join(repr(value).split())[:60]}"
