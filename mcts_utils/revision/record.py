"""The lines of the records file: an executed path, its messages and its lineage, as plain JSON types. Pure.

Says how a row looks and when two rows are the same; which rows there are is records.py's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mcts_utils.prompts import JUDGES, action_of, opening_messages, system_prompt
from mcts_utils.revision.pairs import Pair, Trajectory, conversation, trained_from
from mcts_utils.rollouts.steps import earned
from mcts_utils.types import Message, Step, Task


@dataclass(frozen=True)
class Source:
    """The tree's file and how its rows are made, for the lineage."""

    name: str
    sha256: str
    prompt: str  # key of conversation.JUDGES
    seed: int


@dataclass(frozen=True)
class Record:
    """An executed path, and what it was made of."""

    kind: str
    steps: tuple[Step, ...]
    first_trained: int  # index of the first step whose turn carries loss
    good: Trajectory
    pair: Pair | None = None
    rejected: tuple[Step, ...] = ()  # preference: the executed bad path
    feedback: str = ""  # the judge's reason at the cut
    extra: Mapping[str, Any] | None = None  # more lineage
    executed: bool = True  # False: the steps are put together as recorded (`--verified 0`)

    @property
    def actions(self) -> tuple[str, ...]:
        """What makes two records the same."""
        return tuple(step.action for step in (*self.steps, *self.rejected))


def to_row(
    record: Record, task: Task, source: Source, mask_refused: bool, reference_fields: bool
) -> dict[str, Any]:
    """The JSON row: `messages`, or `prompt`, `chosen` and `rejected`; the reference's fields; the lineage."""
    trained = trained_from(record.first_trained, task.env, mask_refused)
    messages = conversation(task, record.steps, source.prompt, trained)
    row: dict[str, Any] = {"kind": record.kind, "task_num": task.index, "task_description": task.opening}
    if record.rejected:
        other = conversation(task, record.rejected, source.prompt, lambda index, step: False)
        split = len(opening_messages(task, source.prompt)) + 2 * record.first_trained
        row |= {
            "prompt": _plain(messages[:split]),
            "chosen": _plain(messages[split:]),
            "rejected": _plain(other[split:]),
        }
    else:
        row["messages"] = _plain(messages)
    row["revise"] = record.steps[record.first_trained].reply if record.kind in ("revision", "direct") else ""
    row["revise_feedback"] = record.feedback
    row["high_log"] = _log(record.good.steps)
    row["low_log"] = _log(record.pair.bad.steps) if record.pair else []
    if reference_fields:
        row["revise_log"] = row.get("messages", [])
    row["lineage"] = _lineage(record, task, source) | dict(record.extra or {})
    return row


def _lineage(record: Record, task: Task, source: Source) -> dict[str, Any]:
    steps, pair = record.steps, record.pair
    rewards: dict[str, float] = {"good": record.good.reward, "record": earned(steps)}
    executed: dict[str, Any] = {
        "exact": True if record.executed else None,  # None: nobody knows
        "env_steps": len(steps) if record.executed else 0,
        "final_observation": steps[-1].observation,
    }
    found: dict[str, Any] = {
        "tree": source.name,
        "tree_sha256": source.sha256,
        "task": {"env": task.env, "index": task.index, "id": task.id},
        "good_leaf": record.good.leaf,
        "rewards": rewards,
        "prompt": source.prompt,
        "prompt_sha256": prompt_sha256(source.prompt, task.env),
        "seed": source.seed,
        "replay": executed,
    }
    if pair:
        rewards["bad"] = pair.bad.reward
        found |= {"fork": pair.fork, "fork_step": pair.shared, "bad_leaf": pair.bad.leaf}
    if record.rejected:
        rewards["rejected"] = earned(record.rejected)
        executed["final_observation_rejected"] = record.rejected[-1].observation
    return found


def prompt_sha256(prompt: str, env: str) -> str:
    """Hex digest of the two system texts that a record depends on: the agent's and the judge's."""
    return hashlib.sha256(f"{system_prompt(env, prompt)}\n{JUDGES[prompt]}".encode()).hexdigest()


def _plain(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [asdict(message) for message in messages]


def _log(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A path of the tree as the tree has it."""
    return [{"action": s.action, "observation": s.observation, "reward": s.reward} for s in steps]


def trajectories(row: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The conversations of a row: one, or the chosen and the rejected one."""
    if "messages" in row:
        return [row["messages"]]
    return [row["prompt"] + row[side] for side in ("chosen", "rejected")]


class UniqueRows:
    """Rows whose (task id, actions) no earlier row has, across trees, one at a time."""

    def __init__(self, rows: Iterable[dict[str, Any]], unique: bool = True) -> None:
        """`unique` false: rows are counted, and none is left out."""
        self._rows, self._unique = rows, unique
        self.left_out = 0  # so far
        self.executed = 0  # rows given out that are what came back, so far
        self.tasks: set[str] = set()  # ids of the tasks that have a row so far

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seen: set[bytes] = set()
        for row in self._rows:
            turns = [message for conversation in trajectories(row) for message in conversation]
            actions = [action_of(turn["content"]) for turn in turns if turn["role"] == "assistant"]
            task = row["lineage"]["task"]["id"]
            # A digest, so that a million rows can be told apart in memory. Half a character has no UTF-8.
            key = hashlib.sha256(repr((task, actions)).encode("utf-8", "backslashreplace")).digest()
            if key in seen and self._unique:
                self.left_out += 1
                continue
            seen.add(key)
            self.tasks.add(task)
            self.executed += row["lineage"]["replay"]["exact"] is True
            yield row
