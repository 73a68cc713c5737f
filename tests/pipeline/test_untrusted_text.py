"""A model's replies, and a model's name, that try to be a path, a shell command, code or markup stay text."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.servers.mock_llm.endpoint import running_chat
from mcts_utils.servers.textcraft.expert import answer
from mcts_utils.storage.layout import tree_folder

NAME = "../../$(touch MADE); `touch MADE`"
TEXT = (
    "../../../made /tmp/../made $(touch MADE) `touch MADE`; touch MADE | touch MADE & touch MADE "
    "__import__('os').system('touch MADE') {{ ''.__class__.__mro__ }} ${jndi:x} %s {0} <script>made()</script>"
)


def reply(messages: list[dict], rng: random.Random) -> str:
    """The expert's reply with the text in its thought; sometimes the text is the action."""
    said = answer(messages, rng, 0.4)
    if "Judgment" in said:
        return said
    return f"Thought: {TEXT}\nAction: {TEXT if rng.random() < 0.2 else said.rpartition('Action: ')[2]}"


def test_no_text_of_a_model_becomes_a_path_or_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, textcraft_url: str
) -> None:
    inside = tmp_path / "a" / "b" / "run"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with running_chat(policy=reply) as chat:
        settings = {"TASK": "textcraft", "OPENAI_BASE_URL": chat.base_url, "ENV_SERVER_BASE": textcraft_url}
        settings |= {"MODEL_NAME": NAME, "ITERA": "2", "N_GEN": "3", "N_ROLLOUT": "2", "MAX_DEPTH": "8"}
        for name, value in {**settings, "MODEL_DIR": "", "OPENAI_API_KEY": ""}.items():
            monkeypatch.setenv(name, value)
        assert mcts_collection.main(["--task_ids", "0-2"]) == 0
        trees = str(tree_folder("mcts_result", "textcraft", NAME))
        assert path_collection.main(["--input_dir", trees, "--output_dir", "out", "--data_type", "good"]) in (
            0,
            2,
        )
        assert evaluation.main(["--task_ids", "3", "--max_steps", "3"]) == 0
    made = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert all(path.startswith("a/b/run/") for path in made if path not in ("a", "a/b", "a/b/run"))
    assert [path for path in made if not re.fullmatch(r"[\w./-]+", path) or "MADE" in path.split("/")] == []
    assert any(TEXT[:40] in path.read_text() for path in inside.rglob("*.json"))
