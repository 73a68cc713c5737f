"""What a chat endpoint taught by its refusals: one object for a run, which is written in its manifest. Sends nothing.

A feature of a request that a refusal may mean is left out of the next try; it is learned only if that try succeeds. So
a refusal that merely quotes a word of a prompt switches nothing off.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcts_utils.actors.answers import reasoning_field, well_formed
from mcts_utils.reasoning import shown_history, split_reasoning
from mcts_utils.tool_calls import arguments, arguments_object
from mcts_utils.types import Message, Sample

BLANK = "(nothing)"  # stands for an empty turn
# Feature of a request -> (words of a refusal that may mean it, what is done without it), in the order they are tried.
FEATURES = {
    "max_tokens": (r"max_completion_tokens", "max_completion_tokens is sent instead"),
    "temperature 0": (
        r"\btemperature\b",
        "greedy requests are sent without a temperature, so answers may vary",
    ),
    "temperature": (r"\btemperature\b", "requests are sent without it, at the temperature of the server"),
    "seed": (r"\bseed\b", "requests are sent without it, so samples are not drawn again"),
    "n": (
        r"['\"`]n['\"`]|(?<![\\\w])n ?(?:=|>|<| must| is| should)|(?:parameter|argument|body\.)\W*n\b"
        r"|\bchoices?\b|\bcandidates?\b|\bbest_of\b|\bmultiple (?:completions|samples|outputs|responses)",
        "samples are requested one by one",
    ),
    "system": (
        r"\bsystem\W+(?:role|message|prompt|turn|instruction)s?\b|['\"`]system['\"`]|\broles?\b|developer instruction",
        "it stands before the first user turn",
    ),
    "empty turns": (
        r"\b(?:non-?)?empty\b|either content|too_short|at least (?:one|1) char",
        f"{BLANK} is sent for them",
    ),
    "malformed calls": (
        r"\bjson\b|arguments|tool.?call|delimiter|expecting|unterminated",
        "their arguments are sent as a field of an object",
    ),
    "reasoning": (r"reasoning|thinking|think\b", "earlier turns are sent without theirs"),
    "whole answers": (
        r"\b(?:only|must|mode|enable|requires?)\b.{0,40}\bstream|\bstream\w*\b.{0,40}\b(?:only|must|mode|true|required)\b|non-?stream",
        "answers are streamed",
    ),
}
_WORDS = {feature: re.compile(words, re.IGNORECASE) for feature, (words, _) in FEATURES.items()}
LONGER, NO_MORE, EVIDENCE = 1.5, 1.05, 3  # ratio of characters; of tokens; number of prompts


class ServerProfile:
    """Features that the server refuses, and whether it seems to cut prompts. Safe for threads."""

    def __init__(self, name: str) -> None:
        """`name`: of the endpoint, for what is said."""
        self._name = name
        self._lock = threading.Lock()
        self.refused: frozenset[str] = frozenset()
        self._longest = (0, 0)  # (characters, tokens) of the prompt with the most tokens
        self._cut = 0  # longer prompts that had no more tokens
        self.reasoning_field = ""  # in which the server gives the reasoning apart from the text

    def learn(self, features: Collection[str]) -> None:
        """Keep that the server refuses the features, and say each of them once."""
        with self._lock:
            new = [feature for feature in FEATURES if feature in features and feature not in self.refused]
            self.refused |= frozenset(new)
        for feature in new:
            print(f"notice: {self._name} takes no {feature}: {FEATURES[feature][1]}", file=sys.stderr)

    def note_reasoning(self, answer: Any, found: Sequence[Sample]) -> None:
        """Keep the field in which an answer, read as `found`, has its reasoning: it takes it back there."""
        if not self.reasoning_field and any(sample.reasoning for sample in found):
            self.reasoning_field = next(filter(None, map(reasoning_field, answer["choices"])), "")

    def note_prompt(self, characters: int, tokens: int) -> None:
        """Compare a prompt with the tokens that the server reports, and say once if they stop growing.

        Ollama, for one, leaves out the beginning of a conversation beyond its `num_ctx`.
        """
        with self._lock:
            chars, most = self._longest
            if tokens >= NO_MORE * most:
                self._longest, self._cut = (characters, tokens), 0
                return
            if characters < LONGER * chars:
                return
            # Far fewer tokens mean that the server does not count what it had in its cache.
            self._cut += 1 if tokens >= most / 2 else -EVIDENCE
            if self._cut != EVIDENCE or tokens < most / 2:
                return
        print(
            f"warning: {self._name} reports about {most} tokens for prompts of {chars} characters and of {characters}: "
            "it seems to cut prompts in silence. Raise its context (Ollama: num_ctx, OLLAMA_CONTEXT_LENGTH)",
            file=sys.stderr,
        )

    def suspect(self, refusal: str, used: frozenset[str]) -> str:
        """Return the first of the used features that a refusal may mean, or ""."""
        return next((f for f, words in _WORDS.items() if f in used and words.search(refusal)), "")

    def stats(self) -> dict[str, Any]:
        """Return what a manifest keeps: `server`, the refused features; {} if nothing was learned."""
        found = sorted(self.refused) + ["whole prompts"] * (self._cut >= EVIDENCE)
        return {"refused_by_server": found} if found else {}


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of the endpoint, whatever it may refuse."""

    messages: Sequence[Message]
    n: int
    temperature: float
    seed: int | None
    limit: int  # new tokens of a reply


def chat_body(
    model: str, request: ChatRequest, without: frozenset[str], reasoning_field: str = ""
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the body of a request without some features (keys of FEATURES), and the features that it uses.

    Args:
        reasoning_field: of turns, in which the server takes reasoning apart from the text; empty: in the text.
    """
    messages, temperature, seed = request.messages, request.temperature, request.seed
    uses = {
        "max_tokens": True,
        "temperature 0": temperature == 0,
        "temperature": temperature != 0,
        "seed": seed is not None,
        "n": request.n > 1,
        "system": any(message.role == "system" for message in messages),
        "empty turns": any(not (message.content.strip() or message.tool_calls) for message in messages),
        "malformed calls": any(arguments(c.arguments) is None for m in messages for c in m.tool_calls),
        "reasoning": any(
            message.role == "assistant" and split_reasoning(message.content)[0] for message in messages
        ),
        "whole answers": True,
    }
    used = frozenset(feature for feature, is_used in uses.items() if is_used) - without
    optional: dict[str, Any] = {
        "max_tokens" if "max_tokens" in used else "max_completion_tokens": request.limit
    }
    if used & {"temperature 0", "temperature"} and "temperature" not in without:
        optional["temperature"] = temperature
    optional |= {"seed": seed} if "seed" in used else {}
    optional |= {"n": request.n} if "n" in used else {}
    optional |= {} if "whole answers" in used else {"stream": True}
    if "reasoning" in without:
        messages = shown_history(messages, "drop")
    if "empty turns" in without:
        messages = [m if m.content.strip() or m.tool_calls else replace(m, content=BLANK) for m in messages]
    turns = [_turn(message, reasoning_field, "malformed calls" in without) for message in messages]
    turns = _merged(turns) if "system" in without else turns
    tools = next((message.tools for message in messages if message.tools), "")
    optional |= {"tools": json.loads(tools)} if tools else {}
    return {"model": model, "messages": turns, **optional}, used


def _turn(message: Message, reasoning_field: str, mended: bool) -> dict[str, Any]:
    """Return a turn of a request; `mended`: the arguments of its calls are made an object where they are none."""
    content = well_formed(message.content)
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}
    if message.role != "assistant":
        return {"role": message.role, "content": content}
    reasoning, rest = split_reasoning(content) if reasoning_field else ("", content)
    turn: dict[str, Any] = {"role": "assistant", "content": rest}
    turn |= {reasoning_field: reasoning} if reasoning else {}
    if message.tool_calls:
        turn |= {"content": rest.strip() or None, "tool_calls": calls_of(message, mended)}
    return turn


def calls_of(message: Message, mended: bool = False) -> list[dict[str, Any]]:
    """Return the calls of a turn as a request has them."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": given}}
        for call in message.tool_calls
        for given in [json.dumps(arguments_object(call)) if mended else call.arguments]
    ]


def _merged(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns with the system turn before the first user turn, as a part of it."""
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    others = [turn for turn in turns if turn["role"] != "system"] or [{"role": "user", "content": ""}]
    first = "\n\n".join([*system, others[0]["content"]])
    return [{"role": others[0]["role"], "content": first}, *others[1:]]
