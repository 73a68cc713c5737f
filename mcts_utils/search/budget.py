"""The completions that a baseline may spend on each task: those of an earlier search, or one number for all tasks.

It checks flags and reads trees; it spends nothing (baselines.py does).
"""

from __future__ import annotations

from collections.abc import Sequence

from mcts_utils.search.baselines import LIVE, SEARCH, STRATEGIES, Baseline
from mcts_utils.search.tree_io import finished_tree
from mcts_utils.storage.layout import tree_files
from mcts_utils.types import InputError


def check_strategy(strategy: str, budget: int | None, budget_from: str | None) -> int | None:
    """Check that --strategy, --budget and --budget_from go together; return the number of --budget, or None.

    Raises:
        InputError: naming the flag and its value.
    """
    names = (SEARCH, *STRATEGIES, LIVE)
    if strategy not in names:
        raise InputError(f"--strategy must be one of {', '.join(names)}: {strategy!r}")
    given = {"--budget": budget, "--budget_from": budget_from}
    used = [name for name, value in given.items() if value is not None]
    if strategy not in STRATEGIES and used:
        raise InputError(
            f"{' and '.join(used)} is for --strategy {' or '.join(STRATEGIES)}; {strategy} has ITERA"
        )
    if strategy in STRATEGIES and len(used) != 1:
        raise InputError(
            f"--strategy {strategy} needs --budget or --budget_from, {'not both' if used else 'none is given'}"
        )
    return budget


def spent_by(folder: str, env: str, server_kind: str) -> dict[int, int]:
    """Return the completions by task index that the finished search in a folder spent.

    Args:
        server_kind: the kind of server that the indices must belong to.

    Raises:
        InputError: if there is no tree, an unfinished one, one of another environment, or one that spent nothing.
    """
    found = {}
    for index, path in tree_files(folder, "--budget_from").items():
        tree = finished_tree(path)
        kind = tree.settings.get("goals", server_kind)
        if (tree.task.env, kind) != (env, server_kind):
            raise InputError(
                f"--budget_from: {path} is of {tree.task.env} ({kind}), not {env} ({server_kind})"
            )
        if not tree.stats["completions"]:
            raise InputError(f"--budget_from: {path} spent no completions")
        found[index] = tree.stats["completions"]
    return found


def baseline(
    strategy: str, number: int | None, source: str, spent: dict[int, int], ids: Sequence[int]
) -> Baseline:
    """Return the baseline with a budget for each id: `number`, or its entry in `spent`.

    Raises:
        InputError: naming an id that has no entry.
    """
    if number is not None:
        return Baseline(strategy, dict.fromkeys(ids, number))
    if missing := [index for index in ids if index not in spent]:
        raise InputError(f"--budget_from {source} has no tree of index {missing[0]} ({len(missing)} missing)")
    return Baseline(strategy, {index: spent[index] for index in ids}, source)
