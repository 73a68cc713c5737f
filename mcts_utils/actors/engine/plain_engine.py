"""Batch with the library's padding and `model.generate`, for models that the slot cache does not fit.

Jobs cannot join a running batch, and no keys and values are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from mcts_utils.actors.engine.base import Engine, choose_tokens
from mcts_utils.actors.engine.job import DecodeJob


class ForcedChoice(LogitsProcessor):
    """Mask all tokens except the one that choose_tokens draws with the row's own temperature and uniforms."""

    def __init__(self, jobs: Sequence[DecodeJob]) -> None:
        self.temperatures = np.array([job.temperature for job in jobs])
        self.uniforms = np.stack([np.resize(job.uniforms, max(j.limit for j in jobs)) for job in jobs])
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        chosen = choose_tokens(scores, self.temperatures, self.uniforms[:, self.step])
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter(1, chosen[:, None], 0.0)


class PlainEngine(Engine):
    """Batches of `model.generate`: the waiting jobs are padded into one, and the next starts when it has ended."""

    def __init__(self, model: Any, stop_ids: Sequence[int], max_batch: int, pad_id: int) -> None:
        """`max_batch`: jobs in one batch. `pad_id`: token id for padding."""
        super().__init__(model, stop_ids)
        self.max_batch, self.pad_id = max_batch, pad_id

    def advance(self) -> None:
        with self._wake:
            self._running = [self.waiting.popleft() for _ in range(min(self.max_batch, len(self.waiting)))]
        jobs, width = self._running, max(len(job.ids) for job in self._running)
        ids = np.stack(
            [np.pad(job.ids, (width - len(job.ids), 0), constant_values=self.pad_id) for job in jobs]
        )
        mask = np.stack([np.arange(width) >= width - len(job.ids) for job in jobs]).astype(np.int64)
        device = next(self.model.parameters()).device
        output = self.model.generate(
            input_ids=torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device),
            do_sample=False, max_new_tokens=max(job.limit for job in jobs), eos_token_id=self.stop_ids.tolist(),
            pad_token_id=self.pad_id, logits_processor=LogitsProcessorList([ForcedChoice(jobs)]),
        )  # fmt: skip
        for job, row in zip(jobs, output[:, width:].cpu().numpy(), strict=True):
            stops = np.flatnonzero(np.isin(row, self.stop_ids))
            end = min(job.limit, int(stops[0]) + 1 if len(stops) else len(row))
            job.future.set_result(row[:end].tolist())
        self._running = []
