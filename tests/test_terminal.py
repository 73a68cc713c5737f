"""Progress: whole lines in a log, a bar on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from itertools import count
from pathlib import Path

import pytest

from mcts_utils import terminal
from mcts_utils.terminal import Parser, deferred_interrupts, run_command
from mcts_utils.types import InputError

ROOT = Path(__file__).resolve().parents[1]
CODE = """
from mcts_utils.terminal import Progress
with Progress(total=2000, desc="search", unit="tree") as bar:
    for i in range(2000):
        bar.update(1)
        if i == 5:
            Progress.write("a message", file=__import__("sys").stderr)
    bar.set_postfix(failed=3, refresh=False)
"""


def test_a_log_gets_whole_lines_and_few_of_them():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr
    assert lines[0].startswith("search: 0/2000 tree, 00:00 elapsed")
    assert "a message" in lines
    assert lines[-1].startswith("search: 2000/2000 tree")
    assert lines[-1].endswith("failed=3")
    assert len(lines) < 6


def test_a_log_shows_the_end_once(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.01)
    with terminal.Progress(total=1, desc="train", unit="it") as bar:
        time.sleep(0.02)  # so that a line is due
        bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    ends = [line for line in lines if line.startswith("train: 1/1 it")]
    assert ends[-1:] == lines[-1:]
    assert len(set(ends)) == len(ends)


def test_a_log_shows_the_time_and_the_live_figures_while_nothing_advances(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.02)
    looks, said, give_up = count(), "", time.monotonic() + 60
    with terminal.Progress(total=2, desc="search", unit="tree") as bar:
        bar.set_postfix(failed=0, refresh=False)
        bar.live = lambda: {"in flight": str(next(looks))}
        while "failed=0, in flight=3" not in said and time.monotonic() < give_up:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert re.search(r"search: 0/2 tree, \d\d:\d\d elapsed, \? left, failed=0, in flight=3\n", said)


def test_a_terminal_gets_a_bar():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert b"\rsearch: 100%" in shown


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("ITERA must be\nat least 1: 0"), 2, "tool: ITERA must be at least 1: 0\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.json"),
            2,
            "tool: x.json: No such file or directory\n",
        ),
        (KeyboardInterrupt(), 130, "tool: stopped\n"),
        (None, 0, ""),
    ],
)
def test_a_command_ends_with_one_line_and_an_exit_code(error, code, line, capsys):
    def work() -> None:
        if error:
            raise error

    assert run_command("tool", work, "stopped") == code
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == bool(line)


def test_a_parsers_errors_are_one_line_too(capsys):
    assert run_command("tool", lambda: len(vars(Parser().parse_args(["--x"])))) == 2
    assert capsys.readouterr().err == "tool: unrecognized arguments: --x\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_what_must_be_whole(number):
    done = []

    def work() -> None:
        with deferred_interrupts():
            signal.raise_signal(number)
            done.append("whole")
        done.append("goes on")

    assert run_command("x", work) == 130
    assert done == ["whole"]


STUCK = """
import time
from concurrent.futures import ThreadPoolExecutor
from mcts_utils import terminal
terminal.WAIT_SECONDS = 0.1
def work():
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(time.sleep, 600)  # a model's slow answer
        print("asks", flush=True)
        asked.result()
terminal.run_command("eval.py", work)
"""


def test_a_wait_after_an_interrupt_is_told_and_a_second_one_ends_it():
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline() == "asks\n"
    process.send_signal(signal.SIGINT)
    assert (
        process.stderr.readline()
        == "eval.py: stopping: waits for the answers in flight; Ctrl-C again ends at once\n"
    )
    time.sleep(terminal.AGAIN_SECONDS)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == ""


def test_an_error_of_the_file_system_is_one_line_that_names_the_file(capsys):
    def work() -> None:
        raise OSError(28, "No space left on device", "out/summary.json")

    assert run_command("eval.py", work) == 2
    assert capsys.readouterr().err == "eval.py: out/summary.json: No space left on device\n"
