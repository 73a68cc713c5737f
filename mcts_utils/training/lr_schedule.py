"""The learning rate of each iteration, computed from rows and settings as XTuner does it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mcts_utils.training.settings import WARMUP_RATIO, TrainSettings
from mcts_utils.types import InputError

MIN_ITERATIONS = 4  # two of warm-up, two of decay
# With fewer, XTuner's warm-up either raises or leaves the rate at 1e-5 of its peak for the whole run.
MIN_WARMUP = 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """The length of a run and of its warm-up, in iterations: one micro-batch on each device, at one learning rate."""

    iterations: int  # of the whole run
    per_epoch: int
    warmup: int  # iterations
    warmup_ratio: float  # value in the config that gives this warm-up

    def rate(self, step: int, lr: float) -> float:
        """Return the learning rate of iteration `step`, from 0: a linear warm-up from 1e-5 `lr`, then a cosine to 0."""
        if step < self.warmup:
            return lr * (1e-5 + (1 - 1e-5) * step / (self.warmup - 1))
        decay = (step - self.warmup) / (self.iterations - self.warmup)
        return lr * 0.5 * (1 + math.cos(math.pi * decay))

    def notes(self) -> list[str]:
        """Return messages about where the run differs from its config."""
        if self.warmup_ratio == WARMUP_RATIO:
            return []
        return [f"{self.iterations} iterations are few: warm-up is {self.warmup} of them, not 3 %"]


def plan_schedule(rows: int, settings: TrainSettings, devices: int) -> Schedule:
    """Return the schedule that XTuner follows with `rows` rows on `devices` devices.

    Raises:
        InputError: with the number of rows, if the run is too short for an optimizer step or a usable schedule.
    """
    per_epoch = math.ceil(math.ceil(rows / devices) / settings.batch)
    iterations = settings.epochs * per_epoch
    fewest = max(MIN_ITERATIONS, settings.accumulation)
    if iterations < fewest:
        raise InputError(
            f"{rows} rows give {iterations} iterations (--epochs {settings.epochs}, --batch {settings.batch}, "
            f"{devices} devices), at least {fewest} are needed: more rows or epochs, or a lower --accumulation"
        )
    ratio = WARMUP_RATIO
    if _warmup(ratio, settings.epochs, per_epoch) < MIN_WARMUP:
        ratio = (MIN_WARMUP + 0.5) / iterations  # the half keeps int() clear of rounding
    return Schedule(iterations, per_epoch, _warmup(ratio, settings.epochs, per_epoch), ratio)


def _warmup(ratio: float, epochs: int, per_epoch: int) -> int:
    """Return the warm-up in iterations, rounded as mmengine rounds the config's `end=warmup_ratio * max_epochs`."""
    return int((ratio * epochs) * per_epoch)
