"""Continuous batching: one thread owns the model; requests of many threads join its batch between decode steps.

Token ids in, token ids out: no chat template and no text here. `SlotEngine` keeps the conversations' keys and values
(kv_cache); `PlainEngine` is the library's padding and `model.generate`, for models whose cache does not fit that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from mcts_utils.actors.kv_cache import SlotCache, SlotStore
from mcts_utils.types import ActorError

PREFILL_CHUNK = 1024  # tokens of one conversation per forward pass
PREFILL_TOKENS = 4096  # tokens per forward pass, padding included
PADDING_SHARE = 0.3  # of a prefill group's tokens, at most
GATHER_COST = 1.8  # reading gathered slots costs this many times what reading a view costs
LENGTH_ROUND = 32  # attention reads lengths rounded up to this
PATIENCE = 4  # decode steps that a request may wait for company in its prefill
COMPANY = 16  # one waiting request per so many running ones is company enough
PROBE_TOKENS = 24


@dataclass
class DecodeJob:
    """One completion to make. `uniforms` ([limit] in [0, 1)) decide its sampling, whoever else is in the batch."""

    ids: np.ndarray  # prompt, [tokens]
    limit: int  # new tokens, at most
    temperature: float
    uniforms: np.ndarray
    future: Future[list[int]] = field(default_factory=Future)  # new token ids, the stop token included


def draw_uniforms(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed & (2**63 - 1))
    return torch.rand(count, generator=generator, dtype=torch.float64).numpy()


def choose_tokens(logits: torch.Tensor, temperatures: np.ndarray, uniforms: np.ndarray) -> torch.Tensor:
    """[B, vocabulary] -> [B] token ids: arg max at temperature 0, else the cumulative distribution inverted."""
    best = logits.argmax(-1)
    if not temperatures.any():
        return best
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    warm = torch.from_numpy(temperatures).float().to(logits.device)
    chances = (logits.float() / torch.where(warm > 0, warm, 1.0)[:, None]).softmax(-1)
    cumulative = chances.to(precise).cumsum(-1)
    wanted = torch.from_numpy(uniforms).to(precise).to(logits.device)[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, wanted, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
    return torch.where(warm > 0, drawn, best)


class Engine:
    """The thread and its queue. A failure in it is raised in every waiting caller, and in later ones."""

    def __init__(self, model: Any, stop_ids: Sequence[int]) -> None:
        self.model, self.stop_ids = model, np.array(sorted(stop_ids), np.int64)
        self.busy_seconds = 0.0
        self.reused_tokens = 0  # prompt tokens that were not computed again
        self.max_running = 0
        self.waiting: deque[DecodeJob] = deque()
        self._running: list[DecodeJob] = []
        self._wake = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="actor-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, jobs: Sequence[DecodeJob]) -> None:
        """Queue jobs; their futures are resolved in the engine's thread.

        Raises:
            ActorError: when the engine is closed or has failed.
        """
        with self._wake:
            if self._error is not None:
                raise ActorError(f"the local model stopped: {self._error}")
            if self._closed:
                raise ActorError("the local model is closed")
            self.waiting.extend(jobs)
            self._wake.notify()

    def close(self) -> None:
        """End the thread; requests still waiting fail."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        try:
            with torch.inference_mode():
                while self._next():
                    began = time.perf_counter()
                    self.advance()
                    self.busy_seconds += time.perf_counter() - began
            self._fail(ActorError("the local model is closed"))
        except Exception as error:  # the thread's guard: whoever waits must hear of it
            self._error = error
            self._fail(ActorError(f"the local model stopped: {error}"))

    def _next(self) -> bool:
        """Sleep until there is work; false when closed."""
        with self._wake:
            while not (self._closed or self.waiting or self._running):
                self._wake.wait()
            return not self._closed

    def _fail(self, error: ActorError) -> None:
        with self._wake:
            lost, self._closed = [*self._running, *self.waiting], True
            self._running, self.waiting = [], deque()
        for job in lost:
            if not job.future.done():
                job.future.set_exception(error)

    def advance(self) -> None:
        """One unit of work on `waiting` and `_running`."""
        raise NotImplementedError


class SlotEngine(Engine):
    """Continuous batching over a SlotStore."""

    def __init__(
        self, model: Any, stop_ids: Sequence[int], max_slots: int, budget: int, max_tokens: int
    ) -> None:
        """`budget`: bytes of keys and values; `max_tokens`: the context window."""
        super().__init__(model, stop_ids)
        self.store = SlotStore(SlotCache(2, LENGTH_ROUND), max_slots, budget, max_tokens)
        self._waited = 0  # decode steps since somebody waits
        self.device = next(model.parameters()).device
        self._spans = torch.arange(max_tokens + LENGTH_ROUND, device=self.device)

    def fits(self) -> bool:
        """True if this model through the slots says what it says without any cache (a probe of a few tokens)."""
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
        """One pass of `ids` [B, T] at `positions` [B, T] of the slots `rows` [B]; only `reach` positions are read.

        `dense`: the rows are 0..B-1.
        """
        window, device = self.store.cache.window, self.device
        places = torch.from_numpy(positions).to(device)
        window.rows = torch.from_numpy(rows).to(device)[:, None]
        window.positions = places.clamp_max(window.capacity - 1)  # a padded token may point past the end
        window.length = min(window.capacity, -(-reach // LENGTH_ROUND) * LENGTH_ROUND)
        window.dense = dense
        mask = self._spans[: window.length] <= places[:, None, :, None]
        return module(
            input_ids=torch.from_numpy(ids).to(device), attention_mask=mask, position_ids=places,
            past_key_values=self.store.cache, use_cache=True,
        )  # fmt: skip

    def advance(self) -> None:
        """Take in waiting requests when it pays, then decode one token for every running one."""
        if self.waiting:
            enough = len(self.waiting) * COMPANY >= len(self._running)
            self._waited += 1
            if enough or self._waited >= PATIENCE:
                self._waited = 0
                self._admit()
        if self._running:
            self._decode()

    def _admit(self) -> None:
        """Give waiting requests slots, in order, and compute their prompts up to the last token."""
        store = self.store
        while self.waiting:
            with self._wake:
                jobs = list(self.waiting)
            needs = [len(job.ids) + job.limit for job in jobs]
            if not store.ensure(max(needs)) and not store.ensure(needs[0]):
                return  # the first in the queue needs longer slots: wait until fewer are busy
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
            with self._wake:  # callers add at the other end meanwhile
                self.waiting = deque(job for job in self.waiting if id(job) not in taken)
                self._running = [job for job in store.owners if job is not None]
            self.max_running = max(self.max_running, len(self._running))
            self._prefill(placed)

    def _prefill(self, slots: list[int]) -> None:
        """Compute the slots' known tokens but the last, in groups of similar length, in chunks."""
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
        """Feed every running conversation its last known token and sample the next."""
        store = self.store
        running = np.flatnonzero(store.busy)
        dense = len(running) * GATHER_COST >= running[-1] + 1
        rows = np.arange(running[-1] + 1) if dense else running
        # Idle rows of a dense pass write behind their last token, where nobody reads.
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


class ForcedChoice(LogitsProcessor):
    """Leaves one token possible: the one that each row's own temperature and uniforms choose."""

    def __init__(self, jobs: Sequence[DecodeJob]) -> None:
        self.temperatures = np.array([job.temperature for job in jobs])
        self.uniforms = np.stack([np.resize(job.uniforms, max(j.limit for j in jobs)) for job in jobs])
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        chosen = choose_tokens(scores, self.temperatures, self.uniforms[:, self.step])
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter(1, chosen[:, None], 0.0)


class PlainEngine(Engine):
    """Whatever waits is padded into one batch for `model.generate`; the next batch starts when it has ended."""

    def __init__(self, model: Any, stop_ids: Sequence[int], max_slots: int, pad_id: int) -> None:
        super().__init__(model, stop_ids)
        self.max_slots, self.pad_id = max_slots, pad_id

    def advance(self) -> None:
        with self._wake:
            self._running = [self.waiting.popleft() for _ in range(min(self.max_slots, len(self.waiting)))]
        self.max_running = max(self.max_running, len(self._running))
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
