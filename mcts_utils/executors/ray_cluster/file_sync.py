"""Read a stage's files for workers, and write the files that workers send back. It knows no Ray.

A file is named "name of its folder/path below it", the same in every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mcts_utils.storage.files import write_bytes


class FileSync:
    """The folders of a stage on the driver's disk."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """`folders`: name -> folder."""
        self._folders = folders

    def contents(self, paths: Iterable[Path]) -> dict[str, bytes]:
        """Return name -> content of the files that exist; each path is below one of the folders."""
        return {self._name(path): path.read_bytes() for path in paths if path.exists()}

    def store(self, files: Mapping[str, bytes]) -> None:
        """Write files (name -> content) to the folders."""
        for name, content in files.items():
            folder, _, below = name.partition("/")
            write_bytes(self._folders[folder] / below, [content])

    def _name(self, path: Path) -> str:
        name, folder = next(item for item in self._folders.items() if path.is_relative_to(item[1]))
        return f"{name}/{path.relative_to(folder).as_posix()}"
