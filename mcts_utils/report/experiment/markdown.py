"""Pieces of experiment.md: GitHub's Markdown tables, sections, and numbers as text. It knows no measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
