"""The trainer's checkpoints as safetensors: names, dtype, tied heads, several files."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mcts_utils.storage import files
from mcts_utils.training import launcher, lora_merge
from mcts_utils.training.launcher import TrainingFailed
from mcts_utils.training.settings import Lora
from mcts_utils.training.trainer import convert


def test_the_trained_models_tensors_are_written_in_float32(tmp_path):
    embedding = torch.tensor([[1.0, 2.0**-20]], dtype=torch.bfloat16)
    tensors = {
        "llm.model.embed_tokens.weight": embedding,
        "llm.model.norm.weight": torch.tensor([3.0e-5]),
        "llm.lm_head.weight": embedding,  # tied: the same memory
        "ref_llm.model.norm.weight": torch.tensor([7.0]),  # DPO's reference
    }
    torch.save({"state_dict": tensors, "meta": {"epoch": 1}}, tmp_path / "iter_3.pth")
    convert.convert(tmp_path / "iter_3.pth", tmp_path / "converted")
    found = load_file(tmp_path / "converted" / "model.safetensors")
    assert found.keys() == {"model.embed_tokens.weight", "model.norm.weight"}
    assert found["model.embed_tokens.weight"].equal(embedding.float())
    assert found["model.norm.weight"].equal(tensors["llm.model.norm.weight"])


def test_an_untied_head_is_kept_even_if_it_is_equal(tmp_path):
    tensors = {"llm.model.embed_tokens.weight": torch.ones(2, 2), "llm.lm_head.weight": torch.ones(2, 2)}
    assert convert.trained(tensors).keys() == {"model.embed_tokens.weight", "lm_head.weight"}


def test_of_an_adapters_training_the_adapter_is_written_as_peft_names_it(tmp_path):
    layer = "base_model.model.model.layers.0.mlp.up_proj"
    tensors = {
        f"llm.{layer}.base_layer.weight": torch.ones(4, 4),  # in DeepSpeed's checkpoints
        f"llm.{layer}.lora_A.default.weight": torch.full((2, 4), 2.0),
        f"llm.{layer}.lora_B.default.weight": torch.full((4, 2), 3.0),
    }
    torch.save({"state_dict": tensors}, tmp_path / "iter_3.pth")
    convert.convert(tmp_path / "iter_3.pth", tmp_path / "adapter")
    found = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert found.keys() == {f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"}
    assert found[f"{layer}.lora_B.weight"].equal(torch.full((4, 2), 3.0))
    lora_merge.write_settings(tmp_path / "adapter", Lora(2, 16, 0.1), tmp_path)
    settings = files.read_json(tmp_path / "adapter" / "adapter_config.json")
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 2, 16)
    assert settings["target_modules"] == ["up_proj"]


def test_a_large_model_is_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "LARGEST", 100)
    tensors = {f"llm.layers.{n}.weight": torch.full((4, 4), float(n)) for n in range(3)}
    torch.save({"state_dict": tensors}, tmp_path / "iter_3.pth")
    convert.convert(tmp_path / "iter_3.pth", tmp_path / "converted")
    paths = sorted((tmp_path / "converted").iterdir())
    assert [path.name for path in paths] == [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
    found = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    assert found.keys() == {f"layers.{n}.weight" for n in range(3)}
    assert all(found[f"layers.{n}.weight"].equal(torch.full((4, 4), float(n))) for n in range(3))


def test_what_a_checkpoint_holds_besides_tensors_needs_no_package(tmp_path, monkeypatch):
    package = ModuleType("engine_of_training")
    for kind in (object, dict, list):
        setattr(package, kind.__name__, type(kind.__name__, (kind,), {"__module__": package.__name__}))
    buffer: Any = package
    history, config, hooks = buffer.object(), buffer.dict(lr=1.0), buffer.list([1, 2])
    history.losses, history.counts = np.ones(3), {"loss": [1]}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package.__name__, package)
        found = {"message_hub": {"log": history, "config": config}, "hooks": [hooks, np.float64(1.0), {"a"}]}
        torch.save({"state_dict": {"llm.a.weight": torch.ones(2)}, **found}, tmp_path / "iter_3.pth")
    convert.convert(tmp_path / "iter_3.pth", tmp_path / "converted")
    assert load_file(tmp_path / "converted" / "model.safetensors")["a.weight"].equal(torch.ones(2))


def test_a_damaged_checkpoint_is_named(tmp_path):
    damaged = tmp_path / "iter_3.pth"
    torch.save({"state_dict": {"llm.a.weight": torch.ones(2)}}, damaged)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    unused: Any = None
    with pytest.raises(TrainingFailed, match="iter_3.pth: cannot be converted: "):
        launcher.convert(unused, damaged, tmp_path / "converted", {})
