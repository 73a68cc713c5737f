"""The definitions of files: what earlier versions wrote is read, and what is written satisfies the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from mcts_utils.search.tree_io import read_tree, tree_file
from mcts_utils.storage.files import iter_jsonl, iter_jsonl_as, read_as, read_json, write_json, write_jsonl
from mcts_utils.storage.formats.base import parsed, plain
from mcts_utils.storage.formats.episode import PanelFile, parse_episode
from mcts_utils.storage.formats.manifest import (
    EvaluationCounts,
    Manifest,
    RevisionCounts,
    SearchCounts,
    TrainingCounts,
)
from mcts_utils.storage.formats.record import RecordRow, VerdictRow
from mcts_utils.storage.formats.tree import parse_tree
from mcts_utils.storage.schema import KINDS, schema
from mcts_utils.types import InputError

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures"
NEWEST, VERSIONS = "902b94e", ("b1ca0e1", "ed27ae2", "2f48bea", "902b94e")


def kind_of(path: Path) -> str:
    """The kind of a fixture's file, or none if it has no definition."""
    if path.suffix == ".jsonl":
        return "verdict_row" if path.stem.endswith("_verdicts") else "record"
    if path.name.endswith("manifest.json"):
        return "manifest"
    if "verdicts" in path.relative_to(FIXTURES).parts:
        return "verdicts"
    if path.name.startswith("search_results_"):
        return "tree" if path.parent.name == "trees" else "episode"
    if path.name.startswith("episode_"):
        return "episode"
    return path.stem if path.name in ("loops.json", "panel.json", "summary.json") else ""


FILES = [
    path for version in VERSIONS for path in sorted((FIXTURES / version).rglob("*.json*")) if kind_of(path)
]


def read(path: Path) -> list[dict[str, Any]]:
    """A fixture's objects as they come back from their definition."""
    kind = kind_of(path)
    if kind == "record":
        return [plain(row) for row in iter_jsonl_as(path, RecordRow)]
    if kind == "verdict_row":
        return [plain(row) for row in iter_jsonl_as(path, VerdictRow)]
    if kind == "tree":
        return [plain(parse_tree(read_json(path)))]
    if kind == "episode":
        return [plain(parse_episode(read_json(path)))]
    return [plain(read_as(path, KINDS[kind]))]


def test_every_kind_has_a_file_of_an_earlier_version():
    assert {kind_of(path) for path in FILES} == {*KINDS} - {"failed_episode", "comparison", "spent"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FIXTURES)))
def test_files_of_earlier_versions_are_read_and_satisfy_the_schema(path):
    found = read(path)
    assert found
    for row in json.loads(json.dumps(found)):  # tuples are lists in files
        Draft202012Validator(schema(kind_of(path))).validate(row)


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if NEWEST in path.parts],
    ids=lambda path: str(path.relative_to(FIXTURES)),
)
def test_a_file_is_written_as_before_to_the_byte(path, tmp_path):
    if path.suffix == ".jsonl":
        write_jsonl(tmp_path / "again", read(path))
    else:
        write_json(tmp_path / "again", read(path)[0])
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if kind_of(path) == "manifest"],
    ids=lambda path: f"{path.parent.parent.name}-{path.name}",
)
def test_the_counts_of_a_stage_have_their_definition(path):
    stages = {
        "search": SearchCounts,
        "revision": RevisionCounts,
        "eval": EvaluationCounts,
        "train": TrainingCounts,
    }
    found = read_as(path, Manifest)
    if definition := stages.get(found.stage):
        counts = plain(found.counts_as(definition))
        assert counts | found.counts == found.counts | counts  # what a manifest has is read as it is
        with pytest.raises(InputError, match=found.stage):
            replace(found, counts=dict.fromkeys(counts, "x")).counts_as(definition)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tree_of_an_earlier_version_is_written_in_no_more_bytes(version, tmp_path):
    for path in sorted((FIXTURES / version / "trees").glob("search_results_*.json")):
        tree = read_tree(path, "textcraft", int(path.stem.rpartition("_")[2]))
        assert tree.status == "done" and tree.stats["completions"] > 0
        write_json(tmp_path / path.name, tree_file(tree))
        assert (tmp_path / path.name).stat().st_size <= path.stat().st_size + len('"completions":00,')


def test_a_reference_tree_is_the_same_tree():
    ours, theirs = (
        read_tree(FIXTURES / folder / "search_results_140.json", "textcraft", 140)
        for folder in (f"{NEWEST}/trees", "reference")
    )
    assert ours.task.opening == theirs.task.opening
    assert theirs.stats["nodes"] > 5
    assert max(node.reward for node in ours.root.children) == max(
        node.reward for node in theirs.root.children
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 3}, "steps"),
        ({"task": {"env": "textcraft"}}, "index"),
        ({"reward": "high"}, "reward"),
        ({"status": "half"}, "status 'half'"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(change, named):
    data = read_json(FIXTURES / NEWEST / "evaluations/tiny_actor_old/episode_0.json")
    with pytest.raises(InputError, match=f"^e.json: .*{named}") as caught:
        parse_episode({**data, **change}, "e.json")
    assert "\n" not in str(caught.value)


def test_a_wrong_row_is_named_with_its_number(tmp_path):
    path = FIXTURES / NEWEST / "records/textcraft_good.jsonl"
    rows = [row for _, row in iter_jsonl(path)]
    lost = {name: value for name, value in rows[0].items() if name != "messages"}
    write_jsonl(tmp_path / "x.jsonl", [rows[0], lost])
    with pytest.raises(InputError, match=r"x.jsonl row 2: .*messages.*chosen"):
        list(iter_jsonl_as(tmp_path / "x.jsonl", RecordRow))


def test_a_field_that_nobody_defines_is_ignored():
    path = FIXTURES / NEWEST / "panel.json"
    data = read_json(path)
    assert parsed({**data, "colour": "red"}, PanelFile) == read_as(path, PanelFile)


def test_a_lone_surrogate_survives(tmp_path):
    panel = read_as(FIXTURES / NEWEST / "panel.json", PanelFile)
    odd = replace(panel, source={"run": "\ud800"})
    write_json(tmp_path / "p.json", odd)
    assert read_as(tmp_path / "p.json", PanelFile) == odd


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_sentence(kind):
    for name, definition in schema(kind)["$defs"].items():
        assert definition.get("description"), name
        for field, found in definition["properties"].items():
            assert found.get("description"), f"{name}.{field}"


def test_the_command_prints_or_writes_schemas(tmp_path):
    command = [sys.executable, "-m", "mcts_utils.storage.schema"]
    done = subprocess.run([*command, "tree"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == schema("tree")
    subprocess.run([*command, "all", "--output", str(tmp_path)], cwd=ROOT, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {f"{kind}.schema.json" for kind in KINDS}
    done = subprocess.run([*command, "forest"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "'forest'" in done.stderr and done.stderr.count("\n") == 1


AT_ONCE = """
import sys, threading
from mcts_utils.storage.formats.tree import parse_tree
from mcts_utils.types import InputError
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def read():
    start.wait()
    try:
        parse_tree({"format": "agent-r-tree", "version": 2, "status": "done", "nodes": []})
    except InputError:
        pass
threads = [threading.Thread(target=read) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.parametrize(
    "attempt", range(3)
)  # without the preparation in formats/__init__.py one in four crashes
def test_threads_may_read_their_first_file_at_once(attempt):
    done = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
