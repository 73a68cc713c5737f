"""The comparison tables of experiment.md, from the experiment's summary alone. It computes no statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.experiment.cells import RECOVERY, REPEATS, SUCCESS
from mcts_utils.report.experiment.contrasts import UNTRAINED
from mcts_utils.report.experiment.labels import Summary, label, last_iteration, seeds_text, source_note
from mcts_utils.tables import NONE, markdown_section, markdown_table, points, signed

Row = Mapping[str, Any]
UNITS = {SUCCESS: "solved goals", RECOVERY: "recovered prefixes", REPEATS: "repeats an episode"}
REPEATS_HEADER = ("difference", "iteration", "repeats (95 %)", "by seed", "p")
HEADER = (*REPEATS_HEADER[:2], "points (95 %)", "by seed", "p", "detectable", "5 points settled", "verdict")


def comparisons(summary: Summary, family: str, title: str, picture: str | None = None) -> list[str]:
    """Return one section for each rate, then one for the repeats; the picture goes into the first."""
    sections = []
    for measure in (SUCCESS, RECOVERY, REPEATS):
        rows = [row for row in summary["comparisons"] if (row["family"], row["measure"]) == (family, measure)]
        table = markdown_table(
            REPEATS_HEADER if measure == REPEATS else HEADER,
            [comparison_row(row, summary["seeds"]) for row in rows],
        )
        note = differences_note(summary, rows, in_full=measure == SUCCESS)
        sections.append(markdown_section(f"{title}: {UNITS[measure]}", table, note, picture))
        picture = None
    return sections


def comparison_row(row: Row, planned: Sequence[int]) -> list[str]:
    """Return the cells of one comparison: rates in points, repeats as a count; a seed that one arm lacks is a dash."""
    rate = row["measure"] != REPEATS
    text = points if rate else signed
    cells = [f"{label(row['after'])} - {label(row['before'])}", str(row["iteration"])]
    cells += [text(row["difference"], row["difference_ci95"])]
    gaps = [row["by_seed"].get(str(seed)) for seed in planned]
    cells += [" / ".join(NONE if gap is None else text(gap) for gap in gaps), f"{row['p_holm']:.2g}"]
    if rate:
        cells.append(f"{100 * row['detectable']:.1f}" if row["detectable"] is not None else NONE)
        cells += ["yes" if row["settles_worth"] else "no", row["verdict"]]
    return cells


def gains(summary: Summary) -> list[str]:
    """Return a section for each rate: every arm minus the untrained model, one column per iteration."""
    sections = []
    for measure in (SUCCESS, RECOVERY):
        cells = {
            (row["after"], row["iteration"]): points(row["difference"], row["difference_ci95"])
            for row in summary["comparisons"]
            if (row["family"], row["measure"]) == (UNTRAINED, measure)
        }
        iterations = range(1, last_iteration(summary) + 1)
        arms = [arm for arm in summary["arms"] if any(name == arm for name, _ in cells)]
        rows = [[label(arm), *(cells.get((arm, i), NONE) for i in iterations)] for arm in arms]
        table = markdown_table(["arm", *(f"iteration {i}, points (95 %)" for i in iterations)], rows)
        note = source_note(summary, "revise" if measure == RECOVERY else "main") + " Paired over goals."
        sections.append(markdown_section(f"Gain over the untrained model: {UNITS[measure]}", table, note))
    return sections


def differences_note(summary: Summary, rows: Sequence[Row], in_full: bool) -> str:
    """Return the note on a comparison: its source and, `in_full`, the meaning of its columns."""
    sizes = ", ".join(map(str, sorted({row["n"] for row in rows})))
    where = f"`{summary['command']}`, {seeds_text(summary['seeds'])}, n = {sizes}."
    if not in_full:
        return f"{where} Columns as above."
    return (
        f"{where} Paired over goals, mean over the seeds that both arms have (*by seed*, in this order). The interval "
        "is about other goals with these very models; *by seed* shows how far training runs lie apart. *p*: sign flips "
        "over goals, Holm over this table. *detectable*: the difference that these goals would find with 80 % power; "
        "*5 points settled*: it is 5 or less. *verdict*: by the interval; *not after Holm*: p is above 0.05."
    )
