"""Parts that several definitions share, and the check of parsed JSON against a definition. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from mcts_utils.types import InputError, Step, Task

T = TypeVar("T")


def about(text: str) -> Meta:
    """Return the sentence that a field has in the schema and in the tables of the pages."""
    return Meta(description=text)


# The schema alone says which texts these may be; a reader only compares them. A hash is empty where there is no file.
Sha256 = Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9a-f]{64})?$"})]
Prompt = Annotated[str, Meta(extra_json_schema={"enum": ["full", "brief"]})]
Label = Literal["good", "bad", "uncertain"]
Score = Annotated[float, Meta(ge=0, le=1)]
CUT = (
    "`length`: the turn ended at `MAX_TOKEN_LENGTH`, and is never trained; `played_on`: the model went on after its "
    "action, with an observation or another action, which was cut off; left out otherwise"
)

ANSWERS = "with `ACTIONS=tools`, the answers to each of several calls of a turn, in order"


class Fields(Struct, frozen=True, kw_only=True):
    """An object of a file. Fields that it does not define are ignored when it is read."""


class TaskFields(Fields, frozen=True, kw_only=True):
    """A task (types.Task)."""

    env: Annotated[str, about("environment, such as `textcraft`")]
    index: Annotated[int, about("the server's index of the task")]
    id: Annotated[str, about("from the task's content, the same on every server")]
    opening: Annotated[str, about("the first observation")]

    @classmethod
    def of(cls, task: Task) -> TaskFields:
        """Return the fields of a task."""
        return msgspec.convert(task, cls, from_attributes=True)

    def task(self) -> Task:
        """Return the task."""
        return msgspec.convert(self, Task, from_attributes=True)


class StepFields(Fields, frozen=True, kw_only=True):
    """A step of an episode or of a prefix (types.Step)."""

    reply: Annotated[str, about("the whole turn")]
    action: Annotated[str, about("what was sent to the environment")]
    observation: Annotated[str, about("the answer")]
    reward: Annotated[Score, about("score of the episode after the step")]
    done: Annotated[bool, about("the environment ended the episode")] = False
    disaster: Annotated[bool, about("the score went negative")] = False
    grounded_action: Annotated[
        str,
        about(
            "the valid action that was executed in the action's place "
            "([grounding](environments.md#action-grounding-scienceworld)); empty: the action itself"
        ),
    ] = msgspec.field(name="executed", default="")
    answers: Annotated[list[str] | msgspec.UnsetType, about(f"{ANSWERS}; left out otherwise")] = msgspec.UNSET
    cut: Annotated[str | msgspec.UnsetType, about(CUT)] = msgspec.UNSET

    @classmethod
    def of(cls, step: Step) -> StepFields:
        """Return the fields of a step."""
        found = msgspec.convert(step, cls, from_attributes=True)
        rare = {"cut": step.cut or msgspec.UNSET, "answers": list(step.answers) or msgspec.UNSET}
        return msgspec.structs.replace(found, **rare)

    def step(self) -> Step:
        """Return the step."""
        whole = msgspec.structs.replace(self, cut=self.cut or "", answers=self.answers or [])
        return msgspec.convert(whole, Step, from_attributes=True)


def parsed(data: Any, definition: type[T], where: str = "") -> T:
    """Return parsed JSON as an instance of a definition.

    Args:
        where: the beginning of the error's text: a file, or a file and a row.

    Raises:
        InputError: a field is missing or has another type; the message names it.
    """
    try:
        return msgspec.convert(data, definition)
    except msgspec.ValidationError as error:
        found = f"a field is missing or wrong: {error}"
        raise InputError(f"{where}: {found}" if where else found) from error


def plain(value: Struct) -> dict[str, Any]:
    """Return a definition's instance as a dict of plain JSON types, with the names that it has in files."""
    return msgspec.to_builtins(value)


def field_of(data: Any, name: str) -> Any:
    """Return a field of parsed JSON of any form, or None."""
    return data.get(name) if isinstance(data, Mapping) else None
