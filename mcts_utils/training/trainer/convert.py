"""Write the weights of XTuner's checkpoint as safetensors in float32, as `transformers` does, or PEFT for an adapter.

    python convert.py CHECKPOINT FOLDER

A checkpoint is a file, or DeepSpeed's folder, for which this runs in the trainer's environment. XTuner's own converter
builds the model, for which all of XTuner is imported, and rounds DeepSpeed's float32 weights to float16.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

PREFIX = "llm."  # of the trained model's tensors; "ref_llm." is DPO's reference
LARGEST = "2GB"  # a file of a model
ADAPTER = "adapter_model.safetensors"


class Unread:
    """Stands for what a checkpoint holds besides tensors: objects of mmengine, of which nothing is read."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    __setstate__ = __setitem__ = append = extend = __init__  # what an unpickler calls to fill it


class TensorUnpickler(pickle.Unpickler):
    """Reads tensors and dictionaries; imports nothing else, so that it needs no mmengine."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function of torch, OrderedDict, or Unread."""
        known = module.partition(".")[0] == "torch" or (module, name) == ("collections", "OrderedDict")
        return super().find_class(module, name) if known else Unread


def load(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint by XTuner's names."""
    if checkpoint.is_dir():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        found = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.parent), checkpoint.name)
        return dict(found)
    tensors_only = ModuleType("tensors_only")
    tensors_only.Unpickler = TensorUnpickler  # type: ignore[attr-defined]
    found = torch.load(
        checkpoint, map_location="cpu", mmap=True, weights_only=False, pickle_module=tensors_only
    )
    return dict(found["state_dict"])


def trained(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the trained model's tensors in float32, or those of its adapter where it has one.

    Of tensors that share their memory (a tied head) the first is returned.
    """
    found, seen = {}, set()
    for name, tensor in tensors.items():
        place = tensor.data_ptr(), tensor.shape
        if name.startswith(PREFIX) and place not in seen:
            seen.add(place)
            found[name.removeprefix(PREFIX)] = tensor
    adapter = {name.replace(".default.", "."): found[name] for name in found if ".lora_" in name}
    return {name: tensor.float().contiguous() for name, tensor in (adapter or found).items()}


def convert(checkpoint: Path, folder: Path) -> None:
    """Write the tensors of a checkpoint to files in `folder`."""
    tensors = trained(load(checkpoint))
    files = split_torch_state_dict_into_shards(tensors, max_shard_size=LARGEST).filename_to_tensors
    if any(".lora_" in name for name in tensors):
        files = {ADAPTER: list(tensors)}
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in files.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
