"""Run stages 1 and 2 over thousands of small trees and sample what their processes hold: memory, files, threads.

The goals of TextCraft come again under higher indices, so there are as many tasks as are asked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mcts_utils.bench.processes import ROOT, ServerProcess, with_variables
from mcts_utils.bench.scenarios import MODEL, TASK, EndpointLoad, SearchSize, testbed
from mcts_utils.bench.table import Figures
from mcts_utils.storage.layout import tree_folder
from mcts_utils.tables import text_row
from mcts_utils.types import InputError

SIZE = SearchSize(10_000, itera=1, n_rollout=2, n_gen=2, max_depth=6)
LOAD = EndpointLoad(slots=64, latency=0.0, concurrency="16", noise=0.4)
WORKERS = 8  # trees at once
DONE = re.compile(r": (\d+)/(\d+) tree")  # of the lines that a stage prints without a terminal
COLUMNS = ("stage", "trees", "ms/tree", "CPU ms", "RSS MB", "files", "threads", "chat MB", "env MB")
SAMPLES = 20  # rows of each stage's table, about


def long_run(trees: int, folder: Path) -> Figures:
    """Return the samples of both stages: about SAMPLES rows of COLUMNS each."""
    folder.mkdir(parents=True, exist_ok=True)
    with testbed(LOAD, folder) as servers:
        train, goals = servers.env.get("/split")["train"], servers.env.get("/about")["goals"]
        ids = [train[i % len(train)] + i // len(train) * goals for i in range(trees)]
        (folder / "ids.txt").write_text(",".join(map(str, ids)), encoding="utf-8")
        variables = servers.variables(SIZE) | {"WORKERS": str(WORKERS)}
        held, every = (servers.chat, servers.env), max(1, trees // SAMPLES)
        search = ["mcts_collection.py", "--task_ids", "ids.txt", "--output_dir", "mcts_result"]
        found = {"search": list(sampled(search, variables, folder, held, every))}
        made = tree_folder("mcts_result", TASK, MODEL)
        revise = ["path_collection.py", "--input_dir", str(made), "--output_dir", "records"]
        found["revision"] = list(sampled(revise, variables, folder, held, every))
    return found


def sampled(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    servers: Sequence[ServerProcess],
    every: int,
) -> Iterator[list[float]]:
    """Run a script; yield a row after each `every` trees or more: their number, time a tree, what is held.

    Raises:
        InputError: it failed; the message ends with its last line.
    """
    process = subprocess.Popen(
        with_variables([sys.executable, str(ROOT / command[0]), *command[1:]], variables),
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    own = ServerProcess("", process.pid)
    before, since, used, line = 0, time.monotonic(), 0.0, ""
    try:
        for line in process.stderr:
            match = DONE.search(line)
            if match and (done := int(match[1])) - before >= (every if done < int(match[2]) else 1):
                now, cpu, new = time.monotonic(), own.cpu_s() or used, done - before
                times = [round(1000 * spent / new, 1) for spent in (now - since, cpu - used)]
                held = [resident_mb(own.pid), len_of(own.pid, "fd"), len_of(own.pid, "task")]
                yield [done, *times, *held, *(resident_mb(server.pid) for server in servers)]
                before, since, used = done, now, cpu
        if process.wait():
            raise InputError(f"{command[0]} failed with {process.returncode}: {line.strip()[-300:]}")
    finally:
        process.terminate()
        process.wait()


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MiB; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return round(pages * 4096 / 2**20, 1)


def len_of(pid: int, name: str) -> int:
    """Return the number of a process's open files ("fd") or threads ("task"); 0 if it has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/{name}").iterdir())
    except OSError:
        return 0


def long_table(found: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Return the samples as text."""
    row = text_row(10, 9)
    rows = [row(stage, [f"{n:g}" for n in numbers]) for stage, each in found.items() for numbers in each]
    return "\n".join([row(COLUMNS[0], COLUMNS[1:]), *rows])
