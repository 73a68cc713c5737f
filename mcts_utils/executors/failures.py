"""Tell a hopeless run, whose server or endpoint is at fault, from single jobs that fail."""

from __future__ import annotations

from mcts_utils.types import InputError, one_line

MAX_FAILURES = 3  # in a row


class FailureGuard:
    """Count the jobs that worked and those that failed."""

    def __init__(self, worked: int = 0, limit: int = MAX_FAILURES) -> None:
        """Begin with the jobs that worked in earlier runs; `limit` failures in a row make a run hopeless."""
        self.worked, self.failed = worked, 0
        self._in_a_row, self._limit = 0, limit

    def add_success(self) -> None:
        """Count a job that worked."""
        self.worked += 1
        self._in_a_row = 0

    def add_failure(self) -> bool:
        """Count a job that failed and return True if the run is hopeless."""
        self.failed += 1
        self._in_a_row += 1
        return self._in_a_row >= self._limit

    def require_success(self, unit: str, error: Exception) -> None:
        """Count a job that failed with `error`; `unit` is the name of such jobs.

        Raises:
            InputError: if the run is hopeless and no job has worked at all.
        """
        if self.add_failure() and not self.worked:
            raise InputError(f"{self.failed} {unit} failed and none worked; the last: {one_line(error)}")
