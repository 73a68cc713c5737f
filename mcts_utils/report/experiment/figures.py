"""The experiment's figures as PNG bytes, from its summary alone. It computes no statistics and writes no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mcts_utils.evaluation.metrics.behaviour import LOOP_LENGTHS
from mcts_utils.report.experiment.cells import RECOVERY, SUCCESS
from mcts_utils.report.experiment.contrasts import ABLATIONS, RELEVANT_DIFFERENCE
from mcts_utils.report.experiment.labels import Summary, drawn_arms, label, last_iteration, seeds_text
from mcts_utils.report.experiment.plots import (
    COLOURS,
    GREY,
    ShownValue,
    ValueReader,
    by_iteration,
    draw_lines,
    error_bar,
    headline,
    new_figure,
    png,
    value_reader,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_all(summary: Summary) -> dict[str, bytes]:
    """Return file name -> PNG; a figure without any number is left out."""
    figures = {
        "figure_3.png": solved(summary),
        "table_3.png": recovered(summary),
        "figure_4.png": repeats_by_length(summary),
        "figure_5.png": revision_lengths(summary),
        "ablation.png": ablation(summary),
    }
    return {name: png(figure) for name, figure in figures.items() if figure is not None}


def counted(summary: Summary, key: str, unit: str) -> str:
    """Return the sizes and seeds of the drawn arms, such as `n = 198 goals, seeds 0, 1, 2`."""
    rows = [row for arm in drawn_arms(summary) for row in summary["arms"][arm]["iterations"]]
    sizes = sorted({row[key] for row in rows if row[key]})
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "0"
    fewer = " (some cells fewer)" if len({tuple(row["seeds"]) for row in rows if row["seeds"]}) > 1 else ""
    return f"n = {size} {unit}, {seeds_text(seeds)}{fewer}"


def solved(summary: Summary) -> Figure | None:
    """Draw the share of solved goals by iteration (Figure 3)."""
    read = value_reader("success_rate", "ci95", 100)
    return rate(summary, read, "Solved goals, % (Figure 3)", "n", "goals")


def recovered(summary: Summary) -> Figure | None:
    """Draw the share of failed prefixes that end with the full reward (Table 3)."""
    read = value_reader("recovery_rate", "recovery_ci95", 100)
    return rate(summary, read, "Recovered failed prefixes, % (Table 3)", "recovery_n", "prefixes")


def rate(summary: Summary, read: ValueReader, title: str, key: str, unit: str) -> Figure | None:
    """Draw a rate by iteration, in percent."""
    figure, (ax,) = new_figure(7.6, 4.2)
    if not draw_lines(ax, summary, read):
        return None
    by_iteration(ax, summary)
    ax.set_ylabel("%")
    ax.set_title(f"{title}, 95 % intervals\n{counted(summary, key, unit)}", fontsize=10, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def repeats_by_length(summary: Summary) -> Figure | None:
    """Draw the repeated action sequences per episode, one panel with its own scale for each length (Figure 4)."""
    figure, axes = new_figure(9.0, 4.8, 3, rows=2)
    drawn = False
    for ax, length in zip(axes, LOOP_LENGTHS, strict=False):
        drawn |= draw_lines(ax, summary, value_reader("loops", "loops_ci95", length=length))
        by_iteration(ax, summary)
        ax.set_title(f"sequences of {length} action{'s' if length > 1 else ''}", fontsize=10, loc="left")
        ax.set_ylabel("repeats an episode")
    if not drawn:
        return None
    for ax in axes[len(LOOP_LENGTHS) :]:
        ax.set_axis_off()
    axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center left", frameon=False)
    headline(figure, f"Repeated action sequences (Figure 4), {counted(summary, 'n', 'goals')}")
    return figure


def revision_lengths(summary: Summary) -> Figure | None:
    """Draw the positions of the judge's first error on bad paths and of the first refused action (Figure 5)."""
    figure, (left, right) = new_figure(9.8, 4.0, 2)
    if not draw_lines(right, summary, value_reader("revision_length", "revision_length_ci95")):
        return None
    draw_lines(left, {**summary, "base": None}, judged)
    for ax in (left, right):
        by_iteration(ax, summary)
        ax.set_ylabel("actions from the start")
    left.set_xticks(range(1, last_iteration(summary) + 1))
    left.set_xlim(left=0.6)
    left.set_title("First step judged bad, training paths", fontsize=10, loc="left")
    right.set_title("First refused action, failed test episodes", fontsize=10, loc="left")
    text = counted(summary, "revision_length_n", "goals with one")
    headline(figure, f"Revision length (Figure 5); test: {text}")
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    return figure


def judged(row: Mapping[str, Any]) -> ShownValue | None:
    """Read the mean revision length of the iteration's records, whose trees the previous model searched."""
    mean = row["made"]["judged_revision_length"]["mean"]
    return None if mean is None else (mean, None)


def ablation(summary: Summary) -> Figure | None:
    """Draw Agent-R minus each ablation at iteration 1, in percentage points."""
    rows = [row for row in summary["comparisons"] if row["family"] == ABLATIONS and row["iteration"] == 1]
    arms = list(dict.fromkeys(row["before"] for row in rows))
    if not arms:
        return None
    figure, axes = new_figure(9.2, 1.5 + 0.55 * len(arms), 2, sharey=True)
    names = {SUCCESS: "solved goals", RECOVERY: "recovered prefixes"}
    for ax, (measure, name) in zip(axes, names.items(), strict=True):
        kept = [row for row in rows if row["measure"] == measure]
        difference_axis(ax, kept, arms)
        seeds = sorted({seed for row in kept for seed in row["seeds"]})
        size = f": n = {kept[0]['n']}, {seeds_text(seeds)}" if kept else ""
        ax.set_title(f"{name}{size}", fontsize=10, loc="left")
    axes[0].set_yticks(range(len(arms)), [label(arm) for arm in reversed(arms)])
    headline(figure, "Agent-R against itself with one thing changed, iteration 1 (grey: less than 5 points)")
    return figure


def difference_axis(ax: Axes, rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> None:
    """Draw one difference per line, from the top in the order of `arms`; circles are single seeds."""
    ax.axvspan(-100 * RELEVANT_DIFFERENCE, 100 * RELEVANT_DIFFERENCE, color="#EFEFEF", zorder=0)
    ax.axvline(0, color="#555555", linewidth=1)
    for row in rows:
        height = len(arms) - 1 - arms.index(row["before"])
        x, interval = 100 * row["difference"], row["difference_ci95"]
        low, high = error_bar((x, [100 * end for end in interval] if interval else None))
        ax.errorbar([x], [height], xerr=[[low], [high]], color=COLOURS[0], marker="o", capsize=3)
        seeds = [100 * gap for gap in row["by_seed"].values()]
        ax.plot(seeds, [height - 0.22] * len(seeds), "o", markersize=4, markerfacecolor="none", color=GREY)
    ax.grid(axis="y", visible=False)
    ax.set_ylim(-0.6, len(arms) - 0.4)
    ax.set_xlabel("Agent-R minus that, points (circles: seeds)")
