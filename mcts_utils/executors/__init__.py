"""Run a stage's jobs: on threads of this process, or in worker processes on the nodes of a Ray cluster.

A stage says how one job runs (Stage.job_runner) and what a result means. The package ray is imported only where
EXECUTOR=ray is set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from mcts_utils.executors.failures import MAX_FAILURES, FailureGuard, with_second_try
from mcts_utils.executors.ledger import Ledger, LedgerPlan
from mcts_utils.executors.live import live_bar, open_log
from mcts_utils.executors.ray_cluster.driver import RayDriver
from mcts_utils.executors.ray_cluster.messages import WorkerLost, WorkerPlan
from mcts_utils.executors.spending import Spending, paid_text
from mcts_utils.executors.stage import Job, Saved, Stage, ignore
from mcts_utils.executors.threads import run_tasks
from mcts_utils.types import BudgetReached, MakeActor, MakeEnvironment

__all__ = ["MAX_FAILURES", "FailureGuard", "Job", "Saved", "Stage", "WorkerLost", "run_jobs", "ignore"]


@contextmanager
def run_jobs(
    stage: Stage,
    jobs: Sequence[Job],
    jobs_at_once: int,
    make_actor: MakeActor | None,
    make_environment: MakeEnvironment,
    make_bar: Callable[[], Any],
    show: Callable[[Any], None] = ignore,
) -> Iterator[tuple[Iterator[tuple[Job, Any]], Any]]:
    """Open an iterator of (job, its result or exception), in the order of their ends, and its progress bar.

    A job that a server or an endpoint failed comes once more, with the result of its second try after all others. At
    the end `stage.usage` is set.

    Args:
        jobs_at_once: in one process.
        make_bar: makes a terminal.Progress, which advances with every job. It is called when the jobs can begin, so
            that errors before that are not mixed with it.
        show: called with the bar when a thread of this process has written a file.

    Raises:
        InputError: EXECUTOR=ray, TENSORBOARD_DIR, WANDB_PROJECT or PRICES cannot be used, or a worker process cannot
            begin.
        BudgetReached: a limit is reached, and jobs are left.
    """
    asked = {name: model for name, model in stage.models.items() if make_actor or name != "actor"}
    plan = LedgerPlan.of(stage.settings, stage.manifest, asked)
    ledger = Ledger(plan) if plan else None
    stage.spending = Spending(stage.settings.reply_tokens, ledger)
    worked: list[Job] = []
    try:
        with open_log(stage.settings, type(stage).__name__.removesuffix("Stage").lower()) as log:
            if stage.settings.executor == "ray":
                workers = WorkerPlan.of(stage, jobs_at_once, make_actor, make_environment)
                driver = RayDriver(stage, workers, jobs, plan)
                worked = driver.worked
                with driver, live_bar(make_bar, stage.spending.figures, log) as bar:
                    yield with_second_try(driver.results, jobs, bar), bar
            else:
                actor = stage.spending.metered(make_actor)
                with (
                    stage.job_runner(actor, make_environment, lambda path: show(bar)) as run_job,
                    live_bar(make_bar, stage.spending.figures, log) as bar,
                ):
                    run = partial(run_tasks, partial(_noted, run_job, worked), jobs_at_once, stage.stop)
                    with closing(with_second_try(run, jobs, bar)) as results:
                        yield results, bar
    except BudgetReached as error:
        left = bar.total - bar.initial - len(worked)
        line = f"{left} of {bar.total} {bar.unit}s are left; the same command with a larger one goes on"
        raise BudgetReached(f"{error}: {line}") from error
    finally:
        if ledger:
            ledger.close()
    _tell_what_was_paid(stage, plan)


def _noted(run_job: Callable[[Job], Any], worked: list[Job], job: Job) -> Any:
    """Run a job; add it to those that worked."""
    result = run_job(job)
    worked.append(job)
    return result


def _tell_what_was_paid(stage: Stage, plan: LedgerPlan | None) -> None:
    """Note what was paid for in `stage.spending`, and print it where it is priced, limited, or another model's too."""
    judge = stage.usage.get("judge")
    paid = Ledger(plan).paid() if plan else {"judge": judge} if judge else {}
    if plan and paid:
        stage.spending.paid = {"paid": paid}
    if paid:
        print(f"paid so far: {paid_text(paid)}" if plan else paid_text(paid), file=sys.stderr)
