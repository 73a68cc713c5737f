"""Tell a hopeless run, whose server or endpoint is at fault, from single jobs that fail, which get a second try."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from mcts_utils.types import (
    ActorError,
    BudgetReached,
    ContextOverflow,
    EnvError,
    InputError,
    ServiceGone,
    one_line,
)

T = TypeVar("T")
MAX_FAILURES = 3  # in a row


def with_second_try(
    run: Callable[[Sequence[T], Any], Generator[tuple[T, Any], None, None]], jobs: Sequence[T], bar: Any
) -> Generator[tuple[T, Any], None, None]:
    """Yield each job with its result or exception; those that a server or an endpoint failed once more at the end.

    A job that fails is thus yielded twice, with its exception first.

    Args:
        run: runs jobs and advances a progress bar, unless that is None.
    """
    again = []
    with closing(run(jobs, bar)) as results:
        for job, result in results:
            if may_work_later(result):
                again.append(job)
            yield job, result
    if again:
        with closing(run(again, None)) as results:
            yield from results


def may_work_later(result: Any) -> bool:
    """Return True for an error of a server or an endpoint that may not come again."""
    known = isinstance(result, (EnvError, ActorError))
    return known and not isinstance(result, (ServiceGone, ContextOverflow))


class FailureGuard:
    """Count the jobs that worked and those that failed."""

    def __init__(self, worked: int = 0, limit: int = MAX_FAILURES) -> None:
        """Begin with the jobs that worked in earlier runs; `limit` failures in a row make a run hopeless."""
        self.worked = worked
        self._failed: dict[Any, str] = {}  # job -> its last error
        self._in_a_row, self._limit = 0, limit

    @property
    def failed(self) -> int:
        """Return the number of jobs that failed and have not worked since."""
        return len(self._failed)

    @property
    def first(self) -> str:
        """Return the error of the first of them, or an empty text."""
        return next(iter(self._failed.values()), "")

    def add_success(self, job: Any) -> None:
        """Count a job that worked."""
        self.worked += 1
        self._failed.pop(job, None)
        self._in_a_row = 0

    def add_failure(self, job: Any, error: Exception) -> bool:
        """Count a job that failed and return True if the run is hopeless.

        Raises:
            InputError: if a server or an endpoint is gone.
            BudgetReached: `error`.
            OSError: `error`, if a file could not be written: a full disk ends the run before more is paid for.
        """
        if isinstance(error, OSError) and error.filename:
            raise error
        if isinstance(error, BudgetReached):
            raise error
        if isinstance(error, ServiceGone):
            raise InputError(f"{error}; what is finished is kept, and the same command continues") from error
        self._in_a_row += job not in self._failed
        self._failed[job] = one_line(error)
        return self._in_a_row >= self._limit

    def require_success(
        self, job: Any, unit: str, error: Exception, progress: Callable[[], bool] = lambda: False
    ) -> None:
        """Count a job that failed with `error`; `unit` is the name of such jobs.

        Args:
            progress: returns True if unfinished jobs have saved a part of their work.

        Raises:
            InputError: if the run is hopeless, and no job has worked or made progress; or if a server or an endpoint is
                gone.
        """
        if self.add_failure(job, error) and not self.worked and not progress():
            raise InputError(f"{self.failed} {unit} failed and none worked; the last: {one_line(error)}")
