"""The summary of an evaluation run (stage 4), and what `eval.py loops` adds to it. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from mcts_utils.storage.formats.base import Fields, Sha256, about
from mcts_utils.storage.formats.episode import EvalProtocol

Interval = tuple[float, float] | None  # [low, high]; None where n is too small


class Scores(Fields, frozen=True, kw_only=True):
    """The scores of a group of tasks."""

    success_rate: Annotated[float | None, about("share of tasks with reward 1")]
    mean_reward: Annotated[float | None, about("mean final reward")]
    n: Annotated[int, about("tasks that count")]
    ci95: Annotated[dict[str, Interval], about("score → `[low, high]`, or null where `n` is too small")]


class Estimate(Fields, frozen=True):
    """A mean over `n` tasks (or episodes) with its 95 % interval."""

    mean: Annotated[float | None, about("null if `n` is 0")]
    n: Annotated[int, about("tasks, or episodes")]
    ci95: Annotated[Interval, about("`[low, high]`, or null where `n` is too small")]


class MeanAtK(Fields, frozen=True, kw_only=True):
    """The mean reward over all samples of each task."""

    k: Annotated[int, about("samples of each task")]
    mean: Annotated[float | None, about("null if `n` is 0")]
    n: Annotated[int, about("tasks")]
    ci95: Annotated[Interval, about("`[low, high]`, or null where `n` is too small")]


class Failure(Fields, frozen=True, kw_only=True):
    """An episode that failed."""

    index: Annotated[int, about("the server's index of the task")]
    error: Annotated[str, about("why it failed")]


class Summary(Fields, frozen=True, kw_only=True):
    """The summary of a run."""

    version: Annotated[int, about("1")] = 1
    model_name: Annotated[str, about("`MODEL_NAME`")] = ""
    model_type: Annotated[str, about("`MODEL_TYPE`")] = ""
    success_rate: Annotated[float | None, about("share of tasks with reward 1")]
    mean_reward: Annotated[float | None, about("mean final reward")]
    n: Annotated[int, about("tasks that count")]
    ci95: Annotated[
        dict[str, Interval | dict[str, Interval]],
        about(
            "name → `[low, high]`, or null where `n` is too small: of both scores, the mean of `steps`, the shares and "
            "`repeated_sequences`"
        ),
    ]
    score: Annotated[str, about("which of the two counts in this environment")] = ""
    n_failed: Annotated[int, about("failed episodes")]
    failures: Annotated[list[Failure], about("`{index, error}` of each")]
    ends: Annotated[dict[str, int], about("`end` → number of episodes")]
    steps: Annotated[
        dict[str, int | float] | None, about("`mean` and `median` of an episode, `total`; null without one")
    ]
    invalid_action_share: Annotated[
        float | None,
        about("share of actions that the environment refused, or never carries out by their form (WebShop)"),
    ]
    grounded_action_share: Annotated[
        float | None | UnsetType, about("share of actions that were replaced by the valid one that was meant")
    ] = UNSET
    repeated_action_share: Annotated[float | None, about("share of actions that equal the one before")]
    repeated_sequences: Annotated[
        dict[str, float | None],
        about(
            "length 1 to 5 → how often per episode a sequence of so many actions is taken again right after itself "
            "(Figure 4)"
        ),
    ]
    breakdown: Annotated[
        dict[str, dict[str, Scores]], about("name → group → `success_rate`, `mean_reward`, `n`, `ci95`")
    ] = {}
    panel: Annotated[Sha256, about("hash of the goals, and prefixes, that were played")] = ""
    protocol: Annotated[EvalProtocol, about("see below")]
    indices: Annotated[list[int], about("tasks that count")]
    duplicates: Annotated[
        dict[str, int] | UnsetType,
        about("index that does not count → index of the same goal, which does; left out where there is none"),
    ] = UNSET
    samples: Annotated[int | UnsetType, about("samples of each task, where there are several")] = UNSET
    episodes: Annotated[int | UnsetType, about("finished episodes, where there are several samples")] = UNSET
    pass_at_k: Annotated[
        dict[str, Estimate] | UnsetType,
        about("k → `{mean, n, ci95}`, where there are several samples; all over the same tasks"),
    ] = UNSET
    unfinished_samples: Annotated[
        dict[str, int] | UnsetType,
        about(
            "index → finished samples, of the tasks with fewer than `samples`; for a k above it pass@k has no mean"
        ),
    ] = UNSET
    mean_at_k: Annotated[
        MeanAtK | UnsetType, about("`{k, mean, n, ci95}`, where there are several samples")
    ] = UNSET
    recovery_rate: Annotated[float | None | UnsetType, about("mode revise: equals `success_rate`")] = UNSET
    prefixes_replayed_exactly: Annotated[int | UnsetType, about("mode revise: number of episodes")] = UNSET
    replies: Annotated[
        dict[str, int] | UnsetType,
        about(
            "the agent's own turns: `total`, `no_action`, `empty` (of those), `truncated` (by `MAX_TOKEN_LENGTH`), "
            "`played_on` (what came after the action was cut off); not in files of older versions"
        ),
    ] = UNSET
    seconds: Annotated[float, about("of this run")] = 0.0
    tokens: Annotated[
        dict[str, Any], about("of this run; [what an actor counts](actors.md#what-an-actor-counts)")
    ] = {}


class LoopJudge(Fields, frozen=True, kw_only=True):
    """Who named the first errors."""

    by: Annotated[str, about("`predicate` (the first refused action) or `model`")]
    model: Annotated[str | UnsetType, about("the judge, and the start of its weights' hash")] = UNSET
    prompt: Annotated[str | UnsetType, about("`full` or `brief`")] = UNSET


class LoopReport(Fields, frozen=True, kw_only=True):
    """The repeated actions and the revision length of a run (`eval.py loops`)."""

    version: Annotated[int, about("1")] = 1
    panel: Annotated[Sha256, about("hash of the goals that were played")]
    episodes: Annotated[int, about("finished episodes")]
    failed: Annotated[int, about("those with a reward below 1")]
    repeated_sequences: Annotated[
        dict[str, Estimate], about("length → mean count per episode, as in the summary")
    ]
    judge: Annotated[LoopJudge, about("`by`: `predicate` or `model`; with a model also `model` and `prompt`")]
    revision_length: Annotated[
        Estimate, about("actions up to and including the first error, over failed episodes that have one")
    ]
    error_found: Annotated[Estimate, about("share of failed episodes that have one")]
    first_refused: Annotated[
        Estimate, about("the same as `revision_length`, with the first refused action as the error")
    ]
    first_signal: Annotated[Estimate, about("actions up to and including the agent's first revision signal")]
    signals: Annotated[Estimate, about("share of episodes with a signal")]
    errors_repeated: Annotated[
        Estimate | UnsetType,
        about(
            "share of the refused actions that are taken again at once; earlier versions have none of the four"
        ),
    ] = UNSET
    errors_signalled: Annotated[
        Estimate | UnsetType, about("share of the refused actions that a signal follows at once")
    ] = UNSET
    signals_same: Annotated[
        Estimate | UnsetType, about("share of these signals that the refused action follows again")
    ] = UNSET
    signals_accepted: Annotated[
        Estimate | UnsetType,
        about("share of these signals that an action follows which is not refused"),
    ] = UNSET


class PairedRuns(Fields, frozen=True, kw_only=True):
    """Two runs over the same goals, paired by task."""

    before: Annotated[str, about("name of a run's folder")]
    after: Annotated[str, about("name of the other's")]
    mean_reward: Annotated[tuple[float | None, float | None], about("`[before, after]`")]
    success_rate: Annotated[tuple[float | None, float | None], about("`[before, after]`")]
    n: Annotated[int, about("tasks")]
    difference: Annotated[float | None, about("of the mean reward, after minus before")]
    difference_ci95: Annotated[Interval, about("its interval over tasks")]
    sd: Annotated[float | None, about("standard deviation of the tasks' differences")]
    detectable: Annotated[
        float | None, about("the difference that so many tasks would find with 80 % power; null if not known")
    ]
    wins: Annotated[int, about("tasks with a higher reward after")]
    losses: Annotated[int, about("tasks with a lower one")]
    ties: Annotated[int, about("the other tasks")]
    success_difference: Annotated[float | None, about("of the success rate")]
    success_difference_ci95: Annotated[Interval, about("its interval over tasks")]
    permutation_p: Annotated[float | None, about("of a sign-flip test on rewards")]
    gained: Annotated[int | None, about("successes only after; null with several samples of a task")]
    lost: Annotated[int | None, about("successes only before; null as `gained`")]
    mcnemar_p: Annotated[float | None, about("of McNemar's exact test; null as `gained`")]
    score: Annotated[str, about("which score counts in this environment")]
    test: Annotated[str, about("`mcnemar` or `sign_flip`")]
    p: Annotated[float | None, about("of that test")]
    p_holm: Annotated[float | None, about("`p`, adjusted after Holm for the number of pairs")] = None


class Comparison(Fields, frozen=True, kw_only=True):
    """Finished runs over one eval set, compared in pairs (`eval.py compare --json`)."""

    panel: Annotated[Sha256 | None, about("hash of the goals that were played")]
    protocol: Annotated[EvalProtocol, about("[the protocol](#protocol) of all runs")]
    pairs: Annotated[list[PairedRuns], about("every run against the first; with `--all` every pair")]
