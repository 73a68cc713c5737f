"""Make the engine of a model folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from mcts_utils.actors.engine.base import Engine
from mcts_utils.actors.engine.device import cache_bytes, choose_fit, pick_device
from mcts_utils.actors.engine.job import EngineSpec, Fit
from mcts_utils.actors.engine.plain_engine import PlainEngine
from mcts_utils.actors.engine.slot_engine import SlotEngine
from mcts_utils.types import InputError

ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers that the slot cache fits
SLOTS_PER_REQUEST = 2  # more than one, because conversations that wait for their environment keep their slots


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Show no bar of the library; a stage has its own."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def load_model(spec: EngineSpec) -> tuple[Any, Fit]:
    """Return the model of a folder, on the best device, and how it computes there.

    Raises:
        InputError: the library cannot load it.
    """
    folder, (device, dtype) = spec.folder, pick_device()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True
            )
    except Exception as error:  # the library raises many kinds for a folder that it cannot use
        raise InputError(
            f"MODEL_DIR={folder}: cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    if device.type != "cpu":
        return model.to(device).eval(), Fit("", 0, 1)
    fit = spec.fit or choose_fit(model, spec.number_format, spec.concurrency)
    torch.set_num_threads(fit.threads)
    return model.to(getattr(torch, fit.number_format)).eval(), fit


def stop_tokens(model: Any, eos: int | None) -> list[int]:
    """Return the token ids that end a reply: those of generation_config, and the tokenizer's end of turn.

    Raises:
        InputError: there is none.
    """
    listed = model.generation_config.eos_token_id
    every = [*(listed if isinstance(listed, list) else [listed]), eos]
    found = {token for token in every if token is not None}
    if not found:
        raise InputError(
            "MODEL_DIR: neither generation_config nor tokenizer names an eos token, so no reply would end"
        )
    return sorted(found)


def make_engine(model: Any, spec: EngineSpec, share: int = 1) -> Engine:
    """Return a SlotEngine if it fits the model, else, or if `plain`, a PlainEngine; the former prints a notice.

    Args:
        share: engines that divide the memory of keys and values.
    """
    stops = stop_tokens(model, spec.eos)
    if not spec.plain:
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
        reason = f"it has layers of the kind {', '.join(sorted(kinds - ATTENTION))}"
        if kinds <= ATTENTION:
            budget = cache_bytes(next(model.parameters()).device, spec.cache_gb) // share
            engine = SlotEngine(model, stops, SLOTS_PER_REQUEST * spec.concurrency, budget)
            try:
                if engine.fits():
                    return engine
                reason = "a probe with the slot cache gave other logits"
            except Exception as error:  # an unknown architecture may fail anywhere in a pass with this cache
                reason = f"a probe with the slot cache failed ({' '.join(str(error).split())[:120]})"
        print(
            f"notice: {type(model).__name__} runs without continuous batching, slower: {reason}",
            file=sys.stderr,
        )
    return PlainEngine(model, stops, spec.concurrency, spec.pad if spec.pad is not None else stops[0])
