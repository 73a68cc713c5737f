"""Say what a stage would do, cost and take, before its first paid request (`--dry-run`): from settings and files.

It asks no model, executes nothing and writes nothing. Bounds follow from the settings, the likely numbers from what is
in the output folder.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcts_utils.config import Settings, without_password
from mcts_utils.config.faults import variable
from mcts_utils.executors.ledger import money, of_manifest
from mcts_utils.executors.prices import Price, Prices
from mcts_utils.executors.spending import paid_text
from mcts_utils.executors.stage import Stage
from mcts_utils.prompts import is_signal_step, judge_messages
from mcts_utils.report.cost.model import compact_number
from mcts_utils.revision.judge import ASKS
from mcts_utils.revision.pairs import candidate_pairs, paths
from mcts_utils.revision.verdict_cache import question_sha256
from mcts_utils.search.baselines import LIVE
from mcts_utils.search.tree_io import BadTree, read_tree
from mcts_utils.storage.files import read_as
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.spent import Spent
from mcts_utils.storage.layout import spent_path, verdicts_path
from mcts_utils.storage.manifest import read_manifest

if TYPE_CHECKING:  # a stage loads nothing of the other two
    from mcts_utils.evaluation.stage import EvaluationStage
    from mcts_utils.revision.stage import RevisionStage
    from mcts_utils.search.stage import SearchStage

HEAD = "dry run: no model is asked, nothing is executed or written"
BYTES = 4  # of a prompt's token, about
SEARCH = ("itera", "n_gen", "n_rollout", "max_depth", "temp", "max_token_length", "seed")
JUDGED = ("alpha", "beta", "judge_votes", "max_token_length", "seed")
PLAYED = ("max_token_length", "seed")
HOW = ("concurrency", "workers", "executor")


class Asked(NamedTuple):
    """Requests and tokens."""

    calls: float
    prompt: float
    completion: float

    def text(self, price: Price | None) -> str:
        """Return it as text, with its price."""
        tokens = [f"{compact_number(self.prompt)} prompt and "] if self.prompt else []
        dollars = f", ${money(price.dollars(self.prompt, self.completion))}" if price else ""
        tokens += [f"{compact_number(self.completion)} completion tokens"]
        return f"{self.calls:,.0f} requests, {''.join(tokens)}{dollars}"


class Plan(NamedTuple):
    """What a stage would do."""

    stage: Stage
    model: Settings | None  # who is asked
    total: int  # jobs
    done: int
    unit: str  # their name, in the plural

    def head(self, what: str, shown: Sequence[str]) -> list[str]:
        """Return what is to be done, with whom, and the settings that matter."""
        s, model, who = self.stage.settings, self.model, "no model"
        if model:
            url = without_password(model.openai_base_url) or "api.openai.com"
            who = f"{model.model_name} ({model.model_dir if model.local else url})"
        settings = " ".join(f"{variable(name)}={getattr(s, name)}" for name in (*shown, *HOW))
        left = f"{self.done} done, {self.total - self.done} left"
        work = f"{what} {s.task}: {self.total} {self.unit}, {left}"
        return [HEAD, f"{work}; asked: {who}; folder: {self.stage.manifest.parent}", settings]

    def cost(self, left: int, most: Asked, likely: Asked | None, why: str = "") -> Iterator[str]:
        """Yield the most that it can cost, the likely cost and time, what was paid so far, and the limits.

        Raises:
            InputError: the prices, or the count of what was paid, cannot be used.
        """
        s, done, unit, prices = self.stage.settings, self.done, self.unit, Prices.of(self.stage.settings)
        price = prices.price(self.model) if prices and self.model else None
        spent = _spent(self.stage.manifest)
        if left:
            yield f"at most: {most.text(price)}" + ", and the prompts" * (not most.prompt)
            why = why or f"as the {done} finished {unit} took"
            if not likely and done and spent.models:
                calls = [(m.calls, m.prompt_tokens, m.completion_tokens) for m in spent.models.values()]
                likely = Asked(*(sum(part) * left / done for part in zip(*calls, strict=True)))
            hours = f", {time_text(spent.seconds * left / done)}" if done and spent.seconds else ""
            told = f"{likely.text(price)}{hours}, {why}" if likely else f"said once {unit} are finished here"
            yield f"likely: {told}"
        if spent.models:
            yield f"paid so far: {paid_text({name: plain(paid) for name, paid in spent.models.items()})}"
        limits = {variable(name): getattr(s, name) for name in ("max_tokens_total", "max_cost", "max_hours")}
        if any(limits.values()):
            named = ", ".join(f"{name}={value:g}" for name, value in limits.items() if value)
            yield f"limits: {named}; the stage ends before it passes them, and a larger one goes on"


def search_lines(stage: SearchStage) -> list[str]:
    """Return what a search would do."""
    s, todo, sums = stage.settings, stage.unfinished(), stage.finished
    finished = int(sums["trees"])
    plan = Plan(stage, s, len(stage.indices), finished, "trees")
    if stage.strategy.baseline:
        most = sum(stage.strategy.baseline.budgets.get(index, 0) for index in todo)
        bound = Asked(most, 0, most * s.reply_tokens)
    elif stage.strategy.name == LIVE:  # turns and verdicts
        most = len(todo) * s.max_depth * (s.n_rollout + s.itera * (1 + ASKS * s.judge_votes))
        bound = Asked(most, 0, most * s.reply_tokens)
    else:
        rollouts = s.n_rollout * s.max_depth if s.n_rollout else 0
        requests = 1 + rollouts if s.n_rollout else s.max_depth
        completions = s.n_gen + rollouts if s.n_rollout else s.n_gen * s.max_depth
        bound = Asked(*(len(todo) * s.itera * n for n in (requests, 0, completions * s.reply_tokens)))
    likely = None
    if finished:
        names = ("calls", "prompt_tokens", "completion_tokens")
        likely = Asked(*(sums[name] * len(todo) / finished for name in names))
    return [*plan.head(f"{stage.strategy.name} on", SEARCH), *plan.cost(len(todo), bound, likely)]


def evaluation_lines(stage: EvaluationStage, overwrite: bool) -> list[str]:
    """Return what an evaluation would do."""
    s, todo = stage.settings, [start for start in stage.starts if not stage.finished(start, overwrite)]
    done, most = len(stage.starts) - len(todo), stage.protocol.max_steps
    plan = Plan(stage, s, len(stage.starts), done, "episodes")
    head = plan.head(f"mode {stage.protocol.mode} on", PLAYED)
    head[-1] += f" max_steps={most} temperature={stage.protocol.temperature:g}"
    bound = Asked(len(todo) * most, 0, len(todo) * most * s.reply_tokens)
    return [*head, *plan.cost(len(todo), bound, None)]


def revision_lines(stage: RevisionStage) -> list[str]:
    """Return what the making of records would do."""
    earlier, s = stage.earlier_counts(), stage.settings
    jobs, judge = len(stage.jobs), stage.judge.settings if stage.judge else None
    plan = Plan(stage, judge, jobs, 0 if earlier is None else jobs, f"{stage.unit}s")
    head = plan.head(f"{stage.options.data_type} records of", JUDGED if judge else ("alpha", "beta"))
    repairs = ["--repair 1: the actor continues where a splice fails, at a cost that is not known before"]
    lines = [*head, *repairs * stage.options.repair]
    if earlier is not None:
        return lines
    if not stage.judge:
        replays = f"at most {stage.options.max_replays:,} replays of each {stage.unit}"
        return [*lines, f"no model judges; {replays}"]
    steps = size = 0
    for index, name in stage.jobs:
        try:
            found = _unjudged(stage, index, stage.input_dir / name)
            steps, size = steps + len(found), size + sum(found)
        except BadTree as error:
            lines.append(f"{stage.input_dir / name}: {error}: left out")
    calls = steps * s.judge_votes
    likely = Asked(calls, size / BYTES * s.judge_votes, calls * s.reply_tokens / BYTES)
    most = Asked(calls * ASKS, size * ASKS * s.judge_votes, calls * ASKS * s.reply_tokens)
    rest = "those after a first bad one are not asked about"
    lines.append(f"{steps:,} steps of bad paths have no verdict yet; {rest}")
    return [*lines, *plan.cost(jobs, most, likely, "if each is asked about once")]


def _unjudged(stage: RevisionStage, index: int, path: Path) -> list[int]:
    """Return the bytes of the question about each step of a tree that may be asked about.

    Raises:
        BadTree: the tree cannot be used.
    """
    assert stage.judge
    options, prompt = stage.options, stage.judge.settings.prompt
    tree = read_tree(path, stage.settings.task, index)
    cache = stage.judge.cache(verdicts_path(stage.output_dir, index))
    every = paths(tree)
    good = [path for path in every if options.rule.good(path.reward)]
    pairs, _ = candidate_pairs(good, every, options.rule, tree.task.env, random.Random(0))
    sizes: dict[int, int] = {}
    for pair in pairs:
        for place in range(0 if options.judge_prefix else pair.shared, len(pair.bad.steps)):
            node, step = pair.bad.nodes[place], pair.bad.steps[place]
            if node in sizes or is_signal_step(step):
                continue
            question = judge_messages(tree.task, pair.bad.steps[:place], step, prompt)
            known = cache.get(node, question_sha256(question), stage.settings.judge_votes)
            sizes[node] = 0 if known else sum(len(m.content.encode("utf-8", "replace")) for m in question)
    return list(filter(None, sizes.values()))


def time_text(seconds: float) -> str:
    """Return a time as text, such as `45 s`, `12 min` or `3.5 h`."""
    if seconds < 5400:
        return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _spent(manifest: Path) -> Spent:
    """Return what a stage's folder has paid for, over all runs or, by its manifest, in the last one."""
    file = spent_path(manifest)
    if file.exists():
        return read_as(file, Spent)
    seconds = read_manifest(manifest).seconds if manifest.exists() else 0.0
    return Spent(models=of_manifest(manifest), seconds=seconds)
