"""What the tests of stage 2 share: a folder of trees, the judge, and the entry script run over them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import path_collection
from mcts_utils.search.tree_io import tree_to_dict
from mcts_utils.storage.files import write_json
from tests.helpers.hand_trees import (
    BAD,
    BUTTON,
    CRAFT,
    DOOR,
    PLANKS,
    SHORT,
    STEM,
    Scripted,
    TreeMaker,
    pool_at,
    strict_judge,
)

DIRTY = (CRAFT, STEM, "inventory", PLANKS, "dance", PLANKS, CRAFT)


@pytest.fixture(scope="module")
def made_trees(textcraft_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three trees: two with pairs, one that was solved each time."""
    folder = tmp_path_factory.mktemp("trees")
    with pool_at(textcraft_url) as pool, pool.session() as env:
        door = TreeMaker(env)
        for actions in (DIRTY, SHORT, BAD, (STEM, PLANKS, BUTTON, "dance")):
            door.play(actions)
        write_json(folder / f"search_results_{DOOR}.json", tree_to_dict(door.tree))
        dye = TreeMaker(env, 5)
        dye.play(["craft 1 black dye using 1 ink sac", "get 1 ink sac", "craft 1 black dye using 1 ink sac"])
        dye.play(["dance", "inventory"])
        write_json(folder / "search_results_5.json", tree_to_dict(dye.tree))
        planks = TreeMaker(env, 0)
        planks.play(["get 1 acacia log", "craft 4 acacia planks using 1 acacia log"])
        write_json(folder / "search_results_0.json", tree_to_dict(planks.tree))
    return folder


@pytest.fixture
def trees(made_trees: Path, tmp_path: Path) -> Path:
    """A copy of the folder that the test may damage."""
    shutil.copytree(made_trees, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """The judge of every run; the settings come from a clean environment."""
    for name in (
        "TASK",
        "ALPHA",
        "BETA",
        "MODEL_DIR",
        "MODEL_TYPE",
        "ENV_SERVER_BASE",
        "PROMPT",
        "SEED",
        "WORKERS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_NAME", "scripted")
    monkeypatch.setenv("PROMPT", "brief")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # the script stands in for it
    monkeypatch.chdir(tmp_path)
    found = Scripted(strict_judge)
    monkeypatch.setattr(path_collection, "make_actor", lambda settings: found)
    return found


@pytest.fixture
def stage(trees: Path, textcraft_url: str, actor: Scripted) -> Callable[..., int]:
    """Runs the entry script over the trees (one is of a test task); flags are given as keywords."""

    def run(allow_test: bool = True, **flags: object) -> int:
        given = {"input_dir": trees, "output_dir": "out", "env_server_base": textcraft_url, **flags}
        named = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        return path_collection.main([*named, *["--allow_test"] * allow_test])

    return run
