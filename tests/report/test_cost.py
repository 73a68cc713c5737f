"""The arithmetic of a dry run's estimate, by hand, and how a sample is read."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mcts_utils.report.cost.model import (
    EnvCost,
    Rates,
    TaskSample,
    TokenUsage,
    compact_number,
    estimate,
    served_line,
    table,
    training_line,
)
from mcts_utils.report.cost.sample import read_search
from mcts_utils.search.tree import new_tree
from mcts_utils.search.tree_io import tree_to_dict
from mcts_utils.storage.manifest import write_manifest
from mcts_utils.types import Task

RATES = Rates(
    tokens_per_second=100,
    prefill_tokens_per_second=1000,
    train_tokens_per_second=500,
    gpus=2,
    dollars_per_gpu_hour=3,
    overhead_minutes=30,
)
SAMPLE = TaskSample(
    trees=2,
    search=TokenUsage(calls=20, new=2000, cached=8000, replies=400, env_steps=30),
    revision=TokenUsage(calls=4, new=1000, cached=0, replies=40, env_steps=10),
    rows=6,
    row_tokens=3000,
    episodes=4,
    evaluation=TokenUsage(calls=8, new=400, cached=1600, replies=80, env_steps=8),
)
PLAN = EnvCost("webshop", SAMPLE, train_tasks=200, test_tasks=40)


def test_search_and_revision_scale_with_trees_evaluation_with_test_tasks():
    line = served_line(PLAN, RATES, search=True)
    assert line.usage == TokenUsage(
        calls=100 * 24 + 10 * 8,
        new=100 * 3000 + 10 * 400,
        cached=100 * 8000 + 10 * 1600,
        replies=100 * 440 + 10 * 80,
        env_steps=100 * 40 + 10 * 8,
    )
    seconds = 304_000 / 1000 + 44_800 / 100
    assert line.hours == pytest.approx(seconds / 3600)
    assert line.dollars == pytest.approx(line.hours * 2 * 3)
    assert served_line(PLAN, RATES, search=False).usage == SAMPLE.evaluation.times(10)


def test_a_slow_environment_is_the_limit():
    slow = replace(PLAN, sample=replace(SAMPLE, steps_per_second=2))
    assert served_line(slow, RATES, search=True).hours == pytest.approx(4080 / 2 / 3600)
    fast = replace(PLAN, sample=replace(SAMPLE, steps_per_second=1000))
    assert served_line(fast, RATES, search=True).hours == served_line(PLAN, RATES, search=True).hours


def test_training_counts_epochs_and_general_rows():
    line = training_line([PLAN, PLAN], 3, RATES)
    assert line.training_tokens == 2 * 100 * 3000 * 3
    assert line.hours == pytest.approx(1_800_000 / (500 * 2) / 3600 + 0.5)
    mixed = training_line([PLAN], 1, replace(RATES, eta=0.2, general_tokens_per_row=50))
    assert mixed.training_tokens == pytest.approx(100 * 3000 + 600 * 4 * 50)  # 4 general rows to one of ours


def test_the_whole_run_is_the_sum_of_its_parts():
    parts = estimate([PLAN, PLAN], [3, 1, 1], RATES, base=True)
    assert list(parts) == ["the starting model", "iteration 1", "iteration 2", "iteration 3", "whole run"]
    assert [len(lines) for lines in parts.values()] == [3, 4, 4, 4, 1]
    whole = parts["whole run"][0]
    single = [line for lines in list(parts.values())[:-1] for line in lines[:-1]]
    assert whole.usage.calls == sum(line.usage.calls for line in single)
    assert whole.dollars == pytest.approx(sum(line.dollars for line in single))
    assert whole.training_tokens == 2 * 300_000 * (3 + 1 + 1)
    assert "the starting model" not in estimate([PLAN], [1], RATES, base=False)
    text = table(parts)
    assert len({len(line) for line in text if line.startswith("  ")}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (987.4, "987"),
        (999.6, "1.00k"),
        (12_345, "12.3k"),
        (123_456, "123k"),
        (4.56e6, "4.56M"),
        (3.3e11, "330G"),
    ],
)
def test_three_digits(value, text):
    assert compact_number(value) == text


def test_a_node_is_new_to_a_prefix_cache_once_and_only_if_something_was_asked_behind_it(tmp_path: Path):
    tree = new_tree(Task("textcraft", 7, "goal", "0123456789"))
    child = tree.add(tree.root, "aaaa", "a")
    child.obs, child.executed, child.samples = "bb", True, 3
    leaf = tree.add(child, "cccc", "c")
    leaf.obs, leaf.executed, leaf.samples = "dddddddd", True, 1
    folder = tmp_path / "mcts_result/textcraft/x"
    folder.mkdir(parents=True)
    (folder / "search_results_7.json").write_text(json.dumps(tree_to_dict(tree)), encoding="utf-8")
    write_manifest(folder / "manifest.json", "search", {}, [], [], {}, {"completion_tokens": 8}, 1.0)
    new, per_token = read_search(tmp_path, "textcraft")
    assert per_token == 16 / 8  # four replies of four characters were drawn
    assert new == (10 + 4 + 2) / 2


def test_the_arithmetic_is_pure():
    tree = ast.parse((Path(__file__).parents[2] / "mcts_utils/report/cost/model.py").read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "collections.abc", "dataclasses", "typing", "mcts_utils.tables"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
