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
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mcts_utils.config.faults import variable
from mcts_utils.config.settings import Settings
from mcts_utils.types import InputError

ROOT = Path(__file__).resolve().parents[2]
URL = re.compile(r"(?:on|at) (http://\S+)")
# A shell may have set them for other work; the benchmark sets those that it needs.
VARIABLES = [variable(field.name) for field in fields(Settings)]


@dataclass(frozen=True)
class ProcessUsage:
    """The resources that a process used from its start to its end."""

    seconds: float  # wall time
    cpu_s: float  # user and system time
    peak_rss_mb: float  # MiB


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
            words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(arguments: Sequence[str], log: Path) -> Iterator[ServerProcess]:
    """Run a server, a module with its arguments, on a free port during a `with` block. It must print its URL."""
    command = [sys.executable, "-m", *arguments, "--port", "0"]
    with log.open("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            while not (found := URL.search(log.read_text())):
                if process.poll() is not None:
                    raise InputError(f"a server did not start: {' '.join(log.read_text().split())[-300:]}")
                time.sleep(0.05)
            yield ServerProcess(found[1], process.pid)
        finally:
            process.terminate()
            process.wait()


def with_variables(command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Return the command with no settings but these variables; its process is the command's own."""
    unset = [word for name in VARIABLES for word in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in variables.items()), *command]


def measured(command: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path) -> ProcessUsage:
    """Run a script to its end in a folder, with no settings but these variables, and return what it used.

    The folder must have no `.env`.

    Raises:
        InputError: it failed; the message ends with its last line.
    """
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            with_variables([sys.executable, *command], variables),
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text().replace("\r", "\n").strip().splitlines()
        raise InputError(f"{command[0]} failed with {process.returncode}: {''.join(lines[-1:])[-300:]}")
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    cpu = used.ru_utime + used.ru_stime
    return ProcessUsage(time.monotonic() - began, cpu, peak)
