"""The records that the stages pass to each other, and the two protocols: Environment and Actor. No behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
Label = Literal["good", "bad", "uncertain"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `loss` says whether its tokens are trained (Eq. 6); it is false off the assistant."""

    role: Role
    content: str
    loss: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the environment answered to one action."""

    observation: str
    reward: float  # score of the episode so far, in [0, 1]
    done: bool
    disaster: bool = False  # the score went negative: the episode is lost, reward 0
    executed: str = ""  # what was executed where the action itself was not understood (grounding.py)


@dataclass(frozen=True, slots=True)
class Step:
    """One assistant turn and the observation that answers it (one step)."""

    reply: str  # the whole turn, "Thought: ...\nAction: ..."
    action: str  # what was sent to the environment
    observation: str
    reward: float  # score after the step, in [0, 1]
    done: bool = False
    disaster: bool = False
    executed: str = ""  # what was executed in the action's place (grounding.py); empty: the action itself


@dataclass(frozen=True, slots=True)
class Task:
    """One goal in one environment. `id` comes from content (the goal text), never from a server's index."""

    env: str  # "textcraft", "sciworld", "webshop", ...
    index: int  # the server's index of the goal (data_idx / session_id)
    id: str  # e.g. "textcraft:1f0c9ab2d3e4f506"
    opening: str  # first observation, as the environment's reset showed it


@dataclass(frozen=True, slots=True)
class Episode:
    """One rollout from reset to its end."""

    task: Task
    steps: tuple[Step, ...]
    reward: float  # final score, in [0, 1]
    end: str  # "done", "disaster", "max_steps" or "context"


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion. Token counts are 0 where the server reports none."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    truncated: bool = False  # stopped at MAX_TOKEN_LENGTH rather than at the end of the turn


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's word on one step."""

    label: Label
    reason: str
    asked: int  # requests made until the answer parsed
    parsed: bool  # false: nothing parsed, so "uncertain" by rule


class Environment(Protocol):
    """One session of one environment. One user at a time."""

    @property
    def waits(self) -> bool:
        """True if `wait` is a command of the environment, too."""
        return False

    @property
    def session_bound_tasks(self) -> bool:
        """True if another session of the server would show other goals."""
        return False

    @property
    def extensions(self) -> frozenset[str]:
        """What the session's server offers beside AgentGym's contract: "replay", "fork"; empty without a server."""
        return frozenset()

    def reset(self, index: int) -> Task:
        """Start the task of that index and return it with its opening text."""

    def step(self, action: str) -> StepResult:
        """Execute one action. Never called after `done`."""

    def close(self) -> None:
        """Give the session back to the server; never raises."""


class Actor(Protocol):
    """Whoever answers: a chat endpoint, a local model, a script. Safe to call from many threads at once."""

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """`n` completions of the conversation (it ends with a user turn). Temperature 0 is greedy.

        Raises:
            ActorError: when the endpoint or the model fails for good.
        """

    def stats(self) -> dict[str, float]:
        """calls, prompt_tokens, completion_tokens, max_in_flight, busy_s (seconds with a request in flight)."""
        return {}

    def close(self) -> None:
        """Free connections and threads."""
        return None


class ActorError(RuntimeError):
    """The actor cannot answer."""


class ContextOverflow(ActorError):
    """The conversation does not fit the model's context window."""


class EnvError(RuntimeError):
    """The environment server cannot be used or answered with an error."""


class InputError(ValueError):
    """Bad input from the user; the message is one line naming the variable, file or row and the value. Exit code 2."""


class Stopped(Exception):
    """The run is being stopped; what was not saved is given up."""


def one_line(error: BaseException) -> str:
    """`EnvError: what happened`, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
