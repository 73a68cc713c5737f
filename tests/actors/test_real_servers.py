"""vLLM and llama.cpp themselves, where they are installed: served, searched with, killed, restarted, evaluated.

They need bash scripts/setup_vllm.sh, or bash scripts/setup.sh --llamacpp and bash scripts/get_model.sh smollm2 --gguf.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json
from mcts_utils.storage.layout import tree_folder
from tests.helpers.ports import reserved_ports
from tests.helpers.training_models import ROOT

SMOL = ROOT / "models" / "smollm2"
NO_VLLM = not (ROOT / ".venv-vllm/.stamp").is_file()
NO_LLAMA = not ((which("llama-server") or find_spec("xllamacpp")) and any(SMOL.glob("*.gguf")))
SERVERS = [
    pytest.param(
        "vllm",
        ROOT / "models/tiny_actor",
        marks=pytest.mark.skipif(NO_VLLM, reason="no vLLM: run bash scripts/setup_vllm.sh"),
    ),
    pytest.param(
        "llamacpp",
        SMOL,
        marks=pytest.mark.skipif(
            NO_LLAMA, reason="no llama.cpp or no GGUF: setup.sh --llamacpp, get_model.sh smollm2 --gguf"
        ),
    ),
]


@contextmanager
def served(kind: str, model: Path, port: int, log: Path) -> Iterator[tuple[str, int]]:
    """Yield the base URL and the process id of a server that scripts/serve.sh has started and verified."""
    environ = {"SERVE": kind, "MODEL_DIR": str(model), "PORT": str(port), "SERVE_LOG": str(log)}
    script = subprocess.Popen(
        ["bash", str(ROOT / "scripts/serve.sh")],
        env=os.environ | environ | {"PYTHON": sys.executable, "MODEL_NAME": "m", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None and script.stderr is not None
    try:
        assert "id by id" in script.stdout.readline(), log.read_text(encoding="utf-8")[-3000:]
        script.stdout.readline()
        found = re.search(r"process (\d+)", script.stderr.readline())
        assert found
        yield f"http://127.0.0.1:{port}/v1", int(found[1])
    finally:
        script.send_signal(signal.SIGTERM)
        script.communicate(timeout=120)


@pytest.fixture
def stage(tmp_path: Path, textcraft_url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an entry script: its name, its arguments, and variables."""
    running = []
    environ = {"TASK": "textcraft", "ENV_SERVER_BASE": textcraft_url, "MODEL_NAME": "m", "PROMPT": "brief"}
    environ |= {"ITERA": "2", "N_GEN": "2", "N_ROLLOUT": "2", "MAX_DEPTH": "4", "MAX_TOKEN_LENGTH": "24"}

    def start(script: str, *words: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / script), *words]
        both, variables = subprocess.PIPE, os.environ | environ | more
        process = subprocess.Popen(
            command, env=variables, cwd=tmp_path, text=True, stdout=both, stderr=subprocess.STDOUT
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """Return what a process says that ends with the code."""
    said = process.communicate(timeout=900)[0]
    assert process.returncode == code, said
    return said


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "model"), SERVERS)
def test_a_search_outlives_a_kill_of_its_server_and_the_other_stages_follow(
    kind: str, model: Path, tmp_path: Path, stage: Callable[..., subprocess.Popen[str]]
) -> None:
    split = load_world().split()
    train, test = ",".join(map(str, split["train"][:3])), split["test"]
    with reserved_ports(1) as port:
        log = tmp_path / "log"
        with served(kind, model, port, log) as (url, process):
            endpoint = {"OPENAI_BASE_URL": url}
            search = stage("mcts_collection.py", "--task_ids", train, **endpoint, ENDPOINT_PATIENCE="900")
            while not re.search("chat/completions HTTP|launch_slot", log.read_text(encoding="utf-8")):
                assert search.poll() is None, end(search)
                time.sleep(0.1)
            os.kill(process, signal.SIGKILL)
        with served(kind, model, port, log):
            end(search)
            trees = tree_folder("mcts_result", "textcraft", "m")
            assert read_json(tmp_path / trees / "manifest.json")["counts"]["trees"] == 3
            flags = ("--input_dir", str(trees), "--output_dir", "out", "--data_type", "centric")
            end(stage("path_collection.py", *flags, **endpoint))
            end(stage("eval.py", "--task_ids", f"{test[0]},{test[1]}", "--max_steps", "3", **endpoint))
            if kind == "vllm":  # llama.cpp takes it, and cuts the reply where the context ends
                said = end(
                    stage("eval.py", "--task_ids", str(test[2]), **endpoint, MAX_TOKEN_LENGTH="3000"), 2
                )
                assert "MAX_TOKEN_LENGTH=3000 is above the limit" in said
        assert "OPENAI_BASE_URL" in end(stage("eval.py", "--task_ids", str(test[3]), **endpoint), 2)
