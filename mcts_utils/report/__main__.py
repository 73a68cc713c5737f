"""See what happened in a run: a page for the browser, or a tree, a training row or two evaluations in the terminal.

python -m mcts_utils.report view runs/demo                  # writes runs/demo/report.html
python -m mcts_utils.report view runs/demo --watch 30       # and again every 30 seconds, while a stage runs
python -m mcts_utils.report view runs/big --split           # for thousands of trees: runs/big/report/index.html
python -m mcts_utils.report tree runs/demo/mcts_result/textcraft/tiny_actor/search_results_345.json
python -m mcts_utils.report record runs/demo/records/textcraft_centric.jsonl:4
python -m mcts_utils.report diff runs/demo/test_result/textcraft/tiny_actor_before runs/demo/.../tiny_actor_after
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mcts_utils.report.view.find import find
from mcts_utils.report.view.page import write_page
from mcts_utils.report.view.text import diff_text, record_text, tree_text
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import InputError

MANY = 2000  # trees from which on the page is split, unless its file is named


def parser() -> Parser:
    """Return the parser of the four commands."""
    found = Parser(prog="python -m mcts_utils.report", description=(__doc__ or "").partition("\n")[0])
    commands = found.add_subparsers(dest="command", required=True, metavar="view|tree|record|diff")
    view = commands.add_parser("view", help="write the page of a run's folder")
    add, dollars, seconds = view.add_argument, between(0, 1_000_000, float), between(0, 86400, float)
    price, again = "dollars of a million tokens", "write it again and again, until Ctrl-C"
    add("run_dir", type=Path, help="folder of a run, of some of its stages, or of several runs")
    add("-o", "--output", type=Path, help="default RUN_DIR/report.html; with --split RUN_DIR/report")
    add("--split", action="store_true", help="a folder whose data are loaded one by one")
    add("--price", type=dollars, nargs=2, default=(), metavar=("IN", "OUT"), help=price)
    add("--watch", type=seconds, default=0, metavar="SECONDS", help=again)
    tree = commands.add_parser("tree", help="print a tree, ours or the reference's")
    tree.add_argument("file", type=Path)
    record = commands.add_parser("record", help="print a training row")
    record.add_argument("place", metavar="FILE:LINE")
    both = "print the goals that two evaluations of one protocol solve differently"
    diff = commands.add_parser("diff", help=both)
    diff.add_argument("runs", type=Path, nargs=2, metavar="RUN")
    return found


def run(args: argparse.Namespace) -> int:
    """Run the command that was asked for."""
    colours = sys.stdout.isatty()
    if args.command == "view":
        return view(args)
    if args.command == "tree":
        print(tree_text(args.file, colours))
    elif args.command == "record":
        file, _, line = args.place.rpartition(":")
        if not line.isdecimal() or not file:
            raise InputError(f"record: FILE:LINE, such as records/textcraft_centric.jsonl:4: {args.place!r}")
        print(record_text(Path(file), int(line), colours))
    else:
        print(diff_text(args.runs[0], args.runs[1], colours))
    return 0


def view(args: argparse.Namespace) -> int:
    """Write the page; with --watch again and again, each time read anew by the browser, and once more at the end."""
    split = args.split or (args.output is None and len(find(args.run_dir).trees) > MANY)
    output = args.output or args.run_dir / ("report" if split else "report.html")
    try:
        while args.watch:
            print(write_page(args.run_dir, output, split, tuple(args.price), args.watch), flush=True)
            time.sleep(args.watch)
    except KeyboardInterrupt:
        pass
    print(write_page(args.run_dir, output, split, tuple(args.price)))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("report", lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
