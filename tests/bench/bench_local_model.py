"""Measure a local chat model's rollouts per second, many at once against one by one. Not a test; nothing is asserted.

    MODEL_DIR=models/tiny_actor python tests/bench/bench_local_model.py --rollouts 256

A rollout here is eight turns of a TextCraft goal with the bundled world in the same process; groups of eight rollouts
share their goal. Replies end at their end-of-turn token or after --max_new tokens. One by one is `model.generate`,
each turn from scratch.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mcts_utils.actors.local import LocalActor, load_model
from mcts_utils.prompts import action_of, opening_messages
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.types import Message, Task

TURNS, GROUP, STRIDE = 8, 8, 37  # turns at most; rollouts per goal; goals skipped, so that all depths occur


def rollout(answer, index: int, seed: int) -> int:
    """Play one goal for TURNS turns; the number of turns."""
    world = load_world()
    goal = world.goals[index % len(world.goals)]
    session = Session(world, goal)
    messages = opening_messages(Task("textcraft", index, goal, world.opening(goal)), "brief")
    for turn in range(TURNS):
        reply = answer(messages, seed * 100 + turn)
        observation, _, done = session.step(action_of(reply))
        messages = [*messages, Message("assistant", reply), Message("user", observation)]
        if done:
            break
    return turn + 1


def one_by_one(model, tokenizer, max_new: int):
    """`model.generate` for a single conversation."""

    def answer(messages, seed: int) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(
            **ids.to(model.device), do_sample=True, max_new_tokens=max_new, temperature=1.0
        )
        return tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rollouts", type=int, default=256)
    parser.add_argument("--single", type=int, default=12, help="rollouts to play one by one")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--max_new", type=int, default=48)
    options = parser.parse_args()
    model, tokenizer = load_model(os.environ["MODEL_DIR"])

    def timed(name: str, answer, numbers: range, threads: int) -> tuple[float, float]:
        """Turns per second of wall time and of CPU time."""
        began, spent = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(threads) as pool:
            turns = sum(pool.map(lambda i: rollout(answer, i // GROUP * STRIDE, i), numbers))
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
        print(f"{name}: {len(numbers)} rollouts, {turns} turns, {wall:.1f} s wall, {cpu:.1f} s CPU; ", end="")
        print(f"{turns / wall:.1f} turns/s, or {turns / wall / TURNS:.2f} rollouts of {TURNS} turns a second")
        return turns / wall, turns / cpu

    actor = LocalActor(model, tokenizer, options.max_new, options.concurrency)
    numbers = range(options.rollouts)
    many = timed("batched", lambda m, s: actor.sample(m, seed=s)[0].text, numbers, options.concurrency)
    print(actor.stats())
    actor.close()
    if options.single:
        spread = range(0, GROUP * options.single, GROUP)
        single = timed("one by one", one_by_one(model, tokenizer, options.max_new), spread, 1)
        print(
            f"batched / one by one: {many[0] / single[0]:.1f} by wall time, {many[1] / single[1]:.1f} by CPU time"
        )


if __name__ == "__main__":
    main()
