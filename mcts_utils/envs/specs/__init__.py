"""Describe each AgentGym environment in one file: fields of requests and answers, prompts, names of tasks. Pure.

Every module here except base.py, described.py and tools.py holds one SPEC, and its name is the environment's. To add
an environment, add a file. A name with a colon is an environment that its server describes.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from mcts_utils.envs.specs.base import EnvSpec
from mcts_utils.envs.specs.described import DescribedSpec
from mcts_utils.envs.specs.tools import SPECS
from mcts_utils.types import InputError


@cache
def names() -> tuple[str, ...]:
    """Return the names of the environments, sorted."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(found - {"base", "described", "tools"} | set(SPECS)))


@cache
def env_spec(name: str) -> EnvSpec:
    """Return the spec of an environment.

    Raises:
        InputError: unknown name.
    """
    if ":" in name:
        return DescribedSpec(name)
    if name not in names():
        raise InputError(f"TASK {name!r} is unknown; known: {', '.join(names())}")
    if name in SPECS:
        return SPECS[name]
    found = import_module(f"{__name__}.{name}").SPEC
    assert isinstance(found, EnvSpec)
    return found
