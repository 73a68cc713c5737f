"""Run jobs in a worker process: on threads, in a temporary folder, whose files it hands to the driver.

It knows no Ray (driver.py starts it and calls its methods from several threads) and no stage (the plan makes one).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from threading import Condition
from typing import Any

from mcts_utils.envs import server_about
from mcts_utils.executors.ray_cluster.messages import JobMessage, WorkerPlan, WorkerUpdate, portable
from mcts_utils.executors.spending import Spending
from mcts_utils.executors.stage import Job, Stage
from mcts_utils.storage.lock import reserved
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import InputError, Stopped

PREFIX = "agent-r-"  # of the names of the workers' temporary folders


class Worker:
    """The jobs of one process. Call `begin`, then `add` and `take` any number of times, and `finish` at the end."""

    def __init__(self) -> None:
        self._changed = Condition()
        # Only the newest content of each, so that a slow driver costs no memory.
        self._files: dict[str, bytes] = {}
        self._ended: list[tuple[int, Any]] = []
        self._finished = False
        self._resources = ExitStack()
        self._stage: Stage | None = None

    def where(self) -> tuple[str, int]:
        """Return host name and process id."""
        return socket.gethostname(), os.getpid()

    def begin(self, plan: WorkerPlan) -> Exception | None:
        """Check the node, load the model or reach the endpoint; return the error, or None."""
        try:
            check_node(plan)
            self._folder = own_folder(self._resources)
            remove_folders_of_dead_workers()
            for name in plan.folders:
                (self._folder / name).mkdir()
            stage = plan.make_stage(self._folder)
            stage.spending = Spending(stage.settings.reply_tokens, plan.ledger, plan.process)
            actor = stage.spending.metered(plan.make_actor)
            self._run_job = self._resources.enter_context(
                stage.job_runner(actor, plan.make_environment, self._file_written)
            )
            self._threads = ThreadPoolExecutor(plan.jobs_at_once, thread_name_prefix="task")
            self._stage = stage
        except Exception as error:
            self._resources.close()
            return portable(error)
        return None

    def add(self, messages: Sequence[JobMessage]) -> None:
        """Queue jobs for the next free threads."""
        for message in messages:
            self._threads.submit(self._handle, message)

    def take(self) -> WorkerUpdate:
        """Wait until something has happened since the last call; return it."""
        with self._changed:
            self._changed.wait_for(lambda: self._files or self._ended or self._finished)
            return self._update()

    def finish(self) -> tuple[WorkerUpdate, dict[str, Any]]:
        """Stop running jobs, which save what they can; return the last update and the stage's `usage`."""
        usage: dict[str, Any] = {}
        if self._stage is not None:
            self._stage.stop.set()
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._resources.close()
            usage = dict(self._stage.usage)
        with self._changed:
            self._finished = True
            self._changed.notify_all()
            return self._update(), usage

    def _update(self) -> WorkerUpdate:
        update = WorkerUpdate(self._files, tuple(self._ended))
        self._files, self._ended = {}, []
        return update

    def _handle(self, message: JobMessage) -> None:
        result = self._result(message.job, message.files)
        if isinstance(result, Stopped):
            return
        with self._changed:
            self._ended.append((message.number, result))
            self._changed.notify_all()

    def _result(self, job: Job, files: dict[str, bytes]) -> Any:
        """Run a job on its input files; return its result or its exception."""
        paths = [self._folder / name for name in files]
        try:
            for path, content in zip(paths, files.values(), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return self._run_job(job)
        except Exception as error:
            return portable(error)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def _file_written(self, path: Path) -> None:
        """Move a written file from the disk to the next update; no stage reads its own files again."""
        content = path.read_bytes()
        path.unlink()
        with self._changed:
            self._files[path.relative_to(self._folder).as_posix()] = content
            self._changed.notify_all()


def own_folder(resources: ExitStack) -> Path:
    """Return a new temporary folder that is locked until `resources` are closed, which removes it.

    It gets its name when it is locked: a worker that begins at the same time would take it for a dead worker's.
    """
    made = Path(mkdtemp(prefix=f".{PREFIX}"))
    folder = made.with_name(made.name.removeprefix("."))
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    resources.enter_context(reserved(made))
    return made.rename(folder)


def remove_folders_of_dead_workers() -> None:
    """Remove the temporary folders of this machine's workers that were killed: their locks are free."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(InputError, OSError), reserved(folder):  # in use, or of another user
            shutil.rmtree(folder)


def check_node(plan: WorkerPlan) -> None:
    """Check that this node has the driver's kind of environment server and the driver's model.

    Raises:
        InputError, EnvError, OSError: naming what is missing or differs.
    """
    if plan.server_kind:
        plan.make_environment().close()
        kind = server_about(plan.server)["kind"]
        if kind != plan.server_kind:
            raise InputError(
                f"the environment server {plan.server} is of kind {kind}, not {plan.server_kind}"
            )
    if plan.model_dir:
        os.chdir(plan.folder)
        if not Path(plan.model_dir).is_dir():
            raise InputError(f"MODEL_DIR is not a folder: {plan.model_dir!r}")
        if fingerprint(plan.model_dir) != plan.weights:
            raise InputError(f"MODEL_DIR holds another model: {plan.model_dir!r}")
