"""The statistics of the judge's verdicts as text. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.judge.agreement import CUT_KINDS, TRUTHS, VERDICTS
from mcts_utils.tables import NONE, number, percent, text_row

WIDTH = 46  # of a row's name
COUNTS = text_row(0, 9)
NOTE = (
    "Intervals are 95 %, a bootstrap over tasks; w: Wilson's, over verdicts, where all or no cases are hits "
    "or there is one task."
)

PLANNER_RULE = "good: fewer actions left to do; bad: refused, or as many or more left; neutral: a look"
VALUE_RULE = "by the parent's Q: bad if Q falls, good if it rises, else neutral; by a threshold: bad below it"


def table(found: Mapping[str, Any]) -> str:
    """Return the blocks of all verdicts that there are."""
    lines: list[str] = []
    if stage := found["stage_2"]:
        lines += ["== Verdicts that stage 2 asked for: bad paths after the fork, up to the first bad step"]
        if stage["files_without_tree"] or stage["other_questions"]:
            lines.append(
                f"left out: {stage['files_without_tree']} files without a tree, "
                f"{stage['other_questions']} verdicts on other questions"
            )
        lines += [*_verdicts(stage), *_oracles(stage)]
    if asked := found["on_purpose"]:
        lines += [""] if lines else []
        drawn = asked["drawn"]
        lines += [
            "== Verdicts on steps drawn at random: "
            f"{drawn['on_good_paths']} of {drawn['on_good_paths_in_all']} on good paths, "
            f"{drawn['on_bad_paths_only']} of {drawn['on_bad_paths_only_in_all']} on bad paths only",
            f"asked {asked['model']}, prompt {asked['prompt']}, {asked['requests']} requests in this run",
            *_verdicts(asked),
            *_halves(asked),
            *_oracles(asked, with_cuts=False),
        ]
    return "\n".join([*lines, "", NOTE])


def share_text(found: Mapping[str, Any]) -> str:
    """Return a share of agreement.share, such as `46.0 % (40.1 to 52.0), 12 of 26`."""
    if found["share"] is None:
        return "- (no case)"
    wilson = found["hits"] in (0, found["n"]) or found["ci95"] is None
    low, high = found["ci95_wilson"] if wilson else found["ci95"]
    return (
        f"{100 * found['share']:5.1f} % ({100 * low:.1f} to {100 * high:.1f}{' w' if wilson else ''}), "
        f"{found['hits']} of {found['n']}"
    )


def mean_text(found: Mapping[str, Any], name: str = "mean") -> str:
    """Return a mean, kappa or area of agreement.py, such as `0.42 (0.40 to 0.44), n 26`."""
    if found[name] is None:
        return NONE
    size = f"n {found['n']}" if "n" in found else f"{found['bad']} bad, {found['others']} others"
    return f"{number(found[name], found['ci95'])}, {size}"


def _row(name: str, text: str) -> str:
    return f"  {name:{WIDTH}}{text}"


def _verdicts(found: Mapping[str, Any]) -> list[str]:
    counts = found["verdicts"]
    return [
        f"{counts['in_all']} verdicts: "
        + ", ".join(f"{counts[v]} {v}" for v in VERDICTS)
        + f" ({', '.join(found['environments'])})"
    ]


def _halves(asked: Mapping[str, Any]) -> list[str]:
    """Return the false alarms and the recall of each half, by each oracle."""
    lines = []
    for half, name in (("on_good_paths", "on good paths"), ("on_bad_paths_only", "on bad paths only")):
        found = asked[half]
        counts = found["verdicts"]
        lines.append(_row(f"called bad {name}", f"{counts['bad']} of {counts['in_all']}"))
        for oracle in ("planner", "value"):
            if found[oracle]:
                steps = found[oracle]["steps"]
                lines.append(
                    _row(f"  of these good by {oracle}: false alarms", share_text(steps["false_alarms"]))
                )
                lines.append(_row(f"  bad by {oracle}: called bad", share_text(steps["recall"])))
    return lines


def _oracles(found: Mapping[str, Any], with_cuts: bool = True) -> list[str]:
    if found["planner"]:
        lines = [
            "",
            "-- against the planner's distance to the goal",
            f"  {PLANNER_RULE}",
            *_steps(found["planner"]["steps"]),
        ]
        lines += _cuts(found["planner"]["cuts"]) if with_cuts else []
    else:
        lines = ["", "-- no planner for this environment: only TextCraft has one"]
    value = found["value"]
    lines += ["", f"-- against the search's value of the node: {value['rule']}", f"  {VALUE_RULE}"]
    lines += _steps(value["steps"])
    lines += _cuts(value["cuts"]) if with_cuts else []
    for verdict, q in value["q_by_verdict"].items():
        if q["n"]:
            lines.append(_row(f"mean Q of nodes called {verdict}", mean_text(q)))
    lines.append(_row("area under ROC, Q as a score of 'bad'", mean_text(value["area_q"], "area")))
    lines.append(_row("area under ROC, Q minus the parent's Q", mean_text(value["area_gain"], "area")))
    return [*lines, *_rules(value["rules"])]


def _steps(steps: Mapping[str, Any]) -> list[str]:
    if not steps["n"]:
        return ["  no verdict is on a step that it can say something of"]
    lines = [
        _row(f"{steps['n']} verdicts on {steps['tasks']} tasks", COUNTS("", TRUTHS)),
        *(
            _row(f"called {verdict}", COUNTS("", [str(row[t]) for t in TRUTHS]))
            for verdict, row in steps["confusion"].items()
            if any(row.values())
        ),
        _row("truly bad", share_text(steps["truly_bad"])),
        _row("precision of 'bad'", share_text(steps["precision"])),
        _row("recall of 'bad'", share_text(steps["recall"])),
        *(_row(f"  {reason}", share_text(found)) for reason, found in steps["recall_by_reason"].items()),
        _row("false alarms: good steps called bad", share_text(steps["false_alarms"])),
        _row("  of these before the path's first error", share_text(steps["false_alarms_good_prefix"])),
        *(
            _row(f"truly bad among called {verdict}", share_text(found))
            for verdict, found in steps["calibration"].items()
            if found["n"]
        ),
        _row("agreement", share_text(steps["agreement"])),
        _row("Cohen's kappa", mean_text(steps["kappa"], "kappa")),
    ]
    return lines


def _cuts(cuts: Mapping[str, Any]) -> list[str]:
    if not cuts["n"]:
        return []
    texts = {
        "exact": "on the first error",
        "early": "before it",
        "late": "after it",
        "no_error": "though there is none",
        "missed": "not at all, though there is one",
        "neither": "not at all, and there is none",
    }
    return [
        f"  {cuts['n']} bad paths, cut",
        *(_row(f"  {texts[kind]}", share_text(cuts[kind])) for kind in CUT_KINDS if cuts[kind]["hits"]),
        _row("  steps from the first error to the cut", mean_text(cuts["distance"])),
        _row("  the same without its sign", mean_text(cuts["absolute_distance"])),
    ]


def _rules(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    row = text_row(WIDTH + 2, 6, 9, 11, 9, 8)
    lines = [row("  other rules", ("n", "bad", "precision", "recall", "kappa"))]
    for found in rules:
        shares = (found[name]["share"] for name in ("truly_bad", "precision", "recall"))
        cells = [str(found["n"]), *map(percent, shares), number(found["kappa"]["kappa"])]
        lines.append(row(f"  {found['rule']}", cells))
    return lines
