"""Reserve a stage's output, a folder or a file: make the folder, check that it can be written, keep other runs out."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mcts_utils.types import InputError

NAME = ".lock"


@contextmanager
def reserved(folder: str | Path, file: str = "", flag: str = "--output_dir") -> Iterator[Path]:
    """Hold a folder for the length of the block; it is made if it does not exist, and not left empty. Yields its path.

    Temporary files of runs that were killed are removed. The lock is the operating system's: it ends with its process,
    however that ends. Where the file system has none (some network drives), only the folder is made and written.

    Args:
        file: hold this file of it alone, where other runs write others.
        flag: that named it; errors begin with it.

    Raises:
        InputError: the folder cannot be made or written, or another run holds it; the message says who.
    """
    path = Path(folder)
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = path / (f".{file}{NAME}" if file else NAME)
        held = _locked(lock, flag)
        held.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n")
        held.flush()
        # Of runs that were killed while they wrote.
        for left in path.glob(f".{file}.*.tmp") if file else path.rglob(".*.tmp"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{flag}: {path} cannot be written: {error.strerror or error}") from error
    try:
        yield path
    finally:
        with suppress(OSError):
            lock.unlink()  # still locked, so that nobody else's file is removed
        held.close()
        with suppress(OSError):  # it holds results
            for each in made:
                each.rmdir()


def _locked(path: Path, flag: str) -> IO[str]:
    """Return the locked, empty file; raise InputError if another process has locked it."""
    while True:
        file = path.open("a+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another run"
            file.close()
            raise InputError(
                f"{flag}: {path.parent} is in use by {holder}: wait for its end or name another folder"
            ) from None
        except OSError:
            pass  # this file system has no locks
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        file.close()  # its holder has just removed it
