"""Train a model on rows in tokens with TRL: for models that the transformers of XTuner's environment does not know.

    python xtuner_config/export.py --format tokens --data ROWS.jsonl --model_dir DIR --output tokens.jsonl
    python scripts/train_trl.py --data tokens.jsonl --model_dir DIR --output_dir OUT [--epochs 3] [--lr 2e-5] ...

It runs in any environment that has TRL 1.16 or newer (pip install trl) and needs nothing of this package. The numbers
are those of the paper's Appendix C.1. On several GPUs: torchrun --nproc_per_node 8 scripts/train_trl.py ..., with
--accumulation 16. TRL takes the mean loss over the tokens of an optimizer step; XTuner takes it row by row.
"""

from __future__ import annotations

import argparse

import torch
from datasets import load_dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main() -> None:
    """Train and write the model's folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, help="files of export.py --format tokens")
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--epochs", type=float, default=3, help="the paper: 3 in iteration 1, then 1")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument(
        "--accumulation", type=int, default=128, help="rows of an optimizer step on each device"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = SFTConfig(
        args.output_dir,
        num_train_epochs=args.epochs,
        learning_rate=args.lr,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,  # below 1: a share of all steps
        weight_decay=0.0,
        max_grad_norm=1.0,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=args.accumulation,
        max_length=None,  # export.py has cut what is too long, at a turn
        packing=False,
        seed=args.seed,
        logging_steps=1,
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    )
    dtype = AutoConfig.from_pretrained(args.model_dir).dtype or torch.float32
    rows = load_dataset("json", data_files=args.data, split="train")
    trainer = SFTTrainer(
        # In float32, computed in bfloat16: updates at this rate would vanish in bfloat16 weights.
        model=AutoModelForCausalLM.from_pretrained(args.model_dir, dtype=torch.float32),
        args=settings,
        train_dataset=rows.select_columns(["input_ids", "labels"]),
        processing_class=AutoTokenizer.from_pretrained(args.model_dir),
    )
    trainer.train()
    trainer.model.to(dtype)
    trainer.save_model()


if __name__ == "__main__":
    main()
