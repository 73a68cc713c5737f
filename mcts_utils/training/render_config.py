"""Render TrainSettings as the text of an XTuner config, from the template base.py.in.

    .venv/bin/python xtuner_config/render.py NAME     prints a config
    .venv/bin/python xtuner_config/render.py          writes the committed ones again

A rendered config needs nothing of this package: `xtuner train CONFIG` takes it once its model and data lines name
existing files; `export.py --format xtuner` writes the data file. In the template `@name@` stands for a value and
`@name#@` for a comment with its source; lines between `%if word` and `%end` (with `%else`) depend on a condition.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcts_utils.terminal import Parser, run_command
from mcts_utils.training.settings import CONFIGS, LLAMA3_8B, LLAMA3_8B_QLORA, TINY_ACTOR, TrainSettings

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "xtuner_config"
TEMPLATE = CONFIG_FOLDER / "base.py.in"
# To be read; the others render on request.
COMMITTED = (TINY_ACTOR.name, LLAMA3_8B.name, LLAMA3_8B_QLORA.name)
PLACEHOLDER = re.compile(r"@(\w+)@")
SOURCE = re.compile(r" *@(\w+)#@")


def render(settings: TrainSettings, model: str, data: str) -> str:
    """Return the text of the config.

    Args:
        model: folder or hub name of the model, in a form that the trainer's `transformers` reads.
        data: path of the JSONL with rows (for DPO, pairs) in tokens; its lines are counted when the config is read.
    """
    text = select_lines(TEMPLATE.read_text(encoding="utf-8"), _conditions(settings))
    text = SOURCE.sub(lambda match: _source(settings.sources.get(match[1])), text)
    literals = {name: _literal(value) for name, value in _values(settings).items()} | {
        "name": settings.name,
        "run": _run_line(settings),
        "model": _literal(model),
        "data": _literal(data),
        "lora_source": settings.sources.get("lora", ""),
        "quantized_source": settings.sources.get("quantized", ""),
    }
    return PLACEHOLDER.sub(lambda match: literals[match[1]], text)


def _run_line(settings: TrainSettings) -> str:
    processes = f"NPROC_PER_NODE={settings.gpus} " if settings.gpus > 1 else ""
    deepspeed = f" --deepspeed {settings.deepspeed}" if settings.deepspeed else ""
    return f"{processes}xtuner train xtuner_config/{settings.name}.py{deepspeed}"


def select_lines(text: str, conditions: Mapping[str, bool]) -> str:
    """Return the lines whose condition holds. Conditions do not nest."""
    kept, keep = [], True
    for line in text.splitlines(keepends=True):
        word, _, name = line.strip().partition(" ")
        if word == "%if":
            keep = conditions[name]
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
        "autocast": settings.autocast,
    }


def _values(settings: TrainSettings) -> dict[str, str | int | float | bool]:
    lora = settings.lora
    return {
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
    # A JSON string is a Python string with double quotes, as the formatter writes them.
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _source(text: str | None) -> str:
    return f"  # {text}" if text else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the config NAME, or write those of COMMITTED again and print their paths; return exit code 0."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", metavar="NAME", choices=CONFIGS, help="the config to print")
    return run_command("render.py", lambda: write(parser.parse_args(argv).name))


def write(name: str | None) -> None:
    """Print the config `name`, or write the committed ones."""
    for config in (CONFIGS[each] for each in ([name] if name else COMMITTED)):
        text = render(config, config.model, "train.jsonl")
        if name:
            sys.stdout.write(text)
        else:
            (CONFIG_FOLDER / f"{config.name}.py").write_text(text, encoding="utf-8")
            print(f"xtuner_config/{config.name}.py")
