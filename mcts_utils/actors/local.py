"""Answer with a local transformers chat model (types.Actor): MODEL_DIR on CPU, CUDA or MPS, with its chat template.

Any causal language model works that the library loads from a folder; the hub is never used. Requests of many threads
are batched (engine.py). Temperature is the only sampling setting: top_p, top_k and penalties of the folder's
generation_config are not applied, so that temperature 1 samples from the model's own distribution.
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from mcts_utils.actors.chat_tokens import ChatTokens, load_tokenizer
from mcts_utils.actors.device import cache_bytes, fit_to_cpu, pick_device
from mcts_utils.actors.engine import DecodeJob, Engine, draw_uniforms
from mcts_utils.actors.plain_engine import PlainEngine
from mcts_utils.actors.slot_engine import SlotEngine
from mcts_utils.types import ActorError, ContextOverflow, InputError, Message, Sample

ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers that the slot cache fits
SLOTS_PER_REQUEST = 2  # more than one, because conversations that wait for their environment keep their slots
DEFAULT_CONTEXT = 4096  # tokens, for a config that states none


class PromptRefused(ActorError):
    """The model's chat template does not take a conversation."""


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


def load_model(folder: str, chat_template: str = "", number_format: str = "auto") -> tuple[Any, Any]:
    """Return model and tokenizer of a folder.

    Args:
        chat_template: file of a template in place of the model's own.
        number_format: of a model on a CPU; auto: the faster one is found out and said in a line.

    Raises:
        InputError: the folder is not a chat model that the library can load.
    """
    if not (Path(folder) / "config.json").is_file():
        raise InputError(
            f"MODEL_DIR={folder}: no config.json there, so it is not a transformers model folder"
        )
    device, dtype = pick_device()
    try:
        tokenizer = load_tokenizer(folder, chat_template)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True
            )
    except InputError as error:
        raise InputError(f"MODEL_DIR={error}" if str(error).startswith(folder) else str(error)) from error
    except Exception as error:  # the library raises many kinds for a folder that it cannot use
        raise InputError(
            f"MODEL_DIR={folder}: cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    if device.type == "cpu":
        model = fit_to_cpu(model, number_format)
    return model.to(device).eval(), tokenizer


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


def make_engine(
    model: Any, tokenizer: Any, concurrency: int, context: int, plain: bool, cache_gb: float
) -> Engine:
    """Return a SlotEngine if it fits the model, else, or if `plain`, a PlainEngine; the former prints a notice."""
    stops = sorted(stop_tokens(model, tokenizer))
    if not plain:
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
        reason = f"it has layers of the kind {', '.join(sorted(kinds - ATTENTION))}"
        if kinds <= ATTENTION:
            budget = cache_bytes(next(model.parameters()).device, cache_gb)
            engine = SlotEngine(model, stops, SLOTS_PER_REQUEST * concurrency, budget, context)
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
        self,
        model: Any,
        tokenizer: Any,
        max_new: int,
        concurrency: int,
        plain: bool = False,
        cache_gb: float = 0,
    ) -> None:
        """Start the engine.

        Args:
            max_new: new tokens per reply.
            concurrency: requests expected in flight.
            plain: use no SlotEngine.
            cache_gb: GiB of keys and values, at most; 0: the device's default.
        """
        self.tokens = ChatTokens(tokenizer)
        self.max_new = max_new
        self.context = (
            getattr(model.config.get_text_config(), "max_position_embeddings", None) or DEFAULT_CONTEXT
        )
        self.engine = make_engine(model, tokenizer, concurrency, self.context, plain, cache_gb)
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
            seed: gives the same samples in any batch, in float32.
            max_new: new tokens per reply of this request; None: the actor's.

        Raises:
            ContextOverflow: no reply token fits after the conversation.
            ActorError: the engine failed or is closed.
        """
        ids = self.prompt_ids(messages)
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
        return samples + [replace(samples[0], prompt_tokens=0, completion_tokens=0)] * (n - asked)

    def prompt_ids(self, messages: Sequence[Message]) -> np.ndarray:
        """Return the token ids, [tokens], of the conversation with the generation prompt.

        Raises:
            PromptRefused: the chat template or the tokenizer does not take the conversation.
        """
        try:
            return self.tokens.ids(messages)
        except Exception as error:  # templates raise what their expressions raise
            roles = ", ".join(message.role for message in messages)
            why = " ".join(str(error).split())[:200]
            raise PromptRefused(f"the chat template refuses a conversation of {roles}: {why}") from error

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
