"""All checks of one run's folder, one file after the other: trees with their rows, evaluations, models."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from msgspec import UNSET

from mcts_utils.envs import make_environment, names, task_id
from mcts_utils.report.verify import training
from mcts_utils.report.verify.again import AGAIN, Played, Sampler
from mcts_utils.report.verify.checks import Checks
from mcts_utils.report.verify.evaluations import check_evaluation, check_panel
from mcts_utils.report.verify.hashes import check_hashes
from mcts_utils.report.verify.row_form import Row, form_faults, key_of, verdict_row_faults
from mcts_utils.report.verify.rows import TreeRows
from mcts_utils.report.verify.trees import total_faults, tree_faults, verdict_faults
from mcts_utils.report.view.find import NUMBERED, find_any
from mcts_utils.report.view.records import rows_of
from mcts_utils.report.view.trees import tree_of
from mcts_utils.revision.live_rows import is_live
from mcts_utils.revision.pairs import paths
from mcts_utils.search.totals import run_totals, tree_totals
from mcts_utils.search.tree import Tree
from mcts_utils.storage.files import read_as, read_json, sha256_file
from mcts_utils.storage.formats.base import field_of, plain
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.formats.record import RecordRow, VerdictRow, said_and_seen
from mcts_utils.storage.formats.verdicts import VerdictFile
from mcts_utils.storage.layout import existing, verdicts_path
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.tool_calls import form_of
from mcts_utils.types import InputError, Step, Task

OWN = "of an environment of your own, compared only with its server (--env_server_base)"
ROWS, LINEAGE, TREES, VERDICTS, FILES = "rows", "lineage", "trees", "verdicts", "files"


@dataclass(frozen=True)
class Placed:
    """A training row and where it stands."""

    path: Path
    line: int
    row: Row


class Audit:
    """The checks of one folder. Nothing in it is changed."""

    def __init__(self, root: Path, sample: int = 0, seed: int = 0, url: str = "") -> None:
        """Find what is there; `sample` of each sort are drawn with the seed, to be executed again.

        Args:
            url: of an environment server; "" for none.

        Raises:
            InputError: it is no folder, or holds nothing of a run.
        """
        self.found = find_any(root)
        self.checks = Checks(root)
        self.sampler = Sampler(sample, seed)
        self._rng, self._url = Random(seed), url
        self.manifests: dict[Path, Manifest] = {}
        for path in sorted(root.rglob("*manifest.json")):
            with self.checks.reading(FILES, path):
                self.manifests[path] = read_manifest(path)
                self.checks.seen(FILES, "manifests")
        if not (self.found.trees or self.found.records or self.found.evaluations or self.checks.counts):
            raise InputError(f"RUN_DIR holds no results of a run: {str(root)!r}")
        self._makers = {
            Path(os.path.normpath(path.parent / entry.path)): manifest
            for path, manifest in self.manifests.items()
            for entry in manifest.outputs
        }
        self.envs: set[str] = set()
        self.tests: dict[str, str] = {}  # goal -> where it is played
        self.rows: list[Placed] = []

    def run(self) -> str:
        """Do all checks that need no server, and return the hash of all files that have one."""
        digest = check_hashes(self.checks, self.manifests)
        for path in self.found.records:
            self._read_rows(path)
        self._check_trees()
        for folder in self.found.evaluations:
            self._check_evaluation(folder)
        for path in sorted(self.found.root.rglob("*.json")):
            with suppress(InputError):
                inside = path.parent in self.found.evaluations
                if not inside and field_of(read_json(path), "prefixes") is not None:
                    check_panel(self.checks, path)
        training.check_weights(self.checks, self.manifests)
        for path, manifest in self.manifests.items():
            if manifest.stage == "training data":
                rows = path.with_name("train.jsonl")
                training.check_trained_rows(self.checks, rows, manifest)
                with self.checks.reading(training.LOSS, path):
                    training.check_encoding(self.checks, rows, manifest)
        return digest

    def check_held_out(self) -> None:
        """Check that no row is of a goal that is played as a test."""
        trained = [(placed.path, placed.line, placed.row.lineage.task.id) for placed in self.rows]
        training.check_held_out(self.checks, trained, self.tests)

    def _settings(self, path: Path) -> Mapping[str, Any]:
        """Return the settings of the manifest that lists a file among its outputs; {} without one."""
        return self._makers[path].settings if path in self._makers else {}

    def _read_rows(self, path: Path) -> None:
        """Check the rows of a file by themselves, that no two are alike, and that there are as many as were written."""
        seen: dict[bytes, int] = {}
        rows: list[Placed] = []
        with self.checks.reading(ROWS, path):
            for line, row in rows_of(path):
                rows.append(Placed(path, line, row))
        for placed in rows:
            with self.checks.reading(ROWS, path, placed.line):
                for fault in form_faults(placed.row):
                    self.checks.fault(ROWS, path, fault, placed.line)
            first = seen.setdefault(key_of(placed.row), placed.line)
            if first != placed.line and self._settings(path).get("unique", True):
                self.checks.fault(ROWS, path, f"the same actions as row {first}", placed.line)
            self._offer_row(placed)
        manifest = self._makers.get(path)
        written = manifest.counts.get("written") if manifest else None
        if written is not None and written != len(rows):
            self.checks.fault(ROWS, path, f"{len(rows)} rows, its manifest counts {written}")
        self.checks.seen(ROWS, "rows", len(rows))
        self.rows += rows

    def _offer_row(self, placed: Placed) -> None:
        row, settings = placed.row, self._settings(placed.path)
        if not isinstance(row, RecordRow) or row.lineage.replay.exact is not True:
            return
        if row.lineage.signals is not UNSET:
            self.checks.note(AGAIN, "rows of live episodes, not executed")
            return
        named, turns = row.lineage.task, row.conversations[0]
        said = said_and_seen(turns, row.lineage.replay.final_observation)
        self.envs.add(named.env)
        task = Task(named.env, named.index, named.id, row.task_description)
        steps = [Step(reply, "", "\n".join(answers), 0.0) for reply, answers in said]
        reward = row.lineage.rewards.record
        played = Played(placed.path, placed.line, task, steps, reward, *_how(settings))
        self.sampler.offer("rows", played)

    def _check_trees(self) -> None:
        """Check every tree, with the rows that were made of it."""
        by_hash: dict[str, list[Placed]] = {}
        for placed in self.rows:
            by_hash.setdefault(placed.row.lineage.tree_sha256, []).append(placed)
        totals: dict[int, Counter[str]] = {}
        for index, path in [*self.found.trees, *self._trees_elsewhere()]:
            inside = path.is_relative_to(self.found.root)
            with self.checks.reading(TREES, path):
                tree = tree_of(path, index)
                mine = by_hash.pop(sha256_file(path), [])
                if inside:
                    self._check_tree(path, index, tree)
                    if tree.status == "done" and path in self._makers:
                        totals.setdefault(id(self._makers[path]), Counter()).update(tree_totals(tree))
                self._check_rows(path, tree, mine)
        for path, manifest in self.manifests.items():
            if manifest.stage == "search" and id(manifest) in totals:
                counts, _ = run_totals(totals[id(manifest)], 0, 0)
                counts = {name: value for name, value in counts.items() if name not in ("failed", "held_out")}
                for fault in total_faults(counts, manifest):
                    self.checks.fault(TREES, path, fault)
        for digest, left in by_hash.items():
            if not digest:
                self.checks.note(LINEAGE, "rows of an expert, which has no tree", len(left))
            elif any(self._settings(placed.path).get("data_type") == "expert" for placed in left):
                self.checks.note(LINEAGE, "rows of a trajectory set", len(left))
            elif self.found.trees:
                for placed in left:
                    text = f"no tree here is the one it names ({placed.row.lineage.tree}, {digest[:12]}...)"
                    self.checks.fault(LINEAGE, placed.path, text, placed.line)
            else:
                self.checks.note(LINEAGE, "rows whose trees are not here", len(left))

    def _trees_elsewhere(self) -> list[tuple[int, Path]]:
        """Return the trees outside the folder that manifests of records name, where they are unchanged."""
        found = []
        for path, manifest in self.manifests.items():
            for entry in manifest.inputs if manifest.stage in ("revision", "rehearsal") else ():
                file = Path(os.path.normpath(path.parent / entry.path))
                match = NUMBERED.fullmatch(file.name)
                if match and file.is_file() and not file.is_relative_to(self.found.root):
                    found += [(int(match[1]), file)] if sha256_file(file) == entry.sha256 else []
        return list(dict.fromkeys(found))

    def _check_tree(self, path: Path, index: int, tree: Tree) -> None:
        """Check a tree, unless it is the reference's, and the kept verdicts on it."""
        self.checks.seen(TREES, "trees")
        self.envs.add(tree.task.env)
        if tree.settings:
            for fault in tree_faults(tree, index, self._settings(path)):
                self.checks.fault(TREES, path, fault)
        else:  # the reference names no task
            tree.task = replace(tree.task, id=task_id(tree.task.env, tree.task.opening, index))
        if (found := paths(tree)) and not is_live(tree):
            chosen = self._rng.choice(found)
            played = Played(path, 0, tree.task, chosen.steps, chosen.reward, *_how(tree.settings))
            self.sampler.offer("trees", played)
        group = self.found.group(path)
        for folder in {file.parent for file in self.found.records if self.found.group(file) == group}:
            if file := self._verdicts(folder, index):
                kept: Counter[str] = Counter()
                for fault in verdict_faults(tree, file, kept):
                    self.checks.fault(VERDICTS, existing(verdicts_path(folder, index)), fault)
                self.checks.seen(VERDICTS, "verdicts", kept["verdicts"])

    def _verdicts(self, folder: Path, index: int) -> VerdictFile | None:
        """Return the kept verdicts on a tree beside its records, if there are any."""
        path = existing(verdicts_path(folder, index))
        if path.exists():
            with self.checks.reading(VERDICTS, path):
                return read_as(path, VerdictFile)
        return None

    def _understands(self, env: str) -> bool:
        """Return True if it is known what the environment's texts mean; its server says that of one of your own."""
        if env not in names() and self._url:
            make_environment(env, self._url).close()
        return env in names() or bool(self._url)

    def _check_rows(self, path: Path, tree: Tree, rows: list[Placed]) -> None:
        """Check rows against their tree."""
        by_file: dict[Path, list[Placed]] = {}
        for placed in rows:
            by_file.setdefault(placed.path, []).append(placed)
        for file, members in by_file.items():
            settings = self._settings(file)
            if not self._understands(tree.task.env):
                self.checks.note(LINEAGE, f"rows {OWN}", len(members))
                continue
            against = TreeRows(tree, self._verdicts(file.parent, tree.task.index), settings)
            for placed in members:
                self.checks.seen(LINEAGE, "rows")
                row = placed.row
                with self.checks.reading(LINEAGE, file, placed.line):
                    if row.lineage.tree != path.name:
                        other = f"it names {row.lineage.tree}, its hash {path.name}"
                        self.checks.fault(LINEAGE, file, other, placed.line)
                    found = (
                        verdict_row_faults(row, tree) if isinstance(row, VerdictRow) else against.faults(row)
                    )
                    for fault in found:
                        self.checks.fault(LINEAGE, file, fault, placed.line)

    def _check_evaluation(self, folder: Path) -> None:
        for episode in check_evaluation(self.checks, folder, self._makers, self._understands):
            task, settings = episode.task, episode.settings
            self.envs.add(task.env)
            self.tests.setdefault(task.id, self.checks.name(folder))
            how = settings.server_kind, settings.grounding, form_of(plain(settings))
            played = Played(folder, 0, task.task(), episode.all_steps, episode.reward, *how)
            self.sampler.offer("episodes", played)


def _how(settings: Mapping[str, Any]) -> tuple[str, bool, str]:
    """Return the last fields of Played as a stage's settings say them."""
    return str(settings.get("goals", "")), settings.get("grounding", True), form_of(settings)
