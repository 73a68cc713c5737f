"""The mask preview: what is marked is what XTuner gives a loss."""

from __future__ import annotations

import re

import pytest

from mcts_utils.storage import files
from mcts_utils.training import loss_mask, preview
from mcts_utils.training.encoding import IGNORED
from tests.helpers.training_models import preference, record


def test_the_trained_turns_of_a_row_are_marked(tiny, tmp_path, capsys):
    row = record(1, "revision", "webshop")
    row["messages"][1]["content"] = "<script>\x1b[31m red & bad"
    files.write_jsonl(tmp_path / "rows.jsonl", [record(0), row])
    where = ["--data", str(tmp_path / "rows.jsonl"), "--row", "2", "--model_dir", str(tiny)]
    assert preview.main(where) == 0
    printed = capsys.readouterr().out
    trained = [m["content"] + "<|end|>" for m in row["messages"] if m["loss"]]
    assert re.findall(r"\x1b\[1;30;42m(.*?)\x1b\[0m", printed, re.DOTALL) == trained
    assert "row 2: revision, webshop" in printed and "trained in 2 turns" in printed
    assert "\x1b[31m" not in printed and "\\x1b[31m red" in printed  # a text sends nothing to the terminal


def test_a_page_escapes_what_it_shows():
    ids, labels = [1, 2, 3, 4], [IGNORED, 2, 3, IGNORED]
    texts = {1: "<b>", 2: "a&", 3: "<i>", 4: "\x07"}
    shown = loss_mask.mask_sequence("chosen", ids, labels, lambda part: "".join(texts[i] for i in part))
    assert shown.spans == (("<b>", False), ("a&<i>", True), ("\x07", False))
    assert shown.caption == "chosen: 4 tokens, 2 trained in 1 turns"
    page = loss_mask.to_html("<title>", [shown])
    assert "&lt;b&gt;<mark>a&amp;&lt;i&gt;</mark>\\x07" in page and "<title>&lt;title&gt;</title>" in page
    assert "<b>" not in page and "<script" not in page


def test_a_label_that_is_another_token_is_no_mask():
    with pytest.raises(ValueError, match="another token"):
        loss_mask.mask_sequence("", [1, 2], [IGNORED, 3], str)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--row", "3"], "--row 3"),
        (["--row", "0"], "--row must be between 1 and 1000000000: 0"),
        (["--row", "2", "--config", "tiny_actor"], "tiny_actor is for sft"),
        (["--row", "3", "--chat_template", "missing.jinja"], "--row 3"),
        (["--row", "1", "--chat_template", "missing.jinja"], "missing.jinja"),
        (["--row", "1", "--model_dir", "missing"], "--model_dir missing"),
    ],
)
def test_bad_input_is_one_line(tiny, tmp_path, capsys, extra, words):
    files.write_jsonl(tmp_path / "rows.jsonl", [record(0), preference(0)])
    assert preview.main(["--data", str(tmp_path / "rows.jsonl"), "--model_dir", str(tiny), *extra]) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1
