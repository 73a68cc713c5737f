"""Stage 3: stage 2's records -> XTuner -> a model folder that `transformers` loads.

    .venv/bin/python xtuner_config/train.py --data A.jsonl [B.jsonl ...] --model_dir DIR --output_dir DIR
        [--general sharegpt.jsonl --eta 0.2] [--config NAME] [--max_per_task N] [--long cut|drop] [--epochs N] [--lr X]
        [--accumulation N] [--batch N] [--max_length N] [--seed S] [--dtype bfloat16] [--force 1] [--prepare]

Work happens in DIR.partial, which becomes DIR when all is done, with manifest.json. The same command again does
nothing, or goes on from the last checkpoint. Environment: XTUNER_PYTHON, NPROC_PER_NODE; several nodes run this very
command, each with its NODE_RANK and all with NNODES, ADDR, PORT and a shared output folder, or in a Slurm step. Exit
code: 0 done, 1 training failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

from transformers import AutoTokenizer

from mcts_utils.storage import files, manifest
from mcts_utils.training import checkpoint, corpus, launcher, lora_merge, preflight
from mcts_utils.training.job import TrainingJob, begun, is_done, open_work_folder, parse, write_inputs
from mcts_utils.training.launcher import Trainer, TrainingFailed
from mcts_utils.training.lr_schedule import Schedule, plan
from mcts_utils.training.node_layout import Machines
from mcts_utils.training.row_filter import Screen
from mcts_utils.types import InputError

SEVERAL = "deepspeed_zero2"  # what several processes use where the config names none: without it they fail
NODE_0_SECONDS = 3600  # how long the other nodes wait for it to check and write the rows


def stage3(job: TrainingJob, prepare: bool, environ: Mapping[str, str]) -> str:
    """The whole stage, on one node of those that run it; returns its summary line."""
    started = time.monotonic()
    identity = job.identity()
    if is_done(job, identity):
        return f"{job.output} is there already, trained from the same inputs"
    machines, python = Machines.from_environ(environ), launcher.trainer_python(environ)
    trainer = launcher.find_trainer(python, environ)
    machines = machines.sized(min(trainer.gpus, job.settings.gpus))
    job = suited(job, trainer, machines)
    shape = preflight.Shape.of(job.model)
    if not job.force:
        preflight.check_devices(job.settings, shape, trainer, machines)
    inner = launcher.trainer_environ(environ, trainer.gpus, job.settings.quantized)
    if machines.rank:
        return follow_node_0(job, identity, trainer, machines, inner)
    rows = corpus.build(job.recipe, screen_of(job))
    schedule = plan(len(rows.rows), job.settings, machines.devices)
    if not job.force:
        preflight.check_disk(job.settings, shape, job.partial, schedule.iterations)
    open_work_folder(job, identity, machines.devices)
    write_inputs(job, rows, schedule)
    command = training_left(job, trainer, machines, final_checkpoint(schedule))
    notes = [*rows.notes, *schedule.notes()]
    for note in notes:
        print(f"train.py: note: {note}", file=sys.stderr)
    if prepare:
        return f"prepared: {launcher.shell_line(job.folder, command, inner, environ)}"
    curve = train(job, trainer, command, schedule, inner)
    seconds = time.monotonic() - started
    facts = {"model": str(job.model), "eta": job.recipe.eta, "dtype": job.dtype, "inputs_sha256": identity}
    facts |= {"trainer": trainer.versions, "gpus": trainer.gpus, "devices": machines.devices, "notes": notes}
    finish(job, rows, curve, asdict(job.settings) | asdict(schedule) | facts, seconds)
    return summary(job, rows, schedule, curve, seconds)


def suited(job: TrainingJob, trainer: Trainer, machines: Machines) -> TrainingJob:
    """The job as these machines can run it."""
    settings = job.settings
    if not trainer.gpus:
        settings = replace(settings, backend="gloo")
    if machines.devices > 1 and not settings.deepspeed:
        settings = replace(settings, deepspeed=SEVERAL)
    return replace(job, settings=settings)


def follow_node_0(
    job: TrainingJob, identity: str, trainer: Trainer, machines: Machines, environ: Mapping[str, str]
) -> str:
    """Train beside node 0, which writes what all read and converts the result; the nodes share the output folder.

    An older run's files may still be there and about to be replaced: the launcher starts no worker before node 0's.
    """
    begins = time.monotonic()
    while not begun(job, identity, machines.devices):
        if time.monotonic() - begins > NODE_0_SECONDS:
            raise TrainingFailed(f"node 0 wrote nothing to {job.folder} in {NODE_0_SECONDS} s")
        time.sleep(0.5)
    command = training_left(job, trainer, machines)
    log = job.folder / f"train.node{machines.rank}.log"
    launcher.run(command, job.folder, environ, log)
    return f"node {machines.rank} has trained; node 0 converts"


def summary(
    job: TrainingJob, rows: corpus.Corpus, schedule: Schedule, curve: list[dict[str, Any]], seconds: float
) -> str:
    """What was done, in one line."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in rows.counts["rows"].items())
    return (
        f"{len(rows.rows)} rows ({kinds}), {schedule.iterations} iterations, "
        f"loss {curve[0]['loss']:.3f} -> {curve[-1]['loss']:.3f}, {seconds:.0f} s: {job.output}"
    )


def screen_of(job: TrainingJob) -> Screen:
    """The model's tokenizer, ready to measure rows."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--model_dir {job.model}: no usable tokenizer ({' '.join(str(error).split())})"
        ) from error
    if not tokenizer.chat_template:
        raise InputError(f"--model_dir {job.model}: the tokenizer has no chat template")
    return Screen(tokenizer, job.settings.chat, job.settings.max_length, job.recipe.long)


def training_left(job: TrainingJob, trainer: Trainer, machines: Machines, final: str = "") -> list[str]:
    """The command that begins the training, or goes on from the last checkpoint; empty if the last one is there."""
    newest = launcher.last_checkpoint(job.folder / "run")
    if newest and newest == final:
        return []
    if newest is None and not machines.rank:
        shutil.rmtree(job.folder / "run", ignore_errors=True)
        for log in job.folder.glob("train*.log"):
            log.unlink()
    resume = f"run/{newest}" if newest else None
    return launcher.train_command(trainer, machines, job.settings.deepspeed, resume)


def final_checkpoint(schedule: Schedule) -> str:
    """What XTuner calls the checkpoint of the last iteration."""
    return f"iter_{schedule.iterations}.pth"


def train(
    job: TrainingJob, trainer: Trainer, command: list[str], schedule: Schedule, environ: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Run what is left of the training, then convert to job.folder/converted.

    Returns:
        The loss curve, one row per log line.
    """
    run_folder, final = job.folder / "run", final_checkpoint(schedule)
    if command:
        with launcher.TrainingProgress(schedule.iterations) as progress:
            launcher.run(command, job.folder, environ, job.folder / "train.log", progress.read)
    newest = launcher.last_checkpoint(run_folder)
    if newest != final:
        raise TrainingFailed(f"XTuner ended at checkpoint {newest}, not {final}; see {job.folder}/train.log")
    curve = launcher.losses(run_folder)
    follow(curve, schedule, job.settings.lr)
    for name in ("converted", "adapter"):
        shutil.rmtree(job.folder / name, ignore_errors=True)
    log = job.folder / "convert.log"
    log.unlink(missing_ok=True)
    target = "adapter" if job.settings.lora else "converted"
    launcher.run(launcher.convert_command(trainer, f"run/{final}", target), job.folder, environ, log)
    if job.settings.lora:
        lora_merge.merge(job.folder / "adapter", job.model, job.folder / "converted")
    return curve


def follow(curve: list[dict[str, Any]], schedule: Schedule, peak: float) -> None:
    """Hold the learning rates that were used against the plan: a wrong schedule trains without a word."""
    for row in curve:
        planned = schedule.rate(row["step"] - 1, peak)
        if not math.isclose(row["lr"], planned, rel_tol=1e-3, abs_tol=peak * 1e-7):
            raise TrainingFailed(
                f"iteration {row['step']} had learning rate {row['lr']}, planned was {planned}"
            )


def finish(
    job: TrainingJob,
    rows: corpus.Corpus,
    curve: list[dict[str, Any]],
    settings: Mapping[str, Any],
    seconds: float,
) -> None:
    """Put the model together, write the manifest, give the folder its name; only then is the work thrown away."""
    written = checkpoint.finish(job.folder / "converted", job.model, job.partial, job.dtype)
    files.write_jsonl(job.folder / "loss.jsonl", curve)
    kept = [job.folder / name for name in ("config.py", "train.jsonl", "data.manifest.json", "loss.jsonl")]
    kept += sorted((job.folder / "adapter").glob("adapter_*"))
    manifest.write_manifest(
        job.partial / "manifest.json",
        "train",
        settings,
        [*job.recipe.data, *job.recipe.general, *checkpoint.weight_files(job.model)],
        [*written, *kept],
        rows.counts | {"loss": {"first": curve[0]["loss"], "last": curve[-1]["loss"]}},
        rows.tokens,
        seconds,
    )
    os.replace(job.partial, job.output)
    for name in ("run", "model", "cache", "converted"):
        shutil.rmtree(job.output / job.folder.name / name, ignore_errors=True)
    (job.output / "inputs.json").unlink()


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run stage 3 and return its exit code."""
    try:
        job, prepare = parse(__doc__ or "", argv)
        print(f"train.py: {stage3(job, prepare, os.environ if environ is None else environ)}")
        return 0
    except InputError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except TrainingFailed as error:
        print(f"{error}\ntrain.py: training failed", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train.py: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # a stop is a stop: the trainer must not outlive it
    sys.exit(main())
