"""One training run: its settings from the command line, its identity and its folders. It starts no training."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mcts_utils.storage import files as storage_files
from mcts_utils.storage import manifest as storage_manifest
from mcts_utils.terminal import Parser
from mcts_utils.training import checkpoint
from mcts_utils.training.corpus import Corpus, DataMix
from mcts_utils.training.lr_schedule import Schedule
from mcts_utils.training.render_config import TEMPLATE, render
from mcts_utils.training.row_filter import CUT, DROP
from mcts_utils.training.settings import CONFIGS, TrainSettings
from mcts_utils.types import InputError

DEFAULT_ETA = 0.2  # Section 3.2
OVERRIDES = ("epochs", "lr", "batch", "accumulation", "max_length", "seed")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The inputs, settings and folders of one run."""

    mix: DataMix
    model: Path
    output: Path  # absolute
    settings: TrainSettings
    dtype: str  # of the weights that are written: a key of checkpoint.DTYPES
    force: bool = False  # start even if memory or disk space seem too small

    @property
    def partial(self) -> Path:
        """Return the folder that becomes `output` at the end, so that `output` is complete whenever it exists."""
        return self.output.with_name(self.output.name + ".partial")

    @property
    def folder(self) -> Path:
        """Return the folder that the trainer runs in; config.py, train.jsonl and the logs stay there."""
        return self.partial / "train"

    def identity(self) -> str:
        """Return a sha256 over everything that decides the result; files count by their content.

        Two runs with the same identity are the same run.
        """
        files = [*checkpoint.weight_files(self.model), *checkpoint.small_files(self.model)]
        facts = {
            "settings": asdict(self.settings),
            "eta": self.mix.eta,
            "max_per_task": self.mix.max_per_task,
            "long": self.mix.long,
            "dtype": self.dtype,
            "data": [storage_files.sha256_file(path) for path in self.mix.data],
            "general": [storage_files.sha256_file(path) for path in self.mix.general],
            "model": {path.name: storage_files.sha256_file(path) for path in files},
            "template": storage_files.sha256_file(TEMPLATE),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def parse(description: str, argv: Sequence[str] | None) -> tuple[TrainingJob, bool]:
    """Return the job of a command line, and whether it is only to be prepared.

    Raises:
        InputError: if a flag is unknown, missing or has a bad value.
    """
    args = _parser(description).parse_args(argv)
    return job_of(args), args.prepare


def _parser(description: str) -> Parser:
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="JSONL of path_collection.py")
    parser.add_argument(
        "--general", nargs="+", default=[], help="ShareGPT rows: JSONL, or a JSON list in *.json"
    )
    parser.add_argument("--eta", type=float, help="share of agent rows; 0.2 with --general, 1 without")
    parser.add_argument(
        "--max_per_task", type=int, default=0, help="most rows of one task and kind; 0: no limit"
    )
    parser.add_argument(
        "--long",
        choices=(CUT, DROP),
        default=CUT,
        help="what becomes of rows over --max_length; default: cut",
    )
    parser.add_argument("--model_dir", required=True, help="local folder of the model to start from")
    parser.add_argument(
        "--output_dir", required=True, help="folder of the trained model; must not hold another one"
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="tiny_actor")
    for name in OVERRIDES:
        parser.add_argument(f"--{name}", type=float if name == "lr" else int, help="default: the config's")
    parser.add_argument(
        "--dtype", choices=sorted(checkpoint.DTYPES), help="of the result; default: the model's"
    )
    parser.add_argument(
        "--force",
        type=int,
        choices=(0, 1),
        default=0,
        help="1: start even if memory or disk space seem too small",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="write everything, print the command, train nothing"
    )
    return parser


def job_of(args: argparse.Namespace) -> TrainingJob:
    """Return the job of parsed flags.

    Raises:
        InputError: naming the flag, if a value is out of range or does not fit the others or the model.
    """
    given = _overrides(args)
    if args.eta is not None and args.eta != 1 and not args.general:
        raise InputError(f"--eta {args.eta} asks for general rows: name their file with --general")
    eta = args.eta if args.eta is not None else DEFAULT_ETA if args.general else 1.0
    if not 0 < eta <= 1:
        raise InputError(f"--eta must be over 0 and at most 1, not {eta!r}")
    if args.max_per_task < 0:
        raise InputError(f"--max_per_task must be 0 or more, not {args.max_per_task}")
    settings = CONFIGS[args.config]
    if settings.method == "dpo" and args.general:
        raise InputError(
            f"--general: --config {settings.name} trains preference pairs, which general rows are not"
        )
    model, output = Path(args.model_dir), Path(args.output_dir).resolve()
    checkpoint.weight_files(model)
    window = (
        storage_files.read_json(model / "config.json").get("max_position_embeddings") or settings.max_length
    )
    if given.get("max_length", 0) > window:
        raise InputError(f"--max_length {given['max_length']} is over the model's window of {window} tokens")
    changes: dict[str, Any] = {"max_length": min(settings.max_length, window)} | given
    dtype = args.dtype or checkpoint.stored_dtype(model)
    sources = {**settings.sources, **dict.fromkeys(given, "the command line")}
    settings = replace(settings, **changes, sources=sources)
    mix = DataMix(
        args.data, args.general, eta, settings.seed, args.max_per_task, args.long, settings.method == "dpo"
    )
    return TrainingJob(mix, model, output, settings, dtype, bool(args.force))


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the values that replace those of the config."""
    given = {name: getattr(args, name) for name in OVERRIDES if getattr(args, name) is not None}
    for name, value in given.items():
        if not (0 < value < float("inf")) and not (name == "seed" and value == 0):
            raise InputError(f"--{name} must be above 0, not {value!r}")
    return given


def is_done(job: TrainingJob, identity: str) -> bool:
    """Return whether `output` holds the result of this run.

    Raises:
        InputError: if it holds anything else.
    """
    if not job.output.exists() or (job.output.is_dir() and not any(job.output.iterdir())):
        return False
    manifest = job.output / "manifest.json"
    if (
        manifest.is_file()
        and storage_files.read_json(manifest).get("settings", {}).get("inputs_sha256") == identity
    ):
        return True
    raise InputError(f"--output_dir {job.output} holds something else: remove it or name another folder")


def inputs_written(job: TrainingJob, identity: str, devices: int) -> bool:
    """Return whether this run has written its inputs for `devices` processes."""
    marker, wanted = job.partial / "inputs.json", {"inputs_sha256": identity, "devices": devices}
    try:
        return (job.folder / "config.py").is_file() and storage_files.read_json(marker) == wanted
    except InputError:  # missing, or being replaced at this moment
        return False


def open_work_folder(job: TrainingJob, identity: str, devices: int) -> None:
    """Keep the partial folder if it belongs to this run; otherwise start an empty one.

    Raises:
        InputError: if the folder does not come from a training run.
    """
    marker, facts = job.partial / "inputs.json", {"inputs_sha256": identity, "devices": devices}
    if job.partial.exists():
        if not marker.is_file():
            raise InputError(
                f"--output_dir: {job.partial} exists and is not an unfinished training run: move it away"
            )
        if storage_files.read_json(marker) != facts:
            shutil.rmtree(job.partial)
    job.folder.mkdir(parents=True, exist_ok=True)
    storage_files.write_json(marker, facts)


def write_inputs(job: TrainingJob, corpus: Corpus, schedule: Schedule) -> None:
    """Write train.jsonl with its manifest, model/ and config.py, which names the other two by relative paths."""
    storage_files.write_jsonl(job.folder / "train.jsonl", corpus.rows)
    mix = asdict(job.mix) | {"config": job.settings.name, "max_length": job.settings.max_length}
    storage_manifest.write_manifest(
        job.folder / "data.manifest.json",
        "training data",
        {name: value for name, value in mix.items() if name not in ("data", "general")},
        [*job.mix.data, *job.mix.general],
        [job.folder / "train.jsonl"],
        corpus.counts,
        corpus.tokens,
        0.0,
    )
    checkpoint.write_trainer_copy(job.model, job.folder / "model")
    interval = max(1, min(10, schedule.iterations // 4))
    text = render(job.settings, "model", "train.jsonl", schedule.warmup_ratio, interval)
    (job.folder / "config.py").write_text(text, encoding="utf-8")
    shutil.rmtree(job.folder / "cache", ignore_errors=True)
