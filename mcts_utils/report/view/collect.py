"""Read a run's files one after the other into the parts of its page: an index, and contents that load on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcts_utils.report.view.evaluations import Run, comparable, pack_set, read_run
from mcts_utils.report.view.find import Found
from mcts_utils.report.view.records import Row, dropped_pairs, pack_record, rows_of
from mcts_utils.report.view.trees import Packed, pack_tree
from mcts_utils.storage.files import iter_jsonl, sha256_file
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.formats.record import RecordRow
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.types import InputError

RECORDS, GOALS = 40, 16  # in one part of the page's data
POINTS = 400  # of a loss curve
AddPart = Callable[[str, Any], None]  # (name, content): what the page loads when it is looked at


@dataclass(frozen=True)
class Numbered:
    """A training row and where it stands."""

    number: int
    file: Path
    line: int
    row: Row


@dataclass
class Collector:
    """Packs everything that was found. A file that cannot be read is named in the page; the others are shown."""

    found: Found
    add: AddPart
    failures: list[str] = field(default_factory=list)

    def index(self, price: Sequence[float] = ()) -> dict[str, Any]:
        """Return what the page needs at once, after all other parts were added.

        Args:
            price: dollars of a million prompt tokens and of a million completion tokens.

        Raises:
            InputError: no file could be read.
        """
        manifests = self._manifests()
        rows = self._rows()
        trees, lines, contents = self._trees(rows, manifests)
        self._add_in_parts("r", [contents[row.number] for row in rows], RECORDS)
        sets = self._sets()
        if not (trees or rows or sets) and self.failures:
            raise InputError(self.failures[0])
        return {
            "name": self.found.root.resolve().name,
            "trees": trees,
            "records": [lines[row.number] for row in rows],
            "sets": sets,
            "stages": [
                self._stage(path, manifest, price) for path, manifest in manifests.items() if manifest.stage
            ],
            "losses": self._losses(),
            "failures": self.failures,
            "sizes": {"records": RECORDS, "goals": GOALS},
        }

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note an unreadable file as one line."""
        try:
            yield
        except InputError as error:
            self.failures.append(" ".join(str(error).split()))

    def _add_in_parts(self, name: str, contents: Sequence[str], size: int) -> None:
        for start in range(0, len(contents), size):
            self.add(f"{name}{start // size}", [json.loads(text) for text in contents[start : start + size]])

    def _manifests(self) -> dict[Path, Manifest]:
        found = {}
        for path in self.found.manifests:
            with self._noting():
                found[path] = read_manifest(path)
        return found

    def _rows(self) -> list[Numbered]:
        rows: list[Numbered] = []
        for path in self.found.records:
            with self._noting():
                rows += [
                    Numbered(len(rows) + i, path, line, row) for i, (line, row) in enumerate(rows_of(path))
                ]
        return rows

    def _trees(
        self, rows: Sequence[Numbered], manifests: dict[Path, Manifest]
    ) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]], dict[int, str]]:
        """Return the trees' lines, and the records' lines and contents by number."""
        trees, lines, contents = list[dict[str, Any]](), dict[int, dict[str, Any]](), dict[int, str]()
        of_records = {path: m for path, m in manifests.items() if "data_type" in m.settings}
        by_tree = self._by_tree(rows)
        for index, path in self.found.trees:
            with self._noting():
                group = self.found.group(path)
                near = [file for file in of_records if self.found.group(file) == group]
                key = f"{group}/{index}".strip("/")
                packed = pack_tree(path, index, key, sorted({file.parent for file in near}))
                mine = by_tree.pop(path, [])
                for row in mine:
                    lines[row.number], contents[row.number] = self._packed(row, packed)
                for manifest in near:
                    file = manifest.with_name(manifest.name.replace(".manifest.json", ".jsonl"))
                    same = [r.row for r in mine if r.file == file and isinstance(r.row, RecordRow)]
                    packed.dropped += dropped_pairs(packed, same, of_records[manifest])
                trees.append(packed.line())
                self.add(f"t{len(trees) - 1}", packed.content())
        for row in (row for left in by_tree.values() for row in left):
            lines[row.number], contents[row.number] = self._packed(row, None)
        return trees, lines, contents

    def _by_tree(self, rows: Sequence[Numbered]) -> dict[Path | None, list[Numbered]]:
        """Return the rows by their tree's file: of equal files the one beside the row's; None if it is not here."""
        files: dict[str, list[Path]] = {}
        for _, path in self.found.trees:
            files.setdefault(sha256_file(path), []).append(path)
        found: dict[Path | None, list[Numbered]] = {}
        for row in rows:
            same = files.get(row.row.lineage.tree_sha256, [])
            beside = [path for path in same if self.found.group(path) == self.found.group(row.file)]
            found.setdefault(next(iter(beside + same), None), []).append(row)
        return found

    def _packed(self, row: Numbered, source: Packed | None) -> tuple[dict[str, Any], str]:
        """Return the line and the content of a row."""
        line, content = pack_record(row.row, source, row.number)
        where = str(row.file.relative_to(self.found.root))
        return {"n": row.number, "file": where, "line": row.line, **line}, json.dumps(content)

    def _sets(self) -> list[dict[str, Any]]:
        runs: list[Run] = []
        for folder in self.found.evaluations:
            with self._noting():
                run = read_run(folder, self.found.group(folder / "summary.json"))
                runs += [run] * bool(run.goals)
        found = []
        for number, members in enumerate(comparable(runs)):
            about, contents = pack_set(members)
            found.append(about)
            self._add_in_parts(f"g{number}_", [json.dumps(content) for content in contents], GOALS)
        return found

    def _stage(self, path: Path, manifest: Manifest, price: Sequence[float]) -> dict[str, Any]:
        """Return one stage's tokens, seconds and drop reasons."""
        t, counts = manifest.tokens, manifest.counts
        trained = [kind for kind in t.values() if isinstance(kind, dict) and "trained" in kind]
        read = t.get("prompt_tokens", sum(kind["input"] for kind in trained))
        written = t.get("completion_tokens", 0)
        return {
            "stage": manifest.stage,
            "where": str(path.relative_to(self.found.root).parent),
            "type": manifest.settings.get("data_type", ""),
            "group": self.found.group(path),
            "seconds": manifest.seconds,
            "in": read,
            "out": written,
            "trained": sum(kind["trained"] for kind in trained),
            "dollars": (read * price[0] + written * price[1]) / 1e6 if price and not trained else None,
            "written": counts.get("written"),
            "dropped": counts.get("dropped") if manifest.stage == "revision" else None,
        }

    def _losses(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.found.root.glob("**/train/loss.jsonl")):
            with self._noting():
                points = [[row.get("step"), row.get("loss")] for _, row in iter_jsonl(path)]
                found.append(
                    {"group": self.found.group(path), "points": points[:: len(points) // POINTS + 1]}
                )
        return found
