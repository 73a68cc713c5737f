"""Print the JSON Schema of a kind of file, made from its definition (formats/). A line of a JSONL file is a kind, too.

python -m mcts_utils.storage.schema tree
python -m mcts_utils.storage.schema all --output schemas
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mcts_utils.storage.files import write_bytes
from mcts_utils.storage.formats.base import Fields
from mcts_utils.storage.formats.episode import EpisodeFile, FailedEpisode, PanelFile
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.formats.record import RecordRow, VerdictRow
from mcts_utils.storage.formats.spent import Spent
from mcts_utils.storage.formats.summary import Comparison, LoopReport, Summary
from mcts_utils.storage.formats.tree import TreeFile
from mcts_utils.storage.formats.verdicts import VerdictFile
from mcts_utils.terminal import Parser, run_command

KINDS: dict[str, type[Fields]] = {
    "tree": TreeFile,
    "record": RecordRow,
    "verdict_row": VerdictRow,
    "verdicts": VerdictFile,
    "episode": EpisodeFile,
    "failed_episode": FailedEpisode,
    "summary": Summary,
    "loops": LoopReport,
    "comparison": Comparison,
    "panel": PanelFile,
    "manifest": Manifest,
    "spent": Spent,
}


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a kind of file, a key of KINDS."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(KINDS[kind])}


def work(args: argparse.Namespace) -> None:
    """Print one schema, or write schemas to a folder."""
    kinds = list(KINDS) if args.kind == "all" else [args.kind]
    found = {kind: json.dumps(schema(kind), indent=2) + "\n" for kind in kinds}
    for kind, text in found.items():
        if args.output:
            write_bytes(args.output / f"{kind}.schema.json", [text.encode()])
        else:
            sys.stdout.write(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=("all", *KINDS))
    parser.add_argument("--output", type=Path, help="folder for KIND.schema.json; printed if left out")
    return run_command("schema", lambda: work(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
