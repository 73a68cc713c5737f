"""Execute written rows again, from their messages alone, and compare. It changes no row.

The replays from which records are made are in rollouts/replayer.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mcts_utils.envs.specs import env_spec
from mcts_utils.envs.task_set import TaskSet
from mcts_utils.rollouts.episode import replay
from mcts_utils.rollouts.steps import EPSILON, earned
from mcts_utils.storage.files import iter_jsonl, usable
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.record import Lineage, RecordRow, Turn, exchanges
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.terminal import Progress
from mcts_utils.tool_calls import TOOLS
from mcts_utils.types import Environment, InputError


def verify_rows(rows: Sequence[RecordRow], env: Environment) -> dict[str, int]:
    """Execute every row again, from its messages alone, and return counts of what comes back as it was written.

    Returns:
        rows, exact (rows without any difference that counts), observations and observations_exact (openings and last
        observations included), rewards and rewards_exact. If an environment's texts vary between replays
        (ScienceWorld: temperatures, order of listings), only rewards count for `exact`.

    Raises:
        InputError: the server's index is another goal than a row's.
    """
    total: Counter[str] = Counter(rows=len(rows), exact=0)
    for row in rows:
        checks = [_verify(row.lineage, side, turns, env) for side, turns in enumerate(row.conversations)]
        fixed = env_spec(row.lineage.task.env).fixed_observations
        for observations, exact, same_reward in checks:
            total.update(
                observations=observations, observations_exact=exact, rewards=1, rewards_exact=same_reward
            )
        total["exact"] += all(same and (not fixed or texts == exact) for texts, exact, same in checks)
    return dict(total)


def _verify(lineage: Lineage, side: int, turns: Sequence[Turn], env: Environment) -> tuple[int, int, bool]:
    """Execute one conversation; return (observations written, of these exact, reward exact).

    `side` is 0, or 1 for the rejected conversation of a preference row.
    """
    last, reward = lineage.replay.final_observation, lineage.rewards.record
    if side:
        last, reward = lineage.replay.final_observation_rejected or "", lineage.rewards.rejected or 0.0
    spec, index = env_spec(lineage.task.env), lineage.task.index
    head, said = exchanges(turns)
    if (env.action_format == TOOLS) != any(turn.calls for turn, _ in said):
        raise InputError("rows with tool calls want ACTIONS=tools, others ACTIONS=text")
    answers = ["\n".join(turn.content for turn in found) for _, found in said[:-1]]
    written = [turn.content for turn in head if turn.role == "user"] + answers + [last]
    task, steps = replay(env, index, [turn.reply for turn, _ in said])
    if task.id != (wanted := spec.task_id(written[0], index)):
        raise InputError(f"the server's index {index} is the task {task.id}, the row's is {wanted}")
    # Where openings vary (TextCraft's further commands), the task is what must be the same.
    observed = [task.opening if spec.fixed_opening else written[0]] + [step.observation for step in steps]
    exact = sum(spec.comparable(a) == spec.comparable(b) for a, b in zip(written, observed, strict=False))
    return len(written), exact, abs(earned(steps) - reward) < EPSILON


def verify_file(path: str | Path, tasks: TaskSet) -> dict[str, int]:
    """Execute every row of a records file again and return the counts of `verify_rows`.

    Raises:
        InputError: naming the file that has no row; the row whose field cannot be read, or that is of another task than
            the server's; the kind of server that the rows were made on, if this one is of another.
    """
    rows = [(n, parsed(row, RecordRow, f"{path} row {n}")) for n, row in iter_jsonl(path)]
    if not rows:
        raise InputError(f"{path}: no row to verify")
    for number, row in rows:
        if (env := row.lineage.task.env) != tasks.task:
            raise InputError(f"{path} row {number}: TASK is {tasks.task!r}, the row is of {env!r}")
    manifest = Path(path).with_suffix(".manifest.json")
    made = usable(manifest, lambda: read_manifest(manifest))
    kind = tasks.kind()
    if made and made.settings.get("goals", kind) not in (kind, ""):
        there = made.settings["goals"]
        raise InputError(
            f"{path}: made on a server of kind {there}, this one is {kind}: its indices are other tasks"
        )
    total: Counter[str] = Counter()
    with closing(tasks.environment()) as session:
        for number, row in Progress(rows, desc="verify", unit="row"):
            try:
                total.update(verify_rows([row], session))
            except InputError as error:
                raise InputError(f"{path} row {number}: {error}") from error
    return dict(total)
