"""The soak test in its short form: six kills with -9 over stages 1, 2 and 4."""

from __future__ import annotations

import pytest

from mcts_utils.bench import soak


@pytest.mark.slow
def test_six_kills_change_nothing_and_cost_no_more_than_what_was_in_flight(tmp_path, capsys):
    flags = ["--kills", "6", "--seed", "3", "--arms", "search,revise,evaluate", "--latency", "0.03"]
    assert soak.main([*flags, "--output_dir", str(tmp_path / "soak")]) == 0, capsys.readouterr()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        (arm, "2", "0") for arm in ("search", "revise", "evaluate")
    ]


def test_an_unknown_arm_is_one_line(tmp_path, capsys):
    assert soak.main(["--arms", "nope", "--output_dir", str(tmp_path / "soak")]) == 2
    assert capsys.readouterr().err == "soak: --arms: 'nope' is none of search, revise, evaluate, ray\n"
