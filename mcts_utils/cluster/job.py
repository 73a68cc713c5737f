"""What a stage, a driver and a worker process agree on: the stage's interface, the plan, parcels and news."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from mcts_utils.config import Settings
from mcts_utils.storage import fingerprint, one_line
from mcts_utils.types import Actor, EnvError, Environment

Job = Any  # an index, a Start, (index, name of a tree file): small, and sent as it is


class WorkerLost(EnvError):
    """A job that went down with its worker process again and again."""


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


@dataclass(frozen=True)
class Plan:
    """What a worker process must know. It holds the API key: it is sent in messages and never written."""

    make_stage: Callable[[Path], Stage]
    make_actor: Callable[[], Actor] | None = field(repr=False)
    make_environment: Callable[[], Environment]
    roots: tuple[str, ...]
    slots: int  # jobs at once in one worker
    server: str  # URL of the environment server, which may be another one on every node
    goals: str  # the kind it must be of
    model_dir: str  # of a local model; empty: none
    weights: str  # what it must hold (storage.fingerprint)
    folder: str  # the driver's working folder, from where a relative model_dir counts

    @classmethod
    def of(
        cls,
        stage: Stage,
        slots: int,
        make_actor: Callable[[], Actor] | None,
        make_environment: Callable[[], Environment],
    ) -> Plan:
        """The plan of a stage."""
        settings = stage.settings
        model_dir = settings.model_dir if settings.local and make_actor else ""
        return cls(
            stage.elsewhere(),
            make_actor,
            make_environment,
            tuple(stage.roots),
            slots,
            settings.env_server_base,
            stage.goals,
            model_dir,
            fingerprint(model_dir),
            str(Path.cwd()),
        )


@dataclass(frozen=True)
class Parcel:
    """One job on its way to a worker."""

    number: int
    job: Job
    files: dict[str, bytes]  # "root/name below it" -> content


@dataclass(frozen=True)
class News:
    """What a worker has to say: the newest content of files, then what the jobs ended with."""

    files: dict[str, bytes] = field(default_factory=dict)
    ended: tuple[tuple[int, Any], ...] = ()  # (number of the parcel, result or exception)


def portable(error: Exception) -> Exception:
    """The exception if another process can have it, else an EnvError that says the same."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception:
        pass  # whatever keeps an exception from being copied, its text is enough
    return EnvError(one_line(error))
