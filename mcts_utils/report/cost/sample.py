"""The sample of a dry run, read: what the stages took for some tasks of one environment. It runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcts_utils.report.common import only
from mcts_utils.report.cost.model import TaskSample, TokenUsage
from mcts_utils.search.tree import nodes
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_json, read_jsonl
from mcts_utils.types import InputError

CHARACTERS = 4.0  # per token, where no reply was counted


def read_sample(folder: Path, task: str, scripted: bool) -> TaskSample:
    """What run_all.sh measured on one environment, in the stages' own layout.

    Raises:
        InputError: a stage's output is missing.
    """
    search, per_token = read_search(folder, task)
    manifest = read_json(only(folder, "mcts_result/*/*/manifest.json"))
    run = manifest["tokens"]["this_run"]
    steps = run["env_steps"] + run["replayed_steps"]
    revision, rows, characters = TokenUsage(), 0, 0
    for kind in ("centric", "good"):
        found = read_json(only(folder, f"records/*_{kind}.manifest.json"))
        # What a judge's question shares with the last one is not known here: all of it counts as new.
        revision += _usage(found["tokens"], found["counts"]["env_steps"])
        for row in read_jsonl(only(folder, f"records/*_{kind}.jsonl")):
            rows += 1
            characters += sum(len(message["content"]) for message in row["messages"])
    episodes, evaluation = read_evaluation(folder, per_token)
    seconds = manifest["seconds"] if scripted else 0.0
    return TaskSample(
        trees=manifest["counts"]["trees"],
        search=_cached(search, manifest["tokens"], steps),
        revision=revision,
        rows=rows,
        row_tokens=characters / per_token,
        episodes=episodes,
        evaluation=evaluation,
        steps_per_second=steps / seconds if seconds else 0.0,
    )


def read_search(folder: Path, task: str) -> tuple[float, float]:
    """(prompt tokens that were new, characters per token) of the sample's trees.

    A prompt is the path to a node, so each node that was gone on from is new once, and then a cache has it.
    """
    new = drawn = 0
    tokens = read_json(only(folder, "mcts_result/*/*/manifest.json"))["tokens"]["completion_tokens"]
    for path in folder.glob("mcts_result/*/*/search_results_*.json"):
        tree = load_tree(read_json(path), task)
        new += len(tree.task.opening)
        for node in nodes(tree):
            drawn += node.samples * len(node.reply)
            new += len(node.reply) + len(node.obs) if node.children and node.parent else 0
    per_token = drawn / tokens if tokens and drawn else CHARACTERS
    return new / per_token, per_token


def read_evaluation(folder: Path, per_token: float) -> tuple[int, TokenUsage]:
    """(episodes, what they took)."""
    path = only(folder, "*_result/*/*/summary.json")
    summary = read_json(path)
    new = steps = 0
    for record in (read_json(path.with_name(f"search_results_{i}.json")) for i in summary["indices"]):
        steps += len(record["steps"])
        new += len(record["task"]["opening"])
        new += sum(len(step["reply"]) + len(step["observation"]) for step in record["steps"][:-1])
    if not summary["n"]:
        raise InputError(f"{path}: no episode of the sample finished")
    return summary["n"], _cached(new / per_token, summary["tokens"], steps)


def _usage(tokens: dict[str, Any], steps: float) -> TokenUsage:
    calls, prompts, replies = (tokens.get(n, 0) for n in ("calls", "prompt_tokens", "completion_tokens"))
    return TokenUsage(calls, prompts, 0.0, replies, steps)


def _cached(new: float, tokens: dict[str, Any], steps: float) -> TokenUsage:
    """The usage, its prompts split into new and cached."""
    found = _usage(tokens, steps)
    new = min(new, found.new)
    return TokenUsage(found.calls, new, found.new - new, found.replies, steps)
