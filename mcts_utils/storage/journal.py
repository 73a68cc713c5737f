"""Keep what an unfinished job was answered on disk, so that a run that goes on after a kill pays for nothing twice.

One file for each job, written by the process that does the job: a line for each answer, appended before the answer is
used, with a checksum. It needs no locks (the folder may be on a network drive) and asks nobody (rollouts/recorded.py).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import sys
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import msgspec

from mcts_utils import patience
from mcts_utils.storage.files import write_bytes
from mcts_utils.terminal import Progress

T = TypeVar("T")
Paid = Mapping[str, Mapping[str, int]]  # who was asked ("": the actor; "judge") -> count -> number
SUFFIX, MARK = ".jsonl", "run-"
FLUSH_SECONDS = 1.0  # between two flushes of one file; each takes some milliseconds
FLUSH = getattr(os, "fdatasync", os.fsync)


class Journal:
    """The answers to one job. Safe for the threads of one process."""

    def __init__(self, path: Path | None = None, scope: Any = None) -> None:
        """Read what an earlier process left; write nothing yet.

        Args:
            path: None keeps nothing.
            scope: what all answers depend on besides the questions (model, longest reply), as JSON values. What was
                answered in another scope is not found.
        """
        self._path, self._scope = path, _json(scope)
        self._found: dict[str, deque[Any]] = {}  # key -> values that are not taken yet, the oldest first
        self._lock = Lock()
        self._file: int | None = None
        self._size = 0  # bytes
        self._flushed = -FLUSH_SECONDS  # when, in seconds of the monotonic clock
        if path is not None:
            lines, self._size = _read(path, warn=True)
            for line in lines:
                if "key" in line:
                    self._found.setdefault(line["key"], deque()).append(line["value"])

    def knows(self, question: Any) -> bool:
        """Return True if `take` would return an answer."""
        with self._lock:
            return bool(self._found.get(self._key(question)))

    def take(self, kind: type[T], question: Any) -> T | None:
        """Return what an earlier process was answered, or None. Each answer is returned once, the oldest first."""
        key = self._key(question)
        with self._lock:
            values = self._found.get(key)
            value = values.popleft() if values else None
        try:
            return None if value is None else msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return None  # by another version of this program

    def add(self, question: Any, answer: Any, paid: Paid | None = None) -> None:
        """Append an answer: a kill of this process cannot lose it any more.

        What was paid for is also flushed to the disk, unless that was done within FLUSH_SECONDS: a power cut costs at
        most what was answered since.

        Raises:
            OSError: with the file's name: the disk is full, for example. The file ends before the line then.
        """
        if self._path is None:
            return
        line = _line({"key": self._key(question), "value": answer} | ({"paid": paid} if paid else {}))
        with self._lock:
            file = self._append(line)
            if paid and patience.now() - self._flushed >= FLUSH_SECONDS:
                FLUSH(file)
                self._flushed = patience.now()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def remove(self) -> None:
        """Forget everything: the answers are of no use."""
        self.__exit__()
        with self._lock:
            self._found.clear()
            self._size = 0
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def _append(self, line: bytes) -> int:
        assert self._path is not None
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, self._size)  # without a line that a kill has cut off
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise OSError(error.errno or errno.EIO, error.strerror, str(self._path)) from error
        self._size += len(line)
        return self._file

    def _key(self, question: Any) -> str:
        return hashlib.sha256(self._scope + _json(question)).hexdigest()[:32]


class Journals:
    """The journals of one stage, in a hidden folder that is there while the stage is unfinished.

    Picklable, for worker processes.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        """Read and write nothing yet. `name` tells stages apart that write into one folder."""
        self._folder = folder.resolve() / (f".journal_{name}" if name else ".journal")
        # Files: of this run, by which other machines know the folder; names of the journals that are being removed.
        self._mark, self._settled = f"{MARK}{secrets.token_hex(8)}", self._folder / "settled"
        self.interrupted = False  # the last run did not come to its end
        self._recovered: dict[str, Counter[str]] = {}  # paid by earlier runs, for what is to be finished now

    @contextmanager
    def running(self, jobs: Iterable[str], todo: bool = True) -> Iterator[None]:
        """Hold the journals of these jobs, by name, for the length of a run, which calls `settle` at its end.

        `todo`: the run has something to do; else it only ends what an interrupted one left.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # Of a run that was killed.
        others = [path for path in self._folder.iterdir() if path.suffix != SUFFIX]
        if self._settled in others:
            self._remove(self._settled.read_text().split("\n"))
        else:
            self.interrupted = any(path.name.startswith(MARK) for path in others)
        for path in others:
            path.unlink(missing_ok=True)
        if todo or self.interrupted:
            (self._folder / self._mark).touch()
        for name in jobs:
            _add(self._recovered, _paid(self._path(name)))
        try:
            yield
        finally:
            if not any(self._folder.glob(f"*{SUFFIX}")):
                (self._folder / self._mark).unlink(missing_ok=True)
            with suppress(OSError):
                self._folder.rmdir()

    def open(self, name: str, scope: Any) -> Journal:
        """Return the journal of a job; it keeps nothing on a machine that does not see the folder."""
        seen = (self._folder / self._mark).exists()
        return Journal(self._path(name) if seen else None, scope)

    def shrink(self, name: str) -> None:
        """Keep of a job whose result is on the disk only what was paid for it."""
        if paid := _paid(self._path(name)):
            write_bytes(self._path(name), [_line({"paid": paid})])

    def drop(self, name: str) -> None:
        """Remove the journal of a job whose result is on the disk, with what was paid for it."""
        self._path(name).unlink(missing_ok=True)

    def settle(self, names: Iterable[str]) -> None:
        """Remove the journals of the jobs that have ended, when the manifest is written.

        If a kill comes between, the next run removes the rest.
        """
        listed = list(names)
        write_bytes(self._settled, ["\n".join(listed).encode()])
        (self._folder / self._mark).unlink(missing_ok=True)
        self._remove(listed)
        self._settled.unlink()

    def clear(self, names: Iterable[str]) -> None:
        """Remove what a run left that was killed after it had written its manifest."""
        if self._folder.exists():
            with self.running(()):
                self.settle(names)

    def with_recovered(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an actor counted in this run, and what earlier runs paid for the same results."""
        total = dict(usage)
        for name, counts in self._recovered.items():
            part = Counter(total.get(name, {}) if name else total)
            for count, number in counts.items():
                part[count] += number
            total |= {name: dict(part)} if name else part
        return total

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"


def _json(value: Any) -> bytes:
    """Return one JSON text for equal values."""
    try:
        return msgspec.json.encode(value, order="deterministic")
    except UnicodeEncodeError:  # a lone surrogate, as a model's reply may hold
        return json.dumps(msgspec.to_builtins(value), sort_keys=True).encode()


def _line(content: Mapping[str, Any]) -> bytes:
    text = _json(content)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(path: Path, warn: bool = False) -> tuple[list[dict[str, Any]], int]:
    """Return the undamaged lines and the number of bytes before a line that was cut off; none if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    lines = []
    for number, line in enumerate(whole.splitlines(), start=1):
        if line[:9] == b"%08x " % zlib.crc32(line[9:]):
            lines.append(json.loads(line[9:]))
        elif warn:
            Progress.write(f"{path} line {number}: damaged; what it held is asked for again", file=sys.stderr)
    return lines, len(whole)


def _paid(path: Path) -> dict[str, Counter[str]]:
    """Return what was paid for the lines of a file."""
    total: dict[str, Counter[str]] = {}
    for line in _read(path)[0]:
        _add(total, line.get("paid", {}))
    return total


def _add(total: dict[str, Counter[str]], paid: Paid) -> None:
    for name, counts in paid.items():
        total.setdefault(name, Counter()).update(counts)
