"""Parts of the experiment's figures: axes, lines with intervals, PNG bytes. It knows no measure and writes no files.

The colours are those of Okabe and Ito, which are safe for colour-blind readers; every arm has a marker of its own too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mcts_utils.report.experiment.labels import Summary, drawn_arms, label, last_iteration, start_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#7F7F7F"  # the model that all arms start from
ShownValue = tuple[float, Sequence[float] | None]  # a value and its interval
ValueReader = Callable[[Mapping[str, Any]], ShownValue | None]


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def new_figure(
    width: float, height: float, columns: int = 1, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row, without the right and upper frame."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#E4E4E4", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def draw_lines(ax: Axes, summary: Summary, read: ValueReader) -> bool:
    """Draw a value by iteration with one line per arm, the model that all start from at 0; return True if one is drawn.

    An arm has the same colour and marker in every figure.
    """
    arms = drawn_arms(summary)
    first, row = start_of(summary)
    base = read(row) if row else None
    drawn = False
    for i, arm in enumerate(arms):
        shift = 0.06 * (i - (len(arms) - 1) / 2)  # so that intervals do not overlap
        rows = summary["arms"][arm]["iterations"]
        kept = [(row["iteration"] + shift, shown) for row in rows if (shown := read(row))]
        if not kept:
            continue
        joined, colour = ([(0.0, base)] if base else []) + kept, COLOURS[i % len(COLOURS)]
        xs, ys = [x for x, _ in joined], [y[0] for _, y in joined]
        ax.plot(xs, ys, color=colour, linewidth=1.3, alpha=0.75)
        errorbars(ax, kept, color=colour, marker=MARKERS[i % len(MARKERS)], markersize=6, label=label(arm))
        drawn = True
    if drawn and base:
        errorbars(ax, [(0.0, base)], color=GREY, marker="o", label=label(first))
    return drawn


def errorbars(ax: Axes, points: Sequence[tuple[float, ShownValue]], **options: Any) -> None:
    """Draw markers with their intervals."""
    xs, ys = [x for x, _ in points], [y[0] for _, y in points]
    reach = list(zip(*(error_bar(shown) for _, shown in points), strict=True))
    ax.errorbar(xs, ys, yerr=reach, linestyle="none", capsize=2.5, **options)


def error_bar(shown: ShownValue) -> tuple[float, float]:
    """Return the lengths of the interval below and above the value; 0 without an interval."""
    value, interval = shown
    return (max(0.0, value - interval[0]), max(0.0, interval[1] - value)) if interval else (0.0, 0.0)


def value_reader(value: str, interval: str, scale: float = 1, length: int | None = None) -> ValueReader:
    """Return a function that reads a value and its interval from a row.

    Args:
        value, interval: keys of the row.
        scale: factor of the value and the interval.
        length: key of the value and the interval if the row lists them by length of the repeated sequence.
    """

    def read(row: Mapping[str, Any]) -> ShownValue | None:
        found, ci95 = row[value], row[interval]
        if length is not None:
            found, ci95 = found[str(length)], ci95[str(length)]
        return None if found is None else (scale * found, [scale * end for end in ci95] if ci95 else None)

    return read


def by_iteration(ax: Axes, summary: Summary) -> None:
    """Set the horizontal axis to the iterations; the vertical one begins at 0 and ends above the highest mark."""
    last = last_iteration(summary)
    ax.set_xticks(range(last + 1), [label(start_of(summary)[0]), *map(str, range(1, last + 1))])
    ax.set_xlabel("iteration")
    ax.set_xlim(-0.4, last + 0.4)
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])


def headline(figure: Figure, text: str) -> None:
    """Put a title over all axes."""
    figure.suptitle(text, fontsize=10, x=0.01, horizontalalignment="left")
