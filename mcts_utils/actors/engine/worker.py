"""Run an engine in this process for another one, over a socket: the other side of processes.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from threading import Lock

from mcts_utils.actors.engine.base import Engine
from mcts_utils.actors.engine.folder import load_model, make_engine
from mcts_utils.actors.engine.job import Answered, Asked, DecodeJob, EngineSpec, Loaded, ModelGone
from mcts_utils.types import ActorError, InputError


def main(number: int) -> None:
    """Make the engine that the first message asks for, and answer the others until the socket, a file number, ends.

    The other process is gone then: nothing is left to do.
    """
    connection = Connection(number)
    try:
        engine, loaded = load(connection.recv())
        connection.send(loaded)
    except (InputError, ActorError) as error:
        connection.send(error)
        return
    except (EOFError, OSError):
        return
    replies = Replies(connection, engine)
    engine.start()
    while True:
        try:
            asked = connection.recv()
        except (EOFError, OSError):
            os._exit(0)  # in the middle of a pass
        replies.ask(asked)


def load(spec: EngineSpec) -> tuple[Engine, Loaded]:
    """Return the engine, and what it is.

    Raises:
        InputError: the folder cannot be used.
        ActorError: the model does not run here.
    """
    try:
        model, fit = load_model(spec)
        engine = make_engine(model, spec, fit.processes)
    except RuntimeError as error:  # of the device, such as no memory left
        raise ActorError(f"MODEL_DIR={spec.folder}: {' '.join(str(error).split())[:300]}") from error
    return engine, Loaded(engine.stop_ids, engine.context, fit)


class Replies:
    """Submits what is asked for, and sends each reply as it ends."""

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._connection, self._engine = connection, engine
        self._lock = Lock()

    def ask(self, asked: Sequence[Asked]) -> None:
        """Submit jobs."""
        jobs = []
        for each in asked:
            job = DecodeJob(each.ids, each.limit, each.temperature, each.seed)
            job.future.add_done_callback(partial(self._send, each.number))
            jobs.append(job)
        try:
            self._engine.submit(jobs)
        except ModelGone as error:
            for job in jobs:
                job.future.set_exception(error)

    def _send(self, number: int, future: Future[list[int]]) -> None:
        error = future.exception()
        reply = str(error) if error is not None else future.result()
        with self._lock, suppress(OSError):  # without a reader the main thread ends the process
            self._connection.send(Answered(number, reply, self._engine.stats()))
