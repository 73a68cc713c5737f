"""EXECUTOR=ray on two real Ray nodes of this machine: the same files as on threads, even if workers die."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import pytest

import eval as evaluation
import mcts_collection
import path_collection
from mcts_utils.envs.errors import EnvStatus
from mcts_utils.executors.ray_cluster import driver as driver_module
from mcts_utils.executors.ray_cluster import worker as worker_module
from mcts_utils.executors.ray_cluster.connection import NodeSlot
from mcts_utils.executors.ray_cluster.driver import RayDriver, WorkerSlot
from mcts_utils.executors.ray_cluster.messages import WorkerUpdate, portable
from mcts_utils.executors.ray_cluster.worker import own_folder, remove_folders_of_dead_workers
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, ChatServer, running_chat
from mcts_utils.servers.textcraft.expert import answer
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import read_json
from mcts_utils.storage.lock import reserved
from mcts_utils.types import EnvError
from tests.executors.test_spending import Bill
from tests.helpers.faulty_proxy import failing
from tests.helpers.ports import reserved_ports

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
IDS = (183, 187, 190, 194, 195, 196)  # goals of some steps: each tree has pairs to be judged
NODE = ("node-manager", "object-manager", "runtime-env-agent", "metrics-export")
NODE_PORTS = 60  # per node: those named, two of its agent, and those of its workers
MANIFEST = {
    "settings",
    "seconds",
    "tokens",
    "code_revision",
    "sha256",
}  # fields that tell of the run, not of its result
# Ray listens on every network of the machine, and starts whatever it is sent.
ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
PATIENCE = 100  # seconds, far more than anything here takes


class Node:
    """`ray start` in the foreground: it ends, with all that it has started, when it is told to."""

    def __init__(self, log: Path, base: int, *flags: str) -> None:
        ports = [f"--{name}-port={base + i}" for i, name in enumerate(NODE)]
        ports += [f"--dashboard-agent-listen-port={base + 5}", f"--dashboard-agent-grpc-port={base + 6}"]
        ports += [f"--min-worker-port={base + 10}", f"--max-worker-port={base + NODE_PORTS - 1}"]
        start = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
        size = ("--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000")
        spared = ("--include-log-monitor=false", "--no-monitor")  # processes that nobody here needs
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-u",
                "-c",
                start,
                "start",
                "--block",
                "--disable-usage-stats",
                *size,
                *spared,
                *ports,
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            # Workers as nice as Ray makes them get no core while other tests have work for it.
            env={**os.environ, **ACCESS, "TMPDIR": str(log.parent), "RAY_worker_niceness": "0"},
        )

    def wait_until_up(self) -> None:
        assert self._process.stdout is not None
        assert any("Ray runtime started" in line for line in self._process.stdout)

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.stdout is not None
        self._process.stdout.read()
        self._process.wait(PATIENCE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes with a core each. Nothing of them is left afterwards."""
    # A folder of its own, near the root: the names of Ray's sockets may have 107 characters.
    with TemporaryDirectory(prefix="ray") as name, reserved_ports(2 * NODE_PORTS + 1) as base:
        folder, address = Path(name), f"127.0.0.1:{base}"
        head = ("--head", f"--port={base}", "--include-dashboard=false", f"--temp-dir={folder}")
        nodes = [Node(folder / "head", base + 1, *head)]
        try:
            nodes[0].wait_until_up()
            nodes.append(Node(folder / "other", base + 1 + NODE_PORTS, f"--address={address}"))
            nodes[1].wait_until_up()
            with pytest.MonkeyPatch.context() as patch:
                for variable, value in ACCESS.items():  # read when ray is imported, which no test does before
                    patch.setenv(variable, value)
                yield address
        finally:
            for node in reversed(nodes):
                node.stop()
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path)]
        assert not [command for command in commands if str(folder).encode() in command]


def readable(path: Path) -> bool:
    """False for a process that has just ended."""
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with running_chat(Behaviour(noise=0.4)) as server:
        yield server


@pytest.fixture
def variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: ChatServer, textcraft_url: str, cluster: str
) -> Iterator[dict[str, str]]:
    """The environment of a run on the cluster; one request at a time and worker, so two at once are two workers'."""
    found = {
        "TASK": "textcraft",
        "OPENAI_BASE_URL": chat.base_url,
        "OPENAI_API_KEY": "sk-verysecret",
        "MODEL_NAME": MODEL,
        "ENV_SERVER_BASE": textcraft_url,
        "EXECUTOR": "ray",
        "RAY_ADDRESS": cluster,
        "CONCURRENCY": "1",
        "WORKERS": "1",
        "ITERA": "3",
        "N_GEN": "3",
        "N_ROLLOUT": "3",
        "MAX_DEPTH": "8",
    }
    for name in ("MODEL_DIR", "MODEL_TYPE", "TEMP", "PROMPT", "SEED", "RAY_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGTERM, before)


class Meeting:
    """A policy whose first answers wait until requests of two workers are there."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self._then, self._waiting, self._lock, self.met = then, 0, Lock(), Event()

    def __call__(self, messages: list[dict], rng: Any) -> str:
        with self._lock:
            self._waiting += 1
            if self._waiting == 2:
                self._then()
                self.met.set()
        assert self.met.wait(PATIENCE)
        return answer(messages, rng, 0.4)


def listed(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


def search(root: str) -> int:
    return mcts_collection.main(["--task_ids", listed(IDS), "--output_dir", f"{root}/trees"])


def revise(root: str) -> int:
    flags = ["--input_dir", "trees", "--output_dir", f"{root}/records"]
    return path_collection.main(flags)


def evaluate(root: str) -> int:
    return evaluation.main(["--task_ids", "0-5", "--max_steps", "8", "--output_dir", f"{root}/episodes"])


def files(folder: Path) -> dict[str, Any]:
    """Name -> content, without what says when and where it was made."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        found[name] = path.read_bytes()
        if "manifest" in name:
            found[name] = {key: value for key, value in read_json(path).items() if key not in MANIFEST}
            found[name].pop("outputs" if "episodes" in name else "", None)  # episodes say how long they took
        elif name.startswith("episodes"):
            found[name] = {k: v for k, v in read_json(path).items() if k not in ("seconds", "tokens")}
    return found


def used(path: Path) -> dict[str, Any]:
    """What a manifest says about the cluster."""
    tokens = read_json(path)["tokens"]
    return tokens.get("this_run", tokens)["ray"]


def test_all_stages_write_what_threads_write_on_both_nodes(
    variables: dict[str, str], chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for executor in ("threads", "ray"):
        monkeypatch.setenv("EXECUTOR", executor)
        for stage in (search, revise, evaluate):
            if executor == "ray":
                chat.policy = Meeting()
            assert stage(executor) == 0
            if not Path("trees").exists():
                shutil.copytree(f"threads/trees/textcraft/{MODEL}", "trees")
    ours, theirs = files(tmp_path / "ray"), files(tmp_path / "threads")
    assert sorted(ours) == sorted(theirs)
    assert len([name for name in ours if "verdicts/" in name]) == 6
    assert len([name for name in ours if name.startswith("trees/") and "results" in name]) == 6
    assert {name for name in ours if ours[name] != theirs[name]} == set()
    for name in [name for name in ours if "manifest" in name]:
        workers = used(tmp_path / "ray" / name)["workers"]
        assert len({worker["node"] for worker in workers}) == 2
        assert min(worker["jobs"] for worker in workers) >= 1
        assert sum(worker["jobs"] for worker in workers) == 6
    written = "".join(p.read_text() for p in (tmp_path / "ray").rglob("*") if p.is_file())
    assert "verysecret" not in written


def kill_a_worker() -> None:
    """As the kernel does when memory runs out."""
    import ray

    (actor, *_) = ray.util.list_named_actors(all_namespaces=True)
    pid: int = ray.get(ray.get_actor(actor["name"], namespace=actor["namespace"]).where.remote())[1]
    os.kill(pid, signal.SIGKILL)


def begun(root: Path) -> bool:
    """True once the driver has stored a tree with a whole iteration."""
    return any(read_json(path)["status"] == "partial" for path in root.rglob("search_results_*.json"))


def test_a_killed_worker_loses_nothing(
    variables: dict[str, str], chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, killed = Lock(), Event()

    def policy(messages: list[dict], rng: Any) -> str:
        with lock:
            if not killed.is_set() and begun(tmp_path):
                kill_a_worker()
                killed.set()
        return answer(messages, rng, 0.4)

    chat.policy = policy
    assert search("ray") == 0
    assert killed.is_set()
    manifest = tmp_path / "ray" / "trees" / "textcraft" / MODEL / "manifest.json"
    assert used(manifest)["lost"] == 1
    monkeypatch.setenv("EXECUTOR", "threads")
    assert search("threads") == 0
    assert files(tmp_path / "ray") == files(tmp_path / "threads")


@pytest.mark.slow
def test_faults_of_the_server_and_the_endpoint_change_no_tree(
    variables: dict[str, str],
    chat: ChatServer,
    textcraft_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXECUTOR", "threads")
    for name in ("CONCURRENCY", "WORKERS"):  # a request that is tried again later keeps no other waiting
        monkeypatch.setenv(name, "3")
    assert search("threads") == 0
    chat.behaviour = replace(chat.behaviour, fail="503", fail_every=10)
    monkeypatch.setenv("EXECUTOR", "ray")
    with failing(textcraft_url, 0.1) as proxy:
        monkeypatch.setenv("ENV_SERVER_BASE", proxy.url)
        assert search("ray") == 0
    assert len([kind for kind, count in proxy.met.items() if kind and count]) > 3
    assert files(tmp_path / "ray") == files(tmp_path / "threads")


def test_a_task_that_takes_its_workers_down_fails_alone(
    variables: dict[str, str], chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = load_world().goals[1].replace("_", " ")

    def policy(messages: list[dict], rng: Any) -> str:
        if f"craft {goal}." in messages[1]["content"]:
            kill_a_worker()
        return answer(messages, rng, 0.4)

    chat.policy = policy
    monkeypatch.setenv("RAY_WORKERS", "1")
    monkeypatch.setattr(driver_module, "MAX_LOSSES", 2)  # each takes seconds
    assert evaluate("ray") == 1
    folder = tmp_path / "ray" / "episodes" / "textcraft" / f"{MODEL}_"
    states = {i: read_json(folder / f"episode_{i}.json") for i in range(6)}
    assert [i for i, state in states.items() if state["status"] != "done"] == [1]
    assert states[1]["error"].startswith("WorkerLost: lost with 2 workers")
    monkeypatch.setenv("EXECUTOR", "threads")
    chat.policy = None
    assert evaluate("ray") == 0
    assert evaluate("threads") == 0
    ours, theirs = files(tmp_path / "ray"), files(tmp_path / "threads")
    assert {name: ours[name] for name in ours if "results" in name} == {
        name: theirs[name] for name in theirs if "results" in name
    }


def test_a_stopped_run_brings_home_what_is_done_and_goes_on_from_there(
    variables: dict[str, str], chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, stopped = Event(), Event()

    def policy(messages: list[dict], rng: Any) -> str:
        if begun(tmp_path):
            half.set()
            assert stopped.wait(PATIENCE)
        return answer(messages, rng, 0.4)

    chat.policy = policy
    command = [sys.executable, str(ROOT / "mcts_collection.py"), "--task_ids", listed(IDS)]
    command += ["--output_dir", "cut/trees"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert half.wait(PATIENCE)
        process.terminate()
        stopped.set()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "mcts_collection.py: stopped; run the same command again to go on"
    assert "Traceback" not in err
    folder = tmp_path / "cut" / "trees" / "textcraft" / MODEL
    saved = [read_json(path) for path in folder.glob("search_results_*.json")]
    assert any(tree["status"] == "partial" for tree in saved)
    assert not (folder / "manifest.json").exists()

    asked = len(chat.requests)
    monkeypatch.setenv("EXECUTOR", "threads")
    assert search("cut") == 0
    again = len(chat.requests) - asked
    assert search("whole") == 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    whole = len(chat.requests) - asked - again
    in_flight = 2  # one of each worker
    assert 0 <= asked + again - whole <= in_flight


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"RAY_WORKERS": "9"}, "RAY_WORKERS=9: the Ray cluster has room for 2 workers"),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, "RAY_ADDRESS=127.0.0.1:9: no Ray cluster answers"),
        ({"RAY_ADDRESS": "ray://head"}, "RAY_ADDRESS must be host:port, auto or local: 'ray://head'"),
        ({"EXECUTOR": "slurm"}, "EXECUTOR must be one of threads, ray: 'slurm'"),
        (
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
            "OPENAI_BASE_URL=http://127.0.0.1:9/v1 cannot be reached",
        ),
    ],
)
def test_what_cannot_work_is_one_line(
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    line: str,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    assert search("ray") == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_workers_share_a_limit_of_tokens(
    variables: dict[str, str],
    chat: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bill = Bill(chat)
    monkeypatch.setenv("EXECUTOR", "threads")
    assert search("whole") == 0
    monkeypatch.setenv("EXECUTOR", "ray")
    whole, bill.tokens = bill.tokens, 0
    capsys.readouterr()
    for limit, code in ((whole // 2, 3), (2 * whole, 0)):
        monkeypatch.setenv("MAX_TOKENS_TOTAL", str(limit))
        assert search("limited") == code
        paid = read_json(Path(f"limited/trees/textcraft/{MODEL}/spent.json"))["models"]["actor"]
        assert paid["prompt_tokens"] + paid["completion_tokens"] == bill.tokens <= limit
        if code:
            line = capsys.readouterr().err.splitlines()[-1]
            assert (
                f"MAX_TOKENS_TOTAL={limit} reached at {bill.tokens}: " in line
                and " of 6 trees are left; " in line
            )
    assert bill.tokens == whole  # nothing was paid for twice
    assert used(Path(f"limited/trees/textcraft/{MODEL}/manifest.json"))["workers"]


def test_without_ray_one_line_names_the_setting(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert search("ray") == 2
    assert capsys.readouterr().err.startswith(
        "mcts_collection.py: EXECUTOR=ray: the package ray is not installed"
    )


def test_a_node_whose_tasks_fail_in_a_row_gets_no_more_of_them() -> None:
    """One dead environment server must not spoil the tasks of all the others."""
    killed: list[str] = []
    driver = RayDriver(SimpleNamespace(), SimpleNamespace(jobs_at_once=20), ())  # type: ignore[arg-type]
    driver._ray = SimpleNamespace(kill=killed.append)
    bad = WorkerSlot(
        0, NodeSlot("a", "host-a"), "bad", True, {number: f"job {number}" for number in range(7)}
    )
    good = WorkerSlot(1, NodeSlot("b", "host-b"), "good", True)
    driver._slots = [bad, good]
    for number in range(4):
        driver._jobs_ended(bad, WorkerUpdate(ended=((number, EnvError("refused")),)))
    assert not killed
    assert driver._jobs_ended(bad, WorkerUpdate(ended=((4, EnvError("refused")),)))[0][0] == "job 4"
    assert killed == ["bad"]
    assert (list(driver._waiting), bad.jobs, bad.ready) == ([(5, "job 5"), (6, "job 6")], {}, False)
    for number in range(9):  # the last one goes on: it may be the tasks
        good.jobs[number] = "job"
        driver._jobs_ended(good, WorkerUpdate(ended=((number, EnvError("refused")),)))
    assert killed == ["bad"]


def test_the_temporary_folders_of_killed_workers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("agent-r-dead", "agent-r-live", "other"):
        (tmp_path / name / "out").mkdir(parents=True)
    with reserved(tmp_path / "agent-r-live"):
        remove_folders_of_dead_workers()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["agent-r-live", "other"]


def test_workers_that_begin_at_once_do_not_take_each_others_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @contextmanager
    def beside_another(folder: Path) -> Iterator[Path]:
        """Lock it while another worker looks at all that it may take for a dead one's."""
        with ExitStack() as other:
            for each in tmp_path.glob("agent-r-*"):
                other.enter_context(reserved(each))
            found = resources.enter_context(reserved(folder))
        yield found

    monkeypatch.setattr(worker_module, "reserved", beside_another)
    with ExitStack() as resources:
        folder = own_folder(resources)
        monkeypatch.undo()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert folder.name.startswith("agent-r-")
        remove_folders_of_dead_workers()
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_an_exception_that_cannot_travel_arrives_as_its_text() -> None:
    assert str(portable(EnvError("gone"))) == "gone"
    assert isinstance(portable(EnvStatus("gone", 500)), EnvError)
    assert str(portable(EnvStatus("gone", 500))).endswith("gone")
