"""Clients of AgentGym environment servers, one class for all environments (client.py); their specs are in specs/.

It chooses no tasks (task_ids.py does) and no actions.
"""

from __future__ import annotations

from typing import Any

from mcts_utils.envs.client import AgentGym, about_server
from mcts_utils.envs.errors import ConnectionLost, EnvAnswer, ServerGone, Unavailable
from mcts_utils.envs.http import TIMEOUT, HttpSession
from mcts_utils.envs.specs import env_spec, names
from mcts_utils.envs.specs.base import EnvSpec
from mcts_utils.envs.specs.described import DescribedSpec
from mcts_utils.types import EnvError, InputError

__all__ = ["AgentGym", "make_environment", "names", "server_about", "task_id"]


def make_environment(
    task: str,
    base_url: str,
    timeout: float = TIMEOUT,
    grounding: bool = True,
    patience: float = 0.0,
    action_format: str = "any",
) -> AgentGym:
    """Return a session with the environment server at `base_url`; check with one request that it is the right one.

    Args:
        task: a name of `names()`.
        base_url: such as http://127.0.0.1:26001.
        timeout: seconds to wait for an answer.
        grounding: replace an action that the environment does not understand by the valid one that is meant, where the
            environment lists its valid actions (ScienceWorld).
        action_format: how actions are read from replies, a key of replies.FORMATS.
        patience: seconds (SERVER_PATIENCE) for which a server that has answered before is waited for while it fails.

    Raises:
        InputError: unknown task, not a URL, no answer, or a server of another environment.
        EnvError: a server that has answered before fails; ServerGone if it answers nobody any more.
    """
    spec = env_spec(task)
    http = HttpSession(base_url, timeout=timeout, patience=patience)
    greet(spec, http)
    if isinstance(spec, DescribedSpec):
        describe(spec, http)
    return AgentGym(http, spec, grounding, action_format=action_format)


def greet(spec: EnvSpec, http: HttpSession) -> None:
    """Check with one request that a server is of the spec's environment.

    Raises:
        InputError, EnvError: as make_environment.
    """
    try:
        greeting = http.get_patiently(spec.hello) if http.watch.known else http.get(spec.hello)
    except ConnectionLost as error:
        if http.watch.known:
            raise
        if isinstance(error, Unavailable):
            raise InputError(
                f"env_server_base {http.base_url} is no {spec.title} server ({error})"
            ) from error
        raise InputError(f"env_server_base {http.base_url}: no server answers ({error})") from error
    except EnvAnswer as error:
        greeting = str(error)  # {"error"} tells, too, who answers
    except ServerGone:
        raise
    except EnvError as error:
        raise InputError(f"env_server_base {http.base_url} is no {spec.title} server ({error})") from error
    if not spec.greets(greeting):
        said = f"it says {str(greeting)[:80]!r}"
        raise InputError(f"env_server_base {http.base_url} serves no {spec.title}: {said}")


def describe(spec: DescribedSpec, http: HttpSession) -> None:
    """Give the spec what its server says of itself; raise EnvError if there is no usable answer."""
    about = {name: value for name, value in about_server(http).items() if name != "sessions"}

    def is_refusal(text: str) -> bool:
        asking = http.another()
        try:
            return bool(asking.post("/is_refusal", {"text": text}))
        finally:
            asking.close()

    spec.describe(about, http.base_url, is_refusal)


def server_about(base_url: str) -> dict[str, Any]:
    """Return a server's description of itself: {"kind": ..., "extensions": [...], ...}; public ones are "agentgym".

    Raises:
        InputError: not a URL, no answer, or not an environment server.
    """
    http = HttpSession(base_url)
    try:
        return about_server(http)
    except EnvError as error:
        raise InputError(f"env_server_base {http.base_url}: {error}") from error
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
