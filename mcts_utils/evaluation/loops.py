"""`eval.py loops`: repeated actions (Figure 4) and revision length (Figure 5) of finished runs, from their files.

    python eval.py loops test_result/textcraft/NAME_base test_result/textcraft/NAME_tuned
    MODEL_DIR=models/tiny_actor python eval.py loops --judge model test_result/textcraft/NAME_base

Writes loops.json into each run's folder, and the judge's verdicts below verdicts/ there, for later calls. It needs no
environment server and rolls nothing out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from mcts_utils.actors.factory import make_actor, require_actor
from mcts_utils.config import Settings, judge_settings, settings_from_env
from mcts_utils.evaluation.metrics import behaviour, scores
from mcts_utils.evaluation.results import by_task, episodes_of, summary_of
from mcts_utils.evaluation.summary import estimate_text
from mcts_utils.executors.spending import limited
from mcts_utils.executors.threads import run_tasks
from mcts_utils.prompts import is_signal_step
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.verdict_cache import VerdictCache
from mcts_utils.rollouts.steps import is_refused
from mcts_utils.storage.files import write_json
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.episode import EpisodeFile
from mcts_utils.storage.formats.summary import Estimate, LoopJudge, LoopReport
from mcts_utils.storage.layout import verdicts_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.tables import text_row
from mcts_utils.terminal import Parser, Progress
from mcts_utils.types import Actor, InputError

FirstErrors = Callable[[Path, Sequence[EpisodeFile]], list[int | None]]


def loop_report(run: Path, first_errors: FirstErrors, judged_by: LoopJudge) -> LoopReport:
    """Return the numbers of one run, as in loops.json.

    Args:
        first_errors: returns, for failed episodes, the number (from 1) of the agent's own step that is the first error,
            or None.
        judged_by: description of `first_errors`.

    Returns:
        repeated_sequences: length -> mean count per episode; revision_length: the number of actions up to and including
        the first error, over failed episodes that have one; error_found: the share of those; first_refused: the same
        as revision_length with the first refused action as the error; first_signal: the number of actions up to and
        including the agent's first revision signal; signals: the share of episodes with one. Each has mean, n (tasks)
        and ci95. errors_repeated, errors_signalled, signals_same and signals_accepted: shares, see
        behaviour.after_errors. Steps of a replayed prefix are not counted.

    Raises:
        InputError: the run has no finished episode.
    """
    episodes = [episode for samples in by_task(episodes_of(run)).values() for episode in samples]
    if not episodes:
        raise InputError(f"{run}: no finished episode")
    steps, tasks = [episode.own_steps for episode in episodes], [episode.task.index for episode in episodes]
    failed = {i: episode for i, episode in enumerate(episodes) if not scores.is_success(episode.reward)}
    errors, refused = (
        dict(zip(failed, positions(run, list(failed.values())), strict=True))
        for positions in (first_errors, first_refused)
    )
    signals = dict(enumerate(behaviour.actions_until(taken, is_signal_step) for taken in steps))
    repeats = behaviour.repeats_by_length([[step.action for step in taken] for taken in steps], tasks)
    return LoopReport(
        panel=summary_of(run).protocol.panel or "",
        episodes=len(episodes),
        failed=len(failed),
        repeated_sequences=repeats,
        judge=judged_by,
        revision_length=_mean_position(errors, tasks),
        error_found=_share(errors, tasks),
        first_refused=_mean_position(refused, tasks),
        first_signal=_mean_position(signals, tasks),
        signals=_share(signals, tasks),
        **_after_errors(episodes, tasks),
    )


def _after_errors(episodes: Sequence[EpisodeFile], tasks: Sequence[int]) -> dict[str, Any]:
    """Return the shares of behaviour.after_errors over all episodes, with intervals over tasks."""
    counts = [
        behaviour.after_errors(episode.own_steps, partial(is_refused, episode.task.env), is_signal_step)
        for episode in episodes
    ]
    shares = {}
    for name in counts[0]:
        parts, wholes = zip(*(count[name] for count in counts), strict=True)
        shares[name] = behaviour.per_task(parts, wholes, tasks)
    return shares


def _mean_position(positions: Mapping[int, int | None], tasks: Sequence[int]) -> Estimate:
    """Return the mean position over the episodes that have one, by number, with an interval over tasks."""
    known = {i: float(position) for i, position in positions.items() if position is not None}
    return behaviour.per_task(list(known.values()), tasks=[tasks[i] for i in known])


def _share(positions: Mapping[int, int | None], tasks: Sequence[int]) -> Estimate:
    """Return the share of the episodes that have a position; Wilson's interval if each task has one episode."""
    groups: dict[int, list[float]] = {}
    for i, position in positions.items():
        groups.setdefault(tasks[i], []).append(float(position is not None))
    return scores.mean_at_k(list(groups.values()))


def first_refused(run: Path, episodes: Sequence[EpisodeFile]) -> list[int | None]:
    """Return, for each episode, the number of the first action that the environment refused, or None."""
    return [behaviour.actions_until(e.own_steps, partial(is_refused, e.task.env)) for e in episodes]


class EpisodeJudge:
    """The first error of an episode by the actor's verdicts, as in the paper. Verdicts on disk are used again."""

    def __init__(self, settings: Settings, actor: Actor) -> None:
        self.settings, self.actor = settings, actor
        weights = fingerprint(settings.model_dir if settings.local else "", settings.chat_template)
        self.model = settings.model_name + (f"@{weights[:12]}" if weights else "")

    def first_error(self, judge: Judge, run: Path, episode: EpisodeFile) -> int | None:
        """Return the number (from 1) of the agent's own step that is first called bad, or None."""
        path = verdicts_path(run, episode.task.index, episode.sample or 0, self.model)
        cache = VerdictCache(path, self.model, self.settings.prompt, self.settings.max_token_length)
        steps, cut = episode.all_steps, episode.prefix_steps
        keys = range(1, len(steps) + 1)
        bad = judge.first_bad(episode.task.task(), steps, keys, cut, cache).step
        return None if bad is None else bad + 1 - cut

    def first_errors(self, run: Path, episodes: Sequence[EpisodeFile]) -> list[int | None]:
        """Return the first error of each episode; many are judged at once, within the limits for the run's folder."""
        s, every = self.settings, range(len(episodes))
        how: dict[str, Any] = {
            "seed": s.seed,
            "wave": s.judge_wave,
            "slots": s.in_flight,
            "votes": s.judge_votes,
        }
        results: dict[int, int | None] = {}
        with (
            limited(s, run / "loops.manifest.json", self.actor) as actor,
            closing(Judge(actor, s.prompt, **how)) as judge,
            Progress(total=len(episodes), desc=f"judge {run.name}", unit="episode") as bar,
            closing(
                run_tasks(lambda i: self.first_error(judge, run, episodes[i]), s.workers, Event(), every, bar)
            ) as ended,
        ):
            for i, result in ended:
                if isinstance(result, Exception):
                    raise result
                results[i] = result
        return [results[i] for i in every]


@contextmanager
def model_first_errors(settings: Settings) -> Iterator[tuple[FirstErrors, LoopJudge]]:
    """Open the judge, the actor or another model; yield its `first_errors` and its description."""
    settings = judge_settings(settings)
    with closing(make_actor(settings)) as actor:
        judge = EpisodeJudge(settings, actor)
        yield judge.first_errors, LoopJudge(by="model", model=judge.model, prompt=settings.prompt)


def describe(found: Mapping[str, LoopReport]) -> str:
    """Return the numbers as a table with one column per run."""
    titles = {
        "revision_length": "revision length",
        "error_found": "failed, error found",
        "first_refused": "failed, first refused",
        "first_signal": "first signal, actions",
        "signals": "episodes with a signal",
        "errors_repeated": "refused, taken again",
        "errors_signalled": "refused, then a signal",
        "signals_same": "signal, then the same",
        "signals_accepted": "signal, then accepted",
    }
    row, runs = text_row(24, max(24, *(len(name) + 2 for name in found))), list(found.values())
    lines = [row("", found), row("episodes (failed)", [f"{run.episodes} ({run.failed})" for run in runs])]
    for k in runs[0].repeated_sequences:
        texts = [estimate_text(run.repeated_sequences[k]) for run in runs]
        lines.append(row(f"repeats of length {k}", texts))
    for key, title in titles.items():
        lines.append(row(title, [estimate_text(getattr(run, key)) for run in runs]))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run `eval.py loops` and return the exit code 0.

    Raises:
        InputError: a run cannot be read, or the settings name no judge.
    """
    parser = Parser(prog="eval.py loops", description="repeated actions and revision length")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folders of finished runs")
    whose = "predicate (the first refused action) or model (MODEL_DIR, OPENAI_BASE_URL)"
    about = f"who names the first error: {whose}"
    parser.add_argument("--judge", choices=("predicate", "model"), default="predicate", help=about)
    args = parser.parse_args(argv)
    for run in args.runs:
        summary_of(run)  # a wrong name is reported before any request
    found = {}
    if args.judge == "model":
        settings = settings_from_env()
        require_actor(judge_settings(settings), say=True)
        with model_first_errors(settings.require("model_name")) as (first_errors, judged_by):
            for run in args.runs:
                found[run.name] = _save(run, loop_report(run, first_errors, judged_by))
    else:
        for run in args.runs:
            found[run.name] = _save(run, loop_report(run, first_refused, LoopJudge(by="predicate")))
    sys.stdout.write(describe(found) + "\n")
    return 0


def _save(run: Path, found: LoopReport) -> LoopReport:
    """Write loops.json with its manifest, and return its contents."""
    path = run / "loops.json"
    write_json(path, found)
    manifest, verdicts = path.with_suffix(".manifest.json"), sorted((run / "verdicts").glob("*/*.json"))
    outputs = [path, *verdicts]
    write_manifest(manifest, "loops", plain(found.judge), [run / "summary.json"], outputs, {}, {}, 0.0)
    return found
