"""Actions as tool calls: what a call means, how turns keep calls, and how servers and models write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.actors.answers import parse_body, samples
from mcts_utils.prompts import REVISION_THOUGHTS, action_of, is_signal, read_turn, step_messages
from mcts_utils.reasoning import with_reasoning, without_reasoning
from mcts_utils.replies import count_replies, parse_reply
from mcts_utils.tool_calls import AND, TOOLS, checked, definitions, join_turn, split_turn, written_calls
from mcts_utils.types import Sample, Step, ToolCall

ACT = {"act": "{command}"}
SHOP = {"search": "search[{words}]", "move": "go {direction} {n}", "look": "look"}


def call(name: str, arguments: Any, identity: str = "") -> ToolCall:
    return ToolCall(identity, name, arguments if isinstance(arguments, str) else json.dumps(arguments))


@pytest.mark.parametrize(
    ("name", "arguments", "tools", "command"),
    [
        ("act", {"command": " get 1 oak log\n"}, ACT, "get 1 oak log"),
        ("act", {"command": 3, "why": "so"}, ACT, "3"),
        ("act", {"command": "a {command} b"}, ACT, "a {command} b"),
        ("act", '{"command": "lone \\ud83d"}', ACT, "lone ?"),
        ("search", {"words": "red [lamp]"}, SHOP, "search[red [lamp]]"),
        ("move", {"direction": "{n}", "n": 2}, SHOP, "go {n} 2"),
        ("look", {}, SHOP, "look"),
    ],
)
def test_a_proper_call_is_a_command(name, arguments, tools, command):
    assert checked(call(name, arguments), tools).command == command


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("act", '{"command": "x', "no JSON object"),
        ("act", "", "no JSON object"),
        ("act", "[1]", "no JSON object"),
        ("act", '"x"', "no JSON object"),
        ("act", "9" * 5000, "no JSON object"),
        ("act", {"cmd": "x"}, "have no 'command'"),
        ("act", {"command": None}, "must be a text: null"),
        ("act", {"command": ["x"]}, "must be a text"),
        ("act", {"command": True}, "must be a text: true"),
        ("act", {"command": " "}, "is empty"),
        ("fly", {"command": "x"}, "there is no tool 'fly', but act."),
        ("", {"command": "x"}, "there is no tool ''"),
        ("", '{"name": "act"', "the call is no JSON object"),
    ],
)
def test_a_malformed_call_has_a_fault_and_no_command(name, arguments, words):
    found = checked(call(name, arguments), ACT)
    assert words in found.fault and not found.command and "\n" not in found.fault
    turn = read_turn(Sample("", tool_calls=(call(name, arguments),)), "textcraft", TOOLS)
    assert split_turn(turn.text)[1] == (found,) and count_replies([turn], TOOLS)["no_action"] == 1
    assert turn.action == f"{name}({found.arguments})"


def test_what_is_offered_is_a_request_of_the_protocol():
    (act,) = json.loads(definitions(ACT))
    assert act["function"]["parameters"]["required"] == ["command"] and act["type"] == "function"
    assert [tool["function"]["name"] for tool in json.loads(definitions(SHOP))] == list(SHOP)
    assert json.loads(definitions(SHOP))[2]["function"]["parameters"]["properties"] == {}


WRITTEN = [
    '```json\n{"name": "act", "arguments": {"command": "x"}}\n```',
    '[{"name": "act", "arguments": {"command": "x"}}]',
    '{"name": "act", "arguments": {"command": "x"}}</s>',
    '<tool_call>\n{"name": "act", "arguments": {"command": "x"}}\n</tool_call>',
    '<tool_call>{"name": "act", "arguments": {"command": "x"}}',
    '[TOOL_CALLS][{"name": "act", "arguments": {"command": "x"}}]',
    '{"name": "act", "parameters": {"command": "x"}}',
    '<|python_tag|>{"name": "act", "parameters": {"command": "x"}}<|eom_id|>',
    '<tool_call>{"name": "act", "arguments": {"command": "x"}}</tool_call><|im_end|>\n',
    '{"type": "function", "function": {"name": "act", "arguments": "{\\"command\\": \\"x\\"}"}}',
]


@pytest.mark.parametrize("text", WRITTEN)
@pytest.mark.parametrize("before", ["", "<think>act(y), or <tool_call>{}</tool_call>?</think>\n\n"])
def test_calls_that_a_server_leaves_in_the_text_are_read(text, before):
    turn = read_turn(Sample(before + text), "textcraft", TOOLS)
    assert turn.action == "x" and without_reasoning(split_turn(turn.text)[0]) == ""
    assert len(split_turn(turn.text)[1]) == 1 and action_of(turn.text, TOOLS) == "x"


@pytest.mark.parametrize(
    "text",
    [
        "Thought: t\nAction: x",
        "<think>" + WRITTEN[0],
        f"<think>{WRITTEN[0]}</think>",
        "",
        "{}",
        '{"name": "act"',
    ],
)
def test_a_turn_without_a_call_does_nothing_whatever_it_says(text):
    turn = read_turn(Sample(text), "textcraft", TOOLS)
    assert turn.action == "" and split_turn(turn.text)[1] == ()
    assert count_replies([turn], TOOLS)["no_action"] == 1 and not is_signal(turn.text, form=TOOLS)


def test_what_the_server_gives_apart_is_one_turn_with_the_calls():
    calls = (call("act", {"command": "a"}, "1"), call("act", {"command": "</think><tool_call>"}, "2"))
    turn = read_turn(
        Sample("so: <tool_call>", tool_calls=calls, reasoning="r </think> s"), "textcraft", TOOLS
    )
    assert turn.action == f"a{AND}</think><tool_call>" and parse_reply(turn.text, TOOLS).found
    content, found = split_turn(turn.text)
    assert [c.id for c in found] == ["1", "2"] and without_reasoning(content) == "so: < tool_call>"
    assert read_turn(Sample("x", truncated=True), "textcraft", TOOLS).cut == "length"
    assert is_signal(REVISION_THOUGHTS[0], True, TOOLS) and action_of(REVISION_THOUGHTS[0], TOOLS) == "wait"


@given(
    st.text(max_size=30), st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9), st.text(max_size=30)))
)
def test_a_turn_keeps_its_calls(content, given_calls):
    calls = [checked(ToolCall(i, name, args), ACT) for i, name, args in given_calls]
    for reasoning in ("", "why\n<tool_call>\n{}\n</tool_call>"):
        found, kept = split_turn(with_reasoning(reasoning, join_turn(content.strip(), calls)))
        assert list(kept) == calls
        assert (
            without_reasoning(found).strip() == content.strip()
            or "think" in content.lower()
            or "<" in content
        )


def test_ids_are_unique_and_answers_name_them():
    def step(*ids: str) -> Step:
        calls = [checked(call("act", {"command": "x"}, i), ACT) for i in ids]
        answers = tuple(f"o{i}" for i in range(len(ids)))
        return Step(
            join_turn("", calls), "", "\n".join(answers), 0.0, answers=answers if len(ids) > 1 else ()
        )

    found = step_messages([step("a", "a", ""), step("a"), Step("no call", "", "refused", 0.0)], form=TOOLS)
    ids = [c.id for m in found for c in m.tool_calls]
    assert len(set(ids)) == 4 and all(ids) and ids[0] == "a"
    assert [m.tool_call_id for m in found if m.role == "tool"] == ids
    assert [m.role for m in found] == ["assistant", *["tool"] * 3, "assistant", "tool", "assistant", "user"]


def event(**delta: Any) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n"


def piece(arguments: str, **more: Any) -> dict[str, Any]:
    name = {"name": more.pop("name")} if "name" in more else {}
    return {"function": {"arguments": arguments, **name}, **more}


@pytest.mark.parametrize("indexed", [True, False])
def test_calls_are_put_together_from_a_stream(indexed):
    at = [{"index": 0}, {"index": 1}] if indexed else [{}, {}]
    events = [
        event(reasoning="hm", tool_calls=None),
        event(tool_calls=[piece("", id="c1", name="act", **at[0])]),
        event(tool_calls=[piece('{"command"', **at[0])]),
        event(tool_calls=[piece(': "a"}', **at[0])]),
        event(tool_calls=[piece('{"command": "b"}', id="c2", name="act", **at[1])]),
    ]
    (sample,) = samples(parse_body("".join(events).encode()), 1)
    assert [(c.id, json.loads(c.arguments)["command"]) for c in sample.tool_calls] == [
        ("c1", "a"),
        ("c2", "b"),
    ]
    assert (sample.text, sample.reasoning) == ("", "hm")


@pytest.mark.parametrize(
    "odd", [None, "x", {}, [None], [3], [{"function": None}], [{"function": {"name": 3}}], [{}]]
)
def test_tool_calls_of_any_shape_are_no_error(odd):
    (sample,) = samples({"choices": [{"message": {"content": None, "tool_calls": odd}}]}, 1)
    turn = read_turn(sample, "textcraft", TOOLS)
    assert count_replies([turn], TOOLS)["no_action"] == 1 and written_calls(turn.text)[1] is not None
