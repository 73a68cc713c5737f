"""XTuner as a subprocess: its interpreter, its commands, its log, the check that it finished, what it leaves behind.

The `xtuner` command exits with 0 even if training crashed; `python -m xtuner.tools.train` does not. The last checkpoint
is checked in any case. What is trained, and with which settings, is not decided here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mcts_utils.config import env_file
from mcts_utils.parent import WITH_PARENT
from mcts_utils.terminal import Progress, deferred_interrupts
from mcts_utils.training.node_layout import NodeLayout
from mcts_utils.types import InputError

XTUNER = "0.2.0"
HERE = Path(__file__).resolve().parent
# Importing torch and transformers takes seconds: the former is not asked where its build knows no GPU, and the names
# of architectures are read from the latter's file.
PROBE = """
import ast, importlib.metadata as meta, json
known = {d.metadata["Name"].lower(): d for d in meta.distributions()}
names = ("xtuner", "mmengine", "torch", "transformers", "deepspeed", "peft", "bitsandbytes")
versions = {n: known[n].version for n in names if n in known}
memory, models = [], []
if not versions["torch"].endswith("+cpu"):
    import torch
    memory = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
source = known["transformers"].locate_file("transformers/models/auto/configuration_auto.py").read_text("utf-8")
for node in ast.parse(source).body:
    name = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
    if name == "CONFIG_MAPPING_NAMES":  # OrderedDict([(model_type, class), ...]); in another form: none is known
        pairs = getattr(node.value, "args", [])[:1]
        models = [model for argument in pairs for model, _ in ast.literal_eval(argument)]
print(json.dumps({"gpus": len(memory), "memory": memory, "models": models, "versions": versions}))
"""
ITERATION = re.compile(r"Iter\(train\)\s*\[\s*(\d+)/\d+\].*?\blr: (\S+).*?\bloss: (\S+)")
LOGGED = ("step", "lr", "loss", "grad_norm", "reward_acc", "reward_margin")  # the last two are DPO's
TAIL = 25  # lines of the log that an error shows
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of an x86 CPU that multiplies bfloat16


class TrainingFailed(RuntimeError):
    """The trainer failed, or its result is not what was asked for. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """The interpreter of XTuner's own environment, and what it found on this machine."""

    python: str  # absolute path
    gpus: int
    versions: dict[str, str]  # of xtuner, torch and other packages
    memory: tuple[int, ...] = ()  # bytes free on each GPU
    models: frozenset[str] = frozenset()  # values of model_type that its transformers knows


def trainer_python(environ: Mapping[str, str]) -> str:
    """Return the interpreter that XTUNER_PYTHON names, or that of .venv-xtuner, as an absolute path.

    Raises:
        InputError: if there is no such program.
    """
    python = environ.get("XTUNER_PYTHON") or str(HERE.parents[1] / ".venv-xtuner" / "bin" / "python")
    found = shutil.which(python, path=environ.get("PATH"))
    if found is None:
        raise InputError(
            f"XTUNER_PYTHON: no program {python}; bash scripts/setup.sh makes the trainer's environment"
        )
    return os.path.abspath(found)  # not resolved: a virtual environment is recognised by its link


def find_trainer(python: str, environ: Mapping[str, str]) -> Trainer:
    """Return what an interpreter has. It is asked once per process, since importing torch for its GPUs takes seconds.

    Raises:
        InputError: if it does not run or has no XTuner 0.2.0.
    """
    if python not in _trainers:
        _trainers[python] = _probe(python, environ)
    return _trainers[python]


_trainers: dict[str, Trainer] = {}  # by interpreter


def _probe(python: str, environ: Mapping[str, str]) -> Trainer:
    try:
        probe = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, check=True, timeout=300, env=dict(environ)
        )
        found = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
        raise InputError(f"XTUNER_PYTHON: {python} is no trainer ({type(error).__name__})") from error
    if found["versions"].get("xtuner") != XTUNER:
        raise InputError(
            f"XTUNER_PYTHON: {python} has xtuner {found['versions'].get('xtuner')}, not {XTUNER}"
        )
    memory, models = tuple(found.get("memory", ())), frozenset(found.get("models", ()))
    return Trainer(python, found["gpus"], found["versions"], memory, models)


def train_command(
    trainer: Trainer, layout: NodeLayout, deepspeed: str | None, resume: str | None
) -> list[str]:
    """Return the training command of one node; it is to run in the folder that holds config.py."""
    command = [trainer.python]
    if deepspeed or layout.devices > 1:
        # DeepSpeed needs RANK, MASTER_ADDR and similar variables, which the launcher sets.
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(layout.per_node)]
        command += _rendezvous(layout)
    command += ["-m", "xtuner.tools.train", "config.py", "--work-dir", "run"]
    command += ["--launcher", "pytorch"] if deepspeed or layout.devices > 1 else []
    command += ["--deepspeed", deepspeed] if deepspeed else []
    return command + (["--resume", resume] if resume else [])


def _rendezvous(layout: NodeLayout) -> list[str]:
    if layout.nodes == 1:
        return ["--standalone"]  # takes a free port, so that runs on one machine do not collide
    address = ["--master_addr", layout.address, "--master_port", str(layout.port)]
    return ["--nnodes", str(layout.nodes), "--node_rank", str(layout.rank), *address]


def trainer_environ(environ: Mapping[str, str], gpus: int, quantized: bool = False) -> dict[str, str]:
    """Return the trainer's environment variables: no network, caches in its own folder, patches on CPU hosts."""
    result = dict(environ) | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": "cache",
        "TOKENIZERS_PARALLELISM": "false",
        # --resume reads the trainer's own pickled checkpoint, which torch >= 2.6 refuses otherwise.
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    }
    if not gpus:
        # Waiting threads sleep: by spinning, small operations on busy cores would lose most of their time.
        result = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"} | result
        result |= {"AGENT_R_QUANTIZED": "1"} if quantized else {}
        result["NUMBER_FORMAT"] = product_format(environ)
        result["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE / "cpu"), environ.get("PYTHONPATH")]))
    return result


def product_format(environ: Mapping[str, str], cpuinfo: str = "/proc/cpuinfo") -> str:
    """Return the number format of config cpu's products: NUMBER_FORMAT, or what this machine's CPU is faster with.

    An x86 CPU without instructions for bfloat16 takes it three times as long as float32. Of any other CPU, or where
    there is no `cpuinfo`, it is not known; bfloat16 then.

    Raises:
        InputError: if NUMBER_FORMAT is none.
    """
    given = environ.get("NUMBER_FORMAT", env_file().get("NUMBER_FORMAT")) or "auto"
    if given not in ("auto", "float32", "bfloat16"):
        raise InputError(f"NUMBER_FORMAT must be auto, float32 or bfloat16: '{given}'")
    if given != "auto":
        return given
    with contextlib.suppress(OSError):
        for line in Path(cpuinfo).read_text(encoding="utf-8").splitlines():
            name, _, flags = line.partition(":")
            if name.strip() == "flags":
                return "bfloat16" if BFLOAT16_FLAGS & set(flags.split()) else "float32"
    return "bfloat16"


def shell_line(folder: Path, command: list[str], environ: Mapping[str, str], base: Mapping[str, str]) -> str:
    """Return the call as one line for a shell: folder, the variables that differ from `base`, command."""
    differing = [f"{name}={shlex.quote(value)}" for name, value in environ.items() if base.get(name) != value]
    if not command:
        return f"cd {shlex.quote(str(folder))}  # nothing is left to train"
    return f"cd {shlex.quote(str(folder))} && {' '.join(differing)} {shlex.join(command)}"


def run(
    command: list[str],
    folder: Path,
    environ: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a command and append its output to `log`; on any exception, Ctrl-C too, end its process group first.

    Raises:
        TrainingFailed: with the tail of the log, if the exit code is not 0.
    """
    with log.open("a", encoding="utf-8") as file:
        child: subprocess.Popen[str] | None = None
        try:
            with deferred_interrupts():
                # In a session of its own: one signal reaches a launcher's workers too, and Ctrl-C in the terminal none.
                child = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", WITH_PARENT, *command],
                    cwd=folder,
                    env=dict(environ),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            assert child.stdout is not None
            for line in child.stdout:
                file.write(line)
                file.flush()
                on_line(line)
            code = child.wait()
        except BaseException:
            if child is not None:
                end_process_group(child)
            raise
    if code != 0:
        tail = log.read_text(encoding="utf-8").splitlines()[-TAIL:]
        raise TrainingFailed(
            "\n".join([*tail, f"{shlex.join(command[:4])} ... exited with {code}; log: {log}"])
        )


def convert(trainer: Trainer, checkpoint: Path, target: Path, environ: Mapping[str, str]) -> None:
    """Write a checkpoint as safetensors to the folder `target`: a model's weights, or an adapter.

    Raises:
        TrainingFailed: if it cannot be read, or nothing can be written.
    """
    log = target.parent / "convert.log"
    log.unlink(missing_ok=True)
    if checkpoint.is_dir():  # only DeepSpeed can read it
        words = [trainer.python, HERE / "trainer" / "convert.py", checkpoint.resolve(), target.resolve()]
        run(list(map(str, words)), target.parent, environ, log)
        return
    from mcts_utils.training.trainer.convert import convert as write  # loads torch

    try:
        write(checkpoint, target)
    except Exception as error:  # of kinds of torch, pickle and safetensors
        why = " ".join(str(error).split()) or type(error).__name__
        raise TrainingFailed(f"{checkpoint}: cannot be converted: {why}") from error


def end_process_group(child: subprocess.Popen[str]) -> None:
    """End the child and its workers: SIGTERM to the process group, and SIGKILL after at most 10 s."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    except ProcessLookupError:
        return


class TrainingProgress:
    """A progress bar fed by XTuner's log lines: iterations, learning rate, loss."""

    def __init__(self, iterations: int) -> None:
        self.bar = Progress(total=iterations, desc="train", unit="it")

    def read(self, line: str) -> None:
        """Update the bar from one line of the log."""
        found = ITERATION.search(line)
        if found:
            self.bar.set_postfix_str(f"lr {found[2]}, loss {found[3]}", refresh=False)
            self.bar.update(int(found[1]) - self.bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def last_checkpoint(run_folder: Path) -> str | None:
    """Return the name of the newest complete checkpoint, or None: "iter_120.pth", a file or DeepSpeed's folder."""
    pointer = run_folder / "last_checkpoint"
    name = Path(pointer.read_text(encoding="utf-8").strip()).name if pointer.is_file() else ""
    return name if name and (run_folder / name).exists() else None


def read_losses(run_folder: Path) -> list[dict[str, Any]]:
    """Return the loss curve, one row per log line: the keys LOGGED, as far as they were logged.

    `step` is the number of iterations done, `loss` the mean of the last ten iterations. Where a resumed run repeats a
    step, its row counts.

    Raises:
        TrainingFailed: if no loss was logged, or one is not finite.
    """
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(run_folder.glob("*/vis_data/scalars.json")):  # one per start of the trainer
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "loss" in row:
                rows[row["step"]] = {name: row[name] for name in LOGGED if name in row}
    if not rows or not all(math.isfinite(row["loss"]) for row in rows.values()):
        raise TrainingFailed(f"{run_folder}: {'a loss is not finite' if rows else 'no loss was logged'}")
    return [rows[step] for step in sorted(rows)]
