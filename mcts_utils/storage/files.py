"""Read and write JSON, JSONL and bytes. Writes are atomic; errors are one line that names the file.

It knows no paths of results (layout.py) and no fields (formats/).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from mcts_utils.storage.formats.base import parsed
from mcts_utils.terminal import named_errors
from mcts_utils.types import InputError

T = TypeVar("T")
SEAL = re.compile(rb'(.*),"sha256":"([0-9a-f]{64})"\}\n', re.DOTALL)
SEAL_BYTES = 78  # of its end
DAMAGED = re.compile(rb"[0-9a-f]{31}")  # what one changed byte leaves of a hash, at least


def write_json(path: str | Path, obj: Any) -> None:
    """Write an object of plain types or definitions (formats/) as compact JSON, atomically.

    Raises:
        ValueError: NaN or infinity in it.
    """
    _write(Path(path), [_dumps(obj, (",", ":")), "\n"])


def write_sealed(path: str | Path, obj: Any) -> None:
    """Write an object as `write_json` does, with a last field `sha256`: the hash of the file as it is without it.

    Raises:
        ValueError: NaN or infinity in it.
    """
    text = _dumps(obj, (",", ":")) + "\n"
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    _write(Path(path), [text.removesuffix("}\n"), f',"sha256":"{digest}"}}\n'])


def sealed(data: bytes) -> bool | None:
    """Return True if the bytes are those that `write_sealed` wrote, False if any was changed; None for another file."""
    found = SEAL.fullmatch(data)
    if found is None:
        return False if DAMAGED.search(data[-SEAL_BYTES:]) else None
    return hashlib.sha256(found[1] + b"}\n").hexdigest().encode() == found[2]


def read_json(path: str | Path) -> Any:
    """Return the object in a JSON file; raise InputError if the file is missing, truncated or not JSON."""
    try:
        return loads(_read(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: truncated or not JSON ({_brief(error)})") from error


def read_as(path: str | Path, definition: type[T]) -> T:
    """Return the content of a JSON file as an instance of a definition (formats/).

    Raises:
        InputError: as `read_json` does, or a field is missing or has another type; the message names it.
    """
    return parsed(read_json(path), definition, str(path))


def usable(path: Path, read: Callable[[], T]) -> T | None:
    """Return what `read` returns; None if there is no such file, or, after a line that names it, a broken one."""
    try:
        return read() if path.exists() else None
    except InputError as error:
        print(f"{error}; {path.name} is made again", file=sys.stderr)
        return None


def loads(text: str) -> Any:
    """Return the object of a JSON text; NaN and infinity, which are not JSON, raise ValueError."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise json.JSONDecodeError(f"{constant} is no number of JSON", constant, 0)


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write one JSON object a line, atomically, and return the number of rows. An existing file is replaced.

    A row is a mapping or an instance of a definition.

    Raises:
        ValueError: NaN or infinity in a row.
    """
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in rows:
            count += 1
            yield _dumps(row) + "\n"

    _write(Path(path), lines())
    return count


def iter_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, row) of a JSONL file, without empty lines and with one line in memory at a time.

    Raises:
        InputError: the file cannot be read, or a row is not a JSON object; the message names both.
    """
    number = 0
    try:
        # By bytes: U+2028 and other line separators may stand inside a JSON string.
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))  # a mark may stand first
                if not isinstance(row, dict):
                    raise InputError(f"{path} row {number}: not a JSON object: {str(row)[:60]!r}")
                yield number, row
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{path} row {number}: not JSON ({_brief(error)})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def iter_jsonl_as(path: str | Path, definition: type[T]) -> Iterator[T]:
    """Yield the rows of a JSONL file as instances of a definition.

    Raises:
        InputError: as `iter_jsonl` does, or a field of a row is missing or has another type; the message names both.
    """
    for number, row in iter_jsonl(path):
        yield parsed(row, definition, f"{path} row {number}")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file; raise InputError as `iter_jsonl` does."""
    return [row for _, row in iter_jsonl(path)]


def is_beginning(path: Path, start: bytes) -> bool:
    """Return True if a file is the beginning of one that starts so, is empty, as a crash may leave it, or is `null`."""
    with path.open("rb") as file:
        found = file.read(len(start)).strip(b"\0 \n")
    return start.startswith(found) or found == b"null"


class RowSpool(Generic[T]):
    """Keep rows on disk until all are there: added tree by tree in any order, read in order of the trees' indices.

    For one thread.
    """

    def __init__(self, folder: str | Path, definition: type[T]) -> None:
        """Open an unnamed temporary file in `folder`, which is created if needed; nothing remains of it."""
        self._definition, self._folder = definition, str(folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        self._extents: dict[int, tuple[int, int]] = {}  # index of the tree -> (offset, size) in bytes

    def __len__(self) -> int:
        return len(self._extents)

    def __contains__(self, index: int) -> bool:
        return index in self._extents

    def add(self, index: int, rows: Sequence[T]) -> None:
        """Add the rows of one tree."""
        data = json.dumps(rows, default=msgspec.to_builtins).encode()  # ASCII: a lone surrogate survives
        with named_errors(self._folder):
            self._file.seek(0, os.SEEK_END)
            self._extents[index] = (self._file.tell(), len(data))
            self._file.write(data)
            self._file.flush()

    def rows(self) -> Iterator[T]:
        """Yield all rows by index of their trees, with one tree's rows in memory at a time."""
        for index in sorted(self._extents):
            offset, size = self._extents[index]
            self._file.seek(offset)
            for row in json.loads(self._file.read(size)):
                yield parsed(row, self._definition)

    def close(self) -> None:
        """Free the disk space."""
        with suppress(OSError):  # of rows that did not fit on the disk
            self._file.close()


def sha256_file(path: str | Path) -> str:
    """Return the hex digest of a file's bytes; raise InputError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _dumps(obj: Any, separators: tuple[str, str] | None = None) -> str:
    return json.dumps(
        obj, ensure_ascii=False, allow_nan=False, separators=separators, default=msgspec.to_builtins
    )


def _brief(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:80]


def write_bytes(path: str | Path, parts: Iterable[bytes]) -> None:
    """Write a file atomically (temporary file, fsync, os.replace), so that a reader never sees a part of it.

    Raises:
        OSError: with the file's name: the disk is full, for example.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with named_errors(str(path)), os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; results are shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_temporary(folder: Path, name: str = "") -> None:
    """Remove what a killed process left of files whose names begin with `name`; nobody writes them now."""
    for path in folder.glob(f".{name}*.tmp"):
        path.unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[str]) -> None:
    """Write UTF-8 text; a lone surrogate, as a model's reply may hold, becomes its JSON escape."""
    write_bytes(path, (part.encode("utf-8", "backslashreplace") for part in parts))
