"""What a driver and a worker process send each other. Knows no Ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcts_utils.executors.stage import Job, Stage
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import Actor, EnvError, Environment, one_line


class WorkerLost(EnvError):
    """A job that went down with its worker process again and again."""


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker process must know. It holds the API key: it is sent in messages and never written."""

    make_stage: Callable[[Path], Stage]
    make_actor: Callable[[], Actor] | None = field(repr=False)
    make_environment: Callable[[], Environment]
    folders: tuple[str, ...]
    slots: int  # jobs at once in one worker
    server: str  # URL of the environment server, which may be another one on every node
    task_set: str  # the kind it must be of
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
    ) -> WorkerPlan:
        """The plan of a stage."""
        settings = stage.settings
        model_dir = settings.model_dir if settings.local and make_actor else ""
        return cls(
            stage.remote_factory(),
            make_actor,
            make_environment,
            tuple(stage.folders),
            slots,
            settings.env_server_base,
            stage.task_set,
            model_dir,
            fingerprint(model_dir),
            str(Path.cwd()),
        )


@dataclass(frozen=True)
class JobMessage:
    """One job on its way to a worker."""

    number: int
    job: Job
    files: dict[str, bytes]  # "name of the folder/path below it" -> content


@dataclass(frozen=True)
class WorkerUpdate:
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
