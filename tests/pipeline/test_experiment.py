"""scripts/experiment.sh and real_model.sh: which cells run, in what order, how it ends. The stages are stubs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mcts_utils.pipeline import forecast

ROOT = Path(__file__).resolve().parents[2]
# Writes down its call. The server names an address and stays; FAIL is a pattern of a call that fails, HANG of one that
# does not end. It is bash, so that it needs no start-up time.
STUB = r"""#!/usr/bin/env bash
case ${2:-} in mcts_utils.pipeline.* | *.demo_tasks) exec "$REAL_PYTHON" "$@" ;; esac
line="$* model=$MODEL_DIR type=${MODEL_TYPE:-} seed=${SEED:-} alpha=${ALPHA:-}"
case $line in
  *servers.textcraft*) echo $$ >"$CALLS.server"; echo "TextCraft server on http://127.0.0.1:9"; exec sleep 600 ;;
  *) echo "$line" >>"$CALLS"; echo "${JUDGE_VOTES-unset}|${ACTIONS-unset}|$N_GEN" >>"$CALLS.settings" ;;
esac
folder=$(sed -nE 's/.*--output_dir ([^ ]+).*/\1/p' <<<"$line")
case $line in
  xtuner_config/train.py*) mkdir -p "$folder" && : >"$folder/manifest.json" ;;
  mcts_collection.py*) mkdir -p "$folder/textcraft/tiny_actor" && : >"$folder/textcraft/tiny_actor/manifest.json" ;;
  eval.py\ --mode\ revise*) mkdir -p "$folder/textcraft/tiny_actor_${MODEL_TYPE}_revise" ;;
  eval.py*) mkdir -p "$folder/textcraft/tiny_actor_$MODEL_TYPE" ;;
esac
if [ -n "${HANG:-}" ] && [[ $line =~ $HANG ]]; then
  end() { kill -0 "$(<"$CALLS.server")" && echo "$$ could save" >>"$CALLS.end"; exit 130; }
  trap end TERM
  echo $$ >>"$CALLS.pids"
  while :; do sleep 0.1; done
fi
[ -z "${FAIL:-}" ] || [[ ! $line =~ $FAIL ]] || { echo "no luck with $line"; exit 2; }
"""
SMALL = {
    "SEEDS": "0 1",
    "ITERATIONS": "2",
    "ARMS": "agent_r direct",
    "ABLATIONS": "unverified self rehearsal optimal",
    "CONTROLS": "best_of_n",
    "LANES": "2",
}
OWN_ARMS = ("self", "rehearsal", "optimal")  # of agent_r, two iterations each


@pytest.fixture
def setting(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a run in tmp_path, with the stub in Python's place."""
    stub = tmp_path / "python"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    ours = (
        "SEED",
        "ARMS",
        "ABLATIONS",
        "LANES",
        "ITER",
        "RUN_DIR",
        "RESULTS",
        "REPORT",
        "SHARE",
        "EVAL",
        "TRAIN",
        "MODEL",
        "WARM",
        "ROWS",
        "BASE",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    places = {
        "REAL_PYTHON": sys.executable,
        "RUN_DIR": str(tmp_path / "run"),
        "PYTHON": str(stub),
        "CALLS": str(tmp_path / "calls"),
    }
    places["RESULTS"] = str(tmp_path / "results")
    return lambda **more: kept | places | SMALL | more


def experiment(environ: dict[str, str], script: str = "experiment") -> subprocess.CompletedProcess[str]:
    command = ["bash", f"scripts/{script}.sh"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def test_every_cell_runs_once_after_what_it_needs(
    tmp_path: Path, setting: Callable[..., dict[str, str]]
) -> None:
    environ = setting(JUDGE_VOTES="3", N_GEN="5")
    done = experiment(environ)
    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "calls.settings").read_text(encoding="utf-8").splitlines()) == {"||5"}
    ended = re.findall(r"done +(\S+)", done.stdout)
    wanted = {f"{arm}.{seed}.{i}" for arm in ("agent_r", "direct") for seed in (0, 1) for i in (1, 2)}
    wanted |= {f"{arm}.{seed}.1" for arm in ("agent_r_unverified", "best_of_n") for seed in (0, 1)}
    wanted |= {f"agent_r_{arm}.{seed}.{i}" for arm in OWN_ARMS for seed in (0, 1) for i in (1, 2)}
    wanted |= {"base", "shared.0", "shared.1"}
    assert sorted(ended) == sorted(wanted)
    began = re.findall(r"begins (\S+)", done.stdout)
    order = [line.split()[1:] for line in done.stdout.splitlines()]
    for cell in wanted - {"base", "shared.0", "shared.1"}:
        arm, seed, i = cell.split(".")
        first = f"agent_r.{seed}.1" if arm == "agent_r_self" else f"shared.{seed}"
        need = first if i == "1" else f"{arm}.{seed}.{int(i) - 1}"
        assert order.index(["done", need]) < order.index(["begins", cell])
    assert began.index("agent_r.0.1") < began.index("agent_r_unverified.0.1")

    made = calls(tmp_path)
    searches = [line for line in made if "mcts_collection.py" in line]
    assert len(searches) == 2 + 10 + 2  # one a seed, one a cell of iteration 2, and best_of_n's own
    second = next(line for line in made if "mcts_collection.py" in line and "direct/iteration_2" in line)
    assert "direct/iteration_1/model" in second
    baseline = next(line for line in made if "mcts_collection.py" in line and "seed_1/best_of_n" in line)
    assert "--strategy best_of_n --budget_from" in baseline
    assert "seed_1/shared/mcts_result" in baseline
    records = [line for line in made if "path_collection.py" in line]
    own = [line for line in records if "seed_1/best_of_n/iteration_1/records" in line]
    assert len(own) == 2
    assert all("seed_1/best_of_n/iteration_1/mcts_result" in line for line in own)
    unverified = [line for line in records if "agent_r_unverified" in line]
    assert len(unverified) == 4
    assert all("--verified 0" in line for line in unverified)
    assert not any("--verified" in line for line in records if "agent_r_unverified" not in line)
    shortest = [line for line in records if "--max_per_task 1" in line]
    assert len(shortest) == 4  # of agent_r_optimal the good paths alone, not the revisions
    assert all("/agent_r_optimal/" in line and "--data_type optimal" in line for line in shortest)
    assert {re.search(r"alpha=(\S+)", line)[1] for line in records if "iteration_2" in line} == {"0.7"}  # type: ignore[index]
    training = next(line for line in made if "train.py" in line and "seed_1/direct/iteration_2" in line)
    assert "--epochs 1 --seed 1" in training
    assert "textcraft_direct.jsonl" in training
    assert "textcraft_good.jsonl" in training
    evaluations = [line for line in made if line.startswith("eval.py")]
    assert len(evaluations) == 2 * (len(wanted) - 2 - 2)  # searches evaluate nothing, copies nothing anew
    assert (tmp_path / "run/test_result/textcraft/tiny_actor_agent_r_self_s1_i1_revise").is_dir()
    judges = {
        arm: {re.search(r"model=(\S+)", line)[1] for line in records if f"/{arm}/iteration_2/" in line}  # type: ignore[index]
        for arm in ("agent_r", "agent_r_self")
    }
    assert judges["agent_r"] == {"models/tiny_actor"}  # the untrained actor
    assert {Path(model).parent.parent.name for model in judges["agent_r_self"]} == {"agent_r_self"}
    reports = [line for line in made if line.startswith("-m")]
    names = ["experiment", *["judge"] * 3, "data", *["budget"] * 2]
    assert [line.split()[1] for line in reports] == [f"mcts_utils.report.{name}" for name in names]
    trees = [re.findall(r"(seed_\d/\S+)/mcts_result", line) for line in reports]
    assert trees[1:4] == [
        ["seed_0/shared", "seed_1/shared"],
        ["seed_0/agent_r/iteration_2", "seed_1/agent_r/iteration_2"],
        ["seed_0/agent_r_rehearsal/iteration_2", "seed_1/agent_r_rehearsal/iteration_2"],
    ]
    assert [re.search(r"results/(\S+)", line)[1] for line in reports[1:]] == [  # type: ignore[index]
        *("judge_1.json", "judge_2.json", "judge_rehearsal_2.json", "data.json"),
        *("budget_seed_0.json", "budget_seed_1.json"),
    ]
    assert trees[5:] == [[f"seed_{seed}/shared", f"seed_{seed}/best_of_n/iteration_1"] for seed in (0, 1)]
    plan = json.loads((tmp_path / "run" / "arms.json").read_text(encoding="utf-8"))
    assert plan["arms"]["agent_r_unverified"] == {
        "data": [["centric", "--verified 0"], ["good", "--verified 0"]],
        "config": "tiny_actor",
        "iterations": 1,
        "from": "",
    }
    assert plan["arms"]["agent_r_self"]["from"] == "agent_r"
    assert plan["arms"]["agent_r_optimal"]["data"] == [["centric", ""], ["optimal", "--max_per_task 1"]]

    experiment(environ)
    assert calls(tmp_path) == reports  # and nothing else
    experiment(setting(EVAL_STEPS="9"))  # other settings: the stages are asked again what they keep
    assert any("--max_steps 9" in line for line in calls(tmp_path))


def test_a_failed_cell_stops_only_what_needs_it_and_is_tried_again(
    tmp_path: Path, setting: Callable[..., dict[str, str]]
) -> None:
    done = experiment(setting(FAIL=r"train.py.*seed_0/direct/iteration_1"))
    assert done.returncode == 1
    assert "direct.0.1 failed (exit code 2): no luck with xtuner_config/train.py" in done.stderr
    assert "failed: direct.0.1; not begun: direct.0.2" in done.stderr
    assert "done   direct.1.2" in done.stdout
    calls(tmp_path)
    done = experiment(setting())
    assert done.returncode == 0, done.stderr
    assert re.findall(r"begins (\S+)", done.stdout) == ["direct.0.1", "direct.0.2"]


REAL = {
    "BASE_MODEL": "models/tiny_actor",
    "DEVICE": "cuda",
    "WORLDS": "",
    "SEEDS": "0",
    "ABLATIONS": "",
    "CONTROLS": "",
}


def test_a_real_model_begins_with_a_warm_start_and_its_arms_have_equal_rows(
    tmp_path: Path, setting: Callable[..., dict[str, str]]
) -> None:
    environ = setting(**REAL, ARMS="agent_r optimal_good", ROWS="20", WARM_N="7", ACTIONS="tools", N_GEN="5")
    plan = experiment(environ | {"DRY_RUN": "1"}, "real_model")
    assert plan.returncode == 0, plan.stderr
    assert re.search(r"^# all +\d+:\d\d$", plan.stdout, re.MULTILINE)
    assert not (tmp_path / "run").exists() and not calls(tmp_path)
    planned = re.findall(r"^# (\S+\.\d\.\d|base|shared\.0)$", plan.stdout, re.MULTILINE)

    done = experiment(environ, "real_model")
    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "calls.settings").read_text(encoding="utf-8").splitlines()) == {"||5"}
    order = re.findall(r"begins (\S+)", done.stdout)
    assert sorted(order) == sorted(planned)
    assert order[:3] == ["base", "warm_start.0.1", "shared.0"]
    made = calls(tmp_path)
    (cloned,) = [line for line in made if "--data_type expert" in line]
    assert "--n 7 --noise 0.2" in cloned and "warm_start/iteration_1/records" in cloned
    warm = "seed_0/warm_start/iteration_1/model"
    started = [
        line for line in made if "train.py" in line and f"--model_dir {tmp_path}/run/arms/{warm}" in line
    ]
    arms = {re.search(r"seed_0/(\w+)/iteration_1/model --epochs", line)[1] for line in started}  # type: ignore[index]
    assert arms == {"agent_r", "optimal_good"}
    assert all(warm in line for line in made if "mcts_collection.py" in line and "/shared/" in line)
    revised = "\n".join(line for line in made if "--revise 0" in line)
    rows = set(re.findall(r"--data_type (\w+).* --n (\d+)", revised))
    assert rows == {("centric", "10"), ("good", "10"), ("good", "20")}
    assert not any("--mode revise" in line for line in made)
    asked = json.loads((tmp_path / "run/arms/arms.json").read_text(encoding="utf-8"))
    assert (asked["model"], list(asked["arms"])) == ("tiny_actor", ["warm_start", "agent_r", "optimal_good"])
    assert [line for line in made if "mcts_utils.report.experiment" in line]
    assert experiment(environ, "real_model").returncode == 0
    assert not any("train.py" in line for line in calls(tmp_path))


def test_without_arms_only_the_second_part_is_planned(setting: Callable[..., dict[str, str]]) -> None:
    environ = setting(**REAL) | {"ARMS": "", "WORLDS": "webshop", "DRY_RUN": "1"}
    plan = experiment(environ, "real_model")
    assert plan.returncode == 0, plan.stderr
    (webshop,) = re.findall(r"^# webshop +(\S.*)$", plan.stdout, re.MULTILINE)
    assert re.findall(r"^# all +(\S.*)$", plan.stdout, re.MULTILINE) == [webshop]
    assert "TASK=webshop" in plan.stdout
    assert "TASK=textcraft" not in plan.stdout


def test_the_forecast_measures_the_model_here() -> None:
    replied, read, trained = forecast.measured({"BASE_MODEL": REAL["BASE_MODEL"], "TASK": "textcraft"})
    # Prompt tokens are computed many at once, replies one after the other.
    assert 0 < 2 * replied < read
    assert trained == forecast.TRAINED * read


def test_a_stopped_run_leaves_no_process_behind(
    tmp_path: Path, setting: Callable[..., dict[str, str]]
) -> None:
    os.mkfifo(tmp_path / "calls.pids")
    with open(os.open(tmp_path / "calls.pids", os.O_RDWR)) as begun:
        process = subprocess.Popen(
            ["bash", "scripts/experiment.sh"],
            cwd=ROOT,
            env=setting(HANG="train.py"),
            stdout=subprocess.DEVNULL,
        )
        pids = [int(begun.readline()), int(begun.readline())]  # both lanes
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    saved = (tmp_path / "calls.end").read_text(encoding="utf-8").splitlines()
    assert sorted(saved) == sorted(f"{pid} could save" for pid in pids)  # work ends before its server
    for pid in [*pids, int((tmp_path / "calls.server").read_text(encoding="utf-8"))]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"SEEDS": "0 one"}, "experiment.sh: SEEDS must be whole numbers below 1000000000: 'one'"),
        ({"ARMS": "agent_r magic"}, "experiment.sh: no such arm: 'magic'"),
        ({"LANES": "0"}, "experiment.sh: LANES must be a whole number between 1 and 999999: '0'"),
    ],
)
def test_a_bad_setting_is_one_line(
    tmp_path: Path, setting: Callable[..., dict[str, str]], variables: dict[str, str], line: str
) -> None:
    done = experiment(setting(**variables))
    assert (done.returncode, done.stderr.strip()) == (2, line)
    assert not calls(tmp_path)
