"""Model folders: a copy that the trainer's older `transformers` reads, and the folder of the trained model.

XTuner's environment has transformers 4.48. It loads a folder of transformers 5 without an error, and wrongly: it does
not know `rope_parameters`, so every model gets rope_theta 10000. The result therefore consists of the source's own
files with new weights, never of files that 4.48 saved. The module starts no training and no conversion, and loads torch
only to write weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mcts_utils.actors.chat_tokens import chat_template
from mcts_utils.storage import files as storage_files
from mcts_utils.training.launcher import TrainingFailed
from mcts_utils.types import InputError

if TYPE_CHECKING:
    import torch

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # names of safetensors: those of torch
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".index.json")
# Records of an earlier run, and descriptions of the old weights, which do not hold for the new ones.
NOT_KEPT = ("manifest.json", "inputs.json", "xtuner_config.py", "README.md", "card.json")
HEAD = "lm_head.weight"
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")


def weight_files(folder: Path) -> list[Path]:
    """Return the model's safetensors files, sorted.

    Raises:
        InputError: if the folder holds no model, or one that needs code of its own to load.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"--model_dir {folder}: no config.json there")
    if "auto_map" in _object(folder / "config.json"):
        raise InputError(
            f"--model_dir {folder}: config.json has auto_map, and code from a model folder is never run"
        )
    for name in ADAPTER:
        if (folder / name).exists():
            raise InputError(
                f"--model_dir {folder}: {name} beside the weights: merge the adapter into them, or move it away"
            )
    # As transformers chooses: some folders hold the same weights again under other names.
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        files = sorted({folder / str(name) for name in _object(index).get("weight_map", {}).values()})
    else:
        files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    missing = [path.name for path in files if not path.is_file()]
    if missing or not files:
        raise InputError(f"--model_dir {folder}: no {missing[0] if missing else '*.safetensors'} there")
    return files


def _object(path: Path) -> dict[str, Any]:
    found = storage_files.read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"--model_dir: {path} is no JSON object")
    return found


@contextmanager
def header(path: Path) -> Iterator[Any]:
    """Open a safetensors file without loading a tensor; raise InputError naming it if it is none."""
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"--model_dir: {path}: {error}") from error


def window(folder: Path) -> int | None:
    """Return the most tokens that the model takes, or None if no config states it."""
    config = storage_files.read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return config.get("max_position_embeddings") or (config.get("text_config") or {}).get(
        "max_position_embeddings"
    )


def stop_ids(folder: Path) -> set[int]:
    """Return the token ids at which generation stops, as generation_config.json, else config.json, lists them."""
    for name in ("generation_config.json", "config.json"):
        found = (
            storage_files.read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        )
        if found is not None:
            return set(found if isinstance(found, list) else [found])
    return set()


def write_trainer_copy(model: Path, target: Path) -> None:
    """Write a copy of the model that the trainer can load; weights and tokenizer files are links."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    storage_files.write_json(
        target / "config.json", older_config(storage_files.read_json(model / "config.json"))
    )
    # The rows are tokens already, so any class that reads tokenizer.json serves; a newer one 4.48 would not know.
    if (model / "tokenizer.json").is_file():
        storage_files.write_json(
            target / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}
        )
    # generation_config.json is left out: 4.48 refuses to save unknown values, and the source's file is copied back.
    for path in [*weight_files(model), *small_files(model), *model.glob("*.safetensors.index.json")]:
        if path.name != "generation_config.json" and not (target / path.name).exists():
            (target / path.name).symlink_to(path.resolve())


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json of transformers 5 with the keys of 4.48; a file that has them already is not changed.

    Raises:
        InputError: if its rotary embedding cannot be expressed in 4.48.
    """
    result = dict(config)
    if "dtype" in result:
        result["torch_dtype"] = result.pop("dtype")
    rope = result.pop("rope_parameters", None)
    if rope is not None:
        if "rope_theta" not in rope:
            raise InputError(f"--model_dir: config.json has rope_parameters without one rope_theta: {rope!r}")
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        result["rope_theta"] = rope["rope_theta"]
        result["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    return result


def small_files(model: Path) -> list[Path]:
    """Return every file but weights, records and model card: configs, tokenizer, chat template."""
    return sorted(
        path
        for path in model.iterdir()
        if path.is_file() and not path.name.endswith(WEIGHTS) and path.name not in NOT_KEPT
    )


def stored_dtype(model: Path) -> str:
    """Return the dtype of most tensors in the first weights file: "float32", "float16" or "bfloat16".

    Raises:
        InputError: if it is another one.
    """
    with header(weight_files(model)[0]) as file:
        found = [file.get_slice(name).get_dtype() for name in file.keys()]
    most = max(set(found), key=found.count)
    if most not in DTYPES:
        raise InputError(f"--model_dir {model}: weights are {most}, not one of {', '.join(DTYPES)}")
    return DTYPES[most]


def write_trained_model(converted: Path, model: Path, target: Path, dtype: str) -> list[Path]:
    """Write the trained model to `target`: new weights in `dtype`, every other file as in `model`.

    Returns:
        The files written.

    Raises:
        TrainingFailed: if a tensor is missing, of another shape or not finite, or if no tensor changed.
    """
    target.mkdir(parents=True, exist_ok=True)
    written = _copy_small_files(model, target, dtype)
    before, after = _tensor_files(weight_files(model)), _trained_tensor_files(converted, model)
    changed, total = False, 0
    for shard in sorted(set(after.values())):
        tensors = {}
        for name, new in _tensors(shard, after):
            changed |= name in before and _differs(name, _tensor(before[name], name), new)
            tensors[name] = _cast(name, new, dtype)
        total += sum(tensor.nbytes for tensor in tensors.values())
        save_tensors(tensors, target / shard.name)
        (target / shard.name).chmod(0o644)  # safetensors writes files that only their owner can read
        written.append(target / shard.name)
    if not changed:
        raise TrainingFailed(f"{converted}: training changed no weight of {model}")
    if len(set(after.values())) > 1:
        names = {name: path.name for name, path in sorted(after.items())}
        index = target / "model.safetensors.index.json"
        storage_files.write_json(index, {"metadata": {"total_size": total}, "weight_map": names})
        written.append(index)
    return written


def _copy_small_files(model: Path, target: Path, dtype: str) -> list[Path]:
    written = []
    for path in small_files(model):
        shutil.copyfile(path, target / path.name)
        written.append(target / path.name)
    config = storage_files.read_json(model / "config.json")
    # Old and new name of the same key. Without either, the old one is added: every version reads it.
    names = {"dtype", "torch_dtype"} & set(config) or {"torch_dtype"}
    if any(config.get(name) != dtype for name in names):
        text = json.dumps(config | dict.fromkeys(names, dtype), indent=2, ensure_ascii=False) + "\n"
        storage_files.write_bytes(target / "config.json", [text.encode()])
    return written


def _trained_tensor_files(converted: Path, model: Path) -> dict[str, Path]:
    """Return tensor name -> file of the converted folder; check that it has the tensors of `model`."""
    before, after = _tensor_files(weight_files(model)), _tensor_files(sorted(converted.glob("*.safetensors")))
    optional = {name for name in before if name.endswith("inv_freq")}  # a buffer that old versions saved
    if storage_files.read_json(model / "config.json").get("tie_word_embeddings"):
        optional.add(HEAD)
        if HEAD not in before:
            after.pop(HEAD, None)  # DeepSpeed's checkpoint repeats the embedding under the head's name
    differing = (set(before) ^ set(after)) - optional
    if differing:
        raise TrainingFailed(f"{converted}: other tensors than {model}: {', '.join(sorted(differing)[:4])}")
    return after


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file; raise InputError naming it if that fails: the disk is full, for example."""
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise InputError(f"{path}: {error}") from error


def write_chat_template(folder: Path, tokenizer: Any, given: bool) -> list[Path]:
    """Write the template of the rows, if it was `given` or its date is fixed now; return the files written."""
    text = chat_template(tokenizer)
    if not given and text == tokenizer.get_chat_template():
        return []
    path = folder / "chat_template.jinja"
    storage_files.write_bytes(path, [text.encode()])
    return [path]


def _tensor_files(paths: Iterable[Path]) -> dict[str, Path]:
    """Return tensor name -> file."""
    files = {}
    for path in paths:
        with header(path) as file:
            files.update(dict.fromkeys(file.keys(), path))
    return files


def _tensors(shard: Path, files: Mapping[str, Path]) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(shard, "pt") as file:
        for name in file.keys():
            if files.get(name) == shard:
                yield name, file.get_tensor(name)


def _tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def _differs(name: str, old: torch.Tensor, new: torch.Tensor) -> bool:
    if old.shape != new.shape:
        raise TrainingFailed(f"{name} has shape {tuple(new.shape)} after training, {tuple(old.shape)} before")
    return not old.equal(new.to(old.dtype))


def _cast(name: str, tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    import torch

    result = tensor.to(getattr(torch, dtype)).contiguous()
    if not result.isfinite().all():
        raise TrainingFailed(f"{name} is not finite in {dtype} after training")
    return result
