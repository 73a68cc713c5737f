"""Agent-R: search, revision, training and evaluation of language-model agents in text environments.

The names of `__all__` are what the package promises; they are loaded when they are first used, so that
`import mcts_utils` costs nothing. `python -m mcts_utils` lists what there is to run.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PLACES = {
    "Settings": "config",
    "settings_from_env": "config",
    "Task": "types",
    "Step": "types",
    "Episode": "types",
    "Message": "types",
    "Environment": "types",
    "Actor": "types",
    "make_environment": "envs",
    "make_actor": "actors.factory",
    "run_episode": "rollouts.episode",
    "Tree": "search.tree",
    "load_tree": "search.tree_io",
    "run_search": "search.mcts",
    "Rules": "search.mcts",
    "candidate_pairs": "revision.pairs",
    "Judge": "revision.judge",
    "summarise": "evaluation.summary",
}
__all__ = list(PLACES)


def __getattr__(name: str) -> Any:
    """Load a public name; raise AttributeError for any other."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
