"""How a model computes on a CPU: formats, threads, processes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mcts_utils.actors.engine import device
from mcts_utils.actors.engine.device import choose_fit, processes_for
from mcts_utils.actors.engine.job import Fit

GIB = 2**30


class Model(nn.Module):
    """What choose_fit asks of a model."""

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(weights // 64, 64, device="meta")

    def num_parameters(self) -> int:
        return self.embedding.weight.numel()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding


@pytest.fixture
def four_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("size", "concurrency", "cores", "memory", "expected"),
    [
        (GIB // 4, 64, 2, 24 * GIB, 2),
        (GIB // 4, 64, 64, 999 * GIB, 8),
        (GIB // 4, 16, 64, 999 * GIB, 2),
        (GIB // 4, 1, 64, 999 * GIB, 1),
        (14 * GIB, 64, 16, 24 * GIB, 1),
        (14 * GIB, 64, 16, 256 * GIB, 4),
    ],
)
def test_processes_are_as_many_as_cores_requests_and_memory_keep_busy(
    size, concurrency, cores, memory, expected, monkeypatch
):
    monkeypatch.setattr(device, "memory_bytes", lambda: memory)
    assert processes_for(size, concurrency, cores) == expected


def test_a_small_model_is_not_timed(four_cores, monkeypatch, capsys):
    monkeypatch.setattr(device, "memory_bytes", lambda: 64 * GIB)
    assert choose_fit(Model(1_000_000), "auto", 64) == Fit("float32", 1, 4)
    assert choose_fit(Model(1_000_000), "bfloat16", 8) == Fit("bfloat16", 1, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("faster", "chosen"), [(3.0, "bfloat16"), (1.1, "float32")])
def test_a_larger_model_takes_what_is_faster_and_says_it(four_cores, monkeypatch, capsys, faster, chosen):
    monkeypatch.setattr(device, "memory_bytes", lambda: 64 * GIB)
    seconds = {torch.float32: 0.3, torch.bfloat16: 0.3 / faster}
    monkeypatch.setattr(
        device, "product_seconds", lambda width, kind, threads, clock: seconds[kind] / threads
    )
    model = Model(135_000_000)
    assert choose_fit(model, "auto", 16) == Fit(chosen, 2, 2)
    said = capsys.readouterr().err
    assert f"local model: {chosen}, up to 2 processes with a copy of it, 2 of 4 threads each" in said
    assert choose_fit(model, "float32", 8) == Fit("float32", 4, 1)
    assert "local model: float32, 4 of 4 threads (" in capsys.readouterr().err


def test_threads_that_only_wait_for_each_other_are_left_out(four_cores, monkeypatch):
    monkeypatch.setattr(device, "product_seconds", lambda width, kind, threads, clock: 0.1 * threads)
    assert choose_fit(Model(135_000_000), "auto", 1).threads == 1
