"""File names, atomic JSON and JSONL, sha256, manifests.

One function names each file for writer, reader and resume alike. It knows nothing of trees or records: it takes and
gives plain dicts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.types import InputError

MANIFEST_VERSION = 1
SAMPLED_BYTES = 1 << 20  # read at each end of a weight file for its fingerprint
SECRETS = ("openai_api_key", "api_key")
TREE_FILE = re.compile(r"search_results_(\d+)\.json")
UNSAFE = re.compile(r"[^A-Za-z0-9._=+@-]+")


def safe_name(name: str) -> str:
    """A model's name as one folder name: `org/model:7b` -> `org_model_7b`.

    Raises:
        InputError: if nothing usable is left (empty, ".", "..").
    """
    safe = UNSAFE.sub("_", name)
    if not safe.strip("._"):
        raise InputError(f"MODEL_NAME cannot name a folder: {name!r}")
    return safe


def tree_folder(root: str | Path, task: str, model: str) -> Path:
    """Where stage 1 puts the trees and the manifest of one model."""
    return Path(root, safe_name(task), safe_name(model))


def tree_path(root: str | Path, task: str, model: str, index: int) -> Path:
    """A stage 1 tree."""
    return tree_folder(root, task, model) / f"search_results_{index}.json"


def tree_files(folder: str | Path, flag: str) -> dict[int, Path]:
    """Index -> file of what stage 1 (or stage 2 beside it) wrote to a folder, a file a tree, by index.

    Raises:
        InputError: no folder, or none of them in it; the line begins with `flag`.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{flag} is not a folder: {str(folder)!r}")
    found = {int(m[1]): path for path in place.iterdir() if (m := TREE_FILE.fullmatch(path.name))}
    if not found:
        raise InputError(f"{flag} has no search_results_<idx>.json: {str(folder)!r}")
    return dict(sorted(found.items()))


def episode_name(index: int, sample: int = 0) -> str:
    """File of one of a task's episodes; the first is named as where there is no other."""
    return f"search_results_{index}_s{sample}.json" if sample else f"search_results_{index}.json"


def test_path(root: str | Path, task: str, model: str, model_type: str, index: int) -> Path:
    """A stage 4 episode, the first of its task."""
    return tree_folder(root, task, f"{model}_{model_type}") / episode_name(index)


test_path.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def write_json(path: str | Path, obj: Any) -> None:
    """Write compact JSON atomically."""
    _write(Path(path), [json.dumps(obj, ensure_ascii=False, separators=(",", ":"), allow_nan=False), "\n"])


def read_json(path: str | Path) -> Any:
    """The object in a JSON file.

    Raises:
        InputError: naming the file if it is missing, truncated or not JSON.
    """
    try:
        return json.loads(_read(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: truncated or not JSON ({_brief(error)})") from error


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, atomically, and return the number of rows. Replaces what was there."""
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in rows:
            count += 1
            yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"

    _write(Path(path), lines())
    return count


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; empty lines are skipped.

    Raises:
        InputError: naming the file and the row (from 1) that is not a JSON object.
    """
    rows = []
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path} row {number}: not JSON ({_brief(error)})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path} row {number}: not a JSON object: {line.strip()[:60]!r}")
        rows.append(row)
    return rows


class RowSpool:
    """Rows on disk until all are there: given in any order of their trees, read back in order. One thread."""

    def __init__(self, folder: str | Path) -> None:
        """`folder` is made if needed; the file has no name there, so nothing is left behind."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        self._places: dict[int, tuple[int, int]] = {}  # index of the tree -> (offset, bytes)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def add(self, index: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of one tree."""
        data = json.dumps(rows).encode()  # ASCII, so that half a character survives
        self._file.seek(0, os.SEEK_END)
        self._places[index] = (self._file.tell(), len(data))
        self._file.write(data)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, by index of their trees; one tree's at a time is in memory."""
        for index in sorted(self._places):
            offset, size = self._places[index]
            self._file.seek(offset)
            yield from json.loads(self._file.read(size))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def fingerprint(model_dir: str) -> str:
    """A hash that changes with a local model's files: names, sizes and both ends of each; empty for an endpoint.

    Training moves every weight, so the ends tell two checkpoints apart without reading gigabytes.
    """
    if not model_dir:
        return ""
    digest = hashlib.sha256()
    for path in sorted(Path(model_dir).iterdir()):
        if path.suffix not in (".json", ".safetensors", ".bin", ".jinja", ".model"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
            file.seek(max(0, size - SAMPLED_BYTES))
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


def one_line(error: BaseException) -> str:
    """`EnvError: what happened`, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def code_revision() -> str:
    """`git describe` of this checkout, or "unknown" outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def write_manifest(
    path: str | Path,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Sequence[str | Path],
    outputs: Sequence[str | Path],
    counts: Mapping[str, Any],
    tokens: Mapping[str, Any],
    seconds: float,
) -> None:
    """Record what a stage did. Called last: a manifest means that its outputs are complete.

    Files are named relative to the manifest's folder, so that a result can be moved as a whole.
    """
    folder = Path(path).parent

    def listed(files: Sequence[str | Path]) -> list[dict[str, str]]:
        return [{"path": os.path.relpath(file, folder), "sha256": sha256_file(file)} for file in files]

    write_json(
        path,
        {
            "version": MANIFEST_VERSION,
            "stage": stage,
            "code_revision": code_revision(),
            "settings": {name: value for name, value in settings.items() if name.lower() not in SECRETS},
            "inputs": listed(inputs),
            "outputs": listed(outputs),
            "counts": dict(counts),
            "tokens": dict(tokens),
            "seconds": round(seconds, 3),
        },
    )


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _brief(error: Exception) -> str:
    return str(error) if isinstance(error, json.JSONDecodeError) else "nested too deep"


def write_bytes(path: str | Path, parts: Iterable[bytes]) -> None:
    """Temp file in the same folder, fsync, os.replace: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; results are shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write(path: Path, parts: Iterable[str]) -> None:
    """UTF-8; a lone surrogate in a model's reply becomes its JSON escape instead of an error."""
    write_bytes(path, (part.encode("utf-8", "backslashreplace") for part in parts))
