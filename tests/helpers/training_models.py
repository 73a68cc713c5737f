"""Small models, records and the call of stage 3, for the tests of training."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

from mcts_utils.storage import files
from mcts_utils.training import train

ROOT = Path(__file__).resolve().parents[2]
WORDS = "get craft 1 2 4 oak planks stick torch coal using inventory Thought: Action: I need wait ok.".split()
# What the two chat templates write, in a few lines of our own; `{{ bos_token }}` begins both.
TINY_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n' + s + '<|eot_id|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role']"
    " + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TINY_SPECIAL = ["<|pad|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
LLAMA_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def record(seed: int, kind: str = "good", env: str = "textcraft") -> dict[str, Any]:
    """A row as path_collection.py writes it: revision rows train from the revision signal on (Eq. 6)."""
    rng = random.Random(seed)
    messages = [("system", "Craft the goal.", False), ("user", sentence(rng, 8), False)]
    for step in range(3):
        reply = f"Thought: {sentence(rng, 4)}\nAction: get 2 oak planks"
        messages += [("assistant", reply, kind == "good" or step > 0), ("user", sentence(rng, 3), False)]
    return {
        "kind": kind,
        "messages": [dict(zip(("role", "content", "loss"), m, strict=True)) for m in messages],
        "revise": messages[4][1] if kind == "revision" else "",
        "lineage": {"task": {"env": env, "index": seed, "id": f"{env}:{seed // 2}"}},
    }


def preference(seed: int) -> dict[str, Any]:
    """A pair as path_collection.py writes it: the rejected answer carries no flags, the chosen one skips a refusal."""
    good, bad = record(seed)["messages"], record(seed + 1000)["messages"]
    good[4]["loss"] = False
    return {
        "kind": "preference",
        "prompt": [message | {"loss": False} for message in good[:2]],
        "chosen": good[2:-1],
        "rejected": [message | {"loss": False} for message in bad[2:-1]],
        "lineage": {"task": {"env": "textcraft", "index": seed, "id": f"textcraft:{seed}"}},
    }


def byte_tokenizer(special: list[str], template: str | None, begin: str, end: str) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the words of the records; any text can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([sentence(random.Random(n), 20) for n in range(200)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end)
    fast.chat_template = template
    return fast


def model_folder(
    folder: Path,
    special: list[str],
    template: str | None,
    begin: str,
    end: str,
    kind: type[PreTrainedConfig] = LlamaConfig,
) -> Path:
    """A random two-layer model with tied embeddings and its tokenizer, as transformers 5 saves them."""
    fast = byte_tokenizer(special, template, begin, end)
    torch.manual_seed(0)
    # rope_theta is not the default: the trainer's transformers must be told, or it trains another model.
    config = kind(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).half().save_pretrained(folder)
    fast.save_pretrained(folder)
    (folder / "README.md").write_text("A model card.\n", encoding="utf-8")
    return folder


def tiny_model(folder: Path) -> Path:
    """With the bundled actor's chat template."""
    return model_folder(folder, TINY_SPECIAL, TINY_TEMPLATE, "<|begin|>", "<|end|>")


def llama_model(folder: Path) -> Path:
    """With Llama 3.1's."""
    return model_folder(folder, LLAMA_SPECIAL, LLAMA_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>")


def write_records(path: Path) -> Path:
    """40 rows, every other one a revision."""
    files.write_jsonl(path, [record(n, "revision" if n % 2 else "good") for n in range(40)])
    return path


def stage3(*arguments: Any, **environ: str) -> int:
    """train.py in this process."""
    return train.main([str(argument) for argument in arguments], dict(os.environ) | environ)
