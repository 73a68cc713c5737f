"""How other chat servers refuse and shape: rules for the mock LLM, as such servers were seen or say in their manuals.

A rule of REFUSALS looks at a request and returns (status, body) or None; one of SHAPES changes an answer. They may
be combined. None of it runs a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcts_utils.servers.mock_llm.tool_dialects import (
    Shape,
    calling,
    calling_badly,
    has_broken_call,
    in_choices,
)

Refusal = Callable[[dict], tuple[int, Any] | None]


def _openai(message: str, **more: Any) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def _reasoning(body: dict) -> tuple[int, Any] | None:
    if "max_tokens" in body:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead."
        )
        return 400, _openai(text, param="max_tokens", code="unsupported_parameter")
    if body.get("temperature", 1) != 1:
        text = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."
        return 400, _openai(text, param="temperature", code="unsupported_value")
    return None


def _detail(name: str) -> Refusal:
    """Return the refusal of a parameter by a server of FastAPI, which quotes the whole input."""

    def refuse(body: dict) -> tuple[int, Any] | None:
        fault = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
        return (422, {"detail": [{**fault, "input": body[name]}]}) if name in body else None

    return refuse


def _when(test: Callable[[dict], Any], status: int, content: Any) -> Refusal:
    return lambda body: (status, content) if test(body) else None


def _too_long(status: int, content: Any) -> Refusal:
    return _when(lambda body: sum(len(m["content"] or "") for m in body["messages"]) > 400, status, content)


def _has_system(body: dict) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


def _error(text: str) -> dict:
    return {"object": "error", "message": text, "type": "BadRequestError", "param": None, "code": 400}


def _tgi(text: str) -> dict:
    return {"error": f"Input validation error: {text}", "error_type": "validation"}


# What servers answer to a conversation that is too long for the model.
TOO_LONG: dict[str, tuple[int, Any]] = {
    "vllm": (400, _error("max_tokens must be at least 1, got -7584.")),
    "model": (400, _error("The prompt (total length 9000) is longer than the maximum model length")),
    "range": (400, _openai("Range of input length should be [1, 30720]")),
    "count": (
        400,
        _openai("The input token count (9000) exceeds the maximum number of tokens allowed (4096)."),
    ),
    "seq": (500, "prompt_len 9000 + max_new_tokens exceeds max_seq_len 4096"),
    "session": (400, _error("input length 9000 exceeds the session length 4096")),
    "reduce": (413, _openai("Please reduce the length of the messages or completion.")),
    "tgi": (422, _tgi("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9000 `inputs`")),
    "quoted": (400, {"detail": [{"msg": "quoted: " + "word " * 100 + "maximum context length"}]}),
}
REFUSALS: dict[str, Refusal] = {
    "reasoning": _reasoning,
    "temperature_above_0": _when(
        lambda body: body.get("temperature") == 0, 422, _tgi("`temperature` must be strictly positive")
    ),
    "one_choice": _when(
        lambda body: body.get("n", 1) > 1,
        500,
        {"error": {"code": 500, "message": "Only one completion choice is allowed", "type": "server_error"}},
    ),
    "one_choice_unexplained": _when(lambda body: body.get("n", 1) > 1, 500, "Internal Server Error"),
    "n_422": _when(lambda body: body.get("n", 1) > 1, 422, {"detail": "not supported"}),
    "no_system": _when(_has_system, 400, _error("System role not supported")),
    "no_system_template": _when(
        _has_system, 422, {"error": "Template error: only user and assistant roles are supported!"}
    ),
    "no_seed": _detail("seed"),
    "only_streams": _when(
        lambda body: not body.get("stream"),
        400,
        _openai(
            "This model only support stream mode, please enable the stream parameter to access the model."
        ),
    ),
    **{f"too_long_{name}": _too_long(*answer) for name, answer in TOO_LONG.items()},
    "short_replies": _when(
        lambda body: body.get("max_tokens", 0) > 32,
        400,
        _openai("max_tokens is too large: 64. This model supports at most 32 completion tokens."),
    ),
    "no_empty_turns": _when(
        lambda body: not all(message["content"] for message in body["messages"]),
        422,
        {"detail": [{"loc": ["body", "messages", 2, "content"], "msg": "must be non-empty", "input": ""}]},
    ),
    "no_tools": _when(
        lambda body: body.get("tools"),
        400,
        _error('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    ),
    "object_arguments": _when(has_broken_call, 500, "Expecting ',' delimiter: line 1 column 14 (char 13)"),
    "no_reasoning": _when(
        lambda body: any("reasoning_content" in message for message in body["messages"]),
        400,
        _openai("The reasoning_content is an intermediate result and cannot be an input."),
    ),
    "blocked": _when(
        lambda body: "pumpkin" in json.dumps(body["messages"]), 400, _openai("Blocked: 'plant pumpkin seeds'")
    ),
}


def _with_content(make: Callable[[str], Any]) -> Shape:
    def change(choice: dict) -> dict:
        return {**choice, "message": {"role": "assistant", "content": make(choice["message"]["content"])}}

    return in_choices(change)


def _thinking(field: str) -> Shape:
    """Return the shape of a model that drafts an action in its reasoning: in a field, or ("") before the content."""

    def change(choice: dict) -> dict:
        text, reasoning = choice["message"]["content"], "\nI could try Action: get 9 dirt\n"
        shown = {field: reasoning} if field else {"content": f"<think>{reasoning}</think>\n\n{text}"}
        # The field first: so it is streamed.
        return {**choice, "message": shown | choice["message"] if field else choice["message"] | shown}

    return in_choices(change)


def _stream(body: dict, answer: dict) -> bytes:
    """Return the answer as events, a few characters each, the usage in the last one."""
    events: list[dict] = []
    for choice in answer["choices"]:
        index = choice["index"]
        deltas = [
            {name: text[at : at + 7]}
            for name, text in choice["message"].items()
            if name not in ("role", "tool_calls")
            for at in range(0, len(text or ""), 7)
        ]
        for place, call in enumerate(choice["message"].get("tool_calls", ())):
            given = call["function"]["arguments"]
            begun = {**call, "index": place, "function": {"name": call["function"]["name"], "arguments": ""}}
            deltas.append({"tool_calls": [begun]})
            deltas += [
                {"tool_calls": [{"index": place, "function": {"arguments": given[at : at + 7]}}]}
                for at in range(0, len(given), 7)
            ]
        for delta in deltas:
            events.append({"choices": [{"index": index, "delta": {"role": "assistant", **delta}}]})
        end = {"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}
        events.append({"choices": [end]})
    events.append({"choices": [], "usage": answer["usage"]})
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def _cut_prompts(body: dict, answer: dict) -> dict:
    """Return the answer of a server that leaves out the beginning of a long conversation, as its usage shows."""
    tokens = min(answer["usage"]["prompt_tokens"], 256)
    return {**answer, "usage": {**answer["usage"], "prompt_tokens": tokens}}


SHAPES: dict[str, Shape] = {
    "content_null": _with_content(lambda text: None),
    "content_empty": _with_content(lambda text: ""),
    "content_parts": _with_content(
        lambda text: [{"type": "thinking", "text": "hm"}, {"type": "text", "text": text}]
    ),
    "thinks": _thinking("reasoning_content"),
    "thinks_too": _thinking("reasoning"),
    "thinks_inline": _thinking(""),
    "thinks_only": in_choices(
        lambda choice: {
            **choice,
            "message": {"role": "assistant", "content": None, "reasoning_content": "hm"},
        }
    ),
    "calls": calling(),
    "calls_twice": calling("inventory"),
    "calls_badly": calling_badly,
    "message_null": in_choices(lambda choice: {**choice, "message": None}),
    "text_alone": in_choices(lambda choice: {"index": choice["index"], "text": choice["message"]["content"]}),
    "choice_null": in_choices(lambda choice: None),
    "choices_null": lambda body, answer: {**answer, "choices": None},
    "choices_empty": lambda body, answer: {**answer, "choices": []},
    "no_choices": lambda body, answer: {"response": "hello"},
    "a_list": lambda body, answer: [answer],
    "page": lambda body, answer: b"<html>Welcome</html>",
    "usage_missing": lambda body, answer: {name: answer[name] for name in answer if name != "usage"},
    "usage_list": lambda body, answer: {**answer, "usage": [1, 2]},
    "usage_text": lambda body, answer: {**answer, "usage": "12 tokens"},
    "usage_odd": lambda body, answer: {
        **answer,
        "usage": {"prompt_tokens": "many", "completion_tokens": None},
    },
    "surrogate": _with_content(lambda text: f"{text} \ud83d"),
    "not_utf8": lambda body, answer: (
        json.dumps(answer).encode().replace(b'"content": "', b'"content": "\xed\xa0\x80')
    ),
    "stream": _stream,
    "stream_if_asked": lambda body, answer: _stream(body, answer) if body.get("stream") else answer,
    "cut_prompts": _cut_prompts,
}
