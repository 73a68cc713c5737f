"""A job that was killed goes on as if it had not been, for any moment, with answers and worlds that never repeat."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import reply_text
from mcts_utils.rollouts.episode import run_episode
from mcts_utils.rollouts.recorded import RecordedActor, RecordedPool, anew_without_record
from mcts_utils.search.baselines import Baseline
from mcts_utils.search.stage import SearchStage
from mcts_utils.storage.journal import Journal
from mcts_utils.types import Actor, EnvError, Sample, Task
from tests.helpers.stairs import Stairs


class Killed(BaseException):
    """In place of a kill: nothing catches it."""


class Drifting(Stairs):
    """Stairs whose opening is another one after each restart of their server; they cannot be copied."""

    boot = 0
    moved = False  # the index is another task now

    def __init__(self) -> None:
        super().__init__(4)

    def reset(self, index: int) -> Task:
        super().reset(index)
        return Task(
            "textcraft", index, f"stairs:{index}:{self.moved}", f"Goal: climb {index}. Boot {self.boot}."
        )


class Numbered(Actor):
    """Draws by seed, and numbers its answers, as an endpoint that ignores seeds never gives the same one again."""

    def __init__(self, most: int, seeded: bool) -> None:
        self.most, self.seeded, self.given, self._lock = most, seeded, 0, Lock()
        self.boots: set[str] = set()  # that it was shown

    def sample(self, messages, n=1, temperature=1.0, seed=None):
        with self._lock:
            if self.given >= self.most:
                raise Killed
            self.given += 1
            self.boots.add(messages[1].content.rpartition("Boot ")[2])
            number = next(numbers)
            texts = ("up", "wait here") if hash((seed, len(messages))) % 3 else ("wait here", "up")
            return [
                Sample(reply_text("seeded" if self.seeded else f"{number}.{i}", texts[i % 2]), 5, 2)
                for i in range(n)
            ]


numbers = itertools.count()
ALL = 10**9


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(Drifting, "boot", 0)
    monkeypatch.setattr(Drifting, "moved", False)
    Stairs.opened = []


def search(folder: Path, actor: Actor, baseline: Baseline | None = None, **changes: Any) -> Path:
    how: dict[str, Any] = {"model_name": "m", "prompt": "brief", "itera": 2, "n_gen": 2, "n_rollout": 2}
    settings = Settings(**{**how, "max_depth": 5, "workers": 1, "concurrency": 2, **changes})
    stage = SearchStage(settings, [3], folder, baseline=baseline)
    stage.run(lambda: actor, Drifting)
    return stage.path(3)


@pytest.mark.parametrize(
    "baseline", [None, Baseline("best_of_n", {3: 20}), Baseline("direct_revision", {3: 20})]
)
def test_a_search_that_is_killed_at_any_request_makes_the_same_tree_and_pays_for_nothing_twice(
    tmp_path, baseline
):
    whole = Numbered(ALL, seeded=True)
    expected = search(tmp_path / "whole", whole, baseline).read_bytes()
    for kill in range(0, whole.given, 3):
        first, second = Numbered(kill, seeded=True), Numbered(ALL, seeded=True)
        Drifting.boot = 0
        with pytest.raises(Killed):
            search(tmp_path / f"{kill}", first, baseline)
        Drifting.boot = 1  # the server, too, was started again
        path = search(tmp_path / f"{kill}", second, baseline)
        assert path.read_bytes() == expected
        assert first.given + second.given == whole.given
        assert not kill or second.boots <= {"0."}, "the model sees one world"
        assert not list(path.parent.glob(".journal*"))


def test_no_answer_of_an_endpoint_that_ignores_seeds_is_used_for_two_requests(tmp_path):
    with pytest.raises(Killed):
        search(tmp_path, Numbered(9, seeded=False))
    second = Numbered(ALL, seeded=False)
    tree = search(tmp_path, second).read_text()
    drawn = [text for text in tree.split('"') if text.startswith("Thought: ")]
    assert second.given > 0
    assert len(drawn) == len(set(drawn)) > 9


def test_a_changed_setting_that_matters_makes_the_answers_unused(tmp_path):
    for change in ({}, {"max_token_length": 99}, {"temp": 0.5}, {"model_name": "n"}, {"prompt": "full"}):
        first, second = Numbered(4, seeded=True), Numbered(ALL, seeded=True)
        folder = tmp_path / "-".join(change)
        with pytest.raises(Killed):
            search(folder, first)
        search(folder, second, **change)
        whole = Numbered(ALL, seeded=True)
        search(tmp_path / f"whole{folder.name}", whole, **change)
        assert second.given == whole.given - (0 if change else 4)


def episode(path: Path, actor: Actor, factory: Callable[[], Drifting] = Drifting) -> tuple[object, int]:
    """The episode, and the number of steps that its session executed."""
    Stairs.opened = []
    with Journal(path) as journal, RecordedPool(SessionPool(factory), journal).session() as env:
        played = run_episode(
            RecordedActor(actor, journal), env, 3, prompt="brief", max_steps=9, temperature=1.0, seed=0
        )
    return played, sum(stairs.steps for stairs in Stairs.opened)


def test_an_episode_goes_on_in_a_session_that_is_brought_to_its_state(tmp_path):
    whole = Numbered(ALL, seeded=True)
    expected, _ = episode(tmp_path / "whole.jsonl", whole)
    for kill in range(1, whole.given):
        Drifting.boot = 0
        with pytest.raises(Killed):
            episode(tmp_path / f"{kill}.jsonl", Numbered(kill, seeded=True))
        Drifting.boot = 1
        second = Numbered(ALL, seeded=True)
        found, executed = episode(tmp_path / f"{kill}.jsonl", second)
        assert found == expected
        assert (second.given, executed) == (whole.given - kill, whole.given)
    finished, executed = episode(tmp_path / "whole.jsonl", Numbered(0, seeded=True))
    assert (finished, executed) == (expected, 0), "nothing is asked and nothing is executed"


def test_where_the_world_does_not_come_back_the_job_begins_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(Killed):
        episode(path, Numbered(3, seeded=True))
    kept = path.read_bytes()
    Drifting.moved = True
    again = Numbered(ALL, seeded=True)
    played, _ = anew_without_record(episode, path, again)
    assert (len(played.steps), played.task.id) == (again.given - 1, "stairs:3:True")
    path.write_bytes(kept)
    with pytest.raises(EnvError, match="index 3 does not come back as it was before the interruption"):
        episode(path, Numbered(ALL, seeded=True))
