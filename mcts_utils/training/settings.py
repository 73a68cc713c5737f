"""The settings of training runs, and the named configs, which fit any model.

A derived config states only what differs from its base. Numbers that are the same for all runs are in
xtuner_config/base.py.in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

WARMUP_RATIO = 0.03  # of all iterations (Appendix C.1)
SAVE_STEPS = 512  # iterations between two checkpoints; the same as in base.py.in
XTUNER_QLORA = "XTuner's llama3_8b_instruct_qlora_alpaca_e3"
ETO = "ETO's run_eto.sh, iteration 1"  # Song et al. 2024, the authors' repository


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters on every linear layer except the head."""

    rank: int
    alpha: int
    dropout: float


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The settings that may differ between runs; the rest of Appendix C.1 is in base.py.in."""

    name: str
    model: str  # as named in the committed config; a run replaces it by its own folder
    gpus: int  # number of GPUs that the settings are meant for; 0: a CPU
    epochs: int
    lr: float  # peak learning rate
    batch: int  # rows (or pairs) per micro-batch on each device
    accumulation: int  # micro-batches per optimizer step
    max_length: int  # most tokens per row
    precision: str  # dtype of the weights in the trainer: "float32" or "bfloat16"
    recompute: bool  # activation checkpointing: slower; needed if the activations do not fit
    deepspeed: str | None  # name of one of XTuner's DeepSpeed configs
    backend: str  # of torch.distributed
    method: str = "sft"  # or "dpo"
    lora: Lora | None = None  # None: every weight is trained
    quantized: bool = False  # whether the frozen weights are held in 4 bits
    autocast: bool = (
        False  # whether products are taken in bfloat16; weights and optimizer stay in `precision`
    )
    beta: float = 0.1  # DPO: strength of the tie to the reference model
    seed: int = 0
    # name of a setting -> its source, for the comments in the config
    sources: Mapping[str, str] = field(default_factory=dict)


TINY_ACTOR = TrainSettings(
    name="tiny_actor",
    model="models/tiny_actor",
    gpus=0,
    epochs=3,
    lr=5e-4,
    batch=1,
    accumulation=8,
    max_length=2048,
    precision="float32",
    recompute=False,
    deepspeed=None,
    backend="gloo",
    sources={
        "epochs": "Appendix C.1: 3 in iteration 1, then 1",
        "lr": "what results/ was measured with",
        "batch": "Appendix C.1",
        "accumulation": "some 450 rows give 57 steps an epoch",
        "max_length": "the model's window",
    },
)
CPU = replace(
    TINY_ACTOR,
    name="cpu",
    model="MODEL_DIR",
    lr=1e-4,
    accumulation=4,
    autocast=True,
    sources={
        "epochs": "Appendix C.1: 3 in iteration 1, then 1",
        "lr": "between tiny_actor's and full's: a model of some 100 million parameters",
        "batch": "Appendix C.1",
        "accumulation": "few rows: a CPU trains some 200 tokens a second",
        "max_length": "what a CPU trains in a few seconds",
    },
)
TINY_LORA = replace(
    TINY_ACTOR,
    name="tiny_actor_lora",
    lora=Lora(64, 16, 0.1),
    lr=5e-3,
    sources={
        **TINY_ACTOR.sources,
        "lr": "ten times tiny_actor's, as 2e-4 is of 2e-5",
        "lora": XTUNER_QLORA,
    },
)
TINY_DPO = replace(
    TINY_ACTOR,
    name="tiny_actor_dpo",
    method="dpo",
    lr=5e-5,
    accumulation=4,
    sources={
        **TINY_ACTOR.sources,
        "epochs": ETO,
        "lr": "a tenth of tiny_actor's",
        "accumulation": "few pairs",
        "beta": ETO,
    },
)

FULL = TrainSettings(
    name="full",
    model="MODEL_DIR",
    gpus=8,
    epochs=3,
    lr=2e-5,
    batch=1,
    accumulation=16,
    max_length=8192,
    precision="bfloat16",
    recompute=True,
    deepspeed="deepspeed_zero2",
    backend="nccl",
    sources={
        "epochs": "Appendix C.1: 3 in iteration 1, then 1",
        "lr": "Appendix C.1",
        "batch": "Appendix C.1",
        "accumulation": "Appendix C.1; x 8 devices: 128 rows a step",
        "max_length": "Appendix C.1 (8,196; 8192 is meant)",
    },
)
LORA = replace(
    FULL,
    name="lora",
    gpus=1,
    lora=Lora(64, 16, 0.1),
    lr=2e-4,
    accumulation=128,
    sources={
        **FULL.sources,
        "lr": XTUNER_QLORA,
        "lora": XTUNER_QLORA,
        "accumulation": "the 128 rows a step of Appendix C.1, on one device",
    },
)
QLORA = replace(
    LORA,
    name="qlora",
    quantized=True,
    sources={**LORA.sources, "quantized": f"{XTUNER_QLORA}; bfloat16 in place of float16"},
)
DPO = replace(
    FULL,
    name="dpo",
    method="dpo",
    lr=1e-6,
    accumulation=4,
    max_length=4096,
    sources={
        "epochs": ETO,
        "lr": f"{ETO}; later ones 5e-7",
        "batch": "one pair is two rows",
        "accumulation": f"{ETO}: 32 pairs a step",
        "max_length": ETO,
        "beta": f"{ETO}; later ones 0.5",
    },
)

# The same with Llama 3.1 8B, the paper's model; the first and the third are committed in xtuner_config/.
LLAMA3_8B, LLAMA3_8B_LORA, LLAMA3_8B_QLORA, LLAMA3_8B_DPO = (
    replace(
        settings, name=f"llama3_8b_instruct_{settings.name}_agent_r", model="meta-llama/Llama-3.1-8B-Instruct"
    )
    for settings in (FULL, LORA, QLORA, DPO)
)

CONFIGS = {
    settings.name: settings
    for settings in (
        *(FULL, LORA, QLORA, DPO, CPU),
        *(TINY_ACTOR, TINY_LORA, TINY_DPO),
        *(LLAMA3_8B, LLAMA3_8B_LORA, LLAMA3_8B_QLORA, LLAMA3_8B_DPO),
    )
}
