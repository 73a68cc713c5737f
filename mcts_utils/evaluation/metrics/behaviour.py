"""Behaviour of an agent: repeated sequences (Figure 4), refused actions, the position of an error (Figure 5). Pure.

It reads no files and knows no environment: the test for a refused action or an error is an argument. Every interval
resamples tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from mcts_utils.evaluation.metrics.scores import Estimate, bootstrap_ratio
from mcts_utils.types import Step

LOOP_LENGTHS = (1, 2, 3, 4, 5)  # of the repeated action sequences, in actions (Figure 4)


def immediate_repeats(actions: Sequence[str]) -> int:
    """Return the number of actions that equal the action before them."""
    return sum(a == b for a, b in zip(actions, actions[1:], strict=False))


def repeated_sequences(actions: Sequence[str], length: int) -> int:
    """Return the number of times that a sequence of `length` actions is repeated right after itself (Figure 4).

    Occurrences do not overlap. A sequence that is itself a loop of a shorter one counts only for the shorter length:
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
    """Return True if the block is a shorter block repeated a whole number of times."""
    size = len(block)
    return any(size % k == 0 and block == block[:k] * (size // k) for k in range(1, size))


def actions_until(steps: Sequence[Step], predicate: Callable[[Step], bool]) -> int | None:
    """Return the number of actions up to and including the first that satisfies `predicate`, or None (Figure 5)."""
    return next((number for number, step in enumerate(steps, start=1) if predicate(step)), None)


def after_errors(
    steps: Sequence[Step], refused: Callable[[Step], bool], signal: Callable[[Step], bool]
) -> dict[str, tuple[int, int]]:
    """Count what an agent does right after a refused action, and right after a revision signal that answers one.

    Returns:
        errors_repeated and errors_signalled: (refused actions that are taken again, or followed by a signal; all that
        any step follows). signals_same and signals_accepted: (such signals that the refused action follows, or an
        action that is not refused; all that any step follows).
    """
    pairs = [(a, b) for a, b in zip(steps, steps[1:], strict=False) if refused(a)]
    triples = [
        (a, c) for a, b, c in zip(steps, steps[1:], steps[2:], strict=False) if refused(a) and signal(b)
    ]
    return {
        "errors_repeated": (sum(a.action == b.action for a, b in pairs), len(pairs)),
        "errors_signalled": (sum(signal(b) for _, b in pairs), len(pairs)),
        "signals_same": (sum(a.action == c.action for a, c in triples), len(triples)),
        "signals_accepted": (sum(not refused(c) for _, c in triples), len(triples)),
    }


def per_task(
    parts: Sequence[float], wholes: Sequence[float] | None = None, tasks: Sequence[Hashable] | None = None
) -> Estimate:
    """Return sum(parts) / sum(wholes) over episodes, with a bootstrap interval over tasks.

    Args:
        parts: one number per episode.
        wholes: the total that each number is a part of; 1 each if left out, so that the result is a mean.
        tasks: the task of each episode; if left out, every episode is a task of its own.
    """
    wholes = [1.0] * len(parts) if wholes is None else wholes
    sums: dict[Hashable, list[list[float]]] = {}
    for key, part, whole in zip(range(len(parts)) if tasks is None else tasks, parts, wholes, strict=True):
        sums.setdefault(key, []).append([part, whole])
    both = [[sum(sorted(column)) for column in zip(*rows, strict=True)] for rows in sums.values()]
    return bootstrap_ratio([part for part, _ in both], [whole for _, whole in both])


def repeats_by_length(
    actions: Sequence[Sequence[str]], tasks: Sequence[Hashable] | None = None
) -> dict[str, Estimate]:
    """Return sequence length -> mean number of repeats per episode (Figure 4)."""
    counts = {k: [float(repeated_sequences(taken, k)) for taken in actions] for k in LOOP_LENGTHS}
    return {str(k): per_task(numbers, tasks=tasks) for k, numbers in counts.items()}


def behaviour(
    episodes: Sequence[Sequence[Step]],
    refused: Callable[[Step], bool],
    tasks: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Return the number of steps and the shares of refused, grounded and repeated actions, for a summary.

    Means are plain numbers; their intervals are under "ci95".

    Args:
        episodes: the steps that the agent took itself, without a replayed prefix.
        refused: returns True for a step that the environment refused.
        tasks: the task of each episode; if left out, every episode is a task of its own.
    """
    actions = [[step.action for step in steps] for steps in episodes]
    lengths = [float(len(taken)) for taken in actions]
    repeated = [float(immediate_repeats(taken)) for taken in actions]
    found = {
        "steps": per_task(lengths, tasks=tasks),
        "invalid_action_share": _share(episodes, refused, tasks),
        "grounded_action_share": _share(episodes, lambda step: bool(step.grounded_action), tasks),
        "repeated_action_share": per_task(repeated, [max(0.0, n - 1) for n in lengths], tasks),
    }
    repeats = repeats_by_length(actions, tasks)
    median, total = float(np.median(lengths)) if lengths else None, int(sum(lengths))
    return {
        **{name: estimate.mean for name, estimate in found.items()},
        "steps": {"mean": found["steps"].mean, "median": median, "total": total} if episodes else None,
        "repeated_sequences": {k: estimate.mean for k, estimate in repeats.items()},
        "ci95": {
            **{name: estimate.ci95 for name, estimate in found.items()},
            "repeated_sequences": {k: estimate.ci95 for k, estimate in repeats.items()},
        },
    }


def _share(
    episodes: Sequence[Sequence[Step]], predicate: Callable[[Step], bool], tasks: Sequence[Hashable] | None
) -> Estimate:
    """Return the share of steps that satisfy the predicate."""
    hits = [float(sum(map(predicate, steps))) for steps in episodes]
    return per_task(hits, [float(len(steps)) for steps in episodes], tasks)
