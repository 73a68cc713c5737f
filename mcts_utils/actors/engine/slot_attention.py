"""The attention function of the slot cache (kv_cache.py): it reads keys and values where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

LENGTH_ROUND = 32  # lengths are read rounded up to a multiple of it


@dataclass
class Span:
    """What one call of the attention kernel reads in place: neighbouring slots, for equally many new tokens of each."""

    tokens: slice  # of the pass: those of the first slot, then those of the next
    slots: slice
    length: int  # positions read per slot
    positions: torch.Tensor  # [slots, tokens of each], in their slots
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, queries: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the mask to add to the scores, [slots, 1, queries, length], computed once for all layers.

        Args:
            window: earlier positions that a token sees, itself included; None: all.
            queries: of each key and value head: the tokens of one query head, then those of the next.
        """
        if window not in self._masks:
            at = self.positions[:, None, :, None]
            keys = torch.arange(self.length, device=at.device)
            hidden = keys > at if window is None else (keys > at) | (keys <= at - window)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=at.device).masked_fill_(
                hidden, float("-inf")
            )
            self._masks[window] = mask.repeat(1, 1, queries // mask.shape[2], 1)
        return self._masks[window]


@dataclass
class Window:
    """The part of the cache that the next forward pass reads and writes: set before each pass, shared by all layers."""

    slots: int  # rows allocated
    capacity: int  # positions allocated per row
    rows: torch.Tensor | None = None  # [tokens], the slot of each
    positions: torch.Tensor | None = None  # [tokens], in their slots
    spans: Sequence[Span] = ()  # what they read


def slot_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    slot_window: Window | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to slots where they lie: an attention function of transformers (AttentionInterface).

    Query heads that share a key head are queries of one head here, so that keys and values are read once and never
    repeated.

    Args:
        query: [1, heads, tokens, dim].
        key, value: the layer's whole store, [slots, kv heads, capacity, dim].
        slot_window: what is read; None: the call has no slots, and is the library's own.
    """
    if slot_window is None:
        given = {"scaling": scaling, "sliding_window": sliding_window}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given, **unused)
    if any(unused.get(name) is not None for name in ("s_aux", "softcap")) or unused.get("is_causal") is False:
        raise NotImplementedError("attention sinks, soft caps and two-way attention")
    _, heads, count, dim = query.shape
    kinds = key.shape[1]
    asked = query[0].transpose(0, 1)  # [tokens, heads, dim]
    out = query.new_empty(count, heads, dim)
    for span in slot_window.spans:
        slots, each = span.positions.shape
        part = asked[span.tokens].view(slots, each, kinds, heads // kinds, dim).permute(0, 2, 3, 1, 4)
        found = torch.nn.functional.scaled_dot_product_attention(
            part.flatten(2, 3), key[span.slots, :, : span.length], value[span.slots, :, : span.length],
            attn_mask=span.mask(sliding_window, part.shape[2] * part.shape[3], query.dtype), scale=scaling,
        ).view(part.shape)[:, :, :, :each]  # fmt: skip
        out[span.tokens].view(slots, each, kinds, heads // kinds, dim).copy_(found.permute(0, 3, 1, 2, 4))
    return out[None], None


AttentionInterface.register("slots", slot_attention)
AttentionMaskInterface.register("slots", sdpa_mask)


class _Part(NamedTuple):
    """Neighbouring new tokens of one slot."""

    slot: int
    start: int  # position of the first
    tokens: int
    first: int  # its number in the pass
    reach: int  # positions read


def spans(rows: np.ndarray, starts: np.ndarray, counts: np.ndarray, capacity: int, merge: int) -> list[Span]:
    """Return what a pass reads: a call for neighbouring slots with equally many tokens and similar lengths.

    Args:
        rows: [B], the slots.
        starts: [B], the position of the first new token of each.
        counts: [B], new tokens of each.
        merge: positions that a token may read in vain.
    """
    groups: list[list[_Part]] = []
    for part in _parts(rows, starts, counts, capacity, merge):
        group = groups[-1] if groups else []
        reaches = [each.reach for each in [*group, part]]
        if group and _follows(group[-1], part) and max(reaches) - min(reaches) <= merge:
            group.append(part)
        else:
            groups.append([part])
    return [_span(group) for group in groups]


def _parts(
    rows: np.ndarray, starts: np.ndarray, counts: np.ndarray, capacity: int, most: int
) -> Iterator[_Part]:
    """Divide the tokens of each slot into parts of `most`: those at a prompt's beginning read less than its last."""
    first = 0
    for slot, start, count in zip(rows.tolist(), starts.tolist(), counts.tolist(), strict=True):
        for done in range(0, count, most):
            size = min(count - done, most)
            reach = -(-(start + done + size) // LENGTH_ROUND) * LENGTH_ROUND
            yield _Part(slot, start + done, size, first + done, min(capacity, reach))
        first += count


def _follows(one: _Part, other: _Part) -> bool:
    """Return True if `other` is of the next slot and as long."""
    return (one.slot + 1, one.tokens) == (other.slot, other.tokens)


def _span(group: Sequence[_Part]) -> Span:
    """Return the call for parts of neighbouring slots."""
    begin, size = group[0], len(group)
    positions = np.array([part.start for part in group])[:, None] + np.arange(begin.tokens)
    return Span(
        tokens=slice(begin.first, begin.first + begin.tokens * size),
        slots=slice(begin.slot, begin.slot + size),
        length=max(part.reach for part in group),
        positions=torch.from_numpy(positions),
    )
