"""Numbers and tables as text: columns of fixed width, and Markdown. It knows no measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

NONE = "-"  # text of what is missing
BRACKETS = " [{}, {}]"
Interval = Sequence[float] | None
Show = Callable[[Any], str]


def number(
    value: float | None,
    interval: Interval = None,
    spec: str = ".2f",
    factor: float = 1,
    unit: str = "",
    ends: str = " ({} to {})",
) -> str:
    """Return a value with its interval, such as `2.31 (2.10 to 2.52)`; NONE without a value.

    Args:
        spec: format of all three numbers, which are multiplied by `factor` first.
        unit: stands after the value alone.
    """
    if value is None:
        return NONE
    low_high = ends.format(*(f"{factor * end:{spec}}" for end in interval)) if interval else ""
    return f"{factor * value:{spec}}{unit}{low_high}"


def percent(value: float | None, interval: Interval = None) -> str:
    """Return a share in percent with its interval, such as `46.0 % (40.1 to 52.0)`."""
    return number(value, interval, ".1f", 100, " %")


def points(value: float, interval: Interval = None) -> str:
    """Return a difference in percentage points with its interval, such as `+3.2 (-1.0 to +7.4)`."""
    return number(value, interval, "+z.1f", 100)


def signed(value: float, interval: Interval = None) -> str:
    """Return a difference with its sign and interval, such as `-1.20 (-1.50 to -0.90)`."""
    return number(value, interval, "+z.2f")


def counts_text(counts: Mapping[str, float]) -> str:
    """Return the counts that are not 0, such as `286 centric, 135 good`."""
    return ", ".join(f"{n:.0f} {name}" for name, n in counts.items() if n) or NONE


def describe_reasons(dropped: Mapping[str, int]) -> str:
    """Return the drop reasons with their counts, most frequent first, such as `12 duplicate, 3 cap`."""
    return ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items(), key=lambda x: -x[1])) or "none"


def text_row(first: int, *widths: int) -> Callable[[str, Iterable[str]], str]:
    """Return a function that makes a line from a row's name and its cells, which are right-aligned.

    Args:
        first: characters of the name.
        widths: characters of the cells; the last holds for all further ones.
    """

    def row(name: str, cells: Iterable[str]) -> str:
        sized = (f"{cell:>{widths[min(i, len(widths) - 1)]}}" for i, cell in enumerate(cells))
        return f"{name:{first}}" + "".join(sized)

    return row


def shown(rows: Iterable[tuple[str, Show]], columns: Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each row's name and cells, NONE where a column is None. Rows that hold nothing else are left out."""
    for name, show in rows:
        cells = [NONE if column is None else show(column) for column in columns]
        if set(cells) - {NONE}:
            yield name, cells


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown, its first column left-aligned; an empty text without rows."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    if not body:
        return ""
    ruler = "|---|" + "---:|" * (len(header) - 1)
    return "\n".join([f"| {' | '.join(header)} |", ruler, *body])


def markdown_section(title: str, table: str, note: str, picture: str | None = None) -> str:
    """Return a heading, a table, a note on it and its figure; an empty text if the table is empty."""
    return f"## {title}\n\n{table}\n\n{note}\n{picture or ''}" if table else ""
