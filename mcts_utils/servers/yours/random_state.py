"""Give each session its own state of Python's and NumPy's global random generators. For one thread."""

from __future__ import annotations

import random
from typing import Any

import numpy


class RandomState:
    """The state of one session: in the generators while the session is the last one used, else kept here."""

    _owner: RandomState | None = None  # whose state the generators hold

    def __init__(self) -> None:
        self._kept: tuple[Any, Any] | None = None

    def seed(self, number: int) -> None:
        """Seed the generators, as a reset does, so that a task always begins in the same state."""
        self.enter()
        random.seed(number)
        numpy.random.seed(number % 2**32)

    def enter(self) -> None:
        """Put this state into the generators, unless it is there."""
        owner = RandomState._owner
        if owner is self:
            return
        if owner is not None:
            owner._kept = _current()
        if self._kept is not None:
            _put(self._kept)
        RandomState._owner = self

    def copy(self) -> RandomState:
        """Return another state that draws the same numbers from here on."""
        self.enter()
        twin = RandomState()
        twin._kept = _current()
        return twin


def _current() -> tuple[Any, Any]:
    return random.getstate(), numpy.random.get_state()


def _put(state: tuple[Any, Any]) -> None:
    random.setstate(state[0])
    numpy.random.set_state(state[1])
