"""Expert episodes as records: the bundled experts' and AgentGym's trajectories, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import path_collection
from mcts_utils.envs.task_ids import public_ids
from mcts_utils.prompts import REVISION_THOUGHTS, action_of, parse_reply
from mcts_utils.revision import expert
from mcts_utils.revision.expert_plan import ExpertActor
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.servers.webshop.app import running_server as running_shop
from mcts_utils.storage.files import read_json, read_jsonl
from mcts_utils.storage.layout import manifest_path, records_path

Run = Callable[..., int]


@pytest.fixture
def run(textcraft_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the entry script on the bundled TextCraft; flags are given as keywords."""
    for name in ("TASK", "MODEL_DIR", "MODEL_NAME", "ENV_SERVER_BASE", "PROMPT", "SEED", "WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPT", "brief")
    monkeypatch.chdir(tmp_path)

    def run_expert(**flags: object) -> int:
        given = {"data_type": "expert", "output_dir": "out", "env_server_base": textcraft_url, **flags}
        return path_collection.main(
            [word for n, v in given.items() if v != "" for word in (f"--{n}", str(v))]
        )

    return run_expert


def rows_of(task: str = "textcraft", data_type: str = "expert") -> list[dict[str, Any]]:
    return read_jsonl(records_path("out", task, data_type))


def replies_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [turn for turn in row["messages"] if turn["role"] == "assistant"]


def test_the_experts_episodes_are_solved_exact_and_resumed(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(n=12) == 0
    rows = rows_of()
    assert len({row["task_num"] for row in rows}) == len(rows) == 12
    assert {row["task_num"] for row in rows} <= set(load_world().split()["train"])
    for row in rows:
        assert row["kind"] == "expert"
        assert row["lineage"]["rewards"]["record"] == 1.0 and row["lineage"]["replay"]["exact"] is True
        actions = [action_of(turn["content"]) for turn in replies_of(row)]
        assert all(turn["loss"] for turn in replies_of(row))
        assert not any(a == b for a, b in zip(actions, actions[1:], strict=False))
    counts = read_json(manifest_path("out", "textcraft", "expert"))["counts"]
    assert counts["written"] == counts["replayed"] == counts["tasks_written"] == 12
    capsys.readouterr()
    assert run(n=12, env_server_base="") == 2  # the tasks are the server's
    assert "ENV_SERVER_BASE is not set" in capsys.readouterr().err
    assert run(n=12) == 0
    assert "done before" in capsys.readouterr().out
    assert run(data_type="centric", verify=records_path("out", "textcraft", "expert")) == 0
    assert "rows 12, exact 12," in capsys.readouterr().out


def test_a_slip_is_executed_and_repaired_as_in_a_revision(run: Run) -> None:
    ids = ",".join(map(str, load_world().split()["train"][:20]))
    assert run(n=10, noise=1, task_ids=ids) == 0
    rows = rows_of()
    assert {row["kind"] for row in rows} == {"revision"}
    for row in rows:
        turns, at = replies_of(row), row["lineage"]["cut_step"]
        assert [turn["loss"] for turn in turns] == [i > at for i in range(len(turns))]
        assert parse_reply(turns[at + 1]["content"])[:2] == (
            next(t for t in REVISION_THOUGHTS if t in turns[at + 1]["content"]),
            "wait",
        )
        assert row["revise"] == turns[at + 1]["content"]
        planned = [step["action"] for step in row["high_log"]]
        actions = [action_of(turn["content"]) for turn in turns]
        assert actions[:at] == planned[:at] and actions[at] != planned[at] and actions[at] != "inventory"
        assert row["lineage"]["rewards"] == {"good": 1.0, "record": 1.0, "bad": 0.0}
        assert row["lineage"]["verdicts"][0]["label"] == "bad"
    first = rows_of()
    assert run(n=10, noise=1, task_ids=ids, output_dir="again") == 0
    assert read_jsonl(records_path("again", "textcraft", "expert")) == first


def test_the_shop_has_an_expert_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK", "webshop")
    with running_shop() as url:
        assert run(n=3, noise=0.5, env_server_base=url) == 0
    assert {row["lineage"]["rewards"]["record"] for row in rows_of("webshop")} == {1.0}


def trajectory(row: dict[str, Any], item: str) -> dict[str, Any]:
    """The episode of a record as AgentGym's sets have it; its first action carries no loss."""
    turns: list[dict[str, Any]] = [
        {"from": "human", "loss": None, "value": "You are given recipes."},
        {"from": "gpt", "loss": False, "value": "OK. I'll follow your instructions."},
    ]
    for turn in row["messages"][1:]:
        who, text = (
            "human" if turn["role"] == "user" else "gpt",
            turn["content"].replace("Action: ", "\nAction:\n"),
        )
        turns.append({"from": who, "loss": turn["loss"] if who == "gpt" else None, "value": text})
    turns[3]["loss"] = False
    return {"conversations": turns, "item_id": item}


@pytest.fixture
def given(run: Run, tmp_path: Path) -> Path:
    """A folder with a set of three episodes as JSON, and one of another environment as JSONL."""
    assert run(n=3) == 0
    folder = tmp_path / "set"
    folder.mkdir()
    items = [trajectory(row, f"textcraft_{400 + i}") for i, row in enumerate(rows_of())]
    (folder / "textcraft_train.json").write_text(json.dumps(items))
    (folder / "webshop_train.jsonl").write_text(json.dumps({**items[0], "item_id": "webshop_1"}) + "\n")
    return folder


def test_trajectories_are_executed_where_the_server_has_their_goals(run: Run, given: Path) -> None:
    made = rows_of()
    assert run(input_dir=given) == 0
    rows = rows_of()
    assert [row["task_num"] for row in rows] == [row["task_num"] for row in made]  # found by their goals
    for row, before in zip(rows, made, strict=True):
        assert [turn["loss"] for turn in replies_of(row)] == [False] + [True] * (len(replies_of(row)) - 1)
        assert [t["content"] for t in row["messages"] if t["role"] == "user"] == [
            t["content"] for t in before["messages"] if t["role"] == "user"
        ]
        assert row["lineage"]["tree"] == "textcraft_train.json" and row["lineage"]["replay"]["exact"] is True


def test_trajectories_are_read_without_a_server(
    run: Run, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(item) for item in json.loads((given / "textcraft_train.json").read_text())]
    file = given / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert run(input_dir=file, env_server_base="") == 0
    assert "not executed" in capsys.readouterr().err
    rows = rows_of()
    assert [row["task_num"] for row in rows] == [400, 401, 402]
    assert {row["lineage"]["replay"]["exact"] for row in rows} == {None}
    assert all(row["messages"][0]["role"] == "system" and len(row["messages"]) % 2 for row in rows)
    assert rows_of()[0]["messages"][2]["loss"] is False

    held_out = public_ids("textcraft", "test")[0]
    item = json.loads(lines[0]) | {"item_id": f"textcraft_{held_out}"}
    file.write_text("\n".join([json.dumps(item), *lines[1:]]))
    assert run(input_dir=file, env_server_base="") == 2
    assert f"rows.jsonl row 1: textcraft_{held_out} is a test id" in capsys.readouterr().err
    assert len(rows_of()) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item_id": "12"}, "row 1: item_id is not NAME_INDEX, such as textcraft_12: '12'"),
        ({"item_id": "textcraft_x"}, "row 1: item_id is not NAME_INDEX"),
        ({"item_id": "webshop_3"}, "no episode of TASK=textcraft; "),
        ({"conversations": "x"}, "row 1: no list of turns under conversations"),
        (
            {"conversations": [{"from": "human", "loss": None, "value": "Goal: craft x."}]},
            "row 1: human and gpt",
        ),
        (
            {"conversations": [{"from": "gpt", "loss": "yes", "value": "x"}]},
            "row 1: turn 1 is no {from, value, loss}",
        ),
    ],
)
def test_a_bad_trajectory_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    turns = [
        {"from": "human", "loss": None, "value": "Goal: craft x."},
        {"from": "gpt", "loss": True, "value": "y"},
    ]
    (tmp_path / "t.json").write_text(
        json.dumps([{"item_id": "textcraft_400", "conversations": turns} | change])
    )
    assert run(input_dir="t.json", env_server_base="") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"task_ids": "test"}, "is a test id"),
        ({"n": 0}, "--n must be between 1 and 1000000: 0"),
        ({"noise": 1.5}, "--noise must be between 0 and 1: 1.5"),
        ({"noise": 0.5, "input_dir": "x"}, "--noise 0.5 goes with --data_type expert without --input_dir"),
        ({"data_type": "good", "task_ids": "train"}, "--task_ids train goes with --data_type expert"),
        ({"input_dir": "nowhere"}, "--input_dir is no file or folder: 'nowhere'"),
    ],
)
def test_bad_flags_are_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], flags: dict[str, Any], said: str
) -> None:
    assert run(**flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.parametrize(("tried", "said"), [(2, "the expert of textcraft solves none of"), (9, "")])
def test_an_expert_that_knows_nothing_here_ends_with_exit_code_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tried: int, said: str
) -> None:
    monkeypatch.setattr(expert, "MIN_TRIED", tried)
    monkeypatch.setattr(expert, "MAX_STEPS", 2)
    monkeypatch.setattr(ExpertActor, "answer", lambda *_: "Thought: hm\nAction: inventory")
    assert run(n=3) == 2
    out, err = capsys.readouterr()
    assert said in err if said else "0 records of 6 tasks; dropped: unsolved 6" in out


def test_an_environment_without_an_expert_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASK", "babyai")
    assert run() == 2
    assert "TASK=babyai: no expert is bundled" in capsys.readouterr().err
