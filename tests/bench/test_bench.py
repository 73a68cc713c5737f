"""The benchmark end to end, tiny: every part runs and every figure of the summary is there. Nothing is timed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mcts_utils.bench.__main__ import LONG, PARTS, main
from mcts_utils.bench.reference import reference_bytes
from mcts_utils.bench.table import summary, table
from mcts_utils.search.tree import new_tree
from mcts_utils.servers.mock_llm.load_stats import BLOCK, LoadStats
from mcts_utils.storage.files import read_json
from mcts_utils.types import Task

# The others are alike.
MEASURED = (
    "slots_16",
    "revision",
    "public",
    "descent",
    "serial",
    "serial_reference",
    "own_world",
    "local_model",
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(folder, what was printed) of a small benchmark, run as a user runs it."""
    folder = tmp_path_factory.mktemp("bench")
    settings = {
        "BENCH_TASKS": "2",
        "BENCH_SERIAL_TASKS": "1",
        "BENCH_ITERA": "1",
        "BENCH_DIR": str(folder / "b"),
        "BENCH_PARTS": ",".join(MEASURED),
        "BENCH_FLAGS": "--latency_16 0.001 --noise 0.8 --rollouts 8",
        "ITERA": "many",  # what the shell has set for other work does no harm
    }
    done = subprocess.run(
        ["bash", "scripts/bench.sh"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "b", done.stdout


@pytest.mark.slow
def test_every_figure_is_in_the_summary(small):
    folder, _ = small
    found = read_json(folder / "summary.json")
    for name in (
        *("slot_utilisation_16", "steps_per_node", "steps_per_node_public", "verdicts_per_judged_step"),
        *("speedup_vs_serial", "cpu_ms_per_call", "bytes_per_node", "peak_rss_mb", "prompt_shared_share"),
        *("own_step_ms_in_process", "own_step_ms_http", "local_tokens_per_s", "local_vs_one_by_one"),
    ):
        assert isinstance(found[name], int | float), name
    assert 0 < found["slot_utilisation_16"] <= 1
    assert len(found["machine"]["load_before"]) == 3
    assert set(found["parts"]) == set(MEASURED)
    assert found["settings"]["tasks"] == 2


@pytest.mark.slow
def test_the_figures_agree_with_each_other(small):
    parts = read_json(small[0] / "summary.json")["parts"]
    assert parts["slots_16"]["answers"] == parts["slots_16"]["calls"]
    assert parts["public"]["env_steps"] > parts["slots_16"]["env_steps"]
    assert parts["revision"]["requests"] >= parts["revision"]["judged_steps"] > 0
    assert parts["serial_reference"]["calls"] > 2 * parts["serial"]["calls"]
    assert parts["serial"]["steps_per_node"] > 3 > parts["slots_16"]["steps_per_node"]
    assert parts["slots_16"]["bytes_per_node"] < parts["slots_16"]["reference_bytes_per_node"] / 5


@pytest.mark.slow
def test_the_table_shows_them(small):
    folder, printed = small
    found = read_json(folder / "summary.json")
    assert table(found["parts"], found) in printed
    assert ">= 0.92" in printed
    assert str(folder) in printed


def test_parts_can_be_chosen_and_a_wrong_one_is_one_line(tmp_path, capsys):
    assert main(["--parts", "slots_16,chess", "--output_dir", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == f"bench: --parts: 'chess' is none of {', '.join((*PARTS, LONG))}\n"
    assert main(["--tasks", "0", "--output_dir", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_a_summary_without_all_parts_has_gaps():
    found = summary({"slots_16": {"utilisation": 0.9, "peak_rss_mb": 80.0}})
    assert (found["slot_utilisation_16"], found["slot_utilisation_64"]) == (0.9, None)
    assert (found["peak_rss_mb"], found["speedup_vs_serial"]) == (80.0, None)


def test_the_references_format_grows_with_the_square_of_the_depth():
    def size(depth: int) -> int:
        tree = new_tree(Task("textcraft", 1, "t", "Goal: craft x."))
        node = tree.root
        for i in range(depth):
            node = tree.add(node, f"Thought: {i}\nAction: look", "look")
            node.executed, node.obs = True, "nothing"
        return reference_bytes(tree)

    assert size(40) > 2.5 * size(20)
    candidate = new_tree(Task("textcraft", 1, "t", "Goal: craft x."))
    alone = reference_bytes(candidate)
    candidate.add(candidate.root, "never chosen", "x")
    assert reference_bytes(candidate) == alone


def test_shared_prompts_are_counted_by_blocks():
    load = LoadStats(4)
    first = "a" * (4 * BLOCK)
    load.prompt(first)
    load.prompt(first[: 3 * BLOCK] + "b" * BLOCK)
    load.prompt("c" + first[1:])
    stats = load.stats()
    assert (stats["prompt_chars"], stats["shared_chars"]) == (12 * BLOCK, 3 * BLOCK)
    assert json.dumps(stats)
