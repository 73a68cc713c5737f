"""The house's architecture: who may import whom, what pure means, and that nothing happens at import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mcts_utils"
# Imports point up this list only. A new module takes its place here, beside its siblings.
ORDER = [
    *("types", "config", "contracts", "grounding", "tree", "conversation", "search"),
    *(
        "cleaning",
        "revision",
        "baselines",
        "rows",
        "dataset",
        "metrics",
    ),  # up to here: what pure modules are made of
    *(
        "storage",
        "kv_cache",
        "batching",
        "local_model",
        "pacing",
        "gate",
        "wire",
        "endpoint",
        "actor",
        "envs",
    ),
    *("rollout", "travel", "forks", "explorer", "scheduler", "selection", "held_out", "budgets", "recipe"),
    *("judge", "execution", "records", "panel", "protocol", "scorecard", "comparison"),
    *("examples", "starts", "loops", "cluster"),
    *("evaluation", "collection", "conversion", "rehearsal"),  # one per stage
    "servers",  # they import nothing of all this
    *("report", "serving", "tiny_actor", "bench"),
]
PURE = (
    *("contracts", "grounding", "tree", "conversation", "search"),
    *("cleaning", "revision", "baselines", "rows", "dataset", "pacing"),
    *(
        "metrics",
        "metrics.scores",
        "metrics.actions",
        "metrics.paired",
        "report.judge.agreement",
        "report.rowstats",
    ),
)
PURE_VENDORS = {  # statistics come from libraries
    "metrics.scores": {"numpy", "scipy"},
    "metrics.actions": {"numpy"},
    "metrics.paired": {"numpy", "scipy", "statsmodels"},
    "report.judge.agreement": {"numpy", "scipy", "statsmodels"},
    "report.rowstats": {"numpy"},
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


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop("", None)
    return found


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, at any depth of its code; relative imports are refused."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


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


@pytest.mark.parametrize("name", modules())
def test_imports_point_up(name):
    own = name.split(".")[0]
    assert own in ORDER, f"{name} has no place in ORDER"
    for other in internal(modules()[name]) - {own}:
        assert other in ORDER, f"{name} imports {other}, which has no place in ORDER"
        assert ORDER.index(other) < ORDER.index(own), f"{name} imports {other}, which is below it"


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_nothing_outside(name):
    path = modules().get(name)
    assert path is not None, f"{name} is not there"
    roots = {found.split(".")[0] for found in imports(path)} - {PACKAGE}
    vendors = roots - set(sys.stdlib_module_names) - PURE_VENDORS.get(name, set())
    assert not vendors
    assert not roots & IMPURE
    assert internal(path) <= {*PURE, "types"}


@pytest.mark.parametrize("name", [name for name in modules() if name.split(".")[0] == "servers"])
def test_servers_import_nothing_else_of_the_package(name):
    assert internal(modules()[name]) <= {"servers"}


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
    assert readers == {f"{PACKAGE}/config.py"}


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
        [sys.executable, "-B", "-c", code],
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


def test_the_example_names_every_variable():
    read = re.findall(r"read\.\w+\(\s*\"([A-Z_]+)\"", (ROOT / PACKAGE / "config.py").read_text())
    named = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(read) > 15
    assert sorted(named) == sorted(set(read))
