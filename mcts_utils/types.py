"""Define the records that the stages exchange, the protocols Environment and Actor, and the errors.

It holds no behaviour and imports nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant", "tool"]
Label = Literal["good", "bad", "uncertain"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool (tool_calls.py)."""

    id: str  # as the server gave it; may be empty
    name: str
    arguments: str  # JSON; what the model wrote, if that is none
    command: str = ""  # what it sends to the environment; empty: nothing, because of the fault
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    loss: bool = False  # its tokens count in the training loss (Eq. 6); only assistant turns do
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant turn, besides its content
    tool_call_id: str = ""  # of a tool turn: the call that it answers
    tools: str = ""  # of the first turn: what may be called, as JSON (tool_calls.definitions)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The environment's answer to one action."""

    observation: str
    reward: float  # score of the episode so far, in [0, 1]
    done: bool
    disaster: bool = False  # the score went negative: the episode is lost, reward 0
    grounded_action: str = ""  # the valid action executed instead (envs/grounding.py); empty: itself


@dataclass(frozen=True, slots=True)
class Step:
    """One assistant turn and the observation that answers it."""

    reply: str  # the whole turn, "Thought: ...\nAction: ..."
    action: str  # sent to the environment
    observation: str
    reward: float  # score after the step, in [0, 1]
    done: bool = False
    disaster: bool = False
    grounded_action: str = ""  # as in StepResult
    answers: tuple[str, ...] = ()  # to each of several tool calls; together they are the observation
    # Why `reply` is not all that was sampled, or ends early (replies.Cut); it changes nothing in the environment.
    cut: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Task:
    """One goal in one environment."""

    env: str  # "textcraft", "sciworld", "webshop", ...
    index: int  # the server's index of the goal (data_idx / session_id)
    id: str  # the same on every server (EnvSpec.task_id), such as "textcraft:1f0c9ab2d3e4f506"
    opening: str  # the first observation, as the environment's reset showed it


@dataclass(frozen=True, slots=True)
class Episode:
    """One rollout, from reset to its end."""

    task: Task
    steps: tuple[Step, ...]
    reward: float  # final score, in [0, 1]
    end: str  # "done", "disaster", "max_steps" or "context"


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion. The numbers of tokens are 0 where the server reports none."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    truncated: bool = False  # it ended at its limit of tokens, not at the end of the turn
    cached_tokens: int = 0  # of the prompt's, those that the server had in its cache
    reasoning: str = ""  # what the server gave apart from the text; not what stands in the text
    tool_calls: tuple[ToolCall, ...] = ()  # likewise


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's label of one step."""

    label: Label
    reason: str
    asked: int  # requests made until an answer parsed
    parsed: bool  # False: no answer parsed, so the label is "uncertain"
    votes: tuple[Verdict, ...] = ()  # where several were asked for: each of them


class Environment(Protocol):
    """One session of one environment, for one user at a time."""

    @property
    def waits(self) -> bool:
        """Return True if the environment has a command `wait` of its own."""
        return False

    @property
    def session_bound_tasks(self) -> bool:
        """Return True if another session of the server would show other goals."""
        return False

    @property
    def extensions(self) -> frozenset[str]:
        """Return what the server offers beyond AgentGym's interface ("replay", "fork"); empty without a server."""
        return frozenset()

    @property
    def action_format(self) -> str:
        """Return how the actions of its actor are read: a key of replies.FORMATS, or `tools`."""
        return "any"

    def reset(self, index: int) -> Task:
        """Start the task of this index and return it with its opening text."""

    def step(self, action: str) -> StepResult:
        """Execute one action and return the answer. Not allowed after `done`."""

    def close(self) -> None:
        """Close the session on the server. Never raises."""


class Actor(Protocol):
    """A chat model: an endpoint, a local model or, in tests, a script. Safe to call from many threads at once."""

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Return `n` completions of the conversation, which ends with a user turn.

        Args:
            temperature: 0 is greedy.
            seed: draws the same samples again, where the model supports it; None: a random one.

        Raises:
            ContextOverflow: the conversation does not fit the model's context window.
            ActorError: the endpoint or the model cannot answer, retries included.
        """

    def stats(self) -> dict[str, Any]:
        """Return counters since the start; {} where nothing is counted.

        They are calls, prompt_tokens, completion_tokens, max_in_flight and busy_s (seconds with a request in flight).
        What a server was found to refuse is a list of names, `refused_by_server`.
        """
        return {}

    def close(self) -> None:
        """Free connections and threads. Does nothing where there are none."""
        return None


MakeActor = Callable[[], Actor]
MakeEnvironment = Callable[[], Environment]


class ActorError(RuntimeError):
    """The actor cannot answer."""


class ContextOverflow(ActorError):
    """The conversation does not fit the model's context window."""


class EnvError(RuntimeError):
    """The environment server cannot be used or answered with an error."""


class ServiceGone(Exception):
    """A server or an endpoint answers nobody, or refuses everything: the stage ends."""


class EndpointGone(ActorError, ServiceGone):
    """The endpoint has not answered anybody for ENDPOINT_PATIENCE seconds, or refuses the key or the account."""


class BudgetReached(ActorError, ServiceGone):
    """The next request could pass MAX_TOKENS_TOTAL, MAX_COST or MAX_HOURS, so it is not sent: the stage ends."""


class InputError(ValueError):
    """Bad input from the user: one line that names the variable, file or row and the value. Exit code 2."""


class Stopped(Exception):
    """The run is being stopped; unsaved work is discarded."""


def one_line(error: BaseException) -> str:
    """Return the error's class and text on one line, such as `EnvError: what happened`."""
    return " ".join(f"{type(error).__name__}: {error}".split())
