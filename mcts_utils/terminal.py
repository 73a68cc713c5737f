"""What a person sees of a long run: a bar on a terminal, elsewhere (a log) one line every ten seconds."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 10.0
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} elapsed, {remaining} left{postfix}"


class Progress(tqdm):
    """A tqdm bar that prints whole lines where standard error is no terminal."""

    disable: bool

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what tqdm takes; without a terminal its intervals and its format are ours."""
        self.lines = not sys.stderr.isatty()
        if self.lines:
            options |= {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "bar_format": LINE}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar, or print its line."""
        if not self.lines:
            super().display(msg, pos)
            return
        print(str(self) if msg is None else msg, file=sys.stderr, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Make room for a message; lines need none."""
        if not self.lines:
            super().clear(nolock)

    def close(self) -> None:
        """Show the end."""
        if self.lines and not self.disable:
            self.display()
            self.disable = True
            self._decr_instances(self)
        super().close()
