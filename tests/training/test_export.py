"""Records for other trainers: what is read back as they read it trains the same turns after the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.storage import files
from mcts_utils.training import export
from tests.helpers.training_models import preference, record

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


def run(tmp_path: Path, rows: list[dict[str, Any]], form: str) -> tuple[int, list[dict[str, Any]]]:
    files.write_jsonl(tmp_path / "in.jsonl", rows)
    code = export.main(
        ["--data", str(tmp_path / "in.jsonl"), "--format", form, "--output", str(tmp_path / "out.jsonl")]
    )
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
        ({"messages": [{"role": "tool", "content": "q", "loss": False}]}, "role is unknown"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(tmp_path, capsys, form, bad, words):
    assert run(tmp_path, [record(0), bad], form)[0] == 2
    printed = capsys.readouterr().err
    assert "in.jsonl row 2" in printed and words in printed and printed.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
