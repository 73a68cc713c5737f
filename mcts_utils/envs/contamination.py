"""The tasks that no training data may hold: test ids of a server, by index and by what the goal is.

An index says little (a server's numbering depends on its files and its kind), so the goals behind the test ids are
looked up, and every task that is searched or turned into records is held against them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

from mcts_utils.envs.specs import env_spec
from mcts_utils.types import Environment, InputError, Task


class HeldOutTask(InputError):
    """A task of the test split where training data is made."""


@dataclass(frozen=True)
class HeldOut:
    """Test tasks of one server; both sets empty where nothing is held out (--allow_test)."""

    indices: frozenset[int] = frozenset()
    task_ids: frozenset[str] = frozenset()

    def check(self, task: Task) -> None:
        """Nothing, if the task may be trained on.

        Raises:
            HeldOutTask: naming the index, and whether it is a test id or shows a test task's goal.
        """
        if task.index in self.indices:
            raise HeldOutTask(f"index {task.index} is a test id")
        if task.id in self.task_ids:
            raise HeldOutTask(f"index {task.index} shows the goal of a test task ({task.id})")


def look_up(task: str, indices: Iterable[int], make_environment: Callable[[], Environment]) -> HeldOut:
    """The test tasks of an environment, by one reset each; by the index alone where it names the task (ScienceWorld).

    Args:
        indices: the server's test ids.

    Raises:
        EnvError, InputError: the server cannot be used.
    """
    wanted = frozenset(indices)
    if env_spec(task).by_index:
        return HeldOut(wanted, frozenset(env_spec(task).task_id("", index) for index in wanted))
    if not wanted:
        return HeldOut()
    with closing(make_environment()) as env:
        return HeldOut(wanted, frozenset(env.reset(index).id for index in sorted(wanted)))
