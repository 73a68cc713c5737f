"""Estimate before a run whether GPU memory and disk space suffice. The estimates are arithmetic, not measurements.

P weights in bfloat16 take 2 P bytes on every GPU; DeepSpeed's ZeRO-2 divides gradients (2 P bytes) and AdamW's state in
float32 (12 P bytes) among the GPUs. Activations are one hidden state per layer (the others are computed again) and the
logits.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.storage import files
from mcts_utils.training import checkpoint
from mcts_utils.training.launcher import Trainer
from mcts_utils.training.node_layout import NodeLayout
from mcts_utils.training.settings import FULL, SAVE_STEPS, TINY_ACTOR, TrainSettings
from mcts_utils.types import InputError

GIB = 2**30
LOGIT_BYTES = 12  # per logit: in bfloat16 and float32, its gradient and the softmax
OVERHEAD = 4 * GIB  # CUDA's context, buckets, memory that the allocator cannot use
QUANTIZED_BYTES = 0.6  # per weight: 4 bits, scales, layers that are not quantized
CPU_WEIGHTS = 1_000_000_000  # models with more weights are refused on a CPU
SMALL_MODEL = 20_000_000  # weights: a model below it is trained as the bundled actor where no config is named


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The numbers of a model that the estimates need."""

    weights: int
    linear: int  # sum of (rows + columns) over the matrices that get adapters
    layers: int
    hidden: int
    vocabulary: int

    @classmethod
    def from_folder(cls, model: Path) -> ModelSize:
        """Read config.json and the headers of the weights; no tensor is loaded."""
        config: dict[str, Any] = files.read_json(model / "config.json")
        weights = linear = 0
        for path in checkpoint.weight_files(model):
            with checkpoint.header(path) as file:
                for name in file.keys():
                    shape = file.get_slice(name).get_shape()
                    weights += math.prod(shape)
                    adapted = len(shape) == 2 and "embed" not in name and name != checkpoint.HEAD
                    linear += sum(shape) if adapted else 0
        sizes = (config.get(name) or 0 for name in ("num_hidden_layers", "hidden_size", "vocab_size"))
        return cls(weights, linear, *sizes)


def trained_weights(settings: TrainSettings, size: ModelSize) -> int:
    """Return the number of weights that are trained."""
    return settings.lora.rank * size.linear if settings.lora else size.weights


def gpu_bytes(settings: TrainSettings, size: ModelSize, devices: int) -> int:
    """Return the memory that each of `devices` GPUs needs, in bytes."""
    share = devices if settings.deepspeed else 1
    fixed = size.weights * (QUANTIZED_BYTES if settings.quantized else 2)
    if settings.method == "dpo" and not settings.lora:
        fixed *= 2  # the frozen reference model
    trained = trained_weights(settings, size) * (14 / share + (2 if settings.lora else 0))
    tokens = settings.batch * settings.max_length * (2 if settings.method == "dpo" else 1)
    layers = size.layers if settings.recompute else 16 * size.layers
    activations = tokens * (2 * layers * size.hidden + LOGIT_BYTES * size.vocabulary)
    return int(fixed + trained + activations + OVERHEAD)


def disk_bytes(settings: TrainSettings, size: ModelSize, iterations: int) -> int:
    """Return the most space that checkpoints, the conversion in float32 and the result take at once, in bytes."""
    trained = trained_weights(settings, size)
    kept = 0 if settings.lora else 2 * size.weights * (2 if settings.method == "dpo" else 1)
    checkpoints = 2 if iterations > SAVE_STEPS else 1  # the old one is deleted when the new one is complete
    return checkpoints * (kept + 12 * trained) + 6 * size.weights


def check_architecture(model: Path, trainer: Trainer) -> None:
    """Check that the trainer's transformers knows the model.

    Raises:
        InputError: naming the architecture, and how such a model is trained.
    """
    kind = files.read_json(model / "config.json").get("model_type")
    if trainer.models and kind not in trainer.models:
        raise InputError(
            f"--model_dir {model}: the trainer's transformers {trainer.versions.get('transformers')} does not know "
            f"model_type {kind!r}: write the rows with export.py --format tokens, train with scripts/train_trl.py"
        )


def check_vocabulary(model: Path, size: ModelSize, rows: Iterable[Mapping[str, list[int]]]) -> None:
    """Check that the model has an embedding for every token of the rows; raise InputError otherwise."""
    largest = max(max(ids) for row in rows for name, ids in row.items() if name.endswith("ids"))
    if 0 < size.vocabulary <= largest:
        raise InputError(
            f"--model_dir {model}: its tokenizer writes token {largest}, and vocab_size is {size.vocabulary}"
        )


def check_devices(settings: TrainSettings, size: ModelSize, trainer: Trainer, layout: NodeLayout) -> None:
    """Check that this node's devices can hold the training.

    Raises:
        InputError: naming the model size, NPROC_PER_NODE or the memory of a GPU.
    """
    if not trainer.gpus:
        if size.weights > CPU_WEIGHTS:
            billions = size.weights / 1e9
            raise InputError(
                f"--model_dir has {billions:.1f} billion weights and there is no GPU (--force 1 to try)"
            )
        return
    if layout.per_node > trainer.gpus:
        raise InputError(f"NPROC_PER_NODE is {layout.per_node}, and this machine has {trainer.gpus} GPUs")
    need = gpu_bytes(settings, size, layout.devices)
    for number, free in enumerate(trainer.memory[: layout.per_node]):
        if free < need:
            raise InputError(
                f"GPU {number} has {free / GIB:.0f} GiB free, --config {settings.name} on {layout.devices} GPUs "
                f"needs about {need / GIB:.0f}: more GPUs, a lower --max_length, or a lora config (--force 1 to try)"
            )


def check_disk(settings: TrainSettings, size: ModelSize, folder: Path, iterations: int) -> None:
    """Check that the disk has room for the whole run; raise InputError naming the folder."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, need = shutil.disk_usage(existing).free, disk_bytes(settings, size, iterations)
    if free < need:
        raise InputError(
            f"--output_dir {folder}: {free / GIB:.1f} GiB free, about {need / GIB:.1f} GiB are needed for checkpoints "
            "and conversion (--force 1 to try)"
        )


def default_config(model: Path) -> TrainSettings:
    """Return the config of a model where none is named: that of the bundled actor for small ones, else `full`."""
    return TINY_ACTOR if ModelSize.from_folder(model).weights < SMALL_MODEL else FULL
