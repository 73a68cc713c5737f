"""The estimate of a dry run: run the stages on SAMPLE tasks of each environment, say what the whole run will take."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mcts_utils.config import without_password
from mcts_utils.envs.task_ids import choose_ids
from mcts_utils.pipeline.processes import Failed, Variables, run
from mcts_utils.pipeline.stages import Stages
from mcts_utils.pipeline.steps import SCRIPT, Runner
from mcts_utils.servers.yours.source import is_source
from mcts_utils.types import InputError

# Assumed rates: the variables' names in lower case are flags of `python -m mcts_utils.report.cost show`.
RATES = (
    "TOKENS_PER_SECOND PREFILL_TOKENS_PER_SECOND TRAIN_TOKENS_PER_SECOND GPUS DOLLARS_PER_GPU_HOUR OVERHEAD_MINUTES"
    " GENERAL_TOKENS_PER_ROW",
    r"(?=.*[1-9])[0-9]*\.?[0-9]+",
    "be a number above 0",
)
LIGHT_BYTES = 1e9  # without vLLM and a GPU a larger model is not measured


def bundled(task: str) -> bool:
    """Return True if there is a server of ours for an environment."""
    return is_source(task) or Path(f"mcts_utils/servers/{task}").is_dir()


def demo_ids(task: str, train: int, test: int) -> tuple[str, str]:
    """Return so many training and test tasks whose solutions a scripted player knows, as lists."""
    from mcts_utils.servers.demo_tasks import tasks  # which loads the worlds and their libraries

    return ",".join(map(str, tasks(task, "train", train))), ",".join(map(str, tasks(task, "test", test)))


def evenly_spaced(ids: Sequence[int], count: int) -> str:
    """Return `count` of the ids, or all where there are fewer, as a list."""
    count = min(count, len(ids))
    return ",".join(str(ids[place * len(ids) // count]) for place in range(count))


async def print_estimate(whole: Stages) -> None:
    """Print the estimate of a run as comments; what is measured is thrown away."""
    env, why = whole.env, _why_no_model(whole.env)
    actor = f"{whole.name(0)} ({without_password(env['OPENAI_BASE_URL']) or env['MODEL_DIR']})"
    if why:
        actor = f"scripted players with slips (chance {env['NOISE']} a turn), in place of a model ({why});"
        actor += " 4 characters count as a token"
    dead = [world for world in whole.worlds if world.address and not answers(world.address)]
    with TemporaryDirectory() as folder:
        sampled = {**env, "RUN_DIR": folder, "PLAYER": "scripted" if why else "model", "STEPS": ""}
        worlds = tuple(world._replace(address="") if world in dead else world for world in whole.worlds)
        async with AsyncExitStack() as servers:  # they end before their folder goes
            plans = await _measure(replace(whole, env=sampled, worlds=worlds), why, servers)
        words = [env["PYTHON"], "-m", "mcts_utils.report.cost", "show", f"{folder}/sample", "--plan", *plans]
        words += ["--epochs", *(whole.nth("EPOCHS", k) for k in range(1, int(env["ITERATIONS"]) + 1))]
        words += [word for name in RATES[0].split() for word in (f"--{name.lower()}", env[name])]
        words += ["--base", env["EVAL_BASE"], *["--scripted"] * bool(why)]
        words += ["--eta", env["ETA"]] * bool(env["GENERAL_DATA"])
        with open(f"{folder}/estimate", "w+") as printed:
            if code := await run(words, printed):
                raise Failed("", code)  # it said why
            printed.seek(0)
            lines = printed.read().splitlines()
    print(
        f"#\n# Estimate. {env['SAMPLE']} tasks of each environment were searched, revised and evaluated by {actor}."
    )
    for world in dead:
        print(
            f"# {world.variable}={without_password(world.address)} does not answer: the bundled server is measured."
        )
    if whole.warm:
        print("# The warm start is not in it; MODEL_DIR was measured as it is before.")
    print(*(f"# {line}".rstrip() for line in lines), sep="\n")


async def _measure(stages: Stages, why: str, servers: AsyncExitStack) -> list[str]:
    """Run the sample; return TASK:TRAINING TASKS:TEST TASKS of the whole run for each environment."""
    folder, sample, plans = Path(stages.env["RUN_DIR"]), int(stages.env["SAMPLE"]), []
    urls = {world.variable: world.address for world in stages.worlds if world.address and not why}
    runner = Runner(str(folder), "sample", urls, servers)
    (folder / "logs").mkdir()
    with (folder / "logs" / "stages.log").open("w") as runner.out:
        for world in stages.worlds:
            print(f"{SCRIPT}: measuring {sample} tasks of {world.task}", file=sys.stderr)
            if not bundled(world.source) and not world.address:
                raise InputError(
                    f"{world.variable} does not answer, and no server of ours plays {world.task}"
                )
            if not bundled(world.source) and why:
                raise InputError(f"{world.task}: no model answers ({why}), and no scripted player knows it")
            if not world.address:
                await runner.serve(stages.step("verify", "", world, 0).servers[0])
            url = world.address or runner.urls[world.variable]
            found = [choose_ids(world.source, url, ids) for ids in (world.train, world.test)]
            plans.append(":".join([world.task, *(str(len(ids)) for ids in found)]))
            train, test = (evenly_spaced(ids, sample) for ids in found)
            if why and not is_source(world.source):  # a player knows these on the bundled server
                train, test = demo_ids(world.task, sample, sample)
            for step in stages.search_and_revise("sample", world, 0, train, stages.nth("ALPHAS", 1)):
                await runner.step(step)
            await runner.step(stages.step("evaluate", "sample", world, None if why else 0, ids=test))
    return plans


def _why_no_model(env: Variables) -> str:
    """Return why scripted players are measured; empty: the model can answer within reason."""
    model, gpu = Path(env["MODEL_DIR"]), shutil.which("vllm") and shutil.which("nvidia-smi")
    if env["PLAYER"] == "scripted":
        return "PLAYER=scripted"
    if env["OPENAI_BASE_URL"]:
        return "" if answers(env["OPENAI_BASE_URL"]) else "OPENAI_BASE_URL does not answer"
    if not (model / "config.json").is_file():
        return "MODEL_DIR is not on this machine"
    if env.get("SERVE") == "local":
        return ""
    if gpu and not subprocess.run(["nvidia-smi"], capture_output=True).returncode:
        return ""
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    return "MODEL_DIR is over 1 GB and there is no vLLM with a GPU here" if size > LIGHT_BYTES else ""


def answers(url: str) -> bool:
    """Return True if anything answers there, be it an error."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except (OSError, ValueError) as error:
        return isinstance(error, urllib.error.HTTPError)
    return True
