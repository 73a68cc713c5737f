"""The pages: those that are made from the code are up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcts_utils.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["docs/configuration.py", "docs/file_formats.py"])
def test_what_is_made_from_the_code_is_up_to_date(maker):
    done = subprocess.run([sys.executable, maker, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_configuration_page_names_every_stage():
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for command, _ in dict(COMMANDS)["stages"]:
        assert f"### `{command}`" in text
