"""Stages 1 and 2 over many trees: what a run does and holds for each tree does not grow with their number."""

from __future__ import annotations

import gc
import io
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.config import settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.revision.options import Options
from mcts_utils.revision.pairs import PairRule
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.search.stage import SearchStage
from tests.helpers.hand_trees import Scripted

TREES = 80
TREE = re.compile(r"search_results_(\d+)\.json")
CALLS = {
    os: ("stat", "open", "listdir", "scandir", "replace", "unlink", "mkdir", "fsync", "chmod"),
    io: ("open",),
}


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[int, Counter[str]]:
    """Calls that name a file of the test: index of the tree (-1: another file) -> call -> number."""
    found: dict[int, Counter[str]] = {}

    def counted(name: str, call: Any) -> Any:
        def count(path: Any, *args: Any, **options: Any) -> Any:
            if isinstance(path, str | os.PathLike) and str(path).startswith(str(tmp_path)):
                index = int(match[1]) if (match := TREE.search(str(path))) else -1
                found.setdefault(index, Counter())[name] += 1
            return call(path, *args, **options)

        return count

    for module, names in CALLS.items():
        for name in names:
            monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return found


class Held:
    """What this process holds, now and then: blocks of memory, open files."""

    def __init__(self) -> None:
        self.calls, self.samples = 0, list[tuple[int, int]]()

    def note(self, *_: Any) -> None:
        self.calls += 1
        if self.calls % (TREES // 4) == 0:
            gc.collect()
            files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
            self.samples.append((sys.getallocatedblocks(), files))

    def check(self, most: int) -> None:
        """After the first trees, at most so many blocks a tree are added (some by this test), and no file."""
        first, last = self.samples[0], self.samples[-1]
        assert (last[0] - first[0]) / TREES < most
        assert last[1] <= first[1]


def check_calls(touched: dict[int, Counter[str]]) -> None:
    """Each tree costs the same calls, but the first, which is read once more for its kind; no folder is listed."""
    others = touched.pop(-1, Counter())
    assert len(touched) == TREES
    first, second, *more = touched.values()
    assert [calls for calls in more if calls != second] == []
    assert (first - second).total() <= 1
    assert others["listdir"] + others["scandir"] < 10, others
    assert others.total() < 6 * TREES  # folders are made, if need be, and locks are looked at


@pytest.mark.slow
def test_every_tree_costs_as_much_as_the_first(touched, textcraft_url, tmp_path):
    held, folder = Held(), tmp_path / "trees"
    names = {"TASK": "textcraft", "MODEL_NAME": "scripted", "WORKERS": "1", "PROMPT": "brief"}
    names |= {
        "ITERA": "1",
        "N_GEN": "2",
        "N_ROLLOUT": "1",
        "MAX_DEPTH": "2",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    }
    settings = settings_from_env({**names, "ENV_SERVER_BASE": textcraft_url})
    player = Scripted(
        lambda messages, temperature, seed: f"Thought: {seed}\nAction: get {1 + (seed or 0) % 3} oak log"
    )

    def environments() -> Any:
        return make_environment("textcraft", textcraft_url)

    search = SearchStage(settings, range(TREES), folder, weights="")
    search._show = held.note  # is called when a tree was written
    assert search.run(lambda: player, environments)["trees"] == TREES
    held.check(10)  # of these 4 or 5 are this test's own counts; a kept tree would be 50 more
    check_calls(touched)

    touched.clear()
    revision, held = (
        RevisionStage(
            settings,
            Options("good", PairRule(-1.0, 0.2), clean=False),
            search.path(0).parent,
            tmp_path / "rows",
            False,
            weights="",
        ),
        Held(),
    )
    build = revision._build
    revision._build = lambda *job: (held.note(), build(*job))[1]
    assert revision.run(None, environments).trees == TREES
    held.check(20)  # where its rows are in the spool
    check_calls(touched)
