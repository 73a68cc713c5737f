"""scripts/run_all.sh: two small iterations with real servers, real training and a served model; the plan; its ends."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from mcts_utils.pipeline import run_all as program
from mcts_utils.report.runs.iteration import main as stages
from mcts_utils.report.runs.iterations import main as iterations
from mcts_utils.storage.files import read_json, read_jsonl
from mcts_utils.types import InputError

ROOT = Path(__file__).resolve().parents[2]
SCIWORLD = shutil.which("java") is not None and importlib.util.find_spec("scienceworld") is not None
TASKS = ["textcraft", "webshop", *["sciworld"] * SCIWORLD]
SMALL = {
    "PLAYER": "scripted",
    "MODEL_DIR": "models/tiny_actor",
    "SERVE": "local",
    "SERVE_PORT": "0",
    "SEED": "0",
    "NOISE": "0.4",
    "N_TRAIN": "2",
    "N_TEST": "2",
    "ITERA": "1",
    "N_GEN": "3",
    "N_ROLLOUT": "2",
    "MAX_DEPTH": "15",
    "MAX_TOKEN_LENGTH": "48",
    "EVAL_BASE": "0",
    "EVAL_STEPS": "2",
    "ITERATIONS": "2",
    "EPOCHS": "1",
    "REHEARSE": "1",
    "TRAIN_FLAGS": "--accumulation 1 --max_length 640 --max_per_task 2",
    "OMP_NUM_THREADS": "1",
    "PYTHON": sys.executable,
}
if SCIWORLD:
    from mcts_utils.servers.sciworld.expert import demo_ids, known_games

    games = sorted(known_games().values(), key=lambda game: len(game.path))
    SMALL["TASK_IDS_SCIWORLD"] = str(next(game.id for game in games if game.id in demo_ids("train")))


def environ(run: Path, **variables: str) -> dict[str, str]:
    """The shell's variables without those that a person may have set for other work."""
    ours = (
        "OPENAI",
        "MODEL",
        "ENV_SERVER",
        "TASK",
        "TEST_IDS",
        "MAX_DEPTH",
        "ALPHA",
        "PROMPT",
        "SERVE",
        "STEPS",
        "WARM",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | SMALL | {"RUN_DIR": str(run)} | variables


def run_all(run: Path, script: str = "run_all", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", f"scripts/{script}.sh"],
        cwd=ROOT,
        env=environ(run, **variables),
        capture_output=True,
        text=True,
        timeout=900,
    )


def files(run: Path) -> dict[str, int]:
    """Everything that a run keeps, by its time; tables are written anew each time."""
    return {
        str(path.relative_to(run)): path.stat().st_mtime_ns
        for path in run.rglob("*")
        if path.is_file() and path.relative_to(run).parts[-2:-1] not in [("iteration_1",), ("iteration_2",)]
        if path not in (run / "summary.json", run / "report.html")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, what it printed) of two iterations over all environments that this machine can play."""
    run = tmp_path_factory.mktemp("run_all")
    done = run_all(run, TASKS=" ".join(TASKS))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return run, done.stdout


@pytest.mark.trainer
def test_two_iterations_train_one_model_on_the_records_of_all_environments(
    finished: tuple[Path, str],
) -> None:
    run, printed = finished
    for number, alpha in ((1, 0.5), (2, 0.7)):
        folder = run / f"iteration_{number}"
        rows: dict[str, int] = {}
        for task in TASKS:
            trees = list((folder / task / "mcts_result").rglob("search_results_*.json"))
            assert len(trees) == (1 if task == "sciworld" else 2)
            assert {read_json(path)["status"] for path in trees} == {"done"}
            for kind in ("centric", "good"):
                manifest = read_json(folder / f"{task}/records/{task}_{kind}.manifest.json")
                assert manifest["settings"]["alpha"] == alpha
                rows[task] = rows.get(task, 0) + len(
                    read_jsonl(folder / f"{task}/records/{task}_{kind}.jsonl")
                )
            summary = read_json(folder / f"{task}/test_result/{task}/tiny_actor-{number}_greedy/summary.json")
            assert (summary["n"], summary["n_failed"]) == (2, 0)
        model = read_json(folder / "model/manifest.json")
        assert model["counts"]["rows"]["verdict"] > 0  # the players' own verdicts
        before = ROOT / "models/tiny_actor" if number == 1 else run / "iteration_1/model"
        assert (ROOT / model["settings"]["model"]).resolve() == before
        assert set(model["counts"]["envs"]) == {task for task in TASKS if rows[task]}
        assert len(model["counts"]["envs"]) > 1
        found = read_json(folder / "summary.json")
        assert found["training"]["counts"]["rows"] == model["counts"]["rows"]
        assert list(found["environments"]) == TASKS
    weights = [run / f"iteration_{number}/model/model.safetensors" for number in (1, 2)]
    assert weights[0].read_bytes() != weights[1].read_bytes()

    overall = read_json(run / "summary.json")
    assert list(overall["iterations"]) == ["1", "2"]
    assert list(overall["gains"]) == TASKS
    assert all(found["difference"]["n"] == 2 for found in overall["gains"].values())
    table = printed[printed.rindex("mean reward (95 %)") :]
    assert [line.split("  ")[0] for line in table.splitlines()[1:3]] == ["iteration 1", "iteration 2"]
    assert "Scripted players acted in: " + " ".join(TASKS) in printed


@pytest.mark.trainer
@pytest.mark.java
def test_sciworld_is_among_the_environments(finished: tuple[Path, str]) -> None:
    run, _ = finished
    assert read_json(run / "iteration_2/summary.json")["environments"]["sciworld"]["search"]["trees"] == 1


@pytest.mark.trainer
def test_the_same_command_again_repeats_nothing_and_starts_nothing(finished: tuple[Path, str]) -> None:
    run, printed = finished
    before = files(run)
    again = run_all(run, TASKS=" ".join(TASKS))
    assert again.returncode == 0, again.stderr[-2000:]
    assert files(run) == before  # servers' logs too
    assert not [line for line in again.stdout.splitlines() if line.startswith("== ")]
    assert again.stdout.count("# done before: ") == printed.count("\n== ")
    plan = run_all(run, TASKS=" ".join(TASKS), DRY_RUN="1")
    assert plan.returncode == 0, plan.stderr[-2000:]
    assert "# Nothing is left to be done." in plan.stdout
    assert "Estimate" not in plan.stdout


@pytest.mark.trainer
def test_what_is_lost_or_changed_is_done_again_with_all_that_follows(finished: tuple[Path, str]) -> None:
    run, _ = finished
    (run / "iteration_2/webshop/records/webshop_good.manifest.json").unlink()
    try:
        left = run_all(run, TASKS=" ".join(TASKS), DRY_RUN="1", SAMPLE="0")
    finally:
        shutil.copy(
            run / "iteration_1/webshop/records/webshop_good.manifest.json",
            run / "iteration_2/webshop/records/webshop_good.manifest.json",
        )
    assert left.returncode == 0, left.stderr[-2000:]
    commands = [line for line in left.stdout.splitlines() if line.startswith("env ")]
    assert "--data_type good" in commands[0] and "iteration_2/webshop" in commands[0]
    assert sum("scripts/train.sh" in line for line in commands) == 1
    assert sum(" eval.py " in line for line in commands) == len(TASKS)


def test_report_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "iteration_1/webshop").mkdir(parents=True)
    for main, folder in ((stages, tmp_path / "iteration_1"), (iterations, tmp_path)):
        assert main([str(folder), "webshop"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("report: ") and "iteration_1/webshop" in error and error.count("\n") == 1
    assert iterations([str(tmp_path / "nothing"), "webshop"]) == 2


# --- the plan


PAPER = {"ITERATIONS": "3", "EPOCHS": "", "ALPHAS": "", "REHEARSE": "0"}


def test_a_dry_run_prints_a_script_and_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan = run_all(run, TASKS="textcraft webshop", DRY_RUN="1", SAMPLE="0", EVAL_BASE="1", **PAPER)
    assert plan.returncode == 0, plan.stderr[-3000:]
    assert not run.exists()
    script = tmp_path / "plan.sh"
    script.write_text(plan.stdout, encoding="utf-8")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    commands = [line for line in plan.stdout.splitlines() if line.startswith("env ")]
    names = ("mcts_collection.py", "path_collection.py", "scripts/train.sh", "eval.py")
    order = [name for line in commands for name in names if name in line]
    one = [names[0], names[1], names[1]] * 2 + [names[2], names[3], names[3]]
    assert order == [names[3]] * 2 + one * 3
    trained = [line for line in commands if "train.sh" in line]
    assert [line.split("--epochs ")[1].split()[0] for line in trained] == ["3", "1", "1"]
    assert "--model_dir models/tiny_actor " in trained[0]
    assert f"--model_dir {run}/iteration_2/model " in trained[2]
    assert all(
        f"iteration_1/{task}/records/{task}_good.jsonl" in trained[0] for task in ("textcraft", "webshop")
    )
    alphas = [line.split("ALPHA=")[1].split()[0] for line in commands if "path_collection" in line]
    assert alphas == ["0.5"] * 4 + ["0.7"] * 4 + ["1.0"] * 4


def test_a_warm_start_comes_before_the_first_iteration(tmp_path: Path) -> None:
    run, warm = tmp_path / "run", {"STEPS": "warm_start", "WARM_N": "9", "WARM_NOISE": "0.2"}
    plan = run_all(run, TASKS="textcraft webshop", DRY_RUN="1", SAMPLE="0", EVAL_BASE="1", **PAPER | warm)
    assert plan.returncode == 0, plan.stderr[-3000:]
    commands = [line for line in plan.stdout.splitlines() if line.startswith("env ")]
    assert ["--data_type expert" in line for line in commands[:2]] == [True, True]
    assert "--n 9 --task_ids" in commands[0] and commands[0].endswith("--noise 0.2")
    assert "--model_dir models/tiny_actor " in commands[2] and f"{run}/warm_start/model" in commands[2]
    assert all(
        f"MODEL_DIR={run}/warm_start/model MODEL_NAME=tiny_actor-warm" in line for line in commands[3:5]
    )
    trained = [line for line in commands if "train.sh" in line]
    assert f"--model_dir {run}/warm_start/model " in trained[1] and "iteration_1/" in trained[1]
    given = run_all(run, TASKS="textcraft", DRY_RUN="1", SAMPLE="0", WARM_DATA="models", **PAPER | warm)
    assert "--n 9 --input_dir models" in given.stdout


def estimate(run: Path, **variables: str) -> list[str]:
    """The lines of a dry run's estimate over textcraft; it has left nothing behind."""
    sizes = {"DRY_RUN": "1", "SAMPLE": "1", "EVAL_BASE": "1", "TASK_IDS_TEXTCRAFT": "0-2,6,20-23"}
    done = run_all(run, TASKS="textcraft", PLAYER="model", REHEARSE="0", **sizes, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not run.exists()
    lines = done.stdout[done.stdout.index("# Estimate.") :].splitlines()
    assert all(line.startswith("#") for line in lines)
    return lines


@pytest.mark.xdist_group("estimate")
def test_the_estimate_measures_the_model_where_it_can_answer(tmp_path: Path) -> None:
    lines = estimate(tmp_path / "run", DOLLARS_PER_GPU_HOUR="3")
    assert lines[0].endswith("were searched, revised and evaluated by tiny_actor (models/tiny_actor).")
    text = "\n".join(lines)
    measured = re.search(r"textcraft: 1 trees, each (\d+) calls, .*Planned: 8 trees, 198 test tasks", text)
    assert measured
    for name in (
        "TOKENS_PER_SECOND=2000",
        "DOLLARS_PER_GPU_HOUR=3",
        "GPUS=8",
        "TRAIN_TOKENS_PER_SECOND=1500",
    ):
        assert name in text
    parts = [line[2:] for line in lines if line.startswith(("# iteration", "# the starting", "# whole"))]
    assert parts == ["the starting model", "iteration 1", "iteration 2", "whole run"]
    sums = [line.split()[2:] for line in lines if line.startswith("#   sum ")]
    assert len(sums) == 4 and all(len(cells) == 8 for cells in sums)
    assert number(sums[1][0]) >= 8 * int(measured[1])
    assert number(sums[-1][-1]) > 3 * 8 * 2 * 20 / 60  # two iterations' overhead alone


@pytest.mark.xdist_group("estimate")
def test_where_no_model_can_answer_scripted_players_are_measured_and_it_says_so(tmp_path: Path) -> None:
    lines = estimate(tmp_path / "run", MODEL_DIR="nowhere", ENV_SERVER_BASE_TEXTCRAFT="http://127.0.0.1:9")
    assert "by scripted players with slips (chance 0.4 a turn)" in lines[0]
    assert "in place of a model (MODEL_DIR is not on this machine)" in lines[0]
    assert (
        "# ENV_SERVER_BASE_TEXTCRAFT=http://127.0.0.1:9 does not answer: the bundled server is measured."
        in lines
    )
    assert any("environment steps a second" in line for line in lines)


def number(cell: str) -> float:
    sizes = {"k": 1e3, "M": 1e6, "G": 1e9}
    return float(cell.rstrip("kMG").replace(",", "")) * sizes.get(cell[-1], 1)


def test_the_demo_of_another_world_is_one_iteration_with_its_player_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = run_all(run, "demo_scripted", TASK="webshop", DRY_RUN="1", SAMPLE="0")
    assert done.returncode == 0, done.stderr[-3000:]
    commands = [line for line in done.stdout.splitlines() if line.startswith("env ")]
    assert sum("player_result" in line for line in commands) == 1
    assert sum("--verify" in line for line in commands) == 2
    assert sum("train.sh" in line for line in commands) == 1
    wrong = run_all(run, "demo_scripted", TASK="chess")
    assert wrong.returncode == 2
    assert wrong.stderr == "demo_scripted.sh: TASK must be textcraft, sciworld, webshop or multi: 'chess'\n"


# --- its ends


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that the script hands to its program."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "python").write_text("#!/bin/sh\nenv -0\n", encoding="utf-8")
    (folder / "python").chmod(0o755)
    done = run_all(folder / "run", TASKS="textcraft", PYTHON=str(folder / "python"))
    assert done.returncode == 0, done.stderr
    return dict(entry.split("=", 1) for entry in done.stdout.rstrip("\0").split("\0"))


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"TASKS": "chess"}, "TASKS names no known environment: 'chess'"),
        ({"MODEL_DIR": ""}, "MODEL_DIR is not set: the weights to start from"),
        ({"MODEL_DIR": "nowhere"}, "MODEL_DIR is no model folder: 'nowhere'"),
        ({"STEPS": "dance"}, "STEPS must be warm_start or empty: 'dance'"),
        ({"WARM_NOISE": "2"}, "WARM_NOISE must be a number from 0 to 1: '2'"),
        ({"PLAYER": "me"}, "PLAYER must be one of model scripted: 'me'"),
        ({"ITERATIONS": "none"}, "ITERATIONS must be a whole number: 'none'"),
        ({"ALPHAS": "0.5 2"}, "ALPHAS must be numbers from 0 to 1: '2'"),
        ({"EPOCHS": "0"}, "EPOCHS must be at least 1: '0'"),
        ({"TRAIN_CONFIG": "x"}, "TRAIN_CONFIG is no config of xtuner_config/: 'x'"),
        ({"GENERAL_DATA": "nowhere"}, "GENERAL_DATA is no file: 'nowhere'"),
        ({"ITERA": "many"}, "ITERA must be a whole number: 'many'"),
        (
            {"TEST_IDS_TEXTCRAFT": "a-b"},
            "TEST_IDS_TEXTCRAFT must be train, test, a file or a list such as 0-9,31: 'a-b'",
        ),
        (
            {"TASKS": "babyai", "PLAYER": "model"},
            "ENV_SERVER_BASE_BABYAI is not set, and no server of ours plays babyai",
        ),
        ({"DRY_RUN": "1", "GPUS": "0"}, "GPUS must be a number above 0: '0'"),
    ],
)
def test_wrong_variables_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    variables: dict[str, str],
    line: str,
) -> None:
    run = tmp_path / "run"
    found = {**given, "RUN_DIR": str(run), **variables}
    monkeypatch.setattr(program, "variables", lambda: (found, found))
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as error:
        asyncio.run(program.run(AsyncExitStack()))
    assert str(error.value) == line
    assert not run.exists()


def test_a_wrong_variable_is_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = run_all(run, TASKS="textcraft", ITERATIONS="none")
    assert done.returncode == 2
    assert done.stderr == "run_all.sh: ITERATIONS must be a whole number: 'none'\n"
    assert not run.exists()


def in_session(leader: int) -> list[str]:
    """Processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        state, *fields = text.rpartition(")")[2].split()
        if int(fields[2]) == leader and state != "Z":
            found.append(text)
    return found


@contextmanager
def begun(run: Path, until: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a session of its own that has printed a line."""
    with subprocess.Popen(
        ["bash", "scripts/run_all.sh"],
        cwd=ROOT,
        env=environ(run, TASKS="textcraft", EVAL_BASE="0", N_TRAIN="200", ITERA="8"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.strip() == until for line in process.stdout)
        yield process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_everything_that_was_started(tmp_path: Path, sign: int, code: int) -> None:
    with begun(tmp_path / "run", "== iteration_1/textcraft/collect") as process:
        assert len(in_session(process.pid)) > 2  # the script, a server, a player
        process.send_signal(sign)
        process.communicate(timeout=300)
        assert process.returncode == code
        assert in_session(process.pid) == []
