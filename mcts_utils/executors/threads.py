"""Run many jobs at once on threads; an exception in one does not end the others. It knows no stage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ProgressBar(Protocol):
    """The part of a bar that is used here."""

    def update(self, n: int = 1) -> object:
        """Advance by n jobs."""


def run_tasks(
    run_job: Callable[[T], R],
    jobs_at_once: int,
    stop: Event,
    jobs: Sequence[T],
    progress: ProgressBar | None = None,
) -> Generator[tuple[T, R | Exception], None, None]:
    """Run every job on `jobs_at_once` threads; yield each job with its result, or its exception, as it ends.

    On Ctrl-C, on an error of the caller and when the caller leaves the loop, `stop` is set, so that running jobs can
    save and return early. They are waited for; the others are cancelled. Wrap the call in contextlib.closing where the
    loop may be left.
    """
    executor = ThreadPoolExecutor(max(1, jobs_at_once), thread_name_prefix="task")
    try:
        futures = {executor.submit(run_job, job): job for job in jobs}
        for future in as_completed(futures):
            job = futures.pop(future)  # popped, so that memory does not grow with the results
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            if progress is not None:
                progress.update(1)
            yield job, (error if error is not None else future.result())
    except BaseException:
        stop.set()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
