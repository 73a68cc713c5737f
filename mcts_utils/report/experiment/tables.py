"""The text of experiment.md in GitHub's Markdown, from the experiment's summary alone. It computes no statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcts_utils.evaluation.metrics import LOOP_LENGTHS
from mcts_utils.report.experiment.comparison_tables import comparisons, gains
from mcts_utils.report.experiment.contrasts import ABLATIONS, ARMS, REHEARSED
from mcts_utils.report.experiment.labels import (
    Summary,
    drawn_arms,
    label,
    last_iteration,
    listed_arms,
    seeds_text,
    source_note,
)
from mcts_utils.tables import NONE, counts_text, markdown_section, markdown_table, number, percent

Row = Mapping[str, Any]


def document(summary: Summary, figures: Sequence[str]) -> str:
    """Return the text of experiment.md. `figures`: names of the files beside it."""
    pictures = {name.removesuffix(".png"): f"\n![{name}]({name})\n" for name in figures}
    sections = [
        heading(summary),
        *rate_sections(summary, pictures),
        *comparisons(summary, ARMS, "Agent-R against the other arms"),
        *comparisons(summary, ABLATIONS, "Agent-R with one thing changed", pictures.get("ablation")),
        *comparisons(summary, REHEARSED, "Agent-R, rehearsed, against the other arms"),
        *gains(summary),
        *behaviour_sections(summary, pictures),
        markdown_section("Data by arm and iteration (Table 1)", data(summary), means_note(summary)),
        markdown_section("Tokens and seconds", costs(summary), sums_note(summary)),
        missing(summary),
    ]
    return "\n".join(section for section in sections if section)


def rate_sections(summary: Summary, pictures: Mapping[str, str]) -> list[str]:
    """Return the sections on solved goals and recovered prefixes."""
    main, revise = source_note(summary, "main"), source_note(summary, "revise")
    return [
        markdown_section(
            "Solved goals by iteration (Figure 3)",
            by_iteration(summary, rate_cell("success_rate", "ci95")),
            f"{main} Percent, 95 % interval over goals.",
            pictures.get("figure_3"),
        ),
        markdown_section(
            "Recovered failed prefixes by iteration (Table 3)",
            by_iteration(summary, rate_cell("recovery_rate", "recovery_ci95")),
            f"{revise} The prefixes are the untrained model's failures, cut at a random step.",
            pictures.get("table_3"),
        ),
        markdown_section("Solved goals by kind of goal", kinds(summary), main),
    ]


def behaviour_sections(summary: Summary, pictures: Mapping[str, str]) -> list[str]:
    """Return the sections on repeated actions and revision length."""
    main = source_note(summary, "main")
    return [
        markdown_section(
            "Repeated action sequences of an episode, by length (Figure 4)",
            repeats(summary),
            f"{main} A sequence counts where it is taken again right after itself.",
            pictures.get("figure_4"),
        ),
        markdown_section(
            "Revision length (Figure 5)",
            revision(summary),
            f"{main} *judged*: actions up to the first step of a bad path that was called bad, over the revision"
            " records of the iteration; the model before it searched, and the untrained model judged where the arm does"
            " not say otherwise. The paper's measure is nearest to this one. *refused*:"
            " actions up to the first refused one, over failed test episodes that have one.",
            pictures.get("figure_5"),
        ),
    ]


def heading(summary: Summary) -> str:
    """Return the heading: the command, the code revisions, the cells and the protocols."""
    code = summary["code_revisions"]
    used = ", ".join(f"`{name}` ({n} manifests)" for name, n in code.items()) or "unknown"
    lines = [
        "# The experiment's numbers",
        "",
        f"Made by `{summary['command']}`, which ends with `python -m mcts_utils.report.experiment`. Code: {used}"
        + (" - not one revision." if len(code) > 1 else "."),
        f"Cells finished: {summary['cells']['finished']} of {summary['cells']['planned']} "
        f"(arm, seed, iteration), {seeds_text(summary['seeds'])}.",
    ]
    for mode, protocol in summary["protocols"].items():
        lines.append(
            f"Mode {mode}: {protocol['task']}, temperature {protocol['temperature']:g}, at most "
            f"{protocol['max_steps']} steps, panel `{protocol['panel'][:16]}`."
        )
    lines.append(f"`{NONE}`: not there. Where a cell has fewer seeds than planned, it names them.")
    return "\n".join(lines) + "\n"


def rate_cell(value: str, interval: str) -> Callable[[Row, Sequence[int]], str]:
    """Return a function (row, planned seeds) that formats a rate; it names the seeds if some are missing."""

    def cell(row: Row, planned: Sequence[int]) -> str:
        if row[value] is None:
            return NONE
        seeds = row["recovery_seeds"] if value == "recovery_rate" else row["seeds"]
        fewer = f", {seeds_text(seeds)}" if planned and list(seeds) != list(planned) else ""
        return percent(row[value], row[interval]) + fewer

    return cell


def by_iteration(summary: Summary, cell: Callable[[Row, Sequence[int]], str]) -> str:
    """Return a table with one line per arm and one column per iteration, the untrained model first."""
    last = last_iteration(summary)
    base = cell(summary["base"], ()) if summary["base"] else NONE
    rows = []
    for arm in listed_arms(summary):
        found = [cell(row, summary["seeds"]) for row in summary["arms"][arm]["iterations"]]
        rows.append([label(arm), base, *found, *[NONE] * (last - len(found))])
    return markdown_table(["arm", "untrained", *(f"iteration {i}" for i in range(1, last + 1))], rows)


def kinds(summary: Summary) -> str:
    """Return a table of success by kind of goal (crafting depth), for the arms that the figures show."""
    drawn = drawn_arms(summary)
    rows = [("base", NONE, summary["base"])] if summary["base"] else []
    rows += [(arm, str(row["iteration"]), row) for arm, row in arm_rows(summary) if arm in drawn]
    sizes = {kind: found["n"] for _, _, row in rows for kind, found in row["kinds"].items()}
    header = [f"{kind.replace('_', ' ')} (n {n})" for kind, n in sizes.items()]
    lines = [[label(arm), i, *(kind_cell(row["kinds"].get(kind)) for kind in sizes)] for arm, i, row in rows]
    return markdown_table(["arm", "iteration", *header], lines if sizes else [])


def kind_cell(found: Row | None) -> str:
    """Return the text of a rate on one kind of goals."""
    return percent(found["success_rate"], found["ci95"]) if found else NONE


def arm_rows(summary: Summary) -> list[tuple[str, Row]]:
    """Return (arm, row) of every iteration that any seed has, with the ablations."""
    return [
        (arm, row) for arm, found in summary["arms"].items() for row in found["iterations"] if row["seeds"]
    ]


def repeats(summary: Summary) -> str:
    """Return Figure 4 as a table; length 1 has its interval."""
    header = ["arm", "iteration", "1 (95 %)", *(str(n) for n in LOOP_LENGTHS[1:])]

    def line(arm: str, iteration: str, row: Row) -> list[str]:
        others = [number(row["loops"][str(n)]) for n in LOOP_LENGTHS[1:]]
        return [label(arm), iteration, number(row["repeats"], row["repeats_ci95"]), *others]

    rows = [line("base", NONE, summary["base"])] if summary["base"] else []
    rows += [line(arm, str(row["iteration"]), row) for arm, row in arm_rows(summary)]
    return markdown_table(header, rows)


def revision(summary: Summary) -> str:
    """Return Figure 5 as a table."""
    header = ["arm", "iteration", "judged", "records", "refused (95 %)", "goals with one"]

    def line(arm: str, iteration: str, row: Row, judged: Row) -> list[str]:
        refused = number(row["revision_length"], row["revision_length_ci95"])
        by_judge = [number(judged["mean"]), str(judged["n"] or NONE)]
        return [label(arm), iteration, *by_judge, refused, str(row["revision_length_n"])]

    rows = [line("base", NONE, summary["base"], {"mean": None, "n": 0})] if summary["base"] else []
    rows += [
        line(arm, str(row["iteration"]), row, row["made"]["judged_revision_length"])
        for arm, row in arm_rows(summary)
    ]
    return markdown_table(header, rows)


def data(summary: Summary) -> str:
    """Return Table 1: trees, records and their drop reasons, training rows."""
    header = ["arm", "iteration", "seeds", "trees", "leaf reward", "records", "dropped", "rows trained"]
    rows = []
    for arm, row in arm_rows(summary):
        made = row["made"]
        records = {kind: found.get("written", 0) for kind, found in made["records"].items()}
        dropped = {kind: counts_text(found["dropped"]) for kind, found in made["records"].items()}
        reasons = "; ".join(f"{kind}: {text}" for kind, text in dropped.items() if text != NONE)
        search = made["search"]
        trees = f"{search['trees']:.0f}" if search else NONE
        leaf = number(search.get("mean_leaf_reward")) if search else NONE
        found = [counts_text(records), reasons or NONE, counts_text(made["rows"])]
        rows.append([label(arm), str(row["iteration"]), str(made["seeds"]), trees, leaf, *found])
    return markdown_table(header, rows)


def means_note(summary: Summary) -> str:
    """Return the note on the data table."""
    return (
        f"`{summary['command']}`, {seeds_text(summary['seeds'])}; means over the seeds. The search of iteration 1 is "
        "the untrained model's and shared by all arms of a seed."
    )


def costs(summary: Summary) -> str:
    """Return a table of seconds by stage, and of tokens."""
    stages = ("search", "records", "train", "evaluate")
    header = [
        "arm",
        "iteration",
        *(f"{stage}, s" for stage in stages),
        "search tokens in + out",
        "train tokens",
    ]
    rows = []
    for arm, row in arm_rows(summary):
        made = row["made"]
        seconds = [f"{made['seconds'][s]:.0f}" if s in made["seconds"] else NONE for s in stages]
        used = made["tokens"]["search"]
        asked = f"{used['prompt_tokens']:,} + {used['completion_tokens']:,}" if used["calls"] else NONE
        epoch = made["tokens_per_epoch"].get("input")
        trained = f"{epoch:,.0f}" if epoch is not None else NONE
        rows.append([label(arm), str(row["iteration"]), *seconds, asked, trained])
    return markdown_table(header, rows)


def sums_note(summary: Summary) -> str:
    """Return the note on the cost table."""
    return (
        f"`{summary['command']}`, {seeds_text(summary['seeds'])}. Seconds and search tokens are sums over seeds; the "
        "search of iteration 1 is listed with each arm that uses it, and was done once. Train tokens: one epoch of one "
        "seed, on average."
    )


def missing(summary: Summary) -> str:
    """Return the list of cells that do not count, with the reasons."""
    if not summary["missing"]:
        return ""
    lines = [f"- `{name}`: {reason}" for name, reason in summary["missing"].items()]
    return "\n".join(["## Cells that are not there", "", *lines, ""])
