"""Run a model in one thread of its own, with the requests of many threads in its batch: the base of the engines.

No chat template and no text here. slot_engine.py batches continuously over cached keys and
values; plain_engine.py is slower and works with any model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mcts_utils.actors.engine.job import DecodeJob, ModelGone

DEFAULT_CONTEXT = 4096  # tokens, for a config that states none
BLOCK = 256  # tokens of the vocabulary whose probabilities are summed first: few sums are then to be searched


def draw_uniforms(seed: int, count: int) -> np.ndarray:
    """Return `count` numbers in [0, 1) that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed & (2**63 - 1))
    return torch.rand(count, generator=generator, dtype=torch.float64).numpy()


def choose_tokens(logits: torch.Tensor, temperatures: np.ndarray, uniforms: np.ndarray) -> torch.Tensor:
    """Return the sampled token ids, [B]: the arg max at temperature 0, else by the inverted cumulative distribution.

    Args:
        logits: [B, vocabulary].
        temperatures: [B], 0 or greater.
        uniforms: [B], in [0, 1).
    """
    sampled = torch.from_numpy(temperatures > 0).to(logits.device)
    if not sampled.any():
        return logits.float().argmax(-1)
    if not sampled.all():
        chosen = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
        for rows in (sampled, ~sampled):
            which = rows.cpu().numpy()
            chosen[rows] = choose_tokens(logits[rows], temperatures[which], uniforms[which])
        return chosen
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    scale, shares = (
        torch.from_numpy(each).to(kind).to(logits.device)[:, None]
        for each, kind in ((temperatures, torch.float32), (uniforms, precise))
    )
    probabilities = (logits.float() / scale).softmax(-1)
    if rest := -logits.shape[-1] % BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, rest))
    blocks = probabilities.unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1, dtype=precise).cumsum(-1)  # up to the end of each block
    targets = shares * sums[:, -1:]
    block = torch.searchsorted(sums, targets, right=True).clamp_max(sums.shape[1] - 1)
    before = torch.nn.functional.pad(sums, (1, 0)).gather(1, block)
    rows = torch.arange(len(blocks), device=logits.device)
    within = before + blocks[rows, block[:, 0]].to(precise).cumsum(-1)
    token = block * BLOCK + torch.searchsorted(within, targets, right=True).clamp_max(BLOCK - 1)
    return token[:, 0].clamp_max(logits.shape[-1] - 1)


class Engine:
    """The thread that owns the model, and its queue. A failure in it is raised in all waiting and later callers."""

    def __init__(self, model: Any, stop_ids: Sequence[int]) -> None:
        """`stop_ids`: token ids that end a reply."""
        self.model, self.stop_ids = model, np.array(sorted(stop_ids), np.int64)
        config = model.config.get_text_config()
        self.stops = np.zeros(max(self.stop_ids.max() + 1, config.vocab_size), bool)  # by token id
        self.stops[self.stop_ids] = True
        self.context: int = getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT
        self.reused_tokens = 0  # prompt tokens that were not computed again
        self.waiting: deque[DecodeJob] = deque()
        self._running: list[DecodeJob] = []
        self._wake = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="actor-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, jobs: Sequence[DecodeJob]) -> None:
        """Queue jobs, as Decoder says: the engine's thread resolves their futures."""
        for job in jobs:
            job.uniforms = draw_uniforms(job.seed, job.limit)
        with self._wake:
            if self._error is not None:
                raise ModelGone(f"the local model stopped: {self._error}")
            if self._closed:
                raise ModelGone("the local model is closed")
            self.waiting.extend(jobs)
            self._wake.notify()

    def stats(self) -> dict[str, float]:
        """Return counters since the start, as Decoder says."""
        return {"reused_tokens": self.reused_tokens}

    def close(self) -> None:
        """End the thread. Jobs that have not ended fail with ModelGone."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        try:
            with torch.inference_mode():
                while self._next():
                    self.advance()
            self._fail(ModelGone("the local model is closed"))
        except Exception as error:  # the thread's guard: all waiting callers must get the error
            self._error = error
            self._fail(ModelGone(f"the local model stopped: {error}"))

    def _next(self) -> bool:
        """Wait until there is work; return False if the engine is closed."""
        with self._wake:
            while not (self._closed or self.waiting or self._running):
                self._wake.wait()
            return not self._closed

    def _fail(self, error: ModelGone) -> None:
        with self._wake:
            lost, self._closed = [*self._running, *self.waiting], True
            self._running, self.waiting = [], deque()
        for job in lost:
            if not job.future.done():
                job.future.set_exception(error)

    def advance(self) -> None:
        """Do one unit of work on `waiting` and `_running`."""
        raise NotImplementedError
