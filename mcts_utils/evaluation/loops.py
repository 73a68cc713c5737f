"""`eval.py loops`: repeated actions (Figure 4) and revision length (Figure 5) of finished runs, from their files alone.

    python eval.py loops test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned
    MODEL_DIR=models/tiny_actor python eval.py loops --judge model test_result/textcraft/NAME_base

Needs no environment server. Writes loops.json into each run's folder, and the judge's verdicts below verdicts/ there,
which the next call goes on from. It plays nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mcts_utils.actors.factory import make_actor
from mcts_utils.config import Settings, settings_from_env
from mcts_utils.evaluation import metrics
from mcts_utils.evaluation.results import by_task, episodes_of, own_steps, summary_of
from mcts_utils.evaluation.summary import estimate
from mcts_utils.executors.threads import run_tasks, sigterm_as_interrupt
from mcts_utils.prompts import is_signal_step
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.verdict_cache import VerdictCache
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.storage.files import write_json
from mcts_utils.storage.layout import episode_name, safe_name
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.types import InputError, Step, Task

VERSION = 1
Record = Mapping[str, Any]
FirstErrors = Callable[[Path, Sequence[Record]], list[int | None]]


def report(run: Path, first_errors: FirstErrors, judged_by: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one run.

    Args:
        first_errors: for failed episodes, the number (from 1) of the agent's own step that is the first error, or None.
        judged_by: who says so.

    Returns:
        repeated_sequences: length -> mean count an episode; revision_length: actions up to and including the first
        error, over failed episodes that have one; error_found: the share of those; first_refused: the same with the
        first refused action as the error, whoever judges; first_signal: actions up to and
        including the agent's first revision signal; signals: the share of episodes with one. Each with mean, n (tasks)
        and ci95. Of a cut prefix nothing is counted.
    """
    episodes = [e for found in by_task(list(episodes_of(run))).values() for e in found]
    if not episodes:
        raise InputError(f"{run}: no finished episode")
    own, keys = [own_steps(e) for e in episodes], [e["task"]["index"] for e in episodes]
    lost = [i for i, e in enumerate(episodes) if not metrics.is_success(e["reward"])]
    errors: list[int | None] = [None] * len(episodes)
    for i, found in zip(lost, first_errors(run, [episodes[i] for i in lost]), strict=True):
        errors[i] = found
    refused = refused_first(run, episodes)
    signals = [metrics.first(steps, is_signal_step) for steps in own]
    repeats = metrics.loops([[step.action for step in steps] for steps in own], keys)
    everyone = range(len(episodes))
    return {
        "version": VERSION,
        "panel": summary_of(run)["protocol"]["panel"],
        "episodes": len(episodes),
        "failed": len(lost),
        "repeated_sequences": {length: found.row() for length, found in repeats.items()},
        "judge": dict(judged_by),
        "revision_length": _mean_position(errors, lost, keys),
        "error_found": _share(errors, lost, keys),
        "first_refused": _mean_position(refused, lost, keys),
        "first_signal": _mean_position(signals, everyone, keys),
        "signals": _share(signals, everyone, keys),
    }


def _mean_position(found: Sequence[int | None], of: Sequence[int], keys: Sequence[int]) -> dict[str, Any]:
    there = [(float(n), keys[i]) for i in of if (n := found[i]) is not None]
    return metrics.per_task([n for n, _ in there], tasks=[key for _, key in there]).row()


def _share(found: Sequence[int | None], of: Sequence[int], keys: Sequence[int]) -> dict[str, Any]:
    """Wilson's interval where every task has one episode, as the mean is a share then."""
    groups: dict[int, list[float]] = {}
    for i in of:
        groups.setdefault(keys[i], []).append(float(found[i] is not None))
    return metrics.mean_at_k(list(groups.values())).row()


def refused_first(run: Path, episodes: Sequence[Record]) -> list[int | None]:
    """The first action that the environment refused."""
    return [metrics.first(own_steps(e), partial(is_refused, e["task"]["env"])) for e in episodes]


@contextmanager
def model_first(settings: Settings) -> Iterator[tuple[FirstErrors, dict[str, Any]]]:
    """The first step that the actor calls bad, as in the paper, and who it is. Kept verdicts are used again."""
    weights = fingerprint(settings.model_dir if settings.local else "")
    name = settings.model_name + (f"@{weights[:12]}" if weights else "")
    with closing(make_actor(settings)) as actor:
        judge = Judge(
            actor, settings.prompt, seed=settings.seed, wave=settings.judge_wave, slots=settings.in_flight
        )

        def verdicts(run: Path, record: Record) -> int | None:
            path = run / "verdicts" / safe_name(name)
            cache = VerdictCache(
                path / episode_name(record["task"]["index"], record.get("sample", 0)), name, settings.prompt
            )
            steps, cut = tuple(Step(**step) for step in record["steps"]), record["prefix_steps"]
            keys = range(1, len(steps) + 1)
            found = judge.first_bad(Task(**record["task"]), steps, keys, cut, cache).step
            return None if found is None else found + 1 - cut

        def first_errors(run: Path, episodes: Sequence[Record]) -> list[int | None]:
            results: dict[int, int | None] = {}
            with (
                tqdm(total=len(episodes), desc=f"judge {run.name}", unit="episode", mininterval=1) as bar,
                closing(
                    run_tasks(
                        range(len(episodes)), lambda i: verdicts(run, episodes[i]), settings.workers, bar
                    )
                ) as ended,
            ):
                for i, result in ended:
                    if isinstance(result, Exception):
                        raise result
                    results[i] = result
            return [results[i] for i in range(len(episodes))]

        try:
            yield first_errors, {"by": "model", "model": name, "prompt": settings.prompt}
        finally:
            judge.close()


def describe(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Runs as columns."""
    width = max(24, *(len(name) + 2 for name in found))
    titles = {
        "revision_length": "revision length",
        "error_found": "failed, error found",
        "first_refused": "failed, first refused",
        "first_signal": "first signal, actions",
        "signals": "episodes with a signal",
    }

    def row(title: str, cells: Iterable[str]) -> str:
        return f"{title:24}" + "".join(f"{cell:>{width}}" for cell in cells)

    runs = list(found.values())
    return "\n".join(
        [
            row("", found),
            row("episodes (failed)", [f"{run['episodes']} ({run['failed']})" for run in runs]),
            *(
                row(f"repeats of length {k}", [estimate(run["repeated_sequences"][k]) for run in runs])
                for k in runs[0]["repeated_sequences"]
            ),
            *(row(title, [estimate(run[key]) for run in runs]) for key, title in titles.items()),
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Exit code.

    Raises:
        InputError: a run cannot be read, or the judge cannot be asked.
    """
    parser = argparse.ArgumentParser(prog="eval.py loops", description="repeated actions and revision length")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folders of finished runs")
    parser.add_argument(
        "--judge",
        choices=("predicate", "model"),
        default="predicate",
        help="who names the first error: predicate (the first refused action) or model (MODEL_DIR, OPENAI_BASE_URL)",
    )
    args = parser.parse_args(argv)
    for run in args.runs:
        summary_of(run)  # a wrong name is known before anything is asked
    found = {}
    if args.judge == "model":
        sigterm_as_interrupt()
        with model_first(settings_from_env().require("model_name")) as (first_errors, judged_by):
            for run in args.runs:
                found[run.name] = _written(run, report(run, first_errors, judged_by))
    else:
        for run in args.runs:
            found[run.name] = _written(run, report(run, refused_first, {"by": "predicate"}))
    sys.stdout.write(describe(found) + "\n")
    return 0


def _written(run: Path, found: dict[str, Any]) -> dict[str, Any]:
    write_json(run / "loops.json", found)
    return found
