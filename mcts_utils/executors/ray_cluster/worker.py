"""A worker process: it does jobs on threads, in a folder of its own, and hands out the files that they write.

It knows no Ray (team.py starts it, and calls its methods from several threads) and no stage (the plan makes one).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition
from typing import Any

from mcts_utils.envs import server_about
from mcts_utils.executors.ray_cluster.messages import JobMessage, WorkerPlan, WorkerUpdate, portable
from mcts_utils.executors.stage import Job, Stage
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import InputError, Stopped


class Worker:
    """One process's share of a stage: `begin`, then `add` and `take` as often as wanted, `finish` at the end."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._files: dict[str, bytes] = {}  # the newest content only, so a slow reader costs no memory
        self._ended: list[tuple[int, Any]] = []
        self._finished = False
        self._open = ExitStack()
        self._stage: Stage | None = None

    def where(self) -> tuple[str, int]:
        """Host name and process id."""
        return socket.gethostname(), os.getpid()

    def begin(self, plan: WorkerPlan) -> Exception | None:
        """Load the model or reach the endpoint; what went wrong is returned."""
        try:
            check_here(plan)
            self._folder = Path(self._open.enter_context(TemporaryDirectory(prefix="agent-r-")))
            for name in plan.folders:
                (self._folder / name).mkdir()
            stage = plan.make_stage(self._folder)
            self._work = self._open.enter_context(
                stage.job_runner(plan.make_actor, plan.make_environment, self._saved)
            )
            self._threads = ThreadPoolExecutor(plan.slots, thread_name_prefix="task")
            self._stage = stage
        except Exception as error:
            self._open.close()
            return portable(error)
        return None

    def add(self, parcels: Sequence[JobMessage]) -> None:
        """Do these jobs too, as soon as a thread is free."""
        for parcel in parcels:
            self._threads.submit(self._do, parcel)

    def take(self) -> WorkerUpdate:
        """What happened since the last call; waits until something did."""
        with self._changed:
            self._changed.wait_for(lambda: self._files or self._ended or self._finished)
            return self._drain()

    def finish(self) -> tuple[WorkerUpdate, dict[str, Any]]:
        """Stop running jobs, which save what they can; the last news, and what the work took."""
        usage: dict[str, Any] = {}
        if self._stage is not None:
            self._stage.stop.set()
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._open.close()
            usage = dict(self._stage.usage)
        with self._changed:
            self._finished = True
            self._changed.notify_all()
            return self._drain(), usage

    def _drain(self) -> WorkerUpdate:
        news = WorkerUpdate(self._files, tuple(self._ended))
        self._files, self._ended = {}, []
        return news

    def _do(self, parcel: JobMessage) -> None:
        result = self._result(parcel.job, parcel.files)
        if isinstance(result, Stopped):
            return
        with self._changed:
            self._ended.append((parcel.number, result))
            self._changed.notify_all()

    def _result(self, job: Job, files: dict[str, bytes]) -> Any:
        paths = [self._folder / name for name in files]
        try:
            for path, content in zip(paths, files.values(), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return self._work(job)
        except Exception as error:
            return portable(error)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def _saved(self, path: Path) -> None:
        """A file that was just written goes on its way; no stage reads again what it wrote."""
        content = path.read_bytes()
        path.unlink()
        with self._changed:
            self._files[path.relative_to(self._folder).as_posix()] = content
            self._changed.notify_all()


def check_here(plan: WorkerPlan) -> None:
    """Nothing, if the environment server and the model that this node has are those that the driver has.

    Raises:
        InputError, EnvError, OSError: naming what is missing or another.
    """
    if plan.task_set:
        plan.make_environment().close()
        kind = server_about(plan.server)["kind"]
        if kind != plan.task_set:
            raise InputError(f"the environment server {plan.server} is of kind {kind}, not {plan.task_set}")
    if plan.model_dir:
        os.chdir(plan.folder)
        if not Path(plan.model_dir).is_dir():
            raise InputError(f"MODEL_DIR is not a folder: {plan.model_dir!r}")
        if fingerprint(plan.model_dir) != plan.weights:
            raise InputError(f"MODEL_DIR holds another model: {plan.model_dir!r}")
