"""TrainSettings -> the text of an XTuner config, from the one template.

    .venv/bin/python xtuner_config/render.py     writes tiny_actor.py and llama3_8b_instruct_full_agent_r.py anew

A config so written stands alone: `xtuner train CONFIG` takes it once its model and data lines name something.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # run as a file, Python would look for packages beside it

from xtuner_config.settings import CONFIGS, WARMUP_RATIO, TrainSettings  # noqa: E402

TEMPLATE = Path(__file__).with_name("base.py.in")
PLACE = re.compile(r"@(\w+)@")


def render(
    settings: TrainSettings,
    model: str,
    data: str,
    warmup_ratio: float = WARMUP_RATIO,
    log_interval: int = 10,
) -> str:
    """The config's text.

    Args:
        model: folder or hub name of the model in the form that the trainer's `transformers` reads.
        data: JSONL of `messages` rows.
        log_interval: iterations between two log lines.
    """
    values: dict[str, str | int | float | bool] = {
        "model": model,
        "data": data,
        "system": settings.chat.system,
        "instruction": settings.chat.instruction,
        "suffix": settings.chat.suffix,
        "max_length": settings.max_length,
        "epochs": settings.epochs,
        "batch": settings.batch,
        "accumulation": settings.accumulation,
        "lr": settings.lr,
        "warmup_ratio": warmup_ratio,
        "precision": f"torch.{settings.precision}",
        "recompute": settings.recompute,
        "backend": settings.backend,
        "seed": settings.seed,
        "log_interval": log_interval,
    }
    literals = {name: _literal(value) for name, value in values.items()} | {"name": settings.name}
    return PLACE.sub(lambda match: literals[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def _literal(value: str | int | float | bool) -> str:
    # JSON's strings are Python's, with the double quotes the formatter wants.
    return json.dumps(value) if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    for named in CONFIGS.values():
        target = Path(__file__).with_name(f"{named.name}.py")
        target.write_text(render(named, named.model, "train.jsonl"), encoding="utf-8")
        print(target.relative_to(ROOT))
