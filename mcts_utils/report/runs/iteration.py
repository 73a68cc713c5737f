"""One iteration over several environments in one table: evaluation, trees, records, training. Writes summary.json.

    python -m mcts_utils.report.runs.iteration runs/run_all/iteration_1 textcraft sciworld webshop

Reads what the stages wrote to ITERATION/TASK and ITERATION/model. It computes no scores; iterations.py compares several
iterations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.evaluation.results import summary_of
from mcts_utils.report.common import only, print_report, record_counts, replay_check
from mcts_utils.storage.layout import safe_name
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.tables import Show, describe_reasons, percent, shown, text_row
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

# Folders with the evaluation of the trained model, of the player.
MODEL, PLAYER = "test_result", "player_result"
SCORES = ("n", "n_failed", "mean_reward", "success_rate", "ci95", "steps", "seconds")


def environment(folder: Path) -> dict[str, Any]:
    """Return the numbers of one environment, of the stages that were run; raise InputError if none was."""
    found: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for part, stage, which in (("evaluation", "evaluate", MODEL), ("player", "player", PLAYER)):
        found[part] = None
        if (folder / which).is_dir():
            summary = summary_of(only(folder, f"{which}/*/*/summary.json").parent)
            found[part] = {name: getattr(summary, name) for name in SCORES}
            seconds[stage] = summary.seconds
    if (folder / "mcts_result").is_dir():
        search = read_manifest(only(folder, "mcts_result/*/*/manifest.json"))
        counts, spent, tokens = record_counts(folder)
        found["search"] = search.counts
        found["records"] = {**counts, "replay_exact": replay_check(folder)}
        found["tokens"] = {"search": search.tokens, **tokens}
        seconds |= {"search": search.seconds, **spent}
    if not seconds:
        raise InputError(f"{folder}: neither test_result nor mcts_result is there")
    return {**found, "seconds": seconds}


def summarise(iteration: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of every environment, and of the training on the records of all of them."""
    found: dict[str, Any] = {"environments": {task: environment(iteration / task) for task in tasks}}
    manifest = iteration / "model" / "manifest.json"
    if manifest.exists():
        training = read_manifest(manifest)
        found["training"] = {name: getattr(training, name) for name in ("counts", "tokens", "seconds")}
    return found


def count(name: str) -> Show:
    """Return a function that formats a count."""
    return lambda found: str(found.get(name, 0))


def score(name: str) -> Show:
    """Return a function that formats one score of an evaluation with its interval."""
    return lambda found: percent(found[name], found["ci95"].get(name))


ROWS: tuple[tuple[str, str, Show], ...] = (  # name, part of an environment's summary, its text
    ("model: test tasks", "evaluation", count("n")),
    ("model: reward (95 %)", "evaluation", score("mean_reward")),
    ("model: success (95 %)", "evaluation", score("success_rate")),
    ("player: test tasks", "player", count("n")),
    ("player: reward (95 %)", "player", score("mean_reward")),
    ("trees", "search", count("trees")),
    ("trees that failed", "search", count("failed")),
    ("nodes", "search", count("nodes")),
    ("UCT decided", "search", lambda found: percent(found["selections_uct_share"])),
    ("mean reward of leaves", "search", lambda found: percent(found["mean_leaf_reward"])),
    ("records: centric", "records", lambda found: count("written")(found["by_type"]["centric"])),
    ("records: good", "records", lambda found: count("written")(found["by_type"]["good"])),
    ("executed again: exact", "records", lambda found: percent(found["replay_exact"])),
    ("trained on: revision", "rows", count("revision")),
    ("trained on: good", "rows", count("good")),
    ("seconds", "seconds", lambda found: str(round(sum(found.values())))),
)


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table with one column per environment; empty rows are left out."""
    worlds, training, row = summary["environments"], summary.get("training"), text_row(26, 26)
    trained = training["counts"]["envs"] if training else {}
    rows = {safe_name(name): found for name, found in trained.items()}  # by the name of the folder
    columns = [{**e, "rows": rows.get(name, {}) if training else None} for name, e in worlds.items()]
    lines = [row("", worlds)]
    for name, part, show in ROWS:
        lines += [row(*named) for named in shown([(name, show)], [e.get(part) for e in columns])]
    for name, e in worlds.items():
        if dropped := (e.get("records") or {}).get("dropped"):
            lines.append(f"not written, {name}: {describe_reasons(dropped)}")
    return "\n".join([*lines, *([describe_training(training)] if training else [])])


def describe_training(training: Mapping[str, Any]) -> str:
    """Return rows by kind, tokens, loss and seconds of the training in one line."""
    counts = training["counts"]
    rows = ", ".join(f"{n} {kind}" for kind, n in counts["rows"].items())
    tokens = {key: sum(kind[key] for kind in training["tokens"].values()) for key in ("input", "trained")}
    return (
        f"trained on {sum(counts['rows'].values())} rows ({rows}), {tokens['input']:,} tokens an epoch, "
        f"{tokens['trained']:,} with loss: loss {counts['loss']['first']:.3f} -> {counts['loss']['last']:.3f}, "
        f"{training['seconds']:.0f} s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("iteration", type=Path, help="folder with one folder per environment")
    parser.add_argument("tasks", nargs="+", help="environments: names of its folders")
    return run_command("report", lambda: report(parser.parse_args(argv)))


def report(args: argparse.Namespace) -> None:
    """Write summary.json and print the table."""
    summary = summarise(args.iteration, args.tasks)
    print_report(table(summary), summary, args.iteration / "summary.json")


if __name__ == "__main__":
    sys.exit(main())
