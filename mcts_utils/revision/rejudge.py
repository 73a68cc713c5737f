"""Ask the judge again about the steps that were judged before (`--rejudge`), and say what that changes.

It executes nothing, so it needs no environment server, and writes no records: the next run of stage 2 does, from the
new verdicts. These wait in a folder of their own until all are there, so that a run that was stopped goes on. Then they
take the place of the old ones, which are set aside and still found by a run with their judge.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mcts_utils.executors import FailureGuard, Saved, ignore, run_jobs
from mcts_utils.prompts import is_signal_step, judge_messages
from mcts_utils.revision.judge import Judge
from mcts_utils.revision.judge_source import models_opened
from mcts_utils.revision.options import REJUDGE
from mcts_utils.revision.pairs import paths
from mcts_utils.revision.stage import RevisionStage
from mcts_utils.revision.verdict_cache import question_sha256, set_aside_path
from mcts_utils.revision.votes import agreement, patterns
from mcts_utils.search.tree_io import BadTree, read_tree
from mcts_utils.storage.files import iter_jsonl_as, read_as, sha256_file
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.record import Lineage, RecordRow
from mcts_utils.storage.formats.verdicts import VerdictFile
from mcts_utils.storage.layout import existing, manifest_path, verdicts_path
from mcts_utils.storage.manifest import write_manifest
from mcts_utils.terminal import Progress
from mcts_utils.types import Environment, InputError, MakeActor, MakeEnvironment, Stopped

Job = tuple[int, str]


class RejudgeStage(RevisionStage):
    """Stage 2 without an environment, on threads: a job is a tree with verdicts or records in the output folder."""

    def ask_again(self, make_actor: MakeActor | None) -> dict[str, Any]:
        """Ask about all trees and return the counts.

        Args:
            make_actor: None if another model judges.

        Raises:
            InputError: nothing was judged before, or the judge is gone.
        """
        began, total, done = time.monotonic(), Counter[str](), []
        self.manifest = manifest_path(self.output_dir, self.settings.task, REJUDGE)
        self._records = self._records_by_tree()
        found = self._find_jobs()
        self.jobs = [job for job in found if job[0] in self._records or self._file(job[0]).exists()]
        if not self.jobs:
            where = f"{self.output_dir} holds no verdicts on, or records of, the trees in {self.input_dir}"
            raise InputError(f"--rejudge: {where}; run the command without it first")
        make_bar = partial(Progress, total=len(self.jobs), desc=REJUDGE, unit="tree")
        guard, workers = FailureGuard(), self.settings.workers
        with run_jobs(self, self.jobs, workers, make_actor, no_environment, make_bar) as (results, _):
            for (index, name), result in results:
                if isinstance(result, Exception):
                    hopeless = not isinstance(result, BadTree) and guard.add_failure(index, result)
                    self._add_failure(self.input_dir / name, result, hopeless)
                else:
                    total.update(result)
                    done.append(index)
        return self._put_in_place(sorted(done), total, time.monotonic() - began)

    @contextmanager
    def job_runner(  # type: ignore[override]
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, saved: Saved = ignore
    ) -> Iterator[Callable[[Job], Counter[str]]]:
        """Yield the function that asks about one tree again."""
        with models_opened(self, make_actor) as (_, judge):
            assert judge
            yield lambda job: self._ask_about(*job, judge)

    def _file(self, index: int) -> Path:
        return existing(verdicts_path(self.output_dir, index))

    def _waiting(self, index: int) -> Path:
        return verdicts_path(self.output_dir, index, judge=REJUDGE)

    def _records_by_tree(self) -> dict[int, list[Lineage]]:
        found: dict[int, list[Lineage]] = {}
        for row in iter_jsonl_as(self.output, RecordRow) if self.output.exists() else ():
            found.setdefault(row.task_num, []).append(row.lineage)
        return found

    def _ask_about(self, index: int, name: str, judge: Judge) -> Counter[str]:
        """Ask about the steps of one tree that have a verdict, and find the cuts of its records; return counts."""
        assert self.judge
        tree = read_tree(self.input_dir / name, self.settings.task, index)
        records, digest = self._records.get(index, ()), sha256_file(self.input_dir / name)
        if any(record.tree_sha256 != digest for record in records):
            raise BadTree(f"it is not the tree that the records in {self.output} were made from")
        old = read_as(self._file(index), VerdictFile).verdicts if self._file(index).exists() else {}
        cache = self.judge.cache(self._waiting(index))
        by_leaf = {path.leaf: path for path in paths(tree)}
        for path in by_leaf.values():
            if self.stop.is_set():
                raise Stopped
            wave = []
            for place, (node, step) in enumerate(zip(path.nodes, path.steps, strict=True)):
                if str(node) in old and not is_signal_step(step):
                    question = judge_messages(tree.task, path.steps[:place], step, judge.prompt)
                    if cache.get(node, question_sha256(question), judge.votes) is None:
                        wave.append(place)
            judge.verdicts(tree.task, path.steps, path.nodes, wave, cache)
        counts = Counter({f"verdict {label}": count for label, count in cache.counts().items()})
        for node, verdict in cache.used.items():
            if verdict.label != old[str(node)].label:
                counts[f"change {old[str(node)].label} to {verdict.label}"] += 1
        counts["asked_again"] = len(cache.used)
        for record in records:
            bad = by_leaf[record.bad_leaf]  # type: ignore[index]
            start = 0 if self.options.judge_prefix else int(record.fork_step or 0)
            cut = judge.first_bad(tree.task, bad.steps, bad.nodes, start, cache).step
            same = (bad.nodes[cut] if cut is not None else "none") == record.cut
            counts["kept" if same else "changed"] += 1
        counts.update(patterns(cache.used.values()))
        return counts

    def _put_in_place(self, done: list[int], total: Counter[str], seconds: float) -> dict[str, Any]:
        """Let the new verdicts take the place of the old ones; write the manifest and return the counts."""
        outputs = []
        for index in done:
            if not self._waiting(index).exists():
                continue  # there was nothing to ask about
            file, path = self._file(index), verdicts_path(self.output_dir, index)
            if file.exists():
                aside = set_aside_path(path, read_as(file, VerdictFile))
                aside.parent.mkdir(exist_ok=True)
                file.replace(aside)
            self._waiting(index).replace(path)
            outputs.append(path)
        with suppress(OSError):  # not there, or with verdicts on trees that failed
            self._waiting(0).parent.rmdir()

        def named(start: str) -> dict[str, int]:
            return {name.removeprefix(start): n for name, n in total.items() if name.startswith(start)}

        votes = agreement(total)
        counts = {name: total[name] for name in ("asked_again", "kept", "changed")}
        counts |= {"trees": len(done), "trees_failed": len(self.failures)}
        shown = {**counts, "verdicts": named("verdict "), "changes": named("change ")}
        settings, inputs = self._relevant_settings(), self._inputs(dict.fromkeys(done))
        usage = self.usage | self.spending.paid
        written = {**shown, "agreement": plain(votes)} if votes else shown
        write_manifest(self.manifest, REJUDGE, settings, inputs, outputs, written, usage, seconds)
        return {**shown, "agreement": votes}


def no_environment() -> Environment:
    """Raise InputError: nothing is executed here."""
    raise InputError("--rejudge executes nothing")
