"""The Ray cluster itself: the connection, and where in it workers may sit. The only module that imports ray."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.types import InputError

PACKAGE = Path(__file__).resolve().parents[2]  # travels to the nodes, so that workers run the driver's code
CONNECT_SECONDS = 5.0  # until the head node accepts a connection; Ray itself would try for minutes


@dataclass(frozen=True)
class NodeSlot:
    """Room for one worker."""

    node: str  # Ray's id of the node
    host: str  # its address

    def strategy(self) -> Any:
        """Ray's scheduling: on this node, on another one where it is gone."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self.node, soft=True)


def connect(settings: Settings) -> Any:
    """The module ray, connected; `shutdown()` ends the connection, and the cluster where RAY_ADDRESS is "local".

    Raises:
        InputError: ray is not installed, or no cluster is there.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "EXECUTOR=ray: the package ray is not installed (pip install 'ray>=2.60,<3')"
        ) from error
    address = settings.ray_address or "auto"
    reach(address)
    how: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    how["runtime_env"] = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__"]}
    try:
        with kept_signals():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **how)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise InputError(f"RAY_ADDRESS={address}: {' '.join(str(error).split())}") from error
    return ray


def reach(address: str) -> None:
    """Nothing, if somebody listens at host:port.

    Raises:
        InputError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster answers ({error})") from error


@contextmanager
def kept_signals() -> Iterator[None]:
    """Ray makes SIGTERM exit at once; whoever stops a run wants its files brought home first."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def node_slots(ray: Any, settings: Settings) -> list[NodeSlot]:
    """Where the workers go: RAY_WORKERS of them, node by node; by default one per node, or one per share of a GPU.

    Raises:
        InputError: the cluster has no room for as many.
    """
    cpus, gpus = settings.ray_cpus_per_worker, settings.ray_gpus_per_worker
    each = f"RAY_CPUS_PER_WORKER={cpus:g} and RAY_GPUS_PER_WORKER={gpus:g}"
    room = []
    for node in ray.nodes():
        has = node["Resources"]
        fits = min(
            int(has.get("CPU", 0) / cpus) if cpus else 10**6,
            int(has.get("GPU", 0) / gpus) if gpus else 10**6,
        )
        if node["Alive"] and fits:
            room.append((NodeSlot(node["NodeID"], node["NodeManagerAddress"]), fits))
    rounds = max((fits for _, fits in room), default=0)
    found = [place for turn in range(rounds) for place, fits in room if fits > turn]
    wanted = settings.ray_workers or (len(found) if gpus else len(room))
    if not wanted or wanted > len(found):
        asked = f"RAY_WORKERS={settings.ray_workers}: " if settings.ray_workers else ""
        raise InputError(f"{asked}the Ray cluster has room for {len(found)} workers with {each}")
    return found[:wanted]
