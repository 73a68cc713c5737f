"""Write the tensors that XTuner's own code makes of prepared training folders, as JSON.

Runs in the trainer's environment, so it imports nothing of this package:

    XTUNER_PYTHON tests/helpers/dump_tensors.py FOLDER...

FOLDER holds config.py and train.jsonl; dump.json is written there. A row is a list of sequences {input_ids, labels}:
one for a conversation, two (chosen, rejected) for a preference pair.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def rows_of(config: str) -> list[list[dict[str, Any]]]:
    """Return every row of the config's data, after its dataset and its collate function."""
    from mmengine.config import Config
    from xtuner.registry import BUILDER
    from xtuner.tools.train import register_function

    cfg = Config.fromfile(config)
    loader = cfg.train_dataloader
    collate, options = loader.collate_fn.type, {k: v for k, v in loader.collate_fn.items() if k != "type"}
    register_function(cfg._cfg_dict)
    rows = []
    for row in BUILDER.build(loader.dataset):
        data = collate([row], **options)["data"]
        lengths = data["attention_mask"].sum(-1).tolist()
        ids, labels = data["input_ids"].tolist(), data["labels"].tolist()
        sides = zip(ids, labels, lengths, strict=True)
        rows.append([{"input_ids": i[:length], "labels": label[:length]} for i, label, length in sides])
    return rows


def rates_of(config: str) -> list[float]:
    """Return the learning rate of each iteration of a config's schedule on one device, by mmengine's schedulers."""
    import torch
    from mmengine.config import Config

    cfg = Config.fromfile(config)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=cfg.lr)
    length = -(-cfg.rows // cfg.batch_size)
    parts = [{k: v for k, v in part.items() if k != "convert_to_iter_based"} for part in cfg.param_scheduler]
    schedulers = [
        part.pop("type").build_iter_from_epoch(optimizer=optimizer, epoch_length=length, **part)
        for part in parts
    ]
    rates = []
    for _ in range(cfg.max_epochs * length):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        os.chdir(folder)
        with open("dump.json", "w", encoding="utf-8") as file:
            json.dump(rows_of("config.py"), file)
