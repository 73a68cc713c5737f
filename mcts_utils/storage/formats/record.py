"""The rows of stage 2: revision records, and the rows of `--data_type verdicts`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType

from mcts_utils.replies import parse_reply
from mcts_utils.storage.formats.base import Fields, Label, Prompt, Score, Sha256, about
from mcts_utils.tool_calls import action_of_calls, join_turn
from mcts_utils.types import Message, Role, Step, ToolCall


class CalledFunction(Fields, frozen=True, kw_only=True):
    """What a tool call calls."""

    name: Annotated[str, about("the tool")]
    arguments: Annotated[str, about("JSON; what the model wrote, if that is none")]


class CallFields(Fields, frozen=True, kw_only=True):
    """A tool call (types.ToolCall), in the form of a chat request."""

    id: Annotated[str, about("names the call in its answer; unique in the conversation")]
    type: Annotated[Literal["function"], about("`function`")] = "function"
    function: Annotated[CalledFunction, about("`name` and `arguments`")]
    command: Annotated[
        str, about("what it sends to the environment; empty: nothing, because of the fault")
    ] = ""
    fault: Annotated[str | UnsetType, about("why it sends nothing; left out otherwise")] = UNSET

    def call(self) -> ToolCall:
        """Return the call."""
        return ToolCall(self.id, self.function.name, self.function.arguments, self.command, self.fault or "")


class Turn(Fields, frozen=True, kw_only=True):
    """One turn of a conversation (types.Message)."""

    role: Annotated[Role, about("`system`, `user`, `assistant` or `tool`")]
    content: Annotated[str, about("the text")]
    loss: Annotated[bool, about("the turn is trained")]
    tool_calls: Annotated[
        list[CallFields] | UnsetType,
        about("of an assistant turn: `{id, type, function: {name, arguments}, command, fault}`"),
    ] = UNSET
    tool_call_id: Annotated[str | UnsetType, about("of a tool turn: the call that it answers")] = UNSET

    @classmethod
    def of(cls, message: Message) -> Turn:
        """Return the turn of a message."""
        calls = [
            CallFields(
                id=c.id,
                function=CalledFunction(name=c.name, arguments=c.arguments),
                command=c.command,
                fault=c.fault or UNSET,
            )
            for c in message.tool_calls
        ]
        return cls(
            role=message.role,
            content=message.content,
            loss=message.loss,
            tool_calls=calls or UNSET,
            tool_call_id=message.tool_call_id or UNSET,
        )

    @property
    def calls(self) -> list[ToolCall]:
        """Return the tool calls of the turn."""
        return [call.call() for call in self.tool_calls or ()]

    @property
    def reply(self) -> str:
        """Return an assistant turn as it was stored and is executed: with its calls."""
        return join_turn(self.content, self.calls) if self.calls else self.content

    @property
    def action(self) -> str:
        """Return the action of an assistant turn."""
        return action_of_calls(self.calls) if self.calls else parse_reply(self.content).action


def exchanges(turns: Sequence[Turn]) -> tuple[Sequence[Turn], list[tuple[Turn, Sequence[Turn]]]]:
    """Return the turns before the first assistant turn, and each assistant turn with the answers to it."""
    own = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    ends = [*own[1:], len(turns)]
    found = [(turns[i], turns[i + 1 : end]) for i, end in zip(own, ends, strict=False)]  # own may be empty
    return turns[: own[0]] if own else turns, found


def said_and_seen(turns: Sequence[Turn], last: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return each reply with the answers to it; `last` is that to the last one, which no turn holds."""
    found = exchanges(turns)[1]
    answers = [tuple(turn.content for turn in answered) for _, answered in found]
    return [(turn.reply, seen or (last,)) for (turn, _), seen in zip(found, answers, strict=True)]


class LogStep(Fields, frozen=True, kw_only=True):
    """A step of a path as the tree has it."""

    action: Annotated[str, about("what was sent to the environment")]
    observation: Annotated[str, about("the answer")]
    reward: Annotated[Score, about("score of the episode after the step")]

    @classmethod
    def of(cls, step: Step) -> LogStep:
        """Return what the log has of a step."""
        return cls(action=step.action, observation=step.observation, reward=step.reward)


class RowTask(Fields, frozen=True, kw_only=True):
    """The task of a row."""

    env: Annotated[str, about("environment")]
    index: Annotated[int, about("the server's index")]
    id: Annotated[str, about("from the task's content")]


class NodeVerdict(Fields, frozen=True, kw_only=True):
    """A verdict on one step of the bad path."""

    node: Annotated[int, about("id of the node")]
    label: Annotated[Label, about("`good`, `bad` or `uncertain`")]
    reason: Annotated[str, about("what the judge gave")]


class Rewards(Fields, frozen=True, kw_only=True):
    """Final rewards, in [0, 1]."""

    good: Annotated[Score, about("of the good path")]
    record: Annotated[Score, about("of the executed record")]
    bad: Annotated[
        Score | UnsetType, about("of the bad path (pairs); live: mean of the task's plain episodes")
    ] = UNSET
    rejected: Annotated[Score | UnsetType, about("of the executed bad path (preference)")] = UNSET


class Replay(Fields, frozen=True, kw_only=True):
    """What the execution of a record gave."""

    exact: Annotated[Literal[True] | None, about("true; null if it was not executed")]
    env_steps: Annotated[int, about("steps that were executed; 0 if none")]
    final_observation: Annotated[str, about("the answer to the last step, which no message holds")]
    final_observation_rejected: Annotated[
        str | UnsetType, about("the same of the rejected conversation (preference)")
    ] = UNSET


class Lineage(Fields, frozen=True, kw_only=True):
    """Where a record comes from. Pairs are the records with a bad path: revision, direct and preference."""

    tree: Annotated[
        str, about("the tree's file; `expert`: the trajectory set's, empty where a bundled expert played")
    ]
    tree_sha256: Annotated[Sha256, about("its hash")]
    task: Annotated[RowTask, about("`env`, `index`, `id`")]
    good_leaf: Annotated[int, about("node id of the good path's end")]
    rewards: Annotated[Rewards, about("`good`, `record`; of pairs also `bad`; of preference also `rejected`")]
    prompt: Annotated[Prompt, about("`full` or `brief`")]
    prompt_sha256: Annotated[Sha256, about("hash of the agent's and the judge's system texts")]
    seed: Annotated[int, about("`SEED`")]
    replay: Annotated[Replay, about("see below")]
    fork: Annotated[int | UnsetType, about("pairs: last node that both paths pass")] = UNSET
    fork_step: Annotated[int | UnsetType, about("pairs: the number of steps that they share")] = UNSET
    bad_leaf: Annotated[int | UnsetType, about("pairs: node id of the bad path's end")] = UNSET
    cut: Annotated[
        int | Literal["none"] | UnsetType,
        about(
            "revision, direct: node of the last bad step that is kept; `none` where no bad step was found and the cut "
            "is the end of the path (`direct`: always the node of the last step)"
        ),
    ] = UNSET
    cut_step: Annotated[
        int | UnsetType, about("revision, direct: its place among the bad path's steps, from 0")
    ] = UNSET
    verdicts: Annotated[
        list[NodeVerdict] | UnsetType,
        about("revision, direct: `{node, label, reason}`, in the order of the path"),
    ] = UNSET
    signals: Annotated[
        list[int] | UnsetType,
        about(
            "live: nodes of the revision signals that were put in, if any; the step before each of them is not trained"
        ),
    ] = UNSET
    kept: Annotated[
        list[int] | UnsetType,
        about("good, optimal: places of the steps of the tree's path that are left, from 0"),
    ] = UNSET


class RecordRow(Fields, frozen=True, kw_only=True):
    """A record. A preference row has `prompt`, `chosen` and `rejected` in place of `messages`."""

    kind: Annotated[
        str, about("`revision` (of `centric`), `good`, `direct`, `optimal`, `preference` or `expert`")
    ]
    task_num: Annotated[int, about("the server's index")]
    task_description: Annotated[str, about("the opening")]
    prompt: Annotated[list[Turn] | UnsetType, about("preference: the shared beginning up to the fork")] = (
        UNSET
    )
    chosen: Annotated[list[Turn] | UnsetType, about("preference: the good way on")] = UNSET
    rejected: Annotated[list[Turn] | UnsetType, about("preference: the bad way on, without loss")] = UNSET
    messages: Annotated[
        list[Turn] | UnsetType,
        about(
            "`{role, content, loss}`, from the system turn to the last assistant turn. With `ACTIONS=tools`, assistant "
            "turns have `tool_calls` as in a chat request, each with its `command` or `fault`, and `tool` turns have "
            "`tool_call_id`"
        ),
    ] = UNSET
    revise: Annotated[str, about("the revision signal's turn (`revision`, `direct`); empty otherwise")] = ""
    tools: Annotated[
        list[dict[str, Any]] | UnsetType,
        about("with `ACTIONS=tools`: what may be called, as in a chat request"),
    ] = UNSET
    history_reasoning: Annotated[
        Literal["drop", "keep", "last"] | UnsetType,
        about(
            "the reasoning of earlier turns that a turn was sampled with (`HISTORY_REASONING`); only where turns have "
            "reasoning"
        ),
    ] = UNSET
    revise_feedback: Annotated[str, about("the reason of the verdict at the cut")] = ""
    high_log: Annotated[
        list[LogStep], about("the good path as the tree has it: `{action, observation, reward}`")
    ]
    low_log: Annotated[list[LogStep], about("the bad path as the tree has it")]
    revise_log: Annotated[
        list[Turn] | UnsetType, about("the same as `messages`; only with `--reference_fields 1`")
    ] = UNSET
    lineage: Annotated[Lineage, about("where the row comes from, see below")]

    def __post_init__(self) -> None:
        if self.messages is UNSET and UNSET in (self.prompt, self.chosen, self.rejected):
            raise ValueError("neither `messages` nor `prompt`, `chosen` and `rejected`")

    @property
    def conversations(self) -> list[list[Turn]]:
        """Return the conversations: one, or the chosen and the rejected one."""
        if self.messages is not UNSET:
            return [self.messages]
        return [[*(self.prompt or []), *(side or [])] for side in (self.chosen, self.rejected)]


class VerdictLineage(Fields, frozen=True, kw_only=True):
    """Where a verdict row comes from."""

    tree: Annotated[str, about("the tree's file")]
    tree_sha256: Annotated[Sha256, about("its hash")]
    task: Annotated[RowTask, about("`env`, `index`, `id`")]
    node: Annotated[int, about("the step's node")]
    label: Annotated[Label, about("the verdict on it")]


class VerdictRow(Fields, frozen=True, kw_only=True):
    """A verdict as a training row."""

    kind: Annotated[Literal["verdict"], about("`verdict`")] = "verdict"
    task_num: Annotated[int, about("the server's index")]
    task_description: Annotated[str, about("the opening")]
    messages: Annotated[list[Turn], about("the judge's question, and the answer with loss on it")]
    lineage: Annotated[VerdictLineage, about("where the row comes from, see below")]
