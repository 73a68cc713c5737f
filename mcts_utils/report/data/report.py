"""Statistics of the training data, one column per iteration and environment, as in Table 1 of the paper and beyond.

    python -m mcts_utils.report.data runs/demo_seed_0
    python -m mcts_utils.report.data runs/experiment/seed_0/agent_r --output data.json

A FOLDER holds records itself, or has folders `records` up to three levels below it (iteration_1/records,
iteration_1/textcraft/records). Reads the JSONL line by line; what was searched and dropped comes from the manifests.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.report.common import replay_check
from mcts_utils.report.data.row_stats import Tally, facts
from mcts_utils.report.data.table import table
from mcts_utils.revision.builder import KINDS
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.layout import manifest_path
from mcts_utils.types import InputError

FILE = re.compile(rf"(.+)_({'|'.join(KINDS)})\.jsonl")
PLACES = ("", "records/", "*/records/", "*/*/records/", "*/*/*/records/")
SEARCHED = ("trees", "failed", "leaves", "mean_leaf_reward")  # what a search's manifest says
COUNTED = ("trees", "trees_failed", "trees_partial", "paths", "good_paths", "pairs", "written", "dropped")


def record_files(folder: Path) -> list[tuple[Path, str, dict[str, Path]]]:
    """(records folder, task, data type -> file) of everything below a folder, iterations in order.

    Raises:
        InputError: naming the folder without records.
    """
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for place in PLACES:
        for path in sorted(folder.glob(f"{place}*.jsonl")):
            if match := FILE.fullmatch(path.name):
                found.setdefault((path.parent, match[1]), {})[match[2]] = path
    if not found:
        raise InputError(f"{folder}: no <task>_<data type>.jsonl there, nor in folders `records` below it")
    order = sorted(found, key=lambda key: (_natural(str(key[0])), key[1]))
    return [(parent, task, found[parent, task]) for parent, task in order]


def _natural(name: str) -> list[tuple[int, str]]:
    """So that iteration_10 comes behind iteration_9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def stream(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of a JSONL file, one line in memory at a time.

    Raises:
        InputError: naming the file and the row that is not a JSON object.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise InputError(f"{path} row {number}: not a JSON object: {str(row)[:60]!r}")
                yield number, row
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{path} row {number}: not JSON ({' '.join(str(error).split())[:80]})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def tallied(path: Path) -> Tally:
    """The rows of a file, added up.

    Raises:
        InputError: naming the file and the row.
    """
    tally = Tally()
    for number, row in stream(path):
        try:
            tally.add(facts(row))
        except InputError as error:
            raise InputError(f"{path} row {number}: {error}") from error
    return tally


def column(folder: Path, task: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """The statistics of one iteration of one environment."""
    tallies = {data_type: tallied(path) for data_type, path in files.items()}
    manifests = {data_type: _manifest(manifest_path(folder, task, data_type)) for data_type in files}
    counts = {name: one["counts"] for name, one in manifests.items() if one}
    return {
        "folder": str(folder),
        "task": task,
        "searched": _searched(folder, [one for one in manifests.values() if one]),
        "tasks_with_records": len(set().union(*(tally.tasks for tally in tallies.values()))),
        "rows": sum(tally.rows for tally in tallies.values()),
        "replay_check": replay_check(folder.parent),
        "verdicts": next((c["verdicts"] for c in counts.values() if any(c["verdicts"].values())), None),
        "tokens": _tokens(folder),
        "kinds": {
            KINDS[name]: {
                **tally.summary(),
                "stage": {key: counts[name].get(key) for key in COUNTED} if name in counts else None,
            }
            for name, tally in sorted(tallies.items(), key=lambda item: list(KINDS).index(item[0]))
        },
    }


def _manifest(path: Path) -> dict[str, Any] | None:
    """None where there is none: the rows can be counted all the same."""
    return read_json(path) if path.exists() else None


def _searched(folder: Path, manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What stage 1 says of the trees that the records were made of, if its manifest is still beside them."""
    for manifest in manifests:
        trees = [entry["path"] for entry in manifest["inputs"]]
        path = (folder / trees[0]).parent / "manifest.json" if trees else folder
        if path.is_file():
            counts = read_json(path)["counts"]
            return {name: counts.get(name) for name in SEARCHED}
    return None


def _tokens(folder: Path) -> dict[str, Any] | None:
    """Tokens a row by kind, from the training on these records; None where it had others beside them."""
    for model in (folder.parent / "model", folder.parent.parent / "model"):
        path = model / "manifest.json"
        manifest = read_json(path) if path.is_file() else {}
        rows = [
            model / entry["path"] for entry in manifest.get("inputs", ()) if entry["path"].endswith(".jsonl")
        ]
        if rows and all(file.parent.resolve() == folder.resolve() for file in rows):
            per_kind = manifest["counts"]["rows"]
            return {
                kind: {name: count / per_kind[kind] for name, count in found.items()}
                for kind, found in manifest["tokens"].items()
                if per_kind.get(kind)
            }
    return None


def summarise(folders: Sequence[Path]) -> dict[str, Any]:
    """All columns.

    Raises:
        InputError: naming the folder, file or row that cannot be used.
    """
    found = [place for folder in folders for place in record_files(folder)]
    return {"columns": [column(*place) for place in found]}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="records, or folders with records"
    )
    flags.add_argument("--output", type=Path, help="write everything as JSON")
    args = flags.parse_args(argv)
    try:
        summary = summarise(args.folders)
        print(table(summary))
        if args.output:
            write_json(args.output, summary)
            print(args.output)
    except InputError as error:
        print(f"data: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
