"""A Ray node of this machine for a measurement, and its workers' processes. It knows no stage."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
NAMED = ("node-manager", "object-manager", "runtime-env-agent", "metrics-export")
LAST_WORKER = 59  # its port, counted from the node's first


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
    # A folder of its own, near the root: the names of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", START, *flags, *size, *ports, f"--temp-dir={folder}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **access},
        )
        assert process.stdout is not None
        try:
            if not any("Ray runtime started" in line for line in process.stdout):
                raise RuntimeError("the Ray node does not start")
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
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(pid)
    return found
