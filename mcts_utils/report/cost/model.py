"""The cost model: calls, tokens, steps, hours and dollars of a run, scaled from a small measured sample. Pure.

It reads no files: sample.py reads the sample, __main__.py prints the result. The rates are assumptions of the user; a
sample of two tasks gives only the order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mcts_utils.tables import text_row

HOUR = 3600.0


class TokenUsage(NamedTuple):
    """Requests and tokens of an endpoint, and steps of an environment server."""

    calls: float = 0.0
    new: float = 0.0  # prompt tokens beyond the longest prefix shared with an earlier prompt
    cached: float = 0.0  # prompt tokens that an unlimited prefix cache holds
    replies: float = 0.0  # completion tokens
    env_steps: float = 0.0

    def plus(self, *others: TokenUsage) -> TokenUsage:
        """Return the sum."""
        return TokenUsage(*map(sum, zip(self, *others, strict=True)))

    def times(self, factor: float) -> TokenUsage:
        """Return the usage multiplied by a factor."""
        return TokenUsage(*(factor * value for value in self))


@dataclass(frozen=True)
class TaskSample:
    """The measured usage of some tasks of one environment."""

    trees: int
    search: TokenUsage  # of all trees
    revision: TokenUsage
    rows: int  # training rows written from the trees
    row_tokens: float  # of all rows
    episodes: int
    evaluation: TokenUsage  # of all episodes
    steps_per_second: float = 0.0  # of the environment, without waiting for a model; 0: not measured


@dataclass(frozen=True)
class EnvCost:
    """One environment of the planned run: its sample and the number of its tasks."""

    task: str
    sample: TaskSample
    train_tasks: int
    test_tasks: int


@dataclass(frozen=True)
class Rates:
    """Assumed rates: those of the endpoint are for the whole endpoint, that of the trainer for one GPU."""

    tokens_per_second: float  # completion tokens
    prefill_tokens_per_second: float  # prompt tokens that are not cached
    train_tokens_per_second: float
    gpus: float  # reserved for the whole run; all of them train
    dollars_per_gpu_hour: float
    overhead_minutes: float  # per iteration: loading, converting, starting servers
    eta: float = 1.0  # share of agent rows in training, in (0, 1] (Section 3.2)
    general_tokens_per_row: float = 0.0

    def dollars(self, hours: float) -> float:
        """Return the price of all GPUs."""
        return hours * self.gpus * self.dollars_per_gpu_hour


@dataclass(frozen=True)
class CostLine:
    """One line of the estimate."""

    name: str
    usage: TokenUsage = TokenUsage()
    training_tokens: float = 0.0
    hours: float = 0.0
    dollars: float = 0.0


def served_line(plan: EnvCost, rates: Rates, search: bool) -> CostLine:
    """Return the cost of evaluating all test tasks of an environment once and, with `search`, of stages 1 and 2.

    The hours are those of the slower of the endpoint, fully loaded, and the environment server.
    """
    sample = plan.sample
    usage = sample.evaluation.times(plan.test_tasks / sample.episodes)
    if search:
        usage = sample.search.plus(sample.revision).times(plan.train_tasks / sample.trees).plus(usage)
    endpoint = usage.new / rates.prefill_tokens_per_second + usage.replies / rates.tokens_per_second
    environment = usage.env_steps / sample.steps_per_second if sample.steps_per_second else 0.0
    hours = max(endpoint, environment) / HOUR
    return CostLine(plan.task, usage, hours=hours, dollars=rates.dollars(hours))


def training_line(plans: Iterable[EnvCost], epochs: int, rates: Rates) -> CostLine:
    """Return the cost of training on all rows, and on general rows in the share 1 - eta (Section 3.2)."""
    rows = row_tokens = 0.0
    for plan in plans:
        factor = plan.train_tasks / plan.sample.trees
        rows += plan.sample.rows * factor
        row_tokens += plan.sample.row_tokens * factor
    row_tokens += rows * (1 - rates.eta) / rates.eta * rates.general_tokens_per_row
    tokens = row_tokens * epochs
    hours = tokens / (rates.train_tokens_per_second * rates.gpus) / HOUR + rates.overhead_minutes / 60
    return CostLine("train, convert, start", TokenUsage(), tokens, hours, rates.dollars(hours))


def total(lines: Sequence[CostLine]) -> CostLine:
    """Return the sum of some lines, which are run one after the other."""
    return CostLine(
        "sum",
        TokenUsage().plus(*(line.usage for line in lines)),
        sum(line.training_tokens for line in lines),
        sum(line.hours for line in lines),
        sum(line.dollars for line in lines),
    )


def estimate(
    plans: Sequence[EnvCost], epochs: Sequence[int], rates: Rates, base: bool
) -> Mapping[str, list[CostLine]]:
    """Return part of the run -> its lines, the last of which is their sum; the last part is the whole run.

    Args:
        epochs: of each iteration; its length is the number of iterations.
        base: True if the starting model is evaluated first.
    """
    parts = {"the starting model": [served_line(plan, rates, search=False) for plan in plans]} if base else {}
    for number, count in enumerate(epochs, start=1):
        lines = [served_line(plan, rates, search=True) for plan in plans]
        parts[f"iteration {number}"] = [*lines, training_line(plans, count, rates)]
    for lines in parts.values():
        lines.append(total(lines))
    parts["whole run"] = [total([lines[-1] for lines in parts.values()])]
    return parts


def table(parts: Mapping[str, list[CostLine]]) -> list[str]:
    """Return the estimate as lines of a text table."""
    names = ("calls", "prompt, new", "cached", "replies", "env steps", "training", "hours", "dollars")
    row = text_row(24, 12)
    lines = [row("", names)]
    for part, found in parts.items():
        lines.append(part)
        for line in found:
            counts = map(compact_number, (*line.usage, line.training_tokens))
            lines.append(row(f"  {line.name}", [*counts, f"{line.hours:.2f}", f"{line.dollars:,.2f}"]))
    return lines


def compact_number(value: float) -> str:
    """Return a number with three digits and a unit, such as `987`, `12.3k`, `4.56M` or `1.23G`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + letter
    return f"{value:.0f}"
