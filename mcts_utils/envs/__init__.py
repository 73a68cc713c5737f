"""Clients of AgentGym environment servers: session.py drives any contract, http.py is the connection."""

from __future__ import annotations

from typing import Any

from mcts_utils.envs.client import AgentGym, about
from mcts_utils.envs.http import TIMEOUT, ConnectionLost, HttpSession
from mcts_utils.envs.specs import env_spec, names
from mcts_utils.types import EnvError, InputError

__all__ = ["AgentGym", "make_environment", "names", "server_about", "task_id"]


def make_environment(task: str, base_url: str, timeout: float = TIMEOUT, grounding: bool = True) -> AgentGym:
    """A session with the environment server at `base_url`, after one look whether it is there.

    Args:
        task: a name of `names()`.
        base_url: such as http://127.0.0.1:26001.
        timeout: seconds to wait for an answer.
        grounding: replace an action that the environment does not understand by the valid one that is meant, where the
            environment lists its valid actions (ScienceWorld).

    Raises:
        InputError: unknown task, no URL, nobody answers there, or another environment does.
    """
    found = env_spec(task)
    http = HttpSession(base_url, timeout=timeout)
    try:
        greeting = http.get(found.hello)
    except ConnectionLost as error:
        raise InputError(f"env_server_base {http.base_url}: no server answers ({error})") from error
    except EnvError as error:
        raise InputError(f"env_server_base {http.base_url} is no {found.title} server ({error})") from error
    if not found.greets(greeting):
        said = f"it says {str(greeting)[:80]!r}"
        raise InputError(f"env_server_base {http.base_url} serves no {found.title}: {said}")
    return AgentGym(http, found, grounding)


def server_about(base_url: str) -> dict[str, Any]:
    """What a server says of itself: {"kind": ..., "extensions": [...]} and more; kind "agentgym" for public ones.

    Raises:
        InputError: no URL, nobody answers there, or no environment server does.
    """
    http = HttpSession(base_url)
    try:
        return about(http)
    except EnvError as error:
        raise InputError(f"env_server_base {base_url}: {error}") from error
    finally:
        http.close()


def task_id(env: str, opening: str, index: int = -1) -> str:
    """The id of a task from its opening text, such as textcraft:1f0c9ab2d3e4f506: the same on every server.

    Args:
        index: the server's index, which names ScienceWorld's and BabyAI's tasks: their goals repeat.

    Raises:
        InputError: unknown environment.
        EnvError: the text names no goal, or there is no task of that index.
    """
    return env_spec(env).task_id(opening, index)
