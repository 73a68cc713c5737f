"""What an engine's process leaves out of its start, and that it is there where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
START = """
import sys
from mcts_utils.actors.engine.light_start import leave_out
leave_out()
"""
ENGINES = """
import numpy, torch
from mcts_utils.actors.engine.folder import load_model, make_engine
from mcts_utils.actors.engine.job import DecodeJob, EngineSpec
for plain in (False, True):
    spec = EngineSpec(sys.argv[1], 0, 0, 2, plain=plain)
    engine = make_engine(load_model(spec)[0], spec)
    engine.start()
    job = DecodeJob(numpy.arange(8), 4, 1.0, 0)
    engine.submit([job])
    assert 1 <= len(job.future.result()) <= 4
    engine.close()
print([name for name in ("scipy", "torch.distributed.tensor", "torch._dynamo.convert_frame") if sys.modules.get(name)])
import torch._dynamo.utils
print(torch._dynamo.utils is sys.modules["torch._dynamo.utils"], torch._dynamo.utils.counters == {})
print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).tolist())
"""
NAME = "import torch; print(torch._dynamo.list_backends.__module__)"


@pytest.mark.parametrize(
    ("program", "printed"),
    [(ENGINES, "[]\nTrue True\n[2.0, 2.0]"), (NAME, "torch._dynamo.backends.registry")],
)
def test_the_compiler_is_left_out_until_it_is_used(program: str, printed: str) -> None:
    command = [sys.executable, "-c", START + program, str(ROOT / "models" / "tiny_actor")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr
