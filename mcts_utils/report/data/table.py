"""The summary of report/data.py for people. It computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcts_utils.report.common import describe_reasons
from mcts_utils.revision.builder import KINDS

Show = Callable[[Mapping[str, Any]], str]
WIDTH = 28  # of a column


def described(found: Mapping[str, Any] | None, digits: int = 1) -> str:
    """`2.4; 2 (1 to 3)`: mean; median (quartiles)."""
    if found is None:
        return "-"
    median, low, high = (f"{round(found[name], digits):g}" for name in ("median", "q25", "q75"))
    return f"{found['mean']:.{digits}f}; {median} ({low} to {high})"


def percent(value: float | None) -> str:
    """`46.0 %`."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _plain(found: Mapping[str, Any] | None, name: str) -> str:
    value = None if found is None else found.get(name)
    return "-" if value is None else str(value)


HEAD: tuple[tuple[str, Show], ...] = (
    ("tasks searched (trees)", lambda c: _plain(c["searched"], "trees")),
    ("searches that failed", lambda c: _plain(c["searched"], "failed")),
    ("paths in the trees", lambda c: _plain(c["searched"], "leaves")),
    ("mean reward of a path", lambda c: percent((c["searched"] or {}).get("mean_leaf_reward"))),
    ("tasks with records", lambda c: str(c["tasks_with_records"])),
    ("records", lambda c: str(c["rows"])),
    ("verdicts", lambda c: "-" if c["verdicts"] is None else _verdicts(c["verdicts"])),
    ("executed once more: exact", lambda c: percent(c["replay_check"])),
)
OF_KIND: tuple[tuple[str, Show], ...] = (
    ("records", lambda k: str(k["rows"])),
    ("tasks", lambda k: str(k["tasks"])),
    ("records per task", lambda k: described(k["rows_per_task"])),
    ("depth of the cut, steps", lambda k: described(k["cut_depth"])),
    ("shared prefix, steps", lambda k: described(k["shared_prefix"])),
    ("bad prefix, steps", lambda k: described(k["bad_prefix"])),
    ("good tail, steps", lambda k: described(k["good_tail"])),
    ("turns", lambda k: described(k["turns"])),
    ("characters", lambda k: described(k["characters"], 0)),
    ("reward of the good path", lambda k: described(k["reward_good"], 2)),
    ("reward of the bad path", lambda k: described(k["reward_bad"], 2)),
    ("reward of the record", lambda k: described(k["reward_record"], 2)),
    ("refused, of trained actions", lambda k: percent(k["trained_refused_share"])),
    ("refused, of all actions", lambda k: percent(k["refused_share"])),
    ("same actions, same task", lambda k: str(k["duplicates_same_task"])),
    ("same actions, another task", lambda k: str(k["duplicates_other_task"])),
    ("not executed", lambda k: str(k["not_executed"])),
)


def _verdicts(found: Mapping[str, int]) -> str:
    names = ("good", "bad", "uncertain", "unparsed")
    return " / ".join(str(found[name]) for name in names)


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people: a column per iteration and environment. Rows that say nothing anywhere are left out."""
    columns = summary["columns"]
    lines = [f"[{n}] {c['folder']}, {c['task']}" for n, c in enumerate(columns, 1)]
    lines += ["", f"{'':30}" + "".join(f"{f'[{n}]':>{WIDTH}}" for n in range(1, len(columns) + 1))]
    lines += _rows(HEAD, columns)
    for kind in KINDS.values():
        found = [c["kinds"].get(kind) for c in columns]
        if any(found):
            lines += ["", kind, *_rows(OF_KIND, found), *_token_rows(kind, columns)]
    lines += ["", "mean; median (quartiles). Verdicts: good / bad / uncertain / not parsed."]
    for number, c in enumerate(columns, 1):
        for kind, found in c["kinds"].items():
            if found["stage"] and found["stage"]["dropped"]:
                lines.append(f"not written, [{number}] {kind}: {describe_reasons(found['stage']['dropped'])}")
    return "\n".join(lines)


def _rows(rows: Sequence[tuple[str, Show]], columns: Sequence[Mapping[str, Any] | None]) -> list[str]:
    lines = []
    for name, show in rows:
        cells = ["-" if c is None else show(c) for c in columns]
        if set(cells) - {"-"}:
            lines.append(f"{name:30}" + "".join(f"{cell:>{WIDTH}}" for cell in cells))
    return lines


def _token_rows(kind: str, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    def show(name: str) -> Show:
        return lambda c: f"{c['tokens'][kind][name]:.0f}" if kind in (c["tokens"] or {}) else "-"

    return _rows((("tokens, mean", show("input")), ("  of these trained", show("trained"))), columns)
