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


def nothing(what: Any) -> None:
    """For whoever need not know."""


class Stage(Protocol):
    """A stage over many jobs. A worker process has one of its own, made by `elsewhere`, over a folder of its own."""

    settings: Settings
    stop: Event  # set: end soon, save what is worth it
    usage: dict[str, Any]  # what the work took: calls, tokens, ...; set when `working` ends

    @property
    def goals(self) -> str:
        """The kind of server that the jobs' indices belong to; empty: any."""

    @property
    def roots(self) -> Mapping[str, Path]:
        """Name -> folder of the stage's files."""

    def files(self, job: Job) -> Sequence[Path]:
        """The files, below the roots, that work on the job goes on from; they need not exist."""

    def elsewhere(self) -> Callable[[Path], Stage]:
        """What makes this stage in another process, over a folder with a folder for each of the roots. Picklable."""

    def working(
        self,
        make_actor: Callable[[], Actor] | None,
        make_environment: Callable[[], Environment],
        saved: Callable[[Path], None],
    ) -> AbstractContextManager[Callable[[Job], Any]]:
        """What does one job, for as long as the block lasts; many threads may call it. `saved` hears of each file."""
