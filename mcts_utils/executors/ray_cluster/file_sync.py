"""The stage's files as they travel: read for a worker, written as they come home, named "root/name below it"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mcts_utils.storage.files import write_bytes


class FileSync:
    """The folders of a stage on the driver's disk."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def contents(self, paths: Iterable[Path]) -> dict[str, bytes]:
        """Name -> content of those files that are there; each is below one of the folders."""
        return {self._name(path): path.read_bytes() for path in paths if path.exists()}

    def store(self, files: Mapping[str, bytes]) -> None:
        """Write files under the names that they have here."""
        for name, content in files.items():
            root, _, below = name.partition("/")
            write_bytes(self._folders[root] / below, [content])

    def _name(self, path: Path) -> str:
        root = next(name for name, folder in self._folders.items() if path.is_relative_to(folder))
        return f"{root}/{path.relative_to(self._folders[root]).as_posix()}"
