"""Batch continuously over cached keys and values: jobs join and leave the running batch between two passes.

A pass computes tokens of many conversations in one row: parts of new prompts, and of every running reply its last token
and guesses of the next ones. Keys and values are kept in kv_cache.py; the thread and the sampling are in engine.py.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mcts_utils.actors.engine.base import Engine, choose_tokens
from mcts_utils.actors.engine.job import DecodeJob
from mcts_utils.actors.engine.kv_cache import SlotCache, SlotStore
from mcts_utils.actors.engine.lookup import GUESSES, Gain, Lookup
from mcts_utils.actors.engine.slot_attention import spans

PROMPT_CHUNK = 1024  # prompt tokens of one job per pass
PROMPT_TOKENS = 4096  # prompt tokens per pass
MERGE_WASTE = 128  # positions that are cheaper to read in vain than another call of the attention kernel
PAUSE = 0.02  # seconds between two looks for a free slot while nothing runs
TIMED = 64  # prompt tokens of a pass that says what computing a prompt takes, at least
PROBE_TOKENS = 24  # beyond a sliding window
PROBE_MOST = 600


class SlotEngine(Engine):
    """Continuous batching over a SlotStore: jobs join and leave the batch between two passes."""

    def __init__(self, model: Any, stop_ids: Sequence[int], max_slots: int, budget: int) -> None:
        """`budget`: bytes of keys and values."""
        super().__init__(model, stop_ids)
        # The name of the argument since transformers 5.24, and before.
        known = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in known else "past_key_values"
        sliding = getattr(model.config.get_text_config(), "sliding_window", None) or 0
        self._probe_tokens = min(PROBE_TOKENS + sliding, PROBE_MOST)
        self.store = SlotStore(SlotCache(1, self._probe_tokens), max_slots, budget, self.context)
        self._lookup, self._gain = Lookup(), Gain()
        self.device = next(model.parameters()).device
        self._calls_cost = self.device.type != "cpu"  # more than tokens: launches of kernels do
        self._merge = self.context if self._calls_cost else MERGE_WASTE
        self._keeps = "logits_to_keep" in known
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
                row, most = np.zeros(1, np.int64), count - PROBE_TOKENS // 2
                for first, last in [(0, most), *((at, at + 1) for at in range(most, count))]:
                    got = self._forward(row, row + first, row + last - first, ids[0, first:last], row)
            except BaseException:
                self.model.set_attn_implementation(usual)
                raise
        seen, expected = got[0].float(), wanted.logits[0, -1].float()
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 5e-2
        fitting = bool((seen - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1.0))
        if not fitting:
            self.model.set_attn_implementation(usual)
        return fitting

    def _forward(
        self, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray, ids: np.ndarray, keep: np.ndarray
    ) -> torch.Tensor:
        """Run one pass and return the logits after the tokens `keep`, [K, vocabulary].

        Args:
            rows: [B], the slots.
            starts: [B], the position of the first new token of each.
            counts: [B], new tokens of each.
            ids: [N], the token ids of all new tokens, those of the first slot first.
            keep: [K], of these N.
        """
        window = self.store.cache.window
        firsts = counts.cumsum() - counts
        positions = np.repeat(starts - firsts, counts) + np.arange(len(ids))
        window.rows = torch.from_numpy(np.repeat(rows, counts)).to(self.device)
        window.positions = torch.from_numpy(positions).to(self.device)
        window.spans = spans(rows, starts, counts, window.capacity, self._merge)
        for span in window.spans:
            span.positions = span.positions.to(self.device)
        kept = torch.from_numpy(keep).to(self.device)
        chosen = {"logits_to_keep": kept} if self._keeps else {}
        logits = self.model(
            input_ids=torch.from_numpy(ids)[None].to(self.device), position_ids=window.positions[None],
            attention_mask=self._no_mask, use_cache=True, slot_window=window,
            **{self._cache_argument: self.store.cache}, **chosen,
        ).logits[0]  # fmt: skip
        return logits if self._keeps else logits[kept]

    def advance(self) -> None:
        """Give waiting jobs slots; then run one pass over all jobs that have one."""
        if self.waiting:
            self._admit()
        if self._running:
            self._step()
        elif self.waiting:  # the idle slots are kept for conversations whose next turn may come at any moment
            with self._wake:
                self._wake.wait(PAUSE)

    def _admit(self) -> None:
        """Give waiting jobs slots, in order, as long as there are any."""
        store = self.store
        with self._wake:
            jobs = list(self.waiting)
        needs = [len(job.ids) + job.limit for job in jobs]
        if not store.ensure(max(needs)) and not store.ensure(needs[0]):
            return  # the first job needs longer slots: wait until fewer are busy
        taken, now = set(), time.monotonic()
        for job, need in zip(jobs, needs, strict=True):
            if need > store.capacity or (store.used == store.slots and store.busy.all()):
                break
            slot = store.place(job.ids, job, now, now - job.since)
            if slot is not None:
                taken.add(id(job))
                self.reused_tokens += int(store.length[slot])
                self._lookup.learn(job.ids, int(store.length[slot]))
        if taken:
            with self._wake:  # callers may have added jobs at the other end
                self.waiting = deque(job for job in self.waiting if id(job) not in taken)
                self._running = [job for job in store.owners if job is not None]

    def _step(self) -> None:
        """Compute tokens of all running jobs in one pass; sample for those whose prompt is complete then."""
        store, began = self.store, time.monotonic()
        rows = np.flatnonzero(store.busy)
        counts = np.minimum(store.known[rows] - store.length[rows], PROMPT_CHUNK)
        prompts = np.where(counts > 1, counts, 0)
        fits = (prompts == 0) | (prompts.cumsum() <= PROMPT_TOKENS)
        rows, counts = rows[fits], counts[fits]
        ends = store.length[rows] + counts == store.known[rows]  # these go on to reply
        guesses, contexts, asked = self._guess(rows, ends)
        # Equally many tokens of neighbouring slots are one call of attention.
        order = np.lexsort((rows, counts + asked))
        rows, counts, ends = rows[order], counts[order], ends[order]
        guesses, contexts, asked = guesses[order], contexts[order], asked[order]
        starts, widths = store.length[rows], counts + asked
        ids = [
            np.concatenate([store.ids[row, start : start + count], guess[:more]])
            for row, start, count, guess, more in zip(rows, starts, counts, guesses, asked, strict=True)
        ]
        keep = [
            np.arange(first + count - 1, first + width)
            for first, count, width in zip(widths.cumsum() - widths, counts, widths, strict=True)
        ]
        replying = np.flatnonzero(ends)
        kept = np.concatenate([np.zeros(0, np.int64), *(keep[i] for i in replying)])
        logits = self._forward(rows, starts, widths, np.concatenate(ids), kept)
        if prompts[fits].sum() >= TIMED:
            store.seconds_per_token = (time.monotonic() - began) / float(widths.sum())
        store.length[rows] += counts
        if len(replying):
            self._reply(rows[replying], logits, guesses[replying], contexts[replying], asked[replying])

    def _guess(self, rows: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return guesses, [B, GUESSES], their contexts, [B], and how many of them to check, [B], 0 if not `ends`."""
        store = self.store
        known = store.known[rows]
        guesses, contexts = self._lookup.guess(store.ids[rows, : known.max()], known)
        jobs: list[DecodeJob] = [store.owners[row] for row in rows]
        room = np.array([len(job.ids) + job.limit for job in jobs]) - known - 1
        asked = np.where(ends, np.minimum(self._gain.counts(contexts), room), 0)
        if self._calls_cost:
            asked = np.where(ends, np.minimum(asked.max(), room), 0)
        return guesses, contexts, asked

    def _reply(
        self,
        rows: np.ndarray,
        logits: torch.Tensor,
        guesses: np.ndarray,
        contexts: np.ndarray,
        asked: np.ndarray,
    ) -> None:
        """Sample what follows, and end the replies that are complete.

        Args:
            rows: [B], the slots.
            logits: after the last known token of each and the `asked` guesses, those of the first slot first.
        """
        store = self.store
        jobs: list[DecodeJob] = [store.owners[row] for row in rows]
        known = store.known[rows]
        before = known - np.array([len(job.ids) for job in jobs])
        chosen, counts = self._choose(logits, guesses, asked, jobs, before)
        self._gain.add(contexts, asked, counts - 1)
        limits = np.array([job.limit for job in jobs])
        ended = self.stops[chosen[np.arange(len(jobs)), counts - 1]] | (before + counts >= limits)
        store.clock, now = store.clock + 1, time.monotonic()
        for i, slot in enumerate(rows.tolist()):
            store.ids[slot, known[i] : known[i] + counts[i]] = chosen[i, : counts[i]]
        store.length[rows] += counts - 1  # the guesses that were right are computed
        store.known[rows] += counts
        for i in np.flatnonzero(ended).tolist():
            slot, job = int(rows[i]), jobs[i]
            reply = store.ids[slot, len(job.ids) : store.known[slot]].tolist()
            self._lookup.learn(store.ids[slot, : store.known[slot]], len(job.ids))
            store.release(slot, now)
            job.future.set_result(reply)
        if ended.any():
            with self._wake:
                self._running = [job for job in store.owners if job is not None]

    def _choose(
        self,
        logits: torch.Tensor,
        guesses: np.ndarray,
        asked: np.ndarray,
        jobs: Sequence[DecodeJob],
        before: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the sampled tokens, [B, T], and how many of each row count: up to the first that was not guessed.

        Args:
            logits: as in _reply.
            guesses: [B, GUESSES], of which the first `asked`, [B], were computed.
            before: [B], tokens of each reply so far.
        """
        temperatures = np.array([job.temperature for job in jobs])
        chosen, counts = np.zeros((len(jobs), GUESSES + 1), np.int64), np.zeros(len(jobs), np.int64)
        firsts, rows, at, width = (asked + 1).cumsum() - asked - 1, np.arange(len(jobs)), 0, 1
        while len(rows):  # of those whose guesses were right so far, twice as many tokens as before
            takes = np.minimum(width, asked[rows] + 1 - at)
            of, t = np.repeat(rows, takes), at + np.concatenate([np.arange(each) for each in takes])
            uniforms = np.concatenate([
                jobs[row].uniforms[before[row] + at :][:each]
                for row, each in zip(rows.tolist(), takes.tolist(), strict=True)
            ])  # fmt: skip
            new = choose_tokens(logits[firsts[of] + t], temperatures[of], uniforms).cpu().numpy()
            chosen[of, t] = new
            steps = np.arange(at, min(at + width, GUESSES))
            right = (chosen[rows][:, steps] == guesses[rows][:, steps]) & (steps < asked[rows, None])
            right &= ~self.stops[chosen[rows][:, steps]]
            found = np.cumprod(right, axis=1).sum(1)
            counts[rows] = at + np.minimum(found + 1, takes)
            rows, at, width = rows[found == width], at + width, 2 * width
        return chosen, counts
