"""Keep keys and values of many conversations: one row (slot) per conversation, kept after its reply for reuse.

`SlotCache` is a transformers `Cache`, so that the model's own code runs unchanged. `SlotStore` knows which slot holds
which tokens, finds the longest known prefix of a new conversation, and grows the memory. No threads, no sampling here.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from mcts_utils.actors.engine.slot_attention import Window

LENGTH_BUCKET = 256  # tokens; capacities are multiples of it, so that they rarely grow
STALE_AFTER = 16  # decode steps; a slot idle for longer is reused before a new one is opened
SPARE_TAIL = 64  # tokens; a slot that loses no more than these last ones is continued in place
KEPT_MOST = 5.0  # seconds that a slot is kept for the next turn of its conversation, where slots are few
LONGEST_WAIT = 60.0  # seconds; a job that waits longer takes a kept slot
SHARED_GAIN = 16  # tokens that waiting for a prefix which another conversation computes must save


def zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return zeros of the kind of `like`. On a CPU they take memory only when they are written."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = math.prod(shape) * like.element_size()
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: [slots, kv heads, capacity, head dim]."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate zeros: unwritten memory must be finite, because a masked NaN is still a NaN."""
        w = self.window
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            zeros(states, w.slots, states.shape[1], w.capacity, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [1, heads, tokens, dim] to the window's positions; return the whole store, for slot_attention."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        w = self.window
        assert self.keys is not None and self.values is not None
        assert w.rows is not None
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            store[w.rows, :, w.positions] = states[0].transpose(0, 1)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.capacity, 0

    def get_seq_length(self) -> int:
        return self.window.capacity

    def get_max_length(self) -> int:
        return self.window.capacity

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot into another."""
        for store in (self.keys, self.values):
            assert store is not None
            store[target, :, :length] = store[source, :, :length]

    def resize(self, kept: Sequence[int], lengths: Sequence[int]) -> None:
        """Reallocate to the window's size with the slots `kept` first: of each the first positions, `lengths`."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = zeros(old, self.window.slots, old.shape[1], self.window.capacity, old.shape[3])
            for slot, (source, length) in enumerate(zip(kept, lengths, strict=True)):
                new[slot, :, :length] = old[source, :, :length]
            setattr(self, name, new)


class SlotCache(Cache):
    """A SlotLayer for each layer of the model, created on first use."""

    def __init__(self, slots: int, capacity: int) -> None:
        self.window = Window(slots, capacity)
        super().__init__(layer_class_to_replicate=lambda: SlotLayer(self.window))

    def bytes_per_token(self) -> int:
        """Return the bytes of one position over all layers."""
        layers: list[Any] = self.layers
        stores = [store for layer in layers for store in (layer.keys, layer.values)]
        return sum(s.element_size() * s.shape[1] * s.shape[3] for s in stores)

    def lazy(self) -> bool:
        """Return True if positions take memory only when they are written."""
        return any(layer.device.type == "cpu" for layer in self.layers if isinstance(layer, SlotLayer))


class SlotStore:
    """The tokens of each slot: `known` token ids are recorded, the keys and values of the first `length` are computed.

    A busy slot is to be computed up to known - 1; its last known token is the next input.
    """

    def __init__(self, cache: SlotCache, max_slots: int, budget: int, max_tokens: int) -> None:
        """`budget`: bytes for keys and values. `max_tokens`: of the longest conversation with its reply."""
        self.cache, self.max_slots, self.budget, self.max_tokens = cache, max_slots, budget, max_tokens
        slots, self.capacity = cache.window.slots, cache.window.capacity
        self.sized = False  # the first slots only serve to find the model's shapes
        self.used = 0  # slots 0..used-1 have been written
        self.clock = 0  # decode steps so far
        self.ids = np.zeros((slots, self.capacity), np.int64)
        self.length = np.zeros(slots, np.int64)
        self.known = np.zeros(slots, np.int64)
        self.stamp = np.zeros(slots, np.int64)  # clock at the slot's release
        self.kept_until = np.zeros(slots)  # seconds
        self.seconds_per_token = 0.0  # of computing a prompt
        self.busy = np.zeros(slots, bool)
        self.owners: list[Any] = [None] * slots

    @property
    def slots(self) -> int:
        """Return the number of slots."""
        return len(self.length)

    def ensure(self, tokens: int) -> bool:
        """Make slots long enough for `tokens` tokens; return False while too many slots are busy for that."""
        if self.sized and tokens <= self.capacity:
            return True
        bucket = -(-(tokens + 1) // LENGTH_BUCKET) * LENGTH_BUCKET
        if self.cache.lazy():  # as long as all slots may be, since what nobody writes costs nothing
            bucket = max(bucket, self.budget // (self.cache.bytes_per_token() * self.max_slots))
        capacity = max(self.capacity, min(bucket, self.max_tokens + 1))
        slots = max(1, min(self.max_slots, self.budget // (self.cache.bytes_per_token() * capacity)))
        if int(self.busy.sum()) > slots:
            return False
        self._resize(slots, capacity)
        self.sized = True
        return True

    def _resize(self, slots: int, capacity: int) -> None:
        """Reallocate; keep the busy slots, and the idle ones that fit, the latest first."""
        order = sorted(range(self.used), key=lambda s: (not self.busy[s], -self.stamp[s]))[:slots]
        kept, room = np.array(order, np.int64), slots - len(order)
        window, old = self.cache.window, self.capacity
        window.slots, window.capacity, self.capacity, self.used = slots, capacity, capacity, len(order)
        self.ids = np.pad(self.ids[kept], ((0, room), (0, capacity - old)))
        for name in ("length", "known", "stamp", "kept_until", "busy"):
            setattr(self, name, np.pad(getattr(self, name)[kept], (0, room)))
        self.owners = [self.owners[s] for s in order] + [None] * room
        for layer in self.cache.layers:
            assert isinstance(layer, SlotLayer)
            layer.resize(order, self.length[: len(order)].tolist())

    def place(self, prompt: np.ndarray, owner: Any, now: float = 0.0, waited: float = 0.0) -> int | None:
        """Give `prompt` a slot that holds the longest known prefix of it; return the slot, or None if it must wait.

        It must wait if every slot is busy, if another conversation is about to compute a prefix of it that is worth
        copying, or if memory allows few slots and the idle ones are kept for the next turns of their conversations:
        each for as long as it would take to compute it again. The last token of the prompt is always left to compute.

        Args:
            now: seconds, by the clock of `release`.
            waited: seconds that the prompt has waited.
        """
        if self.used == self.slots and self.busy.all():
            return None
        source, common, coming = self._match(prompt)
        if coming >= common + SHARED_GAIN:
            return None
        slot = self._choose(source if common else -1, common, now if waited < LONGEST_WAIT else np.inf)
        if slot is None:
            return None
        if slot != source and common:
            for layer in self.cache.layers:
                assert isinstance(layer, SlotLayer)
                layer.copy(source, slot, common)
        self.ids[slot, : len(prompt)] = prompt
        self.length[slot], self.known[slot] = common, len(prompt)
        self.busy[slot], self.owners[slot] = True, owner
        return slot

    def _match(self, prompt: np.ndarray) -> tuple[int, int, int]:
        """Return the slot to continue or copy, the number of the prompt's tokens in it, and the most in any slot soon.

        An idle slot that would lose few tokens is preferred to a slot that holds a few more but would be copied.
        """
        if not self.used or len(prompt) < 2:
            return -1, 0, 0
        same = self.ids[: self.used, : len(prompt) - 1] == prompt[:-1]
        prefix = np.where(same.all(1), len(prompt) - 1, same.argmin(1))
        ready = np.minimum(prefix, self.length[: self.used])
        coming = np.minimum(prefix, np.where(self.busy, self.known - 1, 0)[: self.used])
        tail = self.length[: self.used] - ready
        near = (ready > 0) & (ready >= ready.max() - SHARED_GAIN)
        free = np.flatnonzero(near & ~self.busy[: self.used] & (tail <= np.minimum(SPARE_TAIL, ready)))
        source = int(free[tail[free].argmin()]) if len(free) else int(ready.argmax())
        return source, int(ready[source]), int(coming.max())

    def _choose(self, source: int, common: int, now: float) -> int | None:
        """Return the slot to write: the source if it loses few tokens, else a stale, a new, or the oldest idle one.

        None: all idle slots are kept, and memory allows no more.
        """
        if common and not self.busy[source] and self.length[source] - common <= min(SPARE_TAIL, common):
            return source
        every = [int(s) for s in np.flatnonzero(~self.busy[: self.used])]
        idle = [s for s in every if self.kept_until[s] <= now]
        stale = [s for s in idle if s != source and self.clock - self.stamp[s] > STALE_AFTER]
        if stale:
            return stale[0]  # the lowest, so that slots in use stay close together and a view covers them
        if self.used < self.slots:
            self.used += 1
            return self.used - 1
        if self.slots == self.max_slots:
            idle = every
        return min(idle, key=lambda s: (s == source, self.stamp[s]), default=None)

    def release(self, slot: int, now: float = 0.0) -> None:
        """Make a slot idle after its reply; its tokens stay for the conversation's next turn."""
        self.busy[slot], self.owners[slot], self.stamp[slot] = False, None, self.clock
        self.kept_until[slot] = now + min(KEPT_MOST, self.length[slot] * self.seconds_per_token)
