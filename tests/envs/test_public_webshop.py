"""A public WebShop draws price limits with every session: a tree on it stays in one, whatever runs beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.envs import make_environment
from mcts_utils.prompts import reply_text
from mcts_utils.search.stage import SearchStage
from mcts_utils.search.tree import nodes
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_json
from mcts_utils.types import Actor, Message, Sample
from tests.helpers.faulty_server import FaultyServer, serving, status
from tests.helpers.toy_worlds import Played, Shop

ACTIONS = ("search[lamp]", "search[red lamp]", "click[b000000001]", "click[buy now]", "click[nothing]")
LIMIT = re.compile(r"lower than (\d+)")


class Shopper(Actor):
    """Takes one action or another."""

    def sample(self, messages: Sequence[Message], n=1, temperature=1.0, seed=None) -> list[Sample]:
        rng = Random(f"{len(messages)} {seed}")
        return [Sample(reply_text("t", rng.choice(ACTIONS))) for _ in range(n)]


class Fickle(Shop):
    """Pays another part of the reward after every reset, so nothing that was played replays as recorded."""

    resets = 0

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        self.resets += path == "/reset"
        return super().act(path, body)

    def step(self, played: Played, action: str) -> Any:
        return {**super().step(played, action), "reward": self.resets / 10_000}


def collect(server: FaultyServer, folder: Path, indices: Sequence[int], itera: int = 3) -> dict[str, Any]:
    settings = Settings(
        task="webshop", model_name="shopper", itera=itera, n_rollout=4, max_depth=6, workers=3, prompt="brief"
    )
    collection = SearchStage(settings, indices, folder)
    return collection.run(Shopper, partial(make_environment, "webshop", server.url))


def limits(folder: Path) -> list[set[str]]:
    """The price limits that each tree shows."""
    found = []
    for path in sorted(folder.rglob("search_results_*.json")):
        tree = load_tree(read_json(path), "webshop", 0)
        texts = [tree.task.opening, *(node.obs for node in nodes(tree) if node.executed)]
        found.append({limit for text in texts for limit in LIMIT.findall(text)})
    return found


def test_every_page_of_a_tree_shows_one_price_limit(tmp_path: Path) -> None:
    with serving(Shop) as server:
        totals = collect(server, tmp_path, range(6))
        created = server.paths().count("/create")
    assert (totals["trees"], totals["failed"]) == (6, 0)
    assert totals["nodes"] > 60
    found = limits(tmp_path)
    assert [len(tree) for tree in found] == [1] * 6
    assert created <= 4  # one to look, and one for each of the trees at work at once
    assert len(set.union(*found)) > 1, "sessions do differ, so the test can fail"


def test_rollouts_that_do_not_replay_leave_the_one_session_to_the_others(tmp_path: Path) -> None:
    with serving(Fickle) as server:
        totals = collect(server, tmp_path, range(4), itera=1)
        assert server.paths().count("/create") <= 4
    assert (totals["trees"], totals["failed"]) == (4, 0)
    assert 4 <= totals["rollouts"] < 4 * 4, "some rollouts were given up, so the test can fail"


def test_a_tree_whose_session_is_lost_is_searched_again_from_its_start_at_the_end_of_the_run(
    tmp_path: Path,
) -> None:
    with serving(Shop) as server:
        server.faults["/step"] = [None] * 9 + [status(500)]
        totals = collect(server, tmp_path, range(3))
    assert (totals["trees"], totals["failed"]) == (3, 0)
    assert server.paths().count("/create") > 3, "in a session of its own"
    assert [len(tree) for tree in limits(tmp_path)] == [1] * 3
