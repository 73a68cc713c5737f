"""Settings of a low-rank adapter, and its merging into the model's weights: W + alpha / r * B A, in float32.

The adapter of a 4-bit training is added to the original weights, not to their 4-bit form.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mcts_utils.storage import files
from mcts_utils.training.checkpoint import save_tensors, weight_files
from mcts_utils.training.launcher import TrainingFailed
from mcts_utils.training.settings import Lora

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


def write_settings(adapter: Path, lora: Lora, model: Path) -> None:
    """Write the settings that PEFT and inference servers read beside an adapter's weights; the rest are defaults."""
    with safe_open(adapter / WEIGHTS, "pt") as file:
        modules = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in file.keys()}
    kind = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model),
        "bias": "none",
    }
    values = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "inference_mode": True}
    files.write_json(adapter / SETTINGS, kind | values | {"target_modules": sorted(modules)})


def merge(adapter: Path, model: Path, target: Path) -> None:
    """Write the model's tensors with the adapter added, in float32, to files of the same names in `target`.

    Raises:
        TrainingFailed: if the adapter does not fit the model, or is of a kind that is not trained here.
    """
    settings = files.read_json(adapter / SETTINGS)
    if settings.get("use_rslora") or settings.get("use_dora") or settings.get("rank_pattern"):
        raise TrainingFailed(f"{adapter}: an adapter of a kind that is not trained here")
    factor = settings["lora_alpha"] / settings["r"]
    unused = adapter_pairs(load_file(adapter / WEIGHTS), adapter)
    target.mkdir(parents=True, exist_ok=True)
    for path in weight_files(model):
        tensors = {}
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensors[name] = file.get_tensor(name).float()
                if name in unused:
                    down, up = unused.pop(name)
                    if (up.shape[0], down.shape[1]) != tuple(tensors[name].shape):
                        raise TrainingFailed(f"{adapter}: {name} is of another shape in {model}")
                    tensors[name] += factor * (up.float() @ down.float())
        save_tensors(tensors, target / path.name)
    if unused:
        raise TrainingFailed(f"{adapter}: {next(iter(unused))} is no tensor of {model}")


def adapter_pairs(
    tensors: dict[str, torch.Tensor], source: Path
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return weight name -> (A of shape (r, in), B of shape (out, r)).

    Raises:
        TrainingFailed: if half of a pair is missing, or a tensor is not part of an adapter.
    """
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, dot, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        if not dot or part not in ("A", "B"):
            raise TrainingFailed(f"{source}: {key} is no part of a low-rank adapter")
        found.setdefault(f"{name}.weight", {})[part] = tensor
    broken = [name for name, parts in found.items() if len(parts) != 2]
    if broken or not found:
        raise TrainingFailed(f"{source}: half an adapter: {', '.join(broken[:3]) or 'no tensors'}")
    return {name: (parts["A"], parts["B"]) for name, parts in found.items()}
