"""Stage 2 from its command line: files in, records and manifest out, bad input, interruptions, reference trees."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.config import Settings, judge_settings, settings_from_env
from mcts_utils.prompts import JUDGE_PROMPTS
from mcts_utils.replies import parse_verdict
from mcts_utils.revision.options import Options
from mcts_utils.revision.pairs import PairRule
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.search.tree import Node, Tree
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from mcts_utils.storage.layout import manifest_path, records_path, verdicts_path
from mcts_utils.training.dataset import record_conversation
from mcts_utils.types import ActorError
from tests.helpers.hand_trees import (
    BAD,
    DOOR,
    SHORT,
    Scripted,
    TreeMaker,
    pool_at,
    strict_judge,
)


def rows_of(data_type: str = "centric") -> list[dict[str, Any]]:
    return read_jsonl(records_path("out", "textcraft", data_type))


def manifest_of(data_type: str = "centric") -> dict[str, Any]:
    return read_json(manifest_path("out", "textcraft", data_type))


def test_trees_of_test_tasks_become_no_records(
    stage: Callable[..., int], trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 5 in load_world().split()["test"]
    door = read_json(trees / f"search_results_{DOOR}.json")
    hidden = read_json(trees / "search_results_5.json")
    door["task"]["id"] = hidden["task"]["id"]  # as if the server numbered a test goal otherwise
    write_json(trees / f"search_results_{DOOR}.json", door)
    assert stage(allow_test=False) == 2
    said = capsys.readouterr().err
    assert "search_results_5.json: index 5 is a test id" in said
    assert f"search_results_{DOOR}.json: index {DOOR} shows the goal of a test task" in said
    assert {row["task_num"] for row in rows_of()} <= {0}


def test_trees_of_another_kind_of_server_are_refused(
    stage: Callable[..., int], trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = read_json(trees / "search_results_5.json")
    tree["settings"]["goals"] = "agentgym"
    write_json(trees / "search_results_5.json", tree)
    assert stage() == 2
    said = capsys.readouterr().err
    assert (
        "search_results_5.json: searched on a server of kind agentgym, this one is agent-r-textcraft-" in said
    )
    assert {row["task_num"] for row in rows_of()} == {DOOR}


def test_records_and_manifest_of_a_folder_of_trees(
    stage: Callable[..., int], trees: Path, actor: Scripted
) -> None:
    assert stage() == 0
    rows, manifest = rows_of(), manifest_of()
    assert [row["task_num"] for row in rows] == sorted(row["task_num"] for row in rows)
    assert {row["kind"] for row in rows} == {"revision"}
    assert all(row["task_description"] == row["messages"][1]["content"] for row in rows)
    for row in rows:
        lineage = row["lineage"]
        assert sha256_file(trees / lineage["tree"]) == lineage["tree_sha256"]
        assert lineage["verdicts"][-1]["label"] == "bad"
    counts = manifest["counts"]
    assert counts["written"] == counts["replayed"] == len(rows) == 3
    assert counts["pairs"] == counts["written"] + sum(counts["dropped"].values())
    assert (counts["trees"], counts["trees_failed"], counts["tasks_written"]) == (3, 0, 2)
    assert counts["verdicts"]["requests"] == len(actor.asked) > 0
    assert counts["verdicts"]["unparsed"] == 0
    assert len(manifest["inputs"]) == 3
    assert manifest["outputs"][0]["sha256"] == sha256_file(records_path("out", "textcraft", "centric"))


def test_a_second_run_and_another_beta_ask_nothing_and_write_the_same(
    stage: Callable[..., int], actor: Scripted
) -> None:
    assert stage() == 0
    first, asked = records_path("out", "textcraft", "centric").read_bytes(), len(actor.asked)
    assert stage(beta=0.1) == 0
    assert len(actor.asked) == asked
    assert records_path("out", "textcraft", "centric").read_bytes() == first
    assert manifest_of()["counts"]["verdicts"]["requests"] == 0
    assert stage(data_type="good") == 0  # in a file of its own
    assert len(actor.asked) == asked
    assert records_path("out", "textcraft", "centric").read_bytes() == first


def test_a_finished_run_is_not_repeated_and_a_changed_one_is(
    stage: Callable[..., int], trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "http://127.0.0.1:9"  # whoever executes something there fails
    assert stage(data_type="good", revise=0) == 0
    rows, manifest = rows_of("good"), manifest_of("good")
    assert stage(data_type="good", revise=0, env_server_base=nowhere) == 0
    assert "done before" in capsys.readouterr().out
    assert (rows_of("good"), manifest_of("good")) == (rows, manifest)
    assert stage(data_type="good", revise=0, env_server_base=nowhere, max_per_task=1) == 2
    path = records_path("out", "textcraft", "good")
    path.write_bytes(path.read_bytes()[:-20])  # the output is damaged
    assert stage(data_type="good", revise=0, env_server_base=nowhere) == 2
    assert stage(data_type="good", revise=0) == 0
    assert rows_of("good") == rows
    (trees / "search_results_0.json").unlink()  # other trees
    assert stage(data_type="good", revise=0, env_server_base=nowhere) == 2


@pytest.mark.parametrize(
    ("data_type", "kind"),
    [("good", "good"), ("direct", "direct"), ("optimal", "optimal"), ("preference", "preference")],
)
def test_every_data_type_writes_rows_that_verify(
    stage: Callable[..., int], actor: Scripted, capsys: pytest.CaptureFixture[str], data_type: str, kind: str
) -> None:
    assert stage(data_type=data_type) == 0
    assert {row["kind"] for row in rows_of(data_type)} == {kind}
    assert actor.asked == []
    capsys.readouterr()
    assert stage(verify=records_path("out", "textcraft", data_type)) == 0
    count = len(rows_of(data_type))
    assert f"rows {count}, exact {count}," in capsys.readouterr().out


def test_without_a_judge_the_first_refused_step_is_the_cut(
    stage: Callable[..., int], actor: Scripted
) -> None:
    assert stage(revise=0) == 0
    assert actor.asked == []
    assert {row["revise_feedback"] for row in rows_of()} == {"the environment refused the action"}


def test_the_models_own_verdicts_become_rows_that_stage_3_takes(
    stage: Callable[..., int], actor: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage(data_type="verdicts") == 0
    assert "0 verdicts of 3 trees" in capsys.readouterr().out  # nobody has judged yet
    assert stage() == 0
    given = {v["node"]: v["label"] for row in rows_of() for v in row["lineage"]["verdicts"]}
    asked = len(actor.asked)
    assert stage(data_type="verdicts") == 0
    assert len(actor.asked) == asked
    rows = rows_of("verdicts")
    assert {row["lineage"]["label"] for row in rows} >= set(given.values())
    for row in rows:
        talk = record_conversation(row, "row")
        assert [(m.role, m.loss) for m in talk.messages] == [
            ("system", False),
            ("user", False),
            ("assistant", True),
        ]
        label, reason = parse_verdict(talk.messages[-1].content) or ("", "")
        assert label == row["lineage"]["label"]
        assert talk.messages[0].content == JUDGE_PROMPTS["brief"]
        assert reason
    assert manifest_of("verdicts")["counts"]["written"] == len(rows)
    assert stage(data_type="verdicts", max_per_task=1) == 0
    tasks = [row["lineage"]["task"]["id"] for row in rows_of("verdicts")]
    assert len(tasks) == len(set(tasks))


def test_a_model_that_cannot_judge_is_told(
    stage: Callable[..., int], actor: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    actor.answer = lambda messages, temperature, seed: "Thought: hm\nAction: inventory"
    assert stage() == 0
    said = capsys.readouterr().err
    assert "verdicts of scripted did not parse, so it cannot judge" in said
    assert "the last one ends 'Thought: hm\\nAction: inventory'" in said
    assert not rows_of()


def test_another_model_may_judge(
    stage: Callable[..., int], actor: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_chat(Behaviour(api_key="judges-key")) as chat:
        for name, value in {
            **{"JUDGE_MODEL": MODEL, "JUDGE_BASE_URL": chat.base_url, "JUDGE_API_KEY": "judges-key"},
            "OPENAI_API_KEY": "actors-key",
        }.items():
            monkeypatch.setenv(name, value)
        assert stage() == 0
        asked = len(chat.requests)
        assert asked == manifest_of()["counts"]["verdicts"]["requests"] > 0
        assert not actor.asked
        manifest = manifest_of()
        assert manifest["tokens"]["judge"]["calls"] == asked and "calls" not in manifest["tokens"]
        assert manifest["settings"]["judge"] == MODEL
        assert read_json(verdicts_path("out", DOOR))["model"] == MODEL
        assert "judges-key" not in str(manifest) + str(manifest["settings"])
        assert stage(beta="0.3") == 0 and len(chat.requests) == asked, "its verdicts are kept"


def test_a_judge_without_a_name_is_one_line(
    stage: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_BASE_URL", "http://me:secret@127.0.0.1:9/v1")
    assert stage() == 2
    line = "path_collection.py: JUDGE_MODEL is not set: the judge's name at JUDGE_BASE_URL=http://127.0.0.1:9/v1\n"
    assert capsys.readouterr().err == line


def test_the_actors_key_is_not_sent_to_the_judges_endpoint() -> None:
    given = {"OPENAI_API_KEY": "a", "OPENAI_BASE_URL": "http://a/v1", "MODEL_NAME": "m", "JUDGE_MODEL": "j"}
    there = judge_settings(settings_from_env({**given, "JUDGE_BASE_URL": "http://b/v1"}))
    assert (there.openai_base_url, there.openai_api_key, there.model_name) == ("http://b/v1", "", "j")
    here = judge_settings(settings_from_env(given))
    assert (here.openai_base_url, here.openai_api_key, here.model_name) == ("http://a/v1", "a", "j")


def test_verdicts_that_did_not_parse_are_asked_for_again(
    stage: Callable[..., int], actor: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    actor.answer, repaired = (lambda messages, temperature, seed: "It is"), actor.answer
    stage()
    assert manifest_of()["counts"]["verdicts"]["unparsed"] > 0
    actor.answer = repaired
    assert stage() == 0
    assert "done before" not in capsys.readouterr().out
    assert manifest_of()["counts"]["verdicts"]["unparsed"] == 0
    asked = len(actor.asked)
    assert stage() == 0 and len(actor.asked) == asked
    assert "done before" in capsys.readouterr().out


def test_the_cap_holds_per_task(stage: Callable[..., int]) -> None:
    assert stage(max_per_task=1) == 0
    assert [row["task_num"] for row in rows_of()] == [5, DOOR]
    assert manifest_of()["counts"]["dropped"]["cap"] > 0


def test_n_limits_the_rows_of_all_tasks_and_takes_one_of_each_first(stage: Callable[..., int]) -> None:
    assert stage() == 0
    every = rows_of()
    assert stage(n=2) == 0
    assert [row for row in every if row in rows_of()] == rows_of()
    assert {row["task_num"] for row in rows_of()} == {5, DOOR} and len(rows_of()) == 2
    counts = manifest_of()["counts"]
    assert (counts["dropped"]["over_n"], counts["written"]) == (1, 2)
    assert counts["pairs"] == counts["written"] + sum(counts["dropped"].values())


def test_a_truncated_tree_is_named_and_the_others_are_written(
    stage: Callable[..., int], trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = trees / "search_results_5.json"
    broken.write_text(broken.read_text()[:300])
    (trees / "search_results_7.json").write_text('{"format": "something else"}')
    assert stage() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(str(trees))]
    assert len(lines) == 2
    assert "search_results_5.json: truncated" in lines[0] + lines[1]
    assert {row["task_num"] for row in rows_of()} == {DOOR}
    counts = manifest_of()["counts"]
    assert (counts["trees"], counts["trees_failed"]) == (2, 2)
    assert sorted(counts["failures"]) == sorted(lines)


def test_a_tree_of_another_goal_than_the_servers_is_a_failure_of_that_tree(
    stage: Callable[..., int], trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_json(trees / "search_results_5.json")
    data["task"]["index"] = 6
    write_json(trees / "search_results_5.json", data)
    assert stage(data_type="good") == 2
    assert "search_results_5.json: InputError: the server's index 6 is the task" in capsys.readouterr().err
    assert {row["task_num"] for row in rows_of("good")} == {0, DOOR}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"input_dir": "nowhere"}, "--input_dir is not a folder: 'nowhere'"),
        ({"input_dir": "."}, "--input_dir has no search_results_<idx>.json: '.'"),
        ({"env_server_base": "http://127.0.0.1:9"}, "env_server_base http://127.0.0.1:9"),
        ({"max_per_task": 0}, "--max_per_task must be between 1 and 1000000: 0"),
        ({"alpha": 1.5}, "ALPHA must be between 0 and 1: 1.5"),
        ({"env_server_base": ""}, "ENV_SERVER_BASE is not set"),
        ({"verify": "missing.jsonl"}, "missing.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    stage: Callable[..., int], capsys: pytest.CaptureFixture[str], flags: dict[str, object], said: str
) -> None:
    assert stage(**flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not records_path("out", "textcraft", "centric").exists()


def test_a_dead_endpoint_leaves_the_earlier_output_and_the_verdicts(
    stage: Callable[..., int], actor: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage(revise=0) == 0
    before = records_path("out", "textcraft", "centric").read_bytes()

    def dead(*_: object) -> str:
        raise ActorError("OPENAI_BASE_URL http://127.0.0.1:9: nobody answers")

    actor.answer = dead
    capsys.readouterr()
    assert stage() == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nobody answers" in line]
    assert "search_results_" in line
    assert records_path("out", "textcraft", "centric").read_bytes() == before


def test_verify_reports_a_row_that_does_not_replay(
    stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage(data_type="good") == 0
    path = records_path("out", "textcraft", "good")
    path.write_text(path.read_text().replace("Got 2 crimson stem", "Got 3 crimson stem"))
    capsys.readouterr()
    assert stage(verify=path) == 2
    assert "rows 3, exact 2" in capsys.readouterr().out
    path.write_text('{"kind": "good"}\n')
    assert stage(verify=path) == 2
    assert "textcraft_good.jsonl row 1: a field is missing" in capsys.readouterr().err
    path.write_text("")
    assert stage(verify=path) == 2
    assert "textcraft_good.jsonl: no row to verify" in capsys.readouterr().err


def test_verify_compares_an_opening_by_its_task_where_openings_vary(
    stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage(data_type="good") == 0
    path = records_path("out", "textcraft", "good")
    rows = read_jsonl(path)
    for row in rows:  # as after a restart of a public server: another command is listed
        opening = row["messages"][1]
        opening["content"] = opening["content"].replace(
            "commands:\n", "commands:\ncraft 1 ladder using 7 stick\n"
        )
    write_jsonl(path, rows)
    capsys.readouterr()
    assert stage(verify=path) == 0
    assert "rows 3, exact 3" in capsys.readouterr().out


def test_ctrl_c_keeps_the_answers_and_the_next_run_asks_for_the_others_only(
    trees: Path, textcraft_url: str, tmp_path: Path
) -> None:
    from mcts_utils.envs import make_environment

    settings = Settings(
        model_name="scripted", prompt="brief", env_server_base=textcraft_url, workers=1, concurrency=1
    )
    options = Options("centric", PairRule(0.5, 0.2))

    def convert(actor: Scripted) -> RevisionStage:
        return RevisionStage(settings, options, trees, tmp_path / "out")

    def interrupted(*args: Any) -> str:
        if len(first.asked) == 4:
            os.kill(os.getpid(), signal.SIGINT)
            stopped.stop.wait(30)
        return strict_judge(*args)

    first = Scripted(interrupted)
    stopped = convert(first)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stopped.run(lambda: first, lambda: make_environment("textcraft", textcraft_url))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert not stopped.output.exists()
    kept = [verdicts_path(tmp_path / "out", index) for index in (5, DOOR)]
    answered = sum(len(read_json(path)["verdicts"]) for path in kept if path.exists())
    assert answered > 0
    second = Scripted(strict_judge)
    again = convert(second)
    counts = again.run(lambda: second, lambda: make_environment("textcraft", textcraft_url))
    whole = sum(len(read_json(path)["verdicts"]) for path in kept)
    assert len(first.asked) + len(second.asked) == counts.verdicts["requests"] == whole
    assert counts.written == 3


# Reference-shaped trees


def nested(node: Node, tree: Tree) -> dict[str, Any]:
    """A node as the reference writes it: nested, with conversation and terminal marks."""
    state = [{"role": "user", "content": tree.task.opening}]
    return {
        "visits": node.visits,
        "value": node.value,
        "prior": 1.0,
        "puct_value": 0,
        "obs": node.obs,
        "llm_response": node.reply,
        "depth": node.depth,
        "is_terminal": node.is_terminal,
        "recent_actions": [],
        "action": node.action,
        "env_score": node.reward,
        "disaster": False,
        "state": state,
        "children": [nested(child, tree) for child in node.children],
    }


def test_reference_trees_give_revisions_too(
    stage: Callable[..., int], trees: Path, textcraft_url: str
) -> None:
    for path in trees.iterdir():
        path.unlink()
    with pool_at(textcraft_url) as pool, pool.session() as env:
        maker = TreeMaker(env)
        maker.play(SHORT)
        maker.play(BAD)
        write_json(trees / f"search_results_{DOOR}.json", nested(maker.tree.root, maker.tree))
    assert stage(data_type="good") == 0
    assert len(rows_of("good")) == 1
    assert stage() == 0
    (row,) = rows_of()
    assert row["messages"][6]["content"].endswith("Action: wait")
    # The reference tells no depth limit from a real end: nothing can follow the last step of a bad path.
    assert stage(data_type="direct") == 0
    assert manifest_of("direct")["counts"]["dropped"] == {"bad_ended": 1}
