"""The benchmark's figures as the fields of summary.json and as a printed table. Pure."""

from __future__ import annotations

from typing import Any

from mcts_utils.tables import NONE, text_row

Figures = dict[str, Any]
# Summary field -> (part, figure).
FIELDS = {
    "slot_utilisation_16": ("slots_16", "utilisation"),
    "slot_utilisation_64": ("slots_64", "utilisation"),
    "slot_utilisation_auto": ("auto", "utilisation"),
    "steps_per_node": ("slots_16", "steps_per_node"),
    "steps_per_node_public": ("public", "steps_per_node"),
    "verdicts_per_judged_step": ("revision", "verdicts_per_judged_step"),
    "cpu_ms_per_call": ("slots_16", "cpu_ms_per_call"),
    "prompt_shared_share": ("slots_16", "prompt_shared_share"),
    "bytes_per_node": ("slots_16", "bytes_per_node"),
    "reference_bytes_per_node": ("slots_16", "reference_bytes_per_node"),
    "own_step_ms_in_process": ("own_world", "step_ms_in_process"),
    "own_step_ms_http": ("own_world", "step_ms_http"),
    "local_tokens_per_s": ("local_model", "tokens_per_s"),
    "local_vs_one_by_one": ("local_model", "vs_one_by_one"),
}
TARGETS = {
    "slot_utilisation_16": ">= 0.92",
    "slot_utilisation_64": ">= 0.95",
    "steps_per_node": "<= 1.2",
    "steps_per_node_public": "<= 3",
    "speedup_vs_serial": ">= 18",
    "cpu_ms_per_call": "<= 2.5",
    "bytes_vs_reference": "<= 1/15 = 0.067",
    "peak_rss_mb": "< 500",
    "local_vs_one_by_one": ">= 25",
}
ROWS = (
    *("trees", "nodes", "answers", "wall_s", "answers_per_s", "utilisation", "in_flight", "concurrency"),
    *("cpu_ms_per_call", "chat_cpu_ms_per_call", "env_cpu_ms_per_call", "peak_rss_mb"),
    *("executed_nodes", "env_steps", "replayed_steps", "steps_per_node", "prompt_shared_share"),
    *("calls_per_tree", "prompt_tokens_per_tree", "completion_tokens_per_tree"),
    *("bytes_per_node", "reference_bytes_per_node"),
    *("records", "judged_steps", "requests", "verdicts_per_judged_step", "trees_per_s"),
    *("step_ms_in_process", "step_ms_http"),
    *("rollouts", "tokens_per_s", "library_batch_tokens_per_s", "one_by_one_tokens_per_s", "vs_one_by_one"),
)


def summary(found: dict[str, Figures]) -> Figures:
    """Return the fields of summary.json from the figures by part; None where the part was not measured."""
    fields: Figures = {name: found.get(part, {}).get(figure) for name, (part, figure) in FIELDS.items()}
    fields["bytes_vs_reference"] = _ratio(fields["bytes_per_node"], fields["reference_bytes_per_node"], 4)
    peaks = [figures["peak_rss_mb"] for figures in found.values() if "peak_rss_mb" in figures]
    fields["peak_rss_mb"] = max(peaks, default=None)
    speed = found.get("descent", {}).get("trees_per_s")
    fields["speedup_vs_serial"] = _ratio(speed, found.get("serial", {}).get("trees_per_s"), 1)
    fields["speedup_vs_reference"] = _ratio(speed, found.get("serial_reference", {}).get("trees_per_s"), 1)
    return fields


def _ratio(part: float | None, whole: float | None, digits: int) -> float | None:
    return round(part / whole, digits) if part is not None and whole else None


def table(found: dict[str, Figures], fields: Figures) -> str:
    """Return the summary with its targets, then all figures by part."""
    row = text_row(28, 12)
    lines = [row("figure", ["measured"]) + "   target"]
    for name in (*FIELDS, "bytes_vs_reference", "peak_rss_mb", "speedup_vs_serial", "speedup_vs_reference"):
        lines.append(f"{row(name, [_shown(fields[name])])}   {TARGETS.get(name, '')}".rstrip())
    row = text_row(28, 18)
    lines += ["", row("by part", found)]
    for name in ROWS:
        if any(name in figures for figures in found.values()):
            lines.append(row(name, [_shown(figures.get(name)) for figures in found.values()]))
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)
