"""The page "Your environment in ten minutes", done word by word in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.ports import reserved_ports

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-environment.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {"ITERA": "3", "N_ROLLOUT": "3", "N_GEN": "2", "MAX_DEPTH": "8"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return the folder after the page's commands, and what they printed."""
    folder = tmp_path_factory.mktemp("page")
    blocks = BLOCK.findall(PAGE)
    (code,) = [text for kind, text in blocks if kind == "python"]
    assert len(code.splitlines()) <= 40
    (folder / "my_world").mkdir()
    (folder / "my_world" / "my_env.py").write_text(code, encoding="utf-8")
    commands = "\n".join(text for kind, text in blocks if kind == "bash" and "servers.yours" not in text)
    commands = commands.replace("mkdir my_world && ", "").replace("/path/to/agent-r", str(ROOT))
    commands = commands.replace("PATH=$AGENT_R/.venv/bin", f"PATH={Path(sys.executable).parent}")
    # The player ends with the shell; the environment is ready when it is.
    commands = commands.replace(
        " &\n", ' &\ntrap "kill $!" EXIT; until curl -s localhost:8001 >player; do sleep 0.1; done\n'
    )
    environ = {
        name: value for name, value in os.environ.items() if name not in ("ENV_SERVER_BASE", "MODEL_DIR")
    }
    with reserved_ports(1) as port:
        script = f"set -euo pipefail\n{commands.replace('8001', str(port))}"
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environ | SMALL,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return folder / "my_world", ran.stdout


def test_the_check_finds_no_fault(done):
    _, printed = done
    assert "./my_env.py:Potion: no faults" in printed
    assert re.search(r"^ok     mode       fork$", printed, re.MULTILINE)


def test_every_record_comes_back(done):
    _, printed = done
    rows, exact = re.search(r"rows (\d+), exact (\d+)", printed).groups()
    assert int(rows) == int(exact) > 0


def test_trees_records_and_episodes_can_be_seen(done):
    folder, printed = done
    assert "The cauldron holds" in printed  # the tree in the terminal
    assert (folder / "report.html").stat().st_size > 10_000
    manifests = [folder / "mcts_result/my_env_Potion/stand-in/manifest.json"]
    manifests += [folder / "mcts_training_data/my_env_Potion_centric.manifest.json"]
    manifests += list(folder.glob("test_result/my_env_Potion/*/manifest.json"))
    assert len(manifests) == 3
    for path in manifests:
        text = path.read_text(encoding="utf-8")
        assert "agent-r-yours-fork-" in text and '"task_source":"./my_env.py:Potion"' in text


def test_run_all_plays_it_beside_a_bundled_one(tmp_path):
    (tmp_path / "my_env.py").touch()
    source = f"{tmp_path}/my_env.py:Potion"
    given = {
        "DRY_RUN": "1",
        "SAMPLE": "0",
        "ITERATIONS": "1",
        "TASKS": "my_env.py:Potion textcraft",
        "MODEL_DIR": "models/tiny_actor",
    }
    environ = os.environ | given | {"RUN_DIR": str(tmp_path / "run"), "OPENAI_BASE_URL": ""}
    script = ["bash", f"{ROOT}/scripts/run_all.sh"]
    ran = subprocess.run(script, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert f"-m mcts_utils.servers.yours --port 0 {source}; ENV_SERVER_BASE_MY_ENV_POTION=$url" in ran.stdout
    assert f'env TASK={source} ENV_SERVER_BASE="$ENV_SERVER_BASE_MY_ENV_POTION"' in ran.stdout
    assert "/iteration_1/my_env_Potion/records/my_env_Potion_centric.jsonl" in ran.stdout
    environ["TASKS"] = "a-b:make"
    wrong = subprocess.run(script, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr[:36]) == (2, "run_all.sh: TASKS must be FILE.py:FU")
