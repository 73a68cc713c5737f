"""Compare every file of a run with the hash that a manifest has of it, and every manifest with its own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mcts_utils.report.verify.checks import Checks
from mcts_utils.storage.files import sealed, sha256_file
from mcts_utils.storage.formats.manifest import Manifest

HASHES = "hashes"
# Nothing reads these but a person, or they are made again from the other files.
EXEMPT = re.compile(r".*\.(log|html|png|svg|txt)|\..*")
EXEMPT_FOLDERS = {"done", "logs", "report", "__pycache__"}
SHOWN = 3  # names of files without a hash


def check_hashes(checks: Checks, manifests: Mapping[Path, Manifest]) -> str:
    """Check all files below the folder; return a hash of all that have one, by which two copies can be compared."""
    digests: dict[Path, str] = {}
    outside: set[Path] = set()
    missing: list[tuple[Path, Path, str]] = []  # manifest, input, hash
    for file, manifest in manifests.items():
        for number, entry in enumerate((*manifest.outputs, *manifest.inputs)):
            path = Path(os.path.normpath(file.parent / entry.path))
            if not path.is_relative_to(checks.root):
                outside.add(path)
            elif path.is_file():
                found = digests[path] = digests.get(path) or sha256_file(path)
                if found != entry.sha256:
                    named = f"its sha256 is {found[:12]}..., {checks.name(file)} names {entry.sha256[:12]}..."
                    checks.fault(HASHES, path, named)
            elif number < len(manifest.outputs):
                checks.fault(HASHES, file, f"names {checks.name(path)}, which is not there")
            else:
                missing.append((file, path, entry.sha256))
    unknown = {}
    for path in all_files(checks.root):
        if path in digests:
            continue
        data = path.read_bytes() if path.suffix == ".json" else b""
        whole = sealed(data)
        if whole is None:
            unknown[path] = sha256_file(path)
        else:
            digests[path] = hashlib.sha256(data).hexdigest()
            if not whole:
                checks.fault(HASHES, path, "its bytes are not those that its own sha256 names")
    for file, path, digest in missing:
        if digest not in {*digests.values(), *unknown.values()}:  # else it was moved
            checks.fault(HASHES, file, f"names {checks.name(path)}, which is not there")
    checks.seen(HASHES, "files with a hash", len(digests))
    if unknown:
        some = ", ".join(map(checks.name, list(unknown)[:SHOWN])) + ", ..." * (len(unknown) > SHOWN)
        checks.note(HASHES, f"no hash on record ({some})", len(unknown))
    if outside:
        checks.note(HASHES, "files outside this folder, not compared", len(outside))
    every = sorted(f"{checks.name(path)} {digest}\n" for path, digest in digests.items())
    return hashlib.sha256("".join(every).encode("utf-8", "surrogateescape")).hexdigest()


def all_files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder that hold results."""
    for name, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in EXEMPT_FOLDERS and not f.startswith("."))
        for file in sorted(files):
            if not EXEMPT.fullmatch(file):
                yield Path(name, file)
