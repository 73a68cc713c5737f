"""Show which tokens of a row will be trained, from the tensors that XTuner's own code makes of it.

    .venv/bin/python xtuner_config/preview.py --data FILE --row N --model_dir DIR [--config NAME] [--html out.html]

FILE holds stage 2's rows, preference pairs or general (ShareGPT) rows; N counts from 1. Without --config, the config
with the model's chat patterns is taken. The tensors come from XTuner's dataset and collate function, in XTuner's
environment. Exit code 2: bad input.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mcts_utils.storage import files
from mcts_utils.terminal import Parser, run_command
from mcts_utils.training import checkpoint, corpus, dataset, launcher, loss_mask
from mcts_utils.training.chat_format import encode
from mcts_utils.training.corpus import Corpus, DataMix
from mcts_utils.training.job import TrainingJob, write_inputs
from mcts_utils.training.lr_schedule import Schedule
from mcts_utils.training.row_filter import EncodedRow, RowFilter
from mcts_utils.training.settings import CONFIGS, TrainSettings
from mcts_utils.training.train import row_filter_of
from mcts_utils.types import InputError

SEQUENCE_NAMES = {1: ("",), 2: ("chosen", "rejected")}  # by the number of sequences of a row


def preview(
    args: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[str, list[loss_mask.MaskedSequence]]:
    """Return the title and the sequences of the row that the flags name.

    Raises:
        InputError: naming the row or the flag, if the row does not exist or would not be trained.
    """
    checkpoint.weight_files(Path(args.model_dir))
    row, source = row_at(args.data, args.row), f"{args.data} row {args.row}"
    pair = dataset.PREFERENCE == row.get("kind") or {"chosen", "rejected"} <= set(row)
    item, row_filter, settings = encode_row(row, source, Path(args.model_dir), pair, args.config)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            DataMix([], [], 1.0, 0, pairs=pair),
            Path(args.model_dir).resolve(),
            Path(folder, "row"),
            settings,
            "",
        )
        job.folder.mkdir(parents=True)
        write_inputs(job, Corpus([corpus.row_of(item, row_filter)], {}, {}, []), Schedule(1, 1, 0, 0.0))
        sequences = xtuner_tensors(job.folder, environ)[0]
    decode = _decoder(row_filter.tokenizer)
    sides = zip(SEQUENCE_NAMES[len(sequences)], sequences, strict=True)
    shown = [loss_mask.mask_sequence(name, side["input_ids"], side["labels"], decode) for name, side in sides]
    kind, env = item.conversation.kind, item.conversation.env
    return f"{source}: {kind}{', ' + env if env else ''}, --config {settings.name}", shown


def row_at(path: str, number: int) -> dict[str, Any]:
    """Return row `number`, from 1, of a JSONL file or of a JSON list.

    Raises:
        InputError: if there is no such row.
    """
    row = next(islice(corpus.general_rows(path), max(number - 1, 0), None), None) if number > 0 else None
    if not isinstance(row, dict):
        raise InputError(f"--row {number}: {path} has no such row")
    return row


def encode_row(
    row: dict[str, Any], source: str, model: Path, pair: bool, config: str | None
) -> tuple[EncodedRow, RowFilter, TrainSettings]:
    """Return the row as it would be trained, with its filter and the first config that fits the model.

    Raises:
        InputError: if the config is for rows of the other method, no config fits, or the row would not be trained.
    """
    configs = configs_for(model, source, "dpo" if pair else "sft", config)
    compared = dataset.preference_pair(row, source) if pair else None
    conversation = compared.chosen if compared else corpus.any_conversation(row, source)
    wrong: InputError | None = None
    for settings in configs:
        row_filter = row_filter_of(TrainingJob(DataMix([], [], 1.0, 0), model, Path(), settings, ""))
        try:
            next(encode(row_filter.tokenizer, row_filter.chat, [conversation]))
        except InputError as error:  # the chat patterns of another model
            wrong = error
            continue
        rows = row_filter.filter_pairs([compared]) if compared else row_filter.filter_rows([conversation])
        item = next(iter(rows), None)
        for note in row_filter.notes():
            print(f"preview.py: note: {note}", file=sys.stderr)
        if item is None:
            raise InputError(f"{source} would not be trained: {'; '.join(row_filter.notes())}")
        return item, row_filter, settings
    assert wrong is not None
    raise wrong


def configs_for(model: Path, source: str, method: str, config: str | None) -> list[TrainSettings]:
    """Return the config of that name, or all full-weight ones for `method`, with rows no longer than the model takes.

    Raises:
        InputError: if the named config is for another method.
    """
    if config and CONFIGS[config].method != method:
        raise InputError(
            f"--config {config} is for {CONFIGS[config].method}, and {source} is a row for {method}"
        )
    named = (
        [CONFIGS[config]] if config else [s for s in CONFIGS.values() if s.method == method and not s.lora]
    )
    window = files.read_json(model / "config.json").get("max_position_embeddings")
    return [replace(s, max_length=min(s.max_length, window or s.max_length)) for s in named]


def xtuner_tensors(folder: Path, environ: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    """Return what dump_tensors.py writes for a prepared folder: one list of {input_ids, labels} per row.

    Raises:
        InputError: if the trainer's interpreter fails.
    """
    python = launcher.trainer_python(environ)
    trainer = launcher.find_trainer(python, environ)
    command = [python, str(Path(__file__).with_name("dump_tensors.py")), str(folder)]
    inner = launcher.trainer_environ(environ, trainer.gpus)
    try:
        subprocess.run(command, cwd=folder, env=inner, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise InputError(f"XTUNER_PYTHON: {python} could not read the row: {error.stderr[-300:]}") from error
    return files.read_json(folder / "dump.json")


def _decoder(tokenizer: Any) -> Any:
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Print the row or write its page; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--row", type=int, required=True, help="from 1")
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--config", choices=sorted(CONFIGS))
    parser.add_argument("--html", help="write a page in place of the terminal's colours")

    def work() -> None:
        args = parser.parse_args(argv)
        title, shown = preview(args, os.environ if environ is None else environ)
        if args.html:
            Path(args.html).write_text(loss_mask.to_html(title, shown), encoding="utf-8")
            print(f"preview.py: {title}: {'; '.join(item.caption for item in shown)}: {args.html}")
        else:
            sys.stdout.write(loss_mask.to_ansi(title, shown))

    return run_command("preview.py", work)
