"""Kinds of steps (refused, look, idle) and the reward of a step and of a path. Pure; it executes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from mcts_utils.envs.specs import env_spec
from mcts_utils.prompts import is_signal_step
from mcts_utils.tool_calls import REFUSED
from mcts_utils.types import Step

EPSILON = 1e-6  # rewards that differ by less are equal


def refuses(env: str, observation: str) -> bool:
    """Return True if the observation's text refuses the action that it answers, or the first of several."""
    return observation.startswith(REFUSED) or bool(env_spec(env).refusal.match(observation.lstrip()))


def is_refused(env: str, step: Step) -> bool:
    """Return True if the environment did not carry out the step's action; a revision signal has none."""
    return not is_signal_step(step) and refuses(env, step.observation)


def is_invalid(env: str, step: Step) -> bool:
    """Return True if the step was refused, or its action has a form that the environment never carries out."""
    wrong = not env_spec(env).action_form.fullmatch(step.action)
    return is_refused(env, step) or (wrong and not is_signal_step(step))


def is_look(env: str, step: Step) -> bool:
    """Return True if the action only reads the state."""
    return bool(env_spec(env).look_actions.match(step.action))


def is_idle(env: str, step: Step) -> bool:
    """Return True if the step was refused or is a look, so that pruning tries to leave it out first."""
    return is_refused(env, step) or is_look(env, step)


def reward_of(score: float, disaster: bool) -> float:
    """Return the reward of a step's score, in [0, 1]: 0 after a disaster."""
    return 0.0 if disaster else score


def earned(steps: Sequence[Step]) -> float:
    """Return the final reward of executed steps, in [0, 1]."""
    return reward_of(steps[-1].reward, steps[-1].disaster) if steps else 0.0
