"""Figures of a stage while it runs: on its progress bar, and in TensorBoard or Weights & Biases if asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.types import Actor, InputError, Message, Sample

Log = Callable[[int, Mapping[str, float]], object]  # (jobs done, numbers)
SECONDS = 1.0  # between two looks of a person at a terminal


class LiveFigures:
    """Counts what the actor of this process answers, and shows it with what the stage shows."""

    def __init__(self, settings: Settings) -> None:
        self._price = [float(dollars) / 1e6 for dollars in settings.token_price.split()]
        self._lock, self._began = threading.Lock(), time.monotonic()
        self.in_flight = self.read = self.written = 0

    def metered(self, make_actor: Callable[[], Actor] | None) -> Callable[[], Actor] | None:
        """Return a function that makes the actor with its requests counted."""
        return (lambda: MeteredActor(make_actor(), self)) if make_actor else None

    def figures(self) -> dict[str, str]:
        """Return tokens per second, requests in flight and, with TOKEN_PRICE, dollars; {} before the first request."""
        if not self.in_flight + self.written:
            return {}
        rate = self.written / max(time.monotonic() - self._began, 1e-9)
        found = {"tokens/s": f"{rate:.0f}", "in flight": str(self.in_flight)}
        if self._price:
            found["$"] = f"{self.read * self._price[0] + self.written * self._price[1]:.2f}"
        return found

    def count(self, requests: int, read: int = 0, written: int = 0) -> None:
        """Count requests that begin (or, below 0, end), and tokens."""
        with self._lock:
            self.in_flight += requests
            self.read += read
            self.written += written


class MeteredActor:
    """An actor whose requests are counted."""

    def __init__(self, actor: Actor, figures: LiveFigures) -> None:
        self._actor, self._figures = actor, figures

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Sample from the actor."""
        samples: list[Sample] = []
        self._figures.count(1)
        try:
            samples = self._actor.sample(messages, n, temperature, seed)
        finally:
            read = max((sample.prompt_tokens for sample in samples), default=0)
            self._figures.count(-1, read, sum(sample.completion_tokens for sample in samples))
        return samples

    def stats(self) -> dict[str, Any]:
        """Return the actor's counters."""
        return self._actor.stats()

    def close(self) -> None:
        """Close the actor."""
        self._actor.close()


@contextmanager
def live_bar(make_bar: Callable[[], Any], figures: LiveFigures, log: Log) -> Iterator[Any]:
    """Open a progress bar that shows the figures beside the stage's own, each second on a terminal, and logs both."""
    ended = threading.Event()
    with make_bar() as bar:
        bar.live, bar.log = figures.figures, log
        ticker = threading.Thread(target=_tick, args=(bar, ended), daemon=True)
        if not bar.lines:
            ticker.start()
        try:
            yield bar
        finally:
            ended.set()
            if not bar.lines:
                ticker.join()


def _tick(bar: Any, ended: threading.Event) -> None:
    while not ended.wait(SECONDS):
        bar.show_live()


@contextmanager
def open_log(settings: Settings, name: str) -> Iterator[Log]:
    """Open what TENSORBOARD_DIR and WANDB_PROJECT ask for; yield a function that logs numbers under the stage's name.

    Raises:
        InputError: a package is missing; the line names the variable and the package.
    """
    logs: list[Log] = []
    closes: list[Callable[[], Any]] = []
    run = f"{settings.task}_{settings.model_name or 'run'}_{name}".replace("/", "_")
    if settings.tensorboard_dir:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("TENSORBOARD_DIR", settings.tensorboard_dir, "tensorboard") from error
        writer = SummaryWriter(f"{settings.tensorboard_dir}/{run}")
        logs.append(lambda n, numbers: [writer.add_scalar(f"{name}/{k}", v, n) for k, v in numbers.items()])
        closes.append(writer.close)
    if settings.wandb_project:
        try:
            import wandb
        except ImportError as error:
            raise missing("WANDB_PROJECT", settings.wandb_project, "wandb") from error
        session = wandb.init(
            project=settings.wandb_project, name=run, mode="offline", config=settings.public()
        )
        logs.append(lambda n, numbers: session.log({f"{name}/{k}": v for k, v in numbers.items()}, step=n))
        closes.append(session.finish)
    try:
        yield lambda n, numbers: [log(n, numbers) for log in logs]
    finally:
        for close in closes:
            close()


def missing(variable: str, value: str, package: str) -> InputError:
    """Return the error that says which package a variable needs."""
    return InputError(f"{variable}={value!r} needs the package {package}: .venv/bin/pip install {package}")
