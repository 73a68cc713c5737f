"""Write the page: one HTML file that needs no network and runs no text of the data, or a folder of a page and its data.

The data are JSON, deflated and in base64, which the browser unpacks when a part is looked at. The page's program and
style are bundle/, which app/ is built into (docs/report.md).
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from mcts_utils.report.view.collect import Collector
from mcts_utils.report.view.find import find
from mcts_utils.storage.files import write_bytes
from mcts_utils.types import InputError

BUNDLE = Path(__file__).with_name("bundle")
INDEX = "index.html"
DATA = "data"  # folder of the data beside INDEX


def write_page(
    run: Path, output: Path, split: bool = False, price: tuple[float, ...] = (), refresh: float = 0
) -> str:
    """Write the page of a run's folder and return one line that says what is in it.

    Args:
        output: the file; with `split` the folder of index.html and its data.
        price: see `Collector.index`.
        refresh: seconds after which the browser loads the page again; 0: never.

    Raises:
        InputError: nothing can be shown, or `output` is a folder or (with `split`) a file.
    """
    found = find(run)
    if output.is_dir() != split and output.exists():
        wanted = "must be a folder with --split" if split else "is a folder; --split writes a page into one"
        raise InputError(f"--output {wanted}: {str(output)!r}")
    parts: dict[str, str] = {}
    if split:
        (output / DATA).mkdir(parents=True, exist_ok=True)

    def add(name: str, content: Any) -> None:
        packed = _packed(content)
        if split:
            write_bytes(output / DATA / f"{name}.js", [f'reportPart("{name}","{packed}")'.encode()])
        else:
            parts[name] = packed

    collector = Collector(found, add)
    index = collector.index(price)
    path = output / INDEX if split else output
    write_bytes(path, (part.encode() for part in _html(index, parts, split, refresh)))
    evaluations, failures = sum(len(found["runs"]) for found in index["sets"]), index["failures"]
    counts = f"{len(index['trees'])} trees, {len(index['records'])} rows, {evaluations} evaluations"
    lost = f"; {len(failures)} files could not be read, the first: {failures[0]}" if failures else ""
    return f"{path}: {counts}{lost}"


def _packed(content: Any) -> str:
    """Return JSON as raw deflate in base64. The JSON is ASCII, so that a lone surrogate survives."""
    deflate = zlib.compressobj(9, wbits=-15)
    return b64encode(
        deflate.compress(json.dumps(content, separators=(",", ":")).encode()) + deflate.flush()
    ).decode()


def _html(index: dict[str, Any], parts: dict[str, str], split: bool, refresh: float) -> Iterator[str]:
    """Yield the page. The program stands before the parts, so that it draws while the browser still reads them."""
    script, style = ((BUNDLE / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    data = " file: 'self'" if split else ""
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'{data}; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    again = f'<meta http-equiv="refresh" content="{refresh:g}">\n' if refresh else ""
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{again}'
        f"<title>{escape(index['name'])} · Agent-R</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<div id="app"><noscript>This page draws itself with JavaScript, which is off.</noscript></div>\n'
    )
    yield f'<script type="text/plain" id="part-index">{_packed(index)}</script>\n<script>{script}</script>\n'
    for name, packed in parts.items():
        yield f'<script type="text/plain" id="part-{name}">{packed}</script>\n'
    yield "</body>\n</html>\n"


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
