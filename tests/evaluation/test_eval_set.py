"""Eval sets on disk: what is written and read again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcts_utils.evaluation.eval_set import (
    EpisodeStart,
    cut_failures,
    load_eval_set,
    repeat_starts,
    save_eval_set,
    starts_hash,
)
from mcts_utils.types import InputError, Step, Task
from tests.helpers.run_files import finished_episode

STARTS = [EpisodeStart(3, (), "textcraft:a"), EpisodeStart(5, (), "textcraft:b")]
CUT = [EpisodeStart(3, (Step("Action: x", "x", "o", 0.0),), "textcraft:a")]


def frozen(folder: Path, mode: str = "main", starts: list[EpisodeStart] | None = None) -> Path:
    path = folder / "panel.json"
    save_eval_set(path, "textcraft", mode, "k", STARTS if starts is None else starts, {"run": "r"})
    return path


def test_a_panel_comes_back_as_it_was(tmp_path):
    assert load_eval_set(frozen(tmp_path), "textcraft", "main", "k") == STARTS
    assert load_eval_set(frozen(tmp_path, "revise", CUT), "textcraft", "revise", "k") == CUT


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("webshop", "main", "k"), "TASK=textcraft, not webshop"),
        (("textcraft", "revise", "k"), "--mode main, not revise"),
        (("textcraft", "main", "other"), "kind k, this one is other"),
    ],
)
def test_a_panel_for_something_else_is_refused(tmp_path, asked, said):
    with pytest.raises(InputError, match=said):
        load_eval_set(frozen(tmp_path), *asked)


def test_a_changed_panel_is_refused(tmp_path):
    path = frozen(tmp_path)
    data = json.loads(path.read_text())
    data["prefixes"][0]["task_id"] = "textcraft:c"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="sha256"):
        load_eval_set(path, "textcraft", "main", "k")
    path.write_text("[]")
    with pytest.raises(InputError, match="not a panel file"):
        load_eval_set(path, "textcraft", "main", "k")


def test_a_panel_of_prefixes_from_before_panels_had_a_mode_is_read(tmp_path):
    path = frozen(tmp_path, "revise", CUT)
    data = json.loads(path.read_text())
    for name in ("mode", "sha256", "goals"):
        del data[name]
    path.write_text(json.dumps(data))
    assert load_eval_set(path, "textcraft", "revise", "whatever") == CUT


def test_the_name_of_a_panel_is_its_goals_and_prefixes_in_any_order():
    assert starts_hash(STARTS) == starts_hash(STARTS[::-1])
    assert len({starts_hash(STARTS), starts_hash(STARTS[:1]), starts_hash(CUT)}) == 3


def test_every_start_is_played_as_often_as_asked():
    assert [(s.index, s.sample) for s in repeat_starts(STARTS, 2)] == [(3, 0), (3, 1), (5, 0), (5, 1)]


def test_one_failed_sample_of_a_task_is_cut():
    steps = [Step(f"Action: {i}", str(i), "o", 0.0) for i in range(9)]
    task = Task("textcraft", 1, "t", "")
    episodes = [finished_episode(task, steps, reward) for reward in (1.0, 0.0, 0.0)]
    starts, left_out = cut_failures(episodes, 0)
    assert len(starts) == 1
    assert (left_out["not_failed"], left_out["same_task"]) == (1, 1)
