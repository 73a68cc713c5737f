"""Records for other trainers: what is read back as they read it trains the same turns after the same text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Qwen3Config

from mcts_utils.actors.chat_tokens import load_tokenizer
from mcts_utils.storage import files
from mcts_utils.training import corpus, export, preflight
from mcts_utils.training.encoding import IGNORED, Encoder
from mcts_utils.training.launcher import Trainer
from mcts_utils.training.token_columns import READERS
from mcts_utils.types import InputError
from tests.helpers.chat_templates import TEMPLATES
from tests.helpers.training_models import ROOT, model_folder, preference, record

Turns = list[tuple[list[tuple[str, str]], str]]  # (what comes before, reply) of every trained turn


def trained(messages: list[dict[str, Any]], flag: str = "loss") -> Turns:
    turns = [(message["role"], message["content"]) for message in messages]
    return [(turns[:n], m["content"]) for n, m in enumerate(messages) if m["role"] == "assistant" and m[flag]]


def read_openai(rows: list[dict[str, Any]]) -> Turns:
    """OpenAI: weight 1 is trained, 0 is not; other roles have no weight."""
    for row in rows:
        assert set(row) == {"messages"}
        assert all(("weight" in m) == (m["role"] == "assistant") for m in row["messages"])
    return [turn for row in rows for turn in trained(row["messages"], "weight")]


def read_trl(rows: list[dict[str, Any]]) -> Turns:
    """TRL: everything in the completion is trained, so it must be one assistant turn."""
    found: Turns = []
    for row in rows:
        assert set(row) == {"prompt", "completion"} and len(row["completion"]) == 1
        assert row["completion"][0]["role"] == "assistant" and row["prompt"][-1]["role"] == "user"
        before = [(message["role"], message["content"]) for message in row["prompt"]]
        found.append((before, row["completion"][0]["content"]))
    return found


def read_llamafactory(rows: list[dict[str, Any]], mask_history: bool) -> Turns:
    """LLaMA-Factory: every gpt turn is trained, or with mask_history the last one."""
    roles = {"human": "user", "gpt": "assistant"}
    found: Turns = []
    for row in rows:
        turns = [("system", row["system"])] if row["system"] else []
        turns += [(roles[turn["from"]], turn["value"]) for turn in row["conversations"]]
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"] * (
            len(row["conversations"]) // 2
        )
        ends = [n for n, (role, _) in enumerate(turns) if role == "assistant"]
        found += [(turns[:n], turns[n][1]) for n in (ends[-1:] if mask_history else ends)]
    return found


@pytest.fixture
def rows(tmp_path) -> list[dict[str, Any]]:
    no_system = record(3)
    no_system["messages"] = no_system["messages"][1:]
    general = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a\u2028b"}]}
    return [record(0), record(1, "revision"), no_system, general]


def plain(row: dict[str, Any]) -> list[dict[str, Any]]:
    if "messages" in row:
        return row["messages"]
    roles = {"human": "user", "gpt": "assistant"}
    return [{"role": roles[t["from"]], "content": t["value"], "loss": True} for t in row["conversations"]]


def run(
    tmp_path: Path, rows: list[dict[str, Any]], form: str, *flags: str
) -> tuple[int, list[dict[str, Any]]]:
    files.write_jsonl(tmp_path / "in.jsonl", rows)
    where = ["--data", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    code = export.main([*where, "--format", form, *flags])
    return code, files.read_jsonl(tmp_path / "out.jsonl") if code == 0 else []


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("openai", read_openai),
        ("trl", read_trl),
        ("llamafactory", lambda rows: read_llamafactory(rows, True)),
    ],
)
def test_the_same_turns_are_trained(tmp_path, capsys, rows, form, read):
    code, written = run(tmp_path, rows, form)
    expected = [turn for row in rows for turn in trained(plain(row))]
    assert code == 0 and read(written) == expected
    assert len(written) == (len(rows) if form == "openai" else len(expected))
    assert (
        f"{len(rows)} rows (1 general, 2 good, 1 revision), {len(expected)} trained turns"
        in capsys.readouterr().out
    )


def test_rows_that_train_every_turn_stay_whole(tmp_path, capsys, rows):
    code, written = run(tmp_path, [rows[0], rows[2], rows[3]], "llamafactory")
    assert code == 0 and len(written) == 3
    assert read_llamafactory(written, False) == [t for n in (0, 2, 3) for t in trained(plain(rows[n]))]
    printed = capsys.readouterr().out
    assert "mask_history: false" in printed
    entry = json.loads(printed.split("dataset_info.json: ")[1])
    assert entry["out"]["columns"] == {"messages": "conversations", "system": "system"}


@pytest.mark.parametrize("form", export.FORMATS)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (preference(0), "preference pair"),
        (
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a", "loss": False},
                ]
            },
            "no turn",
        ),
        ({"messages": [{"role": "narrator", "content": "q", "loss": False}]}, "role is unknown"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(tmp_path, tiny, capsys, form, bad, words):
    assert run(tmp_path, [record(0), bad], form, "--model_dir", str(tiny))[0] == 2
    printed = capsys.readouterr().err
    assert "in.jsonl row 2" in printed and words in printed and printed.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_rows_in_tokens_are_those_that_are_trained(tmp_path, tiny, capsys, rows):
    where = ["--model_dir", str(tiny)]
    code, written = run(tmp_path, rows, "tokens", *where)
    assert code == 0 and f"{len(rows)} rows, " in capsys.readouterr().out
    encoder = Encoder(load_tokenizer(tiny))
    for row, encoded in zip(rows, written, strict=True):
        (sequence,) = encoder.encode(corpus.any_conversation(row, "x"))
        assert encoded == {
            "input_ids": sequence.input_ids,
            "labels": sequence.labels,
            "loss_mask": [int(label != IGNORED) for label in sequence.labels],
        }
    without = [{name: row[name] for name in ("input_ids", "labels")} for row in written]
    assert run(tmp_path, rows, "xtuner", *where) == (0, without)
    length = max(len(row["input_ids"]) for row in written)
    assert len(run(tmp_path, rows, "tokens", *where, "--max_length", str(length - 1))[1]) < len(rows) or (
        "are kept" in capsys.readouterr().err
    )
    code, pairs = run(tmp_path, [preference(0), preference(1)], "xtuner", *where)
    assert code == 0 and set(pairs[0]) == {"chosen_ids", "chosen_labels", "rejected_ids", "rejected_labels"}


def test_rows_in_tokens_need_a_model(tmp_path, capsys, rows):
    assert run(tmp_path, rows, "tokens")[0] == 2
    assert "--format tokens needs --model_dir" in capsys.readouterr().err


@pytest.mark.parametrize("reader", [name for name in READERS if name != "any"])
def test_a_trainers_own_code_trains_the_same_tokens(tmp_path, tiny, capsys, rows, reader):
    """TOKEN_READERS names an interpreter that has the trainers; by default this one, which has none of them."""
    where = ["--model_dir", str(tiny)]
    _, known = run(tmp_path, rows, "tokens", *where)
    expected = [[row["input_ids"], [i for i, on in enumerate(row["loss_mask"]) if on]] for row in known]
    assert run(tmp_path, rows, "tokens", *where, "--for", reader)[0] == 0
    trained = sum(len(places) for _, places in expected)
    assert f"{sum(len(ids) for ids, _ in expected)} tokens, {trained} trained" in capsys.readouterr().out
    command = [os.environ.get("TOKEN_READERS", sys.executable), "tests/helpers/read_tokens.py", reader]
    done = subprocess.run([*command, str(tmp_path / "out.jsonl")], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_columns_are_those_of_rows_in_tokens_alone(tmp_path, capsys, rows):
    assert run(tmp_path, rows, "openai", "--for", "trl")[0] == 2
    assert "--for trl goes with --format tokens, not openai" in capsys.readouterr().err
    row = {"input_ids": [5, 6, 7, 8], "labels": [IGNORED, 6, IGNORED, 8]}
    assert READERS["skyrl"](row) == {
        "input_ids": [5, 6, 7, 8], "attention_mask": [1] * 4, "num_actions": 3, "loss_mask": [1, 0, 1]
    }  # fmt: skip
    assert READERS["slime"](row) == {
        "tokens": [5, 6, 7, 8], "response_length": 3, "loss_mask": [1, 0, 1], "reward": 0.0, "status": "completed"
    }  # fmt: skip
    assert READERS["verl"](row)["position_ids"] == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "kind"), [("qwen3", Qwen3Config), ("gemma3", Gemma3TextConfig)])
def test_a_model_newer_than_xtuner_is_trained_from_its_rows_in_tokens(tmp_path, name, kind):
    template, special, end = TEMPLATES[name]
    model = model_folder(tmp_path / "model", special, template, special[0], end, kind)
    trainer = Trainer("", 0, {"transformers": "4.48.0"}, models=frozenset({"llama", "qwen2"}))
    with pytest.raises(
        InputError, match=rf"4.48.0 does not know model_type '{name}.*--format tokens.*train_trl"
    ):
        preflight.check_architecture(model, trainer)
    code, written = run(tmp_path, [record(n) for n in range(4)], "tokens", "--model_dir", str(model))
    assert code == 0
    if find_spec("trl"):
        command = [
            sys.executable,
            "scripts/train_trl.py",
            "--data",
            str(tmp_path / "out.jsonl"),
            "--model_dir",
        ]
        command += [str(model), "--output_dir", str(tmp_path / "new"), "--epochs", "1", "--accumulation", "4"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "new").dtype == torch.float16
    # Any loop that takes labels trains them.
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr=3e-3), []
    for row in written[:4] * 3:
        ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
        losses.append(network(input_ids=ids, labels=labels).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
