"""Read the bodies that a chat endpoint answers with, in all their shapes: choices, usage, refusals. Pure.

What is no answer at all is a NoAnswer, never an AttributeError; what a refusal teaches is in server_profile.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mcts_utils.types import ActorError, Sample, ServiceGone

OVERFLOW = re.compile(  # texts of refusals for conversations that are too long
    r"context[ _](?:length|window|size|limit|overflow)|maximum (?:context|prompt|input|sequence)|max_seq_len"
    r"|session[ _]len|(?:prompt|input|inputs|message|request|tokens?) (?:is |are )?too long|too many (?:input )?tokens"
    r"|max_tokens must be at least 1, got -|longer than the (?:model'?s )?maximum|range of input length should be"
    r"|exceeds? the (?:maximum|max|limit)[^.]{0,40}tokens?|exceed(?:s|ed)? [^.]{0,20}token limit|more than max tokens"
    r"|(?:reduce|shorten) (?:the length of )?(?:the|your) (?:messages?|prompt|input)"
    r"|`?inputs`? (?:tokens \+|must have less than)"
    r"|(?:input|prompt)[^.]{0,40} exceeds? [^.]{0,40}(?:limit|length|context|size)",
    re.IGNORECASE,
)
REPLY_LIMIT = re.compile(  # of refusals of a MAX_TOKEN_LENGTH that is too large for any conversation
    r"max_(?:completion_|new_|output_)?tokens\S* (?:cannot be greater|must be (?:less|at most|between))"
    r"|max_tokens\S* is too large(?!.*input tokens)|range of max_tokens"
    r"|supports at most \d+ (?:completion|output) tokens|maximum (?:number of )?(?:output|completion) tokens",
    re.IGNORECASE,
)
TEXTS = (
    "error",
    "detail",
    "details",
    "message",
    "msg",
    "errors",
    "title",
    "raw",
    "metadata",
)  # of a refusal's body
CUT = (
    "length",
    "max_tokens",
    "max_output_tokens",
    "max_length",
)  # finish reasons of a reply that hit its limit


class NoAnswer(ValueError):
    """A body that is no answer of a chat endpoint; the text quotes it."""

    def __init__(self, body: Any) -> None:
        super().__init__(said(body) or "an empty body")
        self.status = (
            400 if isinstance(body, Mapping) and body.get("error") else 200
        )  # proxies send errors with 200
        broken_off = isinstance(body, str) and body.startswith("{")
        self.passing = self.status == 400 or broken_off  # another try may get an answer


class ReplyLimit(ActorError, ServiceGone):
    """MAX_TOKEN_LENGTH is above the limit of the endpoint, which therefore refuses every request."""


def parse_body(content: bytes) -> Any:
    """Return the body as JSON types; a text if it is no JSON. A streamed answer becomes a whole one."""
    text = content.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    if re.match(r"(?:data|event|id|retry)?:", text):
        return _whole(line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _whole(events: Any) -> dict[str, Any]:
    """Return the answer that the events of a stream add up to."""
    texts: dict[int, str] = {}
    reasons: dict[int, Any] = {}
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
            reasons[index] = (choice.get("finish_reason") if known else None) or reasons.get(index)
    choices = [{"text": texts[index], "finish_reason": reasons[index]} for index in sorted(texts)]
    return whole | ({"choices": choices} if choices or "error" not in whole else {})


def samples(body: Any, n: int) -> list[Sample]:
    """Return the choices of an answer to a request for `n`; `n` empty ones for an answer whose choices are null.

    Raises:
        NoAnswer: it has no choices at all.
    """
    if not isinstance(body, Mapping) or "choices" not in body or (body.get("error") and not body["choices"]):
        raise NoAnswer(body)
    choices = _list(body["choices"]) or [None] * n
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


def _choice_text(choice: Any) -> str:
    """Return a choice's text: of its message or delta, or its own; "" if there is none."""
    if not isinstance(choice, Mapping):
        return choice if isinstance(choice, str) else ""
    message = choice.get("message") or choice.get("delta")
    content = message.get("content") if isinstance(message, Mapping) else message
    return _content_text(choice.get("text") if content is None else content)


def _content_text(content: Any) -> str:
    """Return a content's text: itself, or that of its parts but for reasoning."""
    if isinstance(content, list):
        return "".join(_content_text(part) for part in content)
    if isinstance(content, Mapping):
        kind = str(content.get("type", ""))
        hidden = "reason" in kind or "think" in kind
        return "" if hidden else _content_text(content.get("text", content.get("value")))
    return content if isinstance(content, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(usage: Any, name: str) -> int:
    """Return a number of tokens; 0 where the server reports none, or no number."""
    value = usage.get(name) if isinstance(usage, Mapping) else None
    try:
        return max(0, int(value)) if value is not None else 0
    except (TypeError, ValueError, OverflowError):
        return 0
