"""Batch continuously over cached keys and values: jobs join and leave the running batch between decode steps.

The memory of keys and values is in kv_cache.py, the thread and the sampling in engine.py.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mcts_utils.actors.engine import DecodeJob, Engine, choose_tokens
from mcts_utils.actors.kv_cache import SlotCache, SlotStore, Span
from mcts_utils.actors.lookup import GUESSES, Gain, Lookup

PREFILL_CHUNK = 1024  # tokens of one job per forward pass
PREFILL_TOKENS = 4096  # tokens per forward pass, with padding
PADDING_SHARE = 0.3  # of a prefill pass's tokens, at most
MERGE_WASTE = 128  # padded positions that are cheaper to read than another call of the attention kernel
LENGTH_ROUND = 32  # attention reads lengths rounded up to a multiple of it
BATCH_ROUND = 8  # rows of a decode pass are a multiple of it
MAX_WAIT = 4  # decode steps that a job may wait for others to share its prefill
RUNNING_PER_WAITING = 16  # one waiting job for so many running ones is enough for a prefill
PAUSE = 0.02  # seconds between two looks for a free slot while nothing runs
TIMED = 64  # tokens of a pass that says what computing a prompt takes, at least
PROBE_TOKENS = 24  # beyond a sliding window
PROBE_MOST = 600


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
        sliding = getattr(model.config.get_text_config(), "sliding_window", None) or 0
        self._probe_tokens = min(PROBE_TOKENS + sliding, PROBE_MOST)
        self.store = SlotStore(SlotCache(1, self._probe_tokens), max_slots, budget, max_tokens)
        self._waited = 0  # decode steps since a job waits
        self._lookup, self._gain = Lookup(), Gain()
        self.device = next(model.parameters()).device
        # float32 sums differ in their last bits only, which no token shows; launches of kernels cost more on a GPU.
        exact = self.device.type == "cpu" and model.dtype != torch.float32
        self._merge = 0 if exact else MERGE_WASTE if self.device.type == "cpu" else max_tokens
        self._no_mask = torch.zeros(
            1, 1, 1, 1, dtype=torch.bool, device=self.device
        )  # slot_attention has its own

    def fits(self) -> bool:
        """Return True if the model gives the same logits with the slot cache as without a cache, on a short probe."""
        vocabulary, count = self.model.get_input_embeddings().num_embeddings, self._probe_tokens
        ids = np.arange(7, 7 + count, dtype=np.int64)[None] % vocabulary
        usual = self.model.config._attn_implementation
        with torch.inference_mode():
            wanted = self.model(input_ids=torch.from_numpy(ids).to(self.device), use_cache=False)
            self.model.set_attn_implementation("slots")
            try:
                rows, most = np.zeros(1, np.int64), count - PROBE_TOKENS // 2
                self._forward(self.model.base_model, rows, ids[:, :most], np.arange(most)[None])
                for at in range(most, count):
                    got = self._forward(self.model, rows, ids[:, at : at + 1], np.array([[at]]))
            except BaseException:
                self.model.set_attn_implementation(usual)
                raise
        seen, expected = got.logits[0, -1].float(), wanted.logits[0, -1].float()
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 5e-2
        fitting = bool((seen - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1.0))
        if not fitting:
            self.model.set_attn_implementation(usual)
        return fitting

    def _forward(
        self,
        module: Any,
        rows: np.ndarray,
        ids: np.ndarray,
        positions: np.ndarray,
        counts: np.ndarray | None = None,
    ) -> Any:
        """Run one pass of `module` and return its output.

        Args:
            rows: [B], the slots, ascending where T is 1.
            ids: [B, T], token ids.
            positions: [B, T], of the tokens in their slots.
            counts: [B], tokens of each row; the rest of T is padding. None: all are tokens.
        """
        window, device = self.store.cache.window, self.device
        positions = positions.clip(max=window.capacity - 1)  # a padded token may point past the end
        counts = np.full(len(rows), ids.shape[1]) if counts is None else counts
        window.rows = torch.from_numpy(rows).to(device)[:, None]
        window.positions = torch.from_numpy(positions).to(device)
        window.spans = spans(rows, positions, counts, window.capacity, self._merge)
        if device.type != "cpu":
            for span in window.spans:
                span.positions = span.positions.to(device)
        # The same rows of a matrix product have the same bits in every batch of a multiple of 8 rows: pad to one.
        padding = -len(rows) % BATCH_ROUND if ids.shape[1] == 1 else 0
        ids, positions = (np.pad(each, ((0, padding), (0, 0)), mode="edge") for each in (ids, positions))
        return module(
            input_ids=torch.from_numpy(ids).to(device), position_ids=torch.from_numpy(positions).to(device),
            attention_mask=self._no_mask, use_cache=True, slot_window=window,
            **{self._cache_argument: self.store.cache},
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
        elif self.waiting:  # the idle slots are kept for conversations whose next turn may come at any moment
            with self._wake:
                self._wake.wait(PAUSE)

    def _admit(self) -> None:
        """Give waiting jobs slots, in order, and compute their prompts up to the last token."""
        store = self.store
        while self.waiting:
            with self._wake:
                jobs = list(self.waiting)
            needs = [len(job.ids) + job.limit for job in jobs]
            if not store.ensure(max(needs)) and not store.ensure(needs[0]):
                return  # the first job needs longer slots: wait until fewer are busy
            placed, taken, now = [], set(), time.monotonic()
            for job, need in zip(jobs, needs, strict=True):
                if need > store.capacity or (store.used == store.slots and store.busy.all()):
                    break
                slot = store.place(job.ids, job, now, now - job.since)
                if slot is not None:
                    placed.append(slot)
                    taken.add(id(job))
                    self.reused_tokens += int(store.length[slot])
                    self._lookup.learn(job.ids, int(store.length[slot]))
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
            counts = np.array([left[s] for s in group])
            began = time.monotonic()
            self._forward(self.model.base_model, rows, ids, positions, counts)
            if counts.sum() >= TIMED:
                store.seconds_per_token = (time.monotonic() - began) / float(counts.sum())
            store.length[rows] += counts

    def _decode(self) -> None:
        """Compute the last known token of every running job, and guesses of the next ones; sample what follows."""
        store = self.store
        running = np.flatnonzero(store.busy)
        at, known = store.length[running], store.known[running]
        tokens = store.ids[running, at][:, None]
        guessing = self._gain.worth()
        if guessing:
            guesses = self._lookup.guess(store.ids[running, : known.max()], known)
            tokens = np.concatenate([tokens, guesses], axis=1)
        positions = at[:, None] + np.arange(tokens.shape[1])
        output = self._forward(self.model, running, tokens, positions)
        jobs: list[DecodeJob] = [store.owners[slot] for slot in running]
        before = known - np.array([len(job.ids) for job in jobs])
        chosen, counts = self._choose(output.logits, tokens, jobs, before)
        if guessing:
            self._gain.add(float(counts.mean()))
        limits = np.array([job.limit for job in jobs])
        ended = np.isin(chosen[np.arange(len(jobs)), counts - 1], self.stop_ids) | (before + counts >= limits)
        store.clock, now = store.clock + 1, time.monotonic()
        for i, slot in enumerate(running.tolist()):
            store.ids[slot, known[i] : known[i] + counts[i]] = chosen[i, : counts[i]]
        store.length[running] += counts
        store.known[running] += counts
        for i in np.flatnonzero(ended).tolist():
            slot, job = int(running[i]), jobs[i]
            reply = store.ids[slot, len(job.ids) : store.known[slot]].tolist()
            self._lookup.learn(store.ids[slot, : store.known[slot]], len(job.ids))
            store.release(slot, now)
            job.future.set_result(reply)
        if ended.any():
            with self._wake:
                self._running = [job for job in store.owners if job is not None]

    def _choose(
        self, logits: torch.Tensor, tokens: np.ndarray, jobs: Sequence[DecodeJob], before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the sampled tokens, [B, T], and how many of each row count: up to the first that was not guessed.

        Args:
            logits: [B or more, T, vocabulary], after each of `tokens`, [B, T]: a known token and guesses.
            before: [B], tokens of each reply so far.
        """
        temperatures = np.array([job.temperature for job in jobs])
        limits = np.array([job.limit for job in jobs])
        chosen, counts = np.zeros_like(tokens), np.zeros(len(jobs), np.int64)
        rows = np.arange(len(jobs))
        for t in range(tokens.shape[1]):
            uniforms = np.array([jobs[row].uniforms[before[row] + t] for row in rows.tolist()])
            new = choose_tokens(logits[rows, t], temperatures[rows], uniforms).cpu().numpy()
            chosen[rows, t], counts[rows] = new, t + 1
            if t + 1 < tokens.shape[1]:
                guessed = new == tokens[rows, t + 1]
                rows = rows[guessed & ~np.isin(new, self.stop_ids) & (before[rows] + t + 1 < limits[rows])]
            if not len(rows):
                break
        return chosen, counts


def spans(
    rows: np.ndarray, positions: np.ndarray, counts: np.ndarray, capacity: int, merge: int
) -> list[Span]:
    """Return what a pass reads. A token reads its own position rounded up, whatever is computed beside it.

    So a token's sums have the same terms in any batch, and in bfloat16 the same bits. `merge` gives that up.

    Args:
        rows: [B], the slots.
        positions: [B, T], of the new tokens in their slots.
        counts: [B], tokens of each row; the rest is padding.
        merge: positions that neighbouring slots of one span may read in vain.
    """
    at = torch.from_numpy(positions)
    found: list[Span] = []
    width = positions.shape[1]
    if width > (GUESSES + 1 if merge else 1):
        block = LENGTH_ROUND if merge < capacity else capacity  # all at once on a GPU
        for row, (slot, count) in enumerate(zip(rows.tolist(), counts.tolist(), strict=True)):
            first = 0
            while first < count:
                reach = (int(positions[row, first]) // block + 1) * block
                last = min(count, first + reach - int(positions[row, first]))
                part = slice(first, last)
                found.append(
                    Span(slice(row, row + 1), part, slot, min(reach, capacity), at[row : row + 1, part])
                )
                first = last
        return found
    reaches = np.minimum(capacity, (positions[:, -1] // LENGTH_ROUND + 1) * LENGTH_ROUND)
    first = 0
    for row in range(1, len(rows) + 1):
        reach = reaches[first : row + 1]
        joins = row < len(rows) and rows[row] == rows[row - 1] + 1 and reach.max() - reach.min() <= merge
        if not joins:
            length = int(reaches[first:row].max())
            found.append(Span(slice(first, row), slice(0, width), int(rows[first]), length, at[first:row]))
            first = row
    return found
