"""Kill stages, servers and workers with -9 at random moments, and compare what is made with an undisturbed run's.

    python -m mcts_utils.bench.soak --kills 100

Each arm is one command with a stub endpoint and a bundled environment server. A round of it is killed at random moments
and started again until it ends. Then every file is compared, and the endpoint's own count of answers tells how many
were paid for twice. Exit code 0: no difference, and no more of those than requests could be in flight at the kills.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcts_utils.bench.killable import Service, free_port, ray_node, worker_processes
from mcts_utils.bench.processes import ROOT, with_variables
from mcts_utils.storage.files import read_json
from mcts_utils.tables import text_row
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import InputError

CONCURRENCY = 4  # requests in flight of one process
PATIENCE = 600.0  # seconds, far more than a run takes
# Times, the load and where it ran: they differ between two undisturbed runs, too.
VOLATILE = set("code_revision seconds this_run ray max_in_flight busy_s in_flight_s concurrency".split())
SETTINGS = {
    **{"TASK": "textcraft", "MODEL_NAME": "textcraft-expert", "CONCURRENCY": str(CONCURRENCY)},
    **{"WORKERS": "4", "ITERA": "2", "N_GEN": "3", "N_ROLLOUT": "3", "MAX_DEPTH": "8"},
}
IDS = "183,187,190,194,195,196"  # goals of some steps: each tree has pairs to be judged
SEARCH = ("mcts_collection.py", "--task_ids", IDS, "--output_dir")
ARMS: dict[str, tuple[str, ...]] = {  # command; the output folder follows
    "search": SEARCH,
    "revise": ("path_collection.py", "--input_dir", "{trees}", "--output_dir"),
    "evaluate": (
        *("eval.py", "--task_ids", "0-7", "--max_steps", "8", "--temperature", "1", "--samples", "2"),
        "--output_dir",
    ),
    "ray": SEARCH,
}


@dataclass
class Row:
    """What happened to one arm."""

    rounds: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    answers: int = 0  # of an undisturbed run
    again: int = 0  # answers beyond those of as many undisturbed runs
    errors: int = 0  # runs that ended by themselves with an exit code other than 0, and were started again
    different: list[str] = field(default_factory=list)

    @property
    def in_flight(self) -> int:
        """Return the most requests that could be in flight at the kills."""
        return CONCURRENCY * sum(self.killed.values())


class Soak:
    """The servers of a run and its arms."""

    def __init__(self, folder: Path, rng: random.Random, latency: float) -> None:
        """Start nothing yet; `latency`: seconds of a request at the endpoint."""
        self.folder, self.rng, self.paid = folder, rng, folder / "paid"
        mock = ["mcts_utils.servers.mock_llm", "--latency", str(latency), "--noise", "0.4"]
        world, ports = ["mcts_utils.servers.textcraft"], [free_port(rng), free_port(rng)]
        self.endpoint = Service(
            "endpoint", [*mock, "--paid", str(self.paid)], ports[0], folder / "endpoint.log"
        )
        self.world = Service("server", world, ports[1], folder / "server.log")
        self.variables = {
            **SETTINGS,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{ports[0]}/v1",
            "ENV_SERVER_BASE": f"http://127.0.0.1:{ports[1]}",
        }
        self.stage: subprocess.Popen[bytes] | None = None  # the command that runs
        self.node: subprocess.Popen[str] | None = None  # of Ray

    @contextmanager
    def servers(self, ray: bool) -> Iterator[None]:
        """Run the servers, and a Ray node if needed, for the length of the block."""
        with ExitStack() as stack:
            stack.callback(self._end_stage)
            for service in (self.endpoint, self.world):
                stack.callback(service.kill)
                service.start()
            if ray:
                self.node, address, access = stack.enter_context(ray_node(self.rng))
                self.variables |= {"RAY_ADDRESS": address, "RAY_WORKERS": "2", **access}
            yield

    def undisturbed(self, arm: str) -> tuple[Path, float, int]:
        """Run an arm once; return its output folder, its seconds, and the number of answers."""
        out, before, began = self.folder / arm, self.answers(), time.monotonic()
        if (code := self._start(arm, out).wait(PATIENCE)) != 0:
            raise InputError(f"{arm} ends with {code} without a kill: {self._log(arm).read_text()[-500:]}")
        return out, time.monotonic() - began, self.answers() - before

    def disturb(self, arm: str, kills: int) -> Row:
        """Run rounds of an arm until it was killed so often; return what happened."""
        reference, seconds, answers = self.undisturbed(arm)
        expected, row = contents(reference), Row(answers=answers)
        while sum(row.killed.values()) < kills:
            out, before = self.folder / f"{arm}_round", self.answers()
            while (code := self._try(arm, out, seconds, kills, row)) != 0:
                row.errors += code > 0
                if row.errors > kills:
                    raise InputError(f"{arm} ends with {code}: {self._log(arm).read_text()[-500:]}")
            row.rounds += 1
            row.again += self.answers() - before - answers
            found = contents(out)
            names = sorted(found.keys() | expected.keys())
            row.different += [name for name in names if found.get(name) != expected.get(name)]
            shutil.rmtree(out)
        return row

    def answers(self) -> int:
        """Return the number of answers that the endpoint has sent so far, kills of its own included."""
        return self.paid.stat().st_size if self.paid.exists() else 0

    def _try(self, arm: str, out: Path, seconds: float, kills: int, row: Row) -> int:
        """Start the command, and kill something at random moments until it ends; return its exit code."""
        process = self._start(arm, out)
        while sum(row.killed.values()) < kills:
            try:
                return process.wait(self.rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                victim = self.rng.choices(("stage", "worker", "server", "endpoint"), (7, 3, 1, 1))[0]
                row.killed[self._kill(arm, victim, process)] += 1
        return process.wait(PATIENCE)

    def _kill(self, arm: str, victim: str, process: subprocess.Popen[bytes]) -> str:
        """Kill the victim and return what it was: the stage where there is no worker."""
        if victim in ("server", "endpoint"):
            service = self.world if victim == "server" else self.endpoint
            service.kill()
            service.start()
            return victim
        workers = worker_processes(self.node.pid) if victim == "worker" and arm == "ray" and self.node else []
        if workers:
            os.kill(self.rng.choice(workers), 9)
            return "worker"
        process.kill()
        process.wait()
        return "stage"

    def _start(self, arm: str, out: Path) -> subprocess.Popen[bytes]:
        executor = "ray" if arm == "ray" else "threads"
        environ = {**self.variables, "EXECUTOR": executor, "END_WITH": str(os.getpid())}
        trees = self.folder / "search" / "textcraft" / SETTINGS["MODEL_NAME"]
        words = [word.format(trees=trees) for word in ARMS[arm]]
        command = [sys.executable, str(ROOT / words[0]), *words[1:], str(out)]
        with self._log(arm).open("wb") as log:
            self.stage = subprocess.Popen(
                with_variables(command, environ), cwd=self.folder, stdout=log, stderr=log
            )
        return self.stage

    def _end_stage(self) -> None:
        if self.stage is not None:
            self.stage.kill()
            self.stage.wait()

    def _log(self, arm: str) -> Path:
        return self.folder / f"{arm}.log"


def contents(folder: Path) -> dict[str, Any]:
    """Return name -> content of each file, hidden ones too; of JSON with times, without those."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        timed = "manifest" in name or path.name.startswith(("summary", "episode"))
        found[name] = stripped(read_json(path)) if timed else path.read_bytes()
        if "manifest" in name:
            hashes = ("sha256", "outputs") if found[name]["stage"] == "eval" else ("sha256",)
            for each in hashes:  # of files with times
                found[name].pop(each)
    return found


def stripped(value: Any) -> Any:
    """Return parsed JSON without the fields VOLATILE."""
    if isinstance(value, Mapping):
        return {name: stripped(each) for name, each in value.items() if name not in VOLATILE}
    return [stripped(each) for each in value] if isinstance(value, list) else value


def table(rows: Mapping[str, Row]) -> str:
    """Return what happened as text."""
    line = text_row(10, 14)
    columns = ("rounds", "kills", "of these", "answers", "paid twice", "in flight <=", "errors", "different")
    lines = [line("arm", columns)]
    for arm, row in rows.items():
        kinds = " ".join(f"{name[:2]}{count}" for name, count in sorted(row.killed.items()))
        answers, killed = row.rounds * row.answers, sum(row.killed.values())
        numbers = (row.rounds, killed, kinds, answers, row.again, row.in_flight)
        lines.append(line(arm, [*map(str, numbers), str(row.errors), str(len(row.different))]))
    return "\n".join([*lines, "of these: stage, worker of Ray, (environment) server, endpoint"])


def run(args: argparse.Namespace) -> int:
    """Kill, compare, print the table; return the exit code."""
    given, rows = args.arms.split(","), {}
    if unknown := set(given) - set(ARMS):
        raise InputError(f"--arms: {unknown.pop()!r} is none of {', '.join(ARMS)}")
    arms = [arm for arm in ARMS if arm in given]  # revise takes the trees of search
    folder = Path(args.output_dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"soak: {args.kills} kills, seed {args.seed}", file=sys.stderr, flush=True)
    soak = Soak(folder, random.Random(args.seed), args.latency)
    with soak.servers(ray="ray" in arms):
        if "search" not in arms and "revise" in arms:
            soak.undisturbed("search")
        for number, arm in enumerate(arms):
            rows[arm] = soak.disturb(arm, args.kills // len(arms) + (number < args.kills % len(arms)))
            print(table({arm: rows[arm]}), file=sys.stderr, flush=True)
    print(table(rows))
    for arm, row in rows.items():
        for name in row.different:
            print(f"{arm}: {name} differs")
    return int(any(row.different or row.again > row.in_flight for row in rows.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    parser = Parser(prog="python -m mcts_utils.bench.soak", description=__doc__)
    add = parser.add_argument
    add("--kills", type=between(1, 1_000_000), default=100, help="kills in all, spread over the arms")
    drawn = random.SystemRandom().randrange(10**6)
    add("--seed", type=between(0, 2**32 - 1), default=drawn, help="of moments and victims")
    add("--arms", default=",".join(ARMS), help="of these, separated by commas")
    add("--latency", type=between(0, 3600, float), default=0.1, help="seconds of a request at the endpoint")
    add("--output_dir", default="runs/soak")
    return run_command("soak", lambda: run(parser.parse_args(argv)), "stopped")


if __name__ == "__main__":
    sys.exit(main())
