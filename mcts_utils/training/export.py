"""The records for other trainers, with exactly the same turns trained.

    .venv/bin/python xtuner_config/export.py --data A.jsonl [B.jsonl ...] --format trl|llamafactory|openai --output FILE

openai        messages; `weight` 0 or 1 on every assistant message is the loss flag
trl           prompt and completion, one row for each trained turn: TRL trains the completion. Its per-message way
              (assistant_only_loss) trains every assistant turn, so it cannot keep the flags
llamafactory  ShareGPT; where every assistant turn is trained the rows stay whole, else one row for each trained turn,
              to be trained with `mask_history: true` (the last turn only)

Rows that are split train the same turns after the same text; what changes is the weight of a row: there the mean is
over one turn's tokens, here over all of a row's. A row whose flags cannot be kept is refused by name. Exit code 2: bad
input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mcts_utils.storage import files
from mcts_utils.training import corpus, dataset
from mcts_utils.training.dataset import Conversation
from mcts_utils.training.job import Parser
from mcts_utils.types import InputError, Message

SHAREGPT = {"user": "human", "assistant": "gpt"}
FORMATS = ("trl", "llamafactory", "openai")


def conversations(paths: Sequence[str]) -> Iterator[Conversation]:
    """Records and general rows of the files.

    Raises:
        InputError: naming the row, if it is a preference pair, cannot be trained or trains nothing.
    """
    for row, source in corpus.read_records(paths):
        if {"chosen", "rejected"} <= set(row):
            raise InputError(
                f"{source}: a preference pair; its answers hold observations, which other trainers' DPO would count"
            )
        conversation = corpus.any_conversation(row, source)
        if not conversation.trained_turns:
            raise InputError(f"{source}: no turn carries loss")
        yield conversation


def split(messages: Sequence[Message]) -> Iterator[tuple[Sequence[Message], Message]]:
    """(what comes before, the turn) for each trained turn."""
    for index, message in enumerate(messages):
        if message.loss:
            yield messages[:index], message


def openai_row(messages: Sequence[Message]) -> dict[str, Any]:
    """OpenAI's fine-tuning row."""
    rows = [
        _plain(message) | ({"weight": int(message.loss)} if message.role == "assistant" else {})
        for message in messages
    ]
    return {"messages": rows}


def trl_row(before: Sequence[Message], turn: Message) -> dict[str, Any]:
    """TRL's conversational prompt-completion row."""
    return {"prompt": [_plain(message) for message in before], "completion": [_plain(turn)]}


def llamafactory_row(messages: Sequence[Message]) -> dict[str, Any]:
    """LLaMA-Factory's ShareGPT row, the system turn in a column of its own."""
    system = messages[0].content if messages[0].role == "system" else ""
    turns = [{"from": SHAREGPT[m.role], "value": m.content} for m in messages if m.role != "system"]
    return {"conversations": turns, "system": system}


def export(found: Iterable[Conversation], form: str) -> tuple[list[dict[str, Any]], str]:
    """The rows, and what the other trainer must be told."""
    every = [conversation.messages for conversation in found]
    if form == "openai":
        return [openai_row(messages) for messages in every], "weight 1 on the trained turns"
    pieces = [piece for messages in every for piece in split(messages)]
    if form == "trl":
        return [trl_row(*piece) for piece in pieces], "SFTConfig(completion_only_loss=True), its default here"
    if all(message.loss for messages in every for message in messages if message.role == "assistant"):
        return [llamafactory_row(messages) for messages in every], "mask_history: false"
    return [llamafactory_row([*before, turn]) for before, turn in pieces], "mask_history: true, no packing"


def dataset_info(output: Path) -> dict[str, Any]:
    """The entry that LLaMA-Factory's dataset_info.json wants."""
    columns = {"messages": "conversations", "system": "system"}
    return {output.stem: {"file_name": output.name, "formatting": "sharegpt", "columns": columns}}


def _plain(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", required=True)
    try:
        args = parser.parse_args(argv)
        found = list(conversations(args.data))
        if not found:
            raise InputError(f"--data {' '.join(args.data)}: no row")
        rows, advice = export(found, args.format)
        files.write_jsonl(args.output, rows)
    except InputError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    kinds = ", ".join(f"{count} {kind}" for kind, count in dataset.count_kinds(found).items())
    turns = sum(conversation.trained_turns for conversation in found)
    print(
        f"export.py: {len(found)} rows ({kinds}), {turns} trained turns -> {len(rows)} rows in {args.output}: {advice}"
    )
    if args.format == "llamafactory":
        print(f"dataset_info.json: {json.dumps(dataset_info(Path(args.output)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
