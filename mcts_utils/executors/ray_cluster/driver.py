"""The driver's side of a Ray cluster: worker processes on its nodes, jobs out, files and results home.

A worker that is lost (its process or its node died) is replaced, and its jobs are done again, from the files that had
come home. No stage here, and nothing of what a job is.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mcts_utils.executors.ray_cluster.connection import NodeSlot, connect, node_slots
from mcts_utils.executors.ray_cluster.file_sync import FileSync
from mcts_utils.executors.ray_cluster.messages import JobMessage, WorkerLost, WorkerPlan, WorkerUpdate
from mcts_utils.executors.ray_cluster.worker import Worker
from mcts_utils.executors.stage import Job, Stage
from mcts_utils.types import EnvError, InputError, one_line

AHEAD = 1  # jobs that wait at a worker, so that a thread is never idle while news travel
LOSSES = 3  # workers that a job may take down with it, or that a seat may lose in a row
FAULTS = 5  # jobs that fail in a row at one seat: its environment server is gone, and it would spoil all the others
FINISH_SECONDS = 60.0  # for the last files of running jobs to come home
CALLS = 4  # methods of a worker at once: one waits for news all the time


@dataclass
class WorkerSlot:
    """A place in the cluster and the worker that is there now."""

    number: int
    place: NodeSlot
    worker: Any = None  # handle of the Ray actor
    ready: bool = False  # `begin` has worked
    jobs: dict[int, Job] = field(default_factory=dict)  # under way there
    lost: int = 0  # workers, since a job last ended here
    faults: int = 0  # jobs in a row that ended with an EnvError
    done: int = 0  # jobs that ended here


class RayDriver:
    """The workers of one run, for the length of a `with`; `stage.usage` is set at its end."""

    def __init__(self, stage: Stage, plan: WorkerPlan, jobs: Sequence[Job]) -> None:
        self._stage, self._plan = stage, plan
        self._seats: list[WorkerSlot] = []
        self._calls: dict[
            Any, tuple[WorkerSlot, str]
        ] = {}  # Ray's reference -> who was called, and which method
        self._waiting: deque[tuple[int, Job]] = deque(enumerate(jobs))
        self._losses: Counter[int] = Counter()  # by number of the job
        self._lost = 0  # workers
        self._usage: Counter[str] = Counter()

    def __enter__(self) -> RayDriver:
        """Connected, and one worker has begun; the others follow.

        Raises:
            InputError: the cluster cannot be used, or a worker cannot begin.
        """
        self._home = FileSync(self._stage.folders)
        self._ray = connect(self._stage.settings)
        try:
            found = node_slots(self._ray, self._stage.settings)[: len(self._waiting)]
            self._seats = [WorkerSlot(number, place) for number, place in enumerate(found)]
            for seat in self._seats:
                self._start(seat)
            while not any(seat.ready for seat in self._seats):
                self._next()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._bring_home()
        finally:
            done = [{"node": s.place.node, "host": s.place.host, "jobs": s.done} for s in self._seats]
            self._stage.usage = {**self._usage, "ray": {"workers": done, "lost": self._lost}}
            self._ray.shutdown()

    def results(self, bar: Any) -> Iterator[tuple[Job, Any]]:
        """Each job with its result, or its exception, as it ends.

        Raises:
            InputError: a worker cannot begin, or none is left.
        """
        while self._waiting or any(seat.jobs for seat in self._seats):
            self._hand_out()
            for job, result in self._next():
                bar.update(1)
                yield job, result

    def _next(self) -> list[tuple[Job, Any]]:
        """Wait for one answer; the jobs that have ended with it."""
        answered, _ = self._ray.wait(list(self._calls), num_returns=1)
        return self._answered(answered[0])

    def _start(self, seat: WorkerSlot) -> None:
        """A new worker at the seat."""
        settings = self._stage.settings
        remote = self._ray.remote(Worker).options(
            num_cpus=settings.ray_cpus_per_worker,
            num_gpus=settings.ray_gpus_per_worker,
            max_concurrency=CALLS,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=seat.place.strategy(),
            name=f"agent-r-{os.getpid()}-{seat.number}-{seat.lost}",
        )
        seat.worker, seat.ready = remote.remote(), False
        # The plan holds the key: as an argument of a method it goes to the worker alone, not to the cluster's tables.
        self._call(seat, "begin", self._plan)

    def _call(self, seat: WorkerSlot, method: str, *args: Any) -> None:
        self._calls[getattr(seat.worker, method).remote(*args)] = (seat, method)

    def _answered(self, call: Any) -> list[tuple[Job, Any]]:
        """The jobs that have ended with this answer."""
        seat, method = self._calls[call]
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            return self._lose(seat, one_line(error))
        if method == "begin":
            if answer is not None:
                return self._refused(seat, answer)
            seat.ready = True
        if method == "take":
            self._home.store(answer.files)
        self._calls.pop(call)  # only now: what a signal interrupts here is fetched again at the end
        if method in ("begin", "take"):
            self._call(seat, "take")
        return self._ended(seat, answer) if method == "take" else []

    def _ended(self, seat: WorkerSlot, news: WorkerUpdate) -> list[tuple[Job, Any]]:
        for _, result in news.ended:
            seat.done, seat.lost = seat.done + 1, 0
            seat.faults = seat.faults + 1 if isinstance(result, EnvError) else 0
        ended = [(seat.jobs.pop(number), result) for number, result in news.ended]
        if seat.faults >= FAULTS and any(other.ready for other in self._seats if other is not seat):
            self._forget(seat)
            self._waiting.extendleft(reversed(seat.jobs.items()))
            seat.jobs = {}
            self._note(f"{FAULTS} tasks in a row failed on {seat.place.host}: it gets no more of them")
        return ended

    def _hand_out(self) -> None:
        """Jobs to those who have the fewest, until all have enough; the last try of a job is made alone."""
        parcels: dict[int, list[JobMessage]] = {}
        while self._waiting and (free := [seat for seat in self._seats if self._takes_more(seat)]):
            seat = min(free, key=lambda seat: len(seat.jobs))
            number, job = self._waiting[0]
            if self._is_suspect(number) and seat.jobs:
                break
            self._waiting.popleft()
            seat.jobs[number] = job
            parcels.setdefault(seat.number, []).append(
                JobMessage(number, job, self._home.contents(self._stage.input_files(job)))
            )
        for number, sent in parcels.items():
            self._call(self._seats[number], "add", sent)

    def _takes_more(self, seat: WorkerSlot) -> bool:
        full = len(seat.jobs) >= self._plan.slots + AHEAD
        return seat.ready and not full and not any(map(self._is_suspect, seat.jobs))

    def _is_suspect(self, number: int) -> bool:
        """True for a job that was lost so often that it may be the reason."""
        return self._losses[number] == LOSSES - 1

    def _lose(self, seat: WorkerSlot, reason: str) -> list[tuple[Job, Any]]:
        """The worker at the seat is gone: another one is started, its jobs wait again, but not for ever."""
        self._forget(seat)
        self._lost += 1
        given_up = []
        for number, job in reversed(seat.jobs.items()):
            self._losses[number] += 1
            if self._losses[number] < LOSSES:
                self._waiting.appendleft((number, job))
            else:
                given_up.append((job, WorkerLost(f"lost with {LOSSES} workers; the last: {reason}")))
        seat.jobs, seat.lost = {}, 0 if given_up else seat.lost + 1
        self._note(f"a worker on {seat.place.host} is lost ({reason[:200]}); its jobs run again")
        if seat.lost < LOSSES:
            self._start(seat)
        else:
            self._leave(seat, InputError(f"{LOSSES} workers were lost on {seat.place.host}: {reason}"))
        return given_up

    def _refused(self, seat: WorkerSlot, error: Exception) -> list[tuple[Job, Any]]:
        """A worker cannot begin. At the start that ends the run; a replacement is done without."""
        self._forget(seat)
        refusal = InputError(f"worker on {seat.place.host}: {error}")
        if not seat.lost:
            raise refusal
        self._leave(seat, refusal)
        return []

    def _leave(self, seat: WorkerSlot, why: Exception) -> None:
        """No worker at this seat any more."""
        seat.ready = False
        if not any(other.worker for other in self._seats):
            raise why
        self._note(str(why))

    def _forget(self, seat: WorkerSlot) -> None:
        """Expect nothing more from the seat's worker; end it, if it is not dead yet."""
        self._calls = {call: (other, m) for call, (other, m) in self._calls.items() if other is not seat}
        if seat.worker is not None:
            self._ray.kill(seat.worker)
        seat.worker, seat.ready = None, False

    def _note(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def _bring_home(self) -> None:
        """End the workers, store their last files and add up what they used."""
        try:
            ends = {seat.worker.finish.remote(): seat for seat in self._seats if seat.ready}
            takes = [call for call, (seat, method) in self._calls.items() if method == "take"]
            waited = [*takes, *ends]  # in this order: what is taken was written before what comes at the end
            if waited:
                self._ray.wait(waited, num_returns=len(waited), timeout=FINISH_SECONDS)
            for call in takes:
                self._home.store(self._now(call, WorkerUpdate()).files)
            for call, seat in ends.items():
                news, usage = self._now(call, (WorkerUpdate(), {}))
                self._home.store(news.files)
                seat.done += len(news.ended)
                self._usage.update({k: v for k, v in usage.items() if isinstance(v, (int, float))})
        finally:
            for seat in self._seats:
                self._forget(seat)

    def _now(self, call: Any, otherwise: Any) -> Any:
        """The answer, if it is there: at the end nobody is waited for twice."""
        try:
            return self._ray.get(call, timeout=1.0)
        except self._ray.exceptions.RayError:
            return otherwise
