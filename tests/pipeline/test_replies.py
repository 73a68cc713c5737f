"""The stages with models that answer otherwise than asked: over real sockets, from the reply to the record."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, ChatServer
from mcts_utils.servers.textcraft.expert import answer
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import iter_jsonl, read_json
from mcts_utils.storage.layout import records_path, run_folder, tree_path
from tests.pipeline.conftest import Run

SPLIT = load_world().split()
IDS = [index for index in SPLIT["train"] if index < 120][:3]


def rewritten(
    write: Callable[[str], str], read: Callable[[str], str]
) -> Callable[[list[dict], random.Random], str]:
    """The expert, whose turns are written otherwise; `read` gives back what it wrote."""

    def policy(messages: list[dict], rng: random.Random) -> str:
        own = [
            {**m, "content": read(m["content"]) if m["role"] == "assistant" else m["content"]}
            for m in messages
        ]
        return write(answer(own, rng, 0.0))

    return policy


def test_a_perfect_player_is_perfect_in_bold(run: Run, chat: ChatServer) -> None:
    chat.policy = rewritten(
        lambda text: text.replace("Action: ", "**Action:** `") + "`.",
        lambda text: text.replace("**Action:** `", "Action: ").removesuffix("`."),
    )
    code, out, err = run(
        evaluation.main, "--task_ids", ",".join(map(str, SPLIT["test"][:4])), "--max_steps", "20"
    )
    assert code == 0 and out.startswith("success rate 1.000") and "warning" not in err


def test_what_a_player_makes_up_is_in_no_tree_no_question_and_no_record(
    run: Run, chat: ChatServer, tmp_path: Path
) -> None:
    def policy(messages: list[dict], rng: random.Random) -> str:
        text = answer(messages, rng, 0.4)
        return (
            text if "Judgment" in text else f"{text}\nObservation: made up\nThought: on\nAction: get 9 dirt"
        )

    chat.policy = policy
    ids = ",".join(map(str, IDS))
    code, _, err = run(mcts_collection.main, "--task_ids", ids)
    assert code == 0 and "replies went on after their action" in err and "had no action" not in err
    tree = read_json(tree_path("mcts_result", "textcraft", MODEL, IDS[0]))
    assert tree["stats"]["played_on"] == tree["stats"]["completions"] and "truncated" not in tree["stats"]
    assert set(tree["nodes"]["cut"][1:]) == {"played_on"}
    counts = read_json(tree_path("mcts_result", "textcraft", MODEL, 0).with_name("manifest.json"))["counts"]
    assert counts["played_on"] > 0 and counts["truncated"] == counts["empty"] == counts["invalid"] == 0
    flags = ("--input_dir", f"mcts_result/textcraft/{MODEL}", "--output_dir", "out", "--data_type", "good")
    assert run(path_collection.main, *flags)[0] == 0
    assert len(list(iter_jsonl(records_path("out", "textcraft", "good")))) > 0
    everything = [path.read_text() for path in tmp_path.rglob("*.json*")]
    assert not any("made up" in text or "get 9 dirt" in text for text in everything)
    assert not any("made up" in str(body["messages"]) for body in chat.requests)


def test_a_reply_that_the_limit_cut_is_marked_counted_and_never_trained(run: Run, chat: ChatServer) -> None:
    def policy(messages: list[dict], rng: random.Random) -> str:
        return answer(messages, rng, 0.0) + ("\n" + "and so on " * 50) * (rng.random() < 0.4)

    chat.policy = policy
    ids = ",".join(map(str, IDS))
    code, _, err = run(mcts_collection.main, "--task_ids", ids, MAX_TOKEN_LENGTH="60")
    assert code == 0 and "replies were cut by MAX_TOKEN_LENGTH=60" in err
    cut: set[str] = set()
    for index in IDS:
        nodes = read_json(tree_path("mcts_result", "textcraft", MODEL, index))["nodes"]
        reasons = nodes.get("cut", [""] * len(nodes["id"]))
        cut |= {text for text, why in zip(nodes["llm_response"], reasons, strict=True) if why == "length"}
    flags = ("--input_dir", f"mcts_result/textcraft/{MODEL}", "--output_dir", "out", "--data_type", "good")
    assert run(path_collection.main, *flags)[0] == 0
    turns = [
        turn for _, row in iter_jsonl(records_path("out", "textcraft", "good")) for turn in row["messages"]
    ]
    trained = {turn["content"]: turn["loss"] for turn in turns if turn["role"] == "assistant"}
    assert cut & set(trained) and not any(trained[text] for text in cut & set(trained))
    assert any(trained.values())


def test_the_summary_counts_what_was_no_whole_turn(run: Run, chat: ChatServer) -> None:
    said = iter(
        [
            "",
            "<think>Action: inventory",
            "Action: inventory",
            "Action: inventory\nAction: get 1 x",
            "Thought: so " * 90,
        ]
    )
    chat.policy = lambda messages, rng: next(said)
    index = str(SPLIT["test"][0])
    code, _, err = run(
        evaluation.main, "--task_ids", index, "--max_steps", "5", CONCURRENCY="1", MAX_TOKEN_LENGTH="60"
    )
    folder = run_folder("test_result", "textcraft", MODEL, "")
    expected = {"total": 5, "no_action": 3, "empty": 2, "truncated": 1, "played_on": 1}
    assert code == 0 and read_json(folder / "summary.json")["replies"] == expected
    assert read_json(folder / "manifest.json")["counts"]["replies"] == expected
    assert len([line for line in err.splitlines() if line.startswith("warning")]) == 3
    steps = read_json(folder / f"episode_{index}.json")["steps"]
    assert [step.get("cut") for step in steps] == [None, None, None, "played_on", "length"]
    assert [step["action"] for step in steps[:4]] == ["", "", "inventory", "inventory"]
    assert run(evaluation.main, "--task_ids", index, "--max_steps", "5", MAX_TOKEN_LENGTH="60")[0] == 0


def test_answers_that_are_all_empty_end_the_stages_with_one_line(run: Run, chat: ChatServer) -> None:
    chat.behaviour = replace(chat.behaviour, like=("content_null",))
    every = ",".join(map(str, SPLIT["test"][:30]))
    for main, flags in ((evaluation.main, ["--max_steps", "2"]), (mcts_collection.main, ["--allow_test"])):
        code, _, err = run(main, "--task_ids", every, *flags)
        assert code == 2 and "are all empty" in err.splitlines()[-1] and "Traceback" not in err
    assert len(chat.requests) < 100


def test_a_named_format_is_part_of_what_a_run_was_made_with(run: Run, chat: ChatServer) -> None:
    chat.policy = lambda messages, rng: "Action: " * (rng.random() < 0.5) + "inventory"
    index = str(SPLIT["test"][0])
    flags = ("--task_ids", index, "--max_steps", "4")
    assert run(evaluation.main, *flags, ACTION_FORMAT="eto")[0] == 0
    code, _, err = run(evaluation.main, *flags, ACTION_FORMAT="any")
    assert code == 2 and "action_format 'eto' -> 'any'" in err
    ids = ("--task_ids", str(IDS[0]))
    assert run(mcts_collection.main, *ids, ACTION_FORMAT="eto")[0] == 0
    code, _, err = run(mcts_collection.main, *ids, ACTION_FORMAT="any")
    assert code == 2 and "ACTION_FORMAT='eto', now 'any'" in err


def test_a_limit_above_the_servers_ends_every_stage_with_a_line_that_names_it(
    run: Run, chat: ChatServer
) -> None:
    trees, index = f"mcts_result/textcraft/{MODEL}", str(SPLIT["test"][0])
    ids = ",".join(map(str, IDS))
    assert run(mcts_collection.main, "--task_ids", ids, ITERA="6", N_ROLLOUT="6")[0] == 0
    chat.behaviour = Behaviour(like=("short_replies",))
    for main, flags in (
        (mcts_collection.main, ("--task_ids", str(SPLIT["train"][9]))),
        (path_collection.main, ("--input_dir", trees, "--output_dir", "out", "--data_type", "centric")),
        (evaluation.main, ("--task_ids", index)),
    ):
        code, _, err = run(main, *flags)
        assert code == 2, main.__module__
        line = err.splitlines()[-1]
        assert f"MAX_TOKEN_LENGTH=256 is above the limit of {chat.base_url}" in line
        assert "at most 32 completion tokens" in line
