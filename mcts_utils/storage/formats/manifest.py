"""The manifest of a stage's run, and the counts of each stage in it. Pure."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from msgspec import UNSET, UnsetType

from mcts_utils.storage.formats.base import Fields, Sha256, about, parsed

T = TypeVar("T")
VERSION = 1


class FileEntry(Fields, frozen=True, kw_only=True):
    """A file that was read or written."""

    path: Annotated[str, about("relative to the manifest's folder, so that a result can be moved as a whole")]
    sha256: Annotated[Sha256, about("its hash")]


class Manifest(Fields, frozen=True, kw_only=True):
    """A run of a stage; its outputs are complete."""

    version: Annotated[int, about("1")] = VERSION
    stage: Annotated[str, about("see above")]
    code_revision: Annotated[str, about("`git describe` of the checkout, or `unknown`")] = "unknown"
    settings: Annotated[dict[str, Any], about("all settings and flags, never a key")] = {}
    inputs: Annotated[list[FileEntry], about("`{path, sha256}`")] = []
    outputs: Annotated[list[FileEntry], about("`{path, sha256}`")] = []
    counts: Annotated[dict[str, Any], about("see below")] = {}
    tokens: Annotated[dict[str, Any], about("see below")] = {}
    seconds: Annotated[float, about("of this run")] = 0.0
    sha256: Annotated[
        Sha256 | UnsetType,
        about("hash of this file as it is without this last field; not in files of older versions"),
    ] = UNSET

    def counts_as(self, definition: type[T]) -> T:
        """Return the counts, as the definition of this stage's; raise InputError if they are not of it."""
        return parsed(self.counts, definition, f"{self.stage} manifest's counts")


class SearchCounts(Fields, frozen=True, kw_only=True):
    """Counts of a run of stage 1; beside these, the sums of the trees' stats."""

    trees: Annotated[int, about("finished trees")] = 0
    failed: Annotated[int, about("trees that failed")] = 0
    held_out: Annotated[int, about("tasks that were left out as test tasks")] = 0
    selections: Annotated[int, about("choices among two or more children")] = 0
    nodes: Annotated[int | None, about("nodes of all trees")] = None
    leaves: Annotated[int | None, about("ends of their paths")] = None
    selections_uct_share: Annotated[float | None, about("share of the selections that UCT decided")] = None
    mean_leaf_reward: Annotated[float | None, about("mean reward of the leaves")] = None


class Loss(Fields, frozen=True, kw_only=True):
    """The training loss."""

    first: Annotated[float, about("of the first step that was logged")]
    last: Annotated[float, about("of the last one")]


class TrainingCounts(Fields, frozen=True, kw_only=True):
    """Counts of a run of stage 3, or of its data."""

    rows: Annotated[dict[str, int], about("kind → training rows")] = {}
    envs: Annotated[dict[str, dict[str, int]], about("environment → kind → training rows")] = {}
    tasks: Annotated[int, about("distinct tasks of the agent rows")] = 0
    dropped: Annotated[dict[str, int], about("reason → rows that were left out")] = {}
    cut: Annotated[dict[str, int], about("reason → rows that were cut")] = {}
    share_of_agent_rows: Annotated[float, about("the others are general rows")] = 1.0
    loss: Annotated[Loss | UnsetType, about("`first` and `last`; not in the data's manifest")] = UNSET


class EvaluationCounts(Fields, frozen=True, kw_only=True):
    """Counts of a run of stage 4."""

    n: Annotated[int, about("tasks that count")]
    n_failed: Annotated[int, about("failed episodes")]
    ends: Annotated[dict[str, int], about("`end` → number of episodes")]
    replies: Annotated[dict[str, int] | UnsetType, about("as in the summary")] = UNSET


class Agreement(Fields, frozen=True, kw_only=True):
    """How far several verdicts on the same steps agree (`JUDGE_VOTES`)."""

    votes: Annotated[int, about("verdicts on a step")]
    steps: Annotated[int, about("steps that were judged")]
    unanimous: Annotated[float, about("share of them on which all verdicts are equal")]
    fleiss_kappa: Annotated[
        float | None, about("agreement beyond chance, 1 at most; null if all verdicts have one label")
    ]


class RevisionCounts(Fields, frozen=True, kw_only=True):
    """Counts of a run of stage 2."""

    trees: Annotated[int, about("trees that worked")] = 0
    trees_partial: Annotated[int, about("of these, unfinished ones")] = 0
    trees_failed: Annotated[int, about("trees that failed")] = 0
    failures: Annotated[list[str], about("a line for each of them")] = []
    paths: Annotated[int | UnsetType, about("paths of the trees")] = UNSET
    good_paths: Annotated[int | UnsetType, about("good, optimal: good paths")] = UNSET
    pairs: Annotated[int | UnsetType, about("of the other types: pairs, equal to `written` + dropped")] = (
        UNSET
    )
    written: Annotated[int, about("rows")]
    replayed: Annotated[int, about("of these, executed ones")] = 0
    tasks_written: Annotated[int, about("tasks that have a row")] = 0
    dropped: Annotated[dict[str, int], about("[reason](revision.md) → number")] = {}
    verdicts: Annotated[dict[str, int], about("`good`, `bad`, `uncertain`, `unparsed`, `requests`")] = {}
    agreement: Annotated[
        Agreement | UnsetType,
        about("`{votes, steps, unanimous, fleiss_kappa}`, with several verdicts a step"),
    ] = UNSET
    repairs_tried: Annotated[int, about("paths that the actor was to continue (`--repair 1`)")] = 0
    replays: Annotated[int, about("distinct paths that were executed")] = 0
    env_steps: Annotated[int, about("steps of the environment")] = 0
