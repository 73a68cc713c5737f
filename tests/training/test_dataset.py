"""Records and general rows -> training conversations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.training.dataset import (
    GENERAL,
    ROLES,
    Conversation,
    RowError,
    count_kinds,
    general_conversation,
    general_quota,
    record_conversation,
    shuffled,
)
from mcts_utils.types import InputError, Message


def turn(role: str, content: str = "text", loss: Any = None) -> dict[str, Any]:
    """A message as a file holds it; the flag is left out where it is None."""
    return {"role": role, "content": content} | ({} if loss is None else {"loss": loss})


def record(*turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"kind": "good", "messages": list(turns)} | fields


def test_a_record_keeps_its_flags():
    row = record(
        turn("system"),
        turn("user"),
        turn("assistant", "a", False),
        turn("user"),
        turn("assistant", "b", True),
    )
    conversation = record_conversation(row, "r.jsonl row 1")
    assert conversation.kind == "good" and conversation.trained_turns == 1
    assert [message.loss for message in conversation.messages] == [*(False, False, False, False, True)]


def test_reference_rows_are_read_from_revise_log():
    turns = [turn("user"), turn("assistant", "bad", False), turn("user"), turn("assistant", "good", True)]
    assert record_conversation({"revise_log": turns, "revise": 1}, "x").kind == "revision"
    assert record_conversation({"revise_log": turns, "revise": 0}, "x").kind == "good"
    assert record_conversation({"revise_log": turns, "kind": "direct"}, "x").kind == "direct"


def test_flags_off_the_assistant_train_nothing():
    row = record(turn("system", loss=True), turn("user", loss=True), turn("assistant", loss=True))
    assert [message.loss for message in record_conversation(row, "x").messages] == [False, False, True]


def test_a_last_observation_is_left_out():
    row = record(turn("user"), turn("assistant", loss=True), turn("user", "last observation"))
    assert [message.role for message in record_conversation(row, "x").messages] == ["user", "assistant"]


@pytest.mark.parametrize("flag", [None, "true", 1, 0, "False"])
def test_a_flag_that_is_not_true_or_false_is_refused(flag):
    row = record(turn("user"), turn("assistant", loss=True), turn("user"), turn("assistant", loss=flag))
    with pytest.raises(RowError) as caught:
        record_conversation(row, "runs/good.jsonl row 7")
    assert str(caught.value).startswith("runs/good.jsonl row 7: ")
    assert "message 4" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "no list of turns"),
        ({"messages": []}, "no list of turns"),
        ({"messages": "hello"}, "no list of turns"),
        ({"messages": [None]}, "no list of turns"),
        ({"chosen": [], "rejected": []}, "preference pair"),
        (record(turn("narrator")), "'narrator'"),
        (record(turn("tool")), "is tool, not "),
        (record(turn("user"), turn("assistant") | {"tool_calls": 3}), "tool_calls is no list"),
        (record(turn("user"), turn("assistant") | {"tool_calls": [3]}), "a tool call has no name"),
        (record(turn("user") | {"tool_calls": [{"name": "act"}]}), "only an assistant turn calls tools"),
        (
            record(turn("user"), turn("assistant", loss=True)) | {"tools": "act"},
            "tools is no list of objects",
        ),
        (
            record(turn("user"), turn("assistant", loss=True)) | {"history_reasoning": "all"},
            "must be drop, keep or last",
        ),
        (record(turn("user", None)), "no text"),  # type: ignore[arg-type]
        (record(turn("user"), turn("user"), turn("assistant", loss=True)), "message 2 is user"),
        (record(turn("system"), turn("assistant", loss=True)), "message 2 is assistant"),
        (
            record(turn("user"), turn("assistant", loss=True), turn("assistant", loss=True)),
            "message 3 is assistant",
        ),
        (record(turn("user"), turn("system"), turn("assistant", loss=True)), "message 2 is system"),
        (record(turn("system", ""), turn("user"), turn("assistant", loss=True)), "system message is empty"),
        (record(turn("system"), turn("user")), "no assistant turn"),
    ],
)
def test_records_that_no_template_takes_are_refused(row, words):
    with pytest.raises(RowError, match="^f row 3: ") as caught:
        record_conversation(row, "f row 3")
    assert words in str(caught.value)


def test_sharegpt_rows_train_every_assistant_turn():
    turns = [("system", "s"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("assistant", "d"), ("human", "e")]
    row = {"id": "x", "conversations": [{"from": role, "value": text} for role, text in turns]}
    conversation = general_conversation(row, "g row 1")
    assert conversation.kind == GENERAL
    assert [(m.role, m.content, m.loss) for m in conversation.messages] == [
        ("system", "s", False),
        ("user", "a", False),
        ("assistant", "b", True),
        ("user", "c", False),
        ("assistant", "d", True),
    ]


def test_general_rows_in_message_form_and_cut_chats():
    row = {"messages": [turn("assistant", "rest"), turn("user", "a"), turn("assistant", "b")]}
    assert [(m.content, m.loss) for m in general_conversation(row, "g").messages] == [
        ("a", False),
        ("b", True),
    ]


@pytest.mark.parametrize(
    ("flag", "trained"),
    [
        *(
            ({}, True),
            ({"loss": True}, True),
            ({"loss": None}, True),
            ({"weight": 1}, True),
            ({"loss": 1}, True),
        ),
        *(({"loss": False}, False), ({"weight": 0}, False), ({"weight": 0.0}, False), ({"loss": 0}, False)),
        ({"loss": True, "weight": 0}, False),
    ],
)
@pytest.mark.parametrize(
    ("key", "role", "text", "names"),
    [
        ("messages", "role", "content", ROLES),
        ("conversations", "from", "value", {"user": "human", "assistant": "gpt"}),
    ],
)
def test_general_rows_keep_their_flags(flag, trained, key, role, text, names):
    turns = [{role: names["user"], text: "q"}, {role: names["assistant"], text: "a"} | flag]
    row = {key: [*turns, *turns[:1], {role: names["assistant"], text: "b"}], "system": "s"}
    messages = general_conversation(row, "g").messages
    assert [m.loss for m in messages if m.role == "assistant"] == [trained, True]
    assert (messages[0].role, messages[0].content) == ("system", "s")  # LLaMA-Factory's column


def test_a_system_turn_goes_before_the_system_column():
    row = {"messages": [turn("system", "own"), turn("user"), turn("assistant")], "system": "column"}
    assert [m.content for m in general_conversation(row, "g").messages if m.role == "system"] == ["own"]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"conversations": []},
        {"conversations": [{"from": "gpt", "value": "only"}]},
        {"conversations": [{"from": "human", "value": "only"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]},
        {"conversations": [{"from": "function", "value": "a"}]},
        {"conversations": [{"from": "human"}]},
        {"messages": [turn("user"), turn("assistant", loss="no")]},
        {"messages": [turn("user"), turn("assistant") | {"weight": 0.5}]},
        {"messages": [turn("user"), turn("assistant")], "system": ["s"]},
    ],
)
def test_bad_general_rows_are_row_errors_with_a_countable_reason(row):
    with pytest.raises(RowError) as caught:
        general_conversation(row, "g row 12")
    assert "12" not in caught.value.reason


@pytest.mark.parametrize(
    ("records", "eta", "general"), [(100, 0.2, 400), (100, 1.0, 0), (3, 0.5, 3), (0, 0.2, 0)]
)
def test_eta_is_the_share_of_agent_rows(records, eta, general):
    assert general_quota(records, eta) == general


@pytest.mark.parametrize("eta", [0, -0.1, 1.01, float("nan")])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(InputError, match="--eta"):
        general_quota(10, eta)


@given(st.integers(1, 10_000), st.floats(0.01, 1))
def test_the_quota_gives_the_share_back(records, eta):
    general = general_quota(records, eta)
    assert abs(general - records * (1 - eta) / eta) <= 0.5


@given(st.integers(0, 60), st.integers(0, 5))
def test_shuffling_loses_nothing_and_depends_on_the_seed_alone(count, seed):
    rows = [Conversation("good", str(n), (Message("user", "a"),)) for n in range(count)]
    once, again = shuffled(rows, seed), shuffled(iter(rows), seed)
    assert once == again and sorted(row.source for row in once) == sorted(row.source for row in rows)
    assert count < 20 or once != shuffled(rows, seed + 1)


def test_kinds_are_counted_in_order():
    rows = [Conversation(kind, "x", ()) for kind in ("revision", "good", "revision")]
    assert list(count_kinds(rows).items()) == [("good", 1), ("revision", 2)]


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=8))
def test_what_passes_alternates_and_is_unchanged(roles):
    row = record(*(turn(role, f"{n}", True if role == "assistant" else None) for n, role in enumerate(roles)))
    try:
        messages = record_conversation(row, "x").messages
    except RowError:
        return
    turns = [m for m in messages if m.role != "system"]
    assert all(message.role != "system" for message in messages[1:])
    assert [m.role for m in turns] == ["user", "assistant"] * (len(turns) // 2) != []
    assert [m.content for m in messages] == [f"{n}" for n in range(len(messages))]
