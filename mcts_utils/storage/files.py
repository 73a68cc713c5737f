"""Read and write JSON, JSONL and bytes: atomically, with one-line errors that name the file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.types import InputError


def write_json(path: str | Path, obj: Any) -> None:
    """Write compact JSON atomically."""
    _write(Path(path), [json.dumps(obj, ensure_ascii=False, separators=(",", ":"), allow_nan=False), "\n"])


def read_json(path: str | Path) -> Any:
    """The object in a JSON file.

    Raises:
        InputError: naming the file if it is missing, truncated or not JSON.
    """
    try:
        return json.loads(_read(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: truncated or not JSON ({_brief(error)})") from error


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, atomically, and return the number of rows. Replaces what was there."""
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in rows:
            count += 1
            yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"

    _write(Path(path), lines())
    return count


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; empty lines are skipped.

    Raises:
        InputError: naming the file and the row (from 1) that is not a JSON object.
    """
    rows = []
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path} row {number}: not JSON ({_brief(error)})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path} row {number}: not a JSON object: {line.strip()[:60]!r}")
        rows.append(row)
    return rows


class RowSpool:
    """Rows on disk until all are there: given in any order of their trees, read back in order. One thread."""

    def __init__(self, folder: str | Path) -> None:
        """`folder` is made if needed; the file has no name there, so nothing is left behind."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        self._places: dict[int, tuple[int, int]] = {}  # index of the tree -> (offset, bytes)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def add(self, index: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of one tree."""
        data = json.dumps(rows).encode()  # ASCII, so that half a character survives
        self._file.seek(0, os.SEEK_END)
        self._places[index] = (self._file.tell(), len(data))
        self._file.write(data)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, by index of their trees; one tree's at a time is in memory."""
        for index in sorted(self._places):
            offset, size = self._places[index]
            self._file.seek(offset)
            yield from json.loads(self._file.read(size))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _brief(error: Exception) -> str:
    return str(error) if isinstance(error, json.JSONDecodeError) else "nested too deep"


def write_bytes(path: str | Path, parts: Iterable[bytes]) -> None:
    """Temp file in the same folder, fsync, os.replace: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; results are shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write(path: Path, parts: Iterable[str]) -> None:
    """UTF-8; a lone surrogate in a model's reply becomes its JSON escape instead of an error."""
    write_bytes(path, (part.encode("utf-8", "backslashreplace") for part in parts))
