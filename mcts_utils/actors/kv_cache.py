"""Key/value memory for many conversations at once: one row (slot) per conversation, kept after its reply for reuse.

`SlotCache` is a transformers `Cache`, so the model's own code runs unchanged; `SlotStore` says which slot holds which
tokens, finds the longest known prefix of a new conversation, and grows the memory. No threads, no sampling here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

LENGTH_BUCKET = 256  # tokens; capacities are multiples of it, so that growing is rare
STALE_AFTER = 16  # decode steps; an idle slot older than this is reused before a new one is opened
SPARE_TAIL = 64  # tokens; a slot whose known tokens differ only in so many last ones is reused in place
SHARED_GAIN = 16  # tokens; waiting one round for a prefix that is being computed must save at least this many


@dataclass
class Window:
    """Where the next forward pass reads and writes; shared by all layers and set before each pass."""

    slots: int  # rows allocated
    capacity: int  # positions allocated per row
    rows: torch.Tensor | None = None  # [B, 1] slot of each batch row
    positions: torch.Tensor | None = None  # [B, T] position of each token in its slot
    length: int = 0  # positions read per slot
    dense: bool = False  # rows are 0..B-1, so a view does and nothing is gathered


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: [slots, kv heads, capacity, head dim]."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate zeros: memory never written must still be finite, since a masked NaN is a NaN."""
        w = self.window
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_zeros(w.slots, states.shape[1], w.capacity, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [B, heads, T, dim] at the window's places; return what its rows hold, [B, heads, length, dim]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._exchange(self.keys, key_states), self._exchange(self.values, value_states)

    def _exchange(self, store: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        w = self.window
        assert store is not None
        assert w.rows is not None
        store[w.rows, :, w.positions] = states.transpose(1, 2)
        held = store[:, :, : w.length]
        return held[: len(w.rows)] if w.dense else held.index_select(0, w.rows[:, 0])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.length, 0

    def get_seq_length(self) -> int:
        return self.window.length

    def get_max_length(self) -> int:
        return self.window.capacity

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first positions of one slot into another."""
        for store in (self.keys, self.values):
            assert store is not None
            store[target, :, :length] = store[source, :, :length]

    def resize(self, kept: torch.Tensor, length: int) -> None:
        """Reallocate to the window's size with the slots `kept` first, `length` positions each."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(self.window.slots, old.shape[1], self.window.capacity, old.shape[3])
            new[: len(kept), :, :length] = old[:, :, :length].index_select(0, kept)
            setattr(self, name, new)


class SlotCache(Cache):
    """A SlotLayer per layer of the model, made as the model asks for them."""

    def __init__(self, slots: int, capacity: int) -> None:
        self.window = Window(slots, capacity)
        super().__init__(layer_class_to_replicate=lambda: SlotLayer(self.window))

    def bytes_per_token(self) -> int:
        """Memory of one position over all layers."""
        layers: list[Any] = self.layers
        stores = [store for layer in layers for store in (layer.keys, layer.values)]
        return sum(s.element_size() * s.shape[1] * s.shape[3] for s in stores)


class SlotStore:
    """Which slot holds which tokens. `length` tokens of a slot are computed, `known` token ids are written down.

    A busy slot waits to be computed up to known - 1; its last known token is the next one to be fed.
    """

    def __init__(self, cache: SlotCache, max_slots: int, budget: int, max_tokens: int) -> None:
        """`budget`: bytes for keys and values. `max_tokens`: longest conversation with its reply."""
        self.cache, self.max_slots, self.budget, self.max_tokens = cache, max_slots, budget, max_tokens
        slots, self.capacity = cache.window.slots, cache.window.capacity
        self.sized = False  # the first slots only serve to learn the model's shapes
        self.used = 0  # slots 0..used-1 have been written
        self.clock = 0  # decode steps so far
        self.ids = np.zeros((slots, self.capacity), np.int64)
        self.length = np.zeros(slots, np.int64)
        self.known = np.zeros(slots, np.int64)
        self.stamp = np.zeros(slots, np.int64)  # clock when the slot was given back
        self.busy = np.zeros(slots, bool)
        self.owners: list[Any] = [None] * slots

    @property
    def slots(self) -> int:
        return len(self.length)

    def ensure(self, tokens: int) -> bool:
        """Room for conversations of `tokens` tokens; false while too many slots are busy for that."""
        if self.sized and tokens <= self.capacity:
            return True
        bucket = -(-(tokens + 1) // LENGTH_BUCKET) * LENGTH_BUCKET
        capacity = max(self.capacity, min(bucket, self.max_tokens + 1))
        slots = max(1, min(self.max_slots, self.budget // (self.cache.bytes_per_token() * capacity)))
        if int(self.busy.sum()) > slots:
            return False
        self._resize(slots, capacity)
        self.sized = True
        return True

    def _resize(self, slots: int, capacity: int) -> None:
        """Reallocate; busy slots stay, idle ones as far as there is room, the latest first."""
        order = sorted(range(self.used), key=lambda s: (not self.busy[s], -self.stamp[s]))[:slots]
        kept, room = np.array(order, np.int64), slots - len(order)
        window, old = self.cache.window, self.capacity
        window.slots, window.capacity, self.capacity, self.used = slots, capacity, capacity, len(order)
        self.ids = np.pad(self.ids[kept], ((0, room), (0, capacity - old)))
        for name in ("length", "known", "stamp", "busy"):
            setattr(self, name, np.pad(getattr(self, name)[kept], (0, room)))
        self.owners = [self.owners[s] for s in order] + [None] * room
        for layer in self.cache.layers:
            assert isinstance(layer, SlotLayer)
            layer.resize(torch.from_numpy(kept).to(layer.device), old)

    def place(self, prompt: np.ndarray, owner: Any) -> int | None:
        """Give `prompt` a slot that already holds as much of it as any does, or None if it has to wait.

        It waits when every slot is busy, or when another conversation of this round is about to compute a prefix of
        it that is worth copying. The last token of the prompt is always left to compute.
        """
        if self.used == self.slots and self.busy.all():
            return None
        source, common, coming = self._match(prompt)
        if coming >= common + SHARED_GAIN:
            return None
        slot = self._choose(source, common)
        if slot != source and common:
            for layer in self.cache.layers:
                assert isinstance(layer, SlotLayer)
                layer.copy(source, slot, common)
        self.ids[slot, : len(prompt)] = prompt
        self.length[slot], self.known[slot] = common, len(prompt)
        self.busy[slot], self.owners[slot] = True, owner
        return slot

    def _match(self, prompt: np.ndarray) -> tuple[int, int, int]:
        """The slot to continue or copy, how many tokens of the prompt it holds, and how many some slot will hold soon.

        An idle slot of which little would be lost wins over a slot that holds a little more but would be copied.
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

    def _choose(self, source: int, common: int) -> int:
        """The slot to write: the source itself if little of it is lost, else a stale, a new, or the oldest idle one."""
        if common and not self.busy[source] and self.length[source] - common <= min(SPARE_TAIL, common):
            return source
        idle = [int(s) for s in np.flatnonzero(~self.busy[: self.used]) if s != source]
        stale = [s for s in idle if self.clock - self.stamp[s] > STALE_AFTER]
        if stale:
            return stale[0]  # the lowest: slots in use stay close together, so that a view covers them
        if self.used < self.slots:
            self.used += 1
            return self.used - 1
        return min(idle, key=lambda s: self.stamp[s], default=source)

    def release(self, slot: int) -> None:
        """The reply is finished; what was computed stays for the conversation's next turn."""
        self.busy[slot], self.owners[slot], self.stamp[slot] = False, None, self.clock
