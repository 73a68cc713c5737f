"""The steps of a whole run: a stage's command in one environment, or the training on the records of all of them.

Commands are templates; their words in capitals are variables of scripts/run_all.sh.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mcts_utils.pipeline.processes import Variables
from mcts_utils.pipeline.steps import Server, Step, filled
from mcts_utils.servers.yours.source import is_source, name_of
from mcts_utils.storage.layout import safe_name

BASE = "env TASK={source} ENV_SERVER_BASE=@{address} SEED={SEED} PROMPT={prompt}"
MODEL = "MODEL_DIR={weights} MODEL_NAME={who} OPENAI_BASE_URL=@served OPENAI_API_KEY="
ENDPOINT = "MODEL_DIR={weights} MODEL_NAME={who} OPENAI_BASE_URL={OPENAI_BASE_URL}"
PLAYER = "MODEL_DIR= MODEL_NAME={who} OPENAI_BASE_URL=@player_{label} OPENAI_API_KEY="
COLLECT = "MAX_DEPTH={depth} {PYTHON} mcts_collection.py --task_ids {ids} --output_dir {place}/mcts_result"
REVISE = "MAX_DEPTH={depth} ALPHA={alpha} {PYTHON} path_collection.py --input_dir {place}/mcts_result/{task}/{folder}"
RECORDS = "--output_dir {place}/records --data_type {kind} --revise {REVISE}"
EXPERT = "{PYTHON} path_collection.py --data_type expert --output_dir {place}/records --n {WARM_N}"
EXPERT_PLAYS, EXPERT_DATA = "--task_ids {ids} --noise {WARM_NOISE}", "--input_dir {WARM_DATA}"
VERIFY = "{PYTHON} path_collection.py --verify {place}/records/{task}_{kind}.jsonl"
EVALUATE = (
    "MODEL_TYPE=greedy {PYTHON} eval.py --task_ids {ids} --max_steps {steps} --output_dir {place}/{out}"
)
TRAIN = (
    "--config {TRAIN_CONFIG} --model_dir {start} --output_dir {place}/model --epochs {epochs} --seed {SEED}"
)
ENV_SERVER = "{PYTHON} -m mcts_utils.servers.{server} --port 0 {flags}"
PLAYER_SERVER = "{PYTHON} -m mcts_utils.servers.mock_llm --port 0 --env {source} --noise {NOISE}"
MODEL_SERVER = (
    "env MODEL_DIR={weights} MODEL_NAME={who} PORT={SERVE_PORT} PYTHON={PYTHON}"
    " SERVE_LOG={logs}/serve_{k}.server.log bash scripts/serve.sh"
)
STAGES = {  # the command, and the file that it writes last
    "collect": (COLLECT, "mcts_result/{task}/{folder}/manifest.json"),
    "revise": (f"{REVISE} {RECORDS}", "records/{task}_{kind}.manifest.json"),
    "expert": (EXPERT, "records/{task}_expert.manifest.json"),
    "verify": (VERIFY, "verified_{kind}.txt"),
    "evaluate": (EVALUATE, "{out}/{task}/{folder}_greedy/manifest.json"),
}
SERVERS = (  # name, log, seconds that it may take to start; command
    ("{address}", "{task}", "60", ENV_SERVER),
    ("player_{label}", "{task}_player", "60", PLAYER_SERVER),
    ("served", "serve_{k}", "{SERVE_TIMEOUT}", MODEL_SERVER),
)


class World(NamedTuple):
    """An environment of a run, and its tasks: a split, a list or a file."""

    source: str  # TASK
    address: str  # of a person's server; empty: the bundled one is started
    train: str  # searched
    test: str  # played by the model
    player: str  # played by the scripted player

    @property
    def task(self) -> str:
        """Return the name of its folders."""
        return safe_name(name_of(self.source)) if is_source(self.source) else self.source

    @property
    def label(self) -> str:
        """Return the task's name as a part of variables."""
        return re.sub(r"[^A-Za-z]", "_", self.task)

    @property
    def variable(self) -> str:
        """Return the name of the variable with the server's address."""
        return f"ENV_SERVER_BASE_{self.label.upper()}"


@dataclass(frozen=True)
class Stages:
    """Make the steps of a run. A model is known by the iteration that trained it; 0 is what iteration 1 begins with."""

    env: Variables
    worlds: tuple[World, ...]
    prompt: str  # that the model was trained with, or PROMPT

    @property
    def warm(self) -> bool:
        """Return True if model 0 is MODEL_DIR after a warm start."""
        return "warm_start" in self.env["STEPS"].split()

    def warm_start(self) -> Iterator[Step]:
        """Yield the making of expert episodes in each environment, and the training of model 0 on them."""
        for world in self.worlds:
            yield self.step("expert", "warm_start", world, 0, ids=self.env["WARM_IDS"] or world.train)
        yield self.train(0)

    def iteration(self, k: int) -> Iterator[Step]:
        """Yield the steps of iteration `k`, from 1."""
        folder = f"iteration_{k}"
        for world in self.worlds:
            if self.env["EVAL_PLAYER"] == "1":
                yield self.step("evaluate", folder, world, None, ids=world.player)
            yield from self.search_and_revise(folder, world, k - 1, world.train, self.nth("ALPHAS", k))
            for kind in ("centric", "good") if self.env["VERIFY"] == "1" else ():
                yield self.step("verify", folder, world, 0, kind)
        yield self.train(k)
        for world in self.worlds:
            yield self.step("evaluate", folder, world, k, ids=world.test)

    def search_and_revise(self, folder: str, world: World, k: int, ids: str, alpha: str) -> Iterator[Step]:
        """Yield the search, by model `k` or the scripted player, and the making of each kind of records."""
        actor = None if self.env["PLAYER"] == "scripted" else k
        yield self.step("collect", folder, world, actor, ids=ids)
        for kind in self.kinds:
            yield self.step("revise", folder, world, actor, kind, alpha=alpha)

    def train(self, k: int) -> Step:
        """Return the training of model `k` on the records of all environments; of model 0 on the experts' episodes."""
        env, folder = self.env, f"iteration_{k}" if k else "warm_start"
        place, kinds = f"{env['RUN_DIR']}/{folder}", self.kinds if k else ["expert"]
        epochs = self.nth("EPOCHS", k) if k else env["WARM_EPOCHS"]
        start = self.weights(k - 1) if k else env["MODEL_DIR"]
        values = {**env, "place": place, "start": start, "epochs": epochs}
        pairs = [(world.task, kind) for world in self.worlds for kind in kinds]
        files = [f"{place}/{task}/records/{task}_{kind}.jsonl" for task, kind in pairs]
        general = filled("--general {GENERAL_DATA} --eta {ETA}", **env) if env["GENERAL_DATA"] else ()
        words = (*filled("env PYTHON={PYTHON} bash scripts/train.sh --data", **env), *files, *general)
        words = (*words, *filled(TRAIN, **values), *env["TRAIN_FLAGS"].split())
        # The GPUs are those of one machine, so the model server is stopped.
        return Step(f"{folder}/train", f"{place}/model/manifest.json", words, stops="served")

    def step(self, stage: str, folder: str, world: World, k: int | None, kind: str = "", **more: str) -> Step:
        """Return a stage's step with model `k`, or (None) the scripted player, as the actor."""
        env, task, player = self.env, world.task, k is None
        who = f"{task}-expert" if k is None else self.name(k)
        depth = env["MAX_DEPTH"] or ("50" if task == "sciworld" else "20")
        served = k == 0 and env["OPENAI_BASE_URL"] and not self.warm
        actor = PLAYER if player else ENDPOINT if served else MODEL
        place, logs = f"{env['RUN_DIR']}/{folder}/{task}", f"{env['RUN_DIR']}/logs"
        values = {**env, **more, "task": task, "label": world.label, "source": world.source, "kind": kind}
        values |= {"place": place, "logs": logs, "prompt": self.prompt, "address": world.variable}
        values |= {"who": who, "folder": safe_name(who), "k": str(k), "depth": depth}
        values |= {"weights": self.weights(k or 0), "steps": depth if player else env["EVAL_STEPS"]}
        values["out"] = "player_result" if player else "test_result"
        values["server"] = "yours" if is_source(world.source) else task
        # Every record comes back as it was written.
        values["flags"] = world.source if is_source(world.source) else "--reproducible" * (task == "sciworld")
        command, output = STAGES[stage]
        if stage == "expert":
            command += f" {EXPERT_DATA if env['WARM_DATA'] else EXPERT_PLAYS}"
        words = filled(f"{BASE} {actor * (stage not in ('verify', 'expert'))} {command}", **values)
        servers = []
        for *texts, start in SERVERS:
            server, log, seconds = (text.format_map(values) for text in texts)
            if any(word.endswith(f"=@{server}") for word in words):
                servers.append(Server(server, f"{logs}/{log}.log", seconds, filled(start, **values)))
        name = "_".join([stage, *[kind] * bool(kind), *["player"] * (player and stage == "evaluate")])
        output, retry = f"{place}/{output.format_map(values)}", stage in ("collect", "evaluate")
        return Step(f"{folder}/{task}/{name}", output, words, tuple(servers), "", retry, stage == "verify")

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of records."""
        return ["centric", "good", *["verdicts"] * int(self.env["REHEARSE"])]

    def nth(self, variable: str, k: int) -> str:
        """Return the word of a variable for iteration `k`; the last one counts for all further ones."""
        return self.env[variable].split()[:k][-1]

    def weights(self, k: int) -> str:
        """Return the folder of model `k`."""
        if not k and not self.warm:
            return self.env["MODEL_DIR"]
        return f"{self.env['RUN_DIR']}/{f'iteration_{k}' if k else 'warm_start'}/model"

    def name(self, k: int) -> str:
        """Return the name of model `k` in paths and at its endpoint."""
        base = Path(self.env["MODEL_DIR"]).name
        return f"{base}-{k}" if k else f"{base}-warm" if self.warm else self.env["MODEL_NAME"] or base
