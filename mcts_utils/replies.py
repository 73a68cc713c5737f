"""Read what a model answers: the thought and the action of a turn, the verdict of a judge. Pure; it asks nobody.

All forms are patterns of one table (FORMATS for turns, VERDICT for judgments); a form that models use is one more
pattern, not one more branch. Reasoning before a turn (reasoning.py) is blanked, so that nothing in it is an action or a
verdict, and offsets stay those of the whole text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from mcts_utils.reasoning import spoken, with_reasoning, without_reasoning
from mcts_utils.tool_calls import TOOLS, action_of_calls, split_turn
from mcts_utils.types import Label

# What a stored reply is not: it ended at MAX_TOKEN_LENGTH; more followed it.
Cut = Literal["", "length", "played_on"]

COLON = r"(?:[:：﹕︓∶]|[-=]>|→|(?<=\s)[-–—](?=\s))"
# Tokens of chat templates that a server did not take out; what follows one is not this turn any more.
SPECIAL = re.compile(
    r"</?s>|<[|｜][^<>|｜\n]{1,40}[|｜]>|</?(?:end_of_turn|start_of_turn|eos|bos)>|\[/?INST\]"
)
NO_WIDTH = "\u200b\u2060\ufeff"
BLANKS = f" \t\u00a0\u202f\u3000{NO_WIDTH}"
# Bullets, quotation marks, emphasis, numbers and tags before a label.
LEFT = rf"[{BLANKS}>*+•#_`\-\[(【]*(?:\d{{1,2}}[.)][ \t]*[*_`]*)?(?:<(?:answer|b|strong)>[ \t]*)*"
RIGHT = rf"(?:[ \t]*\#?\d{{1,3}})?[ \t]*[*_`\])】]*[{BLANKS}]*"  # after a label: its number, closed emphasis
OTHERS = r"(?:environment|env|user|human|system|assistant|instruction|response|result|output|feedback)"


def label(names: str) -> str:
    """Return the pattern of a label at the beginning of a line: one of `names`, decorated or not, and its colon."""
    return rf"(?im:^{LEFT}(?:{names}){RIGHT}{COLON}(?:\*\*|__|[*_`]|</(?:b|strong)>)?)"


ACTION = label(r"(?:(?:my|the|next|final|chosen) )?actions?")
HEADING = r"(?im:^[ \t]*(?:#+[ \t]*\**|\*\*|__|\[)action(?: \d{1,3})?[ \t]*(?:\*\*|__|\])?[ \t]*#*\s*?$)"  # no colon
KEY = r'(?i:["\']action["\'][ \t]*:\s*(?=["\']))'  # of a JSON object
STRING = re.compile(r"""(["'])((?:(?!\1)[^\\\n]|\\.)*)\1(?:\s*\})?""")
INLINE = rf"(?:(?<=\s)|(?<=[.!?…。;,(]))\**Action(?: \d+)?\**{COLON}\**"
NEXT = re.compile(label(rf"thoughts?|reasoning|observation|obs|actions?(?: input)?|{OTHERS}") + f"|{HEADING}")
PLAYED_ON = re.compile(label(rf"observation|obs|actions?|{OTHERS}") + f"|{HEADING}|{KEY}")
SAYS_WORLD = re.compile(label(rf"observation|obs|{OTHERS}"))
INLINE_NEXT = re.compile(rf"(?<=\s)\**(?:Observation|Thought|Action)(?: \d+)?\**{COLON}")
THOUGHT = re.compile(label("thoughts?"))
# What a raw chat template begins a turn with.
LEADING = re.compile(rf"(?:\s*(?:{SPECIAL.pattern})\s*(?:assistant\b)?)+")
TICKED = re.compile(r"`+([^`\n]+)`+")
# Before an action.
BULLET = re.compile(r"(?:(?:[-*•>]|\d{1,2}[.)])[ \t]+|(?i:action)[ \t]*[:：][ \t]*)(?=\S)")
FENCE = re.compile(r"\s*```(?:[\w+-]*[ \t\r]*\n)?\s*([^\n`]*)\s*(?:```)?")
LINE = re.compile(r"[ \t]*([^\n]*)")
NEXT_LINE = re.compile(r"\s*([^\n]*)")
PAIRS = [(mark, mark) for mark in ("```", "`", "**", "__", "*", '"', "'")]  # around an action
PAIRS += [(pair[0], pair[1]) for pair in ("“”", "‘’", "«»", "「」", "『』", "[]", "()", "<>")]
TAGGED = r"(?i:<action>)"
TAGS = re.compile(r"(?i)^<(?:action|answer|b|strong)>|</(?:action|answer|b|strong)>$")  # around an action
WAIT_ACTION = "wait"
# Appendix A: the revision signal is one of ten short thoughts. These are our own sentences.
REVISION_THOUGHTS = (
    "That was a mistake. I will change my plan.",
    "My last step was wrong. I need another way.",
    "This is not working. I should rethink it.",
    "I went wrong here. Let me correct that.",
    "That step did not help. I will do it differently.",
    "I made an error. I must fix my plan.",
    "I misjudged this. I should start from what is missing.",
    "That was the wrong move. I need a better one.",
    "I see my mistake now. I will go on another way.",
    "My plan has a flaw. I have to repair it first.",
)

# ACTION_FORMAT -> where the action begins: at the beginning of a line, else (the second pattern) in its midst.
FORMATS: dict[str, tuple[str, ...]] = {
    "any": (f"{ACTION}|{HEADING}|{TAGGED}|{KEY}", INLINE),
    "eto": (r"(?m:^Action:[ \t]*(?=\S))",),  # Thought: ...\nAction: ...
    # Thought:\n...\n\nAction:\n...; its clients take what follows the word, anywhere.
    "agentgym": (r"Action:",),
    "react": (r"(?m:^Action(?: \d+)?:[ \t]*(?=\S))",),  # Thought 1: ...\nAction 1: ...\nObservation 1: ...
}
_FORMATS = {name: [re.compile(pattern) for pattern in found] for name, found in FORMATS.items()}


class Reply(NamedTuple):
    """One turn as it is stored."""

    text: str  # reasoning and turn, without what was played on after its first action
    action: str  # what the environment gets
    cut: Cut = ""


class Parsed(NamedTuple):
    """The parts of a turn."""

    thought: str
    action: str
    found: bool  # the turn has an action of the format; else `action` is the whole turn without reasoning
    end: int  # offset in the turn, after the action
    played_on: bool  # the turn goes on with an observation, another action or another speaker


def read_reply(text: str, form: str = "any", truncated: bool = False, reasoning: str = "") -> Reply:
    """Return a sampled turn as it is stored: up to the end of its first action, if it plays on after that.

    Args:
        form: key of FORMATS.
        truncated: it ended at MAX_TOKEN_LENGTH.
        reasoning: what the server gave apart; it is stored before the turn, as most models write it.
    """
    text = text.strip()
    if (lead := LEADING.match(spoken(text))) is not None and lead.group() == text[: lead.end()] != text:
        text = text[lead.end() :].lstrip()
    played_on = False
    if (end := _token_after(text)) < len(text):
        truncated, played_on = False, bool(_visible(text)[end:].strip())
        text = text[:end].rstrip()
    parsed = parse_reply(text, form)
    if parsed.played_on:
        text, played_on = text[: parsed.end].rstrip(), True
    text = with_reasoning(reasoning, text)
    return Reply(text, parsed.action, "played_on" if played_on else "length" if truncated else "")


def count_replies(replies: Iterable[Reply], form: str = "any") -> dict[str, int]:
    """Return the numbers of turns that have no action, are empty (and so have none), were cut, or played on."""
    found = list(replies)
    return {
        "no_action": sum(not parse_reply(reply.text, form).found for reply in found),
        "empty": sum(not without_reasoning(reply.text).strip() for reply in found),
        "truncated": sum(reply.cut == "length" for reply in found),
        "played_on": sum(reply.cut == "played_on" for reply in found),
    }


def reply_warnings(counts: Mapping[str, int], limit: int) -> list[str]:
    """Return a line for each kind of reply in `counts` (of count_replies, and `total`) that a person should know of.

    Args:
        limit: MAX_TOKEN_LENGTH.
    """
    if not counts:
        return []
    told = {
        "no_action": f"had no action, or a tool call without one ({counts['empty']} were empty): look at some; PROMPT, "
        "ACTIONS and ACTION_FORMAT say how a reply is asked for and read",
        "truncated": f"were cut by MAX_TOKEN_LENGTH={limit} and are never trained: set it higher, or "
        "THINK_TOKENS where the model reasons first",
        "played_on": "went on after their action, with an observation or another action: that was cut off",
    }
    shown = {what: counts[name] for name, what in told.items() if counts[name]}
    return [f"warning: {number} of {counts['total']} replies {what}" for what, number in shown.items()]


@lru_cache(maxsize=1 << 12)
def parse_reply(reply: str, form: str = "any") -> Parsed:
    """Return the parts of a turn. Its action is the first one; a turn without one is the action as a whole.

    The environment then refuses it in its own words, which the agent sees. Reasoning is never a part of it.
    """
    if form == TOOLS:
        return _parse_calls(reply)
    visible = _visible(reply)
    start, begin = _action_label(visible, form)
    thought = THOUGHT.search(visible, 0, start)
    said = visible[thought.end() : start].strip() if thought else ""
    if begin == start:
        rest = visible.strip()
        one_line = "\n" not in rest.strip("`\n ")
        return Parsed(said, bare(rest) if one_line else rest, False, len(reply), False)
    if visible[start] in "\"'" and (quoted := STRING.match(visible, begin)):  # KEY
        action, follows = bare(re.sub(r"\\(.)", r"\1", quoted[2])), visible[quoted.end() :]
        return Parsed(said, action, bool(action), quoted.end(), bool(PLAYED_ON.search(follows)))
    value = FENCE.match(visible, begin) or LINE.match(visible, begin)
    assert value is not None
    if not value.group(1).strip(" \t*_`"):
        value = NEXT_LINE.match(visible, value.end()) or value
        value = FENCE.match(visible, value.start()) or value
        if NEXT.match(visible, value.start(1)):  # the next label, not an action
            return Parsed(said, "", False, len(reply), False)
    action, end = value.group(1), value.end()
    if other := INLINE_NEXT.search(action) or re.search(r"(?i)</action>", action):
        action, end = action[: other.start()], value.start(1) + other.start()
    follows = visible[end:]
    action = bare(action)
    return Parsed(
        said, action, bool(action), end, bool(PLAYED_ON.search(follows) or INLINE_NEXT.match(follows))
    )


def _parse_calls(reply: str) -> Parsed:
    """Return the parts of a turn that calls tools. One of REVISION_THOUGHTS without a call is the revision signal."""
    content, calls = split_turn(reply)
    thought = without_reasoning(content).strip()
    signal = not calls and thought in REVISION_THOUGHTS
    proper = bool(calls) and all(call.command for call in calls)
    action = WAIT_ACTION if signal else action_of_calls(calls)
    return Parsed(thought, action, signal or proper, len(reply), False)


def bare(action: str) -> str:
    """Return an action without quotes, back-ticks, emphasis and tokens around it, and without a final full stop."""
    for _ in range(8):  # one within the other; it ends much sooner
        before = action
        action = TAGS.sub("", SPECIAL.sub("", action).strip().strip(NO_WIDTH).strip()).strip()
        action = action[match.end() :] if (match := BULLET.match(action)) else action
        action = action.rstrip(".。．").strip()
        if (ticked := TICKED.match(action)) is not None:
            action = ticked.group(1)
        for left, right in PAIRS:
            inner = action[len(left) : len(action) - len(right)]
            two = (left == "<" and left in inner) or re.search(
                rf"{re.escape(right)}\W|\W{re.escape(left)}", inner
            )  # as in "a" and "b"
            if inner and not two and action.startswith(left) and action.endswith(right):
                action = inner
        for mark in ("**", "`"):
            if action.count(mark) % 2:
                action = action.removeprefix(mark).removesuffix(mark)
        for left, right in ("()", "[]"):
            if action.count(right) > action.count(left):
                action = action.removesuffix(right)
        if action == before:
            break
    return action


def _visible(text: str) -> str:
    """Return the text with its reasoning and the tokens of chat templates as blanks: all offsets stay."""
    return SPECIAL.sub(lambda token: " " * len(token.group()), spoken(text))


def _token_after(text: str) -> int:
    """Return the offset of the first token of a chat template after a turn's beginning; the length without one."""
    shown = _visible(text)
    tokens = (token.start() for token in SPECIAL.finditer(spoken(text)))
    return next((start for start in tokens if shown[:start].strip()), len(text))


def _action_label(visible: str, form: str) -> tuple[int, int]:
    """Return the offsets of the first action's label, twice the length without one.

    An action in a line's midst counts only before an observation; else a thought may name an earlier action.
    """
    first, *others = _FORMATS[form]
    found = first.search(visible)
    limit = found.start() if found else len(visible)
    for pattern in others:
        inline = pattern.search(visible, 0, limit)
        if inline and (found is None or SAYS_WORLD.search(visible, inline.end(), limit)):
            found = inline
    return found.span() if found else (len(visible), len(visible))


VERDICT = re.compile(  # a label and its verdict, alone or with a remark that names no other one
    rf"(?:(?im:^{LEFT}(?:(?:my|the|final|overall) )?(?:judge?ment|verdict){RIGHT})|(?<=[.!?] )(?:Final )?Judge?ment)"
    rf"[{BLANKS}]*(?:{COLON}|$|(?=\n))(?i:(?:[\s{NO_WIDTH}*_`\"'(\[#:<]|</?\w+>)*(?P<label>good|bad|uncertain)\b"
    rf"(?:</\w+>|_|[^\w\n?/|&+])*(?:[(\-–—,;:][^\n]*)?)$",
    re.MULTILINE,
)
WORD = re.compile(r"\b(good|bad|uncertain)\b", re.IGNORECASE)
OBJECT = re.compile(r"(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?", re.DOTALL)


def parse_verdict(text: str) -> tuple[Label, str] | None:
    """Return (label, reason) of a judge's answer, or None unless it ends with a judgment and has no other one.

    A remark after the label must not name another label: "Bad. It is not good" is never read as good.
    """
    shown = _visible(text[: _token_after(text)]).replace("\r\n", "\n").strip()
    if whole := OBJECT.fullmatch(shown):
        shown = _written_out(whole[1])
    shown = shown.rstrip("`*_-= \n\t")
    found = list(VERDICT.finditer(shown))
    if not found or shown[found[-1].end() :].strip() or len({m["label"].lower() for m in found}) != 1:
        return None
    last, verdict = found[-1], found[-1]["label"].lower()
    if {word.lower() for word in WORD.findall(last.group())} != {verdict}:
        return None
    assert verdict in ("good", "bad", "uncertain")
    lines = [line.strip() for line in shown[: last.start()].splitlines() if line.strip()]
    return verdict, " ".join(lines)  # type: ignore[return-value]


def _written_out(text: str) -> str:
    """Return a JSON object that is a judge's answer as lines, its judgment last; "" if it is none."""
    try:
        found = {name.lower(): str(value) for name, value in json.loads(text, strict=False).items()}
    except (ValueError, RecursionError):
        return ""
    judged = [found.pop(name) for name in ("judgment", "judgement", "verdict") if name in found]
    return "\n".join([*found.values(), *(f"Judgment: {verdict}" for verdict in judged)])
