"""Will it fit: GPU memory and disk, estimated before hours are spent. The estimates are arithmetic, not measurements.

P weights in bfloat16 take 2 P bytes on every GPU; DeepSpeed's ZeRO-2 divides gradients (2 P) and AdamW's state in
float32 (12 P) among them. Activations are one hidden state a layer (the rest is computed again) and the logits.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mcts_utils.storage import files
from mcts_utils.training import checkpoint
from mcts_utils.training.launcher import Trainer
from mcts_utils.training.node_layout import Machines
from mcts_utils.training.settings import SAVE_STEPS, TrainSettings
from mcts_utils.types import InputError

GIB = 2**30
LOGIT_BYTES = 12  # bfloat16 and float32 logits, their gradient and the softmax
OVERHEAD = 4 * GIB  # CUDA's context, buckets, what the allocator cannot use
QUANTIZED_BYTES = 0.6  # per weight: 4 bits, scales, layers that stay as they are
CPU_WEIGHTS = 1_000_000_000  # more than these are not for a CPU


@dataclass(frozen=True, slots=True)
class Shape:
    """What the estimates need to know of a model."""

    weights: int
    linear: int  # sum of (rows + columns) over the matrices that adapters are put on
    layers: int
    hidden: int
    vocabulary: int

    @classmethod
    def of(cls, model: Path) -> Shape:
        """Read from the headers; no tensor is loaded."""
        config: dict[str, Any] = files.read_json(model / "config.json")
        weights = linear = 0
        for path in checkpoint.weight_files(model):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    shape = file.get_slice(name).get_shape()
                    weights += math.prod(shape)
                    adapted = len(shape) == 2 and "embed" not in name and name != checkpoint.HEAD
                    linear += sum(shape) if adapted else 0
        sizes = (config.get(name) or 0 for name in ("num_hidden_layers", "hidden_size", "vocab_size"))
        return cls(weights, linear, *sizes)


def trained_weights(settings: TrainSettings, shape: Shape) -> int:
    """Weights that the optimizer moves."""
    return settings.lora.rank * shape.linear if settings.lora else shape.weights


def gpu_bytes(settings: TrainSettings, shape: Shape, devices: int) -> int:
    """Memory that one GPU of `devices` needs."""
    share = devices if settings.deepspeed else 1
    fixed = shape.weights * (QUANTIZED_BYTES if settings.quantized else 2)
    if settings.method == "dpo" and not settings.lora:
        fixed *= 2  # the reference
    moved = trained_weights(settings, shape) * (14 / share + (2 if settings.lora else 0))
    tokens = settings.batch * settings.max_length * (2 if settings.method == "dpo" else 1)
    layers = shape.layers if settings.recompute else 16 * shape.layers
    activations = tokens * (2 * layers * shape.hidden + LOGIT_BYTES * shape.vocabulary)
    return int(fixed + moved + activations + OVERHEAD)


def disk_bytes(settings: TrainSettings, shape: Shape, iterations: int) -> int:
    """Space that checkpoints, the conversion in float32 and the result take at most at once."""
    trained = trained_weights(settings, shape)
    kept = 0 if settings.lora else 2 * shape.weights * (2 if settings.method == "dpo" else 1)
    checkpoints = 2 if iterations > SAVE_STEPS else 1  # the old one goes when the new one is whole
    return checkpoints * (kept + 12 * trained) + 6 * shape.weights


def check_devices(settings: TrainSettings, shape: Shape, trainer: Trainer, machines: Machines) -> None:
    """Refuse what this node's devices cannot hold.

    Raises:
        InputError: naming NPROC_PER_NODE or the memory.
    """
    if not trainer.gpus:
        if shape.weights > CPU_WEIGHTS:
            billions = shape.weights / 1e9
            raise InputError(
                f"--model_dir has {billions:.1f} billion weights and there is no GPU (--force 1 to try)"
            )
        return
    if machines.per_node > trainer.gpus:
        raise InputError(f"NPROC_PER_NODE is {machines.per_node}, and this machine has {trainer.gpus} GPUs")
    need = gpu_bytes(settings, shape, machines.devices)
    for number, free in enumerate(trainer.memory[: machines.per_node]):
        if free < need:
            raise InputError(
                f"GPU {number} has {free / GIB:.0f} GiB free, --config {settings.name} on {machines.devices} GPUs "
                f"needs about {need / GIB:.0f}: more GPUs, a lower --max_length, or a lora config (--force 1 to try)"
            )


def check_disk(settings: TrainSettings, shape: Shape, folder: Path, iterations: int) -> None:
    """Refuse a disk that would be full in the middle of it.

    Raises:
        InputError: naming the folder.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, need = shutil.disk_usage(there).free, disk_bytes(settings, shape, iterations)
    if free < need:
        raise InputError(
            f"--output_dir {folder}: {free / GIB:.1f} GiB free, about {need / GIB:.1f} GiB are needed for checkpoints "
            "and conversion (--force 1 to try)"
        )
