"""Write docs/configuration.md and .env.example from `Settings` and the commands' parsers.

python docs/configuration.py           write both
python docs/configuration.py --check   exit code 1 if one of them is not up to date
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mcts_utils.config.faults import variable  # noqa: E402
from mcts_utils.config.settings import Settings, bounds  # noqa: E402

COMMANDS = {  # as it is typed -> module with its main
    "python mcts_collection.py": "mcts_collection",
    "python path_collection.py": "path_collection",
    "python xtuner_config/train.py": "mcts_utils.training.train",
    "python xtuner_config/preview.py": "mcts_utils.training.preview",
    "python xtuner_config/export.py": "mcts_utils.training.export",
    "python xtuner_config/render.py": "mcts_utils.training.render_config",
    "python -m mcts_utils.training.tokenizer_check": "mcts_utils.training.tokenizer_check",
    "python eval.py": "eval",
    "python eval.py compare": "mcts_utils.evaluation.compare",
    "python eval.py loops": "mcts_utils.evaluation.loops",
    "python -m mcts_utils.report.judge": "mcts_utils.report.judge.__main__",
    "python -m mcts_utils.report.data": "mcts_utils.report.data.__main__",
    "python -m mcts_utils.report.budget": "mcts_utils.report.budget.__main__",
    "python -m mcts_utils.report.experiment": "mcts_utils.report.experiment.__main__",
    "python -m mcts_utils.actors.serve": "mcts_utils.actors.serve",
    "python -m mcts_utils.actors.llama_server": "mcts_utils.actors.llama_server",
    "python -m mcts_utils.servers.textcraft": "mcts_utils.servers.textcraft.__main__",
    "python -m mcts_utils.servers.sciworld": "mcts_utils.servers.sciworld.__main__",
    "python -m mcts_utils.servers.webshop": "mcts_utils.servers.webshop.__main__",
    "python -m mcts_utils.servers.yours": "mcts_utils.servers.yours.__main__",
    "python -m mcts_utils.envs.check": "mcts_utils.envs.check.__main__",
    "python -m mcts_utils.servers.mock_llm": "mcts_utils.servers.mock_llm.__main__",
    "python -m mcts_utils.bench": "mcts_utils.bench.__main__",
}
HEAD = """# Configuration

Set a variable in the shell or in a `.env` file of the working folder:

```bash
cp .env.example .env          # every variable with its default; edit it
ITERA=4 python mcts_collection.py --max 10      # the shell wins over .env, a flag wins over both
```

An empty value means the default. A wrong value is one line that names the variable and the value, before anything is
asked. This page is written by `python docs/configuration.py` from the code. The scripts' own variables (`STEPS`,
`RUN_DIR`, `TASKS`, `ITERATIONS` and so on) are on [Pipeline](pipeline.md).

## Variables of the stages"""
FLAGS = """
## Flags

`--help` of a command prints the same. A flag whose default is a variable's name takes that variable's value.
"""


class Found(Exception):
    """Carries a command's parser."""


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser that a module's `main` makes; nothing of the command is run."""

    def stop(self: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise Found(self)

    main: Callable[..., Any] = import_module(module).main
    takes_argv = main.__code__.co_argcount > 0
    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop), mock.patch("sys.argv", ["command"]):
        try:
            main([]) if takes_argv else main()
        except Found as found:
            return found.args[0]
    raise AssertionError(f"{module}.main parses no arguments")


def settings_by_group() -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """Yield (group, [(variable, default, sentence, bounds)]) in the order of the fields."""
    rows = []
    for field in fields(Settings):
        info = vars(Settings)["__pydantic_fields__"][field.name]
        if (extra := info.json_schema_extra) is None:
            continue  # set by another one
        default = extra["shown"] or (info.default if info.default != "" else "")
        rows.append(
            (extra["group"], variable(field.name), f"{default}", info.description, bounds(field.name))
        )
    for group, found in groupby(rows, key=lambda row: row[0]):
        yield group, [row[1:] for row in found]


def cell(text: str) -> str:
    """Return a text as a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def flag_rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a table's row for each argument but --help."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.dest.upper()}`"
        unset = any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS))
        default = "" if unset else f"{action.default}"
        if isinstance(action.default, (list, tuple)):
            default = ",".join(map(str, action.default))
        said = (action.help or "") % {**vars(action), "prog": parser.prog} if action.help else ""
        options = f"one of {', '.join(map(str, action.choices))}" if action.choices else ""
        yield f"| {name} | {cell(default)} | {cell('; '.join(filter(None, (said, options))))} |"


def page() -> str:
    """Return docs/configuration.md."""
    parts = [HEAD]
    for group, rows in settings_by_group():
        parts.append(f"\n### {group}\n\n| variable | default | meaning |\n|---|---|---|")
        for name, default, sentence, limits in rows:
            more = f" {limits[0].upper()}{limits[1:]}." if limits else ""
            parts.append(f"| `{name}` | {cell(default)} | {cell(sentence)}{more} |")
    parts.append(FLAGS)
    for command, module in COMMANDS.items():
        parts.append(f"### `{command}`\n\n| flag | default | meaning |\n|---|---|---|")
        parts += [*flag_rows(parser_of(module)), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def example() -> str:
    """Return .env.example: every variable, with its default where that is a fixed value."""
    lines = [
        "# Copy to .env and edit. The shell wins over this file, a flag wins over both. Empty means the default."
    ]
    for group, rows in settings_by_group():
        lines += ["", f"# --- {group} ".ljust(100, "-")]
        for name, default, sentence, _ in rows:
            fixed = default if default and " " not in default else ""
            note = f" Default: {default}." if default and not fixed else ""
            lines += textwrap.wrap(sentence + note, 118, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"{name}={fixed}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write both files, or check them; return the exit code."""
    made = {ROOT / "docs/configuration.md": page(), ROOT / ".env.example": example()}
    stale = [
        path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(
                f"{path.relative_to(ROOT)} is not up to date: python docs/configuration.py", file=sys.stderr
            )
        return bool(stale)
    for path in stale:
        path.write_text(made[path], encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
