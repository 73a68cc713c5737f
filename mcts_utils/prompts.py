"""Build conversations: prompts, Thought/Action turns, the revision signal, the judge's question.

Pure. It sends nothing and counts no tokens; how an answer is read is in replies.py.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mcts_utils.envs.specs import env_spec
from mcts_utils.reasoning import with_reasoning
from mcts_utils.replies import REVISION_THOUGHTS, SPECIAL, WAIT_ACTION, Reply, parse_reply, read_reply
from mcts_utils.tool_calls import REFUSED, TOOLS, checked, definitions, join_turn, split_turn, written_calls
from mcts_utils.types import Message, Sample, Step, Task

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

WAIT_OBSERVATION = "ok."
FORM = re.compile(r"In every turn reply with exactly two lines:\nThought: [^\n]*\nAction: [^\n]*")
# Of chat templates, which a server left there.
LAST_TOKENS = re.compile(rf"(?:\s*(?:{SPECIAL.pattern}))+\s*\Z")
TOOL_FORM = "In every turn call a tool. Before it, say in one short sentence what to do next and why."


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


def env_steps_of(step: Step) -> int:
    """Return the number of actions of a step that were sent to the environment."""
    answers = step.answers or (step.observation,)
    return 0 if is_signal_step(step) else sum(not answer.startswith(REFUSED) for answer in answers)


def read_turn(sample: Sample, env: str, form: str = "any") -> Reply:
    """Return a sampled turn as it is stored: with a text action, or with calls of the environment's tools (`tools`)."""
    if form != TOOLS:
        return read_reply(sample.text, form, sample.truncated, sample.reasoning)
    said = LAST_TOKENS.sub("", sample.text)
    content, calls = (said, sample.tool_calls) if sample.tool_calls else written_calls(said)
    turn = join_turn(content.strip(), [checked(call, env_spec(env).tools) for call in calls])
    text = with_reasoning(sample.reasoning, turn)
    return Reply(text, action_of(text, form), "length" if sample.truncated else "")


def system_prompt(env: str, prompt: str, form: str = "any") -> str:
    """Return the agent's system turn in an environment.

    Args:
        prompt: "full" (zero-shot) or "brief" (for a trained model).
        form: with `tools`, the full one asks for tool calls.

    Raises:
        InputError: unknown environment.
    """
    found = env_spec(env)
    text = {"full": found.full_prompt, "brief": found.brief_prompt}[prompt]
    return FORM.sub(TOOL_FORM, text) if form == TOOLS else text


def opening_messages(task: Task, prompt: str, form: str = "any") -> list[Message]:
    """Return the system turn and the environment's opening text. Arguments as for system_prompt."""
    tools = definitions(env_spec(task.env).tools) if form == TOOLS else ""
    system = Message("system", system_prompt(task.env, prompt, form), tools=tools)
    return [system, Message("user", task.opening)]


def step_messages(steps: Sequence[Step], loss: bool = False, form: str = "any") -> list[Message]:
    """Return the steps as assistant turns and their answers. Fewer steps give a prefix of the messages."""
    turns = []
    for step in steps:
        content, calls = split_turn(step.reply) if form == TOOLS else (step.reply, ())
        turns.append(Message("assistant", content, loss, calls))
        answers = step.answers or (step.observation,)
        turns += [Message("tool" if calls else "user", answer) for answer in answers]
    return with_ids(turns) if form == TOOLS else turns


def with_ids(messages: Sequence[Message]) -> list[Message]:
    """Return the turns with ids for calls that have none, or one that an earlier call has, and the answers' ids."""
    seen: set[str] = set()
    found = []
    open_ids: Iterator[str] = iter(())
    for message in messages:
        calls = []
        for call in message.tool_calls:
            name = call.id if call.id and call.id not in seen else f"call{len(seen):05d}"
            seen.add(name)
            calls.append(replace(call, id=name))
        open_ids = iter([call.id for call in calls]) if calls else open_ids
        answered = next(open_ids, "") if message.role == "tool" else ""
        found.append(replace(message, tool_calls=tuple(calls), tool_call_id=answered))
    return found


def acting_messages(task: Task, steps: Sequence[Step], prompt: str, form: str = "any") -> list[Message]:
    """Return the conversation that the actor continues with its next turn."""
    return opening_messages(task, prompt, form) + step_messages(steps, form=form)


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


def revision_signal(rng: random.Random, form: str = "any") -> str:
    """Return a revision signal rs: one of REVISION_THOUGHTS (Appendix A) with the action `wait`, or no tool call."""
    thought = rng.choice(REVISION_THOUGHTS)
    return thought if form == TOOLS else reply_text(thought, WAIT_ACTION)
