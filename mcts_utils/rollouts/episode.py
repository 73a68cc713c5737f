"""The actor meets the environment: sessions, single steps, replay, whole episodes.

It keeps no tree and chooses nothing. Retries against servers are the clients' business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from mcts_utils.prompts import WAIT_OBSERVATION, acting_messages, action_of, is_signal
from mcts_utils.types import (
    Actor,
    ContextOverflow,
    Environment,
    Episode,
    Step,
    StepResult,
    Stopped,
    Task,
)


def derive_seed(*parts: int) -> int:
    """A seed in [0, 2**31) from whole numbers, such as (SEED, task index, iteration, rollout, step)."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def take_step(env: Environment, reply: str, score: float) -> Step:
    """Execute a reply's action. A revision signal is no environment step and keeps `score`."""
    action = action_of(reply)
    if is_signal(reply, env.waits):
        return Step(reply, action, WAIT_OBSERVATION, score)
    return step_of(reply, action, env.step(action))


def step_of(reply: str, action: str, result: StepResult) -> Step:
    """A reply and what the environment answered to its action."""
    reward = 0.0 if result.disaster else result.reward
    return Step(reply, action, result.observation, reward, result.done, result.disaster, result.executed)


def replay(env: Environment, index: int, replies: Sequence[str]) -> tuple[Task, list[Step]]:
    """Reset and execute the replies in order, up to the first that ends the episode.

    One request where the server announces "replay".

    Raises:
        EnvError: if the server cannot be used.
    """
    if replies and "replay" in env.extensions:
        return _replay_at_once(env, index, replies)
    task = env.reset(index)
    steps: list[Step] = []
    for reply in replies:
        steps.append(take_step(env, reply, steps[-1].reward if steps else 0.0))
        if ending(steps):
            break
    return task, steps


def _replay_at_once(env: Any, index: int, replies: Sequence[str]) -> tuple[Task, list[Step]]:
    signals = [is_signal(reply, env.waits) for reply in replies]
    actions = [action_of(reply) for reply in replies]
    sent = [action for action, signal in zip(actions, signals, strict=True) if not signal]
    task, results = env.replay(index, sent)
    steps: list[Step] = []
    left = iter(results)
    for reply, action, signal in zip(replies, actions, signals, strict=True):
        if signal:
            score = steps[-1].reward if steps else 0.0
            steps.append(Step(reply, action, WAIT_OBSERVATION, score))
        elif (result := next(left, None)) is not None:
            steps.append(step_of(reply, action, result))
        if ending(steps):
            break
    return task, steps


def run_episode(
    actor: Actor,
    env: Environment,
    index: int,
    *,
    prompt: str,
    max_steps: int,
    temperature: float,
    seed: int | None,
    prefix: Sequence[Step] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> Episode:
    """Reset, replay the prefix, and let the actor go on for at most `max_steps` (> 0) new steps.

    Returns:
        the episode; its steps begin with the prefix as it came back.

    Raises:
        EnvError, ActorError: if the server or the actor fails for good.
        Stopped: if `stopped()` turns true before the end.
    """
    task, steps = replay(env, index, [step.reply for step in prefix])
    begun = len(steps)
    end = ending(steps)
    while not end and len(steps) - begun < max_steps:
        if stopped():
            raise Stopped
        messages = acting_messages(task, steps, prompt)
        step_seed = None if seed is None else derive_seed(seed, len(steps))
        try:
            sample = actor.sample(messages, 1, temperature, step_seed)[0]
        except ContextOverflow:
            end = "context"
            break
        steps.append(take_step(env, sample.text.strip(), steps[-1].reward if steps else 0.0))
        end = ending(steps)
    return Episode(task, tuple(steps), steps[-1].reward if steps else 0.0, end or "max_steps")


def ending(steps: Sequence[Step]) -> str:
    """Why the environment ended the episode: "done", "disaster", or "" if it did not."""
    if not steps:
        return ""
    return "disaster" if steps[-1].disaster else "done" if steps[-1].done else ""
