"""Where a stage's jobs are done: on threads of this process, or by worker processes all over a Ray cluster.

A stage says how one job is done (Stage.job_runner) and what a result means; run_jobs brings both together. job.py and
worker.py know no Ray, team.py no stage; ray itself is imported only where EXECUTOR=ray is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from mcts_utils.executors.ray_cluster.driver import RayDriver
from mcts_utils.executors.ray_cluster.messages import WorkerLost, WorkerPlan
from mcts_utils.executors.stage import Job, Stage, ignore
from mcts_utils.executors.threads import run_tasks
from mcts_utils.types import Actor, Environment

__all__ = ["Job", "Stage", "WorkerLost", "run_jobs", "ignore"]


@contextmanager
def run_jobs(
    stage: Stage,
    jobs: Sequence[Job],
    slots: int,
    make_actor: Callable[[], Actor] | None,
    make_environment: Callable[[], Environment],
    make_bar: Callable[[], Any],
    show: Callable[[Any], None] = ignore,
) -> Iterator[tuple[Iterator[tuple[Job, Any]], Any]]:
    """Each job with its result, or its exception, as it ends; and the bar. `stage.usage` is set at the end.

    Args:
        slots: jobs at once in one process.
        make_bar: a tqdm bar that moves on with every job; made when the work can begin, so that errors are one line.
        show: called with the bar when a thread of this process has written a file.

    Raises:
        InputError: EXECUTOR=ray cannot be used, or a worker process cannot begin.
    """
    if stage.settings.executor == "ray":
        plan = WorkerPlan.of(stage, slots, make_actor, make_environment)
        with RayDriver(stage, plan, jobs) as team, make_bar() as bar:
            yield team.results(bar), bar
        return
    with (
        stage.job_runner(make_actor, make_environment, lambda path: show(bar)) as work,
        make_bar() as bar,
        closing(run_tasks(jobs, work, slots, bar, stage.stop)) as results,
    ):
        yield results, bar
