"""Say which expert episodes are made into records: tasks for a bundled expert, or the episodes of a trajectory set.

It plays nothing; expert.py does.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mcts_utils.config import Settings
from mcts_utils.envs import server_about
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs import env_spec
from mcts_utils.envs.task_ids import public_ids, split_ids, training_list
from mcts_utils.envs.task_set import TaskSet
from mcts_utils.prompts import reply_text
from mcts_utils.revision.agenttraj import GivenEpisode, read_set
from mcts_utils.servers.yours.source import is_source
from mcts_utils.types import Actor, InputError, Message, Sample

# Before the actions that an environment of yours gives.
GIVEN_THOUGHT = "I take the next step towards the goal."


class ExpertActor(Actor):
    """A bundled world's expert. It answers from the conversation's text; `noise` 1 makes each answer a slip."""

    def __init__(self, env: str) -> None:
        """Load the expert of an environment; raise InputError if there is none."""
        name = f"mcts_utils.servers.{env}"
        if not (importlib.util.find_spec(name) and importlib.util.find_spec(f"{name}.expert")):
            raise InputError(f"TASK={env}: no expert is bundled; --input_dir takes AgentGym's trajectories")
        self._answer = importlib.import_module(f"{name}.expert").answer

    def answer(self, messages: Sequence[Message], rng: random.Random, noise: float = 0.0) -> str:
        """Return the expert's reply."""
        return str(self._answer([{"role": m.role, "content": m.content} for m in messages], rng, noise))

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        return [Sample(self.answer(messages, random.Random(seed)))] * n


@dataclass(frozen=True)
class ExpertPlan:
    """What is made into rows: tasks to play, or the episodes of a set."""

    indices: tuple[int, ...] = ()  # the server's
    noise: float = 0.0  # share of the episodes with a slip and its repair
    rounds: int = 1  # episodes of one task
    files: tuple[Path, ...] = ()  # of the set
    given: Mapping[int, tuple[GivenEpisode, ...]] | None = None  # by the server's index
    missing: int = 0  # episodes of the set whose goal the server does not have
    refused: tuple[str, ...] = ()  # a line for each episode of a test task


def tasks_to_play(
    settings: Settings, tasks: TaskSet, wanted: str, most: int, noise: float, allow_test: bool
) -> ExpertPlan:
    """Return the plan to let the bundled expert play at most `most` episodes (0: one of each task).

    Args:
        wanted: "train", a list of indices or a file with one (task_ids.training_list).

    Raises:
        InputError: there is no expert, it knows none of the tasks, or one of them is a test task.
    """
    if not is_source(settings.task):
        ExpertActor(settings.task)
    test = set() if allow_test else tasks.test_ids()
    indices = training_list(settings.task, settings.env_server_base, wanted, test)
    from mcts_utils.servers.demo_tasks import evenly, known_ids  # loads the worlds

    if is_source(settings.task):
        if noise:
            raise InputError(f"--noise {noise:g}: slips are for bundled environments, not {settings.task}")
        some = evenly(indices, 2 * most) if most else indices
        return plan_of_server(settings.task, settings.env_server_base, some)
    known = known_ids(settings.task)
    found = [index for index in indices if known is None or index in known]
    if not found:
        raise InputError(f"the expert of {settings.task} knows none of the {len(indices)} tasks")
    rounds = -(-most // len(found)) if most and noise else 1
    # Twice as many tasks as rows: some fail, and those that take an action twice in a row come last.
    return ExpertPlan(tuple(evenly(found, 2 * most) if most else found), noise, rounds)


def plan_of_server(task: str, base_url: str, indices: Sequence[int]) -> ExpertPlan:
    """Return the plan to take the episodes that an environment of yours gives for these tasks.

    Raises:
        InputError: it gives none.
    """
    if "expert" not in server_about(base_url).get("offers", ()):
        raise InputError(f"TASK {task}: it has no expert(index); --input_dir takes AgentGym's trajectories")
    given = {}
    with closing(HttpSession(base_url)) as http:
        for index in indices:
            replies = tuple(
                reply_text(GIVEN_THOUGHT, action) for action in http.get("/expert", {"data_idx": index})
            )
            if replies:
                loss, unseen = (True,) * len(replies), ("",) * len(replies)
                given[index] = (GivenEpisode("", "", index, "", "", replies, unseen, loss),)
    if not given:
        raise InputError(f"TASK {task}: its expert knows none of the {len(indices)} tasks")
    return ExpertPlan(given=given)


def set_to_take(settings: Settings, tasks: TaskSet | None, path: str, allow_test: bool) -> ExpertPlan:
    """Return the plan to take the episodes of a trajectory set (agenttraj.py); without `tasks` as recorded.

    AgentGym's servers have the set's indices. A bundled server has its own, so a goal is looked up among its training
    tasks.

    Raises:
        InputError: the set cannot be read, or the server has none of the goals.
    """
    env, places = settings.task, None
    found = read_set(path, env, () if allow_test else public_ids(env, "test"))
    if tasks and not env_spec(env).by_index and tasks.kind() != "agentgym":
        with closing(tasks.environment()) as session:
            places = {session.reset(i).id: i for i in split_ids(env, settings.env_server_base, "train")}
    by_index: dict[int, list[GivenEpisode]] = {}
    for given in found.episodes:
        index = given.index if places is None else places.get(given.task_id)
        if index is not None:
            by_index.setdefault(index, []).append(given)
    if not by_index:
        unknown = "the server has no training task with one of the goals"
        why = unknown if found.episodes else found.held_out[0]
        raise InputError(f"--input_dir {path}: {why}; --verified 0 takes episodes as recorded")
    missing = len(found.episodes) - sum(map(len, by_index.values()))
    given_sets = {index: tuple(episodes) for index, episodes in by_index.items()}
    return ExpertPlan(files=found.files, given=given_sets, missing=missing, refused=found.held_out)
