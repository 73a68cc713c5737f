"""Name and load an environment of yours: FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or gymnasium:ID.

It makes no environment; world.py does.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

GYMNASIUM = "gymnasium"
FORMS = "FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or gymnasium:ID"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class SourceError(ValueError):
    """The environment cannot be named, loaded or made: one line that names it."""


def is_source(task: str) -> bool:
    """Return True for the name or the source of an environment of yours; bundled ones have no colon."""
    return ":" in task


def split_source(source: str) -> tuple[str, str]:
    """Return (file, module or "gymnasium"; function or ID).

    Raises:
        SourceError: it has none of the three forms.
    """
    place, _, name = source.partition(":") if source.startswith(GYMNASIUM + ":") else source.rpartition(":")
    is_place = place == GYMNASIUM or place.endswith(".py") or DOTTED.fullmatch(place)
    if not is_place or not name or (place != GYMNASIUM and not DOTTED.fullmatch(name)):
        raise SourceError(f"must be {FORMS}: {source!r}")
    return place, name


def name_of(source: str) -> str:
    """Return the environment's name in results: a file's stem and its function, such as my_env:make.

    Raises:
        SourceError: as split_source.
    """
    place, name = split_source(source)
    return f"{Path(place).stem if place.endswith('.py') else place}:{name}"


def load(source: str) -> Callable[[], Any]:
    """Return the function that makes one environment.

    Raises:
        SourceError: there is no such file, module, package or function, or it fails when it is imported.
    """
    place, name = split_source(source)
    sys.path.append(str(Path.cwd()))  # at the end: no file there hides a library
    try:
        if place == GYMNASIUM:
            gymnasium = importlib.import_module(GYMNASIUM)
            return lambda: gymnasium.make(name)
        found: Any = _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise SourceError(f"{source}: {_line(error)}") from error
    if not callable(found):
        raise SourceError(f"{source}: {name} is no function that makes an environment")
    return found


def digest_of(source: str, env: Any) -> str:
    """Return 12 hex digits of what the environment is: its own `world_version`, else the bytes of its file."""
    version = getattr(env, "world_version", None)
    place, _ = split_source(source)
    module = sys.modules.get(type(env).__module__ if place == GYMNASIUM else place)
    file = place if place.endswith(".py") else getattr(module, "__file__", None)
    text = str(version).encode() if version is not None else Path(file).read_bytes() if file else b""
    return sha256(name_of(source).encode() + b"\n" + text).hexdigest()[:12]


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SourceError("no such file")
    sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"yours_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _line(error: BaseException) -> str:
    kind = "" if isinstance(error, SourceError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())
