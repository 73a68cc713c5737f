"""Name the columns of a row in tokens as other trainers read them (`--format tokens --for NAME`). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcts_utils.training.encoding import IGNORED

Row = Mapping[str, Any]  # input_ids and labels


def any_reader(row: Row) -> dict[str, Any]:
    """Return what most trainers know: the ids, the labels and a mask of 0 and 1."""
    return {**row, "loss_mask": mask_of(row["labels"])}


def trl(row: Row) -> dict[str, Any]:
    """Return a row of TRL's SFTTrainer, which takes the labels as they are."""
    return dict(row)


def llamafactory(row: Row) -> dict[str, Any]:
    """Return a row of a data set that LLaMA-Factory loads from its `tokenized_path`."""
    return {
        "input_ids": row["input_ids"],
        "attention_mask": [1] * len(row["input_ids"]),
        "labels": row["labels"],
    }


def verl(row: Row) -> dict[str, Any]:
    """Return what a data set of verl's SFT trainer gives, in both of its padding modes."""
    ids, mask = row["input_ids"], mask_of(row["labels"])
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "position_ids": list(range(len(ids))),
        "loss_mask": mask,
    }


def skyrl(row: Row) -> dict[str, Any]:
    """Return a tokenized example of SkyRL's SFT trainer: its mask begins with the first trained token."""
    ids, mask = row["input_ids"], response_mask(row["labels"])
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "num_actions": len(mask), "loss_mask": mask}


def slime(row: Row) -> dict[str, Any]:
    """Return a sample of slime: its mask begins with the first trained token."""
    mask = response_mask(row["labels"])
    known = {"tokens": row["input_ids"], "response_length": len(mask), "loss_mask": mask}
    return {**known, "reward": 0.0, "status": "completed"}


def mask_of(labels: Sequence[int]) -> list[int]:
    """Return 1 for each token with loss, else 0."""
    return [int(label != IGNORED) for label in labels]


def response_mask(labels: Sequence[int]) -> list[int]:
    """Return the mask from the first token with loss on."""
    mask = mask_of(labels)
    return mask[mask.index(1) :] if 1 in mask else []


READERS: dict[str, Callable[[Row], dict[str, Any]]] = {
    "any": any_reader,
    "trl": trl,
    "llamafactory": llamafactory,
    "verl": verl,
    "skyrl": skyrl,
    "slime": slime,
}
