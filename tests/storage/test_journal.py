"""The journal of a job: what is read back, in which order, and what damage does to it."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.storage.journal import Journal, Journals
from mcts_utils.types import Sample

PAID = {"": {"calls": 1, "prompt_tokens": 7}}


def written(path: Path, *answers: str) -> bytes:
    with Journal(path) as journal:
        for answer in answers:
            journal.add("question", answer, PAID)
    return path.read_bytes()


def read(path: Path) -> list[str]:
    journal, found = Journal(path), []
    while (answer := journal.take(str, "question")) is not None:
        found.append(answer)
    return found


def test_the_answers_to_one_question_come_back_in_their_order_and_once_each(tmp_path):
    path = tmp_path / "a.jsonl"
    written(path, "first", "second", "a lone \ud800 surrogate")
    with Journal(path) as journal:
        assert journal.knows("question") and not journal.knows("another")
        assert [journal.take(str, "question") for _ in range(4)] == [
            "first",
            "second",
            "a lone \ud800 surrogate",
            None,
        ]
        journal.add("another", [Sample("x", 3, 4, True)])
    assert Journal(path).take(list[Sample], "another") == [Sample("x", 3, 4, True)]
    assert Journal(path).take(int, "question") is None, "what another version wrote is asked for again"
    assert Journal(path, {"max_token_length": 8}).take(str, "question") is None


def test_many_threads_write_whole_lines(tmp_path):
    with Journal(tmp_path / "a.jsonl") as journal, ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda i: journal.add("question", f"{i}" * 3000, PAID), range(200)))
    assert sorted(read(tmp_path / "a.jsonl")) == sorted(f"{i}" * 3000 for i in range(200))


def test_a_line_that_was_cut_off_is_healed(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    whole, three = written(path, "one", "two"), written(tmp_path / "b.jsonl", "one", "two", "three")
    for end in range(len(whole), len(three)):
        path.write_bytes(three[:end])
        assert read(path) == ["one", "two"]
        assert written(path, "four")[: len(whole)] == whole
        assert read(path) == ["one", "two", "four"]
    assert capsys.readouterr().err == ""


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_named_and_only_its_line_is_lost(tmp_path_factory, at, bit):
    path = tmp_path_factory.mktemp("flipped") / "a.jsonl"
    content = bytearray(written(path, "one", "two", "three"))
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    found = read(path)
    assert [each for each in ("one", "two", "three") if each in found] == found
    # A line end that is lost takes the next line with it.
    assert len(found) >= 1


def test_a_damaged_line_is_named(tmp_path, capsys):
    content = written(tmp_path / "a.jsonl", "one", "two")
    (tmp_path / "a.jsonl").write_bytes(content.replace(b"one", b"oNe"))
    assert read(tmp_path / "a.jsonl") == ["two"]
    said = capsys.readouterr().err
    assert said == f"{tmp_path}/a.jsonl line 1: damaged; what it held is asked for again\n"


def test_a_full_disk_is_named_and_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path, write = tmp_path / "a.jsonl", os.write
    before = written(path, "one")

    def full(file: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:30])

    with Journal(path) as journal:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*a\.jsonl'"):
            journal.add("question", "two", PAID)
        assert path.read_bytes() == before
        monkeypatch.undo()
        journal.add("question", "three", PAID)
    assert read(path) == ["one", "three"]


def test_what_killed_runs_paid_is_counted_once_and_their_files_go(tmp_path):
    killed = Journals(tmp_path)
    holding = killed.running(["a", "b"])
    holding.__enter__()
    for name in ("a", "b", "other"):
        with killed.open(name, None) as journal:
            journal.add("question", name, PAID)
            journal.add("step", name)
    killed.shrink("a")  # its result is on the disk
    (tmp_path / ".journal" / ".b.jsonl.x1.tmp").touch()

    journals = Journals(tmp_path)
    with journals.running(["a", "b"]):
        assert journals.interrupted
        assert journals.open("a", None).take(str, "question") is None
        assert journals.open("b", None).take(str, "question") == "b"
        assert killed.open("b", None).take(str, "question") is None, "its run is over"
        used = {"calls": 2, "busy_s": 0.5}
        assert journals.with_recovered(used) == {"calls": 4, "busy_s": 0.5, "prompt_tokens": 14}
        journals.settle(["a", "b"])
    assert [path.name for path in (tmp_path / ".journal").iterdir()] == ["other.jsonl"], "of another run"
    Journals(tmp_path).clear(["other"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", range(4))
def test_a_run_that_is_killed_while_it_removes_its_journals_has_ended(tmp_path, monkeypatch, left):
    first = Journals(tmp_path)
    holding = first.running(["a", "b"])
    holding.__enter__()
    for name in ("a", "b"):
        with first.open(name, None) as journal:
            journal.add("question", name, PAID)
    removed: list[Path] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == left:
            raise KeyboardInterrupt
        removed.append(path)
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            first.settle(["a", "b"])
    second = Journals(tmp_path)
    with second.running(["a", "b"]):
        assert (second.interrupted, second.with_recovered({})) == (False, {})
        second.settle([])
    assert list(tmp_path.iterdir()) == []
    idle = Journals(tmp_path)
    holding = idle.running(["a", "b"], todo=False)
    holding.__enter__()  # and is killed, too
    with (last := Journals(tmp_path)).running(["a", "b"], todo=False):
        assert not last.interrupted
