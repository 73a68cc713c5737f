"""What a page says of steps: which were refused, where a path goes in circles, why an episode was lost. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mcts_utils.envs.specs import env_spec, names
from mcts_utils.evaluation.metrics.behaviour import LOOP_LENGTHS
from mcts_utils.evaluation.metrics.scores import is_success
from mcts_utils.rollouts.steps import is_idle, is_refused
from mcts_utils.storage.formats.episode import EpisodeFile
from mcts_utils.types import EnvError, Step, Task

TITLE = 160  # characters of a goal in a list
QUOTE = 80  # of an action or observation in a sentence
LIMITS = {"max_steps": "the limit of {n} steps", "context": "the model's context was full"}


def title_of(task: Task) -> str:
    """Return the task's goal on one line."""
    goal = _goal(task.env, task.opening) if task.env in names() else ""
    return clipped(goal or task.opening or task.id, TITLE)


def guessed_env(opening: str) -> str:
    """Return the environment in whose words an opening states its goal, or "". ScienceWorld states it in any words."""
    return next((env for env in names() if _goal(env, opening) and not _goal(env, "no goal")), "")


def _goal(env: str, opening: str) -> str:
    """Return the goal in an opening, or "" if it has none in that environment's words."""
    try:
        return env_spec(env).goal(opening)
    except EnvError:
        return ""


def clipped(text: str, size: int = QUOTE) -> str:
    """Return the text on one line of at most so many characters."""
    line = " ".join(text[: 4 * size].split())
    return line if len(line) <= size else line[: size - 1] + "…"


def refused(env: str, step: Step) -> bool:
    """Return True if a known environment refused the step's action."""
    return env in names() and is_refused(env, step)


def idle(env: str, step: Step) -> bool:
    """Return True if the step left a known environment as it was."""
    return env in names() and is_idle(env, step)


def loop_of(actions: Sequence[str]) -> tuple[int, int, int] | None:
    """Return (first step from 0, length, times) of the longest stretch of 1 to 5 actions, taken 3 times or more."""
    best, covered = None, 0
    for length in LOOP_LENGTHS:
        start = 0
        for at in range(length, len(actions) + 1):
            if at < len(actions) and actions[at] == actions[at - length]:
                continue
            times = (at - start) // length
            if times >= 3 and times * length > covered:
                best, covered = (start, length, times), times * length
            start = at - length + 1
    return best


def why(episode: EpisodeFile) -> str:
    """Return in one or two sentences how the episode went, and why it was lost."""
    env, steps = episode.task.env, episode.all_steps
    if is_success(episode.reward):
        return f"Solved in {len(steps)} steps."
    if not steps:
        return "Lost before its first step: the model gave no action."
    last, number = steps[-1], len(steps)
    if episode.end == "disaster":
        return f"Lost at step {number}: “{clipped(last.action)}” was answered “{clipped(last.observation)}”."
    new = f"{number - episode.prefix_steps} new" if episode.prefix_steps else f"{number}"
    where = LIMITS.get(episode.end, "").format(n=new)
    end = f" until {where}" if where else f" until the environment ended it with reward {episode.reward:g}"
    loop, bad = loop_of([step.action for step in steps]), [refused(env, step) for step in steps]
    if loop:
        start, length, times = loop
        acts = " → ".join(f"“{clipped(step.action)}”" for step in steps[start : start + length])
        here = bad[start : start + length * times]
        verb = "is taken" if length == 1 else "are taken in turn"
        note = ""
        if any(here):
            answer = clipped(steps[start + here.index(True)].observation)
            note = f", refused {sum(here)} times (“{answer}”)"
        until = end if start + length * times >= number - 1 else f"; the episode went on{end}"
        return f"Lost in a loop: from step {start + 1} on {acts} {verb} {times} times{note}{until}."
    if not where:
        return (
            f"The environment ended the episode after {number} steps with reward {episode.reward:g}; "
            f"the last action was “{clipped(last.action)}”."
        )
    if any(bad):
        at = bad.index(True)
        first = (
            f"the first at step {at + 1}: “{clipped(steps[at].action)}” → “{clipped(steps[at].observation)}”"
        )
        return f"Not solved{end}. {sum(bad)} of {number} actions were refused, {first}."
    return f"Not solved{end}, with no action refused: the steps do not lead to the goal."
