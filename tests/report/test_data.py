"""Statistics of the training data: what a row is counted as, what a folder is, and how much memory it takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as File

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mcts_utils.prompts import WAIT_ACTION, WAIT_OBSERVATION, reply_text
from mcts_utils.report.data.__main__ import main, record_files, tally_file
from mcts_utils.report.data.row_stats import Tally, distribution, row_facts
from mcts_utils.revision.pairs import Pair, Trajectory
from mcts_utils.revision.record import Record, Source, to_row
from mcts_utils.storage.files import iter_jsonl, read_json, write_json, write_jsonl
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.types import InputError, Step, Task

SOURCE = Source("search_results_3.json", "0" * 64, "brief", 0)
REFUSED = "Could not find x"


def steps_of(actions: Sequence[str], reward: float = 1.0) -> tuple[Step, ...]:
    """Steps whose observation says whether the action was refused; the last one earns the reward."""
    answers = {WAIT_ACTION: WAIT_OBSERVATION}
    made = [
        Step(reply_text("t", a), a, REFUSED if a.startswith("bad") else answers.get(a, "ok"), 0.0)
        for a in actions
    ]
    return (*made[:-1], replace(made[-1], reward=reward))


def path_of(steps: tuple[Step, ...]) -> Trajectory:
    return Trajectory(0, tuple(range(1, len(steps) + 1)), steps, steps[-1].reward)


def row_of(
    kind: str,
    shared: Sequence[str] = (),
    bad: Sequence[str] = (),
    good: Sequence[str] = ("get 1 a", "craft"),
    index: int = 3,
) -> RecordRow:
    """A row as stage 2 writes it."""
    task = Task("textcraft", index, f"textcraft:{index}", "Goal: craft a.")
    whole = path_of(steps_of([*shared, *good]))
    if kind in ("good", "optimal"):
        return to_row(Record(kind, whole.steps, 0, whole), task, SOURCE, True, False)
    lost = path_of(steps_of([*shared, *bad, "bad end"], 0.0))
    pair = Pair(whole, lost, len(shared), 0)
    if kind == "preference":
        record = Record(kind, whole.steps, len(shared), whole, pair, rejected=lost.steps)
        return to_row(record, task, SOURCE, True, False)
    cut = len(shared) + len(bad) - 1
    spliced = steps_of([*shared, *bad, WAIT_ACTION, *good])
    record = Record(kind, spliced, cut + 1, whole, pair, extra={"cut_step": cut})
    return to_row(record, task, SOURCE, True, False)


def test_what_is_counted_of_a_revision():
    found = row_facts(row_of("revision", ["get 1 a"], ["bad x", "bad y"], ["get 1 b", "bad z", "craft"]))
    assert (found.cut_depth, found.shared_prefix, found.bad_prefix, found.good_tail) == (3, 1, 2, 3)
    assert (found.turns, found.acted, found.refused) == (7, 6, 3)
    assert (found.trained, found.trained_refused) == (2, 0)  # the refused step of the tail carries no loss
    assert found.rewards == (1.0, 0.0, 1.0)
    assert found.exact is True


def test_refused_actions_that_carry_loss_are_found():
    row = row_of("good", good=["bad x", "get 1 a", "bad end"])
    turns = [structs.replace(turn, loss=turn.role == "assistant") for turn in row.messages or []]
    found = row_facts(structs.replace(row, messages=turns))
    assert (found.trained, found.trained_refused) == (3, 2)  # the last one's answer is in the lineage alone
    assert (found.cut_depth, found.good_tail) == (None, None)


def test_what_is_counted_of_a_preference():
    found = row_facts(row_of("preference", ["get 1 a"], ["bad x"], ["get 1 b", "craft"]))
    assert (found.turns, found.good_tail, found.trained) == (3, 2, 2)  # the chosen side
    longer = row_facts(row_of("preference", ["get 1 a"], ["bad x", "bad x"], ["get 1 b", "craft"]))
    assert longer.actions != found.actions and longer.characters > found.characters


COUNTS = st.integers(0, 4)


@given(COUNTS, st.integers(1, 4), st.integers(1, 4))
def test_lengths_add_up(shared: int, bad: int, good: int):
    row = row_of("revision", ["s"] * shared, ["b"] * bad, ["g"] * good)
    found = row_facts(row)
    assert found.cut_depth == shared + bad == (found.shared_prefix or 0) + (found.bad_prefix or 0)
    assert found.turns == found.cut_depth + 1 + (found.good_tail or 0)
    assert found.trained <= found.acted == found.turns - 1
    assert found.characters == sum(len(turn.content) for turn in row.messages or [])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=12))
def test_duplicates_are_of_the_same_task_or_of_another(rows: list[tuple[str, str]]):
    tally = Tally()
    base = row_facts(row_of("good"))
    for task, actions in rows:
        tally.add(replace(base, task=task, actions=actions.encode()))
    assert tally.rows == len(rows)
    assert tally.same_task == len(rows) - len(set(rows))
    assert tally.other_task == len(set(rows)) - len({actions for _, actions in rows})
    assert tally.summary()["tasks"] == len({task for task, _ in rows})


@given(st.lists(st.integers(0, 100), min_size=1))
def test_a_spread_is_in_order(values: list[int]):
    found = distribution(values)
    assert found is not None
    assert found["min"] <= found["q25"] <= found["median"] <= found["q75"] <= found["max"]
    assert found["min"] <= found["mean"] <= found["max"]
    assert found["n"] == len(values)


def test_nothing_has_no_spread():
    assert distribution([]) is None
    assert Tally().summary()["cut_depth"] is None


def written(folder: File, iteration: int, task: str = "textcraft") -> File:
    """A records folder with both kinds, manifests, a search and a training, and a second check of the rows."""
    run = folder / f"iteration_{iteration}"
    records = run / "records"
    rows = [row_of("revision", [], ["bad x"], ["get 1 a"] * n, index=n) for n in range(1, 2 + iteration)]
    write_jsonl(records / f"{task}_centric.jsonl", [*rows, rows[0]])
    write_jsonl(records / f"{task}_good.jsonl", [row_of("good", index=9)])
    verdicts = {"good": 2, "bad": 3, "uncertain": 1, "unparsed": 0, "requests": 6}
    for kind, dropped in (("centric", {"duplicate": 4, "cap": 7}), ("good", {})):
        none = dict.fromkeys(verdicts, 0)
        counts = {"trees": 5, "written": 1, "dropped": dropped, "verdicts": verdicts if dropped else none}
        inputs = [{"path": "../trees/search_results_3.json", "sha256": ""}]
        write_json(
            records / f"{task}_{kind}.manifest.json",
            {"stage": "revision", "counts": counts, "inputs": inputs},
        )
    write_json(
        run / "trees" / "manifest.json",
        {"stage": "search", "counts": {"trees": 5, "failed": 1, "leaves": 20}},
    )
    inputs = [{"path": f"../records/{task}_{kind}.jsonl", "sha256": ""} for kind in ("centric", "good")]
    tokens = {"revision": {"input": 600, "trained": 300}}
    training = {
        "stage": "train",
        "inputs": inputs,
        "tokens": tokens,
        "counts": {"rows": {"revision": 3, "good": 1}},
    }
    write_json(run / "model" / "manifest.json", training)
    (run / "verified.txt").write_text("x.jsonl: rows 4, exact 3\n")
    return records


def test_a_column_for_every_iteration(tmp_path: File, capsys: pytest.CaptureFixture[str]):
    for iteration in (1, 2, 10):
        written(tmp_path, iteration)
    output = tmp_path / "data.json"
    assert main([str(tmp_path), "--output", str(output)]) == 0
    columns = read_json(output)["columns"]
    assert [File(c["folder"]).parent.name for c in columns] == ["iteration_1", "iteration_2", "iteration_10"]
    first = columns[0]
    assert (first["rows"], first["tasks_with_records"], first["replay_check"]) == (4, 3, 0.75)
    assert first["searched"] == {"trees": 5, "failed": 1, "leaves": 20, "mean_leaf_reward": None}
    assert first["verdicts"]["bad"] == 3
    assert first["tokens"] == {"revision": {"input": 200, "trained": 100}}
    revision = first["kinds"]["revision"]
    assert revision["duplicates_same_task"] == 1
    assert revision["stage"]["dropped"] == {"duplicate": 4, "cap": 7}
    assert revision["good_tail"]["mean"] == pytest.approx(4 / 3)
    text = capsys.readouterr().out
    assert "7 cap, 4 duplicate" in text and "depth of the cut" in text and "preference" not in text


def test_where_records_are_looked_for(tmp_path: File):
    first = written(tmp_path / "run", 1)
    assert [found[0] for found in record_files(first)] == [first]
    assert [found[0] for found in record_files(tmp_path / "run" / "iteration_1")] == [first]
    other = tmp_path / "all" / "iteration_1" / "sciworld" / "records"
    write_jsonl(other / "sciworld_good.jsonl", [])
    write_jsonl(other / "notes.jsonl", [])
    assert [(folder, task, list(files)) for folder, task, files in record_files(tmp_path / "all")] == [
        (other, "sciworld", ["good"])
    ]


def test_records_without_a_manifest_are_counted(tmp_path: File, capsys: pytest.CaptureFixture[str]):
    write_jsonl(tmp_path / "textcraft_direct.jsonl", [row_of("direct", [], ["bad x"])])
    assert main([str(tmp_path)]) == 0
    assert "direct" in capsys.readouterr().out


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: File):
    row = row_of("good")
    system, opening, *others = row.messages or []
    row = structs.replace(row, messages=[system, structs.replace(opening, content="x" * 10_000), *others])
    write_jsonl(tmp_path / "textcraft_good.jsonl", (row for _ in range(400)))
    tracemalloc.start()
    try:
        assert tally_file(tmp_path / "textcraft_good.jsonl").rows == 400
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # the file has four million bytes
    finally:
        tracemalloc.stop()


def test_lines_are_split_at_newlines_alone(tmp_path: File):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "\u2028\x85"}\n\n{"b": 1}\n', encoding="utf-8")
    assert [number for number, _ in iter_jsonl(path)] == [1, 3]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"{}\n", "row 1: not a record"),
        (b'{"kind": "good"', "row 1: not JSON"),
        (b"[1]\n", "row 1: not a JSON object"),
        (b"\n\xff\n", "row 2: not JSON"),
        (b'{"kind": "good", "lineage": 3}\n', "row 1: not a record"),
    ],
)
def test_a_bad_row_is_named(tmp_path: File, capsys: pytest.CaptureFixture[str], text: bytes, named: str):
    (tmp_path / "textcraft_good.jsonl").write_bytes(text)
    assert main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "textcraft_good.jsonl" in captured.err and named in captured.err


def test_a_folder_without_records_is_named(tmp_path: File, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(InputError, match="no <task>"):
        record_files(tmp_path)
