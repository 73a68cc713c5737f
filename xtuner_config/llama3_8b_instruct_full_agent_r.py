# llama3_8b_instruct_full_agent_r: an XTuner 0.2.0 config.
# Rendered by xtuner_config/render.py from base.py.in: change that, not this.
# Set the model and the data file below; the data file holds rows in tokens, made by the model's own chat template:
#   python xtuner_config/export.py --format xtuner --data ROWS.jsonl --model_dir MODEL --output train.jsonl
# Then, in the trainer's environment (one process without NPROC_PER_NODE; without a GPU, PYTHONPATH=mcts_utils/training/cpu):
#   NPROC_PER_NODE=8 xtuner train xtuner_config/llama3_8b_instruct_full_agent_r.py --deepspeed deepspeed_zero2
# ruff: noqa: C408, E501
from datasets import load_dataset
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, AutoTokenizer
from xtuner.dataset import process_hf_dataset
from xtuner.dataset.collate_fns import default_collate_fn
from xtuner.engine.runner import TrainLoop
from xtuner.model import SupervisedFinetune

# What differs between runs
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
data_path = "train.jsonl"
max_length = 8192  # Appendix C.1 (8,196; 8192 is meant)
max_epochs = 3  # Appendix C.1: 3 in iteration 1, then 1
batch_size = 1  # Appendix C.1
accumulative_counts = 16  # Appendix C.1; x 8 devices: 128 rows a step
lr = 2e-05  # Appendix C.1
warmup_ratio = 0.03  # Appendix C.1
torch_dtype = "torch.bfloat16"
use_activation_checkpointing = True
dist_backend = "nccl"
seed = 0

# Appendix C.1
betas = (0.9, 0.999)  # torch's default: the appendix names none
weight_decay = 0
max_norm = 1
save_steps = 512  # a multiple of accumulative_counts: gradients gathered so far are not in a checkpoint

# XTuner's imports are lazy, hence __import__. Without a launcher, DeepSpeed would ask MPI for the one process.
environ = __import__("os").environ
if "RANK" not in environ and "--launcher" not in __import__("sys").argv:
    environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
devices = int(environ.get("WORLD_SIZE") or environ.get("SLURM_NTASKS") or 1)
del environ
# With few rows the warm-up is two iterations: of fewer, XTuner makes an error or a rate of 1e-5 of its peak throughout.
rows = sum(1 for _ in open(data_path, encoding="utf-8"))
iterations = max_epochs * -(-rows // (devices * batch_size))
warmup = max_epochs * (warmup_ratio if warmup_ratio * iterations >= 2 else 2.5 / iterations)
if iterations < accumulative_counts:
    accumulative_counts = 1

# For `xtuner convert`; the rows are tokens already.
tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    pretrained_model_name_or_path=pretrained_model_name_or_path,
    padding_side="right",
)
model = dict(
    type=SupervisedFinetune,
    use_varlen_attn=False,
    use_activation_checkpointing=use_activation_checkpointing,
    llm=dict(
        type=AutoModelForCausalLM.from_pretrained,
        pretrained_model_name_or_path=pretrained_model_name_or_path,
        torch_dtype=torch_dtype,
    ),
)

# Never packed: packing lets one conversation attend to another. map_num_proc=None: 32 processes by default.
train_dataset = dict(
    type=process_hf_dataset,
    dataset=dict(type=load_dataset, path="json", data_files=data_path),
    do_dataset_tokenization=False,
    max_length=max_length,
    pack_to_max_length=False,
    map_num_proc=None,
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,
    dataset=train_dataset,
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate_fn, use_varlen_attn=False),
)

# AmpOptimWrapper asserts a GPU; --deepspeed puts its own wrapper, with bfloat16, in this one's place.
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=lr, betas=betas, weight_decay=weight_decay),
    clip_grad=dict(max_norm=max_norm, error_if_nonfinite=False),
    accumulative_counts=accumulative_counts,
)
param_scheduler = [
    dict(
        type=LinearLR,
        start_factor=1e-5,
        by_epoch=True,
        begin=0,
        end=warmup,
        convert_to_iter_based=True,
    ),
    dict(
        type=CosineAnnealingLR,
        eta_min=0.0,
        by_epoch=True,
        begin=warmup,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type=TrainLoop, max_epochs=max_epochs)

default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, log_metric_by_epoch=False, interval=max(1, min(10, iterations // 4))),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=save_steps, max_keep_ckpts=1),
    sampler_seed=dict(type=DistSamplerSeedHook),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend=dist_backend),
)
visualizer = None
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=seed, deterministic=False)
log_processor = dict(by_epoch=False)
