"""Run scripts/experiment.sh or real_model.sh: cells (arms.py), as many at once as there are lanes, then the reports.

A cell that fails stops only those that need it; the same command tries it again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import STDOUT

from mcts_utils.pipeline.arms import OWN_TREES, Experiment, script_of
from mcts_utils.pipeline.processes import Failed, run, run_script, start, variables
from mcts_utils.pipeline.steps import quoted
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.storage.files import write_json


async def run_cell(experiment: Experiment, name: str, server: str) -> bool:
    """Run a cell's commands with their output in its log, print how it ended, and return True if it is done."""
    print(f"{time.strftime('%H:%M:%S')} begins {name}")
    log = Path(experiment.run, "logs", f"{name}.log")
    with log.open("ab") as out:
        for words in experiment.cell(name).commands:
            if code := await run(("env", f"ENV_SERVER_BASE={server}", *words), out, STDOUT):
                last = "".join(log.read_text(errors="replace").splitlines()[-1:])
                print(f"{experiment.script}: {name} failed (exit code {code}): {last}", file=sys.stderr)
                return False
    Path(experiment.run, "done", name).write_text(experiment.cell(name).stamp)
    print(f"{time.strftime('%H:%M:%S')} done   {name}")
    return True


async def run_cells(experiment: Experiment, servers: AsyncExitStack) -> str:
    """Run the cells that are not done, as many at once as there are lanes; return what went wrong, or ""."""
    waiting = [name for name in experiment.cells() if not experiment.is_done(name)]
    failed: list[str] = []
    running: dict[asyncio.Task[bool], str] = {}
    words, url = (experiment.env["PYTHON"], "-m", "mcts_utils.servers.textcraft", "--port", "0"), ""
    if waiting:
        url, _ = await start(words, f"{experiment.run}/server.log", 60, servers)
    async with asyncio.TaskGroup() as lanes:
        while True:
            for name in list(waiting):
                ready = all(map(experiment.is_done, experiment.cell(name).needs))
                if ready and len(running) < int(experiment.env["LANES"]):
                    waiting.remove(name)
                    running[lanes.create_task(run_cell(experiment, name, url))] = name
            if not running:
                break
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            failed += [name for task in ended if (name := running.pop(task)) and not task.result()]
    return f"failed: {' '.join(failed)}; not begun: {' '.join(waiting)}" if failed or waiting else ""


def reports(experiment: Experiment) -> Iterator[list[str]]:
    """Yield the reports' commands: tables, the judge against oracles, training data, search and baselines."""
    base, results = [experiment.env["PYTHON"], "-m"], experiment.env["RESULTS"]
    seeds = [Path(experiment.run, f"seed_{seed}") for seed in experiment.seeds]
    yield [*base, "mcts_utils.report.experiment", experiment.run, "--output", results]
    # Further verdicts, half on good paths.
    asked = ["--judge", "200", "--asked", f"{experiment.run}/judge_asked"]
    judges = [("agent_r", 1, "judge_1", asked)] if experiment.env["REVISE"] == "1" else []
    for i in range(2, experiment.iterations + 1) if judges else ():
        judges += [("agent_r", i, f"judge_{i}", []), ("agent_r_rehearsal", i, f"judge_rehearsal_{i}", [])]
    for arm, i, name, flags in judges:
        folders = [seed / arm / f"iteration_{i}" for seed in seeds]
        folders = [folder for folder in folders if (folder / "model/manifest.json").is_file()]
        if folders:
            places = [folder.parents[1] / "shared" if i == 1 else folder for folder in folders]
            trees = ["--trees", *(f"{place}/{experiment.trees}" for place in places)]
            verdicts = ["--verdicts", *(f"{folder}/records" for folder in folders), *flags]
            judge = ["env", f"MODEL_DIR={experiment.env['BASE_MODEL']}", *base, "mcts_utils.report.judge"]
            yield [*judge, *trees, *verdicts, "--output", f"{results}/{name}.json"]
    if data := [f"{seed}/agent_r" for seed in seeds if (seed / "agent_r").is_dir()]:
        yield [*base, "mcts_utils.report.data", *data, "--output", f"{results}/data.json"]
    first = ("shared", *(f"{arm}/iteration_1" for arm in OWN_TREES))
    for seed in seeds:
        places = [seed / place / experiment.trees for place in first]
        found = [str(place) for place in places if (place / "manifest.json").is_file()]
        if len(found) > 1:
            output = ("--output", f"{results}/budget_{seed.name}.json")
            yield [*base, "mcts_utils.report.budget", *found, *output]


async def run_experiment(servers: AsyncExitStack) -> int:
    """Run all that is left, then the reports (or these alone), and return the exit code."""
    env, _ = variables()
    experiment, wrong = Experiment(env), ""
    if env["DRY_RUN"] == "1":
        for name in filter(lambda name: not experiment.is_done(name), experiment.cells()):
            print(f"# {name}", *(quoted(*words) for words in experiment.cell(name).commands), sep="\n")
        return 0
    if env.get("REPORT") != "1":
        for folder in ("logs", "done"):
            Path(experiment.run, folder).mkdir(parents=True, exist_ok=True)
        write_json(f"{experiment.run}/arms.json", experiment.plan())
        # Every SHARE-th training goal, in each iteration other ones.
        for i in range(1, experiment.iterations + 1):
            goals = load_world().split()["train"][(i - 1) % int(env["SHARE"]) :: int(env["SHARE"])]
            Path(experiment.run, f"tasks_{i}.txt").write_text(",".join(map(str, goals)) + "\n")
        wrong = await run_cells(experiment, servers)
    for words in reports(experiment):
        if code := await run(words):
            raise Failed("", code)  # it said why
    if wrong:
        raise Failed(wrong, 1)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(script_of(variables()[0]), run_experiment))
