"""Replies executed in the real environment: the replays behind every record, and the check of written rows.

Chooses nothing and formats nothing; cleaning.py and records.py say what to execute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mcts_utils.envs.specs import env_spec
from mcts_utils.revision.record import trajectories
from mcts_utils.rollouts.episode import replay
from mcts_utils.rollouts.steps import EPSILON, earned
from mcts_utils.storage.files import read_jsonl
from mcts_utils.types import Environment, InputError


def verify_rows(rows: Sequence[Mapping[str, Any]], env: Environment) -> dict[str, int]:
    """Execute every row again, from its messages alone, and count what comes back as it was written.

    Returns:
        rows, exact (rows without any difference that counts), observations and observations_exact (openings and last
        observations included), rewards and rewards_exact. Where an environment's texts vary between replays
        (ScienceWorld: temperatures, order of listings), only rewards count.

    Raises:
        InputError: naming the row (from 1) that lacks a field.
    """
    total: Counter[str] = Counter(rows=len(rows), exact=0)
    for number, row in enumerate(rows, start=1):
        try:
            checks = [_verify(row, side, turns, env) for side, turns in enumerate(trajectories(row))]
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(f"row {number}: a field is missing or wrong: {error!r}") from error
        fixed = env_spec(row["lineage"]["task"]["env"]).fixed_observations
        for observations, exact, same_reward in checks:
            total.update(
                observations=observations, observations_exact=exact, rewards=1, rewards_exact=same_reward
            )
        total["exact"] += all(same and (not fixed or texts == exact) for texts, exact, same in checks)
    return dict(total)


def _verify(
    row: Mapping[str, Any], side: int, turns: Sequence[Mapping[str, Any]], env: Environment
) -> tuple[int, int, bool]:
    """(observations written, of these exact, reward exact) of one conversation."""
    lineage = row["lineage"]
    suffix, reward = (("", "record"), ("_rejected", "rejected"))[side]
    written = [m["content"] for m in turns if m["role"] == "user"] + [
        lineage["replay"][f"final_observation{suffix}"]
    ]
    task, steps = replay(
        env, lineage["task"]["index"], [m["content"] for m in turns if m["role"] == "assistant"]
    )
    came = [task.opening] + [step.observation for step in steps]
    exact = sum(a == b for a, b in zip(written, came, strict=False))
    return len(written), exact, abs(earned(steps) - lineage["rewards"][reward]) < EPSILON


def verify_file(path: str | Path, make_environment: Callable[[], Environment]) -> dict[str, int]:
    """Execute every row of a records file again (see verify_rows).

    Raises:
        InputError: naming the file and the row that cannot be read.
    """
    rows = read_jsonl(path)
    total: Counter[str] = Counter()
    with closing(make_environment()) as env:
        for number, row in enumerate(tqdm(rows, desc="verify", unit="row"), start=1):
            try:
                total.update(verify_rows([row], env))
            except InputError as error:
                raise InputError(f"{path} row {number}: {str(error).removeprefix('row 1: ')}") from error
    return dict(total)
