"""Write and read a stage's manifest (formats/manifest.py). It knows no trees or records: it takes plain dicts."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.storage.files import read_as, sha256_file, write_sealed
from mcts_utils.storage.formats.manifest import FileEntry, Manifest

SAMPLED_BYTES = 1 << 20  # read at each end of a weight file for its fingerprint
SECRETS = ("openai_api_key", "api_key")


def fingerprint(model_dir: str, chat_template: str = "") -> str:
    """Return a hash of a local model's files (names, sizes, both ends of each); "" for an endpoint.

    `chat_template`: file of a template in place of the model's own, which is a part of the model then.

    Training changes every weight, so the ends tell two checkpoints apart without reading gigabytes.
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
    if chat_template:
        digest.update(Path(chat_template).read_bytes())
    return digest.hexdigest()


def code_revision() -> str:
    """Return `git describe` of this checkout, or "unknown" outside of one."""
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
    """Write a stage's manifest. Call it last: a manifest says that its outputs are complete.

    Files are named relative to the manifest's folder, so that a result can be moved as a whole. The API key is left out
    of `settings`.

    Raises:
        InputError: an input or output cannot be read.
    """
    folder = Path(path).parent

    def listed(files: Sequence[str | Path]) -> list[FileEntry]:
        return [FileEntry(path=os.path.relpath(file, folder), sha256=sha256_file(file)) for file in files]

    manifest = Manifest(
        stage=stage,
        code_revision=code_revision(),
        settings={name: value for name, value in settings.items() if name.lower() not in SECRETS},
        inputs=listed(inputs),
        outputs=listed(outputs),
        counts=dict(counts),
        tokens=dict(tokens),
        seconds=round(seconds, 3),
    )
    write_sealed(path, manifest)


def read_manifest(path: str | Path) -> Manifest:
    """Return the manifest of a file; raise InputError if the file cannot be read, or is no manifest."""
    return read_as(path, Manifest)
