"""Show which tokens of a row will be trained: the tokens that train.py gives to the trainer.

    .venv/bin/python xtuner_config/preview.py --data FILE --row N --model_dir DIR [--config NAME] [--chat_template F]
        [--html out.html]

FILE holds stage 2's rows, preference pairs or general (ShareGPT) rows; N counts from 1. Exit code 2: bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mcts_utils.storage.files import write_bytes
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.training import checkpoint, corpus, dataset, loss_mask
from mcts_utils.training.row_filter import default_template, row_filter_of
from mcts_utils.training.settings import CONFIGS, DPO, FULL
from mcts_utils.types import InputError


def preview(args: argparse.Namespace) -> tuple[str, list[loss_mask.MaskedSequence]]:
    """Return the title and the sequences of the row that the flags name, and print what was cut.

    Raises:
        InputError: naming the row or the flag, if the row does not exist or would not be trained.
    """
    row, source = row_at(args.data, args.row), f"{args.data} row {args.row}"
    pair = dataset.PREFERENCE == row.get("kind") or {"chosen", "rejected"} <= set(row)
    settings = CONFIGS[args.config] if args.config else DPO if pair else FULL
    if (settings.method == "dpo") != pair:
        other = f"{source} is a row for {'dpo' if pair else 'sft'}"
        raise InputError(f"--config {args.config} is for {settings.method}, and {other}")
    model = Path(args.model_dir)
    checkpoint.weight_files(model)
    most = min(settings.max_length, checkpoint.window(model) or settings.max_length)
    row_filter = row_filter_of(model, most, args.chat_template or default_template(os.environ))
    if pair:
        rows = row_filter.filter_pairs([dataset.preference_pair(row, source)])
    else:
        rows = row_filter.filter_rows([corpus.any_conversation(row, source)])
    item = next(iter(rows), None)
    if item is None:
        raise InputError(f"{source} would not be trained: {'; '.join(row_filter.notes())}")
    for note in row_filter.notes():
        print(f"preview.py: note: {note}", file=sys.stderr)
    count = len(item.sequences)
    parts = [f"part {n}" if count > 1 else "" for n in range(1, count + 1)]
    names = ["chosen", "rejected"] if pair else parts
    whole = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    decode = partial(row_filter.encoder.tokenizer.decode, **whole)
    shown = [
        loss_mask.mask_sequence(name, sequence.input_ids, sequence.labels, decode)
        for name, sequence in zip(names, item.sequences, strict=True)
    ]
    kind, env = item.conversation.kind, item.conversation.env
    return f"{source}: {kind}{', ' + env if env else ''}", shown


def row_at(path: str, number: int) -> dict[str, Any]:
    """Return row `number`, from 1, of a JSONL file or of a JSON list; raise InputError if there is no such row."""
    row = next(islice(corpus.general_rows(path), number - 1, None), None)
    if not isinstance(row, dict):
        raise InputError(f"--row {number}: {path} has no such row")
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Print the row or write its page; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--row", type=between(1, 10**9), required=True, help="from 1")
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--config", choices=CONFIGS, help="default: full, or dpo for a pair")
    parser.add_argument("--chat_template", default="", help="default: CHAT_TEMPLATE")
    parser.add_argument("--html", help="write a page in place of the terminal's colours")

    def work() -> None:
        args = parser.parse_args(argv)
        title, shown = preview(args)
        if args.html:
            write_bytes(args.html, [loss_mask.to_html(title, shown).encode()])
            print(f"preview.py: {title}: {'; '.join(item.caption for item in shown)}: {args.html}")
        else:
            sys.stdout.write(loss_mask.to_ansi(title, shown))

    return run_command("preview.py", work)
