"""Child processes of the benchmark: servers that run during a part, and measured commands. It knows no stage."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.types import InputError

ROOT = Path(__file__).resolve().parents[2]
URL = re.compile(r"(?:on|at) (http://\S+)")
# Variables that a shell may have set for other work; the benchmark sets those that it needs.
VARIABLES = (
    *(
        "TASK",
        "MODEL_NAME",
        "MODEL_DIR",
        "MODEL_TYPE",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ENV_SERVER_BASE",
    ),
    *("MAX_DEPTH", "ITERA", "N_GEN", "N_ROLLOUT", "TEMP", "MAX_TOKEN_LENGTH", "ALPHA", "BETA", "UCT_C"),
    *("PROMPT", "SEED", "CONCURRENCY", "WORKERS", "EXECUTOR"),
)


@dataclass(frozen=True)
class ProcessUsage:
    """The resources that a process used from its start to its end."""

    code: int  # exit code
    seconds: float  # wall time
    cpu_s: float  # user and system time
    peak_rss_mb: float  # MiB
    tail: str  # the last line of its output


@dataclass(frozen=True)
class ServerProcess:
    """A running server."""

    url: str
    pid: int

    def get(self, path: str) -> Any:
        """Return the JSON answer to a GET request."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=60) as response:
            return json.loads(response.read())

    def cpu_s(self) -> float | None:
        """Return the user and system time so far in seconds; None without /proc."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def python(*arguments: str) -> list[str]:
    """Return a command of this interpreter with these arguments."""
    return [sys.executable, *arguments]


@contextmanager
def server(command: Sequence[str], log: Path) -> Iterator[ServerProcess]:
    """Run a server process, which must print its URL, during a `with` block.

    Raises:
        InputError: it did not start.
    """
    with log.open("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield ServerProcess(_url(process, log), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _url(process: subprocess.Popen, log: Path) -> str:
    while process.poll() is None:
        if found := URL.search(log.read_text()):
            return found.group(1)
        time.sleep(0.05)
    raise InputError(f"a server did not start: {' '.join(log.read_text().split())[-300:]}")


def measured(command: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path) -> ProcessUsage:
    """Run a command to its end in a folder, with no settings but these variables, and return what it used.

    The folder must have no `.env`.

    Raises:
        InputError: it failed; the message ends with its last line.
    """
    unset = [word for name in VARIABLES for word in ("-u", name)]
    values = [f"{name}={value}" for name, value in variables.items()]
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            ["env", *unset, *values, *command], cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = [line for line in log.read_text().replace("\r", "\n").splitlines() if line.strip()]
    tail = lines[-1] if lines else ""
    if process.returncode:
        raise InputError(f"{command[1]} failed with {process.returncode}: {tail[-300:]}")
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    cpu = used.ru_utime + used.ru_stime
    return ProcessUsage(process.returncode, time.monotonic() - began, cpu, peak, tail)
