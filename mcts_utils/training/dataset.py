"""Records -> training conversations: loss flags, mixing by eta, caps, cuts, counts. Pure: no files, no tokens.

A record row holds its turns under `messages`, or under `revise_log` as the public reference writes it; a preference row
under `prompt`, `chosen` and `rejected`. A general row is ShareGPT's `conversations` (from/value) or `messages`
(role/content); every assistant turn of it is trained.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mcts_utils.types import InputError, Message, Role

T = TypeVar("T")
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES: dict[str, Role] = ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
GENERAL = "general"
PREFERENCE = "preference"
SIGNALLED = ("revision", "direct")  # kinds that hold a revision signal


class RowError(InputError):
    """A row that cannot be trained. `reason` is the same words for every row of its sort, to be counted by."""

    def __init__(self, source: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{source}: {reason}{': ' + detail if detail else ''}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training conversation: an optional system turn, then user and assistant in turn, an assistant turn last."""

    kind: str  # "good", "revision", ... or GENERAL
    source: str  # "file row n", for messages to people
    messages: tuple[Message, ...]
    env: str = ""  # "textcraft", ...; empty where the row does not say
    task: str = ""  # what rows of one task have in common
    signal: int | None = None  # index of the revision signal's message

    @property
    def trained_turns(self) -> int:
        """How many assistant turns carry loss."""
        return sum(message.loss for message in self.messages)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to one beginning: loss is on what the preference compares, in both."""

    chosen: Conversation
    rejected: Conversation


def record_conversation(row: Mapping[str, Any], source: str) -> Conversation:
    """The conversation of a stage 2 record. Its loss flags are taken as they stand (Eq. 6).

    Raises:
        RowError: if the turns do not alternate, or an assistant message does not say true or false under `loss`:
            XTuner reads a missing flag as false, in silence.
    """
    turns = row.get("messages", row.get("revise_log"))
    if turns is None and {"chosen", "rejected"} <= set(row):
        raise RowError(source, "a preference pair, which supervised fine-tuning cannot take")
    messages = _flagged(turns, source, "messages (or revise_log)")
    kind = str(row.get("kind") or ("revision" if row.get("revise") else "good"))
    checked = _checked(messages, source)
    env, task = _task_of(row, checked)
    return Conversation(kind, source, checked, env, task, _signal_of(row, kind, checked))


def preference_pair(row: Mapping[str, Any], source: str) -> PreferencePair:
    """The two conversations of a preference row (the ETO baseline's data).

    The chosen answer trains what its flags say, so never a step that the environment refused; of the rejected one every
    assistant turn counts, whatever its flags: they are false because nobody is to imitate it.

    Raises:
        RowError: if it is no preference row, or one of its conversations cannot be trained.
    """
    if not {"prompt", "chosen", "rejected"} <= set(row):
        raise RowError(source, "not a preference pair: prompt, chosen and rejected are wanted")
    before = [replace(turn, loss=False) for turn in _flagged(row["prompt"], source, "prompt", strict=False)]
    sides = []
    for name in ("chosen", "rejected"):
        turns = _flagged(row[name], source, name, strict=name == "chosen")
        if name == "rejected":
            turns = [replace(turn, loss=turn.role == "assistant") for turn in turns]
        messages = _checked([*before, *turns], f"{source} {name}")
        env, task = _task_of(row, messages)
        sides.append(Conversation(PREFERENCE, source, messages, env, task))
        if not sides[-1].trained_turns:
            raise RowError(source, f"no turn of {name} carries loss")
    return PreferencePair(*sides)


def general_conversation(row: Mapping[str, Any], source: str) -> Conversation:
    """The conversation of a ShareGPT row; every assistant turn is trained.

    ShareGPT cuts long chats into rows, so a row may begin with an assistant turn: it answers nothing and is left out.

    Raises:
        RowError: if the row has another form or its turns do not alternate. Callers count these and go on.
    """
    name, value = ("from", "value") if "conversations" in row else ("role", "content")
    turns = _turn_list(row.get("conversations", row.get("messages")), source, "conversations or messages")
    found = [
        _message(turn, name, value, SHAREGPT_ROLES, source, number)
        for number, turn in enumerate(turns, start=1)
    ]
    messages = [Message(message.role, message.content, message.role == "assistant") for message in found]
    start = 1 if messages[0].role == "system" else 0
    while len(messages) > start and messages[start].role == "assistant":
        del messages[start]
    return Conversation(GENERAL, source, _checked(messages, source))


def general_quota(records: int, eta: float) -> int:
    """How many general rows go with `records` agent rows, so that these are the share `eta` in (0, 1] (Section 3.2)."""
    if not 0 < eta <= 1:
        raise InputError(f"--eta must be over 0 and at most 1, not {eta!r}")
    return round(records * (1 - eta) / eta)


def shuffled(items: Iterable[T], seed: int) -> list[T]:
    """The same items in an order that depends on the seed alone."""
    result = list(items)
    random.Random(seed).shuffle(result)
    return result


def capped(items: Sequence[T], of: Callable[[T], Conversation], most: int, seed: int) -> list[T]:
    """At most `most` items of each task and kind, drawn with the seed and left in their order."""
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for index in shuffled(range(len(items)), seed):
        key = (of(items[index]).task, of(items[index]).kind)
        seen[key] += 1
        if seen[key] <= most:
            kept.append(index)
    return [items[index] for index in sorted(kept)]


def cut_points(conversation: Conversation) -> Iterator[int]:
    """How many messages a shortened conversation may keep, longest first, the whole one left out.

    It ends behind a trained turn. Where there is a revision signal it keeps the signal and a trained turn after it: a
    signal that nothing follows teaches to announce a revision, not to make one (Section 3.1).
    """
    messages = conversation.messages
    first = 0 if conversation.signal is None else conversation.signal + 1
    ends = [index + 1 for index, message in enumerate(messages) if message.loss and index >= first]
    return (end for end in reversed(ends) if end < len(messages))


def shortened(conversation: Conversation, end: int) -> Conversation:
    """The conversation with its first `end` messages."""
    return replace(conversation, messages=conversation.messages[:end])


def count_envs(conversations: Iterable[Conversation]) -> dict[str, dict[str, int]]:
    """Environment -> kind -> conversations, in alphabetical order; general rows are of none."""
    counts: dict[str, Counter[str]] = {}
    for conversation in conversations:
        if conversation.kind != GENERAL:
            counts.setdefault(conversation.env or "unknown", Counter())[conversation.kind] += 1
    return {env: dict(sorted(kinds.items())) for env, kinds in sorted(counts.items())}


def count_kinds(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Conversations by kind, in alphabetical order."""
    return dict(sorted(Counter(conversation.kind for conversation in conversations).items()))


def training_row(messages: Sequence[Message]) -> dict[str, Any]:
    """The row XTuner's openai_map_fn takes: role, content and an explicit loss on every message."""
    return {"messages": [{"role": m.role, "content": m.content, "loss": m.loss} for m in messages]}


def _flagged(turns: Any, source: str, key: str, strict: bool = True) -> list[Message]:
    """Messages with their loss flags; strict: every assistant turn must have one."""
    messages = []
    for number, turn in enumerate(_turn_list(turns, source, key), start=1):
        message = _message(turn, "role", "content", ROLES, source, number)
        flag = turn.get("loss")
        if strict and message.role == "assistant" and not isinstance(flag, bool):
            detail = f"message {number} has {flag!r}"
            raise RowError(source, "loss must be true or false on every assistant message", detail)
        messages.append(Message(message.role, message.content, message.role == "assistant" and flag is True))
    return messages


def _task_of(row: Mapping[str, Any], messages: Sequence[Message]) -> tuple[str, str]:
    """(environment, task). The reference's rows name neither: there the first user turn, the goal, is the task."""
    lineage = row.get("lineage")
    named = lineage.get("task") if isinstance(lineage, Mapping) else None
    if isinstance(named, Mapping) and named.get("id"):
        return str(named.get("env") or ""), str(named["id"])
    return "", next(message.content for message in messages if message.role == "user")


def _signal_of(row: Mapping[str, Any], kind: str, messages: Sequence[Message]) -> int | None:
    """Where the revision signal is: the turn that the row names, else (the reference's rows) the first trained one."""
    if kind not in SIGNALLED:
        return None
    trained = [index for index, message in enumerate(messages) if message.loss]
    named = (index for index in trained if messages[index].content == row.get("revise"))
    return next(named, trained[0] if trained else None)


def _turn_list(turns: Any, source: str, key: str) -> list[Mapping[str, Any]]:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise RowError(source, f"no list of turns under {key}")
    return turns


def _message(
    turn: Mapping[str, Any], name: str, value: str, roles: Mapping[str, Role], source: str, number: int
) -> Message:
    role, content = turn.get(name), turn.get(value)
    if not isinstance(role, str) or role not in roles:
        raise RowError(source, "a role is unknown", f"message {number} has {role!r}")
    if not isinstance(content, str):
        raise RowError(source, "a message has no text", f"message {number} has {content!r}")
    return Message(roles[role], content)


def _checked(messages: list[Message], source: str) -> tuple[Message, ...]:
    """The turns as XTuner will take them. It would join, invent and drop turns to make others fit: refused here."""
    begin = 1 if messages and messages[0].role == "system" else 0
    if begin and not messages[0].content:
        raise RowError(source, "the system message is empty")  # XTuner drops it, the chat template does not
    for number, message in enumerate(messages[begin:]):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            where = f"message {begin + number + 1} is {message.role}, not {expected}"
            raise RowError(source, "user and assistant must alternate after the system turn", where)
    if len(messages) < begin + 2:
        raise RowError(source, "no assistant turn")
    # A last observation answers nothing that is trained.
    return tuple(messages[:-1] if messages[-1].role == "user" else messages)
