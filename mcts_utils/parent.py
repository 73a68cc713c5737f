"""End this process with another one, such as the script that started it, also after a kill -9 of that.

The variable END_WITH holds the other one's id. Scripts set it, and all that they start inherits it.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import threading
import time
from contextlib import suppress

POLL_SECONDS = 1.0  # where the system has no pidfd
# Runs a command that gets a SIGTERM when its parent ends (Linux); for programs that know no END_WITH.
WITH_PARENT = (
    "import ctypes, os, sys; set = getattr(ctypes.CDLL(None), 'prctl', None); set and set(1, 15);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag with the other process's id."""
    about = "end with that process; default: the variable END_WITH"
    parser.add_argument(
        "--end_with", type=process_id, metavar="PID", default=os.environ.get("END_WITH"), help=about
    )


def end_with_script() -> None:
    """End with the process that END_WITH names, if it names one."""
    if pid := os.environ.get("END_WITH", ""):
        end_with(process_id(pid))


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
