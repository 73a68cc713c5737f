"""Shared parts of the reports: what they find in a run's folder. It computes no measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcts_utils.storage.files import write_sealed
from mcts_utils.storage.formats.manifest import RevisionCounts
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.tables import number
from mcts_utils.types import InputError

TRAINED_TYPES = ("centric", "good")  # data types that a round trains on


def only(folder: Path, pattern: str) -> Path:
    """Return the only path that matches (a round has one task and one model); raise InputError if there is not one."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} files match {pattern}, not one")
    return found[0]


def record_counts(run: Path) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """Return (record counts, in all and by data type; seconds by stage; tokens by stage) of stage 2."""
    dropped: Counter[str] = Counter()
    counts: dict[str, Any] = {"written": 0, "by_type": {}, "verdicts": {}}
    seconds, tokens = 0.0, dict[str, Any]()
    for data_type in TRAINED_TYPES:
        manifest = read_manifest(only(run, f"records/*_{data_type}.manifest.json"))
        found = manifest.counts_as(RevisionCounts)
        counts["by_type"][data_type] = {"written": found.written, "dropped": found.dropped}
        counts["written"] += found.written
        dropped.update(found.dropped)
        seconds += manifest.seconds
        if any(found.verdicts.values()):
            counts["verdicts"] = found.verdicts
            tokens["revise"] = manifest.tokens
    return counts | {"dropped": dict(dropped)}, {"revise": seconds}, tokens


def replay_check(run: Path) -> float | None:
    """Return the share of records whose second execution was exact, as `path_collection.py --verify` printed it.

    None if no verified*.txt in the folder counts a row.
    """
    rows = exact = 0
    for path in sorted(run.glob("verified*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            counts = line.rpartition(": ")[2]
            found = dict(part.rsplit(" ", 1) for part in counts.split(", ") if " " in part)
            rows, exact = rows + int(found.get("rows", 0)), exact + int(found.get("exact", 0))
    return exact / rows if rows else None


def print_report(text: str, numbers: Any, output: Path | None) -> None:
    """Print a report; write its numbers to the JSON file `output`, if there is one, and print its path."""
    print(text)
    if output:
        write_sealed(output, numbers)
        print(output)


def paired_points(found: Mapping[str, Any]) -> str:
    """Return the difference of metrics.paired_differences, such as `+3.2 points (-1.0 to +7.4)`."""
    low_high = found["difference_ci95"] or (found["difference"],) * 2
    return number(found["difference"], low_high, "+.1f", 100, " points")
