"""What all tests share: fixtures, what the marks need, hypothesis settings, the division among test processes."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mcts_utils.envs import http
from mcts_utils.envs.contamination import HeldOut
from mcts_utils.envs.task_set import TaskSet
from mcts_utils.servers.sciworld import jvm
from mcts_utils.servers.textcraft.app import running_server
from tests.helpers.trainer import TRAINER

PIPELINE = Path(__file__).parent / "pipeline"


def no_trainer() -> str:
    """Return why the tests marked `trainer` cannot run here, or an empty string."""
    return "" if TRAINER.is_file() else f"no trainer at {TRAINER}: run bash scripts/setup_train.sh"


def no_java() -> str:
    """Return why the tests marked `java` cannot run here, or an empty string."""
    try:
        jvm.check(jvm.Setup())
    except jvm.Missing as error:
        return str(error)
    return ""


def no_ray() -> str:
    """Return why the tests marked `ray` cannot run here, or an empty string."""
    return "" if find_spec("ray") else "the package ray is missing: run bash scripts/setup.sh --ray"


LONGEST = ("pipeline", "trainer", "ray", "java", "slow")  # marks, the longest tests first
NEEDS = {"trainer": no_trainer, "java": no_java, "ray": no_ray}

gc.disable()  # until all tests are imported: nothing of it is garbage

# A shell that starts the tests in the background has SIGINT ignored for all that they start, and some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests' Java processes live for seconds: what Java's second compiler spends in them does not come back.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

# No test asserts wall time: a busy machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the pipelines, skip what this machine cannot run, and put the files with the longest tests first."""
    for item in items:
        if PIPELINE in item.path.parents:
            item.add_marker("pipeline")
    for name, missing in NEEDS.items():
        needy = [item for item in items if item.get_closest_marker(name)]
        reason = missing() if needy else ""
        for item in needy if reason else ():
            item.add_marker(pytest.mark.skip(reason=reason))
    rank: dict[Path, list[bool]] = {}
    for item in items:
        unmarked = [item.get_closest_marker(name) is None for name in LONGEST]
        rank[item.path] = min(unmarked, rank.get(item.path, unmarked))
    items.sort(key=lambda item: rank[item.path])


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of collections of garbage: a search through it takes half a second."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    """Forget which servers failed in earlier tests, as a process of its own would not know it."""
    http._watches.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return the scheduler of --dist=loadgroup: a file stays in one process, unless its tests name an xdist_group."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class FileOrGroup(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).split("::")[0]

    return FileOrGroup(config, log)


@pytest.fixture(scope="session")
def textcraft_url() -> Iterator[str]:
    """Base URL of a bundled TextCraft server that runs as long as the tests do.

    This process looks up the goals of its test split, which takes 200 requests, once and not in every run of a stage.
    """
    known: dict[tuple[str, frozenset[int]], HeldOut] = {}
    look_up = TaskSet.held_out

    def held_out(tasks: TaskSet, indices: set[int]) -> HeldOut:
        if tasks.base_url != base_url:
            return look_up(tasks, indices)
        key = tasks.task, frozenset(indices)
        if key not in known:
            known[key] = look_up(tasks, indices)
        return known[key]

    with running_server() as base_url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskSet, "held_out", held_out)
        yield base_url


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the bundled actor's chat template; nobody writes into its folder."""
    from tests.helpers.training_models import tiny_model  # loads torch

    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with Llama 3.1's chat template; nobody writes into its folder."""
    from tests.helpers.training_models import llama_model  # loads torch

    return llama_model(tmp_path_factory.mktemp("llama"))
