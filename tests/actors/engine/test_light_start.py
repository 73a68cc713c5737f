"""What an engine's process leaves out of its start, and that it is there where it is used."""

from __future__ import annotations

import subprocess
import sys
import xml.sax
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from mcts_utils.actors.engine import light_start

ROOT = Path(__file__).resolve().parents[3]
FOLDER = str(Path(xml.sax.__file__ or "").parent)
PROGRAM = """
import sys
from mcts_utils.actors.engine.light_start import leave_out
leave_out()
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
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist())
"""


def test_the_compiler_is_left_out_until_it_is_used() -> None:
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "models" / "tiny_actor")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["[]", "[2.0, 2.0]"]), done.stderr


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[light_start.Compiler]:
    """A package that imports some of its modules, xml.sax, in the compiler's place."""
    monkeypatch.setattr(light_start, "COMPILER", "xml.sax")
    monkeypatch.setattr(light_start, "ALONE", "xml.sax.handler")
    before = forget()
    monkeypatch.setattr(xml, "sax", None)
    monkeypatch.setattr(sys, "meta_path", [light_start.Parts(), *sys.meta_path])
    made = sys.modules["xml.sax"] = light_start.Compiler(FOLDER)
    yield made
    forget()
    sys.modules.update(before)


def forget() -> dict[str, ModuleType]:
    """Return the package and its modules that are imported, after taking them out."""
    names = [name for name in sys.modules if f"{name}.".startswith("xml.sax.")]
    return {name: sys.modules.pop(name) for name in names}


def test_marks_and_a_module_that_needs_no_other_do_not_import_it(stand_in: light_start.Compiler) -> None:
    assert stand_in.disable(len) is len
    assert stand_in.disable(recursive=False)(len) is len
    assert import_module("xml.sax.handler")
    assert sys.modules["xml.sax"] is stand_in


def test_anything_else_that_it_is_asked_for_imports_it(stand_in: light_start.Compiler) -> None:
    assert stand_in.make_parser.__module__ == "xml.sax"
    assert sys.modules["xml.sax"] is not stand_in
    assert sys.modules["xml.sax"].__name__ == "xml.sax"


@pytest.mark.parametrize("name", ["xmlreader", "expatreader"])
def test_each_of_its_modules_is_there_once(stand_in: light_start.Compiler, name: str) -> None:
    found = import_module(f"xml.sax.{name}")
    package = sys.modules["xml.sax"]
    assert package is not stand_in
    assert getattr(package, name) is found is sys.modules[f"xml.sax.{name}"]
    assert package.InputSource is sys.modules["xml.sax.xmlreader"].InputSource
