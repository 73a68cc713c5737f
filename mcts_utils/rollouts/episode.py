"""One actor in one environment: single steps, replays of recorded replies, and whole episodes.

It keeps no tree and chooses no action. Retries against servers belong to the environment clients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mcts_utils.prompts import WAIT_OBSERVATION, acting_messages, action_of, is_signal
from mcts_utils.replies import read_reply
from mcts_utils.rollouts.steps import earned, reward_of
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
    """Return a seed in [0, 2**31) from whole numbers, such as (SEED, task index, iteration, rollout, step)."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def take_step(env: Environment, reply: str, score: float) -> Step:
    """Execute a reply's action and return the step. A revision signal is not executed and keeps `score`."""
    action = action_of(reply, env.action_format)
    if is_signal(reply, env.waits, env.action_format):
        return Step(reply, action, WAIT_OBSERVATION, score)
    return step_of(reply, action, env.step(action))


def step_of(reply: str, action: str, result: StepResult) -> Step:
    """Return the step of a reply and the environment's result."""
    reward = reward_of(result.reward, result.disaster)
    return Step(
        reply, action, result.observation, reward, result.done, result.disaster, result.grounded_action
    )


def replay(env: Environment, index: int, replies: Sequence[str]) -> tuple[Task, list[Step]]:
    """Reset and execute the replies in order, up to the first that ends the episode.

    This is one request where the server announces the extension "replay".

    Returns:
        the task as the reset showed it, and the executed steps.

    Raises:
        EnvError: if the server cannot be used.
    """
    if replies and "replay" in env.extensions:
        return _replay_at_once(env, index, replies)
    task = env.reset(index)
    steps: list[Step] = []
    for reply in replies:
        steps.append(take_step(env, reply, earned(steps)))
        if ending(steps):
            break
    return task, steps


def _replay_at_once(env: Any, index: int, replies: Sequence[str]) -> tuple[Task, list[Step]]:
    """Replay in one request; `env` has the extension "replay"."""
    form = env.action_format
    signals = [is_signal(reply, env.waits, form) for reply in replies]
    actions = [action_of(reply, form) for reply in replies]
    executed = [action for action, signal in zip(actions, signals, strict=True) if not signal]
    task, results = env.replay(index, executed)
    steps: list[Step] = []
    remaining = iter(results)
    for reply, action, signal in zip(replies, actions, signals, strict=True):
        if signal:
            steps.append(Step(reply, action, WAIT_OBSERVATION, earned(steps)))
        elif (result := next(remaining, None)) is not None:
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
    """Reset, replay the prefix, and let the actor continue for at most `max_steps` (> 0) new steps.

    Args:
        prompt: "full" or "brief".
        seed: from it each request's seed is derived; None leaves them unseeded.

    Returns:
        the episode; its steps begin with the prefix as it was executed now.

    Raises:
        EnvError, ActorError: if the server or the actor fails for good.
        Stopped: if `stopped()` turns true before the end.
    """
    task, steps = replay(env, index, [step.reply for step in prefix])
    replayed, end = len(steps), ending(steps)
    while not end and len(steps) - replayed < max_steps:
        if stopped():
            raise Stopped
        step_seed = None if seed is None else derive_seed(seed, len(steps))
        try:
            sample = actor.sample(acting_messages(task, steps, prompt), 1, temperature, step_seed)[0]
        except ContextOverflow:
            end = "context"
            break
        reply = read_reply(sample.text, env.action_format, sample.truncated, sample.reasoning)
        steps.append(replace(take_step(env, reply.text, earned(steps)), cut=reply.cut))
        end = ending(steps)
    return Episode(task, tuple(steps), earned(steps), end or "max_steps")


def ending(steps: Sequence[Step]) -> str:
    """Return how the environment ended the episode: "done", "disaster", or "" if it did not."""
    if not steps:
        return ""
    return "disaster" if steps[-1].disaster else "done" if steps[-1].done else ""
