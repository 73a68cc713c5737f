"""Clients of AgentGym environment servers, one class for all environments (client.py); their specs are in specs/.

It chooses no tasks (task_ids.py does) and no actions.
"""

from __future__ import annotations

from typing import Any

from mcts_utils.envs.client import AgentGym, about_server
from mcts_utils.envs.http import TIMEOUT, ConnectionLost, HttpSession
from mcts_utils.envs.specs import env_spec, names
from mcts_utils.types import EnvError, InputError

__all__ = ["AgentGym", "make_environment", "names", "server_about", "task_id"]


def make_environment(task: str, base_url: str, timeout: float = TIMEOUT, grounding: bool = True) -> AgentGym:
    """Return a session with the environment server at `base_url`; check with one request that it is the right one.

    Args:
        task: a name of `names()`.
        base_url: such as http://127.0.0.1:26001.
        timeout: seconds to wait for an answer.
        grounding: replace an action that the environment does not understand by the valid one that is meant, where the
            environment lists its valid actions (ScienceWorld).

    Raises:
        InputError: unknown task, not a URL, no answer, or a server of another environment.
    """
    spec = env_spec(task)
    http = HttpSession(base_url, timeout=timeout)
    try:
        greeting = http.get(spec.hello)
    except ConnectionLost as error:
        raise InputError(f"env_server_base {http.base_url}: no server answers ({error})") from error
    except EnvError as error:
        raise InputError(f"env_server_base {http.base_url} is no {spec.title} server ({error})") from error
    if not spec.greets(greeting):
        said = f"it says {str(greeting)[:80]!r}"
        raise InputError(f"env_server_base {http.base_url} serves no {spec.title}: {said}")
    return AgentGym(http, spec, grounding)


def server_about(base_url: str) -> dict[str, Any]:
    """Return a server's description of itself: {"kind": ..., "extensions": [...], ...}; public ones are "agentgym".

    Raises:
        InputError: not a URL, no answer, or not an environment server.
    """
    http = HttpSession(base_url)
    try:
        return about_server(http)
    except EnvError as error:
        raise InputError(f"env_server_base {base_url}: {error}") from error
    finally:
        http.close()


def task_id(env: str, opening: str, index: int = -1) -> str:
    """Return the id of a task from its opening text, such as textcraft:1f0c9ab2d3e4f506. Every server gives the same.

    Args:
        index: the server's index, which is part of the ids of ScienceWorld and BabyAI, where goals repeat.

    Raises:
        InputError: unknown environment.
        EnvError: the text names no goal, or there is no task of this index.
    """
    return env_spec(env).task_id(opening, index)
