"""Statistics of training records, row by row: depth of the cut, lengths, refusals, duplicates, rewards. Pure.

It holds a few numbers and one digest per row, never a row, so a file of any size can be counted. data.py reads files.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mcts_utils.prompts import action_of
from mcts_utils.revision.record import trajectories
from mcts_utils.rollouts.steps import refuses
from mcts_utils.types import InputError

SPLICED = ("revision", "direct")  # kinds with a revision signal between a bad and a good part
LENGTHS = ("cut_depth", "shared_prefix", "bad_prefix", "good_tail", "turns", "characters")


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is counted of one row. Lengths are steps but for `characters`; None: a row of its kind has no such thing."""

    task: str  # id
    actions: bytes  # digest of what is sent to the environment
    rewards: tuple[float, float | None, float]  # of the good path, of the bad one, of the record; in [0, 1]
    exact: bool | None  # the replay that wrote it gave what it should; None: it was not executed
    turns: int  # of the assistant, the revision signal included
    characters: int  # of all messages
    cut_depth: int | None  # steps of the bad path that are kept, t'
    shared_prefix: int | None  # of these, in tau^i, which the good path has too
    bad_prefix: int | None  # of these, behind the fork
    good_tail: int | None  # steps behind the revision signal; preference: of the chosen side
    trained: (
        int  # actions whose turn carries loss, the signal left out; preference: of the chosen side, as below
    )
    trained_refused: int  # of these, refused by the environment
    acted: int  # actions with or without loss
    refused: int


def facts(row: Mapping[str, Any]) -> RowFacts:
    """What is counted of a row that stage 2 wrote.

    Raises:
        InputError: naming what the row lacks, without the file's name.
    """
    try:
        return _facts(row, row["lineage"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"not a record of stage 2 ({type(error).__name__}: {error})") from error


def _facts(row: Mapping[str, Any], lineage: Mapping[str, Any]) -> RowFacts:
    chosen, *rejected = trajectories(row)
    replies = [m["content"] for m in chosen if m["role"] == "assistant"]
    cut = lineage["cut_step"] + 1 if row["kind"] in SPLICED else None
    shared = None if cut is None else min(cut, lineage["fork_step"])
    tail = None
    if cut is not None:
        tail = len(replies) - cut - 1
    elif rejected:
        tail = len(replies) - lineage["fork_step"]
    answers = _answers(chosen, lineage["replay"]["final_observation"], lineage["task"]["env"], cut)
    rewards = lineage["rewards"]
    actions = [
        action_of(m["content"]) for side in (chosen, *rejected) for m in side if m["role"] == "assistant"
    ]
    return RowFacts(
        task=lineage["task"]["id"],
        actions=hashlib.sha256(repr(actions).encode("utf-8", "backslashreplace")).digest()[:16],
        rewards=(rewards["good"], rewards.get("bad"), rewards["record"]),
        exact=lineage["replay"]["exact"],
        turns=len(replies),
        characters=sum(len(m["content"]) for side in (chosen, *rejected) for m in side),
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
    messages: Sequence[Mapping[str, Any]], last: str, env: str, signal: int | None
) -> list[tuple[bool, bool]]:
    """(carries loss, was refused) of every action; the signal, turn number `signal`, is none."""
    found = []
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    for number, at in enumerate(turns):
        if number != signal:
            observation = messages[at + 1]["content"] if at + 1 < len(messages) else last
            found.append((bool(messages[at]["loss"]), refuses(env, observation)))
    return found


@dataclass
class Tally:
    """The rows of one kind, added up."""

    rows: int = 0
    tasks: Counter[str] = field(default_factory=Counter)  # rows by task
    same_task: int = 0  # rows with the actions of an earlier row of the same task
    other_task: int = 0  # rows with the actions of an earlier row of another task, and of none of their own
    exact: Counter[str] = field(default_factory=Counter)  # "True", "False", "None"
    acts: Counter[str] = field(default_factory=Counter)  # trained, trained_refused, acted, refused
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
        for name in ("trained", "trained_refused", "acted", "refused"):
            self.acts[name] += getattr(found, name)
        for name, values in self.lengths.items():
            if (value := getattr(found, name)) is not None:
                values.append(value)
        for rewards, reward in zip(self.rewards, found.rewards, strict=True):
            if reward is not None:
                rewards.append(reward)

    def summary(self) -> dict[str, Any]:
        """Plain JSON types; None where there is nothing to say."""
        acts = self.acts
        return {
            "rows": self.rows,
            "tasks": len(self.tasks),
            "rows_per_task": spread(list(self.tasks.values())),
            **{name: spread(values) for name, values in self.lengths.items()},
            "trained_actions": acts["trained"],
            "trained_refused_share": acts["trained_refused"] / acts["trained"] if acts["trained"] else None,
            "refused_share": acts["refused"] / acts["acted"] if acts["acted"] else None,
            "duplicates_same_task": self.same_task,
            "duplicates_other_task": self.other_task,
            "executed_exact": self.exact["True"],
            "executed_not_exact": self.exact["False"],
            "not_executed": self.exact["None"],
            **{
                f"reward_{name}": spread(values)
                for name, values in zip(("good", "bad", "record"), self.rewards, strict=True)
            },
        }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """n, mean, quartiles and ends of the values; None without any."""
    if not len(values):
        return None
    numbers = np.asarray(values, dtype=float)
    low, median, high = (float(q) for q in np.quantile(numbers, (0.25, 0.5, 0.75)))
    return {
        "n": len(numbers),
        "mean": float(numbers.mean()),
        "q25": low,
        "median": median,
        "q75": high,
        "min": float(numbers.min()),
        "max": float(numbers.max()),
    }
