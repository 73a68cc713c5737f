"""Stage 3: train a model on the records of stage 2 with XTuner, and write it as a folder that `transformers` loads.

    .venv/bin/python xtuner_config/train.py --data A.jsonl [B.jsonl ...] --model_dir DIR --output_dir DIR
        [--general sharegpt.jsonl --eta 0.2] [--config NAME] [--max_per_task N] [--long cut|drop] [--epochs N] [--lr X]
        [--accumulation N] [--batch N] [--max_length N] [--seed S] [--dtype bfloat16] [--chat_template FILE] [--force 1]
        [--prepare] [--dry-run]

The run works in DIR.partial, which is renamed to DIR at the end, with manifest.json. The same command again does
nothing if DIR is complete, and otherwise continues from the last checkpoint. Environment: XTUNER_PYTHON,
NPROC_PER_NODE. On several nodes, run the same command on each with its NODE_RANK, the same NNODES, ADDR and PORT, and
a shared output folder, or run it in a Slurm step. Exit code: 0 done, 1 training failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

from mcts_utils.actors.chat_tokens import load_tokenizer
from mcts_utils.storage import files, manifest
from mcts_utils.storage.lock import reserved
from mcts_utils.terminal import run_command
from mcts_utils.training import checkpoint, corpus, launcher, preflight
from mcts_utils.training.job import (
    TrainingJob,
    inputs_written,
    is_done,
    open_work_folder,
    parse,
    write_inputs,
)
from mcts_utils.training.launcher import Trainer, TrainingFailed
from mcts_utils.training.lr_schedule import Schedule, plan_schedule
from mcts_utils.training.node_layout import NodeLayout
from mcts_utils.training.row_filter import row_filter_of
from mcts_utils.training.settings import FULL

DEFAULT_DEEPSPEED = "deepspeed_zero2"  # for several processes, which fail without one
NODE_0_SECONDS = 3600  # the other nodes wait at most so long for node 0 to write the rows


def run_job(job: TrainingJob, only: str, environ: Mapping[str, str]) -> str:
    """Run the stage on this node, or what `only` names (job.parse), and return its summary line.

    Raises:
        InputError: if an input or the environment is bad.
        TrainingFailed: if training or conversion failed.
    """
    started = time.monotonic()
    identity = job.identity()
    if is_done(job, identity):
        return f"{job.output} exists already, trained from the same inputs"
    layout = NodeLayout.from_environ(environ)
    data = None if layout.rank else rows_of(job)  # a bad row is named before anything is started
    trainer = launcher.find_trainer(launcher.trainer_python(environ), environ)
    layout = layout.with_default_devices(min(trainer.gpus, job.settings.gpus))
    job = adapt_job(job, trainer, layout)
    size = preflight.ModelSize.from_folder(job.model)
    preflight.check_architecture(job.model, trainer)
    if not job.force:
        preflight.check_devices(job.settings, size, trainer, layout)
    inner_environ = launcher.trainer_environ(environ, trainer.gpus, job.settings.quantized)
    if data is None:
        return follow_node_0(job, identity, trainer, layout, inner_environ)
    if only == "dry_run":
        return plan_text(job, data, plan_inputs(job, data, size, layout.devices), layout.devices)
    schedule = prepare_inputs(job, data, identity, size, layout.devices)
    command = remaining_command(job, trainer, layout, final_checkpoint(schedule))
    products = inner_environ["NUMBER_FORMAT"] if job.settings.autocast and not trainer.gpus else ""
    notes = [*data.notes, *schedule.notes()]
    if job.settings.name == FULL.name and not trainer.gpus and only != "prepare":
        notes.append("there is no GPU here: --config cpu takes less time and memory than full")
    if products == "float32":
        notes.append("products are taken in float32: this CPU has none in bfloat16, or NUMBER_FORMAT says so")
    for note in notes:
        print(f"train.py: note: {note}", file=sys.stderr)
    if only == "prepare":
        return f"prepared: {launcher.shell_line(job.folder, command, inner_environ, environ)}"
    curve = train(job, trainer, command, schedule, inner_environ)
    seconds = time.monotonic() - started
    facts = {"model": str(job.model), "eta": job.mix.eta, "dtype": job.dtype, "inputs_sha256": identity}
    facts |= {"products": products} if products else {}
    facts |= {"trainer": trainer.versions, "gpus": trainer.gpus, "devices": layout.devices, "notes": notes}
    finish(job, data, curve, asdict(job.settings) | asdict(schedule) | facts, seconds)
    return summary(job, data, schedule, curve, seconds)


def adapt_job(job: TrainingJob, trainer: Trainer, layout: NodeLayout) -> TrainingJob:
    """Return the job with the backend and the DeepSpeed config that this trainer and these nodes need."""
    settings = job.settings
    if not trainer.gpus:
        settings = replace(settings, backend="gloo")
    if layout.devices > 1 and not settings.deepspeed:
        settings = replace(settings, deepspeed=DEFAULT_DEEPSPEED)
    return replace(job, settings=settings)


def rows_of(job: TrainingJob) -> corpus.Corpus:
    """Return the training rows; raise InputError if one is malformed, or none is left."""
    row_filter = row_filter_of(job.model, job.settings.max_length, job.chat_template, job.mix.long)
    return corpus.build(job.mix, row_filter)


def prepare_inputs(
    job: TrainingJob, data: corpus.Corpus, identity: str, size: preflight.ModelSize, devices: int
) -> Schedule:
    """Plan the schedule, write the trainer's inputs, and return it; raise as `plan_inputs` does."""
    schedule = plan_inputs(job, data, size, devices)
    open_work_folder(job, identity, devices)
    write_inputs(job, data)
    return schedule


def plan_inputs(job: TrainingJob, data: corpus.Corpus, size: preflight.ModelSize, devices: int) -> Schedule:
    """Plan the schedule; write nothing.

    Raises:
        InputError: if the run is too short, or the disk has too little room.
    """
    preflight.check_vocabulary(job.model, size, data.rows)
    schedule = plan_schedule(len(data.rows), job.settings, devices)
    if not job.force:
        preflight.check_disk(job.settings, size, job.partial, schedule.iterations)
    return schedule


def plan_text(job: TrainingJob, data: corpus.Corpus, schedule: Schedule, devices: int) -> str:
    """Return what a run would do and take: rows, tokens, iterations, and hours if the model was trained here before."""
    s, kinds = job.settings, ", ".join(f"{count} {kind}" for kind, count in data.counts["rows"].items())
    read, trained = (sum(kind[name] for kind in data.tokens.values()) for name in ("input", "trained"))
    lines = [
        "dry run: nothing is written or trained",
        f"{len(data.rows)} rows ({kinds}) of {read:,} tokens, {trained:,} of them with loss",
        f"config {s.name}: {s.epochs} epochs, {schedule.iterations} iterations on {devices} devices, an optimizer step "
        f"for {s.batch * s.accumulation * devices} rows, learning rate {s.lr:g}, at most {s.max_length} tokens a row",
        f"{job.model} -> {job.output}, {read * s.epochs:,} tokens pass through the model",
    ]
    if checkpoint_name := launcher.last_checkpoint(job.folder / "run"):
        lines.append(f"an interrupted run goes on from {checkpoint_name} of {final_checkpoint(schedule)}")
    if (job.model / "manifest.json").is_file():
        before = manifest.read_manifest(job.model / "manifest.json")
        kinds_before = [kind for kind in before.tokens.values() if isinstance(kind, dict)]
        passed = sum(kind.get("input", 0) for kind in kinds_before) * before.settings.get("epochs", 0)
        if passed:
            hours = before.seconds * read * s.epochs / passed / 3600
            lines.append(f"likely {hours:.1f} h, at the speed of the training of {job.model}")
    return "\n".join(lines)


def follow_node_0(
    job: TrainingJob, identity: str, trainer: Trainer, layout: NodeLayout, environ: Mapping[str, str]
) -> str:
    """Train as one of the nodes other than node 0 and return the summary line.

    Node 0 writes the inputs, which all nodes read from the shared output folder, and converts the result. Files of an
    older run may be found before node 0 replaces them; that is safe, as the launcher starts no worker before node 0's.

    Raises:
        TrainingFailed: if node 0 writes nothing in NODE_0_SECONDS, or the training fails.
    """
    started = time.monotonic()
    while not inputs_written(job, identity, layout.devices):
        if time.monotonic() - started > NODE_0_SECONDS:
            raise TrainingFailed(f"node 0 wrote nothing to {job.folder} in {NODE_0_SECONDS} s")
        time.sleep(0.5)
    command = remaining_command(job, trainer, layout)
    log = job.folder / f"train.node{layout.rank}.log"
    launcher.run(command, job.folder, environ, log)
    return f"node {layout.rank} has trained; node 0 converts"


def summary(
    job: TrainingJob, data: corpus.Corpus, schedule: Schedule, curve: list[dict[str, Any]], seconds: float
) -> str:
    """Return the rows, iterations, losses and seconds of the run in one line."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in data.counts["rows"].items())
    return (
        f"{len(data.rows)} rows ({kinds}), {schedule.iterations} iterations, "
        f"loss {curve[0]['loss']:.3f} -> {curve[-1]['loss']:.3f}, {seconds:.0f} s: {job.output}"
    )


def remaining_command(job: TrainingJob, trainer: Trainer, layout: NodeLayout, final: str = "") -> list[str]:
    """Return the command that starts the training or resumes it from the last checkpoint; empty if `final` exists.

    Without a checkpoint, node 0 deletes what an earlier start has left.
    """
    newest = launcher.last_checkpoint(job.folder / "run")
    if newest and newest == final:
        return []
    if newest is None and not layout.rank:
        shutil.rmtree(job.folder / "run", ignore_errors=True)
        for log in job.folder.glob("train*.log"):
            log.unlink()
    resume = f"run/{newest}" if newest else None
    return launcher.train_command(trainer, layout, job.settings.deepspeed, resume)


def final_checkpoint(schedule: Schedule) -> str:
    """Return XTuner's name for the checkpoint of the last iteration."""
    return f"iter_{schedule.iterations}.pth"


def train(
    job: TrainingJob, trainer: Trainer, command: list[str], schedule: Schedule, environ: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Run the rest of the training, then convert the model to job.folder/converted.

    Returns:
        The loss curve, one row per log line.

    Raises:
        TrainingFailed: if training or conversion failed, or the last checkpoint is missing.
    """
    run_folder, final = job.folder / "run", final_checkpoint(schedule)
    if command:
        with launcher.TrainingProgress(schedule.iterations) as progress:
            launcher.run(command, job.folder, environ, job.folder / "train.log", progress.read)
    newest = launcher.last_checkpoint(run_folder)
    if newest != final:
        raise TrainingFailed(f"XTuner ended at checkpoint {newest}, not {final}; see {job.folder}/train.log")
    curve = launcher.read_losses(run_folder)
    check_learning_rates(curve, schedule, job.settings.lr)
    for name in ("converted", "adapter"):
        shutil.rmtree(job.folder / name, ignore_errors=True)
    target = job.folder / ("adapter" if job.settings.lora else "converted")
    launcher.convert(trainer, run_folder / final, target, environ)
    if job.settings.lora:
        from mcts_utils.training import lora_merge  # loads torch

        lora_merge.write_settings(job.folder / "adapter", job.settings.lora, job.model)
        lora_merge.merge(job.folder / "adapter", job.model, job.folder / "converted")
    return curve


def check_learning_rates(curve: list[dict[str, Any]], schedule: Schedule, peak: float) -> None:
    """Check that training used the planned learning rates: XTuner gives no error for a wrong schedule.

    Raises:
        TrainingFailed: naming the first iteration with another rate.
    """
    for row in curve:
        planned = schedule.rate(row["step"] - 1, peak)
        if not math.isclose(row["lr"], planned, rel_tol=1e-3, abs_tol=peak * 1e-7):
            raise TrainingFailed(
                f"iteration {row['step']} had learning rate {row['lr']}, planned was {planned}"
            )


def finish(
    job: TrainingJob,
    data: corpus.Corpus,
    curve: list[dict[str, Any]],
    settings: Mapping[str, Any],
    seconds: float,
) -> None:
    """Write the model and its manifest, rename the folder, and then delete intermediate files."""
    written = checkpoint.write_trained_model(job.folder / "converted", job.model, job.partial, job.dtype)
    tokenizer = load_tokenizer(job.model, job.chat_template)
    written += checkpoint.write_chat_template(job.partial, tokenizer, bool(job.chat_template))
    files.write_jsonl(job.folder / "loss.jsonl", curve)
    kept = [job.folder / name for name in ("config.py", "train.jsonl", "data.manifest.json", "loss.jsonl")]
    kept += sorted((job.folder / "adapter").glob("adapter_*"))
    manifest.write_manifest(
        job.partial / "manifest.json",
        "train",
        settings,
        [*job.mix.data, *job.mix.general, *checkpoint.weight_files(job.model)],
        [*written, *kept],
        data.counts | {"loss": {"first": curve[0]["loss"], "last": curve[-1]["loss"]}},
        data.tokens,
        seconds,
    )
    os.replace(job.partial, job.output)
    for name in ("run", "model", "cache", "converted"):
        shutil.rmtree(job.output / job.folder.name / name, ignore_errors=True)
    (job.output / "inputs.json").unlink()


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run stage 3; return the exit code."""

    def work() -> int:
        try:
            given = os.environ if environ is None else environ
            job, only = parse(__doc__ or "", argv, given)
            # Node 0 writes; the others only read.
            writes = NodeLayout.from_environ(given).rank == 0 and only != "dry_run"
            with reserved(job.output.parent, job.output.name) if writes else nullcontext():
                print(f"train.py: {run_job(job, only, given)}")
            return 0
        except TrainingFailed as error:
            print(f"{error}\ntrain.py: training failed", file=sys.stderr)
            return 1

    return run_command("train.py", work, "interrupted; the same command continues from the last checkpoint")
