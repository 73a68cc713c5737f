"""Training of the bundled actor: weighted next-token loss over batches of dialogues of similar length.

What the dialogues show is decided in make.py.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from mcts_utils.tiny_actor.demonstrations import Dialogue
from mcts_utils.tiny_actor.tokenizer import BEGIN, END, VOCABULARY

CONTEXT = 2048  # tokens
MAX_DIALOGUE = 1100  # tokens; longer dialogues are drawn again
POOL = 256  # dialogues that are sorted by length together


@dataclass(frozen=True)
class Example:
    """Token ids of one dialogue and the loss weight of each, both (length,)."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Phase:
    """One part of the training, with its own data and learning-rate schedule."""

    name: str
    tokens: int  # tokens to train on, without padding
    lr: float  # peak learning rate of AdamW
    sample: Callable[[random.Random, float], Dialogue]  # (rng, share of the phase done) -> dialogue
    warmup: int = 50  # steps
    floor: float = 0.02  # final learning rate as a share of the peak


def new_model(
    seed: int, layers: int = 4, width: int = 128, heads: int = 4, inner: int = 416
) -> LlamaForCausalLM:
    """Return a Llama with random weights, tied embeddings and about 1 M parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=5,
        initializer_range=0.05,
        attn_implementation="eager",  # on CPU in bf16 its backward is faster than sdpa's at these lengths
    )
    return LlamaForCausalLM(config)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a special token."""
    found = tokenizer.token_to_id(token)
    assert found is not None, token
    return found


def encode(dialogue: Dialogue, tokenizer: Tokenizer) -> Example:
    """Return the ids that the chat template gives; a turn's weight is that of its content and of its end token."""
    ids: list[int] = [token_id(tokenizer, BEGIN)]
    weights = [0.0]
    end = token_id(tokenizer, END)
    contents = tokenizer.encode_batch([turn.content for turn in dialogue], add_special_tokens=False)
    for turn, content in zip(dialogue, contents, strict=True):
        ids += [token_id(tokenizer, f"<|{turn.role}|>"), *content.ids, end]
        weights += [0.0] + [turn.weight] * (len(content.ids) + 1)
    return Example(ids, weights)


def batches(draw: Callable[[], Example], rng: random.Random, size: int) -> Iterator[list[Example]]:
    """Yield endless batches of at most `size` tokens with padding, of dialogues of similar length.

    A dialogue that is longer than `size` is a batch of its own.
    """
    while True:
        pool = sorted((draw() for _ in range(POOL)), key=lambda e: len(e.ids))
        ready: list[list[Example]] = []
        batch: list[Example] = []
        for example in pool:
            if batch and len(example.ids) * (len(batch) + 1) > size:
                ready.append(batch)
                batch = []
            batch.append(example)
        ready.append(batch)
        rng.shuffle(ready)
        yield from ready


def collate(batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (ids, weights), both of shape (batch, longest), padded on the right: causal attention ignores it."""
    longest = max(len(e.ids) for e in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    return ids, weights


def loss_of(
    model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted mean loss, and for the log the mean over tokens of weight 1 or more.

    Logits are computed only for tokens of weight above 0.
    """
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    wanted = weights[:, 1:] > 0
    logits = model.lm_head(hidden[wanted]).float()
    losses = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    scale = weights[:, 1:][wanted]
    full = scale >= 1
    return (losses * scale).sum() / scale.sum(), losses[full].detach().mean()


def learning_rate(phase: Phase, step: int, done: float) -> float:
    """Return the learning rate of a step: linear warm-up times a cosine to `floor`; `done` is the share of tokens."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return phase.lr * min(1.0, (step + 1) / phase.warmup) * (phase.floor + (1 - phase.floor) * cosine)


def average_gradients(model: LlamaForCausalLM, tokens: int) -> int:
    """Average the gradients over the processes; return the sum of their `tokens` in this step."""
    if not dist.is_initialized():
        return tokens
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([float(tokens)])])
    dist.all_reduce(flat)
    parts = flat[:-1].div_(dist.get_world_size()).split([g.numel() for g in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))
    return int(flat[-1])


def draw_example(phase: Phase, tokenizer: Tokenizer, rng: random.Random, done: float) -> Example:
    """Return a dialogue of the phase that is not too long; `done` is the share of the phase that is over."""
    while True:
        example = encode(phase.sample(rng, done), tokenizer)
        if len(example.ids) <= MAX_DIALOGUE:
            return example


def training_step(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: list[Example]
) -> tuple[int, float]:
    """Update the weights with one batch per process; return (tokens of all processes, this process's plain loss)."""
    ids, weights = collate(batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, plain = loss_of(model, ids, weights)
    loss.backward()
    tokens = average_gradients(model, sum(len(e.ids) for e in batch))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return tokens, float(plain)


def train(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    phase: Phase,
    seed: int,
    batch_tokens: int = 2500,
    report: Callable[[dict], None] = print,
    every: int = 100,
) -> None:
    """Train one phase in place, with batches of `batch_tokens` tokens in each process.

    Process 0 reports every `every` steps and at the end: phase, steps, tokens, seconds, mean loss, tokens_per_second.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    rng = random.Random(f"{seed}:{phase.name}:{rank}")
    seen = steps = 0
    recent: list[float] = []
    start = time.monotonic()

    def draw() -> Example:
        return draw_example(phase, tokenizer, rng, seen / phase.tokens)

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    model.train()
    for batch in batches(draw, rng, batch_tokens):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase, steps, seen / phase.tokens)
        tokens, loss = training_step(model, optimizer, batch)
        seen += tokens
        steps += 1
        recent = [*recent[1 - every :], loss]
        if rank == 0 and (steps % every == 0 or seen >= phase.tokens):
            seconds = time.monotonic() - start
            done = {"phase": phase.name, "steps": steps, "tokens": seen, "seconds": round(seconds, 1)}
            mean = round(sum(recent) / len(recent), 4)
            report(done | {"loss": mean, "tokens_per_second": round(seen / seconds)})
        if seen >= phase.tokens:
            break
