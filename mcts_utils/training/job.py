"""One training run: its settings from the command line, its identity, and the folders it works in. Trains nothing."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from mcts_utils.storage import files as storage_files
from mcts_utils.storage import manifest as storage_manifest
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
    """What a run is given and where it works."""

    recipe: DataMix
    model: Path
    output: Path  # absolute
    settings: TrainSettings
    dtype: str  # of the weights written
    force: bool = False  # start although memory or disk look too small

    @property
    def partial(self) -> Path:
        """Becomes `output` when all is done, so that a folder of that name is always whole."""
        return self.output.with_name(self.output.name + ".partial")

    @property
    def folder(self) -> Path:
        """Where the trainer runs; config.py, train.jsonl and the logs stay there."""
        return self.partial / "train"

    def identity(self) -> str:
        """sha256 over all that decides the result, files by content: a run is the same run if this is the same."""
        files = [*checkpoint.weight_files(self.model), *checkpoint.small_files(self.model)]
        facts = {
            "settings": asdict(self.settings),
            "eta": self.recipe.eta,
            "max_per_task": self.recipe.max_per_task,
            "long": self.recipe.long,
            "dtype": self.dtype,
            "data": [storage_files.sha256_file(path) for path in self.recipe.data],
            "general": [storage_files.sha256_file(path) for path in self.recipe.general],
            "model": {path.name: storage_files.sha256_file(path) for path in files},
            "template": storage_files.sha256_file(TEMPLATE),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Parser(argparse.ArgumentParser):
    """Errors as InputError, which prints as one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def parse(description: str, argv: Sequence[str] | None) -> tuple[TrainingJob, bool]:
    """The job of a command line, and whether it is only to be prepared."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="JSONL of path_collection.py")
    parser.add_argument(
        "--general", nargs="+", default=[], help="ShareGPT rows: JSONL, or a JSON list in *.json"
    )
    parser.add_argument("--eta", type=float, help="share of agent rows; 0.2 with --general, 1 without")
    parser.add_argument(
        "--max_per_task", type=int, default=0, help="rows of one task and kind; 0: all of them"
    )
    parser.add_argument(
        "--long",
        choices=(CUT, DROP),
        default=CUT,
        help="what becomes of rows over --max_length; default: cut",
    )
    parser.add_argument("--model_dir", required=True, help="local folder of the model to start from")
    parser.add_argument(
        "--output_dir", required=True, help="folder of the trained model; must not hold another"
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="tiny_actor")
    for name in OVERRIDES:
        parser.add_argument(f"--{name}", type=float if name == "lr" else int, help="default: the config's")
    parser.add_argument(
        "--dtype", choices=sorted(checkpoint.DTYPES), help="of the result; default: the model's"
    )
    parser.add_argument(
        "--force", type=int, choices=(0, 1), default=0, help="1: start although memory or disk look too small"
    )
    parser.add_argument(
        "--prepare", action="store_true", help="write everything, print the command, train nothing"
    )
    args = parser.parse_args(argv)
    return job_of(args), args.prepare


def job_of(args: argparse.Namespace) -> TrainingJob:
    """Check the values against each other and against the model."""
    given: dict[str, Any] = {
        name: getattr(args, name) for name in OVERRIDES if getattr(args, name) is not None
    }
    for name, value in given.items():
        if not (0 < value < float("inf")) and not (name == "seed" and value == 0):
            raise InputError(f"--{name} must be above 0, not {value!r}")
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
    recipe = DataMix(
        args.data, args.general, eta, settings.seed, args.max_per_task, args.long, settings.method == "dpo"
    )
    return TrainingJob(recipe, model, output, settings, dtype, bool(args.force))


def is_done(job: TrainingJob, identity: str) -> bool:
    """Whether `output` already holds this very run.

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


def begun(job: TrainingJob, identity: str, devices: int) -> bool:
    """Whether this very run has written its inputs."""
    marker, wanted = job.partial / "inputs.json", {"inputs_sha256": identity, "devices": devices}
    try:
        return (job.folder / "config.py").is_file() and storage_files.read_json(marker) == wanted
    except InputError:  # not there, or just being replaced
        return False


def open_work_folder(job: TrainingJob, identity: str, devices: int) -> None:
    """Keep the partial folder if this very run began it, else begin it anew."""
    marker, facts = job.partial / "inputs.json", {"inputs_sha256": identity, "devices": devices}
    if job.partial.exists():
        if not marker.is_file():
            raise InputError(
                f"--output_dir: {job.partial} exists and is no unfinished training run: move it away"
            )
        if storage_files.read_json(marker) != facts:
            shutil.rmtree(job.partial)
    job.folder.mkdir(parents=True, exist_ok=True)
    storage_files.write_json(marker, facts)


def write_inputs(job: TrainingJob, corpus: Corpus, schedule: Schedule) -> None:
    """train.jsonl with its manifest, model/ and config.py, which names the other two relative to its own folder."""
    storage_files.write_jsonl(job.folder / "train.jsonl", corpus.rows)
    recipe = asdict(job.recipe) | {"config": job.settings.name, "max_length": job.settings.max_length}
    storage_manifest.write_manifest(
        job.folder / "data.manifest.json",
        "training data",
        {name: value for name, value in recipe.items() if name not in ("data", "general")},
        [*job.recipe.data, *job.recipe.general],
        [job.folder / "train.jsonl"],
        corpus.counts,
        corpus.tokens,
        0.0,
    )
    checkpoint.stage(job.model, job.folder / "model")
    interval = max(1, min(10, schedule.iterations // 4))
    text = render(job.settings, "model", "train.jsonl", schedule.warmup_ratio, interval)
    (job.folder / "config.py").write_text(text, encoding="utf-8")
    shutil.rmtree(job.folder / "cache", ignore_errors=True)
