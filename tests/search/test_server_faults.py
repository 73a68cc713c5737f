"""Stage 1 while the environment server fails: every tree is made in the first run, and none is another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mcts_collection
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json
from tests.helpers.faulty_proxy import KINDS, failing

pytestmark = pytest.mark.slow

IDS = load_world().split()["train"][:5]
OF_A_RUN = ("stats", "created")  # these parts of a tree tell of the run, not of the search


def trees(folder: Path) -> dict[str, dict[str, Any]]:
    found = {path.name: read_json(path) for path in folder.rglob("search_results_*.json")}
    return {name: {k: v for k, v in tree.items() if k not in OF_A_RUN} for name, tree in found.items()}


@pytest.fixture
def search(tmp_path, monkeypatch, capsys, textcraft_url):
    """Search IDS in a folder of this name behind a proxy: (trees, proxy)."""

    def run(name: str, rate: float = 0.0, extensions: bool = True, at: str = "server", **more: str):
        with (
            running_chat(Behaviour(noise=0.4)) as chat,
            failing(
                chat.base_url.removesuffix("/v1") if at == "endpoint" else textcraft_url, rate, extensions
            ) as proxy,
        ):
            given = {"TASK": "textcraft", "MODEL_NAME": MODEL, "MODEL_DIR": "", "ITERA": "2", "N_GEN": "3"}
            urls = {"OPENAI_BASE_URL": chat.base_url, "ENV_SERVER_BASE": proxy.url}
            if at == "endpoint":
                urls = {"OPENAI_BASE_URL": f"{proxy.url}/v1", "ENV_SERVER_BASE": textcraft_url}
            for variable, value in {**given, **urls, "N_ROLLOUT": "3", "MAX_DEPTH": "8", **more}.items():
                monkeypatch.setenv(variable, value)
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            # `--allow_test`: no look at the test tasks, which takes a request for each
            assert mcts_collection.main(["--task_ids", ",".join(map(str, IDS)), "--allow_test"]) == 0
            assert f"{len(IDS)} trees (0 failed)" in capsys.readouterr().out
            return trees(tmp_path / name), proxy

    return run


@pytest.fixture(scope="module")
def known() -> dict[bool, dict[str, Any]]:
    """Whether the server has extensions -> the trees of an undisturbed search, filled by `undisturbed`."""
    return {}


@pytest.fixture
def undisturbed(search, known):
    """The trees of a search without failures, which each kind of server is asked for once."""

    def of(extensions: bool) -> dict[str, Any]:
        if extensions not in known:
            known[extensions], _ = search("without", extensions=extensions)
        return known[extensions]

    return of


@pytest.mark.parametrize("extensions", [True, False])
def test_one_request_in_seven_fails_and_the_trees_are_the_same(search, undisturbed, extensions):
    made, proxy = search("with", 0.15, extensions)
    assert made == undisturbed(extensions)
    assert all(tree["status"] == "done" for tree in made.values())
    assert set(KINDS) <= set(proxy.met)


def test_one_request_in_seven_fails_at_the_endpoint_and_the_trees_are_the_same(search, undisturbed):
    made, proxy = search("with", 0.15, at="endpoint")
    assert made == undisturbed(True)
    assert sum(proxy.met[kind] for kind in KINDS) > 5


def test_a_public_servers_sessions_are_limited_and_the_trees_are_the_same(search, undisturbed):
    made, proxy = search("limited", extensions=False, MAX_SESSIONS="2", WORKERS="4")
    assert made == undisturbed(False)
    assert proxy.paths["/create"] <= 3, "one before the search, two for it, which are used again"
