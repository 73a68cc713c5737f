"""Name the files and folders of results: one function a file, for writer, reader and resume alike.

It reads and writes nothing but a folder's list of files.
"""

from __future__ import annotations

import re
from pathlib import Path

from mcts_utils.types import InputError

TREE, VERDICTS, EPISODE = "search_results", "verdicts", "episode"  # how the files' names begin
EARLIER = TREE  # verdicts and episodes were named as trees are
UNSAFE = re.compile(r"[^A-Za-z0-9._=+@-]+")


def safe_name(name: str) -> str:
    """Return a model's name as one folder name: `org/model:7b` -> `org_model_7b`.

    Raises:
        InputError: nothing usable is left (empty, ".", "..").
    """
    safe = UNSAFE.sub("_", name)
    if not safe.strip("._"):
        raise InputError(f"MODEL_NAME cannot name a folder: {name!r}")
    return safe


def tree_folder(root: str | Path, task: str, model: str) -> Path:
    """Return the folder of one model's trees and their manifest (stage 1)."""
    return Path(root, safe_name(task), safe_name(model))


def tree_path(root: str | Path, task: str, model: str, index: int) -> Path:
    """Return the path of one tree (stage 1)."""
    return tree_folder(root, task, model) / f"{TREE}_{index}.json"


def tree_files(folder: str | Path, flag: str) -> dict[int, Path]:
    """Return the files search_results_<index>.json of a folder: index -> path, in order of the index.

    Args:
        flag: the command line flag that named the folder; errors begin with it.

    Raises:
        InputError: there is no such folder, or no such file in it.
    """
    return _numbered(folder, flag, TREE)


def verdict_files(folder: str | Path, flag: str) -> dict[int, Path]:
    """Return the files of verdicts on trees in a folder, of earlier versions too, as `tree_files` does."""
    return _numbered(folder, flag, EARLIER, VERDICTS)


def _numbered(folder: str | Path, flag: str, *names: str) -> dict[int, Path]:
    """Return index -> NAME_<index>.json; of two files with one index, that of the later name."""
    if not Path(folder).is_dir():
        raise InputError(f"{flag} is not a folder: {str(folder)!r}")
    found: dict[int, Path] = {}
    for name in names:
        pattern = re.compile(rf"{name}_(\d+)\.json")
        found |= {int(m[1]): path for path in Path(folder).iterdir() if (m := pattern.fullmatch(path.name))}
    if not found:
        raise InputError(f"{flag} has no {names[-1]}_<idx>.json: {str(folder)!r}")
    return dict(sorted(found.items()))


def records_path(output_dir: str | Path, task: str, data_type: str) -> Path:
    """Return the path of the records of one data type (stage 2)."""
    return Path(output_dir, f"{safe_name(task)}_{data_type}.jsonl")


def manifest_path(output_dir: str | Path, task: str, data_type: str) -> Path:
    """Return the path of the manifest beside these records."""
    return records_path(output_dir, task, data_type).with_suffix(".manifest.json")


def spent_path(manifest: Path) -> Path:
    """Return the path of what was paid for, beside a stage's manifest."""
    return manifest.with_name(manifest.name.replace("manifest", "spent"))


def verdicts_path(output_dir: str | Path, index: int, sample: int = 0, judge: str = "") -> Path:
    """Return the path of the verdicts on one tree's nodes, or on one episode's steps.

    All data types of stage 2 share those of their output folder. With `judge`, they are in a folder of that name.
    """
    return Path(output_dir, "verdicts", judge and safe_name(judge), _sample_name(VERDICTS, index, sample))


def run_folder(root: str | Path, task: str, model: str, model_type: str) -> Path:
    """Return the folder of the episodes, the summary and the manifest of one evaluation (stage 4)."""
    return tree_folder(root, task, f"{model}_{model_type}")


def episode_path(folder: str | Path, index: int, sample: int = 0) -> Path:
    """Return the path of a task's episode number `sample`; number 0 is named as a task's only episode is."""
    return Path(folder, _sample_name(EPISODE, index, sample))


def _sample_name(name: str, index: int, sample: int) -> str:
    return f"{name}_{index}_s{sample}.json" if sample else f"{name}_{index}.json"


def existing(path: Path) -> Path:
    """Return the path of verdicts or of an episode, under its earlier name if only that file is there."""
    earlier = path.with_name(f"{EARLIER}{path.name.removeprefix(VERDICTS).removeprefix(EPISODE)}")
    return earlier if earlier.exists() and not path.exists() else path
