"""The entry scripts in this process, with the bundled TextCraft server and its expert behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.servers.mock_llm.endpoint import MODEL, ChatServer, running_chat
from mcts_utils.servers.textcraft.expert import answer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with running_chat(policy=lambda messages, rng: answer(messages, rng, 0.4)) as server:
        yield server


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, chat: ChatServer, textcraft_url: str
) -> Run:
    """Run an entry script in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "MODEL_DIR",
        "MODEL_TYPE",
        "OPENAI_API_KEY",
        "PROMPT",
        "SEED",
        "TEMP",
        "ALPHA",
        "BETA",
        "CONCURRENCY",
    ):
        monkeypatch.delenv(name, raising=False)
    settings = {"TASK": "textcraft", "OPENAI_BASE_URL": chat.base_url, "ENV_SERVER_BASE": textcraft_url}
    settings |= {"MODEL_NAME": MODEL, "ITERA": "2", "N_GEN": "3", "N_ROLLOUT": "3", "MAX_DEPTH": "10"}

    def run_it(main: Callable[[list[str]], int], *flags: str, **changes: str) -> tuple[int, str, str]:
        for name, value in (settings | changes).items():
            monkeypatch.setenv(name, value)
        code = main(list(flags))
        return code, *capsys.readouterr()

    return run_it
