"""Answer with a local transformers chat model (types.Actor): MODEL_DIR on CPU, CUDA or MPS, with its chat template.

Any causal language model works that the library loads from a folder; the hub is never used. Conversations become
tokens here, and the tokens of replies text; engine/ computes them, with the requests of many threads in one batch.
Temperature is the only sampling setting: top_p, top_k and penalties of the folder's generation_config are not applied,
so that temperature 1 samples from the model's own distribution.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mcts_utils.actors.chat_tokens import ChatTokens, load_tokenizer
from mcts_utils.actors.engine.job import DecodeJob, Decoder, EngineSpec
from mcts_utils.actors.engine.processes import EngineProcesses
from mcts_utils.actors.limiter import RequestStats
from mcts_utils.types import ActorError, ContextOverflow, InputError, Message, Sample


class PromptRefused(ActorError):
    """The model's chat template does not take a conversation."""


def check_folder(folder: str) -> None:
    """Raise InputError if a folder holds no model."""
    if not (Path(folder) / "config.json").is_file():
        raise InputError(
            f"MODEL_DIR={folder}: no config.json there, so it is not a transformers model folder"
        )


def tokenizer_of(folder: str, chat_template: str = "") -> Any:
    """Return the tokenizer of MODEL_DIR, with the template of a file if one is named; raise InputError naming it."""
    try:
        return load_tokenizer(folder, chat_template)
    except InputError as error:
        raise InputError(f"MODEL_DIR={error}" if str(error).startswith(folder) else str(error)) from error


def local_actor(
    folder: str,
    max_new: int,
    concurrency: int,
    chat_template: str = "",
    number_format: str = "auto",
    cache_gb: float = 0.0,
) -> LocalActor:
    """Return the actor of a model folder, which computes in processes of its own.

    Args:
        max_new: new tokens per reply.
        concurrency, number_format, cache_gb: as EngineSpec says.
        chat_template: file of a template in place of the model's own.

    Raises:
        InputError: the folder is not a chat model that the library can load.
        ActorError: the model does not run here.
    """
    check_folder(folder)
    processes = EngineProcesses()
    try:
        tokenizer = tokenizer_of(folder, chat_template)
        ids = tokenizer.eos_token_id, tokenizer.pad_token_id
        processes.load(EngineSpec(folder, *ids, concurrency, number_format, cache_gb))
        return LocalActor(processes, tokenizer, max_new)
    except BaseException:
        processes.close()
        raise


class LocalActor:
    """A tokenizer, and an engine or several (types.Actor). Safe to call from many threads; `close` ends the engine."""

    def __init__(self, engine: Decoder, tokenizer: Any, max_new: int) -> None:
        """`engine` is started; `max_new`: new tokens per reply."""
        self.tokens = ChatTokens(tokenizer)
        self.engine, self.max_new, self.context = engine, max_new, engine.context
        self._requests = RequestStats()

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
        with self._requests:
            replies = self._decode(ids, asked, limit, temperature, seed)
        stops = set(self.engine.stop_ids.tolist())
        samples = [
            Sample(self.tokens.text(reply), len(ids) if i == 0 else 0, len(reply), reply[-1] not in stops)
            for i, reply in enumerate(replies)
        ]
        self._requests.count(len(ids), sum(map(len, replies)))
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
        jobs = [DecodeJob(ids, limit, temperature, base * 1009 + i) for i in range(n)]
        self.engine.submit(jobs)
        return [job.future.result() for job in jobs]

    def stats(self) -> dict[str, float]:
        """Return counters since the start; `reused_tokens` are prompt tokens that were not computed again."""
        return {**self._requests.stats(), **self.engine.stats()}

    def close(self) -> None:
        """End the engine."""
        self.engine.close()
