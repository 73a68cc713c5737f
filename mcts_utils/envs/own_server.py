"""Run the server of an environment of yours as a child process of a stage, on a free port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock, Thread
from typing import IO

from mcts_utils.config import Settings
from mcts_utils.terminal import Progress, deferred_interrupts
from mcts_utils.types import InputError

ROOT = str(Path(__file__).resolve().parents[2])
START = (
    "import sys; sys.path.append(sys.argv.pop(1)); from mcts_utils.servers.yours.__main__ import main; "
    "sys.exit(main())"
)
READY = re.compile(r"^.* server on (http://\S+)$", re.MULTILINE)
START_SECONDS, END_SECONDS = 120.0, 5.0
POLL_SECONDS = 0.02
RESTARTS = 20  # of a server whose process ends by itself, in one stage


@contextmanager
def served(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with the URL of a server of TASK's own code; as they are, if there is a URL or no own code.

    Raises:
        InputError: the server does not start.
    """
    if not settings.task_source or settings.env_server_base:
        yield settings
        return
    with own_server(settings.task_source, restarts=RESTARTS) as server:
        yield replace(settings, env_server_base=server.url)


class OwnServer:
    """The server's process. With `restarts`, one that ends by itself is started again on the same port."""

    def __init__(self, source: str, flags: Sequence[str], log: IO[bytes], restarts: int) -> None:
        """Start the process; raise InputError if it does not get ready."""
        self._source, self._flags, self._log, self._restarts = source, flags, log, restarts
        self._lock, self._ended = Lock(), False
        self.process = self._start("0")
        try:
            self.url = self._ready()
        except BaseException:
            self.end()
            raise
        if restarts:
            Thread(target=self._keep, name="own-server", daemon=True).start()

    def end(self) -> None:
        """End the process."""
        with self._lock:
            self._ended = True
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _start(self, port: str) -> subprocess.Popen[bytes]:
        end_with = ("--end_with", str(os.getpid()))  # also after a kill -9 of this process
        flags = ["--port", port, *end_with, *self._flags]
        words = [sys.executable, "-P", "-c", START, ROOT, self._source, *flags]
        with deferred_interrupts():
            # A session of its own: Ctrl-C reaches the stage alone.
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
            )

    def _ready(self) -> str:
        """Return the URL that the server prints when it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if found := READY.search(self._said()):
                return found[1]
            if ended:
                last = (self._said().strip().splitlines() or [f"exit code {self.process.returncode}"])[-1]
                raise InputError(
                    f"TASK {last if last.startswith(self._source) else f'{self._source}: {last}'}"
                )
            time.sleep(POLL_SECONDS)
        raise InputError(f"TASK {self._source}: its server did not start within {START_SECONDS:g} s")

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def _keep(self) -> None:
        """Start the process again each time that it ends by itself."""
        for _ in range(self._restarts):
            code = self.process.wait()
            with self._lock:
                if self._ended:
                    return
                Progress.write(f"TASK {self._source}: {exit_of(code)}; it is started again", file=sys.stderr)
                self.process = self._start(self.url.rpartition(":")[2])


def exit_of(code: int) -> str:
    """Return how a process ended, from its return code."""
    return f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"


@contextmanager
def own_server(source: str, *flags: str, restarts: int = 0) -> Iterator[OwnServer]:
    """Yield the running server of an environment of yours, and end it; raise InputError if it does not start."""
    with TemporaryFile("a+b") as log:  # the child appends, whatever is read here
        server = OwnServer(source, flags, log, restarts)
        try:
            yield server
        finally:
            server.end()
