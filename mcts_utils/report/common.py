"""Pieces of experiment.md: GitHub's Markdown tables, sections, and numbers as text. It knows no measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.storage.files import read_json
from mcts_utils.types import InputError

NONE = "-"  # a number that is not there


def section(title: str, table: str, note: str, picture: str | None = None) -> str:
    """A heading, a table, where it comes from, and its figure."""
    return f"## {title}\n\n{table}\n\n{note}\n{picture or ''}" if table else ""


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is left-aligned."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    if not body:
        return ""
    ruler = "|---|" + "---:|" * (len(header) - 1)
    return "\n".join([f"| {' | '.join(header)} |", ruler, *body])


def points(value: float, interval: Sequence[float] | None = None) -> str:
    """`+3.2 (-1.0 to +7.4)`, in percentage points."""
    low_high = f" ({100 * interval[0]:+z.1f} to {100 * interval[1]:+z.1f})" if interval else ""
    return f"{100 * value:+z.1f}{low_high}"


def signed(value: float, interval: Sequence[float] | None = None) -> str:
    """`-1.20 (-1.50 to -0.90)`."""
    low_high = f" ({interval[0]:+z.2f} to {interval[1]:+z.2f})" if interval else ""
    return f"{value:+z.2f}{low_high}"


def number(value: float | None, interval: Sequence[float] | None = None, digits: int = 2) -> str:
    """A mean with its interval."""
    if value is None:
        return NONE
    low_high = f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""
    return f"{value:.{digits}f}{low_high}"


def counts_text(counts: Mapping[str, float]) -> str:
    """`286 centric, 135 good`."""
    return ", ".join(f"{n:.0f} {name}" for name, n in counts.items() if n) or NONE


RECORDS = ("centric", "good")  # data types that a round trains on


def only(folder: Path, pattern: str) -> Path:
    """The one path that matches; a round has one task and one model.

    Raises:
        InputError: naming the folder and what is missing or ambiguous.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} files match {pattern}, not one")
    return found[0]


def records(run: Path) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """(counts, in all and by data type; seconds by stage; tokens by stage)."""
    dropped: Counter[str] = Counter()
    counts: dict[str, Any] = {"written": 0, "by_type": {}, "verdicts": {}}
    seconds, tokens = 0.0, dict[str, Any]()
    for kind in RECORDS:
        manifest = read_json(only(run, f"records/*_{kind}.manifest.json"))
        found = manifest["counts"]
        counts["by_type"][kind] = {"written": found["written"], "dropped": found["dropped"]}
        counts["written"] += found["written"]
        dropped.update(found["dropped"])
        seconds += manifest["seconds"]
        if any(found["verdicts"].values()):
            counts["verdicts"] = found["verdicts"]
            tokens["revise"] = manifest["tokens"]
    return counts | {"dropped": dict(dropped)}, {"revise": seconds}, tokens


def replay_check(run: Path) -> float | None:
    """Share of the written rows that a second execution found exact, as `path_collection.py --verify` reported."""
    rows = exact = 0
    for path in sorted(run.glob("verified*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            counts = line.rpartition(": ")[2]
            found = dict(part.rsplit(" ", 1) for part in counts.split(", ") if " " in part)
            rows, exact = rows + int(found.get("rows", 0)), exact + int(found.get("exact", 0))
    return exact / rows if rows else None


def percent(value: float | None, interval: Any = None) -> str:
    """`46.0 %`, with its interval where there is one."""
    if value is None:
        return "-"
    low_high = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * value:.1f} %{low_high}"


def describe_reasons(dropped: Mapping[str, int]) -> str:
    """`12 duplicate, 3 cap`, most frequent first."""
    return ", ".join(f"{n} {why}" for why, n in sorted(dropped.items(), key=lambda x: -x[1])) or "none"
