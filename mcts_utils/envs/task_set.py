"""Open the tasks of the environment server that the settings name: its kind, test split, held-out goals, sessions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mcts_utils.config import Settings
from mcts_utils.envs import make_environment, server_about
from mcts_utils.envs.contamination import HeldOut, look_up
from mcts_utils.envs.task_ids import split_ids
from mcts_utils.servers.yours.source import is_source
from mcts_utils.types import InputError, MakeEnvironment


@dataclass(frozen=True)
class TaskSet:
    """One server's tasks. Each method asks the server when it is called."""

    task: str
    base_url: str
    environment: MakeEnvironment  # opens a session; picklable

    def kind(self) -> str:
        """Return the kind of server, to which the indices belong; "agentgym" for public ones.

        Raises:
            InputError: no server answers, or one of another environment.
        """
        self.environment().close()
        return str(server_about(self.base_url)["kind"])

    def require_replay(self, use: str) -> None:
        """Check that a task can be played again from its start; raise InputError if not, saying what may be done."""
        if server_about(self.base_url).get("mode") == "live":
            raise InputError(f"TASK {self.task}: its mode is live, so nothing can be executed again; {use}")

    def test_ids(self) -> set[int]:
        """Return the indices of the test split; empty where it is unknown."""
        return set(split_ids(self.task, self.base_url, "test"))

    def held_out(self, indices: set[int]) -> HeldOut:
        """Return the test tasks of these indices, with their goals (one reset each)."""
        return look_up(self.task, indices, self.environment)


def open_task_set(settings: Settings) -> TaskSet:
    """Return the tasks of TASK at ENV_SERVER_BASE. Only an environment of yours is asked what it is."""
    environment = partial(
        make_environment,
        settings.task,
        settings.env_server_base,
        grounding=settings.grounding,
        patience=settings.server_patience,
        action_format=settings.form,
    )
    if is_source(settings.task):
        environment().close()
    return TaskSet(settings.task, settings.env_server_base, environment)
