"""The lines of the records file: an executed path, its messages and its lineage (storage/formats/record.py). Pure.

It says how a row looks and when two rows are the same; builder.py decides which rows there are.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import eq
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from mcts_utils.prompts import JUDGE_PROMPTS, acting_messages, system_prompt
from mcts_utils.reasoning import split_reasoning
from mcts_utils.revision.pairs import Pair, Trajectory, conversation, trained_from
from mcts_utils.rollouts.steps import earned
from mcts_utils.storage.formats.record import Lineage, LogStep, RecordRow, Replay, Rewards, RowTask, Turn
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import Message, Step, Task


@dataclass(frozen=True)
class Source:
    """The tree's file and how its rows are made, for the lineage."""

    name: str
    sha256: str
    prompt: str  # key of prompts.JUDGE_PROMPTS
    seed: int
    history: str = "drop"  # HISTORY_REASONING of the tree
    form: str = "any"  # how actions are read from replies


@dataclass(frozen=True)
class Record:
    """An executed path, and the paths it was made of."""

    kind: str
    steps: tuple[Step, ...]
    first_trained: int  # index of the first step whose turn carries loss
    good: Trajectory
    pair: Pair | None = None
    rejected: tuple[Step, ...] = ()  # preference: the executed bad path
    feedback: str = ""  # the judge's reason at the cut
    extra: Mapping[str, Any] | None = None  # more fields of the lineage
    replayed: bool = True  # False: `steps` were not executed, but put together as recorded (`--verified 0`)
    loss: tuple[bool, ...] | None = None  # the steps' loss flags, where the source gives them

    @property
    def actions(self) -> tuple[str, ...]:
        """Return the actions; records with the same ones are duplicates."""
        return tuple(step.action for step in (*self.steps, *self.rejected))


def to_row(
    record: Record, task: Task, source: Source, mask_refused: bool, reference_fields: bool
) -> RecordRow:
    """Return the row: `messages`, or `prompt`, `chosen` and `rejected`; the reference's fields; the lineage."""
    trained, given = trained_from(record.first_trained, task.env, mask_refused), record.loss
    if given is not None:
        trained = lambda index, step: given[index]  # noqa: E731
    said = conversation(task, record.steps, source.prompt, trained, source.form)
    messages = _turns(said)
    spliced = record.kind in ("revision", "direct")
    row = RecordRow(
        kind=record.kind,
        task_num=task.index,
        task_description=task.opening,
        messages=messages,
        revise=record.steps[record.first_trained].reply if spliced else "",
        revise_feedback=record.feedback,
        high_log=[LogStep.of(step) for step in record.good.steps],
        low_log=[LogStep.of(step) for step in record.pair.bad.steps] if record.pair else [],
        revise_log=UNSET,
        lineage=_lineage(record, task, source),
    )
    if record.rejected:
        other = _turns(
            conversation(task, record.rejected, source.prompt, lambda index, step: False, source.form)
        )
        split = len(acting_messages(task, record.steps[: record.first_trained], source.prompt, source.form))
        sides = {"prompt": messages[:split], "chosen": messages[split:], "rejected": other[split:]}
        row = replace(row, messages=UNSET, **sides)
    if source.form == TOOLS:
        row = replace(row, tools=json.loads(said[0].tools))
    turns = [turn for turns in row.conversations for turn in turns if turn.role == "assistant"]
    if any(split_reasoning(turn.content)[0] for turn in turns):
        row = replace(row, history_reasoning=source.history)
    return replace(row, revise_log=row.messages or []) if reference_fields else row


def _lineage(record: Record, task: Task, source: Source) -> Lineage:
    steps, pair, rejected = record.steps, record.pair, record.rejected
    return Lineage(
        tree=source.name,
        tree_sha256=source.sha256,
        task=RowTask(env=task.env, index=task.index, id=task.id),
        good_leaf=record.good.leaf,
        rewards=Rewards(
            good=record.good.reward,
            record=earned(steps),
            bad=pair.bad.reward if pair else UNSET,
            rejected=earned(rejected) if rejected else UNSET,
        ),
        prompt=source.prompt,
        prompt_sha256=prompt_sha256(source.prompt, task.env, source.form),
        seed=source.seed,
        replay=Replay(
            exact=True if record.replayed else None,
            env_steps=len(steps) if record.replayed else 0,
            final_observation=steps[-1].observation,
            final_observation_rejected=rejected[-1].observation if rejected else UNSET,
        ),
        fork=pair.fork if pair else UNSET,
        fork_step=pair.shared if pair else UNSET,
        bad_leaf=pair.bad.leaf if pair else UNSET,
        **(record.extra or {}),
    )


def prompt_sha256(prompt: str, env: str, form: str = "any") -> str:
    """Return the hex digest of the two system texts that a record depends on: the agent's and the judge's."""
    return hashlib.sha256(f"{system_prompt(env, prompt, form)}\n{JUDGE_PROMPTS[prompt]}".encode()).hexdigest()


def _turns(messages: Iterable[Message]) -> list[Turn]:
    return [Turn.of(message) for message in messages]


class UniqueRows:
    """Iterates over rows and leaves out those whose (task id, actions) an earlier row has, across trees."""

    def __init__(self, rows: Iterable[RecordRow], unique: bool = True) -> None:
        """With `unique` false, rows are counted, and none is left out."""
        self._rows, self._unique = rows, unique
        self.left_out = 0  # so far
        self.replayed = 0  # rows yielded that came back from a replay, so far
        self.tasks: set[str] = set()  # ids of the tasks that have a row so far

    def __iter__(self) -> Iterator[RecordRow]:
        seen: set[bytes] = set()
        for row in self._rows:
            turns = [turn for conversation in row.conversations for turn in conversation]
            actions = [turn.action for turn in turns if turn.role == "assistant"]
            task = row.lineage.task.id
            # A digest, so that the keys of a million rows fit in memory. A lone surrogate has no UTF-8.
            key = hashlib.sha256(repr((task, actions)).encode("utf-8", "backslashreplace")).digest()
            if key in seen and self._unique:
                self.left_out += 1
                continue
            seen.add(key)
            self.tasks.add(task)
            self.replayed += row.lineage.replay.exact is True
            yield row


def first_rows(
    rows: Callable[[], Iterable[RecordRow]], unique: bool, most: int, seed: int, loops_last: bool
) -> tuple[UniqueRows, dict[str, int]]:
    """Return at most `most` of the rows, and the counts of the others by reason.

    One row of every task comes before a second one of any; the order of the tasks is drawn with the seed.

    Args:
        rows: yields the rows; called twice, so that they need not be in memory.
        loops_last: rows that take an action twice in a row come after all others.
    """
    taken: Counter[str] = Counter()
    keys = []
    found = UniqueRows(rows(), unique)
    for place, row in enumerate(found):
        task = row.lineage.task.id
        actions = [turn.action for turn in row.conversations[0] if turn.role == "assistant"]
        loops = loops_last and any(map(eq, actions, actions[1:]))
        keys.append((loops, taken[task], random.Random(f"{seed}|{task}").random(), place))
        taken[task] += 1
    places = {key[-1] for key in sorted(keys)[:most]}
    kept = (row for place, row in enumerate(UniqueRows(rows(), unique)) if place in places)
    return UniqueRows(kept, unique), {"duplicate": found.left_out, "over_n": len(keys) - len(places)}
