"""The bundled ScienceWorld server in a process of its own, for tests of the clients. No test by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_sciworld(jvms: int = 1, reproducible: bool = False) -> Iterator[str]:
    """Its base URL. Who uses it is marked `java`."""
    command = [sys.executable, "-m", "mcts_utils.servers.sciworld", "--port", "0", "--jvms", str(jvms)]
    command += ["--reproducible"] * reproducible
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ScienceWorld server on http://"), line
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()
