"""How fast MODEL_DIR plays here: in one batch as the stages ask it, with the library's batches, and one by one.

A rollout is eight turns of a TextCraft goal with the bundled world in this process; groups of eight share their goal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

from mcts_utils.actors.engine.job import EngineSpec
from mcts_utils.actors.local import LocalActor, local_actor, tokenizer_of
from mcts_utils.bench.table import Figures
from mcts_utils.prompts import action_of, opening_messages
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.types import Message, Task

TURNS, GROUP, STRIDE = 8, 8, 37  # turns at most; rollouts per goal; goals skipped, so that all depths occur
MAX_NEW = 48  # tokens of a reply
CONCURRENCY = 64
SINGLE = 16  # of so many rollouts one is played one by one

Answer = Callable[[Sequence[Message], int], tuple[str, int]]  # conversation, seed -> reply, its tokens


def rollout(answer: Answer, index: int, seed: int) -> int:
    """Play a goal for TURNS turns; return the number of tokens of the replies."""
    world, tokens = load_world(), 0
    goal = world.goals[index % len(world.goals)]
    session = Session(world, goal)
    messages = opening_messages(Task("textcraft", index, goal, world.opening(goal)), "brief")
    for turn in range(TURNS):
        reply, count = answer(messages, seed * 100 + turn)
        tokens += count
        observation, _, done = session.step(action_of(reply))
        messages = [*messages, Message("assistant", reply), Message("user", observation)]
        if done:
            break
    return tokens


def rate(answer: Answer, numbers: range, threads: int) -> float:
    """Return the tokens per second of rollouts, `threads` at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        tokens = sum(pool.map(lambda i: rollout(answer, i // GROUP * STRIDE, i), numbers))
    return round(tokens / (time.perf_counter() - began), 1)


def local_model(folder: str, rollouts: int) -> Figures:
    """Return tokens per second of the model in `folder`: `tokens_per_s` and those of the two simpler ways."""
    from mcts_utils.actors.engine.folder import load_model, make_engine  # torch: the other parts do without

    found: Figures = {"rollouts": rollouts}
    with closing(local_actor(folder, MAX_NEW, CONCURRENCY)) as actor:
        rate(asked(actor), range(rollouts, 2 * rollouts), CONCURRENCY)  # until all its processes have started
        found["tokens_per_s"] = rate(asked(actor), range(rollouts), CONCURRENCY)
    tokenizer = tokenizer_of(folder)
    spec = EngineSpec(folder, tokenizer.eos_token_id, tokenizer.pad_token_id, 1, plain=True)
    model, _ = load_model(spec)
    engine = make_engine(model, replace(spec, concurrency=CONCURRENCY))
    engine.start()
    with closing(LocalActor(engine, tokenizer, MAX_NEW)) as actor:
        found["library_batch_tokens_per_s"] = rate(asked(actor), range(rollouts // 4), CONCURRENCY)
    few = range(0, rollouts, SINGLE)
    found["one_by_one_tokens_per_s"] = rate(generate(model, tokenizer), few, 1)
    found["vs_one_by_one"] = round(found["tokens_per_s"] / found["one_by_one_tokens_per_s"], 1)
    return found


def asked(actor: LocalActor) -> Answer:
    """Return the answers of an actor."""

    def answer(messages: Sequence[Message], seed: int) -> tuple[str, int]:
        sample = actor.sample(messages, seed=seed)[0]
        return sample.text, sample.completion_tokens

    return answer


def generate(model: Any, tokenizer: Any) -> Answer:
    """Return the library's `generate` of a single conversation."""

    def answer(messages: Sequence[Message], seed: int) -> tuple[str, int]:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(
            **ids.to(model.device), do_sample=True, max_new_tokens=MAX_NEW, temperature=1.0
        )
        reply = output[0, ids["input_ids"].shape[1] :]
        return tokenizer.decode(reply, skip_special_tokens=True), len(reply)

    return answer
