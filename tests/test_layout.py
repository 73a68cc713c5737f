"""The house's architecture: who may import whom, what pure means, and that nothing happens at import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mcts_utils"
# Rooms of the house, from the ground up: a room imports only rooms that stand before it. A new module needs no entry.
ROOMS = (
    *(
        "types",
        "reasoning",
        "tool_calls",
        "replies",
        "tables",
        "parent",
        "terminal",
        "patience",
        "servers",
        "config",
        "storage",
        "envs",
        "actors",
        "training",
        "prompts",
        "executors",
        "rollouts",
    ),
    *("search", "revision", "evaluation", "report", "pipeline", "bench", "tiny_actor"),
)
# Pure folders and files: no clock, no files, no network, no vendor but those named.
PURE = {
    "reasoning": set(),
    "tool_calls": set(),
    "replies": set(),
    "tables": set(),
    "storage.formats": {"msgspec"},  # definitions
    "envs.specs": set(),
    "envs.grounding": set(),
    "prompts": set(),
    "rollouts.steps": set(),
    "search.tree": set(),
    "search.reference_format": set(),
    "search.mcts": set(),
    "search.baselines": set(),
    "revision.pairs": set(),
    "revision.pruning": set(),
    "revision.record": {"msgspec"},
    "training.dataset": set(),
    "training.row_turns": set(),
    "actors.adaptive_limit": set(),
    "actors.engine.prefixes": {"numpy"},
    "evaluation.metrics": {"numpy", "scipy", "statsmodels"},  # statistics come from libraries
    "report.judge.agreement": {"numpy", "scipy", "statsmodels"},
    "report.data.row_stats": {"msgspec", "numpy"},
}
IMPURE = {
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "sys", "subprocess", "signal"),
    *("time", "datetime", "logging", "threading", "multiprocessing", "concurrent", "asyncio", "queue"),
    *("http", "urllib", "socket", "ssl", "socketserver", "secrets", "uuid"),
}
SKIPPED = {"runs", "work_dirs", "mcts_result", "mcts_training_data", "test_result", "__pycache__"}
# Written in parts, so that this file does not find itself.
MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:" + "|".join(("work", "root", "home", "Users", "mnt")) + r")/[A-Za-z0-9_.]"
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@cache
def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop("", None)
    found.pop("__main__", None)
    return found


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of what a file imports, at any depth of its code; relative imports are refused."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def internal(path: Path) -> set[str]:
    """Modules of the package's first level that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith(PACKAGE + ".")}


def tracked() -> list[Path]:
    """Files that git tracks or would; without git, all but the ignored folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0 and listed.stdout:
        names = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        names = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part in SKIPPED
                or part.startswith((".venv", ".git", ".mypy", ".ruff", ".pytest", ".hypothesis"))
                for part in path.relative_to(ROOT).parts
            )
        ]
    return [path for path in names if path.is_file()]


def room(name: str) -> str:
    """The room of a dotted name below the package."""
    return name.split(".")[0]


@pytest.mark.parametrize("name", modules())
def test_imports_point_up(name):
    assert room(name) in ROOMS, f"{name} is in no room of the house"
    for other in internal(modules()[name]) - {room(name)}:
        assert other in ROOMS, f"{name} imports {other}, which is no room of the house"
        assert ROOMS.index(other) < ROOMS.index(room(name)), f"{name} imports {other}, which is below it"


def within(name: str, place: str) -> bool:
    """True if the dotted name is the place or below it."""
    return name == place or name.startswith(place + ".")


@pytest.mark.parametrize("place", PURE)
def test_pure_modules_touch_nothing_outside(place):
    found = [name for name in modules() if within(name, place)]
    assert found, f"{place} is not there"
    for name in found:
        imported = imports(modules()[name])
        roots = {each.split(".")[0] for each in imported} - {PACKAGE}
        assert not roots - set(sys.stdlib_module_names) - PURE[place], name
        assert not roots & IMPURE, name
        inner = {each.removeprefix(PACKAGE + ".") for each in imported if each.startswith(PACKAGE + ".")}
        impure = {each for each in inner if not any(within(each, pure) for pure in (*PURE, "types"))}
        assert not impure, name


@pytest.mark.parametrize("name", [name for name in modules() if name.split(".")[0] == "servers"])
def test_servers_import_nothing_of_the_stages(name):
    assert internal(modules()[name]) <= {"servers", "parent", "terminal", "types"}


def test_only_config_reads_the_environment():
    readers = set()
    for path in [*modules().values(), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = (
                node.attr
                if isinstance(node, ast.Attribute)
                else node.name
                if isinstance(node, ast.alias)
                else ""
            )
            if named in ("environ", "getenv", "putenv", "load_dotenv", "dotenv_values"):
                readers.add(str(path.relative_to(ROOT)))
    # Stage 3 starts the trainer in an environment of its own, so it reads and hands on the whole of it.
    training = {name for name in readers if name.startswith(f"{PACKAGE}/training/")}
    # A server is a program of its own, whose token is nobody else's; any program has a parent.
    servers = {f"{PACKAGE}/{name}.py" for name in ("servers/app_server", "actors/llama_server", "parent")}
    # The programs that the scripts start read what the scripts set.
    assert readers - training - servers == {f"{PACKAGE}/config/reader.py", f"{PACKAGE}/pipeline/processes.py"}


@pytest.mark.slow
def test_nothing_happens_at_import(tmp_path):
    names = [f"{PACKAGE}.{name}" for name in modules()] + [path.stem for path in sorted(ROOT.glob("*.py"))]
    code = f"""
import importlib, sys, threading
sys.path.insert(0, {str(ROOT)!r})
for name in {names!r}:
    importlib.import_module(name)
started = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
assert not started, started
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_no_file_names_a_machines_folders():
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{i}: {line[:100]}"
            for i, line in enumerate(lines, 1)
            if MACHINE_PATH.search(line)
        ]
    assert not found


def test_a_machine_path_would_be_found():
    assert MACHINE_PATH.search("see " + "/ho" + "me/me/model")
    assert not MACHINE_PATH.search("https://example.org/home/x")


def test_links_of_the_documents_lead_somewhere():
    broken = []
    documents = [path for path in tracked() if path.suffix == ".md"]
    assert ROOT / "README.md" in documents
    for path in documents:
        for groups in LINK.findall(path.read_text(encoding="utf-8")):
            target = (groups[0] or groups[1]).split("#")[0]
            if target and not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_ci_runs_the_checks():
    assert "scripts/test.sh" in (ROOT / ".ci" / "run").read_text()
    assert "scripts/check.sh" in (ROOT / "scripts" / "test.sh").read_text()
    for name in (".ci/run", "scripts/test.sh", "scripts/check.sh"):
        done = subprocess.run(["bash", "-n", name], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
