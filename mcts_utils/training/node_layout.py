"""The numbers of nodes and processes: from NPROC_PER_NODE, NNODES, NODE_RANK, ADDR and PORT, or from Slurm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mcts_utils.types import InputError

PORT = 29500
MOST = 65535  # the largest port; there are fewer nodes and GPUs, too
# First, and their number; chosen by job id, so that jobs on one node do not collide.
SLURM_PORTS = (20000, 10000)


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """The nodes of a run and the processes on each; the variables are those of XTuner's launcher."""

    per_node: int = 0  # NPROC_PER_NODE: devices used on each node; 0: not set
    nodes: int = 1  # NNODES
    rank: int = 0  # NODE_RANK: number of this node, from 0
    address: str = ""  # ADDR: host of node 0; needed with several nodes
    port: int = PORT  # PORT: on node 0

    @property
    def devices(self) -> int:
        """Return the number of processes on all nodes; each takes its own micro-batch."""
        return self.per_node * self.nodes

    def with_default_devices(self, count: int) -> NodeLayout:
        """Return the layout with `count` devices on each node (at least 1), if their number is not set."""
        return self if self.per_node else replace(self, per_node=max(1, count))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> NodeLayout:
        """Read the variables; in a Slurm step, Slurm supplies those that are not set.

        Raises:
            InputError: naming the variable that is missing or not a number.
        """
        defaults = {} if environ.get("NNODES") else slurm_variables(environ)
        environ = defaults | {name: value for name, value in environ.items() if value}
        nodes = _number(environ, "NNODES", 1, 1)
        rank = _number(environ, "NODE_RANK", 0, 0)
        if rank >= nodes:
            raise InputError(f"NODE_RANK must be below NNODES={nodes}, not {rank}")
        if nodes > 1 and not environ.get("ADDR"):
            raise InputError(f"ADDR is not set: with NNODES={nodes} it names the host of node 0")
        per_node = _number(environ, "NPROC_PER_NODE", 1, 0)
        return cls(per_node, nodes, rank, environ.get("ADDR", ""), _number(environ, "PORT", 1, PORT))


def slurm_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return NNODES and the other variables as Slurm gives them; empty outside of Slurm.

    Slurm starts one task on each node, which starts its own processes.

    Raises:
        InputError: if the step does not have exactly one task on each node.
    """
    nodes = environ.get("SLURM_STEP_NUM_NODES")
    if not nodes:
        if int(environ.get("SLURM_JOB_NUM_NODES") or 1) > 1:
            raise InputError("SLURM_JOB_NUM_NODES is over 1: start this with srun --ntasks-per-node=1")
        return {}
    if environ.get("SLURM_STEP_NUM_TASKS", nodes) != nodes:
        tasks = environ["SLURM_STEP_NUM_TASKS"]
        raise InputError(f"SLURM_STEP_NUM_TASKS is {tasks} on {nodes} nodes: use srun --ntasks-per-node=1")
    first, count = SLURM_PORTS
    found = {
        "NNODES": nodes,
        "NODE_RANK": environ.get("SLURM_NODEID", "0"),
        "ADDR": first_host(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")),
        "PORT": str(first + int(environ.get("SLURM_JOB_ID") or 0) % count),
        "NPROC_PER_NODE": environ.get("SLURM_GPUS_ON_NODE", ""),
    }
    return {name: value for name, value in found.items() if value}


def first_host(nodes: str) -> str:
    """Return the first host of a Slurm node list: "gpu-03" of "gpu-[03-05,9],x1"."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _number(environ: Mapping[str, str], name: str, least: int, default: int) -> int:
    value = environ.get(name) or ""
    if not value:
        return default
    if not re.fullmatch(r"[0-9]{1,5}", value) or not least <= int(value) <= MOST:
        raise InputError(f"{name} must be a whole number between {least} and {MOST}: {value[:60]!r}")
    return int(value)
