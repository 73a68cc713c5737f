"""Keep the test split out of training data: know a server's test tasks by index and by goal, and refuse them.

An index alone does not identify a goal (a server's numbering depends on its files and its kind). So the goals of the
test ids are looked up, and every task that is searched or turned into records is compared with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

from mcts_utils.envs.specs import env_spec
from mcts_utils.types import InputError, MakeEnvironment, Task


class HeldOutTask(InputError):
    """A task of the test split was to be used for training data."""


@dataclass(frozen=True)
class HeldOut:
    """The test tasks of one server; both sets are empty where nothing is held out (--allow_test)."""

    indices: frozenset[int] = frozenset()
    task_ids: frozenset[str] = frozenset()

    def check(self, task: Task) -> None:
        """Check that the task may be used for training data; raise HeldOutTask otherwise.

        Raises:
            HeldOutTask: the index is a test id, or the task shows the goal of a test task.
        """
        if task.index in self.indices:
            raise HeldOutTask(f"index {task.index} is a test id")
        if task.id in self.task_ids:
            raise HeldOutTask(f"index {task.index} shows the goal of a test task ({task.id})")


def look_up(task: str, indices: Iterable[int], make_environment: MakeEnvironment) -> HeldOut:
    """Return the test tasks of an environment, with one reset each; with none where the index names the task.

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
