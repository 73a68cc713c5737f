"""Evaluation episodes over a panel: roll out what is missing, one file an episode, then the summary and the manifest.

It resumes (a finished file is not run again) and records failures as data. It chooses no tasks (panel.py) and counts
nothing itself (scorecard.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from tqdm import tqdm

from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.evaluation import metrics
from mcts_utils.evaluation.eval_set import EpisodeStart
from mcts_utils.evaluation.few_shot import Examples, ShownExamples
from mcts_utils.evaluation.protocol import EvalProtocol, differences
from mcts_utils.evaluation.summary import summarise
from mcts_utils.executors import ignore, run_jobs
from mcts_utils.rollouts.episode import derive_seed, run_episode
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.layout import episode_name, test_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.types import Actor, Environment, InputError, Step, one_line

RECORD_VERSION = 1
HOPELESS = 3  # failures without one finished episode: the server or the endpoint is at fault, not the tasks


class EvaluationStage:
    """One model on one panel under one protocol; its folder is a function of task, model and MODEL_TYPE."""

    def __init__(
        self,
        settings: Settings,
        protocol: EvalProtocol,
        starts: Sequence[EpisodeStart],
        output_dir: str | Path,
        weights: str | None = None,
        examples: Examples | None = None,
    ) -> None:
        """`weights`: what storage.fingerprint says of MODEL_DIR, if known. `examples`: those of the protocol."""
        self.settings, self.examples = settings, examples
        self.task_set, self.stop = protocol.task_set, Event()
        self.usage: dict[str, Any] = {}  # of this run
        self._root = Path(output_dir)
        self.protocol = protocol
        self.starts = list(starts)
        kind = settings.model_type + ("_revise" if protocol.mode == "revise" else "")
        self.folder = test_path(output_dir, settings.task, settings.model_name, kind, 0).parent
        self._how = {
            **protocol.record(),
            "model": settings.model_name,
            "weights": fingerprint(settings.model_dir if settings.local else "")
            if weights is None
            else weights,
        }

    @classmethod
    def from_folder(
        cls,
        settings: Settings,
        protocol: EvalProtocol,
        weights: str,
        examples: Examples | None,
        folder: Path,
    ) -> EvaluationStage:
        """Return the stage of a worker process, which plays single episodes in a folder of its own."""
        return cls(settings, protocol, (), folder / "out", weights, examples)

    @property
    def folders(self) -> Mapping[str, Path]:
        """See cluster.Stage."""
        return {"out": self._root}

    def input_files(self, job: EpisodeStart) -> list[Path]:
        """See cluster.Stage: an episode begins at its start."""
        return []

    def remote_factory(self) -> Callable[[Path], EvaluationStage]:
        """See cluster.Stage."""
        return partial(
            EvaluationStage.from_folder, self.settings, self.protocol, self._how["weights"], self.examples
        )

    def run(
        self,
        make_actor: Callable[[], Actor],
        make_environment: Callable[[], Environment],
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Run what is not finished and return the summary, which is then in summary.json.

        Raises:
            InputError: when finished files have other settings (unless `overwrite`), or nothing works at all.
            KeyboardInterrupt: after the running episodes ended; the next run goes on from there.
        """
        began = time.monotonic()
        todo = [start for start in self.starts if not self._finished(start, overwrite)]
        if todo:
            self._roll_out(todo, make_actor, make_environment)
        return self._conclude(bool(todo), self.usage, time.monotonic() - began)

    @contextmanager
    def job_runner(
        self,
        make_actor: Callable[[], Any] | None,
        make_environment: Callable[[], Environment],
        saved: Callable[[Path], None] = ignore,
    ) -> Iterator[Callable[[EpisodeStart], float]]:
        """See cluster.Stage: one episode, and its reward."""
        assert make_actor is not None
        actor = ShownExamples(make_actor(), self.examples) if self.examples else make_actor()
        pool = SessionPool(make_environment)

        def work(start: EpisodeStart) -> float:
            reward = self._episode(start, actor, pool)
            saved(self._path(start))
            return reward

        try:
            yield work
        finally:
            pool.close()
            self.usage = actor.stats()
            actor.close()

    def _path(self, start: EpisodeStart) -> Path:
        return self.folder / episode_name(start.index, start.sample)

    def _finished(self, start: EpisodeStart, overwrite: bool) -> bool:
        """True if the episode is on disk and made in the same way."""
        path = self._path(start)
        if not path.exists():
            return False
        try:
            record = read_json(path)
            changed = differences(record.get("settings", {}), {**self._how, "prefix": start.digest()})
        except (InputError, AttributeError) as error:
            if overwrite:
                return False
            raise InputError(
                f"{path}: not a result file; remove it or pass --overwrite 1 ({error})"
            ) from error
        if record.get("status") != "done" or (changed and overwrite):
            return False
        if changed:
            raise InputError(
                f"{path} was made with other settings ({'; '.join(changed)}): set another MODEL_TYPE, "
                "--output_dir, or --overwrite 1"
            )
        return True

    def _roll_out(
        self,
        todo: Sequence[EpisodeStart],
        make_actor: Callable[[], Actor],
        make_environment: Callable[[], Environment],
    ) -> None:
        missing = {(start.index, start.sample) for start in todo}
        finished = [s for s in self.starts if (s.index, s.sample) not in missing]
        kept = [read_json(self._path(start))["reward"] for start in finished]
        make_bar = partial(
            tqdm,
            total=len(self.starts),
            initial=len(kept),
            desc=self.protocol.mode,
            unit="episode",
            mininterval=1,
        )
        slots = self.settings.in_flight
        with run_jobs(self, todo, slots, make_actor, make_environment, make_bar) as (results, bar):
            for name in ("summary.json", "manifest.json"):  # they speak of files that are about to change
                (self.folder / name).unlink(missing_ok=True)
            self._settle(results, kept, bar)

    def _settle(self, results: Iterable[tuple[EpisodeStart, Any]], kept: Sequence[float], bar: Any) -> None:
        """Take the results as they come. `kept`: rewards of earlier runs."""
        wins, done, failed = sum(metrics.is_success(reward) for reward in kept), len(kept), 0
        for start, result in results:
            if isinstance(result, InputError):
                raise result
            if isinstance(result, Exception):
                failed += 1
                self._record_failure(start, result)
                if failed >= HOPELESS and not done:
                    raise InputError(f"{failed} tasks failed and none worked; the last: {one_line(result)}")
            else:
                done, wins = done + 1, wins + metrics.is_success(result)
            bar.set_postfix(success=f"{wins / done:.1%}" if done else "-", failed=failed, refresh=False)

    def _episode(self, start: EpisodeStart, actor: Actor, pool: SessionPool) -> float:
        began = time.monotonic()
        sample = (start.sample,) if start.sample else ()  # the first is as it is where there is no other
        with pool.session() as env:
            episode = run_episode(
                actor,
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
            raise InputError(
                f"index {start.index} is goal {episode.task.id} on this server, not {start.task_id}"
            )
        record = {
            "version": RECORD_VERSION,
            "status": "done",
            **asdict(episode),
            "prefix_steps": len(start.prefix),
            "prefix_exact": _same_answers(start.prefix, episode.steps),
            "seconds": round(time.monotonic() - began, 3),
            "prompt": self.protocol.prompt,
            "settings": {**self._how, "prefix": start.digest()},
            **({"sample": start.sample} if start.sample else {}),
        }
        write_json(self._path(start), record)
        return episode.reward

    def _record_failure(self, start: EpisodeStart, error: Exception) -> None:
        """A failed task is data: it says why, counts in no score, and the next run tries it again."""
        write_json(
            self._path(start),
            {
                "version": RECORD_VERSION,
                "status": "failed",
                "index": start.index,
                "error": one_line(error),
                "settings": {**self._how, "prefix": start.digest()},
                **({"sample": start.sample} if start.sample else {}),
            },
        )

    def _conclude(self, ran: bool, tokens: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """summary.json, then the manifest. A run that found everything done leaves both as they are."""
        files = [self._path(start) for start in self.starts]
        records = [read_json(path) for path in files]
        model = {"model_name": self.settings.model_name, "model_type": self.settings.model_type}
        cost = {"seconds": round(seconds, 3), "tokens": dict(tokens)}
        samples = 1 + max((start.sample for start in self.starts), default=0)
        summary = {**summarise(records, self.protocol.record(), model, samples), **cost}
        path = self.folder / "summary.json"
        if not ran and path.exists():
            old = read_json(path)
            if summary == {**old, **cost}:
                return old
        write_json(path, summary)
        counts = {key: summary[key] for key in ("n", "n_failed", "ends")}
        settings = {**self.settings.public(), **self._how}
        write_manifest(
            self.folder / "manifest.json", "eval", settings, [], [*files, path], counts, tokens, seconds
        )
        return summary


def _same_answers(prefix: Sequence[Step], steps: Sequence[Step]) -> bool:
    """True if the replayed prefix was answered as it was recorded."""
    return [(s.observation, s.reward) for s in prefix] == [
        (s.observation, s.reward) for s in steps[: len(prefix)]
    ]
