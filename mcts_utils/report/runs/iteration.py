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
from mcts_utils.report.common import only, record_counts, replay_check
from mcts_utils.storage.files import write_json
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.tables import Show, describe_reasons, percent, shown, text_row
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

MODEL, PLAYER = (
    "test_result",
    "player_result",
)  # folders with the evaluation of the trained model, of the player
KINDS = ("revision", "good")  # of training rows


def evaluation(folder: Path, which: str) -> dict[str, Any] | None:
    """Return the scores of one environment, or None if nothing was evaluated."""
    if not (folder / which).is_dir():
        return None
    summary = summary_of(only(folder, f"{which}/*/*/summary.json").parent)
    kept = ("n", "n_failed", "mean_reward", "success_rate", "ci95", "steps", "seconds")
    return {name: getattr(summary, name) for name in kept}


def environment(folder: Path) -> dict[str, Any]:
    """Return the numbers of one environment, of the stages that were run.

    Raises:
        InputError: no stage was run, or an output of one is missing; the message names it.
    """
    found: dict[str, Any] = {"evaluation": evaluation(folder, MODEL), "player": evaluation(folder, PLAYER)}
    seconds = {
        name: found[part]["seconds"]
        for name, part in (("evaluate", "evaluation"), ("player", "player"))
        if found[part]
    }
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


def score(name: str) -> Show:
    """Return a function that formats one score of an evaluation with its interval."""
    return lambda found: percent(found[name], found["ci95"].get(name))


def written(kind: str) -> Show:
    """Return a function that formats the number of records of one data type."""
    return lambda found: str(found["by_type"][kind]["written"])


def trained(kind: str) -> Show:
    """Return a function that formats the number of training rows of one kind."""
    return lambda found: str(found.get(kind, 0))


ROWS: tuple[tuple[str, str, Show], ...] = (  # name, part of an environment's summary, its text
    ("model: test tasks", "evaluation", lambda found: str(found["n"])),
    ("model: reward (95 %)", "evaluation", score("mean_reward")),
    ("model: success (95 %)", "evaluation", score("success_rate")),
    ("player: test tasks", "player", lambda found: str(found["n"])),
    ("player: reward (95 %)", "player", score("mean_reward")),
    ("trees", "search", lambda found: str(found["trees"])),
    ("trees that failed", "search", lambda found: str(found["failed"])),
    ("nodes", "search", lambda found: str(found["nodes"])),
    ("UCT decided", "search", lambda found: percent(found["selections_uct_share"])),
    ("mean reward of leaves", "search", lambda found: percent(found["mean_leaf_reward"])),
    ("records: centric", "records", written("centric")),
    ("records: good", "records", written("good")),
    ("executed again: exact", "records", lambda found: percent(found["replay_exact"])),
    *((f"trained on: {kind}", "rows", trained(kind)) for kind in KINDS),
    ("seconds", "seconds", lambda found: str(round(sum(found.values())))),
)


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table with one column per environment; empty rows are left out."""
    training = summary.get("training")
    rows = training["counts"]["envs"] if training else None
    columns = [
        {**e, "rows": None if rows is None else rows.get(name, {})}
        for name, e in summary["environments"].items()
    ]
    row = text_row(26, 26)
    lines = [row("", summary["environments"])]
    for name, part, show in ROWS:
        lines += [row(*named) for named in shown([(name, show)], [e.get(part) for e in columns])]
    for name, e in summary["environments"].items():
        if dropped := (e.get("records") or {}).get("dropped"):
            lines.append(f"not written, {name}: {describe_reasons(dropped)}")
    if training:
        lines.append(describe_training(training))
    return "\n".join(lines)


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
    write_json(args.iteration / "summary.json", summary)
    print(f"{table(summary)}\n{args.iteration / 'summary.json'}")


if __name__ == "__main__":
    sys.exit(main())
