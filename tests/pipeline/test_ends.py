"""A script that is stopped or killed leaves nothing running."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest

from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.servers.textcraft.world import load_world

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stage_ends_with_its_script(tmp_path, textcraft_url, number):
    with running_chat(Behaviour(latency=0.3)) as chat:
        environ = {
            **os.environ,
            **{"TASK": "textcraft", "ENV_SERVER_BASE": textcraft_url, "STEPS": "collect"},
            "TASK_IDS": ",".join(map(str, load_world().split()["train"][:2])),
            **{"OPENAI_BASE_URL": chat.base_url, "MODEL_NAME": MODEL, "RUN_DIR": str(tmp_path)},
        }
        script = subprocess.Popen(
            ["bash", "scripts/iteration.sh"], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
        )
        assert script.stderr is not None
        while "tree" not in (line := script.stderr.readline()):  # the progress: the search has begun
            assert line, "it ended by itself"
        lock = tmp_path / "mcts_result" / "textcraft" / MODEL / ".lock"
        found = re.match(r"process (\d+) on", lock.read_text())
        assert found is not None
        stage = os.pidfd_open(int(found[1]))
        script.send_signal(number)
        said = script.stderr.read()  # returns when script and stage have both ended
        assert script.wait() == -number
        assert select.select([stage], [], [], 30)[0], "the stage has ended"
        os.close(stage)
    assert "stopped; run the same command again to go on" in said
    assert not lock.exists()
