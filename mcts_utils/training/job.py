"""One training run: its settings from the command line, its identity and its folders. It starts no training."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mcts_utils.actors.chat_tokens import read_template
from mcts_utils.config.declare import MAX_SEED
from mcts_utils.storage import files as storage_files
from mcts_utils.storage import manifest as storage_manifest
from mcts_utils.terminal import Parser, between
from mcts_utils.training import checkpoint, preflight
from mcts_utils.training.corpus import Corpus, DataMix
from mcts_utils.training.render_config import render
from mcts_utils.training.row_filter import CUT, DROP, default_template
from mcts_utils.training.settings import CONFIGS, TrainSettings
from mcts_utils.types import InputError

DEFAULT_ETA = 0.2  # Section 3.2
OVERRIDES = {  # flag -> its numbers
    "epochs": between(1, 1_000_000),
    "lr": between(1e-12, 10, float),
    "batch": between(1, 100_000),
    "accumulation": between(1, 100_000),
    "max_length": between(1, 10**7),
    "seed": between(0, MAX_SEED),
}
# The identity of a run held the hash of base.py.in, which other configs change, and not the config: this one's ...
EARLIER_TEMPLATE = "ea13a873200a1524a4605852be26543dc72bb0985ead49fec6fb7b152490dedf"
# ... and, with these, the hash of the time before rows were given in tokens. All give the same trained tokens.
FIRST_TEMPLATE = "9b43e8bbcdfa11a0217011b04c588cc3657e80293dd6e5831b9308c875a1d954"
EARLIER_CHATS = {
    "tiny_actor": ("<|system|>{system}<|end|>", "<|user|>{input}<|end|><|assistant|>", "<|end|>", "", False),
    "llama3_8b_instruct": (
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        True,
    ),
}


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The inputs, settings and folders of one run."""

    mix: DataMix
    model: Path
    output: Path  # absolute
    settings: TrainSettings
    dtype: str  # of the weights that are written: a value of checkpoint.DTYPES
    force: bool = False  # start even if memory or disk space seem too small
    chat_template: str = ""  # file of a chat template in place of the model's own

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
        return _sha256(self.facts())

    def earlier_identities(self) -> list[str]:
        """Return the identities that earlier versions gave this run, as far as they could train it."""
        if self.settings.autocast:
            return []
        facts = self.facts() | {"template": EARLIER_TEMPLATE, "settings": asdict(self.settings)}
        del facts["config"], facts["settings"]["autocast"]
        found = [_sha256(facts)]
        name = next((name for name in EARLIER_CHATS if self.settings.name.startswith(name)), None)
        if name is not None and not self.chat_template:
            parts = ("system", "instruction", "suffix", "preamble", "strip")
            facts["settings"]["chat"] = dict(zip(parts, EARLIER_CHATS[name], strict=True))
            found.append(_sha256(facts | {"template": FIRST_TEMPLATE}))
        return found

    def facts(self) -> dict[str, Any]:
        """Return what the identity is made of."""
        files = [*checkpoint.weight_files(self.model), *checkpoint.small_files(self.model)]
        config = render(self.settings, "model", "train.jsonl").splitlines()
        facts = {
            "settings": asdict(replace(self.settings, sources={})),
            "eta": self.mix.eta,
            "max_per_task": self.mix.max_per_task,
            "long": self.mix.long,
            "dtype": self.dtype,
            "data": [storage_files.sha256_file(path) for path in self.mix.data],
            "general": [storage_files.sha256_file(path) for path in self.mix.general],
            "model": {path.name: storage_files.sha256_file(path) for path in files},
            "config": [line.partition("  # ")[0] for line in config if not line.startswith("#")],
        }
        if self.chat_template:
            facts["chat_template"] = storage_files.sha256_file(self.chat_template)
        return facts


def _sha256(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def parse(
    description: str, argv: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[TrainingJob, str]:
    """Return the job of a command line, and what alone is to be done: `dry_run`, `prepare` or "".

    CHAT_TEMPLATE is a flag's default.

    Raises:
        InputError: if a flag is unknown, missing or has a bad value.
    """
    args = _parser(description, default_template(environ)).parse_args(argv)
    return job_of(args), "dry_run" if args.dry_run else "prepare" if args.prepare else ""


def _parser(description: str, chat_template: str) -> Parser:
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", required=True, help="JSONL of path_collection.py")
    add("--general", nargs="+", default=[], help="ShareGPT rows: JSONL, or a JSON list in *.json")
    share = "share of agent rows; 0.2 with --general, 1 without"
    add("--eta", type=between(1e-6, 1, float), help=share)
    most = "most rows of one task and kind; 0: no limit"
    add("--max_per_task", type=between(0, 1_000_000), default=0, help=most)
    fate = "what becomes of rows over --max_length; default: cut"
    add("--long", choices=(CUT, DROP), default=CUT, help=fate)
    add("--model_dir", required=True, help="local folder of the model to start from")
    add("--output_dir", required=True, help="folder of the trained model; must not hold another one")
    configs = "default: tiny_actor for models of less than 20 million weights, else full"
    add("--config", choices=CONFIGS, help=configs)
    template = "Jinja file in place of the model's own; default: CHAT_TEMPLATE"
    add("--chat_template", default=chat_template, help=template)
    for name, kind in OVERRIDES.items():
        add(f"--{name}", type=kind, help="default: the config's")
    dtypes = sorted(checkpoint.DTYPES.values())
    add("--dtype", choices=dtypes, help="of the result; default: the model's")
    parser.add_switch("--force", 0, "1: start even if memory or disk space seem too small")
    parser.add_dry_run("say what it would do and take; writes and trains nothing")
    add("--prepare", action="store_true", help="write everything, print the command, train nothing")
    return parser


def job_of(args: argparse.Namespace) -> TrainingJob:
    """Return the job of parsed flags.

    Raises:
        InputError: naming the flag, if a value is out of range or does not fit the others or the model.
    """
    if args.eta is not None and args.eta != 1 and not args.general:
        raise InputError(f"--eta {args.eta} asks for general rows: name their file with --general")
    eta = args.eta if args.eta is not None else DEFAULT_ETA if args.general else 1.0
    model, output = Path(args.model_dir), Path(args.output_dir).resolve()
    checkpoint.weight_files(model)
    if args.chat_template:
        read_template(args.chat_template)
    settings = _settings(args, model)
    mix = DataMix(
        args.data, args.general, eta, settings.seed, args.max_per_task, args.long, settings.method == "dpo"
    )
    dtype = args.dtype or checkpoint.stored_dtype(model)
    return TrainingJob(mix, model, output, settings, dtype, bool(args.force), args.chat_template)


def _settings(args: argparse.Namespace, model: Path) -> TrainSettings:
    """Return the config's settings with those of the command line, and rows no longer than the model takes."""
    given = {name: value for name in OVERRIDES if (value := getattr(args, name)) is not None}
    settings = CONFIGS[args.config] if args.config else preflight.default_config(model)
    if settings.method == "dpo" and args.general:
        raise InputError(
            f"--general: --config {settings.name} trains preference pairs, which general rows are not"
        )
    window = checkpoint.window(model)
    if window and given.get("max_length", 0) > window:
        raise InputError(f"--max_length {given['max_length']} is over the model's window of {window} tokens")
    changes: dict[str, Any] = {"max_length": min(settings.max_length, window or settings.max_length)} | given
    sources = {**settings.sources, **dict.fromkeys(given, "the command line")}
    return replace(settings, **changes, sources=sources)


def is_done(job: TrainingJob, identity: str) -> bool:
    """Return whether `output` holds the result of this run; raise InputError if it holds anything else."""
    if not job.output.exists() or (job.output.is_dir() and not any(job.output.iterdir())):
        return False
    manifest = job.output / "manifest.json"
    found = storage_files.read_json(manifest).get("settings", {}) if manifest.is_file() else {}
    trained = found.get("inputs_sha256")
    if trained and (trained == identity or trained in job.earlier_identities()):
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


def write_inputs(job: TrainingJob, corpus: Corpus) -> None:
    """Write train.jsonl with its manifest, model/ and config.py, which names the other two by relative paths."""
    storage_files.write_jsonl(job.folder / "train.jsonl", corpus.rows)
    mix = asdict(job.mix) | {"config": job.settings.name, "max_length": job.settings.max_length}
    manifest, rows = job.folder / "data.manifest.json", job.folder / "train.jsonl"
    settings = {name: value for name, value in mix.items() if name not in ("data", "general")}
    inputs, made = [*job.mix.data, *job.mix.general], (corpus.counts, corpus.tokens)
    storage_manifest.write_manifest(manifest, "training data", settings, inputs, [rows], *made, 0.0)
    checkpoint.write_trainer_copy(job.model, job.folder / "model")
    storage_files.write_bytes(
        job.folder / "config.py", [render(job.settings, "model", "train.jsonl").encode()]
    )
    shutil.rmtree(job.folder / "cache", ignore_errors=True)
