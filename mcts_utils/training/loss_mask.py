"""Show which tokens of a row carry loss: spans of text, in ANSI colours or as an HTML page. Reads no files."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from mcts_utils.training.encoding import IGNORED

TRAINED, PLAIN = "\x1b[1;30;42m", "\x1b[0m"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
h1 {{ font-size: 1.3em; overflow-wrap: anywhere; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8888; border-radius: 6px; padding: 1rem; }}
mark {{ background: #9be39b; color: #000; }}
</style></head><body>
<h1>{title}</h1>
<p><mark>Marked</mark>: tokens that carry loss.</p>
{body}
</body></html>
"""


@dataclass(frozen=True, slots=True)
class MaskedSequence:
    """One sequence of a row as text, split where the loss mask changes."""

    name: str  # "", or "chosen" and "rejected"
    spans: tuple[tuple[str, bool], ...]  # (text, trained)
    tokens: int
    trained: int  # tokens that carry loss

    @property
    def caption(self) -> str:
        """Return a line with the counts of tokens and trained turns."""
        turns = sum(trained for _, trained in self.spans)
        return f"{self.name + ': ' if self.name else ''}{self.tokens} tokens, {self.trained} trained in {turns} turns"


def mask_sequence(
    name: str, ids: Sequence[int], labels: Sequence[int], decode: Callable[[list[int]], str]
) -> MaskedSequence:
    """Return the sequence as runs of text with and without loss.

    Raises:
        ValueError: if a label is neither IGNORED nor the token itself.
    """
    if any(label not in (IGNORED, token) for token, label in zip(ids, labels, strict=True)):
        raise ValueError("a label is another token than the one at its place")
    runs = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED)
    spans = tuple((decode([token for token, _ in run]), trained) for trained, run in runs)
    return MaskedSequence(name, spans, len(ids), sum(label != IGNORED for label in labels))


def to_ansi(title: str, sequences: Sequence[MaskedSequence]) -> str:
    """Return the text for a terminal, with the control characters of the sequences spelt out."""
    parts = [title]
    for shown in sequences:
        text = "".join(f"{TRAINED}{visible(t)}{PLAIN}" if on else visible(t) for t, on in shown.spans)
        parts += ["", shown.caption, text]
    return "\n".join(parts) + "\n"


def to_html(title: str, sequences: Sequence[MaskedSequence]) -> str:
    """Return an HTML page that loads no other resource."""
    parts = []
    for shown in sequences:
        text = "".join(
            f"<mark>{html.escape(visible(t))}</mark>" if on else html.escape(visible(t))
            for t, on in shown.spans
        )
        parts.append(f"<h2>{html.escape(shown.caption)}</h2>\n<pre>{text}</pre>")
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def visible(text: str) -> str:
    """Return the text with every non-printable character but the line feed spelt out."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
