"""The statistics of the training data as a text table. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.revision.options import KINDS
from mcts_utils.tables import NONE, Show, describe_reasons, number, percent, shown, text_row

ROW = text_row(30, 28)
VERDICTS = ("good", "bad", "uncertain", "unparsed")


def distribution_text(found: Mapping[str, Any] | None, digits: int = 1) -> str:
    """Return mean; median (quartiles), such as `2.4; 2 (1 to 3)`."""
    if found is None:
        return NONE
    median, low, high = (f"{round(found[name], digits):g}" for name in ("median", "q25", "q75"))
    return f"{found['mean']:.{digits}f}; {median} ({low} to {high})"


def _searched(name: str) -> Show:
    """Return a function that reads a count of the search of a column."""
    return lambda c: number((c["searched"] or {}).get(name), spec="d")


HEAD: tuple[tuple[str, Show], ...] = (
    ("tasks searched (trees)", _searched("trees")),
    ("searches that failed", _searched("failed")),
    ("paths in the trees", _searched("leaves")),
    ("mean reward of a path", lambda c: percent((c["searched"] or {}).get("mean_leaf_reward"))),
    ("tasks with records", lambda c: str(c["tasks_with_records"])),
    ("records", lambda c: str(c["rows"])),
    ("verdicts", lambda c: " / ".join(str(c["verdicts"][v]) for v in VERDICTS) if c["verdicts"] else NONE),
    ("executed once more: exact", lambda c: percent(c["replay_check"])),
)
OF_KIND: tuple[tuple[str, Show], ...] = (
    ("records", lambda k: str(k["rows"])),
    ("tasks", lambda k: str(k["tasks"])),
    ("records per task", lambda k: distribution_text(k["rows_per_task"])),
    ("depth of the cut, steps", lambda k: distribution_text(k["cut_depth"])),
    ("shared prefix, steps", lambda k: distribution_text(k["shared_prefix"])),
    ("bad prefix, steps", lambda k: distribution_text(k["bad_prefix"])),
    ("good tail, steps", lambda k: distribution_text(k["good_tail"])),
    ("turns", lambda k: distribution_text(k["turns"])),
    ("characters", lambda k: distribution_text(k["characters"], 0)),
    ("reward of the good path", lambda k: distribution_text(k["reward_good"], 2)),
    ("reward of the bad path", lambda k: distribution_text(k["reward_bad"], 2)),
    ("reward of the record", lambda k: distribution_text(k["reward_record"], 2)),
    ("refused, of trained actions", lambda k: percent(k["trained_refused_share"])),
    ("refused, of all actions", lambda k: percent(k["refused_share"])),
    ("same actions, same task", lambda k: str(k["duplicates_same_task"])),
    ("same actions, another task", lambda k: str(k["duplicates_other_task"])),
    ("not executed", lambda k: str(k["not_executed"])),
)


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table with a column per iteration and environment; empty rows are left out."""
    columns = summary["columns"]
    lines = [f"[{n}] {c['folder']}, {c['task']}" for n, c in enumerate(columns, 1)]
    lines += ["", ROW("", [f"[{n}]" for n in range(1, len(columns) + 1)])]
    lines += _rows(HEAD, columns)
    for kind in KINDS.values():
        found = [c["kinds"].get(kind) for c in columns]
        if any(found):
            lines += ["", kind, *_rows(OF_KIND, found), *_token_rows(kind, columns)]
    lines += ["", "mean; median (quartiles). Verdicts: good / bad / uncertain / not parsed."]
    for place, c in enumerate(columns, 1):
        for kind, found in c["kinds"].items():
            if found["stage"] and found["stage"]["dropped"]:
                lines.append(f"not written, [{place}] {kind}: {describe_reasons(found['stage']['dropped'])}")
    return "\n".join(lines)


def _rows(rows: Sequence[tuple[str, Show]], columns: Sequence[Mapping[str, Any] | None]) -> list[str]:
    return [ROW(*named) for named in shown(rows, columns)]


def _token_rows(kind: str, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    def show(name: str) -> Show:
        return lambda c: f"{c['tokens'][kind][name]:.0f}" if kind in (c["tokens"] or {}) else NONE

    return _rows((("tokens, mean", show("input")), ("  of these trained", show("trained"))), columns)
