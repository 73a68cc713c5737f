"""The cost model: calls, tokens, steps, hours and dollars of a run, scaled from a small measured sample. Pure.

It reads no files: sample.py reads the sample, report.py prints the result. The rates are assumptions of the user; a
sample of two tasks gives only the order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from mcts_utils.tables import text_row

HOUR = 3600.0


@dataclass(frozen=True)
class TokenUsage:
    """Requests and tokens of an endpoint, and steps of an environment server."""

    calls: float = 0.0
    new: float = 0.0  # prompt tokens beyond the longest prefix shared with an earlier prompt
    cached: float = 0.0  # prompt tokens that an unlimited prefix cache holds
    replies: float = 0.0  # completion tokens
    env_steps: float = 0.0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> TokenUsage:
        """Return the usage multiplied by a factor."""
        return TokenUsage(*(getattr(self, f.name) * factor for f in fields(self)))


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
    general_tokens: float = 0.0  # per general row


@dataclass(frozen=True)
class CostLine:
    """One line of the estimate."""

    name: str
    usage: TokenUsage = TokenUsage()
    training_tokens: float = 0.0
    hours: float = 0.0
    dollars: float = 0.0


def serving_hours(usage: TokenUsage, steps_per_second: float, rates: Rates) -> float:
    """Return the hours of the slower of the endpoint, fully loaded, and the environment server."""
    endpoint = usage.new / rates.prefill_tokens_per_second + usage.replies / rates.tokens_per_second
    environment = usage.env_steps / steps_per_second if steps_per_second else 0.0
    return max(endpoint, environment) / HOUR


def evaluation_line(plan: EnvCost, rates: Rates) -> CostLine:
    """Return the cost of evaluating all test tasks of an environment once."""
    usage = plan.sample.evaluation.times(plan.test_tasks / plan.sample.episodes)
    return _served(plan, usage, rates)


def iteration_line(plan: EnvCost, rates: Rates) -> CostLine:
    """Return the cost of search, revision and evaluation of an environment in one iteration."""
    searched = (plan.sample.search + plan.sample.revision).times(plan.train_tasks / plan.sample.trees)
    evaluated = plan.sample.evaluation.times(plan.test_tasks / plan.sample.episodes)
    return _served(plan, searched + evaluated, rates)


def training_line(plans: Iterable[EnvCost], epochs: int, rates: Rates) -> CostLine:
    """Return the cost of training on all rows, and on general rows in the share 1 - eta (Section 3.2)."""
    rows = row_tokens = 0.0
    for plan in plans:
        factor = plan.train_tasks / plan.sample.trees
        rows += plan.sample.rows * factor
        row_tokens += plan.sample.row_tokens * factor
    row_tokens += rows * (1 - rates.eta) / rates.eta * rates.general_tokens
    tokens = row_tokens * epochs
    hours = tokens / (rates.train_tokens_per_second * rates.gpus) / HOUR + rates.overhead_minutes / 60
    return _priced(CostLine("train, convert, start", training_tokens=tokens, hours=hours), rates)


def total(name: str, lines: Sequence[CostLine]) -> CostLine:
    """Return the sum of some lines, which are run one after the other."""
    return CostLine(
        name,
        sum((line.usage for line in lines), TokenUsage()),
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
    parts: dict[str, list[CostLine]] = {}
    if base:
        parts["the starting model"] = [evaluation_line(plan, rates) for plan in plans]
    for number, count in enumerate(epochs, start=1):
        lines = [iteration_line(plan, rates) for plan in plans]
        parts[f"iteration {number}"] = [*lines, training_line(plans, count, rates)]
    for lines in parts.values():
        lines.append(total("sum", lines))
    parts["whole run"] = [total("sum", [lines[-1] for lines in parts.values()])]
    return parts


def table(parts: Mapping[str, list[CostLine]]) -> list[str]:
    """Return the estimate as lines of a text table."""
    names = ("calls", "prompt, new", "cached", "replies", "env steps", "training", "hours", "dollars")
    row = text_row(24, 12)
    lines = [row("", names)]
    for part, found in parts.items():
        lines.append(part)
        for line in found:
            cells = [compact_number(getattr(line.usage, f.name)) for f in fields(line.usage)]
            cells += [compact_number(line.training_tokens), f"{line.hours:.2f}", f"{line.dollars:,.2f}"]
            lines.append(row(f"  {line.name}", cells))
    return lines


def compact_number(value: float) -> str:
    """Return a number with three digits and a unit, such as `987`, `12.3k`, `4.56M` or `1.23G`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + letter
    return f"{value:.0f}"


def _served(plan: EnvCost, usage: TokenUsage, rates: Rates) -> CostLine:
    hours = serving_hours(usage, plan.sample.steps_per_second, rates)
    return _priced(CostLine(plan.task, usage, hours=hours), rates)


def _priced(line: CostLine, rates: Rates) -> CostLine:
    dollars = line.hours * rates.gpus * rates.dollars_per_gpu_hour
    return CostLine(line.name, line.usage, line.training_tokens, line.hours, dollars)
