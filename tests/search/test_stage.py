"""Stage 1 as a user runs it: the bundled server and a stand-in chat endpoint, both over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from threading import Condition, Event

import pytest

import mcts_collection
from mcts_utils.config import settings_from_env
from mcts_utils.envs import make_environment, task_set
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.executors.threads import run_tasks
from mcts_utils.rollouts.counters import Counters
from mcts_utils.search.mcts import Rules, run_search
from mcts_utils.search.simulator import TaskSimulator
from mcts_utils.search.stage import SearchStage
from mcts_utils.search.tree import leaves, new_tree, nodes
from mcts_utils.search.tree_io import load_tree, tree_to_dict
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, running_chat
from mcts_utils.servers.textcraft.expert import answer
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json, sha256_file
from mcts_utils.types import Actor, ActorError, EnvError, Environment, Message, Sample, StepResult, Task
from tests.helpers.noisy_player import NoisyPlayer

SPLIT = load_world().split()
IDS = [index for index in SPLIT["train"] if index < 120][:4]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _signals():
    """main() changes what SIGTERM does."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def chat():
    with running_chat(Behaviour(noise=0.4)) as server:
        yield server


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, chat, textcraft_url):
    """Run the entry script in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    environ = variables(chat.base_url, textcraft_url)
    for name in ("MODEL_DIR", "MODEL_TYPE", "TEMP", "PROMPT", "SEED", "CONCURRENCY", "WORKERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def run_it(*flags: str, **changes: str) -> tuple[int, str, str]:
        for name, value in changes.items():
            monkeypatch.setenv(name, value)
        code = mcts_collection.main(list(flags))
        return code, *capsys.readouterr()

    return run_it


def variables(chat_url: str, env_url: str) -> dict[str, str]:
    return {
        "TASK": "textcraft",
        "OPENAI_BASE_URL": chat_url,
        "OPENAI_API_KEY": "sk-verysecret",
        "MODEL_NAME": MODEL,
        "ENV_SERVER_BASE": env_url,
        "ITERA": "2",
        "N_GEN": "3",
        "N_ROLLOUT": "2",
        "MAX_DEPTH": "8",
    }


def listed(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


def folder(root: Path) -> Path:
    return root / "mcts_result" / "textcraft" / MODEL


def trees_of(root: Path) -> dict[str, dict]:
    return {path.name: read_json(path) for path in sorted(folder(root).glob("search_results_*.json"))}


def test_a_run_writes_trees_a_manifest_and_one_line(run, tmp_path):
    code, out, err = run("--task_ids", listed(IDS))
    assert code == 0
    assert out.count("\n") == 1
    assert out.startswith("4 trees (0 failed), ")
    assert "4/4" in err  # the progress bar
    found = trees_of(tmp_path)
    assert set(found) == {f"search_results_{index}.json" for index in IDS}
    for index in IDS:
        tree = load_tree(found[f"search_results_{index}.json"])
        assert (tree.status, tree.stats["iterations"], tree.task.index) == ("done", 2, index)
        assert leaves(tree)
    manifest = read_json(folder(tmp_path) / "manifest.json")
    assert [(o["path"], o["sha256"]) for o in manifest["outputs"]] == [
        (name, sha256_file(folder(tmp_path) / name)) for name in (f"search_results_{i}.json" for i in IDS)
    ]
    assert manifest["counts"]["trees"] == 4
    assert manifest["settings"]["itera"] == 2
    assert manifest["tokens"]["calls"] == sum(t["stats"]["calls"] for t in found.values())
    everything = out + err + "".join(p.read_text() for p in folder(tmp_path).iterdir())
    assert "verysecret" not in everything


def test_a_finished_tree_is_never_searched_again(run, tmp_path, chat):
    run("--task_ids", listed(IDS[:2]))
    before = {path: path.read_bytes() for path in folder(tmp_path).iterdir()}
    asked = len(chat.requests)
    code, out, _ = run("--task_ids", listed(IDS[:2]), ITERA="3")
    assert (code, len(chat.requests)) == (0, asked)
    assert out.startswith("2 trees (0 failed)")
    assert {path: path.read_bytes() for path in folder(tmp_path).iterdir()} == before
    run("--task_ids", listed(IDS[:3]))
    assert {p: p.read_bytes() for p in before if p.name != "manifest.json"} == {
        p: content for p, content in before.items() if p.name != "manifest.json"
    }
    assert len(trees_of(tmp_path)) == 3


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_and_pays_for_nothing_twice(run, tmp_path, chat, textcraft_url, sent):
    """The resumed trees equal those of a run that was never stopped, and no answer is asked for again."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ids = listed(IDS[:2])
    changes = {"ITERA": "4", "WORKERS": "1"}
    cut.mkdir()
    begun, signalled = Event(), Event()

    def policy(messages, rng):
        if len(chat.requests) > 25:  # of about 35 for each tree
            begun.set()
            signalled.wait(timeout=300)
        return answer(messages, rng, 0.4)

    chat.policy = policy
    environ = {**os.environ, **variables(chat.base_url, textcraft_url), **changes}
    command = [sys.executable, str(ROOT / "mcts_collection.py"), "--task_ids", ids]
    with subprocess.Popen(command, cwd=cut, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert begun.wait(timeout=300)
        process.send_signal(sent)
        signalled.set()
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "mcts_collection.py: stopped; run the same command again to go on"
    assert "Traceback" not in err

    saved = trees_of(cut)
    assert saved
    assert any(tree["status"] == "partial" for tree in saved.values()) or len(saved) < 2
    assert not (folder(cut) / "manifest.json").exists()
    asked = len(chat.requests)
    assert run("--task_ids", ids, "--output_dir", str(cut / "mcts_result"), **changes)[0] == 0
    resumed = len(chat.requests) - asked
    assert run("--task_ids", ids, "--output_dir", str(whole / "mcts_result"), **changes)[0] == 0
    assert trees_of(cut) == trees_of(whole)
    assert asked + resumed == sum(t["stats"]["calls"] for t in trees_of(whole).values())
    assert not list(cut.rglob(".journal*"))


def test_a_truncated_tree_is_named_and_searched_again(run, tmp_path):
    run("--task_ids", listed(IDS[:2]))
    whole = trees_of(tmp_path)
    for index, size in zip(IDS, (None, 0), strict=False):
        path = folder(tmp_path) / f"search_results_{index}.json"
        path.write_text(path.read_text()[: 400 if size is None else 0])
    code, _, err = run("--task_ids", listed(IDS[:2]))
    assert code == 0
    lines = [line for line in err.splitlines() if "truncated" in line]
    assert [line.split(":")[0].split("/")[-1] for line in lines] == [
        f"search_results_{i}.json" for i in IDS[:2]
    ]
    assert trees_of(tmp_path) == whole


@pytest.mark.parametrize(
    "content", ['{"visits": 3, "value": 1, "children": [], "llm_response": "ROOT"}', "notes, half", "[1"]
)
def test_a_file_that_is_not_ours_is_left_alone(run, tmp_path, chat, content):
    path = folder(tmp_path) / f"search_results_{IDS[0]}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    code, out, err = run("--task_ids", listed(IDS[:2]))
    assert (code, out, len(chat.requests)) == (2, "", 0)
    assert path.name in err
    assert err.count("\n") == 1
    assert path.read_text() == content


def test_other_settings_do_not_mix_into_a_folder(run, tmp_path):
    run("--task_ids", str(IDS[0]))
    before = trees_of(tmp_path)
    code, _, err = run("--task_ids", str(IDS[0]), N_ROLLOUT="5", SEED="9")
    assert code == 2
    assert "N_ROLLOUT=2, now 5" in err
    assert "SEED=0, now 9" in err
    assert trees_of(tmp_path) == before


def test_a_failed_task_is_data_and_is_tried_again(run, tmp_path, chat):
    goal = load_world().goals[IDS[1]].replace("_", " ")
    chat.policy = lambda messages, rng: (
        "Action: \ud800" if f"craft {goal}." in messages[1]["content"] else answer(messages, rng, 0.2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_set, "make_environment", EnvFailing(goal).wrap(make_environment))
        code, out, _ = run("--task_ids", listed(IDS), WORKERS="1")
    assert code == 1
    assert out.startswith("3 trees (1 failed; the first: EnvError: the server lost this one)")
    failed = trees_of(tmp_path)[f"search_results_{IDS[1]}.json"]
    assert failed["status"] == "failed"
    assert failed["error"] == "EnvError: the server lost this one"
    chat.policy = lambda messages, rng: answer(messages, rng, 0.2)
    code, out, _ = run("--task_ids", listed(IDS), WORKERS="1")
    assert (code, out[:18]) == (0, "4 trees (0 failed)")
    healed = trees_of(tmp_path)[f"search_results_{IDS[1]}.json"]
    assert (healed["status"], healed["error"]) == ("done", "")


class EnvFailing:
    """Sessions that cannot play one goal."""

    def __init__(self, goal: str) -> None:
        self.goal = goal

    def wrap(self, make):
        def made(*args, **options):
            env = make(*args, **options)
            step = env.step

            def failing(action):
                if f"craft {self.goal}." in env._task.opening:
                    raise EnvError("the server lost this one")
                return step(action)

            env.step = failing
            return env

        return made


def test_where_nothing_works_the_run_ends_with_the_reason(run, tmp_path, chat):
    chat.behaviour = Behaviour(refuse=("messages",))
    code, out, err = run("--task_ids", listed(SPLIT["train"][:40]), WORKERS="1")
    assert (code, out) == (2, "")
    line = err.strip().splitlines()[-1]
    assert line.startswith("mcts_collection.py: 3 trees failed and none worked; the last: ActorError: ")
    assert {t["status"] for t in trees_of(tmp_path).values()} == {"failed"}
    assert len(trees_of(tmp_path)) < 6


@pytest.mark.parametrize(
    ("flags", "changes", "named"),
    [
        (("--task_ids", "SOME"), {"ENV_SERVER_BASE": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        (("--task_ids", "SOME"), {"ENV_SERVER_BASE": ""}, "ENV_SERVER_BASE"),
        (("--task_ids", "SOME"), {"MODEL_NAME": ""}, "MODEL_NAME"),
        (("--task_ids", "SOME"), {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "OPENAI_BASE_URL"),
        (("--task_ids", "SOME"), {"ITERA": "many"}, "ITERA"),
        (("--task_ids", "SOME"), {"TASK": "chess"}, "chess"),
        (("--task_ids", "3,x"), {}, "'x'"),
        (("--min", "5", "--max", "5"), {}, "--min 5 --max 5"),
        (("--min", "0", "--max", "5", "--task_ids", "SOME"), {}, "--task_ids"),
        (("--task_num", "1"), {}, "--task_num"),
        (("--task_ids", str(SPLIT["test"][0])), {}, f"{SPLIT['test'][0]} is a test id"),
        (("--task_ids", "test"), {}, "is a test id"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, chat, flags, changes, named):
    code, out, err = run(*(str(IDS[0]) if flag == "SOME" else flag for flag in flags), **changes)
    assert (code, out) == (2, "")
    assert err.startswith("mcts_collection.py: ")
    assert err.count("\n") == 1
    assert named in err
    assert len(chat.requests) == 0
    assert not (tmp_path / "mcts_result").exists()


def test_a_range_leaves_test_ids_out(run, tmp_path):
    low = SPLIT["test"][0]
    high = next(index for index in SPLIT["train"] if index > low) + 1
    assert run("--min", str(low), "--max", str(high))[0] == 0
    assert [t["task"]["index"] for t in trees_of(tmp_path).values()] == [high - 1]


def test_ids_come_from_a_file_too_and_test_ids_only_by_request(run, tmp_path):
    (tmp_path / "ids.txt").write_text(f"[{IDS[0]},\n {IDS[1]}]\n")
    assert run("--task_ids", "ids.txt")[0] == 0
    assert {t["task"]["index"] for t in trees_of(tmp_path).values()} == set(IDS[:2])
    assert run("--task_ids", str(SPLIT["test"][0]), "--allow_test")[0] == 0
    assert len(trees_of(tmp_path)) == 3


def test_uct_decides_and_prefers_the_better_child_on_textcraft(textcraft_url):
    """A third of all selections at ITERA=8, two thirds at 32, on one real tree; and visits follow the mean reward."""
    index = SPLIT["train"][150]
    settings = settings_from_env({"MAX_DEPTH": "7", "PROMPT": "brief", "SEED": "2"})
    rules = Rules(settings.n_gen, settings.n_rollout, settings.max_depth, settings.uct_c)
    with (
        closing(SessionPool(partial(make_environment, "textcraft", textcraft_url))) as pool,
        ThreadPoolExecutor(8) as threads,
    ):
        with pool.session() as env:
            tree = new_tree(env.reset(index))
        simulator = TaskSimulator(tree.task, settings, NoisyPlayer(0.5), pool, threads, Counters())
        shares = {}
        for number in run_search(tree, 32, rules, Random, simulator):
            shares[number + 1] = tree.stats["selections_uct"] / max(1, tree.stats["selections"])
    assert shares[8] >= 1 / 3
    assert shares[32] >= 2 / 3
    assert tree.stats["selections"] >= 32
    branching = [[c for c in node.children if c.visits] for node in nodes(tree) if node.visits >= 40]
    branching = [children for children in branching if len(children) > 1]
    assert len(branching) >= 2
    # Were visits handed out without regard to the reward, both sums would be alike.
    by_visits = sum(sum(c.value for c in cs) / sum(c.visits for c in cs) for cs in branching)
    by_heads = sum(sum(c.q for c in cs) / len(cs) for cs in branching)
    assert by_visits > by_heads + 0.05 * len(branching)


class Corridor(Environment):
    """An environment in memory: episodes of some 10 steps, by chance of the actions taken."""

    def reset(self, index: int) -> Task:
        self.index, self.taken = index, ""
        return Task("textcraft", index, f"corridor:{index}", "Goal: walk.")

    def step(self, action: str) -> StepResult:
        self.taken += action
        chance = Random(f"{self.index}{self.taken}").random()
        return StepResult(f"at {chance:.3f}", float(chance > 0.95), chance > 0.9)

    def close(self) -> None:
        """Nothing to free."""


class Slots(Actor):
    """An endpoint of 16 slots whose requests all take equally long: they are answered together once 16 are in flight.

    Where fewer can be in flight at all, they are answered after `patience` seconds instead; `alone` counts those.
    """

    def __init__(self, slots: int = 16, patience: float = 0.15) -> None:
        self.slots, self.patience = slots, patience
        self.together = self.alone = self.waiting = self.round = 0
        self.changed = Condition()

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        with self.changed:
            mine = self.round
            self.waiting += 1
            if self.waiting == self.slots:
                self.together += self.slots
                self._answer()
            elif not self.changed.wait_for(lambda: self.round > mine, self.patience):
                self.alone += self.waiting
                self._answer()
        return [Sample(f"Thought: t\nAction: {Random(f'{seed}:{i}').choice('abcd')}") for i in range(n)]

    def _answer(self) -> None:
        self.waiting = 0
        self.round += 1
        self.changed.notify_all()


def test_sixteen_requests_are_in_flight_for_most_of_a_run(tmp_path):
    settings = settings_from_env({"MODEL_NAME": "slots", "ITERA": "2", "CONCURRENCY": "16"})
    slots = Slots()
    totals = SearchStage(settings, range(32), tmp_path).run(lambda: slots, Corridor)
    assert totals["trees"] == 32
    assert slots.together + slots.alone == totals["tokens"]["calls"] > 2000
    assert slots.together / (slots.together + slots.alone) > 0.8


def test_one_tree_at_a_time_does_not_fill_sixteen_slots(tmp_path):
    """The check above can fail: eight rollouts are never sixteen requests."""
    settings = settings_from_env({"MODEL_NAME": "slots", "ITERA": "1", "WORKERS": "1"})
    slots = Slots(patience=0.01)
    SearchStage(settings, range(2), tmp_path).run(lambda: slots, Corridor)
    assert slots.together == 0
    assert slots.alone > 0


def test_an_interrupt_while_jobs_run_waits_for_them_and_starts_no_other():
    stop, started, finished = Event(), Event(), []

    def work(job: int) -> int:
        if job == 0:
            return 0
        started.set()
        stop.wait(timeout=30)
        finished.append(job)
        return job

    def interrupted() -> None:
        with closing(run_tasks(work, 1, stop, [0, 1, 2, 3])) as results:
            assert next(results) == (0, 0)
            started.wait(timeout=30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert finished == [1]


def test_a_failing_job_is_a_result_and_not_the_end():
    def work(job: int) -> int:
        if job == 1:
            raise ActorError("no")
        return job

    found = dict(run_tasks(work, 2, Event(), [0, 1, 2]))
    assert isinstance(found.pop(1), ActorError)
    assert found == {0: 0, 2: 2}


def test_the_file_of_a_failed_tree_keeps_its_finished_iterations(tmp_path):
    class Dying(NoisyCorridorActor):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            self.calls += 1
            if self.calls > self.limit:
                raise ActorError("the endpoint\nis gone")
            return super().sample(messages, n, temperature, seed)

    settings = settings_from_env({"MODEL_NAME": "m", "ITERA": "6", "N_ROLLOUT": "2"})
    whole = SearchStage(settings, [1], tmp_path / "whole")
    whole.run(NoisyCorridorActor, Corridor)
    stage = SearchStage(settings, [1], tmp_path / "cut")
    dying = Dying(limit=read_json(whole.path(1))["stats"]["calls"] // 2)
    assert stage.run(lambda: dying, Corridor)["failed"] == 1
    failed = read_json(stage.path(1))
    assert (failed["status"], failed["error"]) == ("failed", "ActorError: the endpoint is gone")
    assert 0 < failed["stats"]["iterations"] < 6
    SearchStage(settings, [1], tmp_path / "cut").run(NoisyCorridorActor, Corridor)
    assert stage.path(1).read_bytes() == whole.path(1).read_bytes()
    assert tree_to_dict(load_tree(json.loads(whole.path(1).read_text())))["status"] == "done"


class NoisyCorridorActor(Actor):
    """Draws letters by seed."""

    def __init__(self, limit: int = 0) -> None:
        self.calls, self.limit = 0, limit

    def sample(self, messages, n=1, temperature=1.0, seed=None) -> list[Sample]:
        return [Sample(f"Action: {Random(f'{seed}:{i}').choice('abcd')}") for i in range(n)]
