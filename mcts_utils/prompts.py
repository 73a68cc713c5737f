"""Build conversations: prompts, Thought/Action turns, the revision signal, the judge's question.

Pure. It sends nothing and counts no tokens; how an answer is read is in replies.py.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mcts_utils.envs.specs import env_spec
from mcts_utils.replies import parse_reply
from mcts_utils.types import Message, Step, Task

FULL_JUDGE = (
    "You review single steps of an agent that acts in an environment. You read the task, the steps taken so far and "
    "one current step with the observation that answered it. Decide whether the current step is\n"
    "good: it clearly brings the task closer to its goal,\n"
    "bad: it clearly hurts, was refused, or repeats what already failed,\n"
    "uncertain: what you see does not decide it.\n"
    "First give your reason in one or two sentences. Then end with one line, exactly: Judgment: Good, "
    "Judgment: Bad or Judgment: Uncertain."
)
BRIEF_JUDGE = "Judge the current step."
JUDGE_PROMPTS = {"full": FULL_JUDGE, "brief": BRIEF_JUDGE}

# Appendix A: the revision signal is one of ten short thoughts. These are our own sentences.
REVISION_THOUGHTS = (
    "That was a mistake. I will change my plan.",
    "My last step was wrong. I need another way.",
    "This is not working. I should rethink it.",
    "I went wrong here. Let me correct that.",
    "That step did not help. I will do it differently.",
    "I made an error. I must fix my plan.",
    "I misjudged this. I should start from what is missing.",
    "That was the wrong move. I need a better one.",
    "I see my mistake now. I will go on another way.",
    "My plan has a flaw. I have to repair it first.",
)
WAIT_ACTION = "wait"
WAIT_OBSERVATION = "ok."


def reply_text(thought: str, action: str) -> str:
    """Return an assistant turn."""
    return f"Thought: {thought}\nAction: {action}"


def action_of(reply: str, form: str = "any") -> str:
    """Return the action of an assistant turn, as it is sent to the environment. `form`: a key of replies.FORMATS."""
    return parse_reply(reply, form).action


def is_signal(reply: str, env_waits: bool = False, form: str = "any") -> bool:
    """Return True for a revision signal: `Action: wait`, which is answered `ok.` and not sent to the environment.

    Args:
        env_waits: the environment has a command `wait` of its own (ScienceWorld: ten moments pass). There a `wait` is a
            signal only after one of REVISION_THOUGHTS.
        form: a key of replies.FORMATS.
    """
    found = parse_reply(reply, form)
    return found.action == WAIT_ACTION and (not env_waits or found.thought in REVISION_THOUGHTS)


def is_signal_step(step: Step) -> bool:
    """Return True for an executed revision signal; an environment's own `wait` has another observation."""
    return step.action == WAIT_ACTION and step.observation == WAIT_OBSERVATION


def system_prompt(env: str, prompt: str) -> str:
    """Return the agent's system turn in an environment.

    Args:
        prompt: "full" (zero-shot) or "brief" (for a trained model).

    Raises:
        InputError: unknown environment.
    """
    found = env_spec(env)
    return {"full": found.full_prompt, "brief": found.brief_prompt}[prompt]


def opening_messages(task: Task, prompt: str) -> list[Message]:
    """Return the system turn and the environment's opening text. `prompt` as for system_prompt."""
    return [Message("system", system_prompt(task.env, prompt)), Message("user", task.opening)]


def step_messages(steps: Sequence[Step], loss: bool = False) -> list[Message]:
    """Return the steps as alternating assistant and user turns. Fewer steps give a prefix of the messages."""
    turns = []
    for step in steps:
        turns += [Message("assistant", step.reply, loss), Message("user", step.observation)]
    return turns


def acting_messages(task: Task, steps: Sequence[Step], prompt: str) -> list[Message]:
    """Return the conversation that the actor continues with its next turn."""
    return opening_messages(task, prompt) + step_messages(steps)


def judge_messages(task: Task, before: Sequence[Step], step: Step, prompt: str) -> list[Message]:
    """Return the judge's question about `step`, which was taken after the steps `before` (Appendix A).

    Questions along one path are equal byte for byte up to the judged step.
    """
    log = "".join(f"Action: {s.action}\nObservation: {s.observation}\n" for s in before)
    current = f"Current action: {step.action}\nCurrent observation: {step.observation}"
    return [
        Message("system", JUDGE_PROMPTS[prompt]),
        Message("user", f"{task.opening}\n\nLog:\n{log}{current}"),
    ]


def revision_signal(rng: random.Random) -> str:
    """Return a revision signal rs: one of REVISION_THOUGHTS (Appendix A) with the action `wait`."""
    return reply_text(rng.choice(REVISION_THOUGHTS), WAIT_ACTION)
