"""An episode of stage 4 with the protocol that it was rolled out under, and a panel of starts. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from mcts_utils.storage.formats.base import (
    Fields,
    Score,
    Sha256,
    StepFields,
    TaskFields,
    about,
    field_of,
    parsed,
)
from mcts_utils.types import InputError, Step

VERSION = 1
Mode = Annotated[str, Meta(extra_json_schema={"enum": ["main", "revise"]})]


class EvalProtocol(Fields, frozen=True, kw_only=True):
    """All that must be equal for two runs to be compared; the model may differ."""

    task: Annotated[str, about("environment")]
    mode: Annotated[Mode, about("`main` (Table 2) or `revise` (Table 3)")]
    temperature: Annotated[float, about("0 is greedy")]
    max_steps: Annotated[int, about("new steps of one episode; a replayed prefix is not counted")]
    prompt: Annotated[str, about("`full` or `brief`")]
    max_token_length: Annotated[int, about("tokens of one answer")]
    seed: Annotated[int | None, about("null with temperature 0")]
    server_kind: Annotated[
        str, about("[kind of server](environments.md#kinds-of-servers) of the indices")
    ] = field(name="goals", default="")
    grounding: Annotated[bool, about("action grounding")] = True
    shots: Annotated[int | UnsetType, about("number of the examples; only where there are some")] = UNSET
    examples: Annotated[Sha256 | UnsetType, about("hash of the examples; only where there are some")] = UNSET
    action_format: Annotated[str | UnsetType, about("`ACTION_FORMAT`; left out for `any`")] = UNSET
    actions: Annotated[str | UnsetType, about("`ACTIONS`; left out for `text`")] = UNSET
    think_tokens: Annotated[int | UnsetType, about("`THINK_TOKENS`; left out for 0")] = UNSET
    history_reasoning: Annotated[str | UnsetType, about("`HISTORY_REASONING`; left out for `drop`")] = UNSET
    panel: Annotated[Sha256 | UnsetType, about("in the summary only")] = UNSET
    samples: Annotated[int | UnsetType, about("in the summary only, where it is above 1")] = UNSET


class EpisodeSettings(EvalProtocol, frozen=True, kw_only=True):
    """The protocol and the model of an episode."""

    model: Annotated[str, about("`MODEL_NAME`")]
    weights: Annotated[str, about("hash of a local model's files; empty for an endpoint")] = ""
    prefix: Annotated[Sha256, about("hash of the replies of the prefix; empty without one")] = ""


class EpisodeFile(Fields, frozen=True, kw_only=True):
    """A finished episode."""

    version: Annotated[int, about("1")] = VERSION
    status: Annotated[Literal["done"], about("`done`")] = "done"
    task: Annotated[TaskFields, about("`env`, `index`, `id`, `opening`")]
    steps: Annotated[list[StepFields], about("see below; a replayed prefix is part of it")]
    reward: Annotated[Score, about("final score")]
    end: Annotated[
        str, about("`done`, `disaster`, `max_steps` or `context` (the conversation no longer fits)")
    ]
    prefix_steps: Annotated[int, about("steps of the replayed prefix; 0 in mode main")] = 0
    prefix_exact: Annotated[bool, about("the prefix was answered as it was recorded")] = True
    seconds: Annotated[float, about("wall time")] = 0.0
    prompt: Annotated[str, about("`full` or `brief`")]
    settings: Annotated[EpisodeSettings, about("see below")]
    sample: Annotated[int | UnsetType, about("number of the sample; left out for the first")] = UNSET

    @property
    def own_steps(self) -> list[Step]:
        """Return the steps that the agent took itself, without a replayed prefix."""
        return [step.step() for step in self.steps[self.prefix_steps :]]

    @property
    def all_steps(self) -> list[Step]:
        """Return all steps."""
        return [step.step() for step in self.steps]


class FailedEpisode(Fields, frozen=True, kw_only=True):
    """An episode that failed. It counts in no score, and the next run tries it again."""

    version: Annotated[int, about("1")] = VERSION
    status: Annotated[Literal["failed"], about("`failed`")] = "failed"
    index: Annotated[int, about("the server's index of the task")]
    error: Annotated[str, about("why it failed, on one line")]
    settings: Annotated[EpisodeSettings, about("see below")]
    sample: Annotated[int | UnsetType, about("number of the sample; left out for the first")] = UNSET


def parse_episode(data: Any, where: str = "") -> EpisodeFile | FailedEpisode:
    """Return the episode of parsed JSON; raise InputError, beginning with `where`, if it is none."""
    status = field_of(data, "status")
    if status not in ("done", "failed"):
        raise InputError(f"{where}: not an episode (status {status!r})" if where else "not an episode")
    return parsed(data, EpisodeFile, where) if status == "done" else parsed(data, FailedEpisode, where)


class PanelStart(Fields, frozen=True, kw_only=True):
    """The start of an episode."""

    index: Annotated[int, about("the server's index of the task")]
    task_id: Annotated[str, about("id that the task must have")]
    steps: Annotated[list[StepFields], about("the prefix, as in [an episode](#episodes); empty in mode main")]


class PanelFile(Fields, frozen=True, kw_only=True):
    """The goals, or the cut prefixes, that an evaluation plays."""

    version: Annotated[int, about("1")] = 1
    task: Annotated[str, about("environment")]
    mode: Annotated[Mode, about("`main` or `revise`")] = "revise"
    server_kind: Annotated[str | UnsetType, about("kind of server")] = field(name="goals", default=UNSET)
    sha256: Annotated[Sha256, about("hash of the sorted (task id, prefix hash) pairs; the panel's name")] = ""
    source: Annotated[
        dict[str, Any], about("`run`: the name of the run that it comes from; with `revise` also `seed`")
    ] = {}
    prefixes: Annotated[list[PanelStart], about("`{index, task_id, steps}`")]
