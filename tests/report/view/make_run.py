"""Makes a run's folder of any size, to measure the page: real tree files with invented texts.

python tests/report/view/make_run.py FOLDER --trees 200 --nodes 500
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from mcts_utils.search.tree import Tree, backup, new_tree
from mcts_utils.search.tree_io import tree_file
from mcts_utils.storage.files import write_json
from mcts_utils.storage.layout import tree_path
from mcts_utils.types import Task

SYLLABLES = ("ba", "co", "du", "fe", "gi", "ho", "ka", "lu", "me", "ni", "po", "ra", "se", "ti", "vo", "za")
VOCABULARY = ["".join(Random(i).choices(SYLLABLES, k=1 + i % 4)) for i in range(3000)]
WEIGHTS = [1 / (rank + 3) for rank in range(len(VOCABULARY))]  # as frequent as words of a language are
DEPTH = 20


def words(rng: Random, count: int) -> str:
    """Invented words."""
    return " ".join(rng.choices(VOCABULARY, WEIGHTS, k=count))


def made_tree(index: int, size: int) -> Tree:
    """A tree of so many nodes, with rollouts from random nodes."""
    rng = Random(index)
    tree = new_tree(
        Task(
            "textcraft",
            index,
            f"textcraft:{index:016x}",
            f"{words(rng, 120)}\n\nGoal: craft {words(rng, 3)}.",
        )
    )
    nodes = [tree.root]
    while tree.stats["nodes"] < size:
        node = rng.choice([node for node in nodes if node.depth < DEPTH - 1])
        reward = float(rng.random() < 0.3)
        while tree.stats["nodes"] < size and node.depth < DEPTH:
            action = f"craft 1 {words(rng, 3)}"
            node = tree.add(node, f"Thought: {words(rng, 12)}\nAction: {action}", action)
            node.executed, node.samples = True, 1
            kind = rng.random()  # new text, a refusal, or what was shown before
            node.obs = (
                words(rng, 40)
                if kind < 0.4
                else f"Could not find {words(rng, 2)}"
                if kind < 0.7
                else rng.choice(nodes).obs
            )
            nodes.append(node)
        node.is_terminal, node.reward = True, reward
        backup(node, reward)
    tree.status = "done"
    return tree


def make_run(folder: Path, trees: int, nodes: int) -> None:
    """Write the trees."""
    for index in range(trees):
        path = tree_path(folder / "mcts_result", "textcraft", "made", index)
        write_json(path, tree_file(made_tree(index, nodes)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=500)
    args = parser.parse_args()
    make_run(args.folder, args.trees, args.nodes)
