"""What the package promises: its public names, the list of commands, an installation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mcts_utils
from mcts_utils.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
LISTED = [command for _, rows in COMMANDS for command, _ in rows]
LARGE = ("torch", "transformers", "openai", "scipy", "statsmodels", "pandas", "matplotlib", "ray", "fastapi")
LIGHT = (
    *(
        "mcts_collection",
        "path_collection",
        "eval",
        "mcts_utils.pipeline.run_all",
        "mcts_utils.pipeline.experiment",
    ),
    *("mcts_utils.pipeline.forecast", "mcts_utils.training.train", "mcts_utils.training.export"),
    *("mcts_utils.training.tokenizer_check", "mcts_utils.training.preview", "mcts_utils.envs.check.__main__"),
    *(f"mcts_utils.report.{name}__main__" for name in ("", "budget.", "cost.", "data.")),
    *(f"mcts_utils.report.runs.{name}" for name in ("round", "iteration", "iterations")),
    "mcts_utils.servers.mock_llm.__main__",
)
MODULES = [command.split(" -m ")[1] for command in LISTED if " -m " in command]


@pytest.mark.parametrize("name", mcts_utils.__all__)
def test_a_public_name_is_there(name):
    assert getattr(mcts_utils, name).__name__ == name


def test_importing_the_package_loads_no_library():
    code = "import sys, mcts_utils; print([m for m in ('torch', 'numpy', 'openai', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_command_loads_a_large_library_only_where_it_is_used():
    code = f"""
import sys
from importlib import import_module
for name in {LIGHT}:
    import_module(name)
print([name for name in {LARGE} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_list_names_every_module_and_script_that_can_be_run():
    runnable = set()
    for path in (ROOT / "mcts_utils").rglob("*.py"):
        if re.search(r'^if __name__ == "__main__":', path.read_text(encoding="utf-8"), re.MULTILINE):
            parts = path.relative_to(ROOT).with_suffix("").parts
            runnable.add(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    # Itself; what the scripts and the trainer's environment call.
    runnable -= {"mcts_utils"}
    called = ("mcts_utils.pipeline.", "mcts_utils.training.trainer.")
    runnable -= {name for name in runnable if name.startswith(called)}
    assert set(MODULES) == runnable


@pytest.mark.parametrize("command", LISTED)
def test_what_is_listed_exists(command):
    target = command.split()[-1]
    if " -m " in command:
        place = ROOT.joinpath(*target.split("."))
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
    else:
        assert (ROOT / target).exists()


def test_the_list_is_printed():
    done = subprocess.run(
        [sys.executable, "-m", "mcts_utils"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in LISTED)
