"""What a run will cost, scaled from a small measured sample: calls, tokens, steps, hours, dollars. Pure arithmetic.

forecast.py reads the sample and prints the result. Rates are assumptions of the person who asks; a sample of two tasks
says no more than the order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

HOUR = 3600.0


@dataclass(frozen=True)
class TokenUsage:
    """Work of an endpoint and of an environment server."""

    calls: float = 0.0
    new: float = 0.0  # prompt tokens that no earlier prompt began with
    cached: float = 0.0  # prompt tokens that an endless prefix cache has seen
    replies: float = 0.0  # tokens
    env_steps: float = 0.0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> TokenUsage:
        """`factor` times as much of everything."""
        return TokenUsage(*(getattr(self, f.name) * factor for f in fields(self)))


@dataclass(frozen=True)
class TaskSample:
    """What some tasks of one environment took."""

    trees: int
    search: TokenUsage  # of all these trees
    revision: TokenUsage
    rows: int  # training rows written from them
    row_tokens: float  # of all these rows
    episodes: int
    evaluation: TokenUsage  # of all these episodes
    steps_per_second: float = 0.0  # of the environment where no model was waited for; 0: not measured


@dataclass(frozen=True)
class EnvCost:
    """One environment of the run."""

    task: str
    sample: TaskSample
    train_tasks: int
    test_tasks: int


@dataclass(frozen=True)
class Rates:
    """Assumptions. The endpoint's are of the whole endpoint, the trainer's of one GPU."""

    tokens_per_second: float  # replies
    prefill_tokens_per_second: float  # prompt tokens that are not cached
    train_tokens_per_second: float
    gpus: float  # held all the time, and all of them train
    dollars_per_gpu_hour: float
    overhead_minutes: float  # of an iteration: loading, converting, starting servers
    eta: float = 1.0  # share of agent rows
    general_tokens: float = 0.0  # of a general row


@dataclass(frozen=True)
class Line:
    """One line of the estimate."""

    name: str
    usage: TokenUsage = TokenUsage()
    training_tokens: float = 0.0
    hours: float = 0.0
    dollars: float = 0.0


def serving_hours(usage: TokenUsage, steps_per_second: float, rates: Rates) -> float:
    """The slower of the endpoint, kept full, and the environment server."""
    endpoint = usage.new / rates.prefill_tokens_per_second + usage.replies / rates.tokens_per_second
    environment = usage.env_steps / steps_per_second if steps_per_second else 0.0
    return max(endpoint, environment) / HOUR


def evaluation_line(plan: EnvCost, rates: Rates) -> Line:
    """All test tasks of an environment, once."""
    usage = plan.sample.evaluation.times(plan.test_tasks / plan.sample.episodes)
    return _served(plan, usage, rates)


def iteration_line(plan: EnvCost, rates: Rates) -> Line:
    """Search, revision and evaluation of an environment in one iteration."""
    searched = (plan.sample.search + plan.sample.revision).times(plan.train_tasks / plan.sample.trees)
    evaluated = plan.sample.evaluation.times(plan.test_tasks / plan.sample.episodes)
    return _served(plan, searched + evaluated, rates)


def training_line(plans: Iterable[EnvCost], epochs: int, rates: Rates) -> Line:
    """Training on the rows of all environments, general rows in the share 1 - eta with them (Section 3.2)."""
    rows = tokens = 0.0
    for plan in plans:
        factor = plan.train_tasks / plan.sample.trees
        rows += plan.sample.rows * factor
        tokens += plan.sample.row_tokens * factor
    tokens += rows * (1 - rates.eta) / rates.eta * rates.general_tokens
    total = tokens * epochs
    hours = total / (rates.train_tokens_per_second * rates.gpus) / HOUR + rates.overhead_minutes / 60
    return _priced(Line("train, convert, start", training_tokens=total, hours=hours), rates)


def total(name: str, lines: Sequence[Line]) -> Line:
    """The sum of some lines: one thing after the other."""
    return Line(
        name,
        sum((line.usage for line in lines), TokenUsage()),
        sum(line.training_tokens for line in lines),
        sum(line.hours for line in lines),
        sum(line.dollars for line in lines),
    )


def estimate(
    plans: Sequence[EnvCost], epochs: Sequence[int], rates: Rates, base: bool
) -> Mapping[str, list[Line]]:
    """Part of the run -> its lines, the last one their sum; the last part is the whole run.

    Args:
        epochs: of each iteration; their number is the number of iterations.
        base: the starting model is evaluated first.
    """
    parts: dict[str, list[Line]] = {}
    if base:
        parts["the starting model"] = [evaluation_line(plan, rates) for plan in plans]
    for number, count in enumerate(epochs, start=1):
        lines = [iteration_line(plan, rates) for plan in plans]
        parts[f"iteration {number}"] = [*lines, training_line(plans, count, rates)]
    for lines in parts.values():
        lines.append(total("sum", lines))
    parts["whole run"] = [total("sum", [lines[-1] for lines in parts.values()])]
    return parts


def table(parts: Mapping[str, list[Line]]) -> list[str]:
    """Lines of text."""
    names = ("calls", "prompt, new", "cached", "replies", "env steps", "training", "hours", "dollars")
    lines = [f"{'':24}" + "".join(f"{name:>12}" for name in names)]
    for part, found in parts.items():
        lines.append(part)
        for line in found:
            cells = [short(getattr(line.usage, f.name)) for f in fields(line.usage)]
            cells += [short(line.training_tokens), f"{line.hours:.2f}", f"{line.dollars:,.2f}"]
            lines.append(f"  {line.name:22}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def short(value: float) -> str:
    """`987`, `12.3k`, `4.56M`, `1.23G`: three digits."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + letter
    return f"{value:.0f}"


def _served(plan: EnvCost, usage: TokenUsage, rates: Rates) -> Line:
    hours = serving_hours(usage, plan.sample.steps_per_second, rates)
    return _priced(Line(plan.task, usage, hours=hours), rates)


def _priced(line: Line, rates: Rates) -> Line:
    dollars = line.hours * rates.gpus * rates.dollars_per_gpu_hour
    return Line(line.name, line.usage, line.training_tokens, line.hours, dollars)
