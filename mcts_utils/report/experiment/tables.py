"""The text of experiment.md in GitHub's Markdown, from the experiment's summary alone. It computes no statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcts_utils.evaluation.metrics.behaviour import LOOP_LENGTHS
from mcts_utils.report.experiment.comparison_tables import comparisons, gains
from mcts_utils.report.experiment.contrasts import ABLATIONS, ARMS, REHEARSED
from mcts_utils.report.experiment.labels import (
    WARM,
    Summary,
    drawn_arms,
    label,
    last_iteration,
    listed_arms,
    seeds_text,
    source_note,
    start_of,
)
from mcts_utils.tables import NONE, counts_text, markdown_section, markdown_table, number, percent

Row = Mapping[str, Any]
Show = Callable[[Row], str]
Columns = Mapping[str, Show]  # title -> text of a row


def document(summary: Summary, figures: Sequence[str]) -> str:
    """Return the text of experiment.md. `figures`: names of the files beside it."""
    pictures = {name.removesuffix(".png"): f"\n![{name}]({name})\n" for name in figures}
    main, revise = source_note(summary, "main"), source_note(summary, "revise")
    source = f"`{summary['command']}`, {seeds_text(summary['seeds'])}"
    prefixes = markdown_section(
        "Recovered failed prefixes by iteration (Table 3)",
        by_iteration(summary, "recovery_rate", "recovery_ci95"),
        f"{revise} The prefixes are the untrained model's failures, cut at a random step.",
        pictures.get("table_3"),
    )
    sections = [
        heading(summary),
        markdown_section(
            "Solved goals by iteration (Figure 3)",
            by_iteration(summary, "success_rate", "ci95"),
            f"{main} Percent, 95 % interval over goals.",
            pictures.get("figure_3"),
        ),
        prefixes if "revise" in summary["protocols"] else "",
        markdown_section("Solved goals by kind of goal", kinds(summary), main),
        *comparisons(summary, ARMS, "Agent-R against the other arms"),
        *comparisons(summary, ABLATIONS, "Agent-R with one thing changed", pictures.get("ablation")),
        *comparisons(summary, REHEARSED, "Agent-R, rehearsed, against the other arms"),
        *gains(summary),
        markdown_section(
            "Repeated action sequences of an episode, by length (Figure 4)",
            arm_table(summary, REPEATS),
            f"{main} A sequence counts where it is taken again right after itself.",
            pictures.get("figure_4"),
        ),
        markdown_section(
            "Revision length (Figure 5)",
            arm_table(summary, REVISION),
            main + REVISION_NOTE,
            pictures.get("figure_5"),
        ),
        markdown_section(
            "Data by arm and iteration (Table 1)", arm_table(summary, DATA, False), source + DATA_NOTE
        ),
        markdown_section("Tokens and seconds", arm_table(summary, COSTS, False), source + COSTS_NOTE),
        missing(summary),
    ]
    return "\n".join(section for section in sections if section)


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


def by_iteration(summary: Summary, value: str, interval: str) -> str:
    """Return a table of a rate: one line per arm, one column per iteration, the model that it starts from first.

    A cell names its seeds if some of the planned ones are missing.
    """
    last, planned = last_iteration(summary), summary["seeds"]

    def cell(row: Row) -> str:
        seeds = row["recovery_seeds"] if value == "recovery_rate" else row["seeds"]
        fewer = "" if row is summary["base"] or list(seeds) == list(planned) else f", {seeds_text(seeds)}"
        return NONE if row[value] is None else percent(row[value], row[interval]) + fewer

    base, (name, row) = summary["base"], start_of(summary)
    rows = []
    for arm in listed_arms(summary):
        start = base if arm == WARM else row
        found = [cell(row) for row in summary["arms"][arm]["iterations"]]
        rows.append([label(arm), cell(start) if start else NONE, *found, *[NONE] * (last - len(found))])
    first = label(name) if name == "base" else "start"
    return markdown_table(["arm", first, *(f"iteration {i}" for i in range(1, last + 1))], rows)


def arm_rows(summary: Summary, base: bool = True) -> list[tuple[str, str, Row]]:
    """Return (arm, iteration, row) of every iteration that any seed has, with the ablations.

    Args:
        base: put the untrained model first, if it was evaluated.
    """
    rows = [("base", NONE, summary["base"])] if base and summary["base"] else []
    every = [(arm, row) for arm, found in summary["arms"].items() for row in found["iterations"]]
    return rows + [(arm, str(row["iteration"]), row) for arm, row in every if row["seeds"]]


def arm_table(summary: Summary, columns: Columns, base: bool = True) -> str:
    """Return a table with a line per arm and iteration."""
    rows = [
        [label(arm), i, *(show(row) for show in columns.values())] for arm, i, row in arm_rows(summary, base)
    ]
    return markdown_table(["arm", "iteration", *columns], rows)


def kinds(summary: Summary) -> str:
    """Return a table of success by kind of goal (crafting depth), for the arms that the figures show."""
    drawn = ("base", *drawn_arms(summary))
    rows = [found for found in arm_rows(summary) if found[0] in drawn]
    sizes = {kind: found["n"] for _, _, row in rows for kind, found in row["kinds"].items()}

    def cell(found: Row | None) -> str:
        return percent(found["success_rate"], found["ci95"]) if found else NONE

    header = [f"{kind.replace('_', ' ')} (n {n})" for kind, n in sizes.items()]
    lines = [[label(arm), i, *(cell(row["kinds"].get(kind)) for kind in sizes)] for arm, i, row in rows]
    return markdown_table(["arm", "iteration", *header], lines if sizes else [])


def loops(length: int) -> Show:
    """Return a function that formats the repeats of one length."""
    return lambda row: number(row["loops"][str(length)])


def judged(row: Row) -> Row:
    """Return the revision length by the judge; that of the untrained model has no records."""
    found: Row = row["made"]["judged_revision_length"] if "made" in row else {"mean": None, "n": 0}
    return found


def dropped(row: Row) -> str:
    """Return the drop reasons of all kinds of records."""
    texts = {kind: counts_text(found["dropped"]) for kind, found in row["made"]["records"].items()}
    return "; ".join(f"{kind}: {text}" for kind, text in texts.items() if text != NONE) or NONE


def seconds(stage: str) -> Show:
    """Return a function that formats the seconds of a stage."""
    return lambda row: number(row["made"]["seconds"].get(stage), spec=".0f")


def search_tokens(row: Row) -> str:
    """Return the prompt and reply tokens of the search."""
    used = row["made"]["tokens"]["search"]
    return f"{used['prompt_tokens']:,} + {used['completion_tokens']:,}" if used["calls"] else NONE


REPEATS: Columns = {
    "1 (95 %)": lambda row: number(row["repeats"], row["repeats_ci95"]),
    **{str(length): loops(length) for length in LOOP_LENGTHS[1:]},
}
REVISION: Columns = {
    "judged": lambda row: number(judged(row)["mean"]),
    "records": lambda row: str(judged(row)["n"] or NONE),
    "refused (95 %)": lambda row: number(row["revision_length"], row["revision_length_ci95"]),
    "goals with one": lambda row: str(row["revision_length_n"]),
}
DATA: Columns = {
    "seeds": lambda row: str(row["made"]["seeds"]),
    "trees": lambda row: number(row["made"]["search"].get("trees"), spec=".0f"),
    "leaf reward": lambda row: number(row["made"]["search"].get("mean_leaf_reward")),
    "records": lambda row: counts_text({k: r.get("written", 0) for k, r in row["made"]["records"].items()}),
    "dropped": dropped,
    "rows trained": lambda row: counts_text(row["made"]["rows"]),
}
COSTS: Columns = {
    **{f"{stage}, s": seconds(stage) for stage in ("search", "records", "train", "evaluate")},
    "search tokens in + out": search_tokens,
    "train tokens": lambda row: number(row["made"]["tokens_per_epoch"].get("input"), spec=",.0f"),
}
REVISION_NOTE = (
    " *judged*: actions up to the first step of a bad path that was called bad (without a judge: refused), over the"
    " revision records of the iteration; the model before it searched, and the untrained model judged where the arm"
    " does not say otherwise."
    " The paper's measure is nearest to this one. *refused*: actions up to the first refused one, over failed test"
    " episodes that have one."
)
DATA_NOTE = (
    "; means over the seeds. The search of iteration 1 is that of the model which all arms of a seed"
    " start from, and shared by them."
)
COSTS_NOTE = (
    ". Seconds and search tokens are sums over seeds; the search of iteration 1 is listed with each arm that uses it,"
    " and was done once. Train tokens: one epoch of one seed, on average."
)


def missing(summary: Summary) -> str:
    """Return the list of cells that do not count, with the reasons."""
    if not summary["missing"]:
        return ""
    lines = [f"- `{name}`: {reason}" for name, reason in summary["missing"].items()]
    return "\n".join(["## Cells that are not there", "", *lines, ""])
