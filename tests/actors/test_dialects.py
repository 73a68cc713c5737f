"""The endpoint actor against servers that refuse and shape otherwise (mock_llm/dialects.py), on real sockets."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from mcts_utils.actors.answer_guard import FIRST, AnswerGuard, NothingAnswered
from mcts_utils.actors.answers import OVERFLOW, REPLY_LIMIT, NoAnswer, parse_body, said, samples
from mcts_utils.actors.endpoint import EndpointActor
from mcts_utils.actors.server_profile import FEATURES, ServerProfile
from mcts_utils.actors.transport import better_address, is_loopback, light_client
from mcts_utils.prompts import read_turn, step_messages
from mcts_utils.reasoning import split_reasoning, with_reasoning
from mcts_utils.replies import read_reply
from mcts_utils.servers.mock_llm.dialects import REFUSALS, SHAPES
from mcts_utils.servers.mock_llm.endpoint import Behaviour, ChatServer, running_chat
from mcts_utils.tool_calls import definitions
from mcts_utils.types import ActorError, ContextOverflow, InputError, Message, ServiceGone, Step

ASK = [Message("system", "rules"), Message("user", "task")]
LONG = [Message("user", "word " * 100)]


def echo(messages: list[dict], rng: random.Random) -> str:
    return f"{messages[0]['role']}|{messages[-1]['content']}|{rng.randrange(10**6)}"


@contextmanager
def played(*like: str, key: str = "k") -> Iterator[tuple[EndpointActor, ChatServer]]:
    """An actor of a server that plays the dialects; no pause takes time."""
    with running_chat(Behaviour(like=like), echo) as server:
        actor = EndpointActor(server.base_url, key, "m", 64, 4, random.Random(0), lambda pause: None)
        with closing(actor):
            yield actor, server


def notices(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(("notice", "warning"))]


LEARNED = {
    "reasoning": {"max_tokens", "temperature 0"},
    "temperature_above_0": {"temperature 0"},
    "no_system": {"system"},
    "no_system_template": {"system"},
    "no_seed": {"seed"},
    "only_streams": {"whole answers"},
}


@pytest.mark.parametrize("like", LEARNED)
def test_a_refusal_is_learned_once_said_once_and_kept_for_the_manifest(like, capsys):
    with played(like, "stream_if_asked") as (actor, server):
        first = actor.sample(ASK, temperature=0, seed=3)[0].text
        asked = len(server.requests)
        assert first.split("|")[1].endswith("task")
        assert actor.sample(ASK, temperature=0, seed=3)[0].text.split("|")[1].endswith("task")
        assert len(server.requests) == asked + 1
        assert set(actor.stats()["refused_by_server"]) == LEARNED[like]
    assert len(notices(capsys)) == len(LEARNED[like])


def test_a_system_turn_that_is_refused_stands_before_the_first_user_turn():
    with played("no_system") as (actor, _):
        assert actor.sample(ASK)[0].text.startswith("user|rules\n\ntask|")


def test_several_refusals_of_one_server_are_learned_together():
    with played("reasoning", "no_system", "no_seed", "one_choice") as (actor, server):
        found = actor.sample(ASK, 3, 0.7, 5)
        assert len(found) == 3
        server.requests.clear()
        assert len(actor.sample(ASK, 2, 0.7, 5)) == 2
        assert [set(body) for body in server.requests] == [{"model", "messages", "max_completion_tokens"}] * 2
        assert "temperature" in actor.stats()["refused_by_server"]


def test_greedy_copies_are_sampled_where_the_temperature_is_refused():
    with played("reasoning") as (actor, _):
        actor.sample(ASK, temperature=0)
        assert len({sample.text for sample in actor.sample(ASK, 3, 0)}) == 3


@pytest.mark.parametrize(("like", "asked"), [("one_choice", 4), ("n_422", 4), ("one_choice_unexplained", 5)])
def test_n_that_is_refused_with_any_status_is_asked_one_by_one(like, asked):
    with played(like) as (actor, server):
        assert len({sample.text for sample in actor.sample(ASK, 3, 1.0, 5)}) == 3
        assert len(server.requests) == asked
        server.requests.clear()
        actor.sample(ASK, 3, 1.0, 5)
        assert ["n" in body for body in server.requests] == [False] * 3


def test_a_refusal_that_quotes_a_word_switches_nothing_off(capsys):
    with played("blocked") as (actor, server):
        for text in ("pumpkin seeds", "a pumpkin seed of this role"):
            with pytest.raises(ActorError, match="Blocked"):
                actor.sample([Message("system", "s"), Message("user", text)], 2, 1.0, 5)
        assert len(actor.sample(ASK, 2, 1.0, 5)) == 2
        assert {"n", "seed"} <= set(server.requests[-1]) and "refused_by_server" not in actor.stats()
    assert not notices(capsys)


@pytest.mark.parametrize("like", [name for name in REFUSALS if name.startswith("too_long")])
def test_an_overflow_is_read_in_other_words_with_any_key_and_never_blamed_on_n(like):
    with played(like, key="x") as (actor, server):
        with pytest.raises(ContextOverflow):
            actor.sample(LONG, 4)
        assert len(server.requests) == 1 and len(actor.sample(ASK, 4)) == 4


def test_a_limit_above_the_servers_is_named_and_no_overflow():
    with played("short_replies") as (actor, server):
        with pytest.raises(ActorError, match="MAX_TOKEN_LENGTH=64") as caught:
            actor.sample(ASK, 2)
        assert not isinstance(caught.value, ContextOverflow) and len(server.requests) == 1


def test_empty_turns_that_are_refused_are_filled():
    with played("no_empty_turns") as (actor, server):
        assert actor.sample([*ASK, Message("assistant", ""), Message("user", "go on")])[0].text
        assert server.requests[-1]["messages"][2]["content"] == "(nothing)"
        assert actor.stats()["refused_by_server"] == ["empty turns"]


def test_a_passing_failure_teaches_nothing(capsys):
    with played() as (actor, server):
        server.behaviour = Behaviour(fail_every=2, fail="500")
        for seed in range(4):
            assert len(actor.sample(ASK, 2, 0.7, seed)) == 2
        assert all("n" in body for body in server.requests) and "refused_by_server" not in actor.stats()


ANSWERED = (
    "content_parts",
    "text_alone",
    "usage_missing",
    "usage_list",
    "usage_text",
    "usage_odd",
    "stream",
    "not_utf8",
)
EMPTY = (
    "content_null",
    "content_empty",
    "message_null",
    "choice_null",
    "choices_null",
    "choices_empty",
    "thinks_only",
)


@pytest.mark.parametrize("like", ANSWERED)
def test_other_shapes_are_answers(like):
    with played(like) as (actor, server):
        found = actor.sample(ASK, 2)
        assert [sample.text.split("|")[1] for sample in found] == ["task"] * 2
        assert len(server.requests) == 1 and all(sample.prompt_tokens >= 0 for sample in found)


@pytest.mark.parametrize("like", EMPTY)
def test_answers_without_a_text_are_empty_ones(like):
    with played(like) as (actor, server):
        assert [sample.text for sample in actor.sample(ASK, 3)] == [""] * 3
        assert len(server.requests) == 1 and "refused_by_server" not in actor.stats()


@pytest.mark.parametrize("like", ["no_choices", "a_list", "page"])
def test_what_is_no_answer_is_one_line_at_once(like):
    with played(like) as (actor, server):
        with pytest.raises(ActorError, match="OPENAI_BASE_URL") as caught:
            actor.sample(ASK, 2)
        assert "\n" not in str(caught.value) and len(server.requests) == 1


def test_a_lone_surrogate_is_answered_and_sent():
    with played("surrogate") as (actor, server):
        text = actor.sample([Message("user", "broken \udcff")])[0].text
        text.encode()
        assert text.startswith("user|broken \ufffd|") and text.endswith(" \ufffd")
        assert server.requests[-1]["messages"][0]["content"] == "broken \ufffd"


@pytest.mark.parametrize("like", ["thinks", "thinks_too", "content_parts"])
@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_that_comes_apart_goes_back_where_it_came_from(like, streamed):
    with played(like, *["stream"] * (streamed and like != "content_parts")) as (actor, server):
        (sample,) = actor.sample(ASK)
        assert sample.text.startswith("system|task|") and sample.reasoning.strip()
        reply = read_reply(sample.text, reasoning=sample.reasoning).text
        assert split_reasoning(reply) == (sample.reasoning.strip(), sample.text)
        actor.sample([*ASK, Message("assistant", reply), Message("user", "on")])
        sent = server.requests[-1]["messages"][2]
        field = {"thinks": "reasoning_content", "thinks_too": "reasoning"}.get(like)
        assert sent == {"role": "assistant", "content": sample.text if field else reply} | (
            {field: sample.reasoning.strip()} if field else {}
        )


def test_reasoning_that_is_refused_is_left_out():
    with played("thinks", "no_reasoning") as (actor, server):
        reply = with_reasoning(actor.sample(ASK)[0].reasoning, "Action: x")
        turns = [*ASK, Message("assistant", reply), Message("user", "on")]
        assert actor.sample(turns)[0].text and "reasoning_content" not in server.requests[-1]["messages"][2]
        assert actor.stats()["refused_by_server"] == ["reasoning"]


TOOLED = [Message("system", "s", tools=definitions({"act": "{command}"})), Message("user", "u")]


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_offered_and_calls_and_answers_go_back(streamed):
    with played("calls_twice", *["stream"] * streamed) as (actor, server):
        (sample,) = actor.sample(TOOLED)
        assert [call.name for call in sample.tool_calls] == ["act", "act"] and sample.tool_calls[0].id == "c0"
        steps = [Step(read_turn(sample, "textcraft", "tools").text, "", "o", 0.0, answers=("one", "two"))]
        actor.sample([*TOOLED, *step_messages(steps, form="tools")])
        body = server.requests[-1]
        assert body["tools"][0]["function"]["name"] == "act" and not server.requests[0]["messages"][0].get(
            "tools"
        )
        said, one, two = body["messages"][2:]
        assert [call["id"] for call in said["tool_calls"]] == ["c0", "c1"] and said["content"]
        assert json.loads(said["tool_calls"][1]["function"]["arguments"]) == {"command": "inventory"}
        assert (one, two) == tuple(
            {"role": "tool", "tool_call_id": i, "content": text} for i, text in (("c0", "one"), ("c1", "two"))
        )
        actor.sample(ASK)
        assert "tools" not in server.requests[-1]


def test_malformed_arguments_that_a_server_refuses_are_made_an_object():
    with played("calls_badly", "object_arguments") as (actor, server):
        turn = read_turn(actor.sample(TOOLED)[0], "textcraft", "tools")
        actor.sample([*TOOLED, *step_messages([Step(turn.text, "", "refused", 0.0)], form="tools")])
        (call,) = server.requests[-1]["messages"][2]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"malformed": '{"command": "inv'}
        assert actor.stats()["refused_by_server"] == ["malformed calls"]


def test_a_server_without_tools_is_one_line_before_any_work():
    with (
        played("no_tools") as (actor, _),
        pytest.raises(InputError, match="ACTIONS=tools: the endpoint takes no tools") as caught,
    ):
        actor.check(TOOLED[0].tools)
    assert "\n" not in str(caught.value)


def test_all_shapes_and_refusals_are_tested():
    tried = {*ANSWERED, *EMPTY, "no_choices", "a_list", "page", "surrogate", "stream_if_asked", "cut_prompts"}
    tried |= {"thinks", "thinks_too", "thinks_inline", "calls", "calls_twice", "calls_badly"}
    assert tried == set(SHAPES)
    assert {
        *LEARNED,
        "short_replies",
        "no_empty_turns",
        "no_reasoning",
        "no_tools",
        "object_arguments",
        "one_choice",
        "n_422",
        "one_choice_unexplained",
        "blocked",
    } == {name for name in REFUSALS if not name.startswith("too_long")}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "no", "param": "seed"}}, "no (parameter seed)"),
        ({"error": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "no", "input": "secret"}]}, "body.seed: no"),
        (["no", "never"], "no; never"),
        ("plain\n text", "plain text"),
        ({"error": {"message": "failed", "metadata": {"raw": "no"}}}, "failed no"),
        ({"object": "error", "message": "no", "code": 400}, "no"),
        ({"status": 7}, '{"status": 7}'),
        (None, "null"),
    ],
)
def test_refusals_of_other_shapes_are_quoted(body, text):
    assert said(body) == text


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (
            "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049",
            True,
        ),
        ("This model's maximum prompt length is 131072 but the request contains 200000 tokens.", True),
        ("Input tokens exceed the configured limit of 272000 tokens.", True),
        ("Your request exceeded model token limit: 8192", True),
        ("prompt is too long: 210000 tokens > 200000 maximum", True),
        ("Requested tokens (4500) exceed context window of 4096", True),
        ("the request exceeds the available context size, try increasing it", True),
        ("prompt tokens too long", True),
        ("Please reduce the length of the messages or completion.", True),
        (
            "max_tokens is too large: 256. This model's maximum context length is 2048, your 1900 input tokens",
            True,
        ),
        ("Unsupported parameter: 'seed'", False),
        ("max_tokens=3000 cannot be greater than max_model_len=2048", False),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", False),
        ("Rate limit reached, try again in 20 s", False),
        ("Input token length is longer than the max allowed", True),
        ("The number of tokens in the prompt exceeds the number allowed: 9000 > 4096", True),
        ("length of prompt + max_tokens 9000 exceeds n_ctx 4096", True),
        ("Total tokens of image and text exceed max message tokens.", True),
        ("Invalid 'messages[0].content': string too long.", True),
        ("<h1>413 Request Entity Too Large</h1>", True),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9000 `inputs`", True),
        ("body.max_tokens: Input should be less than or equal to 32", False),
        ("max_tokens: 64 > 32, which is the maximum allowed number of output tokens", False),
        ("`max_new_tokens` must be <= 512. Given: 1024", False),
    ],
)
def test_overflows_are_known_by_their_words(text, known):
    assert bool(OVERFLOW.search(text) and not REPLY_LIMIT.search(text)) is known


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ("Unrecognized request argument supplied: seed", "seed"),
        ("seeds of pumpkins", ""),
        ("Only n=1 is supported", "n"),
        ("'n' must be 1", "n"),
        ("multiple completions are not supported", "n"),
        ("system is overloaded", ""),
        ("System role not supported", "system"),
        ("Developer instruction is not enabled for this model", "system"),
        ("Conversation roles must alternate user/assistant/user/assistant", "system"),
        ("`temperature` has to be a strictly positive float", "temperature 0"),
        ("This model requires streaming", "whole answers"),
        ("upstream failed", ""),
        ("Use 'max_completion_tokens' instead", "max_tokens"),
        ("content must be non-empty", "empty turns"),
    ],
)
def test_what_a_refusal_may_mean(text, feature):
    assert ServerProfile("x").suspect(text, frozenset(FEATURES) - {"temperature"}) == feature


@pytest.mark.parametrize(
    "content",
    [
        b'data: {"choices": [{"delta": {"content": "Tho"}}]}\n\ndata: {"error": {"message": "overloaded"}}\n\n',
        b'{"choices": [{"message": {"content": ""}, "error": {"message": "overloaded"}}]}',
    ],
)
def test_an_error_beside_a_part_of_an_answer_is_tried_again(content):
    with pytest.raises(NoAnswer, match="overloaded") as failure:
        samples(parse_body(content), 1)
    assert failure.value.passing


def test_a_stream_ends_with_its_reason_and_usage():
    lines = [
        'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}',
        "event: ping",
        'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}',
        'data: {"choices": [{"delta": {"content": "b"}, "finish_reason": "length"}], "usage": {"prompt_tokens": 3}}',
        "data: [DONE]",
    ]
    (found,) = samples(parse_body("\r\n".join(lines).encode()), 1)
    assert (found.text, found.truncated, found.prompt_tokens) == ("ab", True, 3)


def test_a_server_that_cuts_prompts_in_silence_is_noticed_once(capsys):
    def talk(actor: EndpointActor) -> None:
        for turns in range(1, 40):
            actor.sample([Message("user", "It is a long story. " * 10 * turns)])

    with played("cut_prompts") as (actor, _):
        talk(actor)
        assert actor.stats()["refused_by_server"] == ["whole prompts"]
    assert ["num_ctx" in line for line in notices(capsys)] == [True]
    with played() as (actor, _):
        talk(actor)
        assert "refused_by_server" not in actor.stats()
    assert not notices(capsys)


def test_a_model_that_answers_nothing_ends_the_stage():
    with played("content_null") as (actor, _):
        guard = AnswerGuard(actor, "m", 64)
        for _ in range(FIRST - 1):
            assert guard.sample(ASK)[0].text == ""
        with pytest.raises(NothingAnswered, match="MAX_TOKEN_LENGTH=64") as caught:
            guard.sample(ASK)
    assert isinstance(caught.value, ServiceGone)


def test_one_answer_is_enough_to_go_on():
    with played() as (actor, server):
        guard = AnswerGuard(actor, "m", 64)
        guard.sample(ASK)
        server.behaviour = Behaviour(like=("content_null",))
        assert len([guard.sample(ASK) for _ in range(2 * FIRST)]) == 2 * FIRST


@pytest.mark.parametrize(
    ("given", "better"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1/chat/completions", "http://h:1/v1"),
        ("http://h:1/v1/", ""),
        ("https://h/v1beta/openai", ""),
        ("http://h/api", "http://h/api/v1"),
    ],
)
def test_an_address_without_a_version_gets_a_hint(given, better):
    assert better_address(given) == (better and f"; try {better}")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"])
def test_this_machine_is_never_reached_through_a_proxy(host, monkeypatch):
    assert is_loopback(host) and not is_loopback("192.0.2.1") and not is_loopback("example.org")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    shown = f"[{host}]" if ":" in host else host
    for scheme in ("http", "https"):
        with closing(light_client(f"{scheme}://{shown}:1/v1")) as client:
            assert not [mount for mount in client._mounts.values() if mount is not None]
    assert light_client("http://192.0.2.1/v1") is None


def test_requests_to_this_machine_arrive_in_spite_of_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with played() as (actor, _):
        assert actor.sample(ASK)[0].text
