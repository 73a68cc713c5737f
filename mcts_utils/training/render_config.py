"""TrainSettings -> the text of an XTuner config, from the one template.

    .venv/bin/python -m mcts_utils.training.render_config     writes the configs of settings.py anew

A config so written stands alone: `xtuner train CONFIG` takes it once its model and data lines name something (for DPO:
pairs in tokens, as train.py writes them). In the template `@name@` is a value, `@name#@` the comment that says where
it comes from, and lines between `%if word` and `%end` (with `%else`) are there only where the word holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from mcts_utils.training.settings import CONFIGS, WARMUP_RATIO, TrainSettings

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "xtuner_config"
TEMPLATE = CONFIG_FOLDER / "base.py.in"
PLACE = re.compile(r"@(\w+)@")
SOURCE = re.compile(r" *@(\w+)#@")


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
        data: JSONL of `messages` rows; for DPO of pairs in tokens.
        log_interval: iterations between two log lines.
    """
    text = chosen(TEMPLATE.read_text(encoding="utf-8"), _conditions(settings))
    text = SOURCE.sub(lambda match: _source(settings.sources.get(match[1])), text)
    literals = {name: _literal(value) for name, value in _values(settings).items()} | {
        "name": settings.name,
        "model": _literal(model),
        "data": _literal(data),
        "warmup_ratio": _literal(warmup_ratio),
        "log_interval": _literal(log_interval),
        "lora_source": settings.sources.get("lora", ""),
        "quantized_source": settings.sources.get("quantized", ""),
    }
    return PLACE.sub(lambda match: literals[match[1]], text)


def chosen(text: str, holds: Mapping[str, bool]) -> str:
    """The lines whose condition holds. Conditions do not nest."""
    kept, keep = [], True
    for line in text.splitlines(keepends=True):
        word, _, name = line.strip().partition(" ")
        if word == "%if":
            keep = holds[name]
        elif word == "%else":
            keep = not keep
        elif word == "%end":
            keep = True
        elif keep:
            kept.append(line)
    return "".join(kept)


def _conditions(settings: TrainSettings) -> dict[str, bool]:
    return {
        "dpo": settings.method == "dpo",
        "lora": settings.lora is not None,
        "quantized": settings.quantized,
    }


def _values(settings: TrainSettings) -> dict[str, str | int | float | bool]:
    lora = settings.lora
    return {
        "system": settings.chat.system,
        "instruction": settings.chat.instruction,
        "suffix": settings.chat.suffix,
        "max_length": settings.max_length,
        "epochs": settings.epochs,
        "batch": settings.batch,
        "accumulation": settings.accumulation,
        "lr": settings.lr,
        "precision": f"torch.{settings.precision}",
        "recompute": settings.recompute,
        "backend": settings.backend,
        "seed": settings.seed,
        "beta": settings.beta,
        "rank": lora.rank if lora else 0,
        "alpha": lora.alpha if lora else 0,
        "dropout": lora.dropout if lora else 0,
    }


def _literal(value: str | int | float | bool) -> str:
    # JSON's strings are Python's, with the double quotes the formatter wants.
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _source(text: str | None) -> str:
    return f"  # {text}" if text else ""


if __name__ == "__main__":
    for named in CONFIGS.values():
        target = CONFIG_FOLDER / f"{named.name}.py"
        target.write_text(render(named, named.model, "train.jsonl"), encoding="utf-8")
        print(f"xtuner_config/{target.name}")
