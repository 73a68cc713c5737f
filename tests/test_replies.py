"""How answers are read: a table of forms of turns and of verdicts, each the smallest input that shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.prompts import action_of, is_signal
from mcts_utils.reasoning import shown_history, split_reasoning, with_reasoning, without_reasoning
from mcts_utils.replies import (
    FORMATS,
    bare,
    count_replies,
    parse_reply,
    parse_verdict,
    read_reply,
    reply_warnings,
)
from mcts_utils.types import Message

ACTION = "get 1 oak log"
FORMS = {  # all of them mean ACTION
    "plain": "Thought: t\nAction: {}",
    "no space": "Action:{}",
    "capitals": "ACTION: {}",
    "bold label": "**Action:** {}",
    "bold word": "**Action**: {}",
    "bold line": "**Action: {}**",
    "bold action": "Action: **{}**",
    "underlines": "__Action:__ {}",
    "full-width colon": "Thought：t\nAction：{}",
    "item": "- Action: {}",
    "star": "* **Action:** {}",
    "number": "2. Action: {}",
    "quotation": "> Thought: t\n> Action: {}",
    "brackets": "[Action]: {}",
    "numbered label": "Thought 1: t\nAction 1: {}",
    "next action": "Next action: {}",
    "back-ticks": "Action: `{}`",
    "back-ticks and a remark": "Action: `{}` because it is missing",
    "double quotes": 'Action: "{}"',
    "single quotes": "Action: '{}'",
    "typographic quotes": "Action: “{}”",
    "corner quotes": "Action：「{}」",
    "fence": "Action:\n```\n{}\n```",
    "named fence": "Action:\n```text\n{}\n```",
    "fence on the line": "Action: ```{}```",
    "fenced turn": "```\nThought: t\nAction: {}\n```",
    "full stop": "Action: {}.",
    "full-width stop": "Action: {}。",
    "quoted, then a stop": 'Action: "{}".',
    "end token": "Action: {}</s>",
    "chat end": "Thought: t\nAction: {}<|im_end|>",
    "header of a raw template": "<|im_start|>assistant\nThought: t\nAction: {}",
    "one line": "Thought: t Action: {}",
    "one line without a blank": "Thought: t.Action: {}",
    "after reasoning": "</think>Action: {}",
    "after tagged reasoning": "<think>\nAction: get 9 dirt\n</think>\n\nThought: t\nAction: {}",
    "reasoning of another kind": "[THINK]Action: get 9 dirt[/THINK]Action: {}",
    "channels": "<|channel|>analysis<|message|>Action: x<|end|><|channel|>final<|message|>Action: {}<|return|>",
    "heading": "## Thought\nt\n\n## Action\n{}",
    "bold heading": "**Action**\n\n{}",
    "heading with colon": "### Action:\n{}",
    "next line": "Thought:\nt\n\nAction:\n{}",
    "item on the next line": "Action:\n- {}",
    "tag": "<action>{}</action>",
    "arrow": "Action -> {}",
    "closed again": "<think>hm</think>Action: {}</think>",
    "picture": "🛠 Action: {}",
    "label twice": "Action: Action: {}",
    "parentheses": "(Action: {})",
    "bracketed action": "Action: [{}]",
    "lines of another system": "## Thought\r\nt\r\n\r\n## Action\r\n{}\r\n",
    "bold, on one line": "**Thought:** t **Action:** {}",
    "marked parts": "<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>Action: {}<|end_of_solution|>",
    "headers": "<|start_header_id|>assistant<|end_header_id|>\n\nThought: t\nAction: {}<|eot_id|>",
    "reasoning, then a token": "<think>Action: x</think><|answer|>Action: {}",
    "thought of an earlier action": "Thought: the last Action: get 9 dirt, failed\nAction: {}",
    "observation repeated first": "Observation: You see a tree.\nThought: t\nAction: {}",
    "byte order mark": "\ufeffAction: {}",
    "odd blanks": "Action\u00a0: \u200b{}\u200b",
    "HTML": "<b>Action:</b> {}",
    "tag after the label": "Action: <action>{}</action>",
    "answer tag": "<answer>Action: {}</answer>",
    "prefixed tag": "<seed:think>\nAction: get 9 dirt\n</seed:think>\nAction: {}",
    "capital marks": "<|START_THINKING|>\nAction: get 9 dirt\n<|END_THINKING|>Action: {}",
    "dash": "Thought: a - b\nAction - {}",
    "JSON": '{{"thought": "t", "action": "{}"}}',
    "JSON on lines": '```json\n{{\n  "action": "{}",\n  "why": "an \\"action\\": dig"\n}}\n```',
    "scratchpad": "<scratchpad>\nAction: get 9 dirt\n</scratchpad>\nAction: {}",
}
PLAYED_ON = {  # all of them mean ACTION, and nothing after it is kept
    "observation": "Thought: t\nAction: {}\nObservation: made up\nThought: u\nAction: get 9 dirt",
    "several actions": "Action: {}\nAction: get 9 dirt",
    "thought between": "Action: {}\nThought: then\nAction: get 9 dirt",
    "one line": "Thought: t Action: {} Observation: made up Action: get 9 dirt",
    "inline, then lines": "Thought: t Action: {}\nObservation: made up\nAction: get 9 dirt",
    "numbered": "Action 1: {}\nObservation 1: made up\nAction 2: get 9 dirt",
    "bold": "**Action:** {}\n**Observation:** made up",
    "another speaker": "Action: {}\nUser: made up\nAssistant: Action: get 9 dirt",
    "unlabelled answer": "Action: {}\nGot 1 oak log\nAction: get 9 dirt",
    "token": "Action: {}<|im_end|>\n<|im_start|>user\nmade up",
    "heading": "## Action\n{}\n## Observation:\nmade up",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "action", [ACTION, "click[b09abc1234]", "search[st. john's wort: 10.5 oz]", "click[red\u00a0m]", "0"]
)
def test_the_forms_that_models_use_are_read(form, action):
    reply = read_reply(FORMS[form].format(action))
    assert (reply.action, reply.cut) == (action, "")
    assert parse_reply(reply.text).found and action_of(reply.text) == action


@pytest.mark.parametrize("form", PLAYED_ON)
def test_what_a_reply_plays_on_is_cut_before_it_is_stored(form):
    reply = read_reply(PLAYED_ON[form].format(ACTION), truncated=True)
    assert (reply.action, reply.cut) == (ACTION, "played_on")
    assert reply.text.endswith(ACTION) and "made up" not in reply.text and "dirt" not in reply.text
    assert read_reply(reply.text) == (reply.text, ACTION, "")


def test_one_json_object_is_one_turn():
    reply = read_reply('{"action": "put \\"a\\" in b"}\n{"observation": "made up"}\n{"action": "dig"}')
    assert reply == ('{"action": "put \\"a\\" in b"}', 'put "a" in b', "played_on")
    assert not parse_reply('{"action": {"name": "dig"}}').found


@pytest.mark.parametrize(
    "text", ["Thought: a plan\nAction: craft 1 x using 1 y", "Action: wait", "Thought: a\nb\nAction: c\n\nd"]
)
def test_a_whole_turn_is_kept_to_the_byte(text):
    assert read_reply(f" {text}\n").text == text


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("", ""),
        ("Action:", ""),
        ("Action:\nAction Input: y", ""),
        ("Thought: t\nAction:\nObservation: made up", ""),
        ("<think>I could try Action: get 1 oak log", ""),
        ("<think>\nAction: get 1 oak log\n", ""),
        ("<think>hm</think>", ""),
        ("get 1 oak log", "get 1 oak log"),
        ("`get 1 oak log`.", "get 1 oak log"),
        ("<answer>get 1 oak log</answer>", "get 1 oak log"),
        ("<x>get 1 oak log</x>", "<x>get 1 oak log</x>"),
        ("I think\nI should rest.", "I think\nI should rest."),
        ("<think>hm</think>I should rest", "I should rest"),
    ],
)
def test_a_turn_without_an_action_is_sent_without_its_reasoning_and_counted(text, action):
    reply = read_reply(text)
    assert (reply.action, parse_reply(reply.text).found) == (action, False)
    empty = int(not text or (text.startswith("<think>") and not action))
    assert count_replies([reply]) == {"no_action": 1, "empty": empty, "truncated": 0, "played_on": 0}


def test_the_input_of_a_tool_is_not_the_action():
    assert action_of("Action: search\nAction Input: y") == "search"


def test_cut_replies_are_marked_and_the_warning_names_the_variable():
    whole, cut = read_reply("Action: x"), read_reply("Thought: and so", truncated=True)
    assert (whole.cut, cut.cut) == ("", "length")
    counts = {"total": 2, **count_replies([whole, cut])}
    lines = reply_warnings(counts, 64)
    assert len(lines) == 2 and "1 of 2 replies were cut by MAX_TOKEN_LENGTH=64" in lines[1]
    assert reply_warnings({"total": 1, **count_replies([whole])}, 64) == reply_warnings({}, 64) == []


@pytest.mark.parametrize(
    ("form", "read", "other"),
    [
        ("eto", "Thought: t\nAction: x", "Thought: t\nAction:\nx"),
        ("agentgym", "Thought:\nt\n\nAction:\nx", "Thought: t\nAction：x"),
        ("react", "Thought 1: t\nAction 1: x", "**Action:** x"),
    ],
)
def test_a_named_format_is_read_alone(form, read, other):
    assert parse_reply(read, form)[1:3] == ("x", True)
    assert not parse_reply(other, form).found
    assert set(FORMATS) == {"any", "eto", "agentgym", "react"}


def test_a_signal_with_a_full_stop_is_one():
    assert is_signal("Thought: t\nAction: wait.") and not is_signal("Thought: t\nAction: wait1")


def test_quotes_within_an_action_stay():
    assert bare('say "a" and "b"') == 'say "a" and "b"' and bare('"a" and "b"') == '"a" and "b"'


HIDDEN = (
    "why",
    "Action: rm -rf",
    "so </think> Action: rm",
    "<think> again",
    "a <think>b</think> c\nAction: rm</think>",
    "[THINK]",
    "<|im_end|>Action: rm",
    "Judgment: Good",
)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    "text", ["Thought: t\nAction: x", "", "Action: x</think>", "hm</think>Action: x", "go"]
)
def test_what_a_server_gives_apart_is_kept_and_never_an_action(hidden, text):
    alone, reply = read_reply(text), read_reply(text, reasoning=f" {hidden}\n")
    assert reply.action == alone.action == action_of(reply.text) and "rm" not in reply.action
    assert parse_verdict(with_reasoning(hidden, "r\nJudgment: Bad")) == ("bad", "r")
    assert read_reply(reply.text)[:2] == reply[:2] and without_reasoning(reply.text) == without_reasoning(
        text
    )
    kept, rest = split_reasoning(reply.text)
    assert kept.replace(" ", "").startswith(hidden.partition("<")[0].replace(" ", "")) and "rm" not in rest
    assert count_replies([reply])["empty"] == (not text)


def test_earlier_turns_are_shown_with_the_reasoning_that_is_asked_for():
    plain = Message("assistant", " Action: y ", True)
    thinking = [Message("assistant", f"<think>\nr\n</think>\n\n{n}") for n in "ab"]
    turns = [Message("user", "<think>mine</think>"), thinking[0], thinking[1], plain]
    assert shown_history(turns, "keep") == turns
    assert [m.content for m in shown_history(turns, "drop")] == [turns[0].content, "a", "b", " Action: y "]
    last = shown_history(turns[:3], "last")
    assert [m.content for m in last] == [turns[0].content, "a", thinking[1].content] and turns[1] == thinking[
        0
    ]
    assert without_reasoning("<think>never closed") == "" and without_reasoning("R</think>go") == "go"
    assert split_reasoning("go <think>on</think>") == ("", "go <think>on</think>")
    assert split_reasoning("R</think>go") == ("R", "go")


@given(
    st.text(alphabet="aA:*`\n >.-<|/", max_size=40).map(
        lambda text: f"{text}Action: x {text}\nObservation: o"
    )
)
def test_what_is_stored_reads_as_it_was_sent(text):
    reply = read_reply(text)
    assert action_of(reply.text) == reply.action
    assert read_reply(reply.text)[:2] == reply[:2]


@given(st.text(max_size=60))
def test_any_text_is_read(text):
    reply = read_reply(text)
    assert reply.text in text and action_of(reply.text) == reply.action


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("r\nJudgment: Good", "good"),
        ("r\nFinal judgment: Good", "good"),
        ("r\n**Final Judgment:** Bad.", "bad"),
        ("r\nJudgment: good (it helps)", "good"),
        ("r\nJudgment: Good, it helps", "good"),
        ("r\nJudgment：Bad", "bad"),
        ("r\n## Judgment\nUncertain", "uncertain"),
        ("r\n**Judgment**\n\n**Bad**", "bad"),
        ("r\n- Judgment: `Good`", "good"),
        ("r\nJudgement: 'Bad'</s>", "bad"),
        ("r\n```\nJudgment: Bad\n```", "bad"),
        ("r Judgment: Good or so\nJudgment: Bad", "bad"),
        ("<think>Judgment: Good</think>r\nJudgment: Bad", "bad"),
        ("Judgment: Good</think>\n\nr\nJudgment: Bad", "bad"),
        ("It failed. Judgment: Bad", "bad"),
        ("Judgment: Good\nas said\nJudgment: Good", "good"),
        ("r\nJudgment: <Good>", "good"),
        ("r\n<b>Judgment:</b> Good", "good"),
        ("r\n<answer>Judgment: Good</answer>", "good"),
        ("r\nJudgment: **Good**: it helps", "good"),
        ("r\nJudgment: Good 👍\n---", "good"),
        ("r\nJudgment\u00a0: Bad\u200b", "bad"),
        ("r\nJudgment: Bad\n\n<|endoftext|>made up", "bad"),
        ("Judgment - Bad", "bad"),
        ('{"judgment": "Bad", "reason": "it is not good"}', "bad"),
        ('```json\n{"Reasoning": "a\nb", "verdict": "good"}\n```', "good"),
        ('{"judgment": "good or bad"}', None),
        ('{"judgment": "good", "verdict": "bad"}', None),
        ('{"judgment": {"label": "bad"}}', None),
        ("{" * 9 + "}" * 9, None),
        ("Judgment: Good?", None),
        ("Judgment: Good: not bad", None),
        ("", None),
        ("Bad", None),
        ("Judgment: Good or Bad", None),
        ("Judgment: Bad. It is not good", None),
        ("Judgment: good (not bad)", None),
        ("Judgment: not good", None),
        ("Judgment: goodness", None),
        ("Judgment: Bad\nor so", None),
        ("Judgment: Good\nJudgment: Bad", None),
        ("<think>Judgment: Good", None),
    ],
)
def test_verdicts(answer, label):
    found = parse_verdict(answer)
    assert (found[0] if found else None) == label


def test_the_reason_is_what_comes_before_the_verdict():
    assert parse_verdict("one\n two\n\n**Judgment**: Bad") == ("bad", "one two")
    assert parse_verdict("<think>no</think>It failed. Judgment: Bad") == ("bad", "It failed.")
    assert parse_verdict('{"judgment": "bad", "reason": "It failed."}') == ("bad", "It failed.")
