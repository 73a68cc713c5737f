"""An output folder belongs to one run at a time, and is known to be usable before anything is paid for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcts_utils.storage.lock import reserved
from mcts_utils.types import InputError

HOLD = """
import sys
from mcts_utils.storage.lock import reserved
with reserved(*sys.argv[1:]):
    print("held", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).resolve().parents[2]


def holder(folder: Path, *file: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *file],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("ending", [signal.SIGKILL, None])
def test_a_second_run_is_told_who_has_the_folder_and_gets_it_when_that_has_ended(tmp_path, ending):
    first = holder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / ".search_results_3.json.x1y2.tmp").write_text("half")
    with pytest.raises(InputError, match=rf"a/b is in use by process {first.pid} on ") as caught:
        with reserved(tmp_path / "a" / "b"):
            raise AssertionError("two runs in one folder")
    assert "\n" not in str(caught.value)
    if ending:
        first.send_signal(ending)
    first.communicate()
    with reserved(tmp_path / "a" / "b") as folder:
        assert str(os.getpid()) in (folder / ".lock").read_text()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_of_a_shared_folder_each_file_is_held_alone(tmp_path):
    first = holder(tmp_path, "good.jsonl")
    others = tmp_path / ".centric.jsonl.x1.tmp", tmp_path / ".optimal.jsonl.x1.tmp"
    for path in others:
        path.write_text("half")
    with pytest.raises(InputError, match=f"^--output: .* is in use by process {first.pid} on "):
        with reserved(tmp_path, "good.jsonl", "--output"):
            raise AssertionError("two runs write one file")
    with reserved(tmp_path, "centric.jsonl"):
        assert [path.exists() for path in others] == [False, True]
    first.communicate()
    with reserved(tmp_path, "good.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == [others[1]]


def test_no_empty_folder_stays(tmp_path):
    with reserved(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with reserved(tmp_path / "a" / "b") as folder:
        (folder / "x.json").write_text("{}")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"^--output_dir: .*/file/out cannot be written: Not a directory$"):
        with reserved(tmp_path / "file" / "out"):
            pass
    with pytest.raises(InputError, match="cannot be written"):
        with reserved("/proc/agent-r"):
            pass
