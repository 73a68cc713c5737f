"""What an agent did, from its actions: repeated sequences (Figure 4), refused actions, the first error (Figure 5).

Pure: it reads no files and knows no environment; what counts as a refused action or an error is an argument. Every
interval resamples tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from mcts_utils.evaluation.metrics.scores import Estimate, bootstrap_ratio
from mcts_utils.types import Step

LOOP_LENGTHS = (1, 2, 3, 4, 5)  # Figure 4: how long the repeated action sequences are


def immediate_repeats(actions: Sequence[str]) -> int:
    """How many actions are the same as the one before."""
    return sum(a == b for a, b in zip(actions, actions[1:], strict=False))


def repeated_sequences(actions: Sequence[str], length: int) -> int:
    """How often a sequence of `length` actions is taken again right after itself (Figure 4).

    Occurrences do not overlap, and a sequence that is itself a loop of something shorter counts there only:
    `a a a a` is three repeats of length 1 and none of length 2; `a b a b a b` two repeats of length 2.
    """
    count = at = 0
    while at + 2 * length <= len(actions):
        block = list(actions[at : at + length])
        if block == list(actions[at + length : at + 2 * length]) and not _is_loop(block):
            count += 1
            at += length
        else:
            at += 1
    return count


def _is_loop(block: list[str]) -> bool:
    """True for a whole number of copies of something shorter."""
    size = len(block)
    return any(size % k == 0 and block == block[:k] * (size // k) for k in range(1, size))


def first(steps: Sequence[Step], is_it: Callable[[Step], bool]) -> int | None:
    """Number of actions up to and including the first that `is_it`; None without one (Figure 5)."""
    return next((number for number, step in enumerate(steps, start=1) if is_it(step)), None)


def per_task(
    parts: Sequence[float],
    wholes: Sequence[float] | None = None,
    tasks: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """sum(parts) / sum(wholes) over episodes, drawn by task.

    Args:
        parts: one number an episode.
        wholes: what it is a part of; 1 each if left out, so that the result is a mean.
        tasks: which episodes are samples of one task; each episode its own if left out.
    """
    wholes = [1.0] * len(parts) if wholes is None else wholes
    sums: dict[Hashable, list[list[float]]] = {}
    for key, part, whole in zip(range(len(parts)) if tasks is None else tasks, parts, wholes, strict=True):
        sums.setdefault(key, []).append([part, whole])
    both = [[sum(sorted(column)) for column in zip(*rows, strict=True)] for rows in sums.values()]
    return bootstrap_ratio([part for part, _ in both], [whole for _, whole in both], seed)


def loops(actions: Sequence[Sequence[str]], tasks: Sequence[Hashable] | None = None) -> dict[str, Estimate]:
    """Repeated sequences an episode, by their length (Figure 4)."""
    counts = {k: [float(repeated_sequences(taken, k)) for taken in actions] for k in LOOP_LENGTHS}
    return {str(k): per_task(found, tasks=tasks) for k, found in counts.items()}


def behaviour(
    episodes: Sequence[Sequence[Step]],
    refused: Callable[[Step], bool],
    tasks: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """What the agent did: steps, refused actions, repeats; plain numbers for a summary, intervals under "ci95".

    Args:
        episodes: the steps that the agent took itself (a replayed prefix left out).
        refused: tells a step that the environment refused.
        tasks: see `per_task`.
    """
    actions = [[step.action for step in steps] for steps in episodes]
    lengths = [float(len(taken)) for taken in actions]
    found = {
        "steps": per_task(lengths, tasks=tasks),
        "invalid_action_share": per_task([float(sum(map(refused, e))) for e in episodes], lengths, tasks),
        "grounded_action_share": per_task(
            [float(sum(bool(step.executed) for step in e)) for e in episodes], lengths, tasks
        ),
        "repeated_action_share": per_task(
            [float(immediate_repeats(taken)) for taken in actions], [max(0.0, n - 1) for n in lengths], tasks
        ),
    }
    repeats = loops(actions, tasks)
    steps = {
        "mean": found["steps"].mean,
        "median": float(np.median(lengths)) if lengths else None,
        "total": int(sum(lengths)),
    }
    return {
        **{name: estimate.mean for name, estimate in found.items()},
        "steps": steps if episodes else None,
        "repeated_sequences": {k: estimate.mean for k, estimate in repeats.items()},
        "ci95": {
            **{name: estimate.ci95 for name, estimate in found.items()},
            "repeated_sequences": {k: estimate.ci95 for k, estimate in repeats.items()},
        },
    }
