"""Turn an environment's own rewards into the score of the episode so far, in [0, 1]. Pure.

`reward_of = "step"` (default): what `step` returns is summed; "episode": it is the score so far already. Without a
`reward_range` the sum must lie in [0, 1]; with one, (low, high) is mapped to [0, 1] and what is outside is cut. Several
criteria are a dict of rewards with a dict of ranges; the score is their mean, with `reward_weights` if they are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEP, EPISODE = "step", "episode"
Range = tuple[float, float]
UNSTATED = (-math.inf, math.inf)  # the default of older Gym environments


class RewardError(ValueError):
    """A reward that cannot be used, or a wrong statement about rewards."""


@dataclass(frozen=True)
class RewardRule:
    """What an environment states about its rewards."""

    summed: bool = True
    ranges: Mapping[str, Range] = field(default_factory=dict)  # by criterion; a single one is named ""
    weights: Mapping[str, float] = field(default_factory=dict)

    def add(self, totals: Mapping[str, float], reward: Any) -> dict[str, float]:
        """Return the totals by criterion after one more reward.

        Raises:
            RewardError: it is no number, or of a criterion without a range.
        """
        named = reward if isinstance(reward, Mapping) else {"": reward}
        names = set(self.ranges) or {""}
        if unknown := sorted(str(name) for name in named if name not in names):
            what = f"criterion {unknown[0]!r}" if unknown[0] else "a reward without a criterion"
            raise RewardError(f"{what} has no range: reward_range names {sorted(self.ranges) or 'none'}")
        new = {name: _number(value) + self.summed * totals.get(name, 0.0) for name, value in named.items()}
        return {**dict.fromkeys(names, 0.0), **totals, **new}

    def score(self, totals: Mapping[str, float]) -> float:
        """Return the score, in [0, 1]; raise RewardError if a total is outside [0, 1] and no range is stated."""
        if not self.ranges:
            total = totals.get("", 0.0)
            if not -1e-9 <= total <= 1 + 1e-9:
                what = "the sum of the rewards" if self.summed else "the reward"
                raise RewardError(f"{what} is {total:g}, outside [0, 1]: state reward_range = (low, high)")
            return min(1.0, max(0.0, total))
        parts = {
            name: (totals.get(name, 0.0) - low) / (high - low) for name, (low, high) in self.ranges.items()
        }
        weight = {name: self.weights.get(name, 1.0) for name in parts}
        mean = sum(weight[name] * min(1.0, max(0.0, part)) for name, part in parts.items())
        return min(1.0, mean / sum(weight.values()))


def rule_of(env: Any) -> RewardRule:
    """Return what the environment's attributes `reward_of`, `reward_range` and `reward_weights` state.

    Raises:
        RewardError: one of them has a wrong value.
    """
    how, given = getattr(env, "reward_of", STEP), getattr(env, "reward_range", None)
    weights = getattr(env, "reward_weights", None) or {}
    if how not in (STEP, EPISODE):
        raise RewardError(f"reward_of must be 'step' or 'episode': {how!r}")
    if as_list := getattr(given, "tolist", None):  # an array
        given = as_list()
    if given in (None, UNSTATED):
        given = {}
    try:
        stated = given.items() if isinstance(given, Mapping) else [("", given)]
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in stated}
        good = all(math.isfinite(high - low) and low < high for low, high in ranges.values())
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise RewardError(f"reward_range must be (low, high), finite, low < high: {given!r}")
    try:
        good = all(name in ranges and 0 < float(weight) < math.inf for name, weight in weights.items())
    except (AttributeError, TypeError, ValueError):
        good = False
    if not good:
        raise RewardError(f"reward_weights must be positive, of criteria in reward_range: {weights!r}")
    return RewardRule(how == STEP, ranges, {name: float(weight) for name, weight in weights.items()})


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except OverflowError:
        raise RewardError("the reward is a whole number of more than 300 digits") from None
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RewardError(f"the reward is {value!r}, not a finite number")
    return number
