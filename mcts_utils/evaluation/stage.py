"""Stage 4 over an eval set: roll out the missing episodes, one file each, then write the summary and the manifest.

It resumes (finished episodes are kept, begun ones use their journals) and records failures as data. It chooses no tasks
(eval_set.py) and computes no scores (summary.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from msgspec import UNSET
from msgspec.structs import asdict, replace

from mcts_utils.actors.wrapped import WrappedActor
from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool, session_limit
from mcts_utils.evaluation.eval_set import EpisodeStart
from mcts_utils.evaluation.few_shot import Examples
from mcts_utils.evaluation.metrics import scores
from mcts_utils.evaluation.protocol import EvalProtocol, differences
from mcts_utils.evaluation.results import summary_of
from mcts_utils.evaluation.summary import summarise
from mcts_utils.executors import FailureGuard, Saved, ignore, run_jobs
from mcts_utils.executors.spending import Spending
from mcts_utils.rollouts.episode import derive_seed, run_episode
from mcts_utils.rollouts.recorded import RecordedActor, RecordedPool, anew_without_record
from mcts_utils.storage.files import is_beginning, read_json, usable, write_json
from mcts_utils.storage.formats.base import StepFields, TaskFields, plain
from mcts_utils.storage.formats.episode import EpisodeFile, EpisodeSettings, FailedEpisode, parse_episode
from mcts_utils.storage.formats.manifest import EvaluationCounts
from mcts_utils.storage.formats.summary import Summary
from mcts_utils.storage.journal import Journals
from mcts_utils.storage.layout import episode_path, existing, run_folder
from mcts_utils.storage.manifest import fingerprint, read_manifest, write_manifest
from mcts_utils.terminal import Progress
from mcts_utils.types import Actor, InputError, MakeActor, MakeEnvironment, ServiceGone, one_line

FILE_START = b'{"version":1,"status":"'  # the first bytes of an episode's file


class EvaluationStage:
    """One model on one eval set under one protocol. Its folder is a function of task, model and MODEL_TYPE."""

    def __init__(
        self,
        settings: Settings,
        protocol: EvalProtocol,
        starts: Sequence[EpisodeStart],
        output_dir: str | Path,
        weights: str | None = None,
        examples: Examples | None = None,
        inputs: Sequence[str | Path] = (),
    ) -> None:
        """Set the stage up; nothing is read but the model's weights, for their fingerprint.

        Args:
            weights: fingerprint of MODEL_DIR if it is known already; computed if None.
            examples: the few-shot examples of the protocol.
            inputs: files that the starts and the examples were read from, for the manifest.
        """
        self._inputs = list(inputs)
        self.settings, self.protocol, self.examples = settings, protocol, examples
        self.starts = list(starts)
        self.server_kind, self.stop = protocol.server_kind, Event()
        self.usage: dict[str, Any] = {}  # calls and tokens of this run
        self.models, self.spending = {"actor": settings}, Spending(settings.reply_tokens)
        self._output_dir = Path(output_dir)
        kind = settings.model_type + ("_revise" if protocol.mode == "revise" else "")
        self.folder = run_folder(output_dir, settings.task, settings.model_name, kind)
        self.manifest = self.folder / "manifest.json"
        self._journals = Journals(self.folder)
        if weights is None:
            weights = fingerprint(settings.model_dir if settings.local else "", settings.chat_template)
        self._made_with = EpisodeSettings(**asdict(protocol), model=settings.model_name, weights=weights)

    @staticmethod
    def in_folder(
        made_with: tuple[Settings, EvalProtocol], how: tuple[Any, ...], journals: Journals, folder: Path
    ) -> EvaluationStage:
        """Return the stage of a worker process, which rolls out single episodes in a folder of its own."""
        made = EvaluationStage(*made_with, (), folder / "out", *how)
        made._journals = journals
        return made

    @property
    def folders(self) -> Mapping[str, Path]:
        return {"out": self._output_dir}

    def input_files(self, job: EpisodeStart) -> list[Path]:
        return []  # an episode needs nothing but its start

    def remote_factory(self) -> Callable[[Path], EvaluationStage]:
        made_with, how = (self.settings, self.protocol), (self._made_with.weights, self.examples)
        return partial(EvaluationStage.in_folder, made_with, how, self._journals)

    def run(
        self, make_actor: MakeActor, make_environment: MakeEnvironment, overwrite: bool = False
    ) -> Summary:
        """Roll out the episodes that are not finished; write and return the summary.

        Raises:
            InputError: finished files have other settings (unless `overwrite`), or the first episodes all fail.
            KeyboardInterrupt: after the running episodes have ended; the next run resumes from there.
        """
        began = time.monotonic()
        todo = [start for start in self.starts if not self.finished(start, overwrite)]
        with self._journals.running((self._path(start).stem for start in self.starts), bool(todo)):
            if todo:
                self._roll_out(todo, make_actor, make_environment)
            tokens = self._journals.with_recovered(self.usage) | self.spending.paid
            ran = bool(todo) or self._journals.interrupted
            return self._write_results(ran, tokens, time.monotonic() - began)

    @contextmanager
    def job_runner(
        self, make_actor: Callable[[], Any] | None, make_environment: MakeEnvironment, saved: Saved = ignore
    ) -> Iterator[Callable[[EpisodeStart], float]]:
        assert make_actor is not None
        actor = make_actor()
        if self.examples:
            actor = WrappedActor(actor, self.examples.before)
        pool = SessionPool(make_environment, session_limit(self.settings, self.server_kind))

        def roll_out(start: EpisodeStart) -> float:
            """Roll out one episode and return its reward."""
            reward = anew_without_record(self._episode, start, actor, pool)
            saved(self._path(start))
            return reward

        try:
            yield roll_out
        finally:
            pool.close()
            self.usage = actor.stats()
            actor.close()

    def _path(self, start: EpisodeStart) -> Path:
        return episode_path(self.folder, start.index, start.sample)

    def _settings(self, start: EpisodeStart) -> EpisodeSettings:
        return replace(self._made_with, prefix=start.digest())

    def _read(self, start: EpisodeStart) -> EpisodeFile | FailedEpisode:
        """Return an episode from its file; raise InputError if it is none."""
        path = existing(self._path(start))
        return parse_episode(read_json(path), str(path))

    def finished(self, start: EpisodeStart, overwrite: bool) -> bool:
        """Return True if the episode is on disk and was made with the same settings."""
        path = existing(self._path(start))
        if not path.exists():
            return False
        try:
            episode = self._read(start)
        except InputError as error:
            begun = is_beginning(path, FILE_START)
            if begun:
                print(f"{error}; it is played again", file=sys.stderr)
            if begun or overwrite:
                return False
            line = f"{path}: not a result file; remove it or pass --overwrite 1 ({error})"
            raise InputError(line) from error
        changed = differences(episode.settings, self._settings(start))
        if isinstance(episode, FailedEpisode) or (changed and overwrite):
            return False
        if changed:
            raise InputError(
                f"{path} was made with other settings ({'; '.join(changed)}): set another MODEL_TYPE, "
                "--output_dir, or --overwrite 1"
            )
        return True

    def _roll_out(
        self, todo: Sequence[EpisodeStart], make_actor: MakeActor, make_environment: MakeEnvironment
    ) -> None:
        """Roll out the episodes `todo` with a progress bar over all of them."""
        missing = {(start.index, start.sample) for start in todo}
        finished = [s for s in self.starts if (s.index, s.sample) not in missing]
        kept = [found.reward for start in finished if isinstance(found := self._read(start), EpisodeFile)]
        how = {"desc": self.protocol.mode, "unit": "episode", "mininterval": 1}
        make_bar = partial(Progress, total=len(self.starts), initial=len(kept), **how)
        slots = self.settings.in_flight
        with run_jobs(self, todo, slots, make_actor, make_environment, make_bar) as (results, bar):
            for path in (self.folder / "summary.json", self.manifest):  # of files that are about to change
                path.unlink(missing_ok=True)
            self._collect(results, kept, bar)

    def _collect(self, results: Iterable[tuple[EpisodeStart, Any]], kept: Sequence[float], bar: Any) -> None:
        """Count the results as they arrive and record failures. `kept`: rewards of episodes that earlier runs finished.

        Raises:
            InputError: an episode raised one; MAX_FAILURES episodes failed and none is finished; or the server or the
                endpoint is gone.
        """
        successes, guard = sum(scores.is_success(reward) for reward in kept), FailureGuard(len(kept))
        for start, result in results:
            if isinstance(result, InputError):
                raise result
            if isinstance(result, Exception):
                if not isinstance(result, ServiceGone):
                    self._record_failure(start, result)
                guard.require_success((start.index, start.sample), "tasks", result)
            else:
                guard.add_success((start.index, start.sample))
                self._journals.shrink(self._path(start).stem)
                successes += scores.is_success(result)
            share = f"{successes / guard.worked:.1%}" if guard.worked else "-"
            bar.set_postfix(success=share, failed=guard.failed, refresh=False)

    def _episode(self, start: EpisodeStart, actor: Actor, pool: SessionPool) -> float:
        """Roll out one episode, write its file and return its reward."""
        began = time.monotonic()
        sample = (start.sample,) if start.sample else ()  # the first has the seed of a single episode
        with (
            self._journals.open(self._path(start).stem, self._settings(start)) as journal,
            RecordedPool(pool, journal).session() as env,
        ):
            episode = run_episode(
                RecordedActor(actor, journal),
                env,
                start.index,
                prompt=self.protocol.prompt,
                max_steps=self.protocol.max_steps,
                temperature=self.protocol.temperature,
                seed=derive_seed(self.settings.seed, start.index, *sample),
                prefix=start.prefix,
                stopped=self.stop.is_set,
            )
        if start.task_id and episode.task.id != start.task_id:
            other = f"goal {episode.task.id} on this server, not {start.task_id}"
            raise InputError(f"index {start.index} is {other}")
        file = EpisodeFile(
            task=TaskFields.of(episode.task),
            steps=[StepFields.of(step) for step in episode.steps],
            reward=episode.reward,
            end=episode.end,
            prefix_steps=len(start.prefix),
            prefix_exact=start.replayed_exactly(episode.steps),
            seconds=round(time.monotonic() - began, 3),
            prompt=self.protocol.prompt,
            settings=self._settings(start),
            sample=start.sample or UNSET,
        )
        write_json(self._path(start), file)
        return episode.reward

    def _record_failure(self, start: EpisodeStart, error: Exception) -> None:
        """Write a failed episode: its file has the error, no score counts it, and the next run tries it again."""
        sample, settings = start.sample or UNSET, self._settings(start)
        file = FailedEpisode(index=start.index, error=one_line(error), settings=settings, sample=sample)
        write_json(self._path(start), file)

    def _write_results(self, ran: bool, tokens: Mapping[str, Any], seconds: float) -> Summary:
        """Write summary.json, then the manifest, and return the summary; keep both if the run had nothing to do."""
        path, manifest = (self.folder / name for name in ("summary.json", "manifest.json"))
        outputs = [*(existing(self._path(start)) for start in self.starts), path]
        episodes = [self._read(start) for start in self.starts]
        model = {"model_name": self.settings.model_name, "model_type": self.settings.model_type}
        samples = 1 + max((start.sample for start in self.starts), default=0)
        scored = summarise(episodes, self.protocol, model, samples)
        s = summary = replace(scored, seconds=round(seconds, 3), tokens=dict(tokens))
        if not ran and (old := usable(path, lambda: summary_of(self.folder))):
            s = summary = replace(scored, seconds=old.seconds, tokens=old.tokens)
            # A summary of an earlier version has no `replies`.
            same = summary == replace(old, replies=summary.replies)
            if usable(manifest, lambda: read_manifest(manifest)) is not None and same:
                return old
        write_json(path, summary)
        counts = plain(EvaluationCounts(n=s.n, n_failed=s.n_failed, ends=s.ends, replies=s.replies))
        settings = {**self.settings.public(), **plain(self._made_with)}
        write_manifest(self.manifest, "eval", settings, self._inputs, outputs, counts, s.tokens, s.seconds)
        each = zip(self.starts, episodes, strict=True)
        self._journals.settle(self._path(s).stem for s, episode in each if isinstance(episode, EpisodeFile))
        return summary
