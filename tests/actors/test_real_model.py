"""A language model of the package registry through the stages, at the smallest size. Skipped where it cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcts_utils.actors.get_model import KNOWN, greedy_tokens
from mcts_utils.storage.layout import tree_files, tree_folder
from tests.helpers.training_models import ROOT

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


def test_evaluation_search_and_revision_run_with_it(smollm2, textcraft_url, tmp_path):
    sizes = {"MAX_TOKEN_LENGTH": "8", "MAX_DEPTH": "2", "ITERA": "1", "N_GEN": "2", "N_ROLLOUT": "2"}
    settings = {"TASK": "textcraft", "MODEL_DIR": str(smollm2), "ENV_SERVER_BASE": textcraft_url}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}

    def run(script: str, *flags: str) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *flags],
            cwd=tmp_path, env={**clean, **settings, **sizes}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "local model: " in done.stderr and "deprecated" not in done.stderr
        return done.stdout

    assert "n 2, failed 0" in run("eval.py", "--task_ids", "0,1", "--max_steps", "2", "--output_dir", "test")
    run("mcts_collection.py", "--task_ids", "1,2", "--output_dir", "trees")
    folder = tree_folder(tmp_path / "trees", "textcraft", "smollm2")
    assert len(tree_files(folder, "the trees")) == 2
    run("path_collection.py", "--input_dir", str(folder), "--output_dir", "records")
    assert (tmp_path / "records" / "textcraft_centric.manifest.json").is_file()
