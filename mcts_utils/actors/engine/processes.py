"""Ask engines in processes of their own, so that the threads of a stage do not take the engine's turns in Python.

On a CPU more processes are started, each with a copy of the model, while the first is asked by many at once. A request
goes to the process that has computed most of its prompt, unless that one has more to do than another.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Thread

import numpy as np

from mcts_utils.actors.engine.job import Answered, Asked, DecodeJob, EngineSpec, Loaded, ModelGone
from mcts_utils.actors.engine.prefixes import Prefixes, block_keys
from mcts_utils.terminal import deferred_interrupts
from mcts_utils.types import ActorError, InputError

ROOT = str(Path(__file__).resolve().parents[3])
START = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from mcts_utils.actors.engine.light_start import main; main(int(sys.argv[2]))"
)
END_SECONDS = 5.0
CROWD = 8  # requests in flight for each process above which another one would help
CROWD_SECONDS = 2.0  # that such a crowd lasts, before another process is started


class EngineProcess:
    """An engine in a process of its own. It ends when `close` is called, and when this process ends, however."""

    def __init__(self) -> None:
        """Start the process. `load` must be called next: it imports its libraries meanwhile."""
        self._socket, theirs = socket.socketpair()
        words = [sys.executable, "-P", "-c", START, ROOT, str(theirs.fileno())]
        with theirs, deferred_interrupts():
            # A session of its own: Ctrl-C reaches the stage alone.
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._reader = Thread(target=self._read, name="engine-replies", daemon=True)
        self._lock = Lock()
        self._jobs: dict[int, DecodeJob] = {}
        self._number = 0
        self._error = ""  # why nothing can be asked
        self._closed = False
        self.stats: dict[str, float] = {}
        self.prefixes = Prefixes()

    @property
    def in_flight(self) -> int:
        """Return the number of completions that it has been asked for and not answered."""
        return len(self._jobs)

    def load(self, spec: EngineSpec) -> Loaded:
        """Have it make its engine; wait, and return what it says of that.

        Raises:
            InputError: the folder cannot be used.
            ActorError: the model does not run here; ModelGone: the process has ended.
        """
        try:
            self._connection.send(spec)
            answer: Loaded | Exception = self._connection.recv()
        except (EOFError, OSError):
            raise ModelGone(self._how_it_ended()) from None
        if isinstance(answer, Exception):
            raise answer
        self._reader.start()
        return answer

    def submit(self, jobs: Sequence[DecodeJob]) -> None:
        """Send jobs, as Decoder says."""
        with self._lock:
            if self._error:
                raise ModelGone(self._error)
            asked = []
            for job in jobs:
                self._number += 1
                self._jobs[self._number] = job
                asked.append(Asked(self._number, job.ids, job.limit, job.temperature, job.seed))
            try:
                self._connection.send(asked)
            except OSError:  # it has ended: the reader tells all that wait
                return

    def close(self) -> None:
        """End the process. Jobs that have not ended fail with ModelGone."""
        self._closed = True
        with suppress(OSError):  # it has ended
            self._socket.shutdown(socket.SHUT_RDWR)
        loaded = self._reader.is_alive()  # before, it does not look at its socket
        try:
            self._process.wait(END_SECONDS if loaded else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if loaded:
            self._reader.join()
        self._connection.close()
        self._socket.close()

    def _read(self) -> None:
        """Resolve the futures of jobs as their answers come."""
        while True:
            try:
                answer: Answered = self._connection.recv()
            except (EOFError, OSError):
                break
            self.stats = answer.stats
            job = self._jobs.pop(answer.number)
            if isinstance(answer.reply, str):
                job.future.set_exception(ModelGone(answer.reply))
            else:
                job.future.set_result(answer.reply)
        error = self._how_it_ended()
        with self._lock:
            self._error = error
            lost, self._jobs = list(self._jobs.values()), {}
        for job in lost:
            job.future.set_exception(ModelGone(error))

    def _how_it_ended(self) -> str:
        if self._closed:
            return "the local model is closed"
        code = self._process.wait()
        if code >= 0:
            return f"the local model's process ended with exit code {code}"
        hint = " (the system does so when memory is short)" if code == -signal.SIGKILL else ""
        return f"the local model's process was ended by {signal.Signals(-code).name}{hint}"


class EngineProcesses:
    """One or more such processes for one model (job.Decoder)."""

    stop_ids: np.ndarray
    context: int

    def __init__(self) -> None:
        """Start the first process. `load` must be called next."""
        self._processes = [EngineProcess()]
        self._lock = Lock()
        self._most = 1
        self._asked = 0.0  # when the last request came, seconds
        self._crowded = 0.0  # seconds with a crowd, less those without
        self._starting: EngineProcess | None = None
        self._closed = False

    def load(self, spec: EngineSpec) -> None:
        """Have the first process make its engine, and wait.

        Raises:
            InputError: the folder cannot be used.
            ActorError: the model does not run here; ModelGone: the process has ended.
        """
        self.stop_ids, self.context, fit = self._processes[0].load(spec)
        self._spec, self._most = replace(spec, fit=fit), fit.processes

    def submit(self, jobs: Sequence[DecodeJob]) -> None:
        """Send jobs for one prompt to a process."""
        with self._lock:
            process = self._choose(jobs[0].ids)
            if len(self._processes) < self._most and self._starting is None:
                self._watch()
        process.submit(jobs)

    def _choose(self, ids: np.ndarray) -> EngineProcess:
        """Return the process to ask: a block of the prompt that is computed is worth a request in flight."""
        if self._most == 1:
            return self._processes[0]
        keys = block_keys(ids)
        chosen = max(self._processes, key=lambda each: each.prefixes.known(keys) - each.in_flight)
        chosen.prefixes.add(keys)
        return chosen

    def _watch(self) -> None:
        """Start another process if there has been a crowd for some time."""
        crowd = sum(each.in_flight for each in self._processes) > CROWD * len(self._processes)
        now = time.monotonic()
        since, self._asked = (now - self._asked if self._asked else 0.0), now
        self._crowded = max(0.0, self._crowded + (since if crowd else -since))
        if crowd and self._crowded >= CROWD_SECONDS and not self._closed:
            self._starting, self._crowded = EngineProcess(), 0.0
            Thread(target=self._add, args=(self._starting,), name="engine-start", daemon=True).start()

    def _add(self, process: EngineProcess) -> None:
        """Have a new process make its engine; from then on it is asked, too."""
        try:
            process.load(self._spec)
        except (InputError, ActorError) as error:
            if not self._closed:
                print(f"notice: no further process for the local model: {error}", file=sys.stderr)
            return  # it stays the one that is starting, so no other is started
        with self._lock:
            self._processes.append(process)
            self._starting = None

    def stats(self) -> dict[str, float]:
        """Return counters since the start, as Decoder says: sums over the processes."""
        return {"reused_tokens": sum(each.stats.get("reused_tokens", 0) for each in self._processes)}

    def close(self) -> None:
        """End the processes. Jobs that have not ended fail with ModelGone."""
        with self._lock:
            self._closed = True
            ending = [*self._processes, *([self._starting] if self._starting else [])]
        for process in ending:
            process.close()
