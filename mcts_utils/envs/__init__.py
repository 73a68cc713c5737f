"""Clients of AgentGym environment servers: one file per environment, http.py for the connection."""

from __future__ import annotations

from mcts_utils.envs import textcraft
from mcts_utils.envs.http import TIMEOUT, ConnectionLost, HttpSession
from mcts_utils.types import EnvError, Environment, InputError

TASKS = (textcraft.NAME,)


def make_environment(task: str, base_url: str, timeout: float = TIMEOUT) -> Environment:
    """A session with the environment server at `base_url`, after one look whether it is there.

    Args:
        task: a name of TASKS.
        base_url: such as http://127.0.0.1:26001.
        timeout: seconds to wait for an answer.

    Raises:
        InputError: unknown task, no URL, nobody answers there, or another environment does.
    """
    if task not in TASKS:
        raise InputError(f"TASK {task!r} is unknown; known: {', '.join(TASKS)}")
    http = HttpSession(base_url, timeout=timeout)
    try:
        greeting = http.get("/")
    except ConnectionLost as error:
        raise InputError(f"env_server_base {http.base_url}: no server answers ({error})") from error
    except EnvError as error:
        raise InputError(f"env_server_base {http.base_url} is no environment server ({error})") from error
    if textcraft.GREETING.lower() not in str(greeting).lower():
        said = f"it says {str(greeting)[:80]!r}"
        raise InputError(f"env_server_base {http.base_url} serves no {textcraft.GREETING}: {said}")
    return textcraft.TextCraft(http)


def task_id(env: str, opening: str) -> str:
    """The id of a task from its opening text, such as textcraft:1f0c9ab2d3e4f506: the same on every server.

    Raises:
        InputError: unknown environment.
        EnvError: the text names no goal.
    """
    if env != textcraft.NAME:
        raise InputError(f"environment {env!r} is unknown; known: {', '.join(TASKS)}")
    return textcraft.task_id(opening)
