"""Stage 2 over many trees: build each tree's records, several trees at once, then write one JSONL and its manifest.

A bad tree file or a failed tree is reported and counted, and stops nothing else. Verdicts are kept per tree, and so are
the answers of a run that is interrupted, so that the next one only replays. What a record is, is in builder.py.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.envs import task_id
from mcts_utils.envs.contamination import HeldOut
from mcts_utils.envs.session_pool import SessionPool, session_limit
from mcts_utils.envs.task_set import TaskSet
from mcts_utils.executors import FailureGuard, Saved, ignore, run_jobs
from mcts_utils.executors.spending import Spending
from mcts_utils.revision.builder import Built, TreeBuilder, run_counts
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.judge_source import JudgeSource, models_of, models_opened
from mcts_utils.revision.live_rows import MADE, is_live, is_live_folder, live_rows
from mcts_utils.revision.options import EXPERT, Options
from mcts_utils.revision.record import Source, UniqueRows, first_rows
from mcts_utils.revision.resume import finished_counts, relevant_settings
from mcts_utils.revision.votes import patterns
from mcts_utils.rollouts.recorded import RecordedActor, RecordedPool, anew_without_record
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.search.tree_io import BadTree, check_tree, read_tree
from mcts_utils.storage.files import RowSpool, remove_temporary, sha256_file, write_jsonl
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.manifest import RevisionCounts
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.storage.journal import Journals
from mcts_utils.storage.layout import existing, manifest_path, records_path, tree_files, verdicts_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.terminal import Progress
from mcts_utils.types import Actor, ActorError, InputError, MakeActor, MakeEnvironment, one_line


class RevisionStage:
    """One run of stage 2: a folder of trees to one records file."""

    unit = "tree"  # what a job is

    def __init__(
        self,
        settings: Settings,
        options: Options,
        input_dir: str | Path,
        output_dir: str | Path,
        judged: bool = True,
        allow_test: bool = False,
        tasks: TaskSet | None = None,
        weights: str | None = None,
        most: int = 0,
    ) -> None:
        """Prepare a run; nothing is read or asked yet, but for MODEL_DIR.

        Args:
            judged: the actor finds the cuts; else the first refused step is the cut (`--revise 0`).
            allow_test: take trees of test tasks too.
            tasks: the server's, asked once something is to be done. Trees of another kind of server are refused, since
                their indices are other tasks there; so are trees of test tasks. None checks neither.
            weights: storage.manifest.fingerprint of MODEL_DIR, if that is known.
            most: rows in all; 0: any number.
        """
        self._tasks, self._allow_test, self._most = tasks, allow_test, most
        self.server_kind, self._held_out = "", HeldOut()
        self._weights = (
            fingerprint(settings.model_dir, settings.chat_template) if weights is None else weights
        )
        self.settings, self.options, self.judged = settings, options, judged
        self.judge = JudgeSource.of(settings, self._weights) if judged else None
        self.input_dir, self.output_dir = Path(input_dir), Path(output_dir)
        self.jobs: list[tuple[int, str]] = []  # (index, name of the tree's file)
        self.output = records_path(output_dir, settings.task, options.data_type)
        self._journals = Journals(self.output_dir, self.output.stem)
        self.manifest = manifest_path(output_dir, settings.task, options.data_type)
        self.models, self.spending = models_of(settings, self.judge), Spending(settings.reply_tokens)
        self.stop = Event()
        self.usage: dict[str, Any] = {}  # of this run
        self.unparsed = ""  # what an answer was that gave no verdict
        self._failed: dict[Path, str] = {}  # tree that failed -> one line
        self.resumed = False  # True: an earlier run had done all of it
        self._total: Counter[str] = Counter()  # counts of the jobs that worked
        self._more: dict[str, Any] = {}  # further arguments of a subclass

    @staticmethod
    def in_folder(make: Callable[..., RevisionStage], known: tuple[Any, ...], folder: Path) -> RevisionStage:
        """Return the stage of a worker process, which does single jobs in a folder of its own."""
        made = make(input_dir=folder / "in", output_dir=folder / "out")
        made.server_kind, made._held_out, made._journals = known
        return made

    def run(self, make_actor: MakeActor | None, make_environment: MakeEnvironment) -> RevisionCounts:
        """Convert every tree and return the manifest's counts; `failures` then says what went wrong.

        Args:
            make_actor: makes the actor that judges and repairs; None if neither is done.

        Raises:
            InputError: if there are no trees, or actor or server are gone; the output of an earlier run is kept.
            KeyboardInterrupt: the verdicts so far are kept, the next run asks only for the others.
        """
        began = time.monotonic()
        earlier = self.earlier_counts()
        names = [Path(name).stem for _, name in self.jobs]
        remove_temporary(self.output_dir, f"{self.output.stem}.")
        if self.judged:  # no other run writes verdicts
            remove_temporary(verdicts_path(self.output_dir, 0).parent)
        if earlier is not None:
            self._journals.clear(names)
            self.resumed = True
            return earlier
        if self._tasks is not None:
            self.server_kind = self._tasks.kind()
            self._held_out = self._tasks.held_out(self._tasks.test_ids())
        with self._journals.running(names), closing(RowSpool(self.output_dir, RecordRow)) as spool:
            self._convert(make_actor, make_environment, spool)
            return self._conclude(spool, time.monotonic() - began)

    def earlier_counts(self) -> RevisionCounts | None:
        """Find the jobs; return the counts of an earlier run that did all of them, or None."""
        self.jobs = self._find_jobs()
        files, settings = self._inputs(dict(self.jobs)), self._relevant_settings()
        return finished_counts(self.manifest, self.output, settings, files)

    def _verdict_files(self) -> list[Path]:
        """Return the files of verdicts on the trees, where a judge finds the cuts, or found them in live episodes."""
        live = self.options.data_type in MADE and is_live_folder(self.input_dir, self.settings.task)
        indices = [index for index, _ in self.jobs] if self.judge or live else []
        found = [existing(verdicts_path(self.output_dir, index)) for index in indices]
        return [path for path in found if path.exists()]

    def _find_jobs(self) -> list[tuple[int, str]]:
        return [(index, path.name) for index, path in tree_files(self.input_dir, "--input_dir").items()]

    def _inputs(self, done: Container[int]) -> list[Path]:
        """Return the files that the rows of these indices come from."""
        return [self.input_dir / name for index, name in self.jobs if index in done]

    @property
    def folders(self) -> Mapping[str, Path]:
        return {"in": self.input_dir, "out": self.output_dir}

    def input_files(self, job: tuple[int, str]) -> list[Path]:
        """Return the files of the tree and of the verdicts on it."""
        index, name = job
        return [self.input_dir / name, existing(verdicts_path(self.output_dir, index))]

    @property
    def failures(self) -> list[str]:
        """Return a line for each tree that failed."""
        return list(self._failed.values())

    def remote_factory(self) -> Callable[[Path], RevisionStage]:
        self._more |= {"judged": self.judged, "allow_test": self._allow_test, "weights": self._weights}
        make = partial(type(self), self.settings, self.options, **self._more)
        known = self.server_kind, self._held_out, self._journals
        return partial(RevisionStage.in_folder, make, known)

    @contextmanager
    def job_runner(
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, saved: Saved = ignore
    ) -> Iterator[Callable[[tuple[int, str]], Built]]:
        """Yield the function that builds the records of one tree (executors.stage.Stage).

        A judge of its own is opened here; `make_actor` makes the actor that repairs, and judges if there is no other.
        """
        with closing(SessionPool(make_environment, session_limit(self.settings, self.server_kind))) as pool:
            with pool.session():
                pass  # report an unusable server before a model is loaded
            with models_opened(self, make_actor) as (actor, judge):
                yield lambda job: anew_without_record(self._build, *job, pool, judge, actor, saved)

    def _relevant_settings(self) -> dict[str, Any]:
        judge = self.judge.name if self.judge else ""
        found = relevant_settings(self.settings, self.options, judge, self._allow_test)
        return found | ({"most": self._most} if self._most else {})

    def _convert(
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, spool: RowSpool[RecordRow]
    ) -> None:
        """Build every tree's rows into the spool; only the trees being built are in memory."""
        make_bar = partial(Progress, total=len(self.jobs), desc=self.options.data_type, unit=self.unit)
        workers = self.settings.workers
        with run_jobs(self, self.jobs, workers, make_actor, make_environment, make_bar) as (results, bar):
            self._collect(results, spool, bar)

    def _collect(
        self, results: Iterable[tuple[tuple[int, str], Any]], spool: RowSpool[RecordRow], bar: Any
    ) -> None:
        """Add the results to the spool and the totals as they come."""
        guard, records = FailureGuard(), 0
        for (index, name), result in results:
            if isinstance(result, Exception):
                hopeless = not isinstance(result, BadTree) and guard.add_failure(index, result)
                self._add_failure(self.input_dir / name, result, hopeless)
            else:
                self._failed.pop(self.input_dir / name, None)
                spool.add(index, result.rows)
                self._total.update(result.counts)
                self.unparsed = self.unparsed or result.unparsed
                guard.add_success(index)
                records += len(result.rows)
            bar.set_postfix(records=records, failed=len(self.failures), refresh=False)

    def _add_failure(self, path: Path, error: Exception, hopeless: bool) -> None:
        """Note a job that failed.

        Raises:
            InputError: if the actor is gone, or the caller knows that the server is (`hopeless`).
        """
        line = f"{path}: {error if isinstance(error, BadTree) else one_line(error)}"
        self._failed[path] = " ".join(line.split())
        if isinstance(error, ActorError) or hopeless:
            raise InputError(f"stopped, nothing written, verdicts kept: {self._failed[path]}") from error

    def _build(
        self, index: int, name: str, pool: SessionPool, judge: Judge | None, actor: Actor | None, saved: Saved
    ) -> Built:
        """Read one tree, check it and build its rows; the tree is in memory only meanwhile."""
        settings, path = self.settings, self.input_dir / name
        tree = read_tree(path, settings.task, index)
        check_tree(tree, settings, self.server_kind, None if self._allow_test else self._held_out)
        history = tree.settings.get("history_reasoning", Settings.history_reasoning)
        source = Source(name, sha256_file(path), tree.prompt, settings.seed, history, settings.form)
        if is_live(tree):
            return live_rows(tree, source, self.options, self.output_dir, saved)
        expected_id = task_id(settings.task, tree.task.opening, tree.task.index)
        scope = [source.sha256, self.server_kind, self._weights, self._relevant_settings()]
        kept_verdicts = verdicts_path(self.output_dir, index)
        cache = self.judge.cache(kept_verdicts) if judge and self.judge else None
        try:
            with self._journals.open(path.stem, scope) as journal:
                repairer, kept = RecordedActor(actor, journal) if actor else None, RecordedPool(pool, journal)
                replayer = Replayer(kept, tree.task.index, expected_id, self.stop.is_set, settings.form)
                find_cut = self.judge.cuts(judge, cache, journal) if judge and self.judge and cache else None
                built = TreeBuilder(tree, source, self.options, replayer, find_cut, repairer).build()
        finally:
            if cache and cache.path.exists():
                saved(cache.path)
        if cache:
            built.counts.update({f"verdict {label}": count for label, count in cache.counts().items()})
            built.counts.update(patterns(cache.used.values()))
            unparsed = [verdict.reason for verdict in cache.used.values() if not verdict.parsed]
            built = replace(built, unparsed=next(iter(unparsed), ""))
        built.counts["partial_trees"] = int(tree.status != "done")
        return built

    def _conclude(self, spool: RowSpool[RecordRow], seconds: float) -> RevisionCounts:
        """Write the records, then the manifest, and return its counts.

        Raises:
            InputError: if no tree worked; the output of an earlier run is kept.
        """
        if not len(spool):
            raise InputError(f"no {self.unit} could be used; the first: {self.failures[0]}")
        total, unique, loops_last = self._total, self.options.unique, self.options.data_type == EXPERT
        rows = UniqueRows(spool.rows(), unique)
        if self._most:
            rows, over = first_rows(spool.rows, unique, self._most, self.settings.seed, loops_last)
            total.update(over)
        written = write_jsonl(self.output, rows)
        total["duplicate"] += rows.left_out
        counts = run_counts(total, rows, written, len(spool), self.failures)
        inputs = self._inputs({index for index, _ in self.jobs if index in spool})
        settings = self._relevant_settings() | {"goals": self.server_kind}
        manifest, outputs = self.manifest, [self.output, *self._verdict_files()]
        usage = self._journals.with_recovered(self.usage) | self.spending.paid
        write_manifest(manifest, "revision", settings, inputs, outputs, plain(counts), usage, seconds)
        ended = (Path(name).stem for index, name in self.jobs if index in spool)
        self._journals.settle(ended)
        return counts
