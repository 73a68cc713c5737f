"""The learning rate that rows and settings give, iteration by iteration, as XTuner will follow it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mcts_utils.training.settings import WARMUP_RATIO, TrainSettings
from mcts_utils.types import InputError

MIN_ITERATIONS = 8  # fewer cannot hold a warm-up and a decay
# Under two iterations XTuner's warm-up either raises or leaves the rate at 1e-5 of itself for the whole run.
MIN_WARMUP = 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """An iteration is one micro-batch on each device; the learning rate moves with every one of them."""

    iterations: int  # of the whole run
    per_epoch: int
    warmup: int  # iterations
    warmup_ratio: float  # what the config must say to get that warm-up

    def rate(self, step: int, lr: float) -> float:
        """The learning rate of iteration `step` (from 0): linear warm-up from 1e-5 of `lr`, then a cosine to 0."""
        if step < self.warmup:
            return lr * (1e-5 + (1 - 1e-5) * step / (self.warmup - 1))
        decay = (step - self.warmup) / (self.iterations - self.warmup)
        return lr * 0.5 * (1 + math.cos(math.pi * decay))

    def notes(self) -> list[str]:
        """Where the run has to differ from its config."""
        if self.warmup_ratio == WARMUP_RATIO:
            return []
        return [f"{self.iterations} iterations are few: warm-up is {self.warmup} of them, not 3 %"]


def plan(rows: int, settings: TrainSettings, devices: int) -> Schedule:
    """The schedule that XTuner will follow with these rows on that many devices.

    Raises:
        InputError: naming the row count, if the run would hold no optimizer step or no usable schedule.
    """
    per_epoch = math.ceil(math.ceil(rows / devices) / settings.batch)
    iterations = settings.epochs * per_epoch
    least = max(MIN_ITERATIONS, settings.accumulation)
    if iterations < least:
        raise InputError(
            f"{rows} rows give {iterations} iterations (--epochs {settings.epochs}, --batch {settings.batch}, "
            f"{devices} devices), at least {least} are needed: more rows or epochs, or a lower --accumulation"
        )
    ratio = WARMUP_RATIO
    if _warmup(ratio, settings.epochs, per_epoch) < MIN_WARMUP:
        ratio = (MIN_WARMUP + 0.5) / iterations  # the half keeps int() clear of rounding
    return Schedule(iterations, per_epoch, _warmup(ratio, settings.epochs, per_epoch), ratio)


def _warmup(ratio: float, epochs: int, per_epoch: int) -> int:
    """As mmengine turns the config's `end=warmup_ratio * max_epochs` into iterations, in the same order of rounding."""
    return int((ratio * epochs) * per_epoch)
