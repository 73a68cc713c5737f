"""What a step was: refused, a look, idle; and what a path earned. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mcts_utils.envs.specs import env_spec
from mcts_utils.prompts import is_signal_step
from mcts_utils.types import Step

EPSILON = 1e-6  # rewards nearer than this are equal


def refuses(env: str, observation: str) -> bool:
    """True for an observation that refuses the action it answers, as far as its text tells."""
    return bool(env_spec(env).refusal.match(observation.lstrip()))


def is_refused(env: str, step: Step) -> bool:
    """True if the environment did not carry the step's action out; a revision signal has none."""
    return not is_signal_step(step) and refuses(env, step.observation)


def is_look(env: str, step: Step) -> bool:
    """True if the action only reads the state."""
    return bool(env_spec(env).look_actions.match(step.action))


def is_idle(env: str, step: Step) -> bool:
    """True for a step that is a first candidate to be left out: refused, or a look."""
    return is_refused(env, step) or is_look(env, step)


def earned(steps: Sequence[Step]) -> float:
    """Final reward of executed steps, in [0, 1]."""
    return steps[-1].reward if steps and not steps[-1].disaster else 0.0
