"""Write records in the formats of other trainers, with loss on exactly the same turns.

    .venv/bin/python xtuner_config/export.py --data A.jsonl [B.jsonl ...] --format FORMAT --output FILE
        [--model_dir DIR --max_length N --chat_template FILE]                (tokens and xtuner)
        [--for trl|llamafactory|verl|skyrl|slime]                            (tokens)

tokens        input_ids, labels (-100 without loss) and loss_mask (0 or 1), by the model's own chat template: what
              train.py trains, for any trainer that takes tokens (scripts/train_trl.py); `--for` names the columns as
              a trainer reads them
xtuner        the data file that a config in xtuner_config/ names: input_ids and labels, or the two sides of pairs
openai        messages; `weight` (0 or 1) of every assistant message is the loss flag
trl           prompt and completion, one row for each trained turn: TRL trains the completion. Its option
              assistant_only_loss trains every assistant turn, so it cannot express the flags
llamafactory  ShareGPT; a tool call is a function_call turn, its answer an observation. If every assistant turn is
              trained, the rows stay whole; otherwise one row for each trained turn, to be trained with
              `mask_history: true` (the last turn only)

openai and llamafactory rows whose turns were sampled without the reasoning of earlier ones are split likewise: a row
for each trained turn, which follows the turns as it saw them.

Split rows train the same turns after the same text, but weigh them differently: the mean loss is over the tokens of one
turn, not over those of the whole row. A row whose flags cannot be expressed is refused and named. Exit code 2: bad
input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcts_utils.actors.server_profile import calls_of
from mcts_utils.reasoning import shown_history, split_reasoning, with_reasoning
from mcts_utils.storage import files
from mcts_utils.storage.lock import reserved
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.tool_calls import arguments_object
from mcts_utils.training import checkpoint, corpus, dataset
from mcts_utils.training.dataset import Conversation
from mcts_utils.training.encoding import IGNORED
from mcts_utils.training.row_filter import default_template, row_filter_of
from mcts_utils.training.settings import FULL
from mcts_utils.training.token_columns import READERS
from mcts_utils.types import InputError, Message

SHAREGPT = {"user": "human", "assistant": "gpt", "tool": "observation"}
TOKEN_FORMATS = ("tokens", "xtuner")
FORMATS = (*TOKEN_FORMATS, "trl", "llamafactory", "openai")


def conversations(paths: Sequence[str]) -> Iterator[Conversation]:
    """Yield the conversations of record and general rows.

    Raises:
        InputError: naming the row, if it is a preference pair, cannot be trained or has no turn with loss.
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


def split(conversation: Conversation) -> Iterator[tuple[Sequence[Message], Message]]:
    """Yield (messages before it, the turn) for each trained turn."""
    for index, message in enumerate(conversation.messages):
        if message.loss:
            yield shown_history(conversation.messages[:index], conversation.history), message


def is_whole(conversation: Conversation) -> bool:
    """Return True if every turn saw the earlier ones as the conversation has them."""
    return shown_history(conversation.messages, conversation.history) == list(conversation.messages)


def alone(conversation: Conversation) -> Iterator[Sequence[Message]]:
    """Yield the conversation up to each trained turn, which alone carries loss there."""
    for before, turn in split(conversation):
        yield [*(replace(message, loss=False) for message in before), turn]


def openai_row(messages: Sequence[Message]) -> dict[str, Any]:
    """Return a row of OpenAI's fine-tuning format."""
    weights = [{"weight": int(turn.loss)} if turn.role == "assistant" else {} for turn in messages]
    rows = [_plain(turn) | weight for turn, weight in zip(messages, weights, strict=True)]
    return {"messages": rows} | _tools(messages)


def trl_row(before: Sequence[Message], turn: Message) -> dict[str, Any]:
    """Return a row of TRL's conversational prompt-completion format."""
    return {"prompt": [_plain(message) for message in before], "completion": [_plain(turn)]} | _tools(before)


def llamafactory_row(messages: Sequence[Message]) -> dict[str, Any]:
    """Return a row of LLaMA-Factory's ShareGPT format, with the system turn in its own column."""
    system = messages[0].content if messages[0].role == "system" else ""
    turns = [_sharegpt(message) for message in messages if message.role != "system"]
    tools = {"tools": messages[0].tools} if messages[0].tools else {}
    return {"conversations": turns, "system": system} | tools


def _sharegpt(message: Message) -> dict[str, str]:
    """Return a turn of ShareGPT's form.

    Raises:
        InputError: it has a text and calls; a turn has one or the other there.
    """
    if not message.tool_calls:
        return {"from": SHAREGPT[message.role], "value": message.content}
    reasoning, rest = split_reasoning(message.content)
    if rest.strip():
        raise InputError(
            f"--format llamafactory: a turn is text or a tool call there, and this is both: {rest[:60]!r}; tokens, "
            "openai and trl hold such turns"
        )
    calls = [{"name": call.name, "arguments": arguments_object(call)} for call in message.tool_calls]
    text = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    return {"from": "function_call", "value": with_reasoning(reasoning, text)}


def export(rows: Iterable[Conversation], form: str) -> tuple[list[dict[str, Any]], str]:
    """Return the rows in the format `form`, and the settings that the other trainer needs."""
    every = list(rows)
    if form == "openai":
        parts = [part for c in every for part in ([c.messages] if is_whole(c) else alone(c))]
        return [openai_row(messages) for messages in parts], "weight 1 on the trained turns"
    pieces = [piece for conversation in every for piece in split(conversation)]
    if form == "trl":
        return [trl_row(*piece) for piece in pieces], "SFTConfig(completion_only_loss=True), its default here"
    trained = all(turn.loss for c in every for turn in c.messages if turn.role == "assistant")
    if trained and all(map(is_whole, every)):
        return [llamafactory_row(c.messages) for c in every], "mask_history: false"
    return [llamafactory_row([*before, turn]) for before, turn in pieces], "mask_history: true, no packing"


def dataset_info(output: Path, tools: bool = False) -> dict[str, Any]:
    """Return the entry for LLaMA-Factory's dataset_info.json."""
    columns = {"messages": "conversations", "system": "system"} | ({"tools": "tools"} if tools else {})
    return {output.stem: {"file_name": output.name, "formatting": "sharegpt", "columns": columns}}


def _plain(message: Message) -> dict[str, Any]:
    """Return a turn as a chat request has it."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    row |= {"tool_calls": calls_of(message)} if message.tool_calls else {}
    return row | ({"tool_call_id": message.tool_call_id} if message.role == "tool" else {})


def _tools(messages: Sequence[Message]) -> dict[str, Any]:
    return {"tools": json.loads(messages[0].tools)} if messages[0].tools else {}


def token_rows(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows in tokens, in the files' order, and notes for the user.

    Raises:
        InputError: naming the flag that is missing, or the row that cannot be trained.
    """
    if not args.model_dir:
        raise InputError(f"--format {args.format} needs --model_dir, whose chat template makes the tokens")
    model = Path(args.model_dir)
    most = args.max_length or min(checkpoint.window(model) or FULL.max_length, FULL.max_length)
    row_filter = row_filter_of(model, most, args.chat_template or default_template(os.environ))
    first = next(corpus.read_records(args.data), ({}, ""))[0]
    if args.format == "xtuner" and {"chosen", "rejected"} <= set(first):
        pairs = (dataset.preference_pair(*found) for found in corpus.read_records(args.data))
        items = list(row_filter.filter_pairs(pairs))
    else:
        items = list(corpus.one_sequence_each(row_filter.filter_rows(conversations(args.data))))
    if not items:
        reasons = dict(row_filter.dropped) or "there is none"
        raise InputError(f"--data {' '.join(args.data)}: no row is left ({reasons})")
    return [corpus.row_of(item) for item in items], row_filter.notes()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", required=True)
    add("--format", choices=FORMATS, required=True)
    add("--output", required=True)
    add("--model_dir", help="for tokens and xtuner: the model's folder")
    most = "for tokens and xtuner; default: the model's, at most 8192"
    add("--max_length", type=between(1, 10**7), help=most)
    add("--chat_template", default="", help="default: CHAT_TEMPLATE")
    columns = "for tokens: the columns of this trainer (docs/training.md)"
    add("--for", dest="reader", choices=READERS, help=columns)

    def work() -> None:
        args = parser.parse_args(argv)
        if args.reader and args.format != "tokens":
            raise InputError(f"--for {args.reader} goes with --format tokens, not {args.format}")
        output = Path(args.output)
        with reserved(output.parent, output.name, "--output"):
            (write_tokens if args.format in TOKEN_FORMATS else write_export)(args)

    return run_command("export.py", work)


def write_tokens(args: argparse.Namespace) -> None:
    """Write rows in tokens and print what is in the file; raise InputError if there is no row."""
    rows, notes = token_rows(args)
    for note in notes:
        print(f"export.py: note: {note}", file=sys.stderr)
    columns = READERS[args.reader or "any"] if args.format == "tokens" else dict
    files.write_jsonl(args.output, (columns(row) for row in rows))
    tokens = [
        label for row in rows for name, labels in row.items() if name.endswith("labels") for label in labels
    ]
    trained = sum(label != IGNORED for label in tokens)
    print(f"export.py: {len(rows)} rows, {len(tokens)} tokens, {trained} trained, in {args.output}")


def write_export(args: argparse.Namespace) -> None:
    """Write the file and print what is in it; raise InputError if there is no row or a row cannot be read."""
    found = list(conversations(args.data))
    if not found:
        raise InputError(f"--data {' '.join(args.data)}: no row")
    rows, advice = export(found, args.format)
    files.write_jsonl(args.output, rows)
    kinds = ", ".join(f"{count} {kind}" for kind, count in dataset.count_kinds(found).items())
    turns = sum(conversation.trained_turns for conversation in found)
    made = f"{len(rows)} rows in {args.output}: {advice}"
    print(f"export.py: {len(found)} rows ({kinds}), {turns} trained turns -> {made}")
    if args.format == "llamafactory":
        print(f"dataset_info.json: {json.dumps(dataset_info(Path(args.output), 'tools' in rows[0]))}")
