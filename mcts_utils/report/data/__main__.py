"""Statistics of the training data, one column per iteration and environment, as in Table 1 of the paper and more.

    python -m mcts_utils.report.data runs/demo_seed_0
    python -m mcts_utils.report.data runs/experiment/seed_0/agent_r --output data.json

A FOLDER holds records itself, or has folders `records` up to three levels below it (iteration_1/records,
iteration_1/textcraft/records). Reads the JSONL line by line; the numbers of the search and
the drop reasons come from the manifests.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.report.common import print_report, replay_check
from mcts_utils.report.data.row_stats import Tally, row_facts
from mcts_utils.report.data.table import table
from mcts_utils.revision.options import KINDS
from mcts_utils.storage.files import iter_jsonl
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.manifest import Manifest, SearchCounts, TrainingCounts
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.storage.layout import manifest_path
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

FILE = re.compile(rf"(.+)_({'|'.join(KINDS)})\.jsonl")
PATTERNS = ("", "records/", "*/records/", "*/*/records/", "*/*/*/records/")
SEARCHED = ("trees", "failed", "leaves", "mean_leaf_reward")  # counts of a search's manifest
STAGE_COUNTS = "trees trees_failed trees_partial paths good_paths pairs written dropped".split()


def record_files(folder: Path) -> list[tuple[Path, str, dict[str, Path]]]:
    """Return (records folder, task, data type -> file) of all records below a folder, iterations in order.

    Raises:
        InputError: the folder has no records; the message names it.
    """
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for pattern in PATTERNS:
        for path in sorted(folder.glob(f"{pattern}*.jsonl")):
            if match := FILE.fullmatch(path.name):
                found.setdefault((path.parent, match[1]), {})[match[2]] = path
    if not found:
        raise InputError(f"{folder}: no <task>_<data type>.jsonl there, nor in folders `records` below it")
    order = sorted(found, key=lambda key: (_natural_order(str(key[0])), key[1]))
    return [(parent, task, found[parent, task]) for parent, task in order]


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts iteration_10 after iteration_9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def tally_file(path: Path) -> Tally:
    """Add up the rows of a file; raise InputError naming the row that is no record of stage 2."""
    tally = Tally()
    for number, row in iter_jsonl(path):
        where = f"{path} row {number}: not a record of stage 2"
        tally.add(row_facts(parsed(row, RecordRow, where), where))
    return tally


def column(folder: Path, task: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the statistics of one iteration of one environment."""
    tallies = {data_type: tally_file(path) for data_type, path in files.items()}
    manifests = {data_type: _manifest(manifest_path(folder, task, data_type)) for data_type in files}
    counts = {name: one.counts for name, one in manifests.items() if one}
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
                "stage": {key: counts[name].get(key) for key in STAGE_COUNTS} if name in counts else None,
            }
            for name, tally in sorted(tallies.items(), key=lambda item: list(KINDS).index(item[0]))
        },
    }


def _manifest(path: Path) -> Manifest | None:
    """Return the manifest, or None without one: the rows can be counted all the same."""
    return read_manifest(path) if path.is_file() else None


def _searched(folder: Path, manifests: Sequence[Manifest]) -> dict[str, Any] | None:
    """Return stage 1's counts for the trees of these records, or None if its manifest is not beside the trees."""
    for manifest in manifests:
        trees = [entry.path for entry in manifest.inputs]
        search = _manifest((folder / trees[0]).parent / "manifest.json") if trees else None
        if search:
            counts = search.counts_as(SearchCounts)
            return {name: getattr(counts, name) for name in SEARCHED}
    return None


def _tokens(folder: Path) -> dict[str, Any] | None:
    """Return kind -> mean tokens per row from the training on these records; None if it used others as well."""
    for model in (folder.parent / "model", folder.parent.parent / "model"):
        manifest = _manifest(model / "manifest.json")
        if manifest is None:
            continue
        rows = [model / entry.path for entry in manifest.inputs if entry.path.endswith(".jsonl")]
        if rows and all(file.parent.resolve() == folder.resolve() for file in rows):
            per_kind = manifest.counts_as(TrainingCounts).rows
            return {
                kind: {name: count / per_kind[kind] for name, count in found.items()}
                for kind, found in manifest.tokens.items()
                if per_kind.get(kind)
            }
    return None


def summarise(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the statistics of all folders, one column per iteration and environment."""
    return {"columns": [column(*files) for folder in folders for files in record_files(folder)]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="records, or folders with records")
    add("--output", type=Path, help="write everything as JSON")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Print the table and write the JSON file."""
    summary = summarise(args.folders)
    print_report(table(summary), summary, args.output)


if __name__ == "__main__":
    sys.exit(main())
