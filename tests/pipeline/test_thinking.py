"""The stages with a model that reasons before it answers: in a field, in its text, streamed, cut."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.report.verify.__main__ import main as verify
from mcts_utils.servers.mock_llm.endpoint import MODEL, ChatServer
from mcts_utils.servers.textcraft.expert import answer
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import iter_jsonl, read_json
from mcts_utils.storage.layout import records_path, run_folder, tree_path
from mcts_utils.training.dataset import record_conversation
from mcts_utils.training.encoding import Encoder
from mcts_utils.training.export import export
from tests.helpers.chat_templates import TEMPLATES
from tests.helpers.training_models import byte_tokenizer
from tests.pipeline.conftest import Run

SPLIT = load_world().split()
IDS = "1,2,6"
TREES = ("--input_dir", f"mcts_result/textcraft/{MODEL}", "--output_dir", "out")
DRAFT = "<think>\nI could try Action: get 9 dirt\n</think>\n\nThought: "


def plain_expert(messages: list[dict], rng: random.Random) -> str:
    """The expert, who does not read reasoning."""
    own = [{**m, "content": m["content"].rpartition("</think>")[2].lstrip()} for m in messages]
    return answer(own, rng, 0.6)


def acting(chat: ChatServer) -> list[list[dict[str, Any]]]:
    """The conversations of the requests so far that are no questions to the judge."""
    return [
        body["messages"]
        for body in chat.requests
        if not body["messages"][0]["content"].startswith("You review")
    ]


@pytest.mark.parametrize(
    ("like", "shown"),
    [
        (("thinks",), ""),
        (("thinks", "stream"), "last"),
        (("thinks_too",), "keep"),
        (("thinks_inline",), "drop"),
    ],
)
def test_reasoning_is_kept_never_executed_and_shown_as_asked(
    run: Run, chat: ChatServer, like: tuple[str, ...], shown: str
) -> None:
    chat.policy, chat.behaviour = plain_expert, replace(chat.behaviour, like=like)
    how = {"HISTORY_REASONING": shown, "THINK_TOKENS": "300", "MAX_DEPTH": "5"}
    code, _, err = run(mcts_collection.main, "--task_ids", IDS, **how)
    assert code == 0 and "warning" not in err
    tree = read_json(tree_path("mcts_result", "textcraft", MODEL, int(IDS.split(",")[0])))
    nodes, stats = tree["nodes"], tree["stats"]
    assert all(text.startswith(DRAFT) for text in nodes["llm_response"][1:]) and stats["invalid"] == 0
    assert not any("dirt" in text for name in ("action", "obs") for text in nodes[name])
    assert {body["max_tokens"] for body in chat.requests} == {556}
    assert tree["settings"].get("history_reasoning", "drop") == (shown or "drop")
    field = {"thinks": "reasoning_content", "thinks_too": "reasoning"}.get(like[0], "")
    for messages in [found for found in acting(chat) if len(found) > 4]:
        turns = [turn for turn in messages if turn["role"] == "assistant"]
        reasons = [field in turn for turn in turns]
        assert reasons == [shown == "keep" or (shown == "last" and turn is turns[-1]) for turn in turns]
        assert not any("<think>" in turn["content"] for turn in turns)
    code, out, _ = run(path_collection.main, *TREES, **how)
    assert code == 0 and " records of 3 trees" in out
    rows = [row for _, row in iter_jsonl(records_path("out", "textcraft", "centric"))]
    assert rows and all(row["history_reasoning"] == (shown or "drop") for row in rows)
    assert not any(
        "dirt" in str(body["messages"]) for body in chat.requests if "Judgment" in str(body["messages"])
    )
    trained_as_served(rows, shown or "drop")
    code, out, err = run(verify, ".")
    assert code == 0, out + err
    code, out, _ = run(evaluation.main, "--task_ids", str(SPLIT["test"][0]), "--max_steps", "5", **how)
    folder = run_folder("test_result", "textcraft", MODEL, "")
    steps = read_json(folder / f"episode_{SPLIT['test'][0]}.json")["steps"]
    assert code == 0 and all(
        step["reply"].startswith(DRAFT) and "dirt" not in step["action"] for step in steps
    )


def trained_as_served(rows: list[dict[str, Any]], shown: str) -> None:
    """Check that every trained turn, its reasoning with it, follows the earlier ones as they were shown."""
    template, special, end = TEMPLATES["chatml"]
    encoder = Encoder(byte_tokenizer(special, template, special[0], end))
    conversations = [record_conversation(row, "f") for row in rows]
    turns = sum(conversation.trained_turns for conversation in conversations)
    for messages, sequences in ((found.messages, encoder.encode(found)) for found in conversations):
        for sequence, (count, stop) in [(s, last) for s in sequences for last in s.ends]:
            own = [n for n in range(count - 1) if messages[n].role == "assistant"]
            kept = {"drop": [], "last": own[-1:], "keep": own}[shown]
            seen = [
                replace(m, content=m.content if n in kept else m.content.rpartition("</think>\n\n")[2])
                for n, m in enumerate(messages[: count - 1])
            ]
            whole = encoder.chat.render([*seen, messages[count - 1]], generation_prompt=False)
            assert encoder.tokenizer.decode(sequence.input_ids[:stop]) == whole.rstrip("\n")
        assert len(sequences) == 1 or shown != "keep"
    for layout in ("openai", "llamafactory"):
        split = shown != "keep" or layout == "llamafactory"
        assert len(export(conversations, layout)[0]) == (turns if split else len(rows))
    last = export(conversations, "openai")[0][-1]["messages"]
    assert last[-1]["weight"] == 1 and last[-1]["content"].startswith(DRAFT)


def test_a_cut_thought_is_a_cut_reply_and_reasoning_alone_is_empty(run: Run, chat: ChatServer) -> None:
    chat.policy = lambda messages, rng: "<think>" + "so on " * 90
    flags = ("--task_ids", str(SPLIT["test"][0]), "--max_steps", "3")
    code, _, err = run(evaluation.main, *flags, MAX_TOKEN_LENGTH="20", THINK_TOKENS="40")
    assert code == 0 and "3 of 3 replies were cut by MAX_TOKEN_LENGTH=20" in err and "THINK_TOKENS" in err
    folder = run_folder("test_result", "textcraft", MODEL, "")
    episode = read_json(folder / f"episode_{SPLIT['test'][0]}.json")
    assert [(s["cut"], s["action"]) for s in episode["steps"]] == [("length", "")] * 3
    assert episode["settings"]["think_tokens"] == 40
    chat.behaviour = replace(chat.behaviour, like=("thinks_only",))
    code, _, err = run(evaluation.main, *flags, MODEL_TYPE="only", THINK_TOKENS="40")
    assert read_json(Path(f"{folder}only") / "summary.json")["replies"]["empty"] == 3
    code, _, err = run(evaluation.main, *flags, HISTORY_REASONING="all")
    assert code == 2 and "HISTORY_REASONING must be one of drop, keep, last: 'all'" in err
