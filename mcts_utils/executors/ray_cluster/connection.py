"""Connect to a Ray cluster and find the nodes with resources for workers. It starts no workers.

This is the only module that imports ray.
"""

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

PACKAGE = Path(__file__).resolve().parents[2]  # sent to the nodes, so that workers run the driver's code
CONNECT_SECONDS = 5.0  # for the head node to accept a connection; Ray itself would try for minutes


@dataclass(frozen=True)
class NodeSlot:
    """The resources for one worker on a node."""

    node_id: str  # Ray's
    host: str  # the node's address

    def strategy(self) -> Any:
        """Return Ray's scheduling strategy: on this node, or on another one if it is gone."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self.node_id, soft=True)


def connect(settings: Settings) -> Any:
    """Connect and return the module ray. Its `shutdown()` disconnects, and ends the cluster if RAY_ADDRESS is "local".

    Raises:
        InputError: ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "EXECUTOR=ray: the package ray is not installed (pip install 'ray>=2.60,<3')"
        ) from error
    address = settings.ray_address or "auto"
    check_listening(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    options["runtime_env"] = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__", "**/node_modules"]}
    try:
        with kept_signals():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise InputError(f"RAY_ADDRESS={address}: {' '.join(str(error).split())}") from error
    return ray


def check_listening(address: str) -> None:
    """Check that host:port accepts connections; an address without a port is not checked.

    Raises:
        InputError: it does not.
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
    """Restore the handler of SIGTERM at the end: Ray's own exits at once, before the last files are stored."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def node_slots(ray: Any, settings: Settings) -> list[NodeSlot]:
    """Return slots for RAY_WORKERS workers, spread over the nodes; by default one per node, or per share of a GPU.

    Raises:
        InputError: the cluster's resources do not suffice.
    """
    cpus, gpus = settings.ray_cpus_per_worker, settings.ray_gpus_per_worker
    each = f"RAY_CPUS_PER_WORKER={cpus:g} and RAY_GPUS_PER_WORKER={gpus:g}"
    nodes = []  # (slot, number of workers that the node has resources for)
    for node in ray.nodes():
        resources = node["Resources"]
        fits = min(
            int(resources.get("CPU", 0) / cpus) if cpus else 10**6,
            int(resources.get("GPU", 0) / gpus) if gpus else 10**6,
        )
        if node["Alive"] and fits:
            nodes.append((NodeSlot(node["NodeID"], node["NodeManagerAddress"]), fits))
    rounds = max((fits for _, fits in nodes), default=0)
    found = [slot for turn in range(rounds) for slot, fits in nodes if fits > turn]
    wanted = settings.ray_workers or (len(found) if gpus else len(nodes))
    if not wanted or wanted > len(found):
        asked = f"RAY_WORKERS={settings.ray_workers}: " if settings.ray_workers else ""
        raise InputError(f"{asked}the Ray cluster has room for {len(found)} workers with {each}")
    return found[:wanted]
