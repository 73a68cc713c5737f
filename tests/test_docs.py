"""The pages: those that are made from the code are up to date."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from mcts_utils.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["docs/configuration.py", "docs/file_formats.py"])
def test_what_is_made_from_the_code_is_up_to_date(maker, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [maker, "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / maker), run_name="__main__")
    assert (ended.value.code, capsys.readouterr().err) == (0, "")


def test_the_configuration_page_names_every_stage():
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for command, _ in dict(COMMANDS)["stages"]:
        assert f"### `{command}`" in text
