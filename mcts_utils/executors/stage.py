"""What a stage, a driver and a worker process agree on: the stage's interface, the plan, parcels and news."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from mcts_utils.config import Settings
from mcts_utils.types import Actor, Environment

Job = Any  # an index, a Start, (index, name of a tree file): small, and sent as it is


def ignore(what: Any) -> None:
    """For whoever need not know."""


class Stage(Protocol):
    """A stage over many jobs. A worker process has its own one, made by `remote_factory`, over a folder of its own."""

    settings: Settings
    stop: Event  # set: end soon, save what is worth it
    usage: dict[str, Any]  # what the work took: calls, tokens, ...; set when `job_runner` ends

    @property
    def task_set(self) -> str:
        """The kind of server that the jobs' indices belong to; empty: any."""

    @property
    def folders(self) -> Mapping[str, Path]:
        """Name -> folder of the stage's files."""

    def input_files(self, job: Job) -> Sequence[Path]:
        """The files, below the folders, that work on the job goes on from; they need not exist."""

    def remote_factory(self) -> Callable[[Path], Stage]:
        """What makes this stage in another process, over a folder with a folder for each of the folders. Picklable."""

    def job_runner(
        self,
        make_actor: Callable[[], Actor] | None,
        make_environment: Callable[[], Environment],
        saved: Callable[[Path], None],
    ) -> AbstractContextManager[Callable[[Job], Any]]:
        """What does one job, for as long as the block lasts; many threads may call it. `saved` hears of each file."""
