"""Read the bodies that a chat endpoint answers with, in all their shapes: choices, usage, refusals. Pure.

What is no answer at all is a NoAnswer, never an AttributeError; what a refusal teaches is in server_profile.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mcts_utils.tool_calls import as_call
from mcts_utils.types import ActorError, Sample, ServiceGone, ToolCall

OVERFLOW = re.compile(  # texts of refusals for conversations that are too long
    r"context[ _](?:length|window|size|limit|overflow)|maximum (?:context|prompt|input|sequence)|max_seq_len"
    r"|session[ _]len"
    r"|(?:prompt|inputs?|messages?|request|entity|payload|string|tokens?) (?:is |are )?too (?:long|large)"
    r"|too many (?:input )?tokens|max_tokens must be at least 1, got -"
    r"|longer than (?:the )?(?:model'?s )?max|range of input length should be"
    r"|exceeds? the (?:maximum|max|limit)[^.]{0,40}tokens?|exceed(?:s|ed)? [^.]{0,20}token limit|more than max tokens"
    r"|(?:reduce|shorten) (?:the length of )?(?:the|your) (?:messages?|prompt|input)"
    r"|`?inputs`? (?:tokens \+|must have less than)"
    r"|(?:input|prompt)[^.]{0,40} exceeds? [^.]{0,40}(?:limit|length|context|size)"
    r"|\b(?:tokens?|prompt|messages?)\b[^.]{0,60} exceed(?:s|ed)?\b[^.]{0,40}\b(?:max|maximum|limit|allowed|n_ctx)\b",
    re.IGNORECASE,
)
REPLY_LIMIT = re.compile(  # of refusals of a MAX_TOKEN_LENGTH that is too large for any conversation
    # A text that names the conversation, too, is of its length.
    r"^(?!.*(?:inputs?(?! should)|prompt|messages)).*max_(?:completion_|new_|output_)?tokens\W.{0,60}?"
    r"(?:less than|<=|at most|between|range|exceeds?|too (?:large|big|high)|greater than|above|> \d)"
    r"|range of max_tokens|supports at most \d+ (?:completion|output) tokens"
    r"|maximum (?:allowed )?(?:number of )?(?:output|completion) tokens",
    re.IGNORECASE,
)
TEXTS = "error detail details message msg errors title raw metadata".split()  # of a refusal's body
# Fields of a message in which servers give the reasoning apart from the content.
REASONING = ("reasoning_content", "reasoning", "thinking")
PART = ("text", "value", "thinking", "reasoning", "summary")  # of a part of a content
# Finish reasons of a reply that hit its limit.
CUT = ("length", "max_tokens", "max_output_tokens", "max_length")


class NoAnswer(ValueError):
    """A body that is no answer of a chat endpoint; the text quotes it."""

    NO_ENDPOINT = "OPENAI_BASE_URL is no chat endpoint"  # in place of a status

    def __init__(self, body: Any) -> None:
        super().__init__(said(body) or "an empty body")
        # Proxies send errors with 200.
        self.status = 400 if isinstance(body, Mapping) and body.get("error") else 200
        self.what = self.NO_ENDPOINT if self.status == 200 else "an error with status 200"
        broken_off = isinstance(body, str) and body.startswith("{")
        self.passing = self.status == 400 or broken_off  # another try may get an answer


class ReplyLimit(ActorError, ServiceGone):
    """MAX_TOKEN_LENGTH is above the limit of the endpoint, which therefore refuses every request."""


def parse_body(content: bytes) -> Any:
    """Return the body as JSON types; a text if it is no JSON. A streamed answer becomes a whole one."""
    text = content.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    if re.match(r"(?:data|event|id|retry)?:", text) and re.search(r"^data:", text, re.MULTILINE):
        return _whole(line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _whole(events: Any) -> dict[str, Any]:
    """Return the answer that the events of a stream add up to."""
    texts: dict[int, str] = {}
    thoughts: dict[int, str] = {}
    calls: dict[int, dict[int, dict[str, str]]] = {}
    reasons: dict[int, Any] = {}
    name = REASONING[0]
    whole: dict[str, Any] = {}
    for event in events:
        try:
            chunk = json.loads(event)
        except ValueError:  # [DONE]
            continue
        if not isinstance(chunk, Mapping):
            continue
        whole |= {name: chunk[name] for name in ("usage", "error") if chunk.get(name)}
        for place, choice in enumerate(_list(chunk.get("choices"))):
            known = isinstance(choice, Mapping)
            index = choice["index"] if known and isinstance(choice.get("index"), int) else place
            texts[index] = texts.get(index, "") + _choice_text(choice)
            thoughts[index] = thoughts.get(index, "") + _choice_reasoning(choice)
            name = reasoning_field(choice) or name
            _add_calls(calls.setdefault(index, {}), choice)
            reasons[index] = (choice.get("finish_reason") if known else None) or reasons.get(index)
    choices = [
        {
            **{"content": texts[index], name: thoughts[index], "tool_calls": list(calls[index].values())},
            "finish_reason": reasons[index],
        }
        for index in sorted(texts)
    ]
    return whole | ({"choices": choices} if choices or "error" not in whole else {})


def _add_calls(known: dict[int, dict[str, str]], choice: Any) -> None:
    """Add the pieces of calls in a chunk to those before; the index says to which, else the last one."""
    for item in _list(_message(choice).get("tool_calls")):
        if isinstance(item, Mapping):
            piece, at = as_call(item), item.get("index")
            if not isinstance(at, int):
                at = len(known) - (not piece.name)  # a piece with a name begins a call
            call = known.setdefault(at, {"id": piece.id, "name": piece.name, "arguments": ""})
            call["arguments"] += piece.arguments


def samples(body: Any, n: int) -> list[Sample]:
    """Return the choices of an answer to a request for `n`; `n` empty ones for an answer whose choices are null.

    Raises:
        NoAnswer: it has no choices at all, or an error.
    """
    if not isinstance(body, Mapping) or "choices" not in body or body.get("error"):
        raise NoAnswer(body)
    choices = _list(body["choices"]) or [None] * n
    for choice in choices:
        # Of the server after the gateway, or amid a stream.
        if isinstance(choice, Mapping) and choice.get("error"):
            raise NoAnswer({"error": choice["error"]})
    usage = body.get("usage")
    prompt, completion = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
    cached = min(prompt, _count(details, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens"))
    share, rest = divmod(completion, len(choices))
    return [
        Sample(
            well_formed(_choice_text(choice)),
            0 if i else prompt,
            share + (i < rest),
            isinstance(choice, Mapping) and str(choice.get("finish_reason")).lower() in CUT,
            cached_tokens=0 if i else cached,
            reasoning=well_formed(_choice_reasoning(choice)),
            tool_calls=_choice_calls(choice),
        )
        for i, choice in enumerate(choices)
    ]


def said(body: Any) -> str:
    """Return what a body says to a person: its message, whatever it is wrapped in, else all of it."""
    if isinstance(body, str):
        return " ".join(body.split())
    if isinstance(body, list):
        return "; ".join(said(part) for part in body)
    if not isinstance(body, Mapping):
        return json.dumps(body)
    place = ".".join(map(str, body["loc"])) + ": " if isinstance(body.get("loc"), list) else ""
    parts = [said(body[name]) for name in TEXTS if body.get(name)]
    if not parts:
        return json.dumps(dict(body))
    param = body.get("param")
    if isinstance(param, str) and param not in " ".join(parts):
        parts.append(f"(parameter {param})")
    return place + " ".join(dict.fromkeys(parts))


def well_formed(text: str) -> str:
    """Return the text with lone surrogates, which no encoding knows, as U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def reasoning_field(choice: Any) -> str:
    """Return the name of the field in which a choice has its reasoning, or ""."""
    message = _message(choice)
    return next((name for name in REASONING if _content_text(message.get(name))), "")


def _message(choice: Any) -> Mapping[str, Any]:
    """Return a choice's message or delta; itself if it has none."""
    if not isinstance(choice, Mapping):
        return {"content": choice}
    message = choice.get("message") or choice.get("delta") or choice
    return message if isinstance(message, Mapping) else {"content": message}


def _choice_text(choice: Any) -> str:
    """Return a choice's text: of its message or delta, or its own; "" if there is none."""
    content = _message(choice).get("content")
    text = choice.get("text") if content is None and isinstance(choice, Mapping) else content
    return _content_text(text)


def _choice_reasoning(choice: Any) -> str:
    """Return a choice's reasoning: of a field of its own, or of the parts of its content."""
    message = _message(choice)
    name = reasoning_field(choice)
    return _content_text(message.get(name)) if name else _content_text(message.get("content"), hidden=True)


def _choice_calls(choice: Any) -> tuple[ToolCall, ...]:
    """Return a choice's tool calls, in any shape; the older `function_call` is one without an id."""
    message = _message(choice)
    listed = _list(message.get("tool_calls")) or [message.get("function_call")]
    calls = [as_call(item) for item in listed if isinstance(item, Mapping)]
    return tuple(ToolCall(*map(well_formed, (call.id, call.name, call.arguments))) for call in calls)


def _content_text(content: Any, hidden: bool = False) -> str:
    """Return a content's text: itself, or that of its parts: those with reasoning if `hidden`, else the others."""
    if isinstance(content, list):
        return "".join(_content_text(part, hidden) for part in content)
    if isinstance(content, Mapping):
        kind = str(content.get("type", ""))
        if ("reason" in kind or "think" in kind) != hidden:
            return ""
        return _content_text(next((content[name] for name in PART if content.get(name)), None))
    return content if isinstance(content, str) and not hidden else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(usage: Any, name: str) -> int:
    """Return a number of tokens; 0 where the server reports none, or no number."""
    value = usage.get(name) if isinstance(usage, Mapping) else None
    try:
        return max(0, int(value)) if value is not None else 0
    except (TypeError, ValueError, OverflowError):
        return 0
