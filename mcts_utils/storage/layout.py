"""Where results lie: one function names each file, for writer, reader and resume alike."""

from __future__ import annotations

import re
from pathlib import Path

from mcts_utils.types import (
    InputError,
)


def records_path(output_dir: str | Path, task: str, data_type: str) -> Path:
    """The records of one data type."""
    return Path(output_dir, f"{safe_name(task)}_{data_type}.jsonl")


def manifest_path(output_dir: str | Path, task: str, data_type: str) -> Path:
    """The manifest beside them."""
    return records_path(output_dir, task, data_type).with_suffix(".manifest.json")


def verdicts_path(output_dir: str | Path, index: int) -> Path:
    """The verdicts on one tree's nodes, shared by all data types of an output folder."""
    return Path(output_dir, "verdicts", f"search_results_{index}.json")


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
