"""Engines in processes of their own: the same replies, and ends that leave no process and no caller behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mcts_utils.actors.engine import processes
from mcts_utils.actors.engine.job import DecodeJob, Fit
from mcts_utils.actors.engine.prefixes import BLOCK, Prefixes, block_keys
from mcts_utils.actors.engine.processes import CROWD, CROWD_SECONDS, EngineProcess, EngineProcesses
from mcts_utils.actors.local import LocalActor, local_actor
from mcts_utils.types import ActorError, InputError, Message
from tests.helpers.engines import actor_in

ROOT = Path(__file__).resolve().parents[3]
TINY = str(ROOT / "models" / "tiny_actor")
MAX_NEW, CONCURRENCY = 16, 32


def conversation(number: int) -> list[Message]:
    rng = random.Random(number)
    words = " ".join(rng.choices(("oak", "log", "stick", "planks", "craft", "2"), k=40))
    return [Message("user", f"Crafting commands:\ncraft {words}\n\nGoal: craft stick.")]


def replies(actor: LocalActor, numbers: range) -> list[str]:
    """Sampled replies to conversations that come from many threads."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(lambda i: actor.sample(conversation(i), seed=i)[0].text, numbers))


def processes_of(actor: LocalActor) -> list[EngineProcess]:
    return cast(EngineProcesses, actor.engine)._processes


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def two(monkeypatch) -> Iterator[LocalActor]:
    """An actor that has found a crowd and has two processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(processes, "CROWD_SECONDS", 0)
    actor = local_actor(TINY, MAX_NEW, CONCURRENCY)
    try:
        while len(processes_of(actor)) == 1:
            replies(actor, range(CONCURRENCY))
        yield actor
    finally:
        actor.close()


def test_more_processes_give_the_same_replies_and_an_end_of_one_reaches_who_asked_it(two, capfd):
    before = two.stats()
    wanted = actor_in(TINY, MAX_NEW, CONCURRENCY)
    numbers = range(100, 200)
    found = replies(two, numbers)
    assert found == replies(wanted, numbers) and len(set(found)) > 25
    wanted.close()
    assert two.stats()["calls"] - before["calls"] == len(numbers)
    first, second = processes_of(two)
    assert cast(EngineProcesses, two.engine)._spec.fit == Fit("float32", 1, 2), "found out once, by the first"
    # Each has been asked for a good share of them.
    assert min(first._number, second._number) > len(numbers) / 4
    assert two.stats()["reused_tokens"] == first.stats["reused_tokens"] + second.stats["reused_tokens"] > 0
    assert os.getsid(first._process.pid) == first._process.pid, "Ctrl-C would end it in the middle of a reply"

    os.kill(second._process.pid, signal.SIGKILL)
    with pytest.raises(ActorError, match="was ended by SIGKILL.*memory"):
        replies(two, range(200, 300))
    endless = [DecodeJob(two.prompt_ids(conversation(0)), 400, 5.0, seed) for seed in range(64)]
    first.submit(endless)  # at this temperature no reply ends soon
    two.close()
    assert {str(job.future.exception(60)) for job in endless[1:]} == {"the local model is closed"}
    with pytest.raises(ActorError, match="closed"):
        first.submit(endless)
    assert not alive(first._process.pid)
    assert capfd.readouterr().err == ""


def test_it_ends_with_a_killed_stage():
    program = (
        "import time; from mcts_utils.actors.local import local_actor\n"
        f"actor = local_actor({TINY!r}, 8, 1)\n"
        "print(actor.engine._processes[0]._process.pid, flush=True); time.sleep(600)"
    )
    stage = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert stage.stdout is not None
    pid = int(stage.stdout.readline())
    assert alive(pid)
    stage.kill()
    stage.wait()
    stage.stdout.close()
    for _ in range(3000):
        if not alive(pid):
            return
        signal.sigtimedwait([], 0.01)
    pytest.fail("the engine's process goes on")


def test_a_folder_without_weights_is_named(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (Path(TINY) / name).is_file():
            (tmp_path / name).write_bytes((Path(TINY) / name).read_bytes())
    with pytest.raises(InputError, match=f"MODEL_DIR={tmp_path}: cannot be loaded"):
        local_actor(str(tmp_path), MAX_NEW, 1)


def test_a_process_that_cannot_start_is_said():
    process = EngineProcess()
    process._process.kill()
    with pytest.raises(ActorError, match="was ended by SIGKILL"):
        process.load(cast(Any, None))
    process.close()


def test_a_known_prefix_is_worth_as_many_requests_in_flight_as_it_has_blocks():
    engine = EngineProcesses.__new__(EngineProcesses)
    one, other = (SimpleNamespace(prefixes=Prefixes(), in_flight=0) for _ in range(2))
    engine._most, engine._processes = 2, cast(Any, [one, other])
    tree, apart = np.arange(4 * BLOCK + 5), np.arange(4 * BLOCK) + 1000
    assert engine._choose(tree) is one
    one.in_flight = 1
    assert engine._choose(tree) is one, "it has computed the prompt"
    assert engine._choose(apart) is other, "it has less to do"
    longer = np.concatenate([tree, np.arange(50)])
    assert engine._choose(longer) is one, "the prompt goes on from a known one"
    one.in_flight = 6
    assert engine._choose(longer) is other, "the wait would take longer than the prompt"


def test_another_process_starts_after_a_crowd_that_lasts(monkeypatch):
    now = [1.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = EngineProcesses.__new__(EngineProcesses)
    engine._asked, engine._crowded, engine._closed, engine._starting = 0.0, 0.0, False, None
    first = SimpleNamespace(in_flight=0)
    engine._processes = cast(Any, [first])
    started = []
    monkeypatch.setattr(processes, "EngineProcess", lambda: started.append(now[0]))
    monkeypatch.setattr(engine, "_add", lambda process: None)

    def asked(seconds: float, in_flight: int) -> None:
        for _ in range(10):
            now[0] += seconds / 10
            first.in_flight = in_flight
            engine._watch()

    asked(60.0, CROWD)
    asked(0.9 * CROWD_SECONDS, CROWD + 1)
    asked(60.0, 0)
    assert not started
    asked(1.1 * CROWD_SECONDS, CROWD + 1)
    assert len(started) == 1


def test_keys_stand_for_all_tokens_before():
    ids = np.arange(3 * BLOCK - 1)
    changed = ids.copy()
    changed[3] = 99
    assert len(block_keys(ids)) == 2 and not set(block_keys(ids)) & set(block_keys(changed))
    changed = ids.copy()
    changed[BLOCK + 1] = 99
    prefixes = Prefixes()
    prefixes.add(block_keys(changed))
    assert prefixes.known(block_keys(ids)) == 1
    assert prefixes.known(block_keys(changed)) == 2


def test_old_prefixes_are_forgotten(monkeypatch):
    monkeypatch.setattr("mcts_utils.actors.engine.prefixes.MOST", 10)
    prefixes = Prefixes()
    for number in range(100):
        prefixes.add([number])
    assert prefixes.known([99]) == 1 and prefixes.known([1]) == 0
    assert len(prefixes._recent) + len(prefixes._older) <= 22
