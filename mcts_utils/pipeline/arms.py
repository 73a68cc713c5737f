"""The arms of scripts/experiment.sh and real_model.sh; their cells: an iteration of an arm with a seed, as commands.

Commands are templates; their words in capitals are variables of the script.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mcts_utils.pipeline.processes import Variables, check
from mcts_utils.pipeline.steps import filled
from mcts_utils.search.baselines import STRATEGIES
from mcts_utils.types import InputError

RULES = (
    ("LANES SHARE ITERATIONS", "[1-9][0-9]{0,5}", "be a whole number between 1 and 999999"),
    ("SEEDS", "[0-9]{1,9}", "be whole numbers below 1000000000"),
    ("WARM_N ROWS", "[0-9]{1,6}", "be a whole number below 1000000"),
    ("RECOVERY REVISE DRY_RUN", "[01]", "be one of 0 1"),
)
SEARCH = (
    "MODEL_DIR={model} {PYTHON} mcts_collection.py --task_ids {RUN_DIR}/tasks_{i}.txt --model_name {MODEL_NAME}"
    " --output_dir {folder}/mcts_result"
)
RECORDS = (
    "MODEL_DIR={judge} {PYTHON} path_collection.py --input_dir {trees}/mcts_result/textcraft/{MODEL_NAME}"
    " --output_dir {folder}/records --data_type {kind} --revise {REVISE} --model_name {MODEL_NAME}"
)
EXPERT = (
    "{PYTHON} path_collection.py --data_type expert --task_ids train --n {WARM_N} --noise {WARM_NOISE}"
    " --output_dir {folder}/records"
)
TRAIN = "--config {config} --model_dir {model} --output_dir {folder}/model --epochs {epochs} --seed {seed}"
EVALUATE = (  # the held-out goals (Table 2), then the untrained actor's failed prefixes (Table 3)
    "MODEL_DIR={model} MODEL_TYPE={name} {PYTHON} eval.py --max_steps {EVAL_STEPS} --task_ids {EVAL_IDS}"
    " --output_dir {RUN_DIR}/test_result",
    "MODEL_DIR={model} MODEL_TYPE={name} {PYTHON} eval.py --mode revise --max_steps {REVISE_STEPS} --seed 0"
    " --from {RUN_DIR}/test_result/textcraft/{MODEL_NAME}_base --panel {RUN_DIR}/panel.json"
    " --output_dir {RUN_DIR}/test_result",
)
RESULT = "{RUN_DIR}/test_result/textcraft/{MODEL_NAME}_{arm}_s{seed}_i1"
COPIED = ("{RUN_DIR}/seed_{seed}/{arm}/iteration_1", RESULT, f"{RESULT}_revise")
MADE_WITH = "{MAX_DEPTH} {ITERA} {N_GEN} {N_ROLLOUT} | {SHARE} | {EVAL_STEPS} {REVISE_STEPS} {EVAL_IDS} | {TRAIN_FLAGS}"
# What differs where a warm start comes first, or another model than the bundled actor is trained.
MADE_WARM = " | {BASE_MODEL} {WARM_N} {WARM_NOISE} {WARM_EPOCHS} {ROWS} {REVISE}"
ALPHAS = ("0.5", "0.7", "1.0")  # Section 4.2
Command = tuple[str, ...]


class Arm(NamedTuple):
    """What a model is trained on, and how."""

    data: tuple[str, ...]  # kinds of records, each with flags of its own
    flags: str = ""  # of all kinds
    last: int = 1  # iteration
    config: str = ""  # TRAIN_CONFIG
    epochs: int = 3  # of iteration 1 (Appendix C.1); then 1
    strategy: str = ""  # makes trees for iteration 1, for as many model calls as the shared search
    own_judge: bool = False  # the model itself judges, not the untrained one
    source: str = ""  # its first iteration is this arm's


REVISION, ALL, WARM = ("centric", "good"), 10**6, "warm_start"
ARMS = {
    WARM: Arm(("expert",)),  # behaviour cloning, from which all other arms start
    "agent_r": Arm(REVISION, last=ALL),
    "direct": Arm(("direct", "good"), last=ALL),
    "optimal_good": Arm(("good",), last=ALL),
    "optimal": Arm(("optimal",), "--max_per_task 1", last=ALL),  # the shortest path of a task
    "dpo": Arm(("preference",), last=ALL, config="tiny_actor_dpo"),
    "agent_r_unverified": Arm(REVISION, "--verified 0"),
    "agent_r_uncleaned": Arm(REVISION, "--clean 0 --mask_refused 0"),
    "agent_r_duplicates": Arm(REVISION, "--unique 0"),
    "agent_r_raw": Arm(REVISION, "--verified 0 --clean 0 --mask_refused 0 --unique 0"),
    "agent_r_self": Arm(REVISION, last=2, own_judge=True, source="agent_r"),
    "agent_r_rehearsal": Arm((*REVISION, "verdicts"), last=ALL, own_judge=True),
    "agent_r_optimal": Arm(("centric", "optimal --max_per_task 1"), last=ALL),
    "optimal_good_long": Arm(("good",), epochs=9),
    "best_of_n": Arm(REVISION, strategy="best_of_n"),
    "direct_search": Arm(REVISION, strategy="direct_revision"),
    "live": Arm(REVISION, strategy="live"),
}
OWN_TREES = [name for name, arm in ARMS.items() if arm.strategy]


class Cell(NamedTuple):
    """What a lane does in one go. Every stage resumes by itself, so a cell that was stopped goes on where it was."""

    needs: tuple[str, ...]  # names of cells
    stamp: str  # what it is made with; if it changes, the cell is looked at again
    commands: list[Command]


class Experiment:
    """The cells that the variables ask for: base, shared.SEED and ARM.SEED.ITERATION."""

    def __init__(self, env: Variables) -> None:
        """Take the variables; raise InputError naming a wrong one."""
        check(env, *RULES)
        self.env, self.run, self.script = env, env["RUN_DIR"], script_of(env)
        self.seeds, self.iterations = env["SEEDS"].split(), int(env["ITERATIONS"])
        ablations = [f"agent_r_{name}" for name in env["ABLATIONS"].split()]
        self.warm = env["WARM_N"] != "0"
        self.arms = [*env["ARMS"].split(), *ablations, *env["CONTROLS"].split()]
        if wrong := [name for name in self.arms if name not in ARMS]:
            raise InputError(f"no such arm: '{wrong[0]}'")
        self.trees = f"mcts_result/textcraft/{env['MODEL_NAME']}"

    def plan(self) -> dict[str, Any]:
        """Return what is asked for, for the report."""
        found = {}
        for name, arm in ((name, ARMS[name]) for name in [WARM] * self.warm + self.arms):
            pairs = [kind.partition(" ") for kind in arm.data]
            data = [[kind, f"{own} {arm.flags}".strip()] for kind, _, own in pairs]
            last = min(arm.last, self.iterations)
            found[name] = {"data": data, "config": self._config(arm), "iterations": last, "from": arm.source}
        seeds = [int(seed) for seed in self.seeds]
        plan = {"seeds": seeds, "iterations": self.iterations, "arms": found}
        return plan | ({"model": self.env["MODEL_NAME"], "command": self.env["COMMAND"]} if self.warm else {})

    def cells(self) -> Iterator[str]:
        """Yield the names of all cells, the more important ones first."""
        warm = [f"{WARM}.{seed}.1" for seed in self.seeds if self.warm]
        yield from ("base", *warm, *(f"shared.{seed}" for seed in self.seeds))
        n = len(self.env["ARMS"].split())
        for group in (self.arms[: min(4, n)], self.arms[n:], self.arms[4:n]):
            for i in range(1, self.iterations + 1):
                for name in group:
                    yield from (f"{name}.{seed}.{i}" for seed in self.seeds if i <= ARMS[name].last)

    def is_done(self, name: str) -> bool:
        """Return True if a cell was done with what it is made with now."""
        file = Path(self.run, "done", name)
        return file.is_file() and file.read_text() == self.cell(name).stamp

    def cell(self, name: str) -> Cell:
        """Return a cell by its name."""
        kind, seed, i = (*name.split("."), "", "")[:3]
        needs: tuple[str, ...] = ()
        base = ("base",) if self.env["RECOVERY"] == "1" else ()  # whose failed prefixes all models continue
        if kind == "base":
            call, commands = "base", self._evaluate(self.env["BASE_MODEL"], "base")
        elif kind == "shared":  # the search of iteration 1, which the arms of a seed use
            search = self._search(self._start(seed), 1, f"{self.run}/seed_{seed}/shared")
            call, commands = f"shared {seed}", [(f"SEED={seed}", *search)]
            needs = (f"{WARM}.{seed}.1",) if self.warm else ()
        elif kind == WARM:
            needs = base
            call, commands = self._train(kind, seed, 1)
        elif i != "1" or not (source := ARMS[kind].source):
            needs = (*base, f"shared.{seed}" if i == "1" else f"{kind}.{seed}.{int(i) - 1}")
            call, commands = self._train(kind, seed, int(i))
        else:
            needs = (*base, f"{source}.{seed}.1")
            call, commands = f"copy {kind} {seed} {source}", self._copy(kind, seed, source)
        made = MADE_WITH + MADE_WARM * self.warm
        return Cell(needs, f"{call} | {made.format_map(self.env)}\n", commands)

    def _start(self, seed: str) -> str:
        """Return the model that the arms of a seed start from."""
        return f"{self.run}/seed_{seed}/{WARM}/iteration_1/model" if self.warm else self.env["BASE_MODEL"]

    def _config(self, arm: Arm) -> str:
        return arm.config or self.env["TRAIN_CONFIG"]

    def _train(self, name: str, seed: str, i: int) -> tuple[str, list[Command]]:
        """Return what an iteration of an arm is made with, and its commands from the search to the evaluation."""
        arm, place, shared = ARMS[name], f"{self.run}/seed_{seed}/{name}", f"{self.run}/seed_{seed}/shared"
        base, start = self.env["BASE_MODEL"], self.env["BASE_MODEL"] if name == WARM else self._start(seed)
        folder, model = f"{place}/iteration_{i}", f"{place}/iteration_{i - 1}/model" if i > 1 else start
        trees = folder if i > 1 or arm.strategy else shared
        alpha = ALPHAS[:i][-1]
        epochs = self.env["WARM_EPOCHS"] if name == WARM else str(arm.epochs if i == 1 else 1)
        values = {**self.env, "model": model, "judge": model if arm.own_judge else base, "trees": trees}
        values |= {"folder": folder, "config": self._config(arm), "epochs": epochs, "seed": seed}
        found, files = [], []
        if trees == folder:
            how = ("--strategy", arm.strategy) if i == 1 else ()
            spent = ("--budget_from", f"{shared}/{self.trees}") if how and arm.strategy in STRATEGIES else ()
            found.append((*self._search(model, i, folder), *how, *spent))
        share = int(self.env["ROWS"]) // len(arm.data)  # the arms' rows are equal in number
        for kind, *own in map(str.split, arm.data):
            words = filled(EXPERT if kind == "expert" else RECORDS, kind=kind, **values)
            most = ("--n", str(share), "--max_per_task", "16") if share and kind != "expert" else ()
            found.append((*words, *most, *arm.flags.split(), *own))
            files.append(f"{folder}/records/textcraft_{kind}.jsonl")
        train = (self.env["PYTHON"], "xtuner_config/train.py", "--data", *files, *filled(TRAIN, **values))
        found.append((*train, *self.env["TRAIN_FLAGS"].split()))
        found += self._evaluate(f"{folder}/model", f"{name}_s{seed}_i{i}")
        who = f"{name}{':' * bool(arm.strategy)}{arm.strategy}{'@own' * arm.own_judge}"
        call = f"{who} {seed} {i} {self._config(arm)} {epochs} {alpha} {arm.flags} {' '.join(arm.data)}"
        return call, [(f"SEED={seed}", f"ALPHA={alpha}", *words) for words in found]

    def _search(self, model: str, i: int, folder: str) -> Command:
        return filled(SEARCH, model=model, i=i, folder=folder, **self.env)

    def _evaluate(self, model: str, name: str) -> list[Command]:
        templates = EVALUATE[: 1 + int(self.env["RECOVERY"])]
        return [filled(template, model=model, name=name, **self.env) for template in templates]

    def _copy(self, name: str, seed: str, source: str) -> list[Command]:
        found: list[Command] = [("mkdir", "-p", f"{self.run}/seed_{seed}/{name}")]
        for pattern in COPIED:
            old, new = (pattern.format(arm=arm, seed=seed, **self.env) for arm in (source, name))
            found += [("rm", "-rf", new), ("cp", "-r", old, new)]
        return found


def script_of(env: Variables) -> str:
    """Return the name of the script that runs, with which its messages begin."""
    return env["COMMAND"].rpartition("/")[2]
