"""Define the interface between a stage and the executors. It runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from mcts_utils.config import Settings
from mcts_utils.executors.spending import Spending
from mcts_utils.types import MakeActor, MakeEnvironment

Saved = Callable[[Path], None]  # is told of each file that was written
Job = Any  # an index, an EpisodeStart or (index, name of a tree file): small, and picklable


def ignore(value: Any) -> None:
    """Do nothing: the default of callbacks."""


class Stage(Protocol):
    """A stage over many jobs. Each worker process makes its own one with `remote_factory`, over a folder of its own."""

    settings: Settings
    stop: Event  # set: running jobs save what they can and end soon
    usage: dict[str, Any]  # calls, tokens, ... of the jobs; set when the context of `job_runner` ends
    manifest: Path  # its file; what is paid for is written beside it
    models: dict[str, Settings]  # of each that may be asked: `actor`, and `judge` if it is another
    spending: Spending  # what this process asks; set before `job_runner` is called

    @property
    def server_kind(self) -> str:
        """Return the kind of server that the jobs' indices belong to; empty: any."""

    @property
    def folders(self) -> Mapping[str, Path]:
        """Return the folders of the stage's files: name -> folder."""

    def input_files(self, job: Job) -> Sequence[Path]:
        """Return the files below the folders that the job reads; they need not exist."""

    def remote_factory(self) -> Callable[[Path], Stage]:
        """Return a picklable function that makes this stage over a folder with a subfolder for each of `folders`."""

    def job_runner(
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, saved: Saved
    ) -> AbstractContextManager[Callable[[Job], Any]]:
        """Return a context whose value runs one job and may be called from many threads at once.

        Args:
            make_actor: None where the jobs need none.
            saved: called with the path of each file after it was written.
        """
