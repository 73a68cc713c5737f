"""Many tasks at once on threads, each behind its own guard. It knows nothing of trees, records or environments."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from types import FrameType
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ProgressBar(Protocol):
    """What a tqdm bar is to the scheduler."""

    def update(self, n: int = 1) -> object:
        """Move on by n tasks."""


def run_tasks(
    jobs: Sequence[T],
    work: Callable[[T], R],
    workers: int,
    progress: ProgressBar | None = None,
    stop: Event | None = None,
) -> Generator[tuple[T, R | Exception], None, None]:
    """Run `work` on every job with `workers` threads; yield each job with its result, or its exception, as it ends.

    On Ctrl-C, on an error of the caller and when the caller leaves the loop, `stop` is set, so that running jobs can
    save and return early; they are waited for, and the others are cancelled. Wrap the call in contextlib.closing where
    you may leave the loop.
    """
    stop = stop or Event()
    executor = ThreadPoolExecutor(max(1, workers), thread_name_prefix="task")
    try:
        futures = {executor.submit(work, job): job for job in jobs}
        for future in as_completed(futures):
            job = futures.pop(future)  # popped, so that results of long runs are not all kept
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


def sigterm_as_interrupt() -> None:
    """From now on SIGTERM ends the run as Ctrl-C does. For entry scripts; main thread only."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
