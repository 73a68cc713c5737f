"""The tree files of one task and model, as a run of stage 1 writes and resumes them.

It checks that a file is a tree of this run's strategy. It searches nothing; the format is in tree_io.py.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from mcts_utils.search.strategy import Strategy
from mcts_utils.search.tree import Tree
from mcts_utils.search.tree_io import tree_file, tree_from_dict
from mcts_utils.storage.files import is_beginning, read_json, write_json
from mcts_utils.storage.formats.tree import FORMAT, TreeFile
from mcts_utils.storage.layout import tree_path
from mcts_utils.types import InputError, Task, one_line

FILE_START = f'{{"format":"{FORMAT}"'.encode()  # the first bytes of our files


class TreeStore:
    """The tree files of one strategy's task and model below an output folder."""

    def __init__(self, output_dir: str | Path, strategy: Strategy) -> None:
        self._output_dir, self._strategy = output_dir, strategy

    def path(self, index: int) -> Path:
        """Return the file of one tree; the folder is a function of the task's and the model's names."""
        settings = self._strategy.settings
        return tree_path(self._output_dir, settings.task, settings.model_name, index)

    def read(self, index: int) -> Tree | None:
        """Return the saved tree, or None if there is no file or only the beginning of one.

        Raises:
            InputError: naming a file that is not ours, or was made with other settings.
        """
        path = self.path(index)
        if not path.exists():
            return None
        try:
            tree = tree_from_dict(read_json(path))
        except InputError as error:
            if is_beginning(path, FILE_START) and (
                path.stat().st_size < 8 or isinstance(error.__cause__, ValueError)
            ):
                return None
            hint = "it is in the way, remove it or use another --output_dir"
            raise InputError(f"{path} is no tree of this program ({error}): {hint}") from error
        self._strategy.check(tree, path)
        return tree

    def read_begun(self, index: int) -> Tree | None:
        """Return the saved tree if it has a completed iteration, by an earlier run or another worker, else None."""
        tree = self.read(index)
        return tree if tree is not None and tree.stats["iterations"] else None

    def write(self, index: int, file: TreeFile) -> None:
        """Replace the file of a tree."""
        write_json(self.path(index), file)

    def write_failure(self, index: int, file: TreeFile | None, error: Exception) -> None:
        """Record a failure with the tree's file after its last completed iteration; None if there was none."""
        task = Task(self._strategy.settings.task, index, "", "")
        file = file or tree_file(self._strategy.new_tree(task))
        self.write(index, replace(file, status="failed", error=one_line(error)))
