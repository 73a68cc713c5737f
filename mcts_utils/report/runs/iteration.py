"""One iteration over several environments in one table: evaluation, trees, records, training rows; writes summary.json.

    python -m mcts_utils.report.runs.iteration runs/run_all/iteration_1 textcraft sciworld webshop

Reads what the stages wrote to ITERATION/TASK and ITERATION/model. It measures nothing itself; iterations.py puts
several iterations side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.report.common import describe_reasons
from mcts_utils.report.common import only
from mcts_utils.report.common import percent
from mcts_utils.report.common import records
from mcts_utils.report.common import replay_check
from mcts_utils.storage.files import read_json
from mcts_utils.storage.files import write_json
from mcts_utils.types import InputError

MODEL, PLAYER = "test_result", "player_result"  # whose evaluation a folder holds
KINDS = ("revision", "good")  # of training rows
Show = Callable[[Mapping[str, Any]], str]


def evaluation(folder: Path, which: str) -> dict[str, Any] | None:
    """Scores of one environment, or None where nothing was evaluated."""
    if not (folder / which).is_dir():
        return None
    summary = read_json(only(folder, f"{which}/*/*/summary.json"))
    kept = ("n", "n_failed", "mean_reward", "success_rate", "ci95", "steps", "seconds")
    return {name: summary[name] for name in kept}


def environment(folder: Path) -> dict[str, Any]:
    """What was done on one environment, as far as it was done.

    Raises:
        InputError: nothing was, or a stage's output is missing; the line names it.
    """
    found: dict[str, Any] = {"evaluation": evaluation(folder, MODEL), "player": evaluation(folder, PLAYER)}
    seconds = {
        name: found[part]["seconds"]
        for name, part in (("evaluate", "evaluation"), ("player", "player"))
        if found[part]
    }
    if (folder / "mcts_result").is_dir():
        search = read_json(only(folder, "mcts_result/*/*/manifest.json"))
        counts, spent, tokens = records(folder)
        found["search"] = search["counts"]
        found["records"] = {**counts, "replay_exact": replay_check(folder)}
        found["tokens"] = {"search": search["tokens"], **tokens}
        seconds |= {"search": search["seconds"], **spent}
    if not seconds:
        raise InputError(f"{folder}: neither test_result nor mcts_result is there")
    return {**found, "seconds": seconds}


def summarise(iteration: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Everything, by environment, and the training on the records of all of them."""
    found: dict[str, Any] = {"environments": {task: environment(iteration / task) for task in tasks}}
    manifest = iteration / "model" / "manifest.json"
    if manifest.exists():
        training = read_json(manifest)
        found["training"] = {name: training[name] for name in ("counts", "tokens", "seconds")}
    return found


def score(name: str) -> Show:
    """Text of one score of an evaluation, with its interval."""
    return lambda found: percent(found[name], found["ci95"].get(name))


def written(kind: str) -> Show:
    """Text of the number of records of one data type."""
    return lambda found: str(found["by_type"][kind]["written"])


def trained(kind: str) -> Show:
    """Text of the number of training rows of one kind."""
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
    """The summary for people: one column per environment. Rows that say nothing anywhere are left out."""
    training = summary.get("training")
    rows = training["counts"]["envs"] if training else None
    columns = [
        {**e, "rows": None if rows is None else rows.get(name, {})}
        for name, e in summary["environments"].items()
    ]
    lines = [f"{'':26}" + "".join(f"{name:>26}" for name in summary["environments"])]
    for name, part, show in ROWS:
        cells = ["-" if e.get(part) is None else show(e[part]) for e in columns]
        if set(cells) - {"-"}:
            lines.append(f"{name:26}" + "".join(f"{cell:>26}" for cell in cells))
    for name, e in summary["environments"].items():
        if dropped := (e.get("records") or {}).get("dropped"):
            lines.append(f"not written, {name}: {describe_reasons(dropped)}")
    if training:
        lines.append(describe_training(training))
    return "\n".join(lines)


def describe_training(training: Mapping[str, Any]) -> str:
    """Rows by kind, tokens, loss, seconds in one line."""
    counts = training["counts"]
    rows = ", ".join(f"{n} {kind}" for kind, n in counts["rows"].items())
    tokens = {key: sum(kind[key] for kind in training["tokens"].values()) for key in ("input", "trained")}
    return (
        f"trained on {sum(counts['rows'].values())} rows ({rows}), {tokens['input']:,} tokens an epoch, "
        f"{tokens['trained']:,} with loss: loss {counts['loss']['first']:.3f} -> {counts['loss']['last']:.3f}, "
        f"{training['seconds']:.0f} s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("iteration", type=Path, help="folder with one folder per environment")
    parser.add_argument("tasks", nargs="+", help="environments: names of its folders")
    args = parser.parse_args(argv)
    try:
        summary = summarise(args.iteration, args.tasks)
        write_json(args.iteration / "summary.json", summary)
        print(f"{table(summary)}\n{args.iteration / 'summary.json'}")
    except InputError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
