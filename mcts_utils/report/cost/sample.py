"""Read the sample of a dry run: the usage of all stages for some tasks of one environment. It runs no stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcts_utils.evaluation.results import episodes_of, summary_of
from mcts_utils.report.common import only
from mcts_utils.report.cost.model import TaskSample, TokenUsage
from mcts_utils.search.tree import nodes
from mcts_utils.search.tree_io import read_tree
from mcts_utils.storage.files import iter_jsonl_as
from mcts_utils.storage.formats.manifest import RevisionCounts, SearchCounts
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.storage.layout import tree_files
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.types import InputError

CHARACTERS = 4.0  # per token, if no completion tokens were counted


def read_sample(folder: Path, task: str, scripted: bool) -> TaskSample:
    """Return the usage that run_all.sh measured on one environment.

    Args:
        folder: folder of the environment, with the outputs of the stages.
        scripted: no model was waited for, so that the environment's speed can be measured.

    Raises:
        InputError: an output of a stage is missing.
    """
    search, per_token = read_search(folder, task)
    manifest = read_manifest(only(folder, "mcts_result/*/*/manifest.json"))
    trees = manifest.counts_as(SearchCounts).trees
    if not trees:
        raise InputError(f"{folder}: no tree of the sample finished")
    this_run = manifest.tokens["this_run"]
    steps = this_run["env_steps"] + this_run["replayed_steps"]
    revision, rows, characters = TokenUsage(), 0, 0
    for kind in ("centric", "good"):
        found = read_manifest(only(folder, f"records/*_{kind}.manifest.json"))
        # The prefix that a judge's question shares with an earlier one is not known: all tokens count as new.
        counts = found.counts_as(RevisionCounts)
        revision = revision.plus(_usage(found.tokens, counts.env_steps))
        for row in iter_jsonl_as(only(folder, f"records/*_{kind}.jsonl"), RecordRow):
            rows += 1
            characters += sum(len(turn.content) for side in row.conversations for turn in side)
    episodes, evaluation = read_evaluation(folder, per_token)
    seconds = manifest.seconds if scripted else 0.0
    return TaskSample(
        trees=trees,
        search=_cached(search, manifest.tokens, steps),
        revision=revision,
        rows=rows,
        row_tokens=characters / per_token,
        episodes=episodes,
        evaluation=evaluation,
        steps_per_second=steps / seconds if seconds else 0.0,
    )


def read_search(folder: Path, task: str) -> tuple[float, float]:
    """Return (new prompt tokens, characters per token) of the sample's trees.

    A prompt is the path to a node, so the text of an expanded node is new once and cached afterwards.
    """
    new = sampled = 0
    manifest = only(folder, "mcts_result/*/*/manifest.json")
    tokens = read_manifest(manifest).tokens["completion_tokens"]
    for index, path in tree_files(manifest.parent, str(folder)).items():
        tree = read_tree(path, task, index)
        new += len(tree.task.opening)
        for node in nodes(tree):
            sampled += node.samples * len(node.reply)
            new += len(node.reply) + len(node.obs) if node.children and node.parent else 0
    per_token = sampled / tokens if tokens and sampled else CHARACTERS
    return new / per_token, per_token


def read_evaluation(folder: Path, per_token: float) -> tuple[int, TokenUsage]:
    """Return (the number of episodes, their usage); raise InputError if none finished."""
    path = only(folder, "*_result/*/*/summary.json")
    summary = summary_of(path.parent)
    if not summary.n:
        raise InputError(f"{path}: no episode of the sample finished")
    new = steps = 0
    for episode in episodes_of(path.parent):
        steps += len(episode.steps)
        new += len(episode.task.opening)
        new += sum(len(step.reply) + len(step.observation) for step in episode.steps[:-1])
    return summary.n, _cached(new / per_token, summary.tokens, steps)


def _usage(tokens: dict[str, Any], steps: float) -> TokenUsage:
    """Return the usage with all prompt tokens as new ones."""
    calls, prompts, replies = (tokens.get(n, 0) for n in ("calls", "prompt_tokens", "completion_tokens"))
    return TokenUsage(calls, prompts, 0.0, replies, steps)


def _cached(new: float, tokens: dict[str, Any], steps: float) -> TokenUsage:
    """Return the usage, with its prompt tokens split into new and cached ones."""
    found = _usage(tokens, steps)
    new = min(new, found.new)
    return TokenUsage(found.calls, new, found.new - new, found.replies, steps)
