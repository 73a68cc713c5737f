"""Define a completion to make, who makes it, and with what. No model here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from mcts_utils.types import ActorError, ServiceGone


class ModelGone(ActorError, ServiceGone):
    """The engine of the local model has failed, or its process has ended: the stage ends."""


@dataclass
class DecodeJob:
    """One completion to make. Its samples depend on its own seed only, not on the rest of the batch."""

    ids: np.ndarray  # prompt, [tokens]
    limit: int  # new tokens, at most
    temperature: float
    seed: int
    uniforms: np.ndarray = field(init=False)  # [limit], in [0, 1): drawn by the engine, one a new token
    since: float = field(default_factory=time.monotonic)  # seconds: when it was asked for
    future: Future[list[int]] = field(default_factory=Future)  # new token ids, with the stop token


class Fit(NamedTuple):
    """How a model computes on this machine."""

    number_format: str  # on a CPU; empty: the device's
    threads: int  # of a process; 0: as many as the library takes
    processes: int  # that share the requests, at most


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is made of (folder.py)."""

    folder: str  # of the model
    eos: int | None  # token ids of its tokenizer
    pad: int | None
    concurrency: int  # requests expected in flight
    number_format: str = "auto"  # of a model on a CPU; auto: the faster one is found out and said in a line
    cache_gb: float = 0.0  # GiB of keys and values, at most; 0: the device's default
    plain: bool = False  # use no SlotEngine
    fit: Fit | None = None  # None: it is found out


class Loaded(NamedTuple):
    """What a process says of the engine that it has made."""

    stop_ids: np.ndarray
    context: int
    fit: Fit


class Asked(NamedTuple):
    """A completion that a process is asked for; the fields of DecodeJob, with a number for the answer."""

    number: int
    ids: np.ndarray
    limit: int
    temperature: float
    seed: int


class Answered(NamedTuple):
    """The answer to it."""

    number: int
    reply: list[int] | str  # new token ids; a text: why there are none
    stats: dict[str, float]  # of the engine


class Decoder(Protocol):
    """Makes completions: an engine (base.py), or engines in processes of their own (processes.py)."""

    stop_ids: np.ndarray  # sorted token ids that end a reply
    context: int  # tokens of the longest conversation with its reply

    def submit(self, jobs: Sequence[DecodeJob]) -> None:
        """Queue jobs, whose futures are resolved by another thread.

        Raises:
            ModelGone: it is closed or has failed.
        """

    def stats(self) -> dict[str, float]:
        """Return counters since the start: `reused_tokens`, of prompts, were not computed again."""

    def close(self) -> None:
        """End threads and processes. Jobs that have not ended fail with ModelGone."""
