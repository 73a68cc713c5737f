"""When failures mean that the server is at fault, not the jobs."""

from __future__ import annotations

import pytest

from mcts_utils.executors import FailureGuard
from mcts_utils.types import EnvError, InputError


def test_failures_in_a_row_make_a_run_hopeless_and_a_success_ends_the_row():
    guard = FailureGuard()
    assert [guard.add_failure(), guard.add_failure()] == [False, False]
    guard.add_success()
    assert [guard.add_failure() for _ in range(3)] == [False, False, True]
    assert (guard.worked, guard.failed) == (1, 5)


def test_a_run_goes_on_if_a_job_ever_worked():
    error = EnvError("no answer")
    for worked in (0, 1):
        guard = FailureGuard(worked, limit=2)
        guard.require_success("trees", error)
        if worked:
            guard.require_success("trees", error)
        else:
            with pytest.raises(
                InputError, match="^2 trees failed and none worked; the last: EnvError: no answer$"
            ):
                guard.require_success("trees", error)
