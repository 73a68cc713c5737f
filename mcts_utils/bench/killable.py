"""Servers and a Ray node of this machine whose processes may be killed. It kills nothing by itself."""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mcts_utils.bench.processes import ROOT, with_variables
from mcts_utils.types import InputError

START = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
NAMED = ("node-manager", "object-manager", "runtime-env-agent", "metrics-export")
LAST_WORKER = 59  # its port, counted from the node's first


@dataclass
class Service:
    """A server on a port of its own, which may be killed and started again there."""

    name: str
    arguments: Sequence[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        command = [sys.executable, "-m", *self.arguments, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--end_with", str(os.getpid())], cwd=ROOT, stdout=log, stderr=log
            )
        while self.process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:
                time.sleep(0.05)
        raise InputError(f"the {self.name} does not start: {self.log.read_text()[-300:]}")

    def kill(self) -> None:
        """Kill it with -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def free_port(rng: random.Random) -> int:
    """Return a free port below those that connections are made from."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port := rng.randrange(20000, 32000)))
                return port
            except OSError:
                continue


@contextmanager
def ray_node(rng: random.Random) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
    """Run a node with two slots; yield its process, its address, and the variables with which it lets a driver in."""
    base = rng.randrange(21000, 31000)
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ports = [f"--{name}-port={base + 1 + i}" for i, name in enumerate(NAMED)]
    ports += [f"--dashboard-agent-listen-port={base + 6}", f"--dashboard-agent-grpc-port={base + 7}"]
    ports += [f"--min-worker-port={base + 10}", f"--max-worker-port={base + LAST_WORKER}", f"--port={base}"]
    size = ["--num-cpus=2", "--num-gpus=0", "--object-store-memory=80000000"]
    flags = ["start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"]
    command = [sys.executable, "-u", "-c", START, *flags, *size, *ports]
    # A folder of its own, near the root: the names of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        process = subprocess.Popen(
            with_variables([*command, f"--temp-dir={folder}"], access),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            if not any("Ray runtime started" in line for line in process.stdout):
                raise InputError("the Ray node does not start")
            yield process, f"127.0.0.1:{base}", access
        finally:
            process.terminate()
            process.stdout.read()
            process.wait()


def worker_processes(node: int) -> list[int]:
    """Return the processes below a node that run a worker of a stage."""
    found, waiting = [], [node]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError):  # it has just ended
            for children in Path(f"/proc/{pid}/task").glob("*/children"):  # of each thread
                waiting += map(int, children.read_text().split())
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(pid)
    return found
