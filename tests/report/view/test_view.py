"""The page's data, its bundle, and the same in the terminal."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.report.__main__ import main
from mcts_utils.report.view.page import BUNDLE, write_page
from mcts_utils.report.view.replay import course
from mcts_utils.report.view.steps import loop_of
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_json
from tests.report.view.conftest import APP, FIXTURES

TREE = FIXTURES / "2f48bea/trees/search_results_103.json"


def parts(page: Path) -> dict[str, Any]:
    """The data of a page by name."""
    found = re.findall(r'id="part-(\w+)">([^<]*)<', page.read_text(encoding="utf-8"))
    return {name: json.loads(zlib.decompress(b64decode(packed), -15)) for name, packed in found}


def test_every_earlier_version_and_a_reference_tree_can_be_shown(tmp_path):
    for folder in ("b1ca0e1", "ed27ae2", "2f48bea", "902b94e", "reference"):
        write_page(FIXTURES / folder, tmp_path / "page.html")
        data = parts(tmp_path / "page.html")
        assert data["index"]["failures"] == []
        assert (
            len(data["index"]["trees"]) == len(list((FIXTURES / folder).glob("trees/search_*")))
            or folder == "reference"
        )
        assert data["t0"]["parent"][0] == -1
    assert data["index"]["trees"][0]["title"] == "warped planks" and data["t0"]["task"]["env"] == "textcraft"


def test_the_course_of_a_search_ends_with_the_counts_of_its_file():
    tree = load_tree(read_json(TREE))
    found = course(tree)
    assert found is not None and len(found) == tree.stats["iterations"]
    assert sum(len(iteration["ends"]) for iteration in found) == tree.root.visits
    tree.root.children[0].visits += 1
    assert course(tree) is None
    tree.settings["strategy"] = "best_of_n"
    assert course(tree) is None


def test_pairs_that_became_no_row_are_as_many_as_the_manifest_counts(page_file, run_dir):
    dropped = parts(page_file)["t0"]["dropped"]
    for kind in ("centric", "direct", "preference"):
        counts = read_json(run_dir / f"records/textcraft_{kind}.manifest.json")["counts"]["dropped"]
        mine = [pair["reason"] for pair in dropped if pair["type"] == kind]
        assert {reason: mine.count(reason) for reason in mine} == {
            r: n for r, n in counts.items() if n and r != "no_error_branch"
        }


@pytest.mark.parametrize(
    ("actions", "found"),
    [
        ("", None),
        ("aabb", None),
        ("aaab", (0, 1, 3)),
        ("xabababy", (1, 2, 3)),
        ("aaabcbcbcbc", (3, 2, 4)),
        ("abcabcabc", (0, 3, 3)),
    ],
)
def test_the_longest_loop_is_found(actions, found):
    assert loop_of(actions) == found


def test_an_unreadable_file_is_named_and_the_rest_is_shown(run_dir, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(run_dir / "mcts_result", run / "mcts_result")
    bad = run / "mcts_result/textcraft/tiny_actor/search_results_140.json"
    bad.write_text('{"format": "agent-r-tree", "ver')
    (run / "rows.jsonl").write_text('{"kind": "good", "lineage": {}}\n')
    assert main(["view", str(run)]) == 0
    assert "1 trees, 0 rows, 0 evaluations; 2 files could not be read, the first: " in capsys.readouterr().out
    failures = parts(run / "report.html")["index"]["failures"]
    assert str(bad) in failures[1] and f"{run}/rows.jsonl row 1: " in failures[0]
    shutil.rmtree(run / "mcts_result/textcraft/tiny_actor")
    assert main(["view", str(run)]) == 2


def test_the_journals_of_a_run_in_progress_are_not_taken_for_rows(run_dir, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(run_dir / "mcts_result", run / "mcts_result")
    journal = run / "mcts_result/textcraft/tiny_actor/.journal/1.jsonl"
    journal.parent.mkdir()
    journal.write_text('6f3a {"key": "actor"}\n')
    assert main(["view", str(run)]) == 0
    assert "0 rows, 0 evaluations" in (said := capsys.readouterr().out) and "could not be read" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["view", "nowhere"], "RUN_DIR is not a folder: 'nowhere'"),
        (["view", "{tmp}"], "RUN_DIR holds no trees, records or evaluations: '{tmp}'"),
        (["view", "{run}", "-o", "{tmp}"], "--output is a folder; --split writes a page into one: '{tmp}'"),
        (["view", "{run}", "--watch", "-1"], "--watch must be between 0 and 86400: -1"),
        (
            ["tree", "{run}/records/textcraft_good.jsonl"],
            "{run}/records/textcraft_good.jsonl: truncated or not JSON",
        ),
        (
            ["record", "rows.jsonl"],
            "record: FILE:LINE, such as records/textcraft_centric.jsonl:4: 'rows.jsonl'",
        ),
        (["record", "{run}/records/textcraft_good.jsonl:99"], "textcraft_good.jsonl row 99: no training row"),
        (["diff", "{run}", "{run}"], "summary.json: No such file"),
        (["show"], "view|tree|record|diff: invalid choice: 'show'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, run_dir, tmp_path, capsys):
    names = {"run": run_dir, "tmp": tmp_path}
    assert main([argument.format(**names) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message.format(**names) in error and error.count("\n") == 1


def test_the_terminal_shows_a_tree_a_row_and_a_difference(run_dir, capsys):
    assert main(["tree", str(TREE)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("red nether bricks (textcraft task 103), done: 26 nodes, rewards 1, ")
    assert len(lines) == 26 and any(line.lstrip().startswith("× 3 ") for line in lines)
    assert main(["record", f"{run_dir}/records/textcraft_centric.jsonl:1"]) == 0
    text = capsys.readouterr().out
    assert (
        "-- bad path up to the cut" in text
        and "judge: bad. It was refused." in text
        and "5 trained" in text
        and "4 trained" not in text
    )
    runs = [str(run_dir / f"test_result/textcraft/tiny_actor_{kind}") for kind in ("before", "after")]
    assert main(["diff", *runs]) == 0
    text = capsys.readouterr().out
    assert "lost: oak planks (task 0), different from step 2" in text and "gained: oak slab" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_the_bundle_is_made_of_these_sources():
    names = [
        "build.js",
        "package.json",
        "package-lock.json",
        *(f"src/{path.name}" for path in sorted((APP / "src").iterdir())),
    ]
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode() + (APP / name).read_bytes())
    for name in ("report.js", "report.css"):
        text = (BUNDLE / name).read_text(encoding="utf-8")
        assert text.startswith(f"/* sources {digest.hexdigest()}"), (
            "npm run build in mcts_utils/report/view/app"
        )
        assert "</script" not in text.lower() and "</style" not in text.lower()


@pytest.mark.slow
def test_building_gives_the_committed_bundle(node_modules, tmp_path):
    subprocess.run(["node", "build.js", str(tmp_path)], cwd=node_modules, check=True, timeout=120)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in BUNDLE.iterdir()}
