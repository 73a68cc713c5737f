"""What the bundled servers share of AgentGym's contract and its extensions: bodies, replays, facts about a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.app_server import Action, Actions, GoalIndex, SessionId


class SessionBody(BaseModel):
    """Body of /close and /fork."""

    id: SessionId


class ResetBody(SessionBody):
    """Body of /reset."""

    data_idx: GoalIndex


class StepBody(SessionBody):
    """Body of /step."""

    action: Action


class ReplayBody(ResetBody):
    """Body of /replay."""

    actions: Actions


def until_done(step: Callable[[str], dict[str, Any]], actions: Iterable[str]) -> list[dict[str, Any]]:
    """Execute actions up to the first whose answer is done, and return the answers."""
    answers: list[dict[str, Any]] = []
    for action in actions:
        answers.append(step(action))
        if answers[-1]["done"]:
            break
    return answers


def add_facts(app: FastAPI, facts: dict[str, Any]) -> None:
    """Add GET routes whose answers never change: path -> answer."""
    for path, fact in facts.items():
        app.get(path)(_constant(fact))


def _constant(fact: Any) -> Callable[[], Awaitable[Response]]:
    async def handler() -> Response:
        return JSONResponse(fact)

    return handler
