"""Figures of a stage while it runs: on its progress bar, and in TensorBoard or Weights & Biases if asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.types import InputError

Log = Callable[[int, Mapping[str, float]], object]  # (jobs done, numbers)


@contextmanager
def live_bar(make_bar: Callable[[], Any], figures: Callable[[], dict[str, str]], log: Log) -> Iterator[Any]:
    """Open a progress bar that shows the figures beside the stage's own, and logs both."""
    with make_bar() as bar:
        bar.live, bar.log = figures, log
        yield bar


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
