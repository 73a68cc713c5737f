"""Run scripts/run_all.sh: iterations over several environments, one model trained on the records of all of them.

The steps run one after the other; with DRY_RUN=1 they are printed as a script, and estimated.
"""

from __future__ import annotations

import re
import sys
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path

from mcts_utils.config import settings_from_env, without_password
from mcts_utils.envs.specs import names
from mcts_utils.pipeline.estimate import RATES, bundled, demo_ids, print_estimate
from mcts_utils.pipeline.processes import Variables, check, run_script, variables
from mcts_utils.pipeline.stages import Stages, World
from mcts_utils.pipeline.steps import HEAD, SCRIPT, Runner, quoted
from mcts_utils.servers.yours.source import SourceError, is_source
from mcts_utils.training.preflight import default_config
from mcts_utils.training.settings import CONFIGS, FULL
from mcts_utils.types import InputError

# Of the variables that may stand in .env; those of the script alone have their defaults there.
DEFAULTS = {
    **{"SEED": "0", "SERVE_TIMEOUT": "1800"},
    **dict.fromkeys(("MODEL_DIR", "MODEL_NAME", "OPENAI_BASE_URL", "MAX_DEPTH"), ""),
}
COUNTS = "ITERATIONS EPOCHS EVAL_STEPS N_TRAIN N_TEST SERVE_TIMEOUT WARM_N WARM_EPOCHS"
RULES = (
    ("DRY_RUN EVAL_BASE EVAL_PLAYER VERIFY REHEARSE REVISE", "[01]", "be one of 0 1"),
    ("PLAYER", "model|scripted", "be one of model scripted"),
    ("STEPS", "warm_start", "be warm_start or empty"),
    ("WARM_NOISE NOISE ETA", r"0|0?\.[0-9]+|1|1\.0+", "be a number from 0 to 1"),
    ("ALPHAS", r"0|0?\.[0-9]+|1|1\.0+", "be numbers from 0 to 1"),
    (COUNTS, "[0-9]+", "be a whole number"),
    (COUNTS, ".*[1-9].*", "be at least 1"),
    ("EVAL_TASKS SAMPLE SERVE_PORT SEED", "[0-9]+", "be a whole number"),
    (f"{COUNTS} EVAL_TASKS SAMPLE SERVE_PORT", "[0-9]{1,6}", "be below 1000000"),
)
IDS = re.compile(r"train|test|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
# Of what the stages and scripts read by themselves: what stands in the commands, and what says where and how fast the
# work is done, not what is done.
IN_COMMANDS = re.compile(r"TASK|ENV_SERVER_BASE|MODEL_.*|OPENAI_.*|MAX_DEPTH|ALPHA|PROMPT|SEED")
# What is shown and limited.
LIVE = "TOKEN_PRICE|PRICES|MAX_TOKENS_TOTAL|MAX_COST|MAX_HOURS|TENSORBOARD_DIR|WANDB_PROJECT"
OF_SCRIPTS = ("SERVE", "SERVE_TIMEOUT", "TENSOR_PARALLEL", "NPROC_PER_NODE", "XTUNER_PYTHON")
WHERE = re.compile(rf"(CONCURRENCY|WORKERS|EXECUTOR|RAY_[A-Z_]*|{LIVE}|{'|'.join(OF_SCRIPTS)})=")


def read_stages(env: Variables) -> Stages:
    """Return the steps of the run that the variables ask for; raise InputError naming a wrong one."""
    check(env, *RULES)
    model, general, config = env["MODEL_DIR"], env["GENERAL_DATA"], env["TRAIN_CONFIG"]
    here = Path(model, "config.json").is_file()
    if not config:
        config = default_config(Path(model)).name if here else FULL.name
        env = {**env, "TRAIN_CONFIG": config}
    if not env["TASKS"].split():
        raise InputError(f"TASKS names no environment: '{env['TASKS']}'")
    if config not in CONFIGS:
        raise InputError(f"TRAIN_CONFIG is no config of xtuner_config/: '{config}'")
    if env["WARM_DATA"] and not Path(env["WARM_DATA"]).exists():
        raise InputError(f"WARM_DATA is no file or folder: '{env['WARM_DATA']}'")
    if general and not Path(general).is_file():
        raise InputError(f"GENERAL_DATA is no file: '{general}'")
    if not model:
        raise InputError("MODEL_DIR is not set: the weights to start from")
    if not here and env["DRY_RUN"] == "0":
        raise InputError(f"MODEL_DIR is no model folder: '{model}'")
    worlds = tuple(read_world(task, env) for task in env["TASKS"].split())
    stage = settings_from_env({**env, "MODEL_DIR": model if here else ""})  # checks what the stages read
    return Stages(env, worlds, stage.prompt)


def read_world(task: str, env: Variables) -> World:
    """Return an environment of the run; raise InputError if it cannot be played or a variable of it is wrong."""
    own = is_source(task)
    try:
        label = World(task, "", "", "", "").label.upper()
    except SourceError as error:
        raise InputError(f"TASKS {error}") from None
    asked = [f"{name}_{label}" for name in ("ENV_SERVER_BASE", "TASK_IDS", "TEST_IDS")]
    address, train, test = (env.get(name, "") for name in asked)
    if task not in names() and not own:
        raise InputError(f"TASKS names no known environment: '{task}'")
    if env["PLAYER"] == "scripted" and (address or not bundled(task)):
        raise InputError(
            f"PLAYER=scripted plays on the bundled servers only: {task}, {asked[0]}='{without_password(address)}'"
        )
    if not address and not bundled(task):
        raise InputError(f"{asked[0]} is not set, and no server of ours plays {task}")
    for name, ids in ((asked[1], train), (asked[2], test)):
        if ids and not IDS.fullmatch(ids) and not Path(ids).is_file():
            raise InputError(f"{name} must be train, test, a file or a list such as 0-9,31: '{ids}'")
    usual = ("train", "test")
    if env["PLAYER"] == "scripted" and not own:
        usual = demo_ids(task, int(env["N_TRAIN"]), int(env["N_TEST"]))
    first = ",".join(usual[1].split(",")[: int(env["EVAL_TASKS"]) or None])
    return World(task, address, train or usual[0], test or first, test or usual[1])


def exported(shell: Variables) -> list[str]:
    """Return NAME=VALUE of what the shell sets for the stages, and for the scripts that a run calls."""
    named = re.findall(r"^([A-Z_]+)=", Path(".env.example").read_text(), re.MULTILINE)
    named = [name for name in (*named, *OF_SCRIPTS) if not IN_COMMANDS.fullmatch(name)]
    return [f"{name}={shell[name]}" for name in named if shell.get(name)]


def fingerprint(shell: Variables) -> str:
    """Return a hash of what no command shows: who plays, and what the stages read by themselves."""
    text = "\n".join([f"{shell['PLAYER']} {shell['NOISE']}", *exported(shell)]) + "\n"
    text += Path(".env").read_text() if Path(".env").is_file() else ""
    kept = [line for line in text.removesuffix("\n").split("\n") if not WHERE.match(line)]
    return sha256("\n".join((*kept, "")).encode()).hexdigest()


async def run_iterations(stages: Stages, runner: Runner) -> None:
    """Run (or print) all steps, and after each iteration its table."""
    env, report = stages.env, (stages.env["PYTHON"], "-m", "mcts_utils.report.runs.iteration")
    tasks = [world.task for world in stages.worlds]
    for step in stages.warm_start() if stages.warm else ():
        await runner.step(step)
    for world in stages.worlds * int(env["EVAL_BASE"]):
        await runner.step(stages.step("evaluate", "iteration_0", world, 0, ids=world.test))
    for k in range(1, int(env["ITERATIONS"]) + 1):
        alpha, epochs = stages.nth("ALPHAS", k), stages.nth("EPOCHS", k)
        start = f"alpha {alpha}, epochs {epochs}, from {stages.weights(k - 1)}"
        print(f"# iteration {k} of {env['ITERATIONS']}: {start}")
        for step in stages.iteration(k):
            await runner.step(step)
        await runner.command(*report, f"{env['RUN_DIR']}/iteration_{k}", *tasks)
    await runner.command(*report[:2], f"{report[2]}s", env["RUN_DIR"], *tasks)
    await runner.command(*report[:2], "mcts_utils.report", "view", env["RUN_DIR"])
    await runner.command(*report[:2], "mcts_utils", "verify", env["RUN_DIR"])


async def run(servers: AsyncExitStack) -> int:
    """Run or print everything and return the exit code."""
    shell, env = variables()
    env = {**env, **{name: env.get(name) or default for name, default in DEFAULTS.items()}}
    stages, tasks, logs = read_stages(env), env["TASKS"], f"{env['RUN_DIR']}/logs"
    urls = {world.variable: world.address for world in stages.worlds if world.address}
    scripted, dry = env["PLAYER"] == "scripted", env["DRY_RUN"] == "1"
    runner = Runner(env["RUN_DIR"], fingerprint(shell), urls, servers, dry)
    if dry:
        check(env, RATES)
    if scripted:
        how = f"(slips with chance {env['NOISE']} a turn) search and judge in: {tasks}"
        print(f"# Scripted players {how}. What is trained and evaluated is a model.")
    if not dry:
        Path(logs).mkdir(parents=True, exist_ok=True)
        await run_iterations(stages, runner)
        if scripted:
            note = "The figures show that the stages work there; they say nothing about a model's skill."
            print(f"Scripted players acted in: {tasks}. {note}")
        return 0
    how = "in order; none of them was run. Saved to a file, this is a script that does the same"
    print(f"# Every command of this run, {how}.")
    print(HEAD % quoted(env["PYTHON"]), quoted("cd", str(Path.cwd())), quoted("mkdir", "-p", logs), sep="\n")
    if given := [*exported(shell), *(f"{name}={url}" for name, url in urls.items())]:
        print(quoted("export", *given))
    await run_iterations(stages, runner)
    if runner.chain:
        print("# Nothing is left to be done.")
    elif env["SAMPLE"] != "0":
        await print_estimate(stages)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, run))
