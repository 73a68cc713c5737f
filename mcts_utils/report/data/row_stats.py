"""Statistics of training records, row by row: depth of the cut, lengths, refusals, duplicates, rewards. Pure.

It keeps a few numbers and a digest per row, not the row, so a file of any size can be counted. It reads no files
(__main__.py does).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import UNSET

from mcts_utils.rollouts.steps import refuses
from mcts_utils.storage.formats.record import RecordRow, Turn, exchanges
from mcts_utils.types import InputError

SPLICED = ("revision", "direct")  # kinds with a revision signal between a bad and a good part
ACTION_COUNTS = ("trained", "trained_refused", "acted", "refused")
LENGTHS = ("cut_depth", "shared_prefix", "bad_prefix", "good_tail", "turns", "characters")


@dataclass(frozen=True, slots=True)
class RowFacts:
    """The numbers of one row. Lengths are in steps, but for `characters`; None: not defined for rows of this kind."""

    task: str  # id
    actions: bytes  # digest of the actions that are sent to the environment
    rewards: tuple[float, float | None, float]  # of the good path, of the bad one, of the record; in [0, 1]
    exact: bool | None  # the replay matched the record; None: it was not executed
    turns: int  # of the assistant, the revision signal included
    characters: int  # of all messages
    cut_depth: int | None  # steps of the bad path that are kept (t')
    shared_prefix: int | None  # of these, the steps that the good path has too (tau^i)
    bad_prefix: int | None  # of these, the steps after the fork
    good_tail: int | None  # steps after the revision signal; preference: of the chosen side
    # The next four leave the signal out; for a preference they are of the chosen side.
    trained: int  # actions whose turn carries loss
    trained_refused: int  # of these, refused by the environment
    acted: int  # actions with or without loss
    refused: int  # of these, refused by the environment


def row_facts(row: RecordRow, where: str = "") -> RowFacts:
    """Return the numbers of a row that stage 2 wrote.

    Raises:
        InputError: a pair without its fork, or a revision without its cut; the message begins with `where`.
    """
    lineage, spliced = row.lineage, row.kind in SPLICED
    chosen, *rejected = row.conversations
    replies = sum(turn.role == "assistant" for turn in chosen)
    cut = shared = tail = None
    if spliced or rejected:
        if lineage.fork_step is UNSET or (spliced and lineage.cut_step is UNSET):
            raise InputError(f"{where}: of kind {row.kind}, without fork_step or cut_step")
        tail = replies - lineage.fork_step
        if spliced and lineage.cut_step is not UNSET:
            cut = lineage.cut_step + 1
            shared, tail = min(cut, lineage.fork_step), replies - cut - 1
    answers = list(_answers(chosen, lineage.replay.final_observation, lineage.task.env, cut))
    turns = [turn for side in row.conversations for turn in side]
    actions = [turn.action for turn in turns if turn.role == "assistant"]
    rewards = lineage.rewards
    return RowFacts(
        task=lineage.task.id,
        actions=hashlib.sha256(repr(actions).encode("utf-8", "backslashreplace")).digest()[:16],
        rewards=(rewards.good, None if rewards.bad is UNSET else rewards.bad, rewards.record),
        exact=lineage.replay.exact,
        turns=replies,
        characters=sum(len(turn.content) for turn in turns),
        cut_depth=cut,
        shared_prefix=shared,
        bad_prefix=None if cut is None or shared is None else cut - shared,
        good_tail=tail,
        trained=sum(loss for loss, _ in answers),
        trained_refused=sum(loss and refused for loss, refused in answers),
        acted=len(answers),
        refused=sum(refused for _, refused in answers),
    )


def _answers(
    messages: Sequence[Turn], last: str, env: str, signal: int | None
) -> Iterator[tuple[bool, bool]]:
    """Yield (carries loss, was refused) of every action, without the signal, which is turn number `signal`."""
    for number, (turn, answers) in enumerate(exchanges(messages)[1]):
        if number != signal:
            yield turn.loss, refuses(env, answers[0].content if answers else last)


@dataclass
class Tally:
    """Sums over the rows of one kind."""

    rows: int = 0
    tasks: Counter[str] = field(default_factory=Counter)  # rows by task
    same_task: int = 0  # rows with the actions of an earlier row of the same task
    other_task: int = 0  # rows with the actions of an earlier row of another task, and of none of their own
    exact: Counter[str] = field(default_factory=Counter)  # "True", "False", "None"
    actions: Counter[str] = field(default_factory=Counter)  # by ACTION_COUNTS
    lengths: dict[str, array[int]] = field(default_factory=lambda: {name: array("q") for name in LENGTHS})
    rewards: tuple[array[float], ...] = field(default_factory=lambda: tuple(array("d") for _ in range(3)))
    _seen: set[bytes] = field(default_factory=set)
    _seen_in_task: set[bytes] = field(default_factory=set)

    def add(self, found: RowFacts) -> None:
        """Count one row."""
        self.rows += 1
        self.tasks[found.task] += 1
        self.exact[str(found.exact)] += 1
        own = hashlib.sha256(found.task.encode("utf-8", "backslashreplace") + found.actions).digest()[:16]
        if own in self._seen_in_task:
            self.same_task += 1
        elif found.actions in self._seen:
            self.other_task += 1
        self._seen.add(found.actions)
        self._seen_in_task.add(own)
        for name in ACTION_COUNTS:
            self.actions[name] += getattr(found, name)
        for name, values in self.lengths.items():
            if (value := getattr(found, name)) is not None:
                values.append(value)
        for rewards, reward in zip(self.rewards, found.rewards, strict=True):
            if reward is not None:
                rewards.append(reward)

    def summary(self) -> dict[str, Any]:
        """Return the statistics in plain JSON types; None where there is no value."""
        actions, rewards = self.actions, zip(("good", "bad", "record"), self.rewards, strict=True)
        return {
            "rows": self.rows,
            "tasks": len(self.tasks),
            "rows_per_task": distribution(list(self.tasks.values())),
            **{name: distribution(values) for name, values in self.lengths.items()},
            "trained_actions": actions["trained"],
            "trained_refused_share": _share(actions["trained_refused"], actions["trained"]),
            "refused_share": _share(actions["refused"], actions["acted"]),
            "duplicates_same_task": self.same_task,
            "duplicates_other_task": self.other_task,
            "executed_exact": self.exact["True"],
            "executed_not_exact": self.exact["False"],
            "not_executed": self.exact["None"],
            **{f"reward_{name}": distribution(values) for name, values in rewards},
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def distribution(values: Sequence[float]) -> dict[str, float] | None:
    """Return n, mean, quartiles, minimum and maximum of the values; None without values."""
    if not len(values):
        return None
    numbers = np.asarray(values, dtype=float)
    ends = np.quantile(numbers, (0.25, 0.5, 0.75, 0, 1))
    names = ("q25", "median", "q75", "min", "max")
    return {
        "n": len(numbers),
        "mean": float(numbers.mean()),
        **dict(zip(names, map(float, ends), strict=True)),
    }
