"""scripts/demo.sh: which commands run at once, and how it ends if one fails or it is stopped. The stages are stubs."""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Writes down each command's beginning and end. MEET holds patterns of two commands each, which wait for each other's
# beginning; FAIL one of a command that fails; HANG of one that does not end. The server's starter is the real one.
STUB = r"""#!/usr/bin/env bash
case ${2:-} in mcts_utils.pipeline.processes) exec "$REAL_PYTHON" "$@" ;; esac
stay() { while kill -0 "$END_WITH" 2>/dev/null; do sleep 0.05; done; } # as mcts_utils/parent.py
line="$* model=$MODEL_DIR type=${MODEL_TYPE:-} seed=$SEED alpha=$ALPHA"
case $line in
  *servers.textcraft*) echo $$ >"$CALLS.server"; echo "TextCraft server on http://127.0.0.1:9"; stay; exit ;;
  "- model"*) echo 1,3; exit ;;
esac
end() { echo "ends $line" >>"$CALLS"; echo "stopped $1" >&2; exit 130; }
trap 'end "$1"' TERM
echo $$ >>"$CALLS.pids"
echo "begins $line" >>"$CALLS"
echo "${JUDGE_VOTES-unset}|${ACTIONS-unset}|${UCT_C-unset}|$ITERA" >>"$CALLS.settings"
for pair in ${MEET:-}; do
  if [[ $line =~ $pair ]]; then until [ "$(grep -cE "^begins .*($pair)" "$CALLS")" -ge 2 ]; do sleep 0.05; done; fi
done
if [ -n "${FAIL:-}" ] && [[ $line =~ $FAIL ]]; then echo "$1: no luck" >&2; exit 3; fi
if [ -n "${HANG:-}" ] && [[ $line =~ $HANG ]]; then echo "hangs $1"; stay; end "$1"; fi
case $line in *--verify*) echo "$3: rows 2, exact 2" ;; esac
echo "ends $line" >>"$CALLS"
"""
SEARCH, UNTRAINED, TRAINED, AGAIN = (
    "mcts_collection",
    "py.--max_steps.*=before",
    "py.--max_steps.*=after",
    "revise.*=after",
)
AT_ONCE = (
    f"{SEARCH}|{UNTRAINED}",
    "data_type.(centric|good)",
    "train.py|verify.*centric",
    f"{TRAINED}|{AGAIN}",
    "report.view|mcts_utils.verify",
)


@pytest.fixture
def setting(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a demo in tmp_path, with the stub in Python's place."""
    stub = tmp_path / "python"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    names = {"REAL_PYTHON": sys.executable, "PYTHON": str(stub), "CALLS": str(tmp_path / "calls")}
    names |= {"RUN_DIR": str(tmp_path / "run"), "SEED": "7", "TASK": "textcraft"}
    return lambda **more: {**os.environ, **names, **more}


def demo(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "scripts/demo.sh"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)


def check_ended(folder: Path) -> None:
    """Check that nothing of a demo runs any more."""
    for pid in [*(folder / "calls.pids").read_text().split(), (folder / "calls.server").read_text()]:
        try:
            left = os.pidfd_open(int(pid))
        except ProcessLookupError:
            continue
        assert select.select([left], [], [], 30)[0], f"process {pid} has ended"
        os.close(left)


def test_independent_parts_run_at_once_and_after_what_they_read(
    tmp_path: Path, setting: Callable[..., dict[str, str]]
) -> None:
    done = demo(
        setting(MEET=" ".join(AT_ONCE), TRAIN_FLAGS="--lr 0.1", JUDGE_VOTES="3", ACTIONS="tools", ITERA="2")
    )  # in turn, the first would wait for the second
    assert done.returncode == 0, done.stderr
    check_ended(tmp_path)
    # Empty: the default, whatever the shell or .env says. ITERA may be set.
    assert set((tmp_path / "calls.settings").read_text(encoding="utf-8").splitlines()) == {"|||2"}
    made = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    run, base, kinds = tmp_path / "run", "models/tiny_actor", ("centric", "good")

    def place(what: str, pattern: str) -> int:
        found = [i for i, line in enumerate(made) if re.match(f"{what} {pattern}", line)]
        assert len(found) == 1, pattern
        return found[0]

    before, after = (
        [rf"eval.py {mode}.* model={model} type={which}" for mode in ("--max_steps 20 ", "--mode revise ")]
        for which, model in (("before", base), ("after", f"{run}/model"))
    )
    search = rf"mcts_collection.py --task_ids {run}/tasks.txt .* model={base} type= seed=7 alpha=0.5"
    records = [
        rf"path_collection.py --input_dir .* --data_type {kind} --revise 1 model={base}" for kind in kinds
    ]
    verify = [rf"path_collection.py --verify {run}/records/textcraft_{kind}.jsonl" for kind in kinds]
    train = r"xtuner_config/train.py --data \S+_centric.jsonl \S+_good.jsonl .* --epochs 3 --seed 7 --lr 0.1 "
    last = [rf"-m mcts_utils{name} {run}" for name in (".report.runs.round", ".report view", " verify")]
    needs = [(before[0], records[0]), (before[0], before[1]), (train, after[0]), (train, after[1])]
    needs += [(before[1], each) for each in after]  # the panel
    needs += [
        pair
        for kind in records
        for pair in ((search, kind), (kind, train), (kind, verify[0]), (kind, verify[1]))
    ]
    needs += [(kind, later) for kind in records for later in (train, *verify)]
    needs += [(each, last[0]) for each in (*after, *verify)] + [(last[0], last[1]), (last[0], last[2])]
    for earlier, later in needs:
        assert place("ends", earlier) < place("begins", later)
    assert (run / "tasks.txt").read_text() == "1,3\n"
    for kind in kinds:
        assert (
            (run / f"verified_{kind}.txt").read_text().endswith(f"textcraft_{kind}.jsonl: rows 2, exact 2\n")
        )


@pytest.mark.parametrize(
    ("fails", "hangs", "name"),
    [(SEARCH, UNTRAINED, "mcts_collection.py"), (TRAINED, AGAIN, "eval.py")],
)
def test_a_part_that_fails_ends_the_demo_and_the_other_part(
    tmp_path: Path, setting: Callable[..., dict[str, str]], fails: str, hangs: str, name: str
) -> None:
    done = demo(setting(FAIL=fails, HANG=hangs, MEET=f"{fails}|{hangs}"))
    assert done.returncode == 3
    said = (done.stdout + done.stderr).splitlines()
    assert f"{name}: no luck" in said
    assert any(line.startswith("stopped ") for line in said), "the other part could save what it has"
    assert not any("5/5" in line for line in said)
    check_ended(tmp_path)
    assert demo(setting()).returncode == 0, "the same command goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_both_parts(
    tmp_path: Path, setting: Callable[..., dict[str, str]], number: signal.Signals
) -> None:
    environ = setting(HANG=f"{SEARCH}|{UNTRAINED}", MEET=f"{SEARCH}|{UNTRAINED}")
    script = subprocess.Popen(
        ["bash", "scripts/demo.sh"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert script.stdout is not None
    while "beside it, search" not in (line := script.stdout.readline()):
        assert line, "it ended by itself"
    for _ in range(2):
        assert "hangs" in script.stdout.readline()
    script.send_signal(number)
    assert script.wait() == -number
    said = script.stdout.read()  # returns when all that writes there has ended
    assert said.count("stopped ") == 2
    check_ended(tmp_path)
