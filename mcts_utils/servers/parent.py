"""End this process with another one, such as the script that started it, also after a kill -9 of that."""

from __future__ import annotations

import argparse
import os
import select
import signal
import threading
import time
from contextlib import suppress

POLL_SECONDS = 1.0  # where the system has no pidfd


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag with the other process's id."""
    parent = os.environ.get("SERVER_PARENT")
    about = "end with that process; default: the variable SERVER_PARENT"
    parser.add_argument("--end_with", type=process_id, metavar="PID", default=parent, help=about)


def process_id(text: str) -> int:
    """Return the number of a process; raise ValueError if it cannot be one."""
    if not 0 < int(text) < 2**31:
        raise ValueError
    return int(text)


def end_with(pid: int | None) -> None:
    """Send this process a SIGTERM as soon as process `pid` has ended."""
    if pid is None:
        return
    threading.Thread(target=_watch, args=(pid,), name="parent", daemon=True).start()


def _watch(pid: int) -> None:
    with suppress(ProcessLookupError):
        _wait_for(pid)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for(pid: int) -> None:
    """Return when the process has ended; raise ProcessLookupError if there is none."""
    with suppress(AttributeError, OSError):  # no pidfd, or no such process
        ended = select.poll()
        ended.register(os.pidfd_open(pid), select.POLLIN)
        ended.poll()
        return
    while True:
        os.kill(pid, 0)
        time.sleep(POLL_SECONDS)
