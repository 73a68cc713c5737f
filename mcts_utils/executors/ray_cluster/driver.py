"""Drive worker processes on the nodes of a Ray cluster: send them jobs, receive their files and results.

A worker that is lost (its process or its node died) is replaced, and its jobs run again from the files received so far.
It knows no stage and does not look into jobs.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from mcts_utils.executors.ledger import LedgerPlan
from mcts_utils.executors.ray_cluster.connection import NodeSlot, connect, node_slots
from mcts_utils.executors.ray_cluster.file_sync import FileSync
from mcts_utils.executors.ray_cluster.messages import JobMessage, WorkerLost, WorkerPlan, WorkerUpdate
from mcts_utils.executors.ray_cluster.remote_ledger import RemoteLedger
from mcts_utils.executors.ray_cluster.worker import Worker
from mcts_utils.executors.stage import Job, Stage
from mcts_utils.terminal import Progress
from mcts_utils.types import EnvError, InputError, one_line

PREFETCHED_JOBS = 1  # jobs that wait at a worker, so that no thread is idle until the next message
MAX_LOSSES = 3  # workers that one job may be lost with, or that one slot may lose in a row
SLOT_FAILURES = 5  # jobs that fail in a row at one slot: its environment server is down
FINISH_SECONDS = 60.0  # to wait for the last files of running jobs
CONCURRENT_CALLS = 4  # methods of a worker that run at once: `take` waits in one of them all the time


@dataclass
class WorkerSlot:
    """A worker's slot in the cluster, and the worker that runs there now."""

    number: int
    node: NodeSlot
    worker: Any = None  # handle of the Ray actor
    ready: bool = False  # `begin` has succeeded
    jobs: dict[int, Job] = field(default_factory=dict)  # number -> job, sent to the worker and not ended
    lost_workers: int = 0  # in a row, since a job last ended here
    failures: int = 0  # jobs in a row that ended with an EnvError
    ended_jobs: int = 0
    starts: int = 0  # of workers

    @property
    def process(self) -> str:
        """Return the name of the worker in the ledger."""
        return f"{self.number}-{self.starts}"


class RayDriver:
    """The workers of one run, for the length of a `with`; `stage.usage` is set at its end."""

    def __init__(
        self, stage: Stage, plan: WorkerPlan, jobs: Sequence[Job], ledger: LedgerPlan | None = None
    ) -> None:
        """Take the plans of the workers, and of the ledger that they share."""
        self._stage, self._plan, self._ledger = stage, plan, ledger
        self.worked: list[Job] = []  # jobs that worked
        self._slots: list[WorkerSlot] = []
        self._calls: dict[Any, tuple[WorkerSlot, str]] = {}  # Ray's reference -> slot, method called
        self._wanted = len(jobs)  # workers, at most
        self._waiting: deque[tuple[int, Job]] = deque()
        self._numbers = count()  # of the jobs
        self._job_losses: Counter[int] = Counter()  # number of the job -> workers that it was lost with
        self._lost_workers = 0
        self._usage: Counter[str] = Counter()
        self._judge: Counter[str] = Counter()  # the usage of a judge of its own
        self._refused: set[str] = set()  # by the endpoint, as any of the workers was told

    def __enter__(self) -> RayDriver:
        """Connect and start the workers; return as soon as one of them is ready.

        Raises:
            InputError: the cluster cannot be used, or a worker cannot begin.
        """
        self._file_sync = FileSync(self._stage.folders)
        self._ray = connect(self._stage.settings)
        if self._ledger:
            self._stage.spending.ledger = RemoteLedger.begin(self._ray, self._ledger)
            self._plan = replace(self._plan, ledger=self._stage.spending.ledger)
        try:
            nodes = node_slots(self._ray, self._stage.settings)[: self._wanted]
            self._slots = [WorkerSlot(number, node) for number, node in enumerate(nodes)]
            for slot in self._slots:
                self._start(slot)
            while not any(slot.ready for slot in self._slots):
                self._next()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._finish()
        finally:
            if self._plan.ledger:
                self._plan.ledger.close()
            workers = [
                {"node": slot.node.node_id, "host": slot.node.host, "jobs": slot.ended_jobs}
                for slot in self._slots
            ]
            refused = {"refused_by_server": sorted(self._refused)} if self._refused else {}
            judge = {"judge": dict(self._judge)} if self._judge else {}
            self._stage.usage = {
                **self._usage,
                **refused,
                **judge,
                "ray": {"workers": workers, "lost": self._lost_workers},
            }
            self._ray.shutdown()

    def results(self, jobs: Sequence[Job], bar: Any) -> Generator[tuple[Job, Any], None, None]:
        """Yield each job with its result, or its exception, as it ends; a bar, unless None, advances with them.

        Raises:
            InputError: a worker cannot begin, or none is left.
        """
        self._waiting.extend(zip(self._numbers, jobs, strict=False))
        while self._waiting or any(slot.jobs for slot in self._slots):
            self._send_jobs()
            for job, result in self._next():
                if bar is not None:
                    bar.update(1)
                yield job, result

    def _next(self) -> list[tuple[Job, Any]]:
        """Wait for one answer of a worker; return the jobs that have ended with it."""
        answered, _ = self._ray.wait(list(self._calls), num_returns=1)
        return self._answered(answered[0])

    def _start(self, slot: WorkerSlot) -> None:
        """Start a worker at the slot."""
        settings = self._stage.settings
        remote = self._ray.remote(Worker).options(
            num_cpus=settings.ray_cpus_per_worker,
            num_gpus=settings.ray_gpus_per_worker,
            max_concurrency=CONCURRENT_CALLS,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=slot.node.strategy(),
            name=f"agent-r-{os.getpid()}-{slot.number}-{slot.lost_workers}",
        )
        slot.worker, slot.ready, slot.starts = remote.remote(), False, slot.starts + 1
        # The plan holds the API key: an argument of a method is sent to the worker alone, not to the cluster's tables.
        self._call(slot, "begin", replace(self._plan, process=slot.process))

    def _call(self, slot: WorkerSlot, method: str, *args: Any) -> None:
        self._calls[getattr(slot.worker, method).remote(*args)] = (slot, method)

    def _answered(self, call: Any) -> list[tuple[Job, Any]]:
        """Process the answer to a call; return the jobs that have ended with it."""
        slot, method = self._calls[call]
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            return self._worker_lost(slot, one_line(error))
        if method == "begin":
            if answer is not None:
                return self._worker_refused(slot, answer)
            slot.ready = True
        if method == "take":
            self._file_sync.store(answer.files)
        # Only now, so that an answer interrupted here by a signal is read again at the end.
        self._calls.pop(call)
        if method in ("begin", "take"):
            self._call(slot, "take")
        return self._jobs_ended(slot, answer) if method == "take" else []

    def _jobs_ended(self, slot: WorkerSlot, update: WorkerUpdate) -> list[tuple[Job, Any]]:
        """Return the jobs that the update ends; end a worker whose jobs fail in a row while others work."""
        for _, result in update.ended:
            slot.ended_jobs, slot.lost_workers = slot.ended_jobs + 1, 0
            slot.failures = slot.failures + 1 if isinstance(result, EnvError) else 0
        ended = [(slot.jobs.pop(number), result) for number, result in update.ended]
        self._note_worked(ended)
        if slot.failures >= SLOT_FAILURES and any(other.ready for other in self._slots if other is not slot):
            self._end_worker(slot)
            self._waiting.extendleft(reversed(slot.jobs.items()))
            slot.jobs = {}
            self._note(f"{SLOT_FAILURES} tasks in a row failed on {slot.node.host}: it gets no more of them")
        return ended

    def _note_worked(self, ended: Iterable[tuple[Job, Any]]) -> None:
        self.worked += [job for job, result in ended if not isinstance(result, Exception)]

    def _send_jobs(self) -> None:
        """Send jobs, each to the worker with the fewest, until all have enough; the last try of a job runs alone."""
        messages: dict[int, list[JobMessage]] = {}
        while self._waiting and (free := [slot for slot in self._slots if self._takes_more(slot)]):
            slot = min(free, key=lambda slot: len(slot.jobs))
            number, job = self._waiting[0]
            if self._is_suspect(number) and slot.jobs:
                break
            self._waiting.popleft()
            slot.jobs[number] = job
            files = self._file_sync.contents(self._stage.input_files(job))
            messages.setdefault(slot.number, []).append(JobMessage(number, job, files))
        for number, sent in messages.items():
            self._call(self._slots[number], "add", sent)

    def _takes_more(self, slot: WorkerSlot) -> bool:
        full = len(slot.jobs) >= self._plan.jobs_at_once + PREFETCHED_JOBS
        return slot.ready and not full and not any(map(self._is_suspect, slot.jobs))

    def _is_suspect(self, number: int) -> bool:
        """Return True for a job that was lost so often that it may be the reason."""
        return self._job_losses[number] == MAX_LOSSES - 1

    def _worker_lost(self, slot: WorkerSlot, reason: str) -> list[tuple[Job, Any]]:
        """Replace a lost worker and put its jobs back in the queue; return those that were lost too often."""
        self._end_worker(slot)
        self._lost_workers += 1
        if self._plan.ledger:
            self._plan.ledger.forget(slot.process)
        given_up = []
        for number, job in reversed(slot.jobs.items()):
            self._job_losses[number] += 1
            if self._job_losses[number] < MAX_LOSSES:
                self._waiting.appendleft((number, job))
            else:
                given_up.append((job, WorkerLost(f"lost with {MAX_LOSSES} workers; the last: {reason}")))
        slot.jobs, slot.lost_workers = {}, 0 if given_up else slot.lost_workers + 1
        self._note(f"a worker on {slot.node.host} is lost ({reason[:200]}); its jobs run again")
        if slot.lost_workers < MAX_LOSSES:
            self._start(slot)
        else:
            self._leave_empty(
                slot, InputError(f"{MAX_LOSSES} workers were lost on {slot.node.host}: {reason}")
            )
        return given_up

    def _worker_refused(self, slot: WorkerSlot, error: Exception) -> list[tuple[Job, Any]]:
        """Handle a worker that cannot begin: the first one of a slot ends the run, a replacement leaves it empty."""
        self._end_worker(slot)
        refusal = InputError(f"worker on {slot.node.host}: {error}")
        if not slot.lost_workers:
            raise refusal
        self._leave_empty(slot, refusal)
        return []

    def _leave_empty(self, slot: WorkerSlot, reason: Exception) -> None:
        """Start no more workers at the slot; raise `reason` if no other slot has one."""
        slot.ready = False
        if not any(other.worker for other in self._slots):
            raise reason
        self._note(str(reason))

    def _end_worker(self, slot: WorkerSlot) -> None:
        """End the slot's worker, if it still runs, and drop the pending calls to it."""
        self._calls = {
            call: (other, method) for call, (other, method) in self._calls.items() if other is not slot
        }
        if slot.worker is not None:
            self._ray.kill(slot.worker)
        slot.worker, slot.ready = None, False

    def _note(self, text: str) -> None:
        Progress.write(text, file=sys.stderr)

    def _finish(self) -> None:
        """End the workers, store their last files and add up what they used."""
        try:
            finishes = {slot.worker.finish.remote(): slot for slot in self._slots if slot.ready}
            takes = [call for call, (_, method) in self._calls.items() if method == "take"]
            # In this order: files in a `take` are older than those in a `finish`.
            pending = [*takes, *finishes]
            if pending:
                self._ray.wait(pending, num_returns=len(pending), timeout=FINISH_SECONDS)
            for call in takes:
                self._file_sync.store(self._answer_or(call, WorkerUpdate()).files)
            for call, slot in finishes.items():
                update, usage = self._answer_or(call, (WorkerUpdate(), {}))
                self._file_sync.store(update.files)
                slot.ended_jobs += len(update.ended)
                self._note_worked((slot.jobs[number], result) for number, result in update.ended)
                self._judge.update(usage.pop("judge", {}))
                self._usage.update({k: v for k, v in usage.items() if isinstance(v, (int, float))})
                self._refused.update(usage.get("refused_by_server", ()))
        finally:
            for slot in self._slots:
                self._end_worker(slot)

    def _answer_or(self, call: Any, default: Any) -> Any:
        """Return the answer to a call that was waited for, or `default` if it did not come."""
        try:
            return self._ray.get(call, timeout=1.0)
        except self._ray.exceptions.RayError:
            return default
