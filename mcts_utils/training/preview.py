"""Which tokens of a row will be trained: the row as XTuner's own code makes it, with the trained tokens marked.

    .venv/bin/python xtuner_config/preview.py --data FILE --row N --model_dir DIR [--config NAME] [--html out.html]

FILE holds stage 2's rows, preference pairs or general (ShareGPT) rows; N counts from 1. Without --config it is the one
whose chat patterns are the model's. The tensors come from XTuner's dataset and collate function, in its environment.
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
from mcts_utils.training import checkpoint, corpus, dataset, launcher, loss_mask
from mcts_utils.training.chat_format import encode
from mcts_utils.training.corpus import Corpus, DataMix
from mcts_utils.training.job import Parser, TrainingJob, write_inputs
from mcts_utils.training.lr_schedule import Schedule
from mcts_utils.training.row_filter import Kept, Screen
from mcts_utils.training.settings import CONFIGS, TrainSettings
from mcts_utils.training.train import screen_of
from mcts_utils.types import InputError

TITLES = {1: ("",), 2: ("chosen", "rejected")}


def preview(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, list[loss_mask.Shown]]:
    """Title and sequences of the row.

    Raises:
        InputError: naming the row or the flag, if the row is not there or would not be trained.
    """
    checkpoint.weight_files(Path(args.model_dir))
    row, source = row_at(args.data, args.row), f"{args.data} row {args.row}"
    pair = dataset.PREFERENCE == row.get("kind") or {"chosen", "rejected"} <= set(row)
    item, screen, settings = screened(row, source, Path(args.model_dir), pair, args.config)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            DataMix([], [], 1.0, 0, pairs=pair),
            Path(args.model_dir).resolve(),
            Path(folder, "row"),
            settings,
            "",
        )
        job.folder.mkdir(parents=True)
        write_inputs(job, Corpus([corpus.row_of(item, screen)], {}, {}, []), Schedule(1, 1, 0, 0.0))
        found = dumped(job.folder, environ)
    decode = _decoder(screen.tokenizer)
    names = TITLES[len(found[0])]
    sides = zip(names, found[0], strict=True)
    shown = [loss_mask.sequence(name, side["input_ids"], side["labels"], decode) for name, side in sides]
    kind, env = item.conversation.kind, item.conversation.env
    return f"{source}: {kind}{', ' + env if env else ''}, --config {settings.name}", shown


def row_at(path: str, number: int) -> dict[str, Any]:
    """A row of a JSONL file or of a JSON list, counted from 1."""
    row = next(islice(corpus.general_rows(path), max(number - 1, 0), None), None) if number > 0 else None
    if not isinstance(row, dict):
        raise InputError(f"--row {number}: {path} has no such row")
    return row


def screened(
    row: dict[str, Any], source: str, model: Path, pair: bool, config: str | None
) -> tuple[Kept, Screen, TrainSettings]:
    """The row as it would be trained, with the config that fits."""
    method = "dpo" if pair else "sft"
    named = (
        [CONFIGS[config]] if config else [s for s in CONFIGS.values() if s.method == method and not s.lora]
    )
    if config and named[0].method != method:
        raise InputError(f"--config {config} is for {named[0].method}, and {source} is a row for {method}")
    window = files.read_json(model / "config.json").get("max_position_embeddings")
    wrong: InputError | None = None
    for settings in named:
        settings = replace(settings, max_length=min(settings.max_length, window or settings.max_length))
        screen = screen_of(TrainingJob(DataMix([], [], 1.0, 0), model, Path(), settings, ""))
        conversation = (
            dataset.preference_pair(row, source).chosen if pair else corpus.any_conversation(row, source)
        )
        try:
            next(encode(screen.tokenizer, screen.chat, [conversation]))
        except InputError as error:  # another model's chat patterns
            wrong = error
            continue
        kept = (
            screen.kept_pairs([dataset.preference_pair(row, source)]) if pair else screen.kept([conversation])
        )
        item = next(iter(kept), None)
        for note in screen.notes():
            print(f"preview.py: note: {note}", file=sys.stderr)
        if item is None:
            raise InputError(f"{source} would not be trained: {'; '.join(screen.notes())}")
        return item, screen, settings
    assert wrong is not None
    raise wrong


def dumped(folder: Path, environ: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    """What dump.py says of a prepared folder."""
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
    """Print the row, or write its page; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--row", type=int, required=True, help="from 1")
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--config", choices=sorted(CONFIGS))
    parser.add_argument("--html", help="write a page in place of the terminal's colours")
    try:
        args = parser.parse_args(argv)
        title, shown = preview(args, os.environ if environ is None else environ)
    except InputError as error:
        print(f"preview.py: {error}", file=sys.stderr)
        return 2
    if args.html:
        Path(args.html).write_text(loss_mask.to_html(title, shown), encoding="utf-8")
        print(f"preview.py: {title}: {'; '.join(item.caption for item in shown)}: {args.html}")
    else:
        sys.stdout.write(loss_mask.to_ansi(title, shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
