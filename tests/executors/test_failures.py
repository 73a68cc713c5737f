"""When failures mean that the server is at fault, not the jobs, and which jobs get a second try."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from mcts_utils.envs.errors import ServerGone
from mcts_utils.executors import FailureGuard
from mcts_utils.executors.failures import with_second_try
from mcts_utils.types import ContextOverflow, EnvError, InputError

ERROR = EnvError("no answer")


def test_failures_in_a_row_make_a_run_hopeless_and_a_success_ends_the_row():
    guard = FailureGuard()
    assert [guard.add_failure(job, ERROR) for job in (0, 1)] == [False, False]
    guard.add_success(2)
    assert [guard.add_failure(job, ERROR) for job in (3, 4, 5)] == [False, False, True]
    assert (guard.worked, guard.failed) == (1, 5)


def test_a_second_failure_of_a_job_is_none_more_and_a_later_success_takes_it_back():
    guard = FailureGuard(limit=2)
    guard.require_success(0, "trees", ERROR)
    guard.require_success(0, "trees", ERROR)
    assert guard.failed == 1
    guard.add_success(0)
    assert (guard.worked, guard.failed) == (1, 0)


def test_a_run_goes_on_if_a_job_ever_worked_or_got_further():
    for worked, progress in ((0, False), (1, False), (0, True)):
        guard = FailureGuard(worked, limit=2)
        guard.require_success(0, "trees", ERROR, lambda progress=progress: progress)
        if worked or progress:
            guard.require_success(1, "trees", ERROR, lambda progress=progress: progress)
        else:
            line = "^2 trees failed and none worked; the last: EnvError: no answer$"
            with pytest.raises(InputError, match=line):
                guard.require_success(1, "trees", ERROR)


def test_a_server_that_is_gone_ends_the_run_at_once():
    with pytest.raises(InputError, match="^no answer for 9 s; what is finished is kept"):
        FailureGuard(worked=5).require_success(0, "trees", ServerGone("no answer for 9 s"))


def test_jobs_that_a_server_failed_are_tried_again_at_the_end():
    errors = {1: [ERROR], 2: [ERROR, ERROR], 3: [InputError("bad")], 4: [ContextOverflow("long")]}
    bars = []

    def run(jobs: Sequence[int], bar: Any) -> Generator[tuple[int, Any], None, None]:
        bars.append(bar)
        for job in jobs:
            yield job, errors[job].pop(0) if errors.get(job) else "done"

    results = list(with_second_try(run, [0, 1, 2, 3, 4], "bar"))
    assert [job for job, _ in results] == [0, 1, 2, 3, 4, 1, 2]
    assert [str(result) for _, result in results[5:]] == ["done", "no answer"]
    assert bars == ["bar", None]


def test_a_full_disk_ends_the_run_and_a_broken_socket_does_not():
    full = OSError(28, "No space left on device", "out/search_results_3.json")
    with pytest.raises(OSError, match="No space left on device: 'out/search_results_3.json'"):
        FailureGuard(worked=5).require_success(3, "trees", full)
    FailureGuard(worked=5).require_success(3, "trees", ConnectionResetError(104, "Connection reset by peer"))
