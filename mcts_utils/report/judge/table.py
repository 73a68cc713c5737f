"""The statistics of the judge's verdicts as text. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.judge.agreement import TRUTHS, VERDICTS
from mcts_utils.tables import NONE, number, percent, text_row

WIDTH = 46  # of a row's name
COUNTS = text_row(0, 9)
NOTE = (
    "Intervals are 95 %, a bootstrap over tasks; w: Wilson's, over verdicts, where all or no cases are hits "
    "or there is one task."
)

PLANNER_RULE = "good: fewer actions left to do; bad: refused, or as many or more left; neutral: a look"
VALUE_RULE = "by the parent's Q: bad if Q falls, good if it rises, else neutral; by a threshold: bad below it"
CUTS = {  # kind of agreement.CUT_KINDS -> text
    "exact": "on the first error",
    "early": "before it",
    "late": "after it",
    "no_error": "though there is none",
    "missed": "not at all, though there is one",
    "neither": "not at all, and there is none",
}


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
        lines += [_verdicts(stage), *_oracles(stage)]
    if asked := found["on_purpose"]:
        lines += [""] if lines else []
        drawn = asked["drawn"]
        lines += [
            "== Verdicts on steps drawn at random: "
            f"{drawn['on_good_paths']} of {drawn['on_good_paths_in_all']} on good paths, "
            f"{drawn['on_bad_paths_only']} of {drawn['on_bad_paths_only_in_all']} on bad paths only",
            f"asked {asked['model']}, prompt {asked['prompt']}, {asked['requests']} requests in this run",
            _verdicts(asked),
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


def _verdicts(found: Mapping[str, Any]) -> str:
    counts = found["verdicts"]
    given = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    return f"{counts['in_all']} verdicts: {given} ({', '.join(found['environments'])})"


def _halves(asked: Mapping[str, Any]) -> list[str]:
    """Return the false alarms and the recall of each half, by each oracle."""
    lines = []
    for half in ("on_good_paths", "on_bad_paths_only"):
        found, counts = asked[half], asked[half]["verdicts"]
        lines.append(_row(f"called bad {half.replace('_', ' ')}", f"{counts['bad']} of {counts['in_all']}"))
        for oracle in filter(found.get, ("planner", "value")):
            steps = found[oracle]["steps"]
            lines += [
                _row(f"  of these good by {oracle}: false alarms", share_text(steps["false_alarms"])),
                _row(f"  bad by {oracle}: called bad", share_text(steps["recall"])),
            ]
    return lines


def _oracles(found: Mapping[str, Any], with_cuts: bool = True) -> list[str]:
    def scores(oracle: Mapping[str, Any]) -> list[str]:
        return [*_steps(oracle["steps"]), *(_cuts(oracle["cuts"]) if with_cuts else [])]

    lines = ["", "-- no planner for this environment: only TextCraft has one"]
    if found["planner"]:
        title = "-- against the planner's distance to the goal"
        lines = ["", title, f"  {PLANNER_RULE}", *scores(found["planner"])]
    value = found["value"]
    return [
        *lines,
        "",
        f"-- against the search's value of the node: {value['rule']}",
        f"  {VALUE_RULE}",
        *scores(value),
        *(
            _row(f"mean Q of nodes called {v}", mean_text(q))
            for v, q in value["q_by_verdict"].items()
            if q["n"]
        ),
        _row("area under ROC, Q as a score of 'bad'", mean_text(value["area_q"], "area")),
        _row("area under ROC, Q minus the parent's Q", mean_text(value["area_gain"], "area")),
        *_rules(value["rules"]),
    ]


def _steps(steps: Mapping[str, Any]) -> list[str]:
    if not steps["n"]:
        return ["  no verdict is on a step that it can say something of"]
    reasons, calibration = steps["recall_by_reason"].items(), steps["calibration"].items()
    shares = [
        ("truly bad", steps["truly_bad"]),
        ("precision of 'bad'", steps["precision"]),
        ("recall of 'bad'", steps["recall"]),
        *((f"  {reason}", found) for reason, found in reasons),
        ("false alarms: good steps called bad", steps["false_alarms"]),
        ("  of these before the path's first error", steps["false_alarms_good_prefix"]),
        *((f"truly bad among called {verdict}", found) for verdict, found in calibration if found["n"]),
        ("agreement", steps["agreement"]),
    ]
    called = ((verdict, row.values()) for verdict, row in steps["confusion"].items())
    return [
        _row(f"{steps['n']} verdicts on {steps['tasks']} tasks", COUNTS("", TRUTHS)),
        *(_row(f"called {verdict}", COUNTS("", map(str, row))) for verdict, row in called if any(row)),
        *(_row(name, share_text(found)) for name, found in shares),
        _row("Cohen's kappa", mean_text(steps["kappa"], "kappa")),
    ]


def _cuts(cuts: Mapping[str, Any]) -> list[str]:
    if not cuts["n"]:
        return []
    return [
        f"  {cuts['n']} bad paths, cut",
        *(_row(f"  {text}", share_text(cuts[kind])) for kind, text in CUTS.items() if cuts[kind]["hits"]),
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
