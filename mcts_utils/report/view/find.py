"""Find what a run's folder holds: trees, records, evaluations and trainings, at whatever depth. It reads no content."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from mcts_utils.storage.layout import EPISODE, TREE
from mcts_utils.types import InputError

NUMBERED = re.compile(rf"{TREE}_(\d+)\.json")
EPISODE_FILE = re.compile(rf"(?:{EPISODE}|{TREE})_(\d+)(?:_s(\d+))?\.json")  # TREE: of earlier versions
MODELS = ("train", "checkpoints")  # folders of a model that hold no results
NUMBER = re.compile(r"(\d+)")


@dataclass
class Found:
    """The results below a folder, in natural order of their paths."""

    root: Path
    trees: list[tuple[int, Path]] = field(default_factory=list)  # (index of the task, file)
    records: list[Path] = field(default_factory=list)
    evaluations: list[Path] = field(default_factory=list)  # folders
    manifests: list[Path] = field(default_factory=list)

    def group(self, path: Path) -> str:
        """Return what tells a file's iteration and environment: its path below the root, up to a stage's folder."""
        parts = path.relative_to(self.root).parts[:-1]
        stages = ("mcts_result", "records", "test_result", "player_result", "model", "evaluations", "trees")
        end = next((i for i, part in enumerate(parts) if part in stages), len(parts))
        return "/".join(parts[:end])


def find(root: Path) -> Found:
    """Return the results below a folder; raise InputError if it is no folder, or holds none."""
    found = find_any(root)
    if not (found.trees or found.records or found.evaluations):
        raise InputError(f"RUN_DIR holds no trees, records or evaluations: {str(root)!r}")
    return found


def find_any(root: Path) -> Found:
    """Return the results below a folder, or none; raise InputError if it is no folder."""
    if not root.is_dir():
        raise InputError(f"RUN_DIR is not a folder: {str(root)!r}")
    found = Found(root)
    for name, folders, files in os.walk(root):
        folder = Path(name)
        skipped = {"verdicts", *(MODELS if "config.json" in files else ())}
        skipped |= {folder for folder in folders if folder.startswith(".")}  # journals of a run in progress
        folders[:] = sorted(set(folders) - skipped, key=natural)
        found.manifests += [folder / file for file in files if file.endswith("manifest.json")]
        if "summary.json" in files and any(map(EPISODE_FILE.fullmatch, files)):
            found.evaluations.append(folder)
            continue
        indices = {int(m[1]): folder / file for file in files if (m := NUMBERED.fullmatch(file))}
        found.trees += sorted(indices.items())
        found.records += [folder / file for file in sorted(files, key=natural) if file.endswith(".jsonl")]
    found.manifests.sort(key=lambda path: natural(str(path)))
    return found


def natural(text: str) -> list[tuple[int, str]]:
    """Return the sort key in which numbers count by value, and `before` comes before `after`."""
    text = text.replace("before", "a_before").replace("after", "b_after")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in NUMBER.split(text)]
