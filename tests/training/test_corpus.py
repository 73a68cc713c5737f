"""The rows of one training run: mixed, capped, cut and counted, from any number of files and environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.actors.chat_tokens import load_tokenizer
from mcts_utils.storage import files as storage_files
from mcts_utils.training import corpus, dataset
from mcts_utils.training.corpus import DataMix
from mcts_utils.training.dataset import (
    Conversation,
    RowError,
    cut_points,
    preference_pair,
    record_conversation,
)
from mcts_utils.training.encoding import IGNORED, Encoder
from mcts_utils.training.row_filter import DROP, RowFilter
from mcts_utils.types import InputError, Message
from tests.helpers.training_models import preference, record, stage3


@pytest.fixture(scope="module")
def encoder(tiny) -> Encoder:
    return Encoder(load_tokenizer(tiny))


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Records of three environments: per environment 4 tasks, 2 good and 2 revision rows each."""
    paths = []
    for env in ("textcraft", "webshop", "sciworld"):
        rows = [record(n, kind, env) for n in range(8) for kind in ("good", "revision")]
        paths.append(str(tmp_path / f"{env}.jsonl"))
        storage_files.write_jsonl(paths[-1], rows)
    return paths


def row_filter(encoder: Encoder, max_length: int = 1024, **options: Any) -> RowFilter:
    return RowFilter(encoder, max_length, **options)


# --- mixing


def general_file(path: Path, form: str) -> str:
    """20 usable rows and 4 bad ones, as a JSON list or a row a line, in ShareGPT's or in OpenAI's words."""
    good: list[Any] = [
        {"conversations": [{"from": "human", "value": f"question {n}"}, {"from": "gpt", "value": "answer"}]}
        if n % 2
        else {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": "answer"}]}
        for n in range(20)
    ]
    bad: list[Any] = [
        {"conversations": []},
        {"text": "x"},
        7,
        {"messages": [{"role": "narrator", "content": "x"}]},
    ]
    rows = [bad[0], *good, *bad[1:]]
    lines = [json.dumps(row) for row in rows]
    text = (
        json.dumps(rows)
        if form == "list"
        else "\n".join([*lines[:5], '{"conversations": [{"fro', *lines[5:]])
    )
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("form", ["list", "lines"])
def test_both_general_forms_load_and_bad_rows_are_counted(files, encoder, tmp_path, form):
    general = general_file(tmp_path / "general.txt", form)
    built = corpus.build(DataMix(files[:1], [general], 0.5, seed=1), row_filter(encoder))
    assert built.counts["rows"] == {"general": 16, "good": 8, "revision": 8}
    assert built.counts["share_of_agent_rows"] == 0.5
    dropped = built.counts["dropped"]
    assert dropped["general: not a JSON object"] == (1 if form == "list" else 2)
    assert dropped["general: no list of turns under conversations or messages"] == 2
    assert dropped["general: a role is unknown"] == 1
    assert any("general.txt row" in note for note in built.notes)
    answer = encoder.chat.tokenize("answer<|end|>")
    trained = [[label for label in row["labels"] if label != IGNORED] for row in built.rows]
    assert trained.count(answer) == 16


def test_no_usable_general_row_is_an_error(files, encoder, tmp_path):
    bad = tmp_path / "general.jsonl"
    bad.write_text('{"conversations": []}\n{"messages": [{"role": "user"}]}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"--general .*general.jsonl: no usable row .*a message has no text"):
        corpus.build(DataMix(files[:1], [str(bad)], 0.5, seed=1), row_filter(encoder))


def test_too_few_general_rows_are_told(files, encoder, tmp_path):
    general = general_file(tmp_path / "general.json", "list")
    built = corpus.build(DataMix(files, [general], 0.2, seed=1), row_filter(encoder))
    assert built.counts["rows"]["general"] == 20
    assert any("20 of the 192 rows that --eta 0.2 asks for: eta is 0.706" in note for note in built.notes)


def test_one_file_from_many_environments_by_seed(files, encoder):
    built = corpus.build(DataMix(files, [], 1.0, seed=5), row_filter(encoder))
    assert built.counts["envs"] == {
        env: {"good": 8, "revision": 8} for env in ("sciworld", "textcraft", "webshop")
    }
    assert built.counts["tasks"] == 12
    again = corpus.build(DataMix(files, [], 1.0, seed=5), row_filter(encoder))
    other = corpus.build(DataMix(files, [], 1.0, seed=6), row_filter(encoder))
    assert built.rows == again.rows != other.rows
    assert sorted(map(str, built.rows)) == sorted(map(str, other.rows))


def test_the_manifest_ties_the_rows_to_their_files(files, tiny, tmp_path):
    where = ["--model_dir", tiny, "--output_dir", tmp_path / "model", "--max_per_task", 1]
    assert stage3("--data", *files, *where, "--prepare") == 0
    folder = tmp_path / "model.partial" / "train"
    manifest = storage_files.read_json(folder / "data.manifest.json")
    assert manifest["counts"]["rows"] == {"good": 12, "revision": 12}
    assert (
        manifest["settings"] | {"max_per_task": 1, "seed": 0, "eta": 1.0, "long": "cut"}
        == manifest["settings"]
    )
    assert [file["path"] for file in manifest["outputs"]] == ["train.jsonl"]
    for file in manifest["inputs"] + manifest["outputs"]:
        assert storage_files.sha256_file(folder / file["path"]) == file["sha256"]
    assert len(manifest["inputs"]) == 3


# --- caps


def test_rows_of_a_task_are_capped_by_kind(files, encoder):
    built = corpus.build(DataMix(files, [], 1.0, seed=0, max_per_task=1), row_filter(encoder))
    assert built.counts["rows"] == {"good": 12, "revision": 12} and built.counts["tasks"] == 12
    assert built.notes == ["24 rows left out, over --max_per_task 1"]
    assert corpus.build(DataMix(files, [], 1.0, seed=0, max_per_task=2), row_filter(encoder)).notes == []


def test_rows_of_few_tasks_are_told(files, encoder):
    notes = corpus.build(DataMix(files[:1], [], 1.0, seed=0), row_filter(encoder)).notes
    assert notes == [
        "little to learn from: 16 rows of 4 tasks; a model trained on so few may play worse than before"
    ]


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4), st.integers(0, 3))
def test_a_cap_keeps_as_many_as_it_may_in_their_order(tasks, most, seed):
    rows = [Conversation("good", str(n), (), task=task) for n, task in enumerate(tasks)]
    kept = dataset.cap_per_task(rows, lambda row: row, most, seed)
    assert [int(row.source) for row in kept] == sorted(int(row.source) for row in kept)
    for task in set(tasks):
        assert sum(row.task == task for row in kept) == min(most, tasks.count(task))


def test_reference_rows_have_the_goal_as_their_task():
    turns = [
        {"role": "user", "content": "Goal: craft a."},
        {"role": "assistant", "content": "x", "loss": True},
    ]
    conversation = record_conversation({"revise_log": turns}, "r")
    assert (conversation.env, conversation.task) == ("", "Goal: craft a.")
    assert dataset.count_envs([conversation]) == {"unknown": {"good": 1}}


# --- rows that are too long


def long_revision(bad: int, tail: int) -> dict[str, Any]:
    """`bad` untrained steps, the signal, `tail` trained steps; every step is the same text."""
    step = "Thought: I need oak.\nAction: get 2 oak"
    row = record(1, "revision")
    messages = row["messages"][:2]
    for reply, loss in [(step, False)] * bad + [("Thought: no.\nAction: wait", True)] + [(step, True)] * tail:
        messages += [
            {"role": "assistant", "content": reply, "loss": loss},
            {"role": "user", "content": "ok.", "loss": False},
        ]
    return row | {"messages": messages[:-1], "revise": "Thought: no.\nAction: wait"}


def test_a_long_row_is_cut_at_a_turn_behind_its_signal(encoder):
    row = long_revision(bad=3, tail=6)
    whole = record_conversation(row, "f row 1")
    length = len(next(row_filter(encoder).filter_rows([whole])).sequences[0].input_ids)
    for limit in range(10, length + 1):
        filtered = row_filter(encoder, limit)
        kept = list(filtered.filter_rows([whole]))
        if not kept:
            assert filtered.dropped == {f"revision: longer than max_length {limit}": 1}
            continue
        messages = kept[0].conversation.messages
        assert messages == whole.messages[: len(messages)]  # a beginning of the row, whole turns
        assert len(kept[0].sequences[0].input_ids) <= limit
        assert messages[-1].loss and messages[-1].content != row["revise"]
        assert [m.content for m in messages if m.loss][0] == row["revise"]
        if len(messages) < len(whole.messages):
            assert filtered.cut == {f"revision: longer than max_length {limit}": 1}
            assert f"{len(messages)} of its {len(whole.messages)} messages are kept" in filtered.notes()[0]


def test_a_row_whose_signal_would_be_last_is_dropped(encoder):
    whole = record_conversation(long_revision(bad=3, tail=1), "f row 1")
    length = len(next(row_filter(encoder).filter_rows([whole])).sequences[0].input_ids)
    assert list(row_filter(encoder, length - 1).filter_rows([whole])) == []
    assert list(row_filter(encoder, length).filter_rows([whole])) != []


def test_cutting_can_be_turned_off(encoder):
    whole = record_conversation(long_revision(bad=3, tail=6), "f row 1")
    length = len(next(row_filter(encoder).filter_rows([whole])).sequences[0].input_ids)
    dropping = row_filter(encoder, length - 1, long=DROP)
    assert (
        list(dropping.filter_rows([whole])) == [] and not dropping.cut and sum(dropping.dropped.values()) == 1
    )


@given(st.lists(st.booleans(), min_size=1, max_size=10), st.booleans())
def test_cut_points_keep_what_must_be_kept(flags, revision):
    messages = [Message("user", "goal")]
    for flag in flags:
        messages += [Message("assistant", "step", flag), Message("user", "seen")]
    trained = [index for index, message in enumerate(messages) if message.loss]
    signal = trained[0] if revision and trained else None
    row = Conversation("revision", "x", tuple(messages[:-1]), signal=signal)
    ends = list(cut_points(row))
    assert ends == sorted(ends, reverse=True)
    assert len(ends) == max(
        0, len([i for i in trained if i + 1 < len(row.messages)]) - (signal is not None)
    ) or (signal is not None and trained == [signal])
    for end in ends:
        kept = row.messages[:end]
        assert end < len(row.messages) and kept[-1].loss
        assert signal is None or sum(message.loss for message in kept) >= 2


# --- preference pairs


def test_a_pair_compares_what_its_flags_and_the_rejected_side_say():
    pair = preference_pair(preference(3), "p row 1")
    assert pair.chosen.kind == "preference" and pair.chosen.env == "textcraft"
    assert [m.loss for m in pair.chosen.messages if m.role == "assistant"] == [True, False, True]
    assert [m.loss for m in pair.rejected.messages if m.role == "assistant"] == [True, True, True]
    assert pair.chosen.messages[:2] == pair.rejected.messages[:2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.pop("rejected"), "not a preference pair"),
        (lambda row: row["chosen"][0].pop("loss"), "loss must be true or false"),
        (lambda row: row["rejected"].pop(0), "alternate"),
        (lambda row: [turn.update(loss=False) for turn in row["chosen"]], "no turn of chosen carries loss"),
        (lambda row: row.update(chosen=[]), "no list of turns under chosen"),
    ],
)
def test_pairs_that_cannot_be_trained_are_refused_by_name(change, words):
    row = preference(0)
    change(row)
    with pytest.raises(RowError, match="p row 7") as caught:
        preference_pair(row, "p row 7")
    assert words in str(caught.value)


def test_long_pairs_are_left_out_and_counted(encoder, tmp_path):
    rows = [preference(n) for n in range(4)]
    rows[2]["rejected"][0]["content"] += " oak" * 2000
    storage_files.write_jsonl(tmp_path / "pairs.jsonl", rows)
    built = corpus.build(
        DataMix([str(tmp_path / "pairs.jsonl")], [], 1.0, 0, pairs=True), row_filter(encoder)
    )
    assert len(built.rows) == 3 and built.counts["cut"] == {}
    assert built.counts["dropped"] == {"preference: longer than max_length 1024": 1}
    assert "pairs.jsonl row 3" in built.notes[0]
    for row in built.rows:
        assert set(row) == {"chosen_ids", "chosen_labels", "rejected_ids", "rejected_labels"}
        assert row["chosen_ids"][:20] == row["rejected_ids"][:20]


def test_records_are_not_pairs_and_pairs_are_not_records(tiny, tmp_path, capsys):
    storage_files.write_jsonl(tmp_path / "pairs.jsonl", [preference(0)])
    storage_files.write_jsonl(tmp_path / "rows.jsonl", [record(0)])
    where = ["--model_dir", tiny, "--output_dir", tmp_path / "model", "--prepare"]
    for data, config, words in (
        ("pairs.jsonl", "tiny_actor", "supervised fine-tuning cannot take"),
        ("rows.jsonl", "tiny_actor_dpo", "not a preference pair"),
    ):
        assert stage3("--data", tmp_path / data, *where, "--config", config) == 2
        printed = capsys.readouterr().err
        assert f"{data} row 1" in printed and words in printed
    general = ["--general", tmp_path / "rows.jsonl", "--config", "tiny_actor_dpo"]
    assert stage3("--data", tmp_path / "pairs.jsonl", *where, *general) == 2
    assert "--general" in capsys.readouterr().err


def test_nothing_left_is_an_error(encoder, tmp_path):
    storage_files.write_jsonl(tmp_path / "rows.jsonl", [record(0)])
    with pytest.raises(InputError, match="no row is left to train on"):
        corpus.build(DataMix([str(tmp_path / "rows.jsonl")], [], 1.0, 0), row_filter(encoder, 20))
