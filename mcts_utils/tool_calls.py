"""Actions as tool calls (ACTIONS=tools): what is offered, what a call means, how a turn keeps its calls. Pure.

A tool is a name and a command with places, such as "search" and "search[{words}]"; the places are its parameters. A
turn is stored as one text: reasoning and content, then a block for each call, with the command that it means or why it
means none. Requests, chat templates and records have the calls apart (types.Message).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcts_utils.reasoning import spoken
from mcts_utils.types import ToolCall

TOOLS = "tools"  # value of ACTIONS, and the format in which actions are read then
REFUSED = "Tool call refused: "  # begins the answer to a call that is not executed
NO_CALL = f"{REFUSED}no tool was called."
ENDED = f"{REFUSED}the episode has ended."
AND = "\n&& "  # between the commands of one turn
PLACE = re.compile(r"\{(\w+)\}")
OPEN = "<tool_call>"
BLOCK = re.compile(r"<tool_call>\n(\{[^\n]*\})\n</tool_call>")
BLOCKS = re.compile(rf"(?:\n?{BLOCK.pattern})+\Z")
# How models write calls where the server leaves them in the text: each call, or a list of them.
WRITTEN = (
    re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL),
    re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL),
    re.compile(
        r"\A\s*(?:<\|python_tag\|>)?\s*(?:```\w*\s*)?(\[?\s*\{\s*\"(?:name|type)\".*\}\s*\]?)\s*(?:```)?\s*\Z",
        re.DOTALL,
    ),
)


def definitions(tools: Mapping[str, str]) -> str:
    """Return the tools as a request offers them, in JSON."""
    found = []
    for name, command in tools.items():
        places = list(dict.fromkeys(PLACE.findall(command)))
        what = "one command" if PLACE.fullmatch(command) else f"the command `{command}`"
        parameters = {
            "type": "object",
            "properties": {place: {"type": "string"} for place in places},
            "required": places,
        }
        about = {"name": name, "description": f"Send {what} to the environment.", "parameters": parameters}
        found.append({"type": "function", "function": about})
    return json.dumps(found)


def checked(call: ToolCall, tools: Mapping[str, str]) -> ToolCall:
    """Return a call with the command that it means, or with the fault for which it means none."""
    given = arguments(call.arguments)
    if not call.name and given is None:
        return replace(call, fault=f"the call is no JSON object: {call.arguments[:80]!r}.")
    if call.name not in tools:
        return replace(call, fault=f"there is no tool {call.name!r}, but {', '.join(tools)}.")
    if given is None:
        return replace(call, fault=f"the arguments are no JSON object: {call.arguments[:80]!r}.")
    command = tools[call.name]
    for place in PLACE.findall(command):
        if place not in given:
            return replace(call, fault=f"the arguments have no {place!r}.")
        if not isinstance(given[place], str | int | float) or isinstance(given[place], bool):
            return replace(call, fault=f"{place!r} must be a text: {json.dumps(given[place])[:80]}.")
    command = _well_formed(PLACE.sub(lambda place: str(given[place[1]]), command).strip())
    if not command:
        return replace(call, fault="the command is empty.")
    return replace(call, arguments=_dumps(given), command=command)


def arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments of a call; None if they are no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def arguments_object(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call as an object, which templates take; what is none is in its one field."""
    given = arguments(call.arguments)
    return {"malformed": call.arguments} if given is None else given


def _dumps(value: Any) -> str:
    return _well_formed(json.dumps(value, ensure_ascii=False))


def _well_formed(text: str) -> str:
    """Return the text with `?` for lone surrogates, which JSON can hold and no encoding knows."""
    return text.encode("utf-8", "replace").decode()


def written_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return a text without the calls in it, and these; calls in its reasoning are none."""
    shown = spoken(text)
    for pattern in WRITTEN:
        found = list(pattern.finditer(shown))
        if found:
            calls = tuple(call for match in found for call in _read(match[1]))
            for match in reversed(found):
                text = text[: match.start()] + text[match.end() :]
            return text.strip(), calls
    return text, ()


def _read(text: str) -> list[ToolCall]:
    """Return the calls of a JSON object or list; one without a name if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [ToolCall("", "", text)]
    return [as_call(item) for item in (found if isinstance(found, list) else [found])]


def as_call(item: Any) -> ToolCall:
    """Return a call of parsed JSON: `name` and `arguments` or `parameters`, or these under `function`; in any shape."""
    item = item if isinstance(item, Mapping) else {}
    inner = item["function"] if isinstance(item.get("function"), Mapping) else item
    given = inner.get("arguments", inner.get("parameters"))
    text = given if isinstance(given, str) else "" if given is None else _dumps(given)
    name, identity = inner.get("name"), item.get("id")
    return ToolCall(
        identity if isinstance(identity, str) else "", name if isinstance(name, str) else "", text
    )


def join_turn(content: str, calls: Sequence[ToolCall]) -> str:
    """Return a turn as one text."""
    blocks = []
    for call in calls:
        given = arguments(call.arguments)
        fields: dict[str, Any] = {"id": call.id, "name": call.name}
        fields["arguments"] = call.arguments if given is None else given
        fields |= {"command": call.command} if call.command else {"fault": call.fault}
        # "<" begins the marks of reasoning and of templates.
        text = _dumps(fields).replace("<", "\\u003c")
        blocks.append(f"{OPEN}\n{text}\n</tool_call>")
    return "\n".join([*([content.replace(OPEN, "< tool_call>")] if content else []), *blocks])


def split_turn(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the content of a turn that `join_turn` made, its reasoning included, and its calls."""
    blocks = BLOCKS.search(text)
    if blocks is None:
        return text, ()
    found = [json.loads(block) for block in BLOCK.findall(blocks.group())]
    calls = tuple(
        replace(as_call(item), command=item.get("command", ""), fault=item.get("fault", "")) for item in found
    )
    return text[: blocks.start()], calls


def without_ids(text: str) -> str:
    """Return a turn with its calls without their ids, which are not the same in all places."""
    content, calls = split_turn(text)
    return join_turn(content, [replace(call, id="") for call in calls]) if calls else text


def form_of(settings: Mapping[str, Any]) -> str:
    """Return how actions are read from the replies of a tree or an episode with these settings."""
    return TOOLS if settings.get("actions") == TOOLS else settings.get("action_format") or "any"


def action_of_calls(calls: Sequence[ToolCall]) -> str:
    """Return the calls as one action: their commands, or what was called in place of one."""
    return AND.join(call.command or f"{call.name}({call.arguments})" for call in calls)
