"""Define the messages between the driver and a worker process. It knows no Ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcts_utils.executors.ray_cluster.remote_ledger import RemoteLedger
from mcts_utils.executors.stage import Job, Stage
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import EnvError, MakeActor, MakeEnvironment, one_line


class WorkerLost(EnvError):
    """A job was lost with its worker process too often."""


@dataclass(frozen=True)
class WorkerPlan:
    """Everything that a worker process needs. It holds the API key, so it is sent in messages and never written."""

    make_stage: Callable[[Path], Stage]
    make_actor: MakeActor | None = field(repr=False)
    make_environment: MakeEnvironment
    folders: tuple[str, ...]  # names of the stage's folders
    jobs_at_once: int  # in one worker
    server: str  # URL of the environment server; a node may have its own server there
    server_kind: str  # the kind that the server must be of; empty: any
    model_dir: str  # of a local model; empty: none
    weights: str  # fingerprint that the model must have (storage.manifest)
    folder: str  # the driver's working folder, to which a relative model_dir refers
    ledger: RemoteLedger | None = None  # where something is limited or priced
    process: str = ""  # the worker's name there

    @classmethod
    def of(
        cls, stage: Stage, jobs_at_once: int, make_actor: MakeActor | None, make_environment: MakeEnvironment
    ) -> WorkerPlan:
        """Return the plan of a stage for its workers."""
        settings = stage.settings
        model_dir = settings.model_dir if settings.local and make_actor else ""
        made = stage.remote_factory(), make_actor, make_environment, tuple(stage.folders)
        server = settings.env_server_base, stage.server_kind
        return cls(*made, jobs_at_once, *server, model_dir, fingerprint(model_dir), str(Path.cwd()))


@dataclass(frozen=True)
class JobMessage:
    """One job for a worker, with its input files."""

    number: int
    job: Job
    files: dict[str, bytes]  # "name of the folder/path below it" -> content


@dataclass(frozen=True)
class WorkerUpdate:
    """What happened at a worker since its last update."""

    files: dict[str, bytes] = field(default_factory=dict)  # name as in JobMessage -> newest content
    ended: tuple[tuple[int, Any], ...] = ()  # (number of the job, result or exception)


def portable(error: Exception) -> Exception:
    """Return the exception if it can be pickled, else an EnvError with its text."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception:
        pass  # its class may raise anything when it is copied
    return EnvError(one_line(error))
