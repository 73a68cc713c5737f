"""Makes tests/search/golden_tree.json again: one small search of the bundled server by the noisy player.

    python tests/search/make_golden_tree.py

Only when the tree's format or the search is meant to change: the difference is then part of the review.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcts_utils.config import settings_from_env
from mcts_utils.envs import make_environment
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.rollouts.counters import Counters
from mcts_utils.search.mcts import Rules, run_search
from mcts_utils.search.simulator import TaskSimulator
from mcts_utils.search.tree import new_tree
from mcts_utils.search.tree_io import tree_to_dict
from mcts_utils.servers.textcraft.app import running_server
from mcts_utils.storage.files import write_json
from tests.helpers.noisy_player import NoisyPlayer

GOLDEN = Path(__file__).with_name("golden_tree.json")
INDEX = 240
ITERA = 2


def golden(base_url: str) -> dict[str, Any]:
    """The tree as a dict."""
    settings = settings_from_env({"N_ROLLOUT": "3", "MAX_DEPTH": "6", "PROMPT": "brief"})
    rules = Rules(settings.n_gen, settings.n_rollout, settings.max_depth, settings.uct_c)
    with closing(SessionPool(lambda: make_environment("textcraft", base_url))) as pool:
        with pool.session() as env:
            task = env.reset(INDEX)
        tree = new_tree(task, {"itera": ITERA}, settings.prompt, settings.seed)
        with ThreadPoolExecutor(3) as threads:
            simulator = TaskSimulator(task, settings, NoisyPlayer(0.5), pool, threads, Counters())
            for _ in run_search(tree, ITERA, rules, Random, simulator):
                pass
    return tree_to_dict(tree)


if __name__ == "__main__":
    with running_server() as url:
        write_json(GOLDEN, golden(url))
    print(GOLDEN)
