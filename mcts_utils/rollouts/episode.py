"""One actor in one environment: single steps, replays of recorded replies, and whole episodes.

It keeps no tree and chooses no action. Retries against servers belong to the environment clients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mcts_utils.prompts import WAIT_OBSERVATION, acting_messages, action_of, is_signal, read_turn
from mcts_utils.rollouts.steps import earned, reward_of
from mcts_utils.tool_calls import AND, ENDED, NO_CALL, REFUSED, TOOLS, split_turn
from mcts_utils.types import Actor, ContextOverflow, Environment, Episode, Step, StepResult, Stopped, Task


def derive_seed(*parts: int) -> int:
    """Return a seed in [0, 2**31) from whole numbers, such as (SEED, task index, iteration, rollout, step)."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def take_step(env: Environment, reply: str, score: float) -> Step:
    """Execute a reply's action and return the step. A revision signal is not executed and keeps `score`."""
    return _run_turn(reply, env.step, score, env.waits, env.action_format)


def _run_turn(reply: str, execute: Callable[[str], StepResult], score: float, waits: bool, form: str) -> Step:
    """Return the step of a reply, of which each action is executed by `execute`. `score`: before it."""
    action = action_of(reply, form)
    if is_signal(reply, waits, form):
        return Step(reply, action, WAIT_OBSERVATION, score)
    if form != TOOLS:
        return step_of(reply, action, execute(action))
    results: list[StepResult] = [StepResult("", score, False)]
    answers = []
    for call in split_turn(reply)[1]:
        if results[-1].done or results[-1].disaster:
            answers.append(ENDED)
        elif not call.command:
            answers.append(REFUSED + call.fault)
        else:
            results.append(execute(call.command))
            answers.append(results[-1].observation)
    grounded = AND.join(result.grounded_action for result in results if result.grounded_action)
    whole = replace(results[-1], observation="\n".join(answers or [NO_CALL]), grounded_action=grounded)
    return replace(step_of(reply, action, whole), answers=tuple(answers) if len(answers) > 1 else ())


def _commands(reply: str, waits: bool, form: str) -> list[str]:
    """Return what a reply sends to the environment."""
    if is_signal(reply, waits, form):
        return []
    if form == TOOLS:
        return [call.command for call in split_turn(reply)[1] if call.command]
    return [action_of(reply, form)]


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
    form, waits = env.action_format, env.waits
    task, results = env.replay(index, [sent for reply in replies for sent in _commands(reply, waits, form)])
    steps: list[Step] = []
    remaining = iter(results)
    for reply in replies:
        try:
            steps.append(_run_turn(reply, lambda _: next(remaining), earned(steps), waits, form))
        except StopIteration:  # the episode ended before
            break
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
            messages = acting_messages(task, steps, prompt, env.action_format)
            sample = actor.sample(messages, 1, temperature, step_seed)[0]
        except ContextOverflow:
            end = "context"
            break
        reply = read_turn(sample, task.env, env.action_format)
        steps.append(replace(take_step(env, reply.text, earned(steps)), cut=reply.cut))
        end = ending(steps)
    return Episode(task, tuple(steps), earned(steps), end or "max_steps")


def ending(steps: Sequence[Step]) -> str:
    """Return how the environment ended the episode: "done", "disaster", or "" if it did not."""
    if not steps:
        return ""
    return "disaster" if steps[-1].disaster else "done" if steps[-1].done else ""
