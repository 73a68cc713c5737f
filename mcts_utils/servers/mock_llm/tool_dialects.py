"""How models call tools: shapes of answers for the mock LLM, and a chat with calls as an expert reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Shape = Callable[[dict, dict], Any]  # (request, answer) -> the body that is sent


def in_text(messages: list[dict]) -> list[dict]:
    """Return a chat with tool calls as an expert reads it: each call a turn with its action, each answer a user's."""
    found: list[dict] = []
    for message in messages:
        calls = message.get("tool_calls") or ()
        for call in calls:
            command = _command(call["function"]["arguments"])
            found.append({"role": "assistant", "content": f"Thought: on\nAction: {command}"})
            found.append({"role": "user", "content": "", "answers": call["id"]})
        if message["role"] == "tool":
            turn = next(turn for turn in found if turn.get("answers") == message["tool_call_id"])
            turn |= {"content": message["content"], "answers": ""}
        elif not calls:
            found.append(message)
    return found


def _command(arguments: str) -> str:
    try:
        return str(json.loads(arguments)["command"])
    except (ValueError, KeyError, TypeError):
        return ""


def has_broken_call(body: dict) -> bool:
    """Return True if the arguments of a call are no JSON, where vLLM, for one, fails."""
    try:
        for message in body["messages"]:
            for call in message.get("tool_calls") or ():
                json.loads(call["function"]["arguments"])
    except ValueError:
        return True
    return False


def calling(*others: str) -> Shape:
    """Return the shape of a model that calls act(command), once and then with the other commands, if it has tools."""

    def change(choice: dict) -> dict:
        thought, _, action = choice["message"]["content"].partition("\nAction: ")
        calls = [_call(f"c{i}", "act", json.dumps({"command": c})) for i, c in enumerate([action, *others])]
        message = choice["message"] | {
            "content": thought.removeprefix("Thought: ") or None,
            "tool_calls": calls,
        }
        return {**choice, "message": message, "finish_reason": "tool_calls"}

    shape = in_choices(change)
    return lambda body, answer: shape(body, answer) if body.get("tools") else answer


def _call(identity: str, name: str, arguments: Any) -> dict:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling_badly(body: dict, answer: dict) -> dict:
    """Return an answer whose calls are malformed, in another way each turn."""
    good = _call("", "act", {"command": "inventory"})  # arguments as an object, no id
    kinds = [
        {"content": None, "tool_calls": [_call("a", "act", '{"command": "inv')]},
        {"content": "", "tool_calls": [_call("a", "fly", '{"command": "inventory"}'), good]},
        {"content": "so", "tool_calls": [_call("b", "act", '{"cmd": "inventory"}'), _call("b", "act", "[]")]},
        {"content": None, "tool_calls": [good, good]},
        {"content": "no call"},
        {"content": None, "function_call": {"name": "act", "arguments": '{"command": "inventory"}'}},
        {"content": '<tool_call>\n{"name": "act", "arguments": {"command": "inventory"}}\n</tool_call>'},
        {"content": None, "tool_calls": None},
    ]
    turns = sum(message["role"] == "assistant" for message in body["messages"])
    message = {"role": "assistant", **kinds[turns % len(kinds)]}
    return {**answer, "choices": [{**choice, "message": message} for choice in answer["choices"]]}


def in_choices(change: Callable[[dict], Any]) -> Shape:
    """Return a shape that changes every choice."""
    return lambda body, answer: {**answer, "choices": [change(dict(choice)) for choice in answer["choices"]]}
