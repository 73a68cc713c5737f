"""Stage 2 over many trees: build each tree's records, several trees at once, then write one JSONL and its manifest.

One bad tree file or one failed tree is reported and counted, and stops nothing else. What a record is, is records.py's
business; verdicts are kept per tree, so an interrupted run only replays.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from tqdm import tqdm

from mcts_utils.config import Settings
from mcts_utils.envs import task_id
from mcts_utils.envs.contamination import HeldOut, HeldOutTask
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.executors import ignore, run_jobs
from mcts_utils.revision.builder import REASONS, Built, FindCut, Options, TreeBuilder
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.record import Source, UniqueRows
from mcts_utils.revision.verdict_cache import LABELS, VerdictCache, judge_name
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.search.tree import Tree
from mcts_utils.search.tree_io import BadTree, read_tree
from mcts_utils.storage.files import RowSpool, read_json, sha256_file, write_jsonl
from mcts_utils.storage.layout import manifest_path, records_path, tree_files, verdicts_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.types import Actor, ActorError, Environment, InputError, one_line

HOPELESS = 3  # trees that fail in a row: the server is at fault, not the trees


# Where and how fast the work is done; the records do not depend on it.
PASSING = (
    *("env_server_base", "openai_base_url", "concurrency", "workers", "model_dir", "executor"),
    "judge_wave",
    *("ray_address", "ray_workers", "ray_cpus_per_worker", "ray_gpus_per_worker"),
)


class RevisionStage:
    """One run of stage 2: a folder of trees to one records file."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        input_dir: str | Path,
        output_dir: str | Path,
        judged: bool = True,
        allow_test: bool = False,
        look: Callable[[], tuple[str, HeldOut]] = lambda: ("", HeldOut()),
        weights: str | None = None,
    ) -> None:
        """`judged`: the actor finds the cuts; else the first refused step is the cut (`--revise 0`).

        `look` is asked once something is to be done: the kind of the server (envs.server_about), since trees of another
        kind are refused, their indices are other tasks there; and what is held out, since trees of test tasks are
        refused too unless `allow_test`. `weights`: what storage.fingerprint says of MODEL_DIR, where that is known.
        """
        self._look, self._allow_test = look, allow_test
        self.task_set, self._held_out = "", HeldOut()
        self._weights = fingerprint(settings.model_dir) if weights is None else weights
        self.settings, self.options, self.output_dir, self.judged = (
            settings,
            options,
            Path(output_dir),
            judged,
        )
        self.input_dir = Path(input_dir)
        self.trees: list[tuple[int, Path]] = []  # (index, file)
        self.output = records_path(output_dir, settings.task, options.data_type)
        self.stop = Event()
        self.usage: dict[str, Any] = {}  # of this run
        self.failures: list[str] = []  # one line each
        self.resumed = False  # an earlier run had done all of it
        self._total: Counter[str] = Counter()  # counts of the trees that worked

    def run(
        self, make_actor: Callable[[], Actor] | None, make_environment: Callable[[], Environment]
    ) -> dict[str, Any]:
        """Convert every tree and return the manifest's counts; `failures` then says what went wrong.

        Args:
            make_actor: who judges and repairs; None where nobody does either.

        Raises:
            InputError: no trees, or actor or server are gone; what an earlier run wrote is left as it is.
            KeyboardInterrupt: the verdicts so far are kept, the next run asks only for the others.
        """
        began = time.monotonic()
        self.trees = list(tree_files(self.input_dir, "--input_dir").items())
        if (kept := self._finished()) is not None:
            return kept
        self.task_set, self._held_out = self._look()
        with closing(RowSpool(self.output_dir)) as spool:
            self._convert(make_actor, make_environment, spool)
            return self._conclude(spool, self.usage, time.monotonic() - began)

    @classmethod
    def from_folder(
        cls,
        settings: Settings,
        options: Options,
        judged: bool,
        allow_test: bool,
        weights: str,
        task_set: str,
        held_out: HeldOut,
        folder: Path,
    ) -> RevisionStage:
        """Return the stage of a worker process, which converts single trees in a folder of its own."""
        made = cls(settings, options, folder / "in", folder / "out", judged, allow_test, weights=weights)
        made.task_set, made._held_out = task_set, held_out
        return made

    @property
    def folders(self) -> Mapping[str, Path]:
        """See cluster.Stage."""
        return {"in": self.input_dir, "out": self.output_dir}

    def input_files(self, job: tuple[int, str]) -> list[Path]:
        """See cluster.Stage: the tree, and the verdicts on it."""
        index, name = job
        return [self.input_dir / name, verdicts_path(self.output_dir, index)]

    def remote_factory(self) -> Callable[[Path], RevisionStage]:
        """See cluster.Stage."""
        how = (self.settings, self.options, self.judged, self._allow_test, self._weights)
        return partial(RevisionStage.from_folder, *how, self.task_set, self._held_out)

    @contextmanager
    def job_runner(
        self,
        make_actor: Callable[[], Actor] | None,
        make_environment: Callable[[], Environment],
        saved: Callable[[Path], None] = ignore,
    ) -> Iterator[Callable[[tuple[int, str]], Built]]:
        """See cluster.Stage: the records of one tree."""
        s = self.settings
        with closing(SessionPool(make_environment)) as pool:
            with pool.session():
                pass  # an unusable server is told at once, before a model is loaded
            actor = make_actor() if make_actor else None
            judge: Judge | None = None
            if actor and self.judged:
                judge = Judge(
                    actor,
                    s.prompt,
                    seed=s.seed,
                    wave=s.judge_wave,
                    slots=s.in_flight,
                    stopped=self.stop.is_set,
                )
            try:
                yield lambda job: self._tree(*job, pool, judge, actor, saved)
            finally:
                if judge:
                    judge.close()
                if actor is not None:
                    self.usage = dict(actor.stats())
                    actor.close()

    def _finished(self) -> dict[str, Any] | None:
        """The counts of an earlier run that did exactly this, from the same trees, and whose output is still there."""
        path = manifest_path(self.output_dir, self.settings.task, self.options.data_type)
        if not (path.exists() and self.output.exists()):
            return None
        try:
            manifest = read_json(path)
            known = {name: value for name, value in manifest["settings"].items() if name != "goals"}
            same = known == read_back(self._settings())
            same = same and manifest["outputs"][0]["sha256"] == sha256_file(self.output)
            trees = [entry["sha256"] for entry in manifest["inputs"]]
            complete = manifest["counts"]["trees_failed"] == 0 and manifest["counts"]["trees_partial"] == 0
        except (InputError, KeyError, IndexError, TypeError):
            return None
        if not (same and complete) or trees != [sha256_file(path) for _, path in self.trees]:
            return None
        self.resumed = True
        return dict(manifest["counts"])

    def _settings(self) -> dict[str, Any]:
        """What the output depends on, and nothing that may change between two runs of the same work."""
        found = {**self.settings.public(), **asdict(self.options), "judge": self._judge_name() * self.judged}
        found["allow_test"] = self._allow_test
        return {name: value for name, value in found.items() if name not in PASSING}

    def _convert(
        self,
        make_actor: Callable[[], Actor] | None,
        make_environment: Callable[[], Environment],
        spool: RowSpool,
    ) -> None:
        """Build every tree's rows into the spool; only trees under way are in memory."""
        jobs = [(index, path.name) for index, path in self.trees]
        make_bar = partial(tqdm, total=len(jobs), desc=self.options.data_type, unit="tree")
        workers = self.settings.workers
        with run_jobs(self, jobs, workers, make_actor, make_environment, make_bar) as (results, bar):
            self._settle(results, spool, bar)

    def _settle(self, results: Iterable[tuple[tuple[int, str], Any]], spool: RowSpool, bar: Any) -> None:
        """Take the results as they come."""
        in_a_row = records = 0  # failures without a tree that worked between them; rows so far
        for (index, name), result in results:
            if isinstance(result, Exception):
                in_a_row += not isinstance(result, BadTree)
                self._failed(self.input_dir / name, result, hopeless=in_a_row >= HOPELESS)
            else:
                spool.add(index, result.rows)
                self._total.update(result.counts)
                in_a_row, records = 0, records + len(result.rows)
            bar.set_postfix(records=records, failed=len(self.failures), refresh=False)

    def _failed(self, path: Path, error: Exception, hopeless: bool) -> None:
        """Note a tree that failed; raise where going on is no use: the actor or the server is gone."""
        line = f"{path}: {error if isinstance(error, BadTree) else one_line(error)}"
        self.failures.append(" ".join(line.split()))
        if isinstance(error, ActorError) or hopeless:
            raise InputError(f"stopped, nothing written, verdicts kept: {self.failures[-1]}") from error

    def _tree(
        self,
        index: int,
        name: str,
        pool: SessionPool,
        judge: Judge | None,
        actor: Actor | None,
        saved: Callable[[Path], None],
    ) -> Built:
        """One tree, in memory for as long as this takes."""
        settings, path = self.settings, self.input_dir / name
        tree = read_tree(path, settings.task, index)
        self._admit(tree)
        digest = sha256_file(path)
        source = Source(name, digest, tree.prompt, settings.seed)
        task = tree.task
        run = Replayer(pool, task.index, task_id(settings.task, task.opening, task.index), self.stop.is_set)
        cache = VerdictCache(verdicts_path(self.output_dir, index), self._judge_name(), settings.prompt)
        find_cut: FindCut | None = None
        if judge:
            find_cut = lambda task, bad, start: judge.first_bad(task, bad.steps, bad.nodes, start, cache)  # noqa: E731
        try:
            built = TreeBuilder(tree, source, self.options, run, find_cut, actor).build()
        finally:
            if cache.path.exists():
                saved(cache.path)
        if judge:
            built.counts.update({f"verdict {name}": count for name, count in cache.counts().items()})
        built.counts["partial_trees"] = int(tree.status != "done")
        return built

    def _admit(self, tree: Tree) -> None:
        """Nothing, if the tree may become records here.

        Raises:
            BadTree: its indices are another kind of server's, or it is a test task's.
        """
        kind = tree.settings.get("goals")
        if kind and self.task_set and kind != self.task_set:
            raise BadTree(f"searched on a server of kind {kind}, this one is {self.task_set}")
        try:
            if not self._allow_test:
                self._held_out.check(tree.task)
        except HeldOutTask as error:
            raise BadTree(f"{error}; --allow_test overrides") from error

    def _judge_name(self) -> str:
        return judge_name(self.settings.model_name, self._weights)

    def _conclude(self, spool: RowSpool, tokens: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The records, then the manifest. Without one tree that worked, an earlier output stays."""
        if not len(spool):
            raise InputError(f"no tree could be used; the first: {self.failures[0]}")
        unique, total = UniqueRows(spool.rows(), self.options.unique), self._total
        written = write_jsonl(self.output, unique)
        total["duplicate"] += unique.left_out
        counts = {
            "trees": len(spool),
            "trees_partial": total["partial_trees"],
            "trees_failed": len(self.failures),
            "failures": self.failures,
            **{name: total[name] for name in ("paths", "good_paths", "pairs") if name in total},
            "written": written,
            "replayed": unique.executed,  # rows that were executed, and are what came back
            "tasks_written": len(unique.tasks),
            "dropped": {name: total[name] for name in REASONS if total[name]},
            "verdicts": {name: total[f"verdict {name}"] for name in (*LABELS, "unparsed", "requests")},
            "repairs_tried": total["repairs_tried"],
            "replays": total["replays"],
            "env_steps": total["env_steps"],
        }
        inputs = [path for index, path in self.trees if index in spool]
        settings = self._settings() | {"goals": self.task_set}
        path = manifest_path(self.output_dir, self.settings.task, self.options.data_type)
        write_manifest(path, "revision", settings, inputs, [self.output], counts, tokens, seconds)
        return counts


def read_back(value: dict[str, Any]) -> Any:
    """The value as a JSON file gives it back: tuples as lists, mappings with text keys."""
    return json.loads(json.dumps(value))


def reasons(counts: dict[str, Any]) -> Sequence[str]:
    """Dropped counts for people: `no_bad_step 12`, most frequent first."""
    return [f"{name} {count}" for name, count in sorted(counts["dropped"].items(), key=lambda item: -item[1])]
