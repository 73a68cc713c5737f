"""Print how long scripts/real_model.sh will take: here, at rates that are measured first, and on one GPU.

    python -m mcts_utils.pipeline.forecast

The amounts are arithmetic over the script's variables and rough sizes of turns and rows; read the hours as an order of
magnitude. A dry run of run_all.sh measures a sample instead (estimate.py).
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

from mcts_utils.actors.local import local_actor
from mcts_utils.config import settings_from_env
from mcts_utils.envs.task_ids import parse_ids
from mcts_utils.pipeline.arms import Experiment
from mcts_utils.pipeline.processes import Variables, run_script, variables
from mcts_utils.types import Message

# Tokens: of a reply, of an observation, of the prompt with the opening, of a training row.
REPLY, OPENING = 30, 450
SEEN = {"textcraft": 15, "webshop": 350, "sciworld": 60}
ROW = {"textcraft": 600, "webshop": 3000, "sciworld": 1100}
TESTS = {"sciworld": 12}  # all that the demo's split has
TEXTCRAFT = "textcraft"
ROWS_OF_A_TASK = 2
FILLED = 0.7  # share of MAX_DEPTH that a rollout takes
CONVERSATIONS, NEW = 8, 24  # of the measurement: requests at once, tokens of each
TRAINED = 0.25  # trained tokens a second on a CPU, as a share of the prompt tokens a second
GPU = (3000.0, 60_000.0, 15_000.0)  # assumed for one GPU and 135 M parameters
START = 120.0  # seconds to load, convert and start what one more trained model needs
Work = tuple[float, float, float, float]  # tokens: replied, of prompts, trained; seconds of starts


def turns(task: str, count: float, episodes: float) -> Work:
    """Return the work of so many turns in so many episodes, whose earlier turns are cached."""
    return count * REPLY, count * SEEN[task] + episodes * OPENING, 0.0, 0.0


def total(*parts: Work) -> Work:
    """Return the sum of some work."""
    replied, prompts, trained, starts = (sum(column) for column in zip(*parts, strict=True))
    return replied, prompts, trained, starts


def training(rows: float, task: str, models: int) -> Work:
    """Return the work of training some models on `rows` rows in all, with their epochs."""
    return 0.0, 0.0, float(rows * ROW[task]), models * START


def search(env: Variables, task: str, tasks: int) -> Work:
    """Return the work of a search of some tasks."""
    rollouts = tasks * int(env["ITERA"]) * int(env["N_ROLLOUT"])
    candidates = tasks * int(env["ITERA"]) * int(env["N_GEN"])
    return turns(task, rollouts * int(env["MAX_DEPTH"]) * FILLED + candidates, tasks)


def parts(env: Variables) -> dict[str, Work]:
    """Return part of the run -> its work."""
    found = of_arms(env) if env["ARMS"] else {}
    for tasks in filter(None, env["WORLDS"].split(";")):
        trained = int(env["WORLD_WARM"]) * int(env["WARM_EPOCHS"]) + 3 * ROWS_OF_A_TASK * int(env["N_TRAIN"])
        found[tasks] = total(*(one_iteration(env, task, trained) for task in tasks.split()))
    return found


def of_arms(env: Variables) -> dict[str, Work]:
    """Return part of the experiment on TextCraft -> its work."""
    experiment = Experiment({"RUN_DIR": "", **env})
    seeds, arms, last = len(experiment.seeds), len(experiment.arms), experiment.iterations
    goals, warm, rows = len(parse_ids(env["EVAL_IDS"])), int(env["WARM_N"]), int(env["ROWS"])
    evaluation = turns(TEXTCRAFT, goals * int(env["EVAL_STEPS"]), goals)
    warm_rows = warm * int(env["WARM_EPOCHS"])
    searches = seeds * (1 + arms * (last - 1))  # the arms of a seed share the first
    return {
        "untrained": evaluation,
        "warm start": total(*[evaluation, training(warm_rows, TEXTCRAFT, 1)] * seeds),
        "search": total(*[search(env, TEXTCRAFT, 350 // int(env["SHARE"]))] * searches),
        "training": training(seeds * arms * (3 + last - 1) * rows, TEXTCRAFT, seeds * arms * last),
        "evaluation": total(*[evaluation] * (seeds * arms * last)),
    }


def one_iteration(env: Variables, task: str, rows: int) -> Work:
    """Return the work of an environment in one iteration of run_all.sh, which trains on `rows`, with its epochs."""
    tests = 2 * min(int(env["N_TEST"]), TESTS.get(task, 10**6))  # before and after it
    played = turns(task, tests * int(env["WORLD_STEPS"]), tests)
    return total(played, search(env, task, int(env["N_TRAIN"])), training(rows, task, 1))


def measured(env: Variables) -> tuple[float, float, float]:
    """Return the tokens a second of MODEL_DIR here: replied and of prompts measured, trained by TRAINED."""
    settings = settings_from_env({**env, "OPENAI_BASE_URL": "", "MODEL_DIR": env["BASE_MODEL"]})
    how = settings.chat_template, settings.number_format, settings.cache_gb
    with closing(local_actor(settings.model_dir, NEW, CONVERSATIONS, *how)) as actor:

        def rate(kind: str, text: str, count: int, new: int) -> float:
            before, began = actor.stats(), time.monotonic()
            actor.sample([Message("user", text * OPENING)], count, 1.0, 0, new)
            return (actor.stats()[kind] - before[kind]) / (time.monotonic() - began)

        rate("prompt_tokens", "warm ", 1, 1)
        read = max(rate("prompt_tokens", word, 1, 1) for word in ("oak ", "log ", "get "))
        replied = rate("completion_tokens", "get ", CONVERSATIONS, NEW)  # the prompt has been read
    return replied, read, TRAINED * read


def hours(work: Work, rates: tuple[float, float, float]) -> float:
    """Return the hours that some work takes."""
    return sum(tokens / rate for tokens, rate in zip(work, (*rates, 1.0), strict=True)) / 3600


def clock(found: float) -> str:
    """Return hours as h:mm."""
    minutes = round(60 * found)
    return f"{minutes // 60}:{minutes % 60:02d}"


async def report(_: object) -> int:
    """Print the table and return the exit code."""
    env, _ = variables()
    found, cuda = parts(env), env.get("DEVICE") == "cuda"
    here = Path(env["BASE_MODEL"], "config.json").is_file() and not cuda
    columns = [("here", measured(env))] if here else []
    columns.append(("one GPU", GPU))
    for name, (replied, read, trained) in columns:
        how = "assumed" if name == "one GPU" else "measured; training as a share of the prompts"
        print(
            f"# {name}: {replied:.0f} reply, {read:.0f} prompt, {trained:.0f} trained tokens a second ({how})"
        )
    print("# " + " " * 28 + "".join(f"{name:>12}" for name, _ in columns) + "   (h:mm)")
    for part, work in {**found, "all": total(*found.values())}.items():
        print(f"# {part:28}" + "".join(f"{clock(hours(work, rates)):>12}" for _, rates in columns))
    return 0


if __name__ == "__main__":
    sys.exit(run_script("real_model.sh", report))
