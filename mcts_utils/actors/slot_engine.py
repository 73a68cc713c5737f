"""Batch continuously over cached keys and values: jobs join and leave the running batch between decode steps.

The memory of keys and values is in kv_cache.py, the thread and the sampling in engine.py.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mcts_utils.actors.engine import DecodeJob, Engine, choose_tokens
from mcts_utils.actors.kv_cache import SlotCache, SlotStore

PREFILL_CHUNK = 1024  # tokens of one job per forward pass
PREFILL_TOKENS = 4096  # tokens per forward pass, with padding
PADDING_SHARE = 0.3  # of a prefill pass's tokens, at most
GATHER_COST = 1.8  # time to read gathered slots, as a multiple of the time to read a view
LENGTH_ROUND = 32  # attention reads lengths rounded up to a multiple of it
MAX_WAIT = 4  # decode steps that a job may wait for others to share its prefill
RUNNING_PER_WAITING = 16  # one waiting job for so many running ones is enough for a prefill
PROBE_TOKENS = 24


class SlotEngine(Engine):
    """Continuous batching over a SlotStore: jobs join and leave the batch between two decode steps."""

    def __init__(
        self, model: Any, stop_ids: Sequence[int], max_slots: int, budget: int, max_tokens: int
    ) -> None:
        """`budget`: bytes of keys and values; `max_tokens`: the context window."""
        super().__init__(model, stop_ids)
        # The name of the argument since transformers 5.24, and before.
        known = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in known else "past_key_values"
        self.store = SlotStore(SlotCache(2, LENGTH_ROUND), max_slots, budget, max_tokens)
        self._waited = 0  # decode steps since a job waits
        self.device = next(model.parameters()).device
        self._spans = torch.arange(max_tokens + LENGTH_ROUND, device=self.device)

    def fits(self) -> bool:
        """Return True if the model gives the same logits with the slot cache as without a cache, on a short probe."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        ids = np.arange(7, 7 + PROBE_TOKENS, dtype=np.int64)[None] % vocabulary
        with torch.inference_mode():
            wanted = (
                self.model(input_ids=torch.from_numpy(ids).to(self.device), use_cache=False)
                .logits[0, -1]
                .float()
            )
            rows, half = np.zeros(1, np.int64), PROBE_TOKENS // 2
            self._forward(self.model.base_model, rows, ids[:, :half], np.arange(half)[None], False, half)
            for at in range(half, PROBE_TOKENS):
                got = self._forward(
                    self.model, rows, ids[:, at : at + 1], np.array([[at]]), at % 2 == 0, at + 1
                )
        seen = got.logits[0, -1].float()
        tolerance = 1e-3 if seen.dtype == self.model.dtype else 5e-2
        return bool((seen - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1.0))

    def _forward(
        self, module: Any, rows: np.ndarray, ids: np.ndarray, positions: np.ndarray, dense: bool, reach: int
    ) -> Any:
        """Run one pass of `module` and return its output.

        Args:
            rows: [B], the slots.
            ids: [B, T], token ids.
            positions: [B, T], of the tokens in their slots.
            dense: the rows are 0..B-1.
            reach: number of positions of a slot that are read.
        """
        window, device = self.store.cache.window, self.device
        at = torch.from_numpy(positions).to(device)
        window.rows = torch.from_numpy(rows).to(device)[:, None]
        window.positions = at.clamp_max(window.capacity - 1)  # a padded token may point past the end
        window.length = min(window.capacity, -(-reach // LENGTH_ROUND) * LENGTH_ROUND)
        window.dense = dense
        mask = self._spans[: window.length] <= at[:, None, :, None]
        return module(
            input_ids=torch.from_numpy(ids).to(device), attention_mask=mask, position_ids=at,
            use_cache=True, **{self._cache_argument: self.store.cache},
        )  # fmt: skip

    def advance(self) -> None:
        """Admit waiting jobs if they are enough or waited long enough; then decode one token of every running job."""
        if self.waiting:
            enough = len(self.waiting) * RUNNING_PER_WAITING >= len(self._running)
            self._waited += 1
            if enough or self._waited >= MAX_WAIT:
                self._waited = 0
                self._admit()
        if self._running:
            self._decode()

    def _admit(self) -> None:
        """Give waiting jobs slots, in order, and compute their prompts up to the last token."""
        store = self.store
        while self.waiting:
            with self._wake:
                jobs = list(self.waiting)
            needs = [len(job.ids) + job.limit for job in jobs]
            if not store.ensure(max(needs)) and not store.ensure(needs[0]):
                return  # the first job needs longer slots: wait until fewer are busy
            placed, taken = [], set()
            for job, need in zip(jobs, needs, strict=True):
                if need > store.capacity or (store.used == store.slots and store.busy.all()):
                    break
                slot = store.place(job.ids, job)
                if slot is not None:
                    placed.append(slot)
                    taken.add(id(job))
                    self.reused_tokens += int(store.length[slot])
            if not placed:
                return
            with self._wake:  # callers may have added jobs at the other end
                self.waiting = deque(job for job in self.waiting if id(job) not in taken)
                self._running = [job for job in store.owners if job is not None]
            self.max_running = max(self.max_running, len(self._running))
            self._prefill(placed)

    def _prefill(self, slots: list[int]) -> None:
        """Compute the slots' known tokens except the last, in chunks, with slots of similar length in one pass."""
        store = self.store
        while True:
            left = {s: min(PREFILL_CHUNK, int(store.known[s] - 1 - store.length[s])) for s in slots}
            todo = sorted((s for s in slots if left[s] > 0), key=left.__getitem__, reverse=True)
            if not todo:
                return
            group = [todo[0]]
            longest, total = left[todo[0]], left[todo[0]]
            for slot in todo[1:]:
                padded, total = longest * (len(group) + 1), total + left[slot]
                if padded > PREFILL_TOKENS or padded - total > PADDING_SHARE * padded:
                    break
                group.append(slot)
            rows = np.array(group)
            positions = store.length[rows][:, None] + np.arange(longest)
            ids = store.ids[rows[:, None], np.minimum(positions, store.capacity - 1)]
            self._forward(self.model.base_model, rows, ids, positions, False, int(positions.max()) + 1)
            store.length[rows] += np.array([left[s] for s in group])

    def _decode(self) -> None:
        """Compute the last known token of every running job and sample its next one."""
        store = self.store
        running = np.flatnonzero(store.busy)
        dense = len(running) * GATHER_COST >= running[-1] + 1
        rows = np.arange(running[-1] + 1) if dense else running
        # Idle rows of a dense pass write after their last token, to a position that is never read.
        at = store.length[rows]
        reach = int(store.length[running].max()) + 1
        output = self._forward(self.model, rows, store.ids[rows, at][:, None], at[:, None], dense, reach)
        logits = output.logits[:, -1]
        if len(rows) > len(running):
            logits = logits[torch.from_numpy(running).to(self.device)]
        jobs: list[DecodeJob] = [store.owners[slot] for slot in running]
        made = store.known[running] - np.array([len(job.ids) for job in jobs])
        uniforms = np.array([job.uniforms[i] for job, i in zip(jobs, made, strict=True)])
        chosen = choose_tokens(logits, np.array([job.temperature for job in jobs]), uniforms).cpu().numpy()
        store.ids[running, store.known[running]] = chosen
        store.length[running] += 1
        store.known[running] += 1
        store.clock += 1
        ended = np.isin(chosen, self.stop_ids) | (made + 1 >= np.array([job.limit for job in jobs]))
        for i in np.flatnonzero(ended):
            slot, job = int(running[i]), jobs[i]
            reply = store.ids[slot, len(job.ids) : store.known[slot]].tolist()
            store.release(slot)
            job.future.set_result(reply)
        if ended.any():
            with self._wake:
                self._running = [job for job in store.owners if job is not None]
