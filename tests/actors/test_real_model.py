"""A language model of the package registry through the stages, at the smallest size. Skipped where it cannot be had."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import mcts_collection
import path_collection
from mcts_utils.actors.get_model import KNOWN, greedy_tokens
from mcts_utils.storage import files, manifest
from mcts_utils.storage.layout import tree_files, tree_folder
from mcts_utils.training import train
from tests.helpers.training_models import ROOT, record

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real model")]
FOLDER = ROOT / "models" / "smollm2"


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The folder that scripts/get_model.sh makes; it stays for the next time."""
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "get_model.sh"), "smollm2"],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(done.stderr.splitlines()[-1])
    return FOLDER


def test_greedy_tokens_are_the_stored_ones(smollm2):
    known = json.loads(KNOWN.read_text(encoding="utf-8"))["smollm2"]
    assert greedy_tokens(smollm2, known["question"]) == known["greedy"]
    assert (smollm2 / "LICENSE").is_file()
    assert json.loads((smollm2 / "ORIGIN.json").read_text(encoding="utf-8"))["licence"] == "Apache-2.0"


@pytest.mark.trainer
def test_every_stage_runs_with_it(smollm2, textcraft_url, tmp_path, monkeypatch, capfd):
    sizes = {"MAX_TOKEN_LENGTH": "8", "MAX_DEPTH": "2", "ITERA": "1", "N_GEN": "2", "N_ROLLOUT": "2"}
    settings = {"TASK": "textcraft", "MODEL_DIR": str(smollm2), "ENV_SERVER_BASE": textcraft_url}
    for name, value in {**settings, **sizes, "OPENAI_BASE_URL": "", "OPENAI_API_KEY": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def check(code: int, errors: str) -> None:
        assert code == 0, errors
        assert "local model: " in errors and "deprecated" not in errors

    command = [sys.executable, str(ROOT / "eval.py"), "--task_ids", "0,1", "--max_steps", "2"]
    done = subprocess.run([*command, "--output_dir", "test"], capture_output=True, text=True)
    check(done.returncode, done.stderr)
    assert "n 2, failed 0" in done.stdout
    monkeypatch.setenv("NUMBER_FORMAT", re.search(r"local model: (\w+)", done.stderr)[1])  # measured once
    code = mcts_collection.main(["--task_ids", "1,2", "--output_dir", "trees"])
    check(code, capfd.readouterr().err)
    folder = tree_folder(tmp_path / "trees", "textcraft", "smollm2")
    assert len(tree_files(folder, "the trees")) == 2
    code = path_collection.main(["--input_dir", str(folder), "--output_dir", "records"])
    check(code, capfd.readouterr().err)
    assert (tmp_path / "records" / "textcraft_centric.manifest.json").is_file()
    rows = tmp_path / "rows.jsonl"  # the untrained model finds no pair
    files.write_jsonl(rows, [record(n, ("good", "revision")[n % 2]) for n in range(4)])
    flags = ["--data", str(rows), "--model_dir", str(smollm2), "--output_dir", str(tmp_path / "model")]
    code = train.main([*flags, "--config", "cpu", "--epochs", "1", "--accumulation", "4"])
    assert code == 0, capfd.readouterr().err
    products = manifest.read_manifest(tmp_path / "model" / "manifest.json").settings["products"]
    assert products == os.environ["NUMBER_FORMAT"]
    before, after = (load_file(folder / "model.safetensors") for folder in (smollm2, tmp_path / "model"))
    moved = [name for name, tensor in after.items() if not tensor.equal(before[name])]
    assert after.keys() == before.keys() and len(moved) > len(after) / 2
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "model"))
    code = importlib.import_module("eval").main(
        ["--task_ids", "0", "--max_steps", "1", "--output_dir", "trained"]
    )
    check(code, capfd.readouterr().err)
