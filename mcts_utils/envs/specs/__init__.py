"""What the project must know about each AgentGym environment: one file an environment. Pure.

Every module here but base.py holds one SPEC; its file name is the environment's name. A further environment is a
further file, and nothing else.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from mcts_utils.envs.specs.base import EnvSpec
from mcts_utils.types import InputError


@cache
def names() -> tuple[str, ...]:
    """The known environments, such as ("babyai", "sciworld", "textcraft", "webshop")."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != "base"))


@cache
def env_spec(name: str) -> EnvSpec:
    """The contract of an environment.

    Raises:
        InputError: unknown name.
    """
    if name not in names():
        raise InputError(f"TASK {name!r} is unknown; known: {', '.join(names())}")
    found = import_module(f"{__name__}.{name}").SPEC
    assert isinstance(found, EnvSpec)
    return found
