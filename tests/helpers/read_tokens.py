"""Read rows in tokens with the code of a trainer itself, and print what it trains. No test by itself.

It runs in an environment that has the trainer, so it imports nothing of this package:

    PYTHON tests/helpers/read_tokens.py READER ROWS.jsonl

prints a JSON list with [ids, places of the tokens with loss] of each row. Exit code 3: the trainer is not installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import typing
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

Found = list[tuple[list[int], list[int]]]


def labelled(batch: Any) -> Found:
    """What labels say; -100 has no loss."""
    rows = zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    return [
        (ids[on == 1].tolist(), (labels[on == 1] != -100).nonzero()[:, 0].tolist())
        for ids, labels, on in rows
    ]


def trl(rows: list[Any], path: str) -> Found:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return labelled(
        {"attention_mask": 1, **_with_mask(DataCollatorForLanguageModeling(pad_token_id=0)(rows), rows)}
    )


def _with_mask(batch: Any, rows: list[Any]) -> Any:
    import torch

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    places = torch.arange(batch["input_ids"].shape[1])
    return {**batch, "attention_mask": (places[None] < lengths[:, None]).int()}


def llamafactory(rows: list[Any], path: str) -> Found:
    from datasets import load_dataset
    from llamafactory.data.collator import MultiModalDataCollatorForSeq2Seq
    from llamafactory.data.loader import get_dataset
    from llamafactory.data.template import TEMPLATES
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        load_dataset("json", data_files=path).save_to_disk(folder + "/rows")
        args = SimpleNamespace(tokenized_path=folder + "/rows", streaming=False)
        found = get_dataset(None, None, args, None, "sft", None)["train_dataset"].to_list()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>")
    collator = MultiModalDataCollatorForSeq2Seq(tokenizer=tokenizer, template=TEMPLATES["empty"])
    return labelled(collator(found))


def verl(rows: list[Any], path: str) -> Found:
    import torch
    from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
    from verl.workers.utils.losses import sft_loss

    found = []
    tensors = [{name: torch.tensor(value) for name, value in row.items()} for row in rows]
    for row in tensors:
        batch = SFTTensorCollator(DatasetPadMode.NO_PADDING)([row])
        # The loss is minus the sum of what it counts; the log-probability at a place is of the next token.
        scores = torch.nested.as_nested_tensor([torch.zeros(len(row["input_ids"]))], layout=torch.jagged)
        values = scores.values().requires_grad_()
        data = {
            "loss_mask": batch["loss_mask"],
            "dp_size": 1,
            "batch_num_tokens": 1,
            "pad_mode": DatasetPadMode.NO_PADDING,
        }
        sft_loss(None, {"log_probs": SimpleNamespace(values=partial(values.view, -1))}, data)[0].backward()
        places = [place + 1 for place in values.grad.nonzero()[:, 0].tolist()]
        found.append((batch["input_ids"].values().tolist(), places))
    return found


def skyrl(rows: list[Any], path: str) -> Found:
    from skyrl.train.sft_trainer import collate_sft_batch

    batch = collate_sft_batch(rows, SimpleNamespace(pad_token_id=0))
    found = []
    for ids, on, mask in zip(batch["sequences"], batch["attention_mask"], batch["loss_mask"], strict=True):
        places = mask.nonzero()[:, 0] + len(ids) - len(mask)  # actions end where the padded row ends
        start = len(ids) - int(on.sum())
        found.append((ids[start:].tolist(), (places - start).tolist()))
    return found


def slime(rows: list[Any], path: str) -> Found:
    from slime.utils.types import Sample

    found = []
    for sample in map(Sample.from_dict, rows):
        sample._validate_response_metadata_lengths()
        start = len(sample.tokens) - sample.response_length
        found.append((sample.tokens, [start + place for place, on in enumerate(sample.loss_mask) if on]))
    return found


if __name__ == "__main__":
    reader, name = sys.argv[1:]
    try:
        import typing_extensions

        typing.TypedDict = typing_extensions.TypedDict  # what pydantic asks for below Python 3.12
    except ImportError:
        pass
    if find_spec(reader) is None:
        print(f"{reader} is not installed", file=sys.stderr)
        sys.exit(3)
    with open(name, encoding="utf-8") as file:
        given = [json.loads(line) for line in file]
    try:
        read = globals()[reader](given, name)
    except ImportError as error:
        print(f"{reader} is not installed: {error}".splitlines()[0], file=sys.stderr)
        sys.exit(3)
    print(json.dumps(read))
