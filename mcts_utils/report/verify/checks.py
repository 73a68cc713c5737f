"""What was checked, and what is wrong: the lines of `python -m mcts_utils verify`. It checks nothing itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mcts_utils.types import EnvError, InputError, one_line

MOST = 20  # faults of one check that are printed


@dataclass
class Checks:
    """The results of the checks of one folder, by the check's name."""

    root: Path
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # what was looked at -> number
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, Counter[str]] = field(default_factory=dict)  # what could not be checked -> number

    def seen(self, check: str, unit: str, count: int = 1) -> None:
        """Count what was looked at, such as 3 `rows`."""
        self.counts.setdefault(check, Counter())[unit] += count

    def note(self, check: str, text: str, count: int = 1) -> None:
        """Count what could not be checked."""
        self.notes.setdefault(check, Counter())[text] += count

    def fault(self, check: str, path: Path, text: str, row: int = 0) -> None:
        """Add a fault in a file, or in a row of it (from 1)."""
        where = f"{self.name(path)} row {row}" if row else self.name(path)
        self.faults.setdefault(check, []).append(f"{where}: {' '.join(text.split())}")

    def name(self, path: Path) -> str:
        """Return a path as it is printed: relative to the folder."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    @contextmanager
    def reading(self, check: str, path: Path, row: int = 0) -> Iterator[None]:
        """Make what cannot be read or understood in the block a fault of the file or row; the others are checked."""
        try:
            yield
        except Exception as error:
            known = isinstance(error, InputError | EnvError)
            text = str(error) if known else f"not understood, {one_line(error)}"
            text = text.removeprefix(f"{path} row {row}: " if row else f"{path}: ")
            self.fault(check, path, text.removeprefix(f"{path} "), row)

    def lines(self) -> Iterator[str]:
        """Yield a line for each check without a fault, and one for each fault."""
        for check in {**self.counts, **self.notes, **self.faults}:
            found, notes = self.faults.get(check, []), self.notes.get(check, Counter[str]())
            seen = ", ".join(f"{unit} {n:,}" for unit, n in self.counts.get(check, {}).items())
            if not found:
                yield f"ok     {check:10} {'; '.join([seen or '-', *(f'{t}: {n:,}' for t, n in notes.items())])}"
            for line in found[:MOST]:
                yield f"FAULT  {check:10} {line}"
            if len(found) > MOST:
                yield f"FAULT  {check:10} {len(found) - MOST} more"
