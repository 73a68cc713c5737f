"""What a training run is set to: the two named configs, and the schedule that rows and settings give."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mcts_utils.types import InputError
from xtuner_config.chat import ChatFormat

WARMUP_RATIO = 0.03  # of all iterations (Appendix C.1)
MIN_ITERATIONS = 8  # fewer cannot hold a warm-up and a decay
# Under two iterations XTuner's warm-up either raises or leaves the rate at 1e-5 of itself for the whole run.
MIN_WARMUP = 2


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The numbers that may differ between runs; the rest of Appendix C.1 stands in base.py.in."""

    name: str
    model: str  # what the committed config names; a run puts its own folder there
    chat: ChatFormat
    epochs: int
    lr: float  # at its peak
    batch: int  # rows per micro-batch on each device
    accumulation: int  # micro-batches per optimizer step
    max_length: int  # tokens per row
    precision: str  # dtype of the weights in the trainer: "float32" or "bfloat16"
    recompute: bool  # activation checkpointing: slower, and needed where activations do not fit
    deepspeed: str | None  # name of XTuner's DeepSpeed JSON
    backend: str  # of torch.distributed, where it is used
    seed: int = 0


TINY_ACTOR = TrainSettings(
    name="tiny_actor",
    model="models/tiny_actor",
    chat=ChatFormat("<|system|>{system}<|end|>", "<|user|>{input}<|end|><|assistant|>", "<|end|>"),
    epochs=3,
    lr=5e-4,
    batch=1,
    accumulation=8,
    max_length=2048,
    precision="float32",
    recompute=False,
    deepspeed=None,
    backend="gloo",
)

LLAMA3_8B = TrainSettings(
    name="llama3_8b_instruct_full_agent_r",
    model="meta-llama/Llama-3.1-8B-Instruct",
    # XTuner's llama3_chat is Llama 3's: Llama 3.1's chat template adds the date lines and trims every content.
    chat=ChatFormat(
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        preamble="Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        strip=True,
    ),
    epochs=3,  # of the first iteration; later ones take 1 (Section 4.2)
    lr=2e-5,
    batch=1,
    accumulation=16,
    max_length=8192,
    precision="bfloat16",
    recompute=True,
    deepspeed="deepspeed_zero2",
    backend="nccl",
)

CONFIGS = {settings.name: settings for settings in (TINY_ACTOR, LLAMA3_8B)}


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
