"""Steps of a long run: what is done, who is served, how it ends. Commands are one-line shells."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mcts_utils.pipeline import run_all
from mcts_utils.pipeline.processes import run_script
from mcts_utils.pipeline.steps import HEAD, Runner, Server, Step, filled, quoted

ROOT = Path(__file__).resolve().parents[2]
# Made with sha256sum, as the shell script did that ran the steps before.
STAMP = (
    "b887f4220eec6c97a43fe3caa7bf1d9cbb9d3b4e07abc82377db9f055b8d7d2d"
    " 084c799cd551dd1d8d5c5f9a5d593b2e931f5e36122ee5c793c1d08a19839cc0\n"
)
FINGERPRINT = "b6b43c64d7825abf7d7abac0d90186611a052fd6f02e94acaa3f793db8042d13"


def server(folder: Path, name: str = "one") -> Server:
    """Return a server that notes its process, names a URL and stays."""
    shell = f"echo $$ >>{folder}/pids; echo ready on http://{name}; exec sleep 300"
    return Server("served", f"{folder}/{name}.log", "60", ("sh", "-c", shell))


def step(folder: Path, name: str, shell: str = "echo $X", **more: object) -> Step:
    """Return a step that appends what `shell` prints to its output."""
    words = ("env", "X=@served", "sh", "-c", f"({shell}) >>{folder}/{name}.txt; {more.pop('then', ':')}")
    return Step(f"a/{name}", f"{folder}/{name}.txt", words, **more)  # type: ignore[arg-type]


def run_steps(folder: Path, *steps: Step, start: str = "settings") -> int:
    """Run steps as a script does and return its exit code."""

    async def body(servers: AsyncExitStack) -> int:
        runner = Runner(str(folder), start, {}, servers)
        for each in steps:
            await runner.step(each)
        return 0

    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    try:
        return run_script("test.sh", body)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.txt"))}


def alive(folder: Path) -> list[int]:
    """Return the servers that still run."""
    pids = [int(line) for line in (folder / "pids").read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_step_is_repeated_only_after_a_change_before_it(tmp_path: Path) -> None:
    one = (server(tmp_path),)
    steps = [step(tmp_path, name, servers=one) for name in ("first", "second", "third")]
    assert run_steps(tmp_path, *steps) == 0
    assert texts(tmp_path) == dict.fromkeys(("first", "second", "third"), "http://one\n")
    assert not alive(tmp_path)
    assert run_steps(tmp_path, *steps) == 0
    assert len((tmp_path / "pids").read_text().split()) == 1  # no second server
    (tmp_path / "second.txt").write_text("changed\n")
    assert run_steps(tmp_path, *steps) == 0
    assert texts(tmp_path)["first"] == "http://one\n"
    assert texts(tmp_path)["second"] == "changed\nhttp://one\n"
    assert texts(tmp_path)["third"] == "http://one\n" * 2
    assert run_steps(tmp_path, *steps, start="other settings") == 0
    assert texts(tmp_path)["first"] == "http://one\n" * 2


def test_stamps_are_those_of_earlier_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").write_text("42\n")
    Path("done/a").mkdir(parents=True)
    Path("done/a/b").write_text(STAMP)
    assert run_steps(Path("."), Step("a/b", "out", ("false", "--flag", "1 2"))) == 0  # it would fail


def test_a_failed_step_ends_the_run_and_some_failed_tasks_do_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = (server(tmp_path),)
    twice = step(tmp_path, "twice", then="exit 1", servers=one, retry=True)
    bad = step(tmp_path, "bad", then="exit 7", servers=one, retry=True)
    assert run_steps(tmp_path, twice, bad, step(tmp_path, "never", servers=one)) == 7
    assert texts(tmp_path) == {"twice": "http://one\n" * 2, "bad": "http://one\n"}
    said = capfd.readouterr()
    assert said.out == "== a/twice\n== a/bad\n"
    told, stopped = said.err.splitlines()
    assert told.startswith("run_all.sh: a/twice: some tasks failed twice;")
    assert stopped == "test.sh: stopped at a/bad (exit code 7); the same command continues from there"
    assert not alive(tmp_path)


def test_what_a_step_prints_is_kept_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed = Step("a/b", f"{tmp_path}/out", ("sh", "-c", "echo rows 3; exit 2"), prints=True)
    silent = Step("a/c", f"{tmp_path}/none", ("sh", "-c", "exit 2"), prints=True)
    assert run_steps(tmp_path, printed, silent) == 2
    assert (tmp_path / "out").read_text() == "rows 3\n"
    assert not (tmp_path / "none").exists()
    said = capfd.readouterr()
    assert said.out == "== a/b\nrows 3\n== a/c\n"
    assert "a/b: not everything is as it should be (exit code 2)" in said.err


def test_one_server_of_a_name_runs_at_a_time_and_none_where_it_must_not(tmp_path: Path) -> None:
    one, two = server(tmp_path, "one"), server(tmp_path, "two")
    count = f"echo $X; for p in $(cat {tmp_path}/pids); do kill -0 $p 2>/dev/null && echo up; done; true"
    steps = [
        step(tmp_path, "a", count, servers=(one,)),
        step(tmp_path, "b", count, servers=(two,)),
        Step("a/train", f"{tmp_path}/c.txt", ("sh", "-c", f"({count}) >{tmp_path}/c.txt"), stops="served"),
    ]
    assert run_steps(tmp_path, *steps) == 0
    assert texts(tmp_path) == {"a": "http://one\nup\n", "b": "http://two\nup\n", "c": "\n"}


def test_a_server_that_does_not_start_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dead = Server("served", f"{tmp_path}/log", "60", ("sh", "-c", "echo no luck; exit 3"))
    assert run_steps(tmp_path, step(tmp_path, "a", servers=(dead,))) == 1
    assert capfd.readouterr().err == "test.sh: 'sh -c echo no luck; exit 3' did not start: no luck\n"
    mute = Server("served", f"{tmp_path}/log", "0.01", ("sleep", "60"))
    assert run_steps(tmp_path, step(tmp_path, "a", servers=(mute,))) == 1
    assert "printed no address within 0.01 s" in capfd.readouterr().err


def test_a_plan_is_a_script_that_does_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "with blanks"
    folder.mkdir()
    one = server(tmp_path)
    steps = [
        step(tmp_path, "first", servers=(one,)),
        Step("a/b", f"{folder}/out", ("env", "X=@served", "sh", "-c", "echo $X"), (one,), prints=True),
        Step("a/c", f"{folder}/c", ("sh", "-c", f"cat '{folder}/out' >'{folder}/c'"), stops="served"),
    ]

    async def plan() -> str:
        async with AsyncExitStack() as servers:
            planner = Runner(str(folder), "settings", {}, servers, dry=True)
            for each in steps:
                await planner.step(each)
            return planner.chain

    assert asyncio.run(plan()) == ""
    lines = capfd.readouterr().out
    assert not (tmp_path / "pids").exists()
    script = tmp_path / "plan.sh"
    script.write_text(f"{HEAD % quoted(sys.executable)}\n{lines}")
    done = subprocess.run(["bash", str(script)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "http://one\n", "")
    assert (folder / "c").read_text() == (tmp_path / "first.txt").read_text() == "http://one\n"
    assert not alive(tmp_path)


def test_words_with_blanks_stay_one_word_and_empty_ones_go() -> None:
    assert filled("a {b} X={c} {d}", b="1 2", c="", d="") == ("a", "1 2", "X=")
    assert quoted("env", "A=@served", "it's", "b c") == """env A="$served" 'it'"'"'s' 'b c'"""


def test_only_what_is_done_belongs_to_a_runs_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env.example").write_text("ITERA=8\nBETA=\nWORKERS=\nSEED=0\n")
    monkeypatch.chdir(tmp_path)
    shell = {"PLAYER": "model", "NOISE": "0.3", "ITERA": "2", "WORKERS": "3", "SEED": "1", "SERVE": "vllm"}
    assert run_all.exported(shell) == ["ITERA=2", "WORKERS=3", "SERVE=vllm"]
    plain = run_all.fingerprint(shell)
    assert plain == FINGERPRINT
    assert run_all.fingerprint(shell | {"WORKERS": "9", "SERVE": "local", "SEED": "2"}) == plain
    assert run_all.fingerprint(shell | {"BETA": "0.1"}) != plain
    (tmp_path / ".env").write_text("CONCURRENCY=3\n")
    assert run_all.fingerprint(shell) == plain
    (tmp_path / ".env").write_text("CONCURRENCY=3\nTEMP=0.5")
    assert run_all.fingerprint(shell) != plain
