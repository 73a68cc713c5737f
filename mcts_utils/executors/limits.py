"""Check that this process may have the threads and connections that CONCURRENCY and WORKERS ask for."""

from __future__ import annotations

import resource
from pathlib import Path

from mcts_utils.config import Settings
from mcts_utils.types import InputError

SPARE = 100  # files and threads beside those of the jobs
CONTAINER = Path("/sys/fs/cgroup")  # of this process (Linux, version 2)


def check_limits(settings: Settings, jobs: int) -> None:
    """Check the limits, with one connection for each thread; raise that of open files as far as it goes.

    Args:
        jobs: threads that hold a session with the environment's server.

    Raises:
        InputError: naming the variables and the limit.
    """
    if settings.executor == "ray":
        return  # the jobs are in other processes
    need = jobs + settings.in_flight + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and soft < need <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    files = hard if hard != resource.RLIM_INFINITY else need
    threads, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    left = [
        (files, "open files", "ulimit -n"),
        (_left_of_container(), "more threads", "pids.max of its container"),
        (threads if threads != resource.RLIM_INFINITY else None, "threads", "ulimit -u"),
    ]
    for most, what, limit in left:
        if most is not None and most < need:
            asked = f"CONCURRENCY={settings.concurrency or 'auto'} and WORKERS={settings.workers}"
            raise InputError(f"{asked} need {need} {what}, and this process may have {most} ({limit})")


def _left_of_container() -> int | None:
    """Return the number of threads that may still be started here, or None without a limit."""
    try:
        most, now = ((CONTAINER / f"pids.{name}").read_text().strip() for name in ("max", "current"))
        return None if most == "max" else int(most) - int(now)
    except (OSError, ValueError):
        return None
