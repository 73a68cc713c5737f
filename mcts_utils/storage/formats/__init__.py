"""The files on disk: one typed definition of each kind, with the readers of its older versions. Pure.

A reader, a writer, a JSON Schema (storage/schema.py) and the tables of docs/file-formats.md come from each definition.
Trees, steps and tasks in memory are other classes (search/tree.py, types.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mcts_utils.storage.formats import episode, manifest, record, spent, summary, tree, verdicts
from mcts_utils.storage.formats.base import Fields
from mcts_utils.types import Step, Task

__all__ = ["episode", "manifest", "record", "spent", "summary", "tree", "verdicts"]


def _definitions(parent: type[Fields]) -> Iterator[type[Fields]]:
    """Yield a class and all that are derived from it."""
    yield parent
    for child in parent.__subclasses__():
        yield from _definitions(child)


# msgspec (0.22) reads a class's annotations when it is first used; two threads that do so at once crash the process.
for _definition in (*_definitions(Fields), Task, Step):
    msgspec.json.Decoder(_definition)
