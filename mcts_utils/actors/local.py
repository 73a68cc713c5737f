"""Answer with a local transformers chat model (types.Actor): MODEL_DIR on CPU, CUDA or MPS, with its chat template.

Any causal language model works that the library loads from a folder; the hub is never used. Requests of many threads
are batched (engine.py). Temperature is the only sampling setting: top_p, top_k and penalties of the folder's
generation_config are not applied, so that temperature 1 samples from the model's own distribution.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from mcts_utils.actors.chat_tokens import ChatTokens
from mcts_utils.actors.engine import DecodeJob, Engine, draw_uniforms
from mcts_utils.actors.plain_engine import PlainEngine
from mcts_utils.actors.slot_engine import SlotEngine
from mcts_utils.types import ContextOverflow, InputError, Message, Sample

CPU_CACHE_BYTES = 2 * 2**30  # keys and values, at most; or a quarter of the machine's memory, if that is less
GPU_CACHE_SHARE = 0.8  # of the memory that is free after the model is loaded
SLOTS_PER_REQUEST = 2  # more than one, because conversations that wait for their environment keep their slots
# Number of weights below which a second CPU thread waits more than it computes. Measured with 1.2 M weights on two
# cores, one of them busy with another process: 10.1 rollouts/s with one thread, 8.4 with two, fewer under
# OMP_WAIT_POLICY=passive.
ONE_THREAD_BELOW = 20_000_000
DEFAULT_CONTEXT = 4096  # tokens, for a config that states none


def pick_device() -> tuple[torch.device, torch.dtype]:
    """Return the best device of this machine and the type of weights for it."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if torch.backends.mps.is_available():
        return torch.device("mps"), torch.float16
    return torch.device("cpu"), torch.float32


def cache_bytes(device: torch.device) -> int:
    """Return the number of bytes that keys and values may take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_CACHE_SHARE)
    try:
        return min(CPU_CACHE_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
    except (AttributeError, ValueError, OSError):
        return CPU_CACHE_BYTES


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


def load_model(folder: str) -> tuple[Any, Any]:
    """Return model and tokenizer of a folder.

    Raises:
        InputError: the folder is not a chat model that the library can load.
    """
    if not (Path(folder) / "config.json").is_file():
        raise InputError(
            f"MODEL_DIR={folder}: no config.json there, so it is not a transformers model folder"
        )
    device, dtype = pick_device()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True
            )
    except Exception as error:  # the library raises many kinds for a folder that it cannot use
        raise InputError(
            f"MODEL_DIR={folder}: cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    if tokenizer.chat_template is None:
        raise InputError(f"MODEL_DIR={folder}: its tokenizer has no chat template, so it is not a chat model")
    if device.type == "cpu" and model.num_parameters() < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    model.to(device)
    return model.eval(), tokenizer


def stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Return the token ids that end a reply: those of generation_config, and the tokenizer's end of turn.

    Raises:
        InputError: there is none.
    """
    listed = model.generation_config.eos_token_id
    found = set(listed if isinstance(listed, list) else [listed]) | {tokenizer.eos_token_id}
    found.discard(None)
    if not found:
        raise InputError(
            "MODEL_DIR: neither generation_config nor tokenizer names an eos token, so no reply would end"
        )
    return found


def attends_fully(config: Any) -> bool:
    """Return True if every layer attends to all earlier tokens, as the slot cache requires."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds) == {"full_attention"}
    return (
        getattr(config, "sliding_window", None) is None
        or getattr(config, "use_sliding_window", True) is False
    )


def make_engine(model: Any, tokenizer: Any, concurrency: int, context: int, plain: bool) -> Engine:
    """Return a SlotEngine if it fits the model, else, or if `plain`, a PlainEngine; the former prints a notice."""
    stops = sorted(stop_tokens(model, tokenizer))
    if not plain:
        reason = "its layers do not all attend to the whole context"
        if attends_fully(model.config.get_text_config()):
            device = next(model.parameters()).device
            engine = SlotEngine(model, stops, SLOTS_PER_REQUEST * concurrency, cache_bytes(device), context)
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
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    return PlainEngine(model, stops, concurrency, pad)


class LocalActor:
    """A model and its engine (types.Actor). Safe to call from many threads; `close` ends the engine's thread."""

    def __init__(
        self, model: Any, tokenizer: Any, max_new: int, concurrency: int, plain: bool = False
    ) -> None:
        """`max_new`: new tokens per reply. `concurrency`: requests expected in flight. `plain`: use no SlotEngine."""
        self.tokens = ChatTokens(tokenizer)
        self.max_new = max_new
        self.context = (
            getattr(model.config.get_text_config(), "max_position_embeddings", None) or DEFAULT_CONTEXT
        )
        self.engine = make_engine(model, tokenizer, concurrency, self.context, plain)
        self.engine.start()
        self._lock = threading.Lock()
        self._calls = self._prompt_tokens = self._completion_tokens = 0

    def sample(
        self,
        messages: Sequence[Message],
        n: int = 1,
        temperature: float = 1.0,
        seed: int | None = None,
        max_new: int | None = None,
    ) -> list[Sample]:
        """Return `n` completions as types.Actor says; only the first one carries `prompt_tokens`.

        Args:
            seed: gives the same samples in any batch.
            max_new: new tokens per reply of this request; None: the actor's.

        Raises:
            ContextOverflow: no reply token fits after the conversation.
            ActorError: the engine failed or is closed.
        """
        ids = self.tokens.ids(messages)
        limit = min(max_new or self.max_new, self.context - len(ids))
        if limit < 1:
            raise ContextOverflow(
                f"the conversation has {len(ids)} tokens and the model's context is {self.context}"
            )
        asked = 1 if temperature == 0 else n
        replies = self._decode(ids, asked, limit, temperature, seed)
        stops = set(self.engine.stop_ids.tolist())
        samples = [
            Sample(self.tokens.text(reply), len(ids) if i == 0 else 0, len(reply), reply[-1] not in stops)
            for i, reply in enumerate(replies)
        ]
        with self._lock:
            self._calls += 1
            self._prompt_tokens += len(ids)
            self._completion_tokens += sum(map(len, replies))
        return samples + [Sample(samples[0].text, truncated=samples[0].truncated)] * (n - asked)

    def _decode(
        self, ids: np.ndarray, n: int, limit: int, temperature: float, seed: int | None
    ) -> list[list[int]]:
        """Return the token ids of `n` replies of at most `limit` tokens to the prompt `ids`."""
        base = secrets.randbits(48) if seed is None else seed
        jobs = [DecodeJob(ids, limit, temperature, draw_uniforms(base * 1009 + i, limit)) for i in range(n)]
        self.engine.submit(jobs)
        return [job.future.result() for job in jobs]

    def stats(self) -> dict[str, float]:
        """Return counters since the start; `reused_tokens` are prompt tokens that were not computed again."""
        return {
            "calls": self._calls,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "max_in_flight": self.engine.max_running,
            "busy_s": round(self.engine.busy_seconds, 3),
            "reused_tokens": self.engine.reused_tokens,
        }

    def close(self) -> None:
        """End the engine's thread."""
        self.engine.close()
