"""The stages with a model that acts by tool calls: one, several, streamed, after reasoning, malformed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.actors.chat_tokens import ChatTokens
from mcts_utils.report.__main__ import main as report
from mcts_utils.report.verify.__main__ import main as verify
from mcts_utils.servers.mock_llm.endpoint import MODEL, ChatServer
from mcts_utils.servers.textcraft.expert import answer
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import iter_jsonl, read_json
from mcts_utils.storage.layout import records_path, run_folder, tree_path
from mcts_utils.tool_calls import split_turn
from mcts_utils.training.dataset import record_conversation
from mcts_utils.training.encoding import IGNORED, Encoder
from mcts_utils.training.export import export
from mcts_utils.types import InputError
from tests.helpers.chat_templates import IM, TOOLS
from tests.helpers.training_models import byte_tokenizer
from tests.pipeline.conftest import Run

TEST = str(load_world().split()["test"][0])
TREES = ("--input_dir", f"mcts_result/textcraft/{MODEL}", "--output_dir", "out")
HOW = {"ACTIONS": "tools", "MAX_DEPTH": "5"}
THINKS = "<think>\nI could try Action: get 9 dirt\n</think>\n"


@pytest.mark.parametrize("like", [("calls",), ("calls_twice", "stream"), ("calls", "thinks")])
def test_calls_are_executed_answered_judged_spliced_and_trained(
    run: Run, chat: ChatServer, like: tuple[str, ...]
) -> None:
    chat.policy = lambda messages, rng: answer(messages, rng, 0.6)
    chat.behaviour = replace(chat.behaviour, like=like)
    code, _, err = run(mcts_collection.main, "--task_ids", "1,2,6,7,12", **HOW)
    assert code == 0 and "warning" not in err
    tree = read_json(tree_path("mcts_result", "textcraft", MODEL, 1))
    assert tree["settings"]["actions"] == "tools" and tree["settings"]["history_reasoning"] == "keep"
    nodes, twice = tree["nodes"], "calls_twice" in like
    calls = [split_turn(text)[1] for text in nodes["llm_response"][1:]]
    assert {len(found) for found in calls} == {1 + twice}
    assert tree["stats"]["env_steps"] > 0 and ("answers" in nodes) == twice
    executed = [at for at, done in enumerate(nodes["executed"]) if done and at]
    for at in executed:
        assert nodes["action"][at] == "\n&& ".join(call.command for call in calls[at - 1])
        assert not twice or nodes["obs"][at] == "\n".join(nodes["answers"][at])
    for body in chat.requests:
        assert ("tools" in body) == (not body["messages"][0]["content"].startswith("You review"))
    assert run(path_collection.main, *TREES, **HOW)[0] == 0
    path = records_path("out", "textcraft", "centric")
    rows = [row for _, row in iter_jsonl(path)]
    code, out, _ = run(path_collection.main, "--verify", str(path), **HOW)
    assert rows and code == 0 and f"rows {len(rows)}, exact {len(rows)}," in out
    code, _, err = run(path_collection.main, "--verify", str(path), ACTIONS="text")
    assert code == 2 and "rows with tool calls want ACTIONS=tools" in err
    code, _, err = run(path_collection.main, *TREES, ACTIONS="text")
    assert code == 2 and "searched with ACTIONS=tools, now text" in err
    trained_as_served(rows, "thinks" in like)
    assert run(report, "view", ".", "-o", "page.html")[0] == 0
    code, out, err = run(verify, ".")
    assert code == 0, out + err
    code, out, _ = run(report, "record", f"{path}:1")
    assert code == 0 and '"command": "' in out and "→ Could not find" in out


def trained_as_served(rows: list[dict[str, Any]], thinks: bool) -> None:
    """Check the tokens of every trained turn against the library's own use of the template; then the exports."""
    tokenizer = byte_tokenizer(IM, TOOLS, IM[0], IM[2])
    assert ChatTokens(tokenizer).takes_tools()
    encoder, conversations = Encoder(tokenizer), [record_conversation(row, "f") for row in rows]
    for row, conversation in zip(rows, conversations, strict=True):
        served = [{k: v for k, v in turn.items() if k != "loss"} for turn in row["messages"]]
        for turn in served:
            for call in turn.get("tool_calls", ()):
                call["function"] = {
                    **call["function"],
                    "arguments": json.loads(call["function"]["arguments"]),
                }
        (sequence,) = encoder.encode(conversation)
        whole = tokenizer.apply_chat_template(served, tools=row["tools"], tokenize=False)
        assert tokenizer.decode(sequence.input_ids) == str(whole).rstrip("\n")
        parts = [
            token if label != IGNORED else 0
            for token, label in zip(sequence.input_ids, sequence.labels, strict=True)
        ]
        assert tokenizer.decode([token for token in parts if token]).count("<tool_call>") == sum(
            len(turn.get("tool_calls", ())) for turn in row["messages"] if turn["loss"]
        )
        assert any(turn.content.startswith(THINKS) for turn in conversation.messages) == thinks
    whole_row = export(conversations, "openai")[0][0]
    assert whole_row["tools"] == rows[0]["tools"] and "command" not in str(
        whole_row["messages"][2]["tool_calls"][0].keys()
    )
    prompt = export(conversations, "trl")[0][0]
    assert prompt["tools"] and {"assistant", "tool"} <= {turn["role"] for turn in prompt["prompt"]}
    with pytest.raises(InputError, match="llamafactory: a turn is text or a tool call"):
        export(conversations, "llamafactory")
    silent = [
        replace(c, messages=tuple(replace(m, content="") if m.tool_calls else m for m in c.messages))
        for c in conversations
    ]
    turns = export(silent, "llamafactory")[0][0]["conversations"]
    assert {"function_call", "observation"} <= {turn["from"] for turn in turns}


def test_malformed_calls_are_refusals_that_the_model_sees(run: Run, chat: ChatServer) -> None:
    chat.behaviour = replace(chat.behaviour, like=("calls_badly",))
    code, _, err = run(evaluation.main, "--task_ids", TEST, "--max_steps", "8", CONCURRENCY="1", **HOW)
    folder = run_folder("test_result", "textcraft", MODEL, "")
    summary = read_json(folder / "summary.json")
    assert code == 0 and summary["protocol"]["actions"] == "tools" and "5 of 8 replies had no action" in err
    assert summary["replies"]["no_action"] == 5 and summary["replies"]["empty"] == 1
    steps = read_json(folder / f"episode_{TEST}.json")["steps"]
    held = "Inventory: You are not carrying anything."
    words = ["no JSON object", "no tool 'fly'", "no 'command'", held, "no tool was called", held, held]
    for step, word in zip(steps, [*words, "no tool was called"], strict=True):
        assert word in step["observation"] and step["observation"].startswith(("Tool call refused: ", held))
    assert steps[1]["answers"][1] == held and steps[3]["answers"] == [held, held]
    last = chat.requests[-1]["messages"]
    assert [turn["role"] for turn in last[2:8]] == [
        "assistant",
        "tool",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    asked = [call["id"] for turn in last for call in turn.get("tool_calls", ())]
    assert asked == [turn["tool_call_id"] for turn in last if turn["role"] == "tool"] and len(
        set(asked)
    ) == len(asked)
    assert last[-2]["role"] == "assistant" and last[-1]["content"] == held


def test_what_cannot_act_by_tools_is_one_line(
    run: Run, chat: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = str(Path(__file__).parents[2] / "models/tiny_actor")
    faults = [
        ({"OPENAI_BASE_URL": "", "MODEL_DIR": tiny}, "the chat template of MODEL_DIR="),
        ({"ACTION_FORMAT": "eto"}, "ACTION_FORMAT=eto is of replies in text: ACTIONS is tools"),
        ({"ACTIONS": "both"}, "ACTIONS must be one of text, tools: 'both'"),
    ]
    for variables, words in faults:
        with monkeypatch.context():
            code, _, err = run(evaluation.main, "--task_ids", TEST, **{**HOW, **variables})
        for name in ("MODEL_DIR", "ACTION_FORMAT"):
            monkeypatch.delenv(name, raising=False)
        assert code == 2 and words in err and len(err.splitlines()) == 1
    chat.behaviour = replace(chat.behaviour, like=("no_tools",))
    code, _, err = run(mcts_collection.main, "--task_ids", "1", **HOW)
    assert code == 2 and err.count("\n") == 1 and "ACTIONS=tools" in err and "--tool-call-parser" in err
    code, _, err = run(evaluation.main, "--task_ids", TEST, "--shots", "1", "--examples", "x", **HOW)
    assert code == 2 and "--shots 1: examples act in text" in err
    code, _, err = run(path_collection.main, "--data_type", "expert", "--output_dir", "out", **HOW)
    assert code == 2 and "--data_type expert: the episodes act in text" in err


DOORS = """
class Doors:
    tools = {"open": "open {door}", "look": "look"}
    def reset(self, index):
        self.open = 0
        return "Open the doors red, then blue."
    def step(self, action):
        self.open += action == f"open {('red', 'blue')[self.open]}"
        return f"{self.open} doors are open.", float(self.open == 2), self.open == 2
    def split(self):
        return {"train": [0, 1], "test": [2]}
"""


def test_a_world_states_its_own_tools(run: Run, chat: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "doors.py").write_text(DOORS)
    calls = [{"function": {"name": "open", "arguments": {"door": door}}} for door in ("red", "blue")]
    calls.append({"function": {"name": "act", "arguments": {"command": "open red"}}})
    chat.complete = lambda body: {"choices": [{"message": {"content": None, "tool_calls": calls}}]}  # type: ignore[method-assign]
    how = {**HOW, "TASK": "./doors.py:Doors", "ENV_SERVER_BASE": ""}
    code, out, err = run(evaluation.main, "--task_ids", "2", "--max_steps", "3", **how)
    assert code == 0 and out.startswith("mean reward 1.000") and "1 of 1 replies had no action" in err
    (file,) = Path("test_result").rglob("episode_2.json")
    (step,) = read_json(file)["steps"]
    assert step["answers"] == [
        "1 doors are open.",
        "2 doors are open.",
        "Tool call refused: the episode has ended.",
    ]
    assert [tool["function"]["name"] for tool in chat.requests[-1]["tools"]] == ["open", "look"]
    (tmp_path / "doors.py").write_text(DOORS.replace('"look": "look"', '"look up": "look"'))
    code, _, err = run(evaluation.main, "--task_ids", "2", **how)
    assert code == 2 and "tools: 'look up' is no name of a tool" in err


def test_a_budget_of_direct_revision_signals_without_a_call(run: Run, chat: ChatServer) -> None:
    chat.policy = lambda messages, rng: answer(messages, rng, 1.0)
    chat.behaviour = replace(chat.behaviour, like=("calls",))
    flags = ("--task_ids", "6", "--strategy", "direct_revision", "--budget", "9")
    assert run(mcts_collection.main, *flags, **{**HOW, "MAX_DEPTH": "3"})[0] == 0
    nodes = read_json(tree_path("mcts_result", "textcraft", MODEL, 6))["nodes"]
    signals = [at for at, action in enumerate(nodes["action"]) if action == "wait"]
    assert signals and all(
        nodes["obs"][at] == "ok." and "<" not in nodes["llm_response"][at] for at in signals
    )
