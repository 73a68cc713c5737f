"""The trainer's loss on a CPU: logits of the trained tokens alone, the same number and the same gradients."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.training_models import ROOT


@pytest.fixture
def trained_loss():
    path = (
        ROOT / "mcts_utils/training/cpu/trained_loss.py"
    )  # the trainer imports it by this name, without a package
    spec = importlib.util.spec_from_file_location("trained_loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.trained_loss


def test_it_is_the_models_own_loss_with_the_same_gradients(trained_loss):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    llm = LlamaForCausalLM(LlamaConfig(vocab_size=50, tie_word_embeddings=True, **shape))
    ids = torch.randint(0, 50, (2, 12))
    labels = ids.clone()
    labels[0, :7] = labels[1, 2:9] = -100
    labels[1, 9:] = -100
    mask = torch.ones_like(ids)
    found = []
    for loss in (
        lambda data: llm(**data).loss,
        lambda data: trained_loss(SimpleNamespace(llm=llm), data)["loss"],
    ):
        llm.zero_grad()
        value = loss({"input_ids": ids, "labels": labels, "attention_mask": mask})
        value.backward()
        found.append((value.item(), llm.model.embed_tokens.weight.grad.clone()))
    (whole, gradients), (part, others) = found
    assert part == pytest.approx(whole, rel=1e-5) and whole > 1
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-6)
    assert llm(input_ids=ids).logits.shape == (2, 12, 50)  # the head is as it was
