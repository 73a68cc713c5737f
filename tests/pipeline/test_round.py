"""One whole round with the bundled actor: real server, real model, real training, real files. Then once more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eval as evaluation
import path_collection
from mcts_utils.report.runs.round import main as report
from mcts_utils.report.verify.__main__ import main as verify
from mcts_utils.search.tree import leaves
from mcts_utils.search.tree_io import tree_from_dict
from mcts_utils.servers.mock_llm.endpoint import Behaviour, running_chat
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "ITERA": "2",
    "N_GEN": "3",
    "N_ROLLOUT": "2",
    "MAX_DEPTH": "12",
    "MAX_TOKEN_LENGTH": "64",
    "EVAL_STEPS": "8",
}

HELD_OUT = ",".join(map(str, load_world().split()["test"][::24]))


def settings(run: Path, url: str) -> dict[str, str]:
    """The variables of the stages."""
    model = {"OPENAI_BASE_URL": "", "MODEL_NAME": "", "MODEL_DIR": str(ROOT / "models/tiny_actor")}
    return SMALL | model | {"ENV_SERVER_BASE": url, "RUN_DIR": str(run), "SEED": "0"}


def iteration(run: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    extra = {
        "TRAIN_FLAGS": "--epochs 1",
        "OMP_NUM_THREADS": "1",
        "EVAL_IDS": HELD_OUT,
        "PYTHON": sys.executable,
    }
    environ = os.environ | settings(run, url) | extra | variables
    return subprocess.run(
        ["bash", "scripts/iteration.sh"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def round_of(tmp_path_factory: pytest.TempPathFactory, textcraft_url: str) -> tuple[Path, str, str]:
    """(folder, server, training task ids) of a finished round."""
    train = set(load_world().split()["train"])
    ids = ",".join(str(i) for i in [*range(20, 44, 3), *range(150, 174, 3)] if i in train)
    run = tmp_path_factory.mktemp("round")
    done = iteration(run, textcraft_url, TASK_IDS=ids, STEPS="collect revise")
    assert done.returncode == 0, done.stderr[-2000:]
    ours = re.compile(
        r"(search|centric|good|warning): "
    )  # a local model's library warns of nothing, and shows no bar
    assert [line for line in done.stderr.splitlines() if not ours.match(line)] == []
    return run, textcraft_url, ids


def test_trees_are_searches_and_are_not_searched_again(round_of: tuple[Path, str, str]) -> None:
    run, url, ids = round_of
    files = sorted((run / "mcts_result/textcraft/tiny_actor").glob("search_results_*.json"))
    assert len(files) == len(ids.split(","))
    trees = [tree_from_dict(read_json(path)) for path in files]
    assert all(tree.status == "done" and tree.stats["iterations"] == 2 for tree in trees)
    rewards = {leaf.reward for tree in trees for leaf in leaves(tree)}
    assert rewards == {0.0, 1.0}
    before = [path.stat().st_mtime_ns for path in files]
    again = iteration(run, url, TASK_IDS=ids, STEPS="collect")
    assert again.returncode == 0, again.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in files] == before


def test_every_written_record_replays_exactly(
    round_of: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, url, _ = round_of
    for kind in ("centric", "good"):
        path = run / f"records/textcraft_{kind}.jsonl"
        rows = read_jsonl(path)
        assert rows
        assert path_collection.main(["--verify", str(path), "--env_server_base", url]) == 0
        assert f"rows {len(rows)}, exact {len(rows)}," in capsys.readouterr().out
        rows[0]["messages"][3]["content"] += " and a diamond"  # a check that cannot fail is none
        forged = run / "forged.jsonl"
        forged.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        assert path_collection.main(["--verify", str(forged), "--env_server_base", url]) == 2


def test_revisions_train_the_signal_and_what_follows_it_only(round_of: tuple[Path, str, str]) -> None:
    rows = read_jsonl(round_of[0] / "records/textcraft_centric.jsonl")
    for row in rows:
        turns = [m for m in row["messages"] if m["role"] == "assistant"]
        signal = next(i for i, m in enumerate(turns) if m["content"].endswith("Action: wait"))
        assert not any(m["loss"] for m in turns[:signal])
        assert turns[signal]["loss"]
        assert row["lineage"]["rewards"]["record"] == 1.0
        assert row["lineage"]["rewards"]["bad"] < 0.8


@pytest.mark.trainer
def test_the_trained_model_is_evaluated_on_goals_it_was_not_trained_on(
    round_of: tuple[Path, str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, url, _ = round_of
    done = iteration(run, url, STEPS="train evaluate")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    kinds = {"revision": "centric", "good": "good"}
    rows = {kind: read_jsonl(run / f"records/textcraft_{name}.jsonl") for kind, name in kinds.items()}
    manifest = read_json(run / "model/manifest.json")
    assert manifest["counts"]["rows"] == {kind: len(found) for kind, found in rows.items()}
    summary = read_json(run / "test_result/textcraft/tiny_actor_after/summary.json")
    assert summary["n"] == len(HELD_OUT.split(","))
    trained = {row["task_num"] for found in rows.values() for row in found}
    assert not trained & set(summary["indices"])

    # The untrained actor under the same protocol, and the table of both.
    for name, value in {**settings(run, url), "MODEL_TYPE": "before"}.items():
        monkeypatch.setenv(name, value)
    arguments = ["--model_name", "tiny_actor", "--task_ids", HELD_OUT, "--max_steps", SMALL["EVAL_STEPS"]]
    assert evaluation.main([*arguments, "--output_dir", str(run / "test_result")]) == 0
    assert report([str(run)]) == 0
    table = capsys.readouterr().out
    found = read_json(run / "summary.json")
    assert found["after"]["success_rate"] == summary["success_rate"]
    written = {name: found["records"]["by_type"][name]["written"] for name in kinds.values()}
    assert written == {name: len(rows[kind]) for kind, name in kinds.items()}
    assert found["records"]["written"] == sum(written.values())
    assert {"success_rate", "n", "ci95"} <= set(found["before"])
    assert f"{100 * summary['success_rate']:.1f} %" in table
    (run / "forged.jsonl").unlink(missing_ok=True)  # of a test before
    assert verify([str(run), "--env_server_base", url]) == 0
    assert f"rows encoded again {sum(written.values())}" in capsys.readouterr().out
    (run / "model/manifest.json").unlink()
    assert report([str(run)]) == 2
    assert str(run / "model/manifest.json") in capsys.readouterr().err


def test_a_models_name_may_be_that_of_a_hub(tmp_path: Path, textcraft_url: str) -> None:
    goals = ",".join(map(str, load_world().split()["train"][8:10]))
    with running_chat(Behaviour(noise=0.4)) as chat:
        served = {"OPENAI_BASE_URL": chat.base_url, "MODEL_NAME": "org/Model:7b", "MODEL_DIR": ""}
        done = iteration(tmp_path, textcraft_url, **served, STEPS="collect revise", TASK_IDS=goals)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "mcts_result/textcraft/org_Model_7b").glob("search_results_*.json"))) == 2
    assert read_jsonl(tmp_path / "records/textcraft_good.jsonl")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"ITERATION": "4"}, "iteration.sh: ITERATION must be 1, 2 or 3: '4'"),
        (
            {"STEPS": "dance"},
            "iteration.sh: STEPS knows warm_start, collect, revise, train and evaluate: 'dance'",
        ),
        ({"MODEL_DIR": ""}, "iteration.sh: set MODEL_DIR, or OPENAI_BASE_URL and MODEL_NAME"),
        ({"PYTHON": "nowhere"}, "iteration.sh: nowhere is missing: run bash scripts/setup.sh"),
        ({"MODEL_NAME": "/"}, "iteration.sh: MODEL_NAME cannot name a folder: '/'"),
        ({"STEPS": "collect", "ITERA": "many"}, "mcts_collection.py: ITERA must be a whole number: 'many'"),
    ],
)
def test_wrong_variables_are_one_line(tmp_path: Path, variables: dict[str, str], line: str) -> None:
    done = iteration(tmp_path, "http://127.0.0.1:9", **variables)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == line
