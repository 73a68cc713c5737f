"""`python -m mcts_utils verify` on a small real run: it is whole, and each change of it is found and named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.report.common import print_report
from mcts_utils.report.verify.__main__ import main
from mcts_utils.report.verify.hashes import all_files, check_hashes
from mcts_utils.report.verify.run import Audit
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import (
    read_json,
    read_jsonl,
    sealed,
    sha256_file,
    write_json,
    write_jsonl,
    write_sealed,
)
from mcts_utils.storage.manifest import read_manifest, write_manifest

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TREES = "mcts_result/textcraft/textcraft-expert"
CENTRIC, GOOD = "records/textcraft_centric", "records/textcraft_good"
RUN = f"test_result/textcraft/{MODEL}_after"
IDS = "183,187,190,194"
TOKENS = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [5, 8], "labels": [-100, 8]}]
VARIABLES = {
    **{"TASK": "textcraft", "MODEL_NAME": MODEL, "OPENAI_API_KEY": "", "MODEL_DIR": "", "SEED": "0"},
    **{"ITERA": "3", "N_GEN": "3", "N_ROLLOUT": "3", "MAX_DEPTH": "8", "MODEL_TYPE": "after"},
}


def made_model(run: Path) -> None:
    """A trained model as stage 3 leaves it, with rows of a few tokens."""
    train = run / "model/train"
    write_json(run / "model/config.json", {"model_type": "llama"})
    (run / "model/model.safetensors").write_bytes(Random(0).randbytes(500))
    write_jsonl(train / "train.jsonl", TOKENS)
    data = [run / f"{CENTRIC}.jsonl", run / f"{GOOD}.jsonl"]
    counts, tokens = {"rows": {"revision": 1, "good": 1}}, {"revision": {"input": 5, "trained": 3}}
    rows = [train / "train.jsonl"]
    write_manifest(train / "data.manifest.json", "training data", {}, data, rows, counts, tokens, 0)
    outputs = [
        run / "model/config.json",
        run / "model/model.safetensors",
        *rows,
        train / "data.manifest.json",
    ]
    write_manifest(run / "model/manifest.json", "train", {"epochs": 1}, data, outputs, counts, tokens, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, textcraft_url: str) -> Path:
    """A run of all stages: searched, revised, with a model that a second search names, evaluated, reported on."""
    run: Path = tmp_path_factory.mktemp("verify") / "run"
    test = load_world().split()["test"]
    with running_chat(Behaviour(noise=0.4)) as chat, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **VARIABLES,
            "ENV_SERVER_BASE": textcraft_url,
            "OPENAI_BASE_URL": chat.base_url,
        }.items():
            patch.setenv(name, value)
        assert mcts_collection.main(["--task_ids", IDS, "--output_dir", str(run / "mcts_result")]) == 0
        for kind in ("centric", "good", "preference", "verdicts"):
            flags = [
                "--input_dir",
                str(run / TREES),
                "--output_dir",
                str(run / "records"),
                "--data_type",
                kind,
            ]
            assert path_collection.main(flags) == 0
        made_model(run)
        played = ["--output_dir", str(run / "test_result"), "--max_steps", "3"]
        assert evaluation.main([*played, "--task_ids", ",".join(map(str, test[153:149:-1]))]) == 0
        revised = ["--mode", "revise", "--from", str(run / RUN), "--panel", str(run / "panel.json")]
        assert evaluation.main([*played, *revised]) == 0
        assert evaluation.main(["loops", "--judge", "model", str(run / RUN)]) == 0
        patch.setenv("MODEL_DIR", str(run / "model"))
        assert (
            mcts_collection.main(["--task_ids", "196", "--output_dir", str(run / "iteration_2/mcts_result")])
            == 0
        )
    print_report("", {"solved": 1}, run / "report.json")
    return run


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run at another place, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def verified(run: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Exit code and output, without the sample's execution unless flags ask for it."""
    capsys.readouterr()
    code = main([str(run), *(flags or ("--sample", "0"))])
    return code, capsys.readouterr().out


def renew(run: Path) -> None:
    """Give every manifest the hashes of its files as they are now, as somebody would who changes results by hand."""
    for _ in range(2):  # manifests list manifests
        for path in run.rglob("*manifest.json"):
            data = {key: value for key, value in read_json(path).items() if key != "sha256"}
            for entry in (*data["inputs"], *data["outputs"]):
                if (file := path.parent / entry["path"]).is_file():
                    entry["sha256"] = sha256_file(file)
            write_sealed(path, data)


def test_a_whole_run_has_no_fault_and_is_executed_again(whole, capsys):
    code, out = verified(whole, capsys, "--sample", "5")
    assert (code, out.count("FAULT")) == (0, 0), out
    assert "execution  rows 5, trees 5, episodes 5" in out
    assert "no hash on record" not in out
    assert "stages that used them 1" in out


def test_a_moved_run_has_the_same_hash_and_no_fault(whole, copy, capsys):
    assert verified(copy, capsys)[0] == 0
    hashes = [verified(run, capsys)[1].rpartition("sha256 of all hashes ")[2] for run in (whole, copy)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("part", [TREES, "records", RUN, "model", "iteration_2"])
def test_a_single_stage_can_be_checked(part, copy, capsys):
    code, out = verified(copy / part, capsys)
    assert code == 0, out


def test_records_alone_are_compared_with_their_trees_beside_them(copy, capsys):
    rows = sum(len(read_jsonl(path)) for path in (copy / "records").glob("*.jsonl"))
    assert f"lineage    rows {rows}" in verified(copy / "records", capsys)[1]
    shutil.rmtree(copy / TREES)
    assert f"rows whose trees are not here: {rows}" in verified(copy / "records", capsys)[1]


@pytest.mark.parametrize("version", ["b1ca0e1", "ed27ae2", "2f48bea", "902b94e"])
def test_runs_of_earlier_versions_have_no_fault(version, capsys):
    code, out = verified(FIXTURES / version, capsys)
    assert code == 0, out
    assert "no hash on record" in out


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_a_run_is_one_line(folder, tmp_path, capsys):
    assert main([str(tmp_path / folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def row_of(path: str, change: Callable[[Any], Any], number: int = 0) -> Callable[[Path], None]:
    """Change one row of a file of records."""

    def apply(run: Path) -> None:
        rows = read_jsonl(run / path)
        change(rows[number])
        write_jsonl(run / path, rows)

    return apply


def object_of(path: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change a JSON file."""

    def apply(run: Path) -> None:
        file = next(iter(sorted(run.glob(path))))
        data = read_json(file)
        change(data)
        write_json(file, data)

    return apply


def lines_of(path: str, change: Callable[[list[Any]], Any]) -> Callable[[Path], None]:
    """Change the list of a file's rows."""

    def apply(run: Path) -> None:
        rows = read_jsonl(run / path)
        change(rows)
        write_jsonl(run / path, rows)

    return apply


def swap(run: Path) -> None:
    one, two = sorted((run / TREES).glob("search_results_*.json"))[:2]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def take_test_goal(run: Path) -> None:
    """The rows of one tree become rows of a goal that is evaluated, with another index."""
    rows, opened = (
        read_jsonl(run / f"{GOOD}.jsonl"),
        read_json(next((run / RUN).glob("episode_*.json")))["task"],
    )
    rows[0]["lineage"]["task"]["id"], rows[0]["task_description"] = opened["id"], opened["opening"]
    write_jsonl(run / f"{GOOD}.jsonl", rows)


def setting(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda data: data.update({name: value})


C, G = f"{CENTRIC}.jsonl", f"{GOOD}.jsonl"
CHANGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {  # what is changed, check and text that find it
    "a flag": (
        row_of(C, lambda r: r["messages"][2].update(loss=True)),
        "lineage",
        r"messages[2].loss is True",
    ),
    "a user's flag": (row_of(C, lambda r: r["messages"][1].update(loss=True)), "rows", "not the assistant's"),
    "a role": (row_of(C, lambda r: r["messages"][3].update(role="assistant")), "rows", "must alternate"),
    "an action": (
        row_of(G, lambda r: r["messages"][2].update(content="Action: get 1 log")),
        "lineage",
        "`kept`",
    ),
    "an answer": (row_of(C, lambda r: r["messages"][3].update(content="Got it")), "lineage", "bad part"),
    "a reward": (row_of(C, lambda r: r["lineage"]["rewards"].update(record=0.5)), "lineage", "reward is 0.5"),
    "a bad reward": (
        row_of(C, lambda r: r["lineage"]["rewards"].update(bad=0.5)),
        "lineage",
        "rewards.bad is 0.5",
    ),
    "the cut": (row_of(C, lambda r: r["lineage"].update(cut_step=0, cut=1)), "lineage", "cut"),
    "a verdict": (
        row_of(C, lambda r: r["lineage"]["verdicts"][-1].update(reason="x")),
        "lineage",
        "kept is bad",
    ),
    "a leaf": (row_of(C, lambda r: r["lineage"].update(good_leaf=0)), "lineage", "is no end of a path"),
    "the signal": (row_of(C, lambda r: r.update(revise="x")), "lineage", "revise is 'x'"),
    "not executed": (
        row_of(C, lambda r: r["lineage"]["replay"].update(exact=None)),
        "lineage",
        "was not executed",
    ),
    "the log": (row_of(C, lambda r: r["low_log"][0].update(action="x")), "lineage", "low_log[0].action"),
    "a seed": (row_of(C, lambda r: r["lineage"].update(seed=7)), "lineage", "seed is 7"),
    "a tree's name": (
        row_of(C, lambda r: r["lineage"].update(tree="search_results_1.json")),
        "lineage",
        "it names",
    ),
    "a row gone": (lines_of(G, lambda rows: rows.pop()), "rows", "its manifest counts"),
    "a row twice": (lines_of(G, lambda rows: rows.append(rows[0])), "rows", "the same actions as row 1"),
    "a test goal": (take_test_goal, "test goals", "is played in test_result"),
    "two trees": (swap, "trees", "it is the tree of index"),
    "a node's reward": (
        object_of(
            f"{TREES}/search_results_183.json", lambda t: t["nodes"]["env_score"].__setitem__(-1, 0.25)
        ),
        "lineage",
        "no tree here is the one it names",
    ),
    "visits": (
        object_of(f"{TREES}/search_results_183.json", lambda t: t["nodes"]["visits"].__setitem__(1, 999)),
        "trees",
        "its children have",
    ),
    "a tree's setting": (
        object_of(f"{TREES}/search_results_183.json", lambda t: t["settings"].update(max_depth=99)),
        "trees",
        "max_depth is 99",
    ),
    "a count": (
        object_of(f"{TREES}/manifest.json", lambda m: m["counts"].update(nodes=1)),
        "trees",
        "counts nodes 1",
    ),
    "a question": (
        object_of(
            "records/verdicts/*.json", lambda v: next(iter(v["verdicts"].values())).update(question="0" * 16)
        ),
        "verdicts",
        "another question",
    ),
    "a score": (
        object_of(f"{RUN}/summary.json", setting("success_rate", 0.875)),
        "evaluation",
        "success_rate",
    ),
    "a longer evaluation": (
        object_of(f"{RUN}/episode_*.json", lambda e: e["settings"].update(max_steps=50)),
        "evaluation",
        "max_steps",
    ),
    "an end": (
        object_of(f"{RUN}/episode_*.json", setting("reward", 0.75)),
        "evaluation",
        "its last step earned",
    ),
    "the panel": (
        object_of("panel.json", lambda p: p["prefixes"][0].update(task_id="x")),
        "evaluation",
        "sha256",
    ),
    "weights": (
        lambda run: (run / "model/model.safetensors").write_bytes(b"x" * 500),
        "weights",
        "its weights are",
    ),
    "trained tokens": (
        row_of("model/train/train.jsonl", lambda r: r.update(labels=[5, 6, 7])),
        "loss",
        "4 trained tokens, its manifest counts 3",
    ),
    "a verdict row": (
        row_of("records/textcraft_verdicts.jsonl", lambda r: r["messages"][1].update(content="x")),
        "lineage",
        "its question is not",
    ),
    "a rejected turn": (
        row_of(
            "records/textcraft_preference.jsonl", lambda r: r["rejected"][0].update(content="Action: look")
        ),
        "lineage",
        "rejected conversation",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_by_its_hash_and_by_what_it_contradicts(name, copy, capsys):
    change, check, text = CHANGES[name]
    change(copy)
    audit = Audit(copy)
    check_hashes(audit.checks, audit.manifests)
    assert "hashes" in audit.checks.faults
    renew(copy)
    code, out = verified(copy, capsys)
    found = [line for line in out.splitlines() if line.startswith("FAULT")]
    assert code == 1
    assert any(line.split(maxsplit=2)[1] == check.split()[0] and text in line for line in found), out
    assert "FAULT  hashes" not in out


def test_an_observation_that_no_file_contradicts_is_found_by_the_server(copy, capsys):
    file = "records/textcraft_preference.jsonl"
    row_of(file, lambda row: row["lineage"]["replay"].update(final_observation="Crafted a diamond"))(copy)
    renew(copy)
    code, out = verified(copy, capsys)
    assert code == 0, out
    code, out = verified(copy, capsys, "--sample", "1000")
    assert code == 1
    assert f"FAULT  execution  {file} row 1: step" in out


def test_a_server_that_does_not_answer_is_one_line_before_anything_else(copy, capsys):
    assert main([str(copy), "--env_server_base", "http://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@settings(max_examples=100)
@given(st.data())
def test_a_changed_byte_anywhere_is_found(whole, tmp_path_factory, data):
    file = data.draw(st.sampled_from(sorted(all_files(whole))))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    copied = tmp_path_factory.getbasetemp() / "bytes"
    if not copied.exists():
        shutil.copytree(whole, copied, copy_function=os.link)
    changed = copied / file.relative_to(whole)
    changed.unlink()
    changed.write_bytes(content)
    audit = Audit(copied)
    check_hashes(audit.checks, audit.manifests)
    changed.unlink()
    os.link(file, changed)
    assert audit.checks.faults, file
    assert str(changed.relative_to(copied)) in str(audit.checks.faults)


def test_what_is_sealed_is_read_as_before_and_other_files_are_told_apart(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, "search", {"a": "\u2028\ud800"}, [], [], {}, {}, 1.5)
    assert sealed(path.read_bytes())
    assert read_manifest(path).settings == {"a": "\u2028\ud800"}
    assert read_json(path)["sha256"] == read_manifest(path).sha256
    write_json(path, {"seconds": 1.5})
    assert sealed(path.read_bytes()) is None
