"""What a person sees of a command: its progress, its errors as one line, its exit code.

Progress is a bar on a terminal, elsewhere (a log) one line every ten seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

from mcts_utils.parent import end_with_script
from mcts_utils.types import ActorError, BudgetReached, EnvError, InputError

NUMBER = re.compile(r"-?\d+(\.\d+)?")
SECONDS = 1.0  # between two looks of a person at a terminal
LINE_SECONDS = 10.0
WAIT_SECONDS = 2.0  # after an interrupt, until the wait for what is in flight is told
AGAIN_SECONDS = 0.3  # between two presses of Ctrl-C, at least: one may arrive twice
SHOWN = 60  # characters of a wrong value
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} elapsed, {remaining} left{postfix}"


class Progress(tqdm):
    """A tqdm bar that prints whole lines where standard error is no terminal.

    A thread of its own shows the time and the live figures even while nothing advances.
    """

    disable: bool

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what tqdm takes; without a terminal its intervals and its format are ours."""
        self.lines = not sys.stderr.isatty()
        # The last line: when, by the clock of `elapsed`, and what.
        self._printed, self._line = -LINE_SECONDS, ""
        if self.lines:
            options |= {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "bar_format": LINE}
        # What run_jobs adds: figures of the actor, and a log of all numbers.
        self.live: Callable[[], dict[str, str]] = dict
        self.log: Callable[[int, dict[str, float]], object] = lambda n, numbers: None
        self._shown: dict[str, Any] = {}
        super().__init__(*args, **options)
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def set_postfix(self, ordered_dict: Any = None, refresh: bool | None = True, **figures: Any) -> None:
        """Show figures, with the live ones after them, and log those that are numbers."""
        self._shown = {**(ordered_dict or {}), **figures}
        shown = {**self._shown, **self.live()}
        super().set_postfix(shown, refresh)
        texts = {name: str(value).removesuffix("%") for name, value in shown.items()}
        self.log(self.n, {name: float(text) for name, text in texts.items() if NUMBER.fullmatch(text)})

    def _tick(self) -> None:
        while not self._ended.wait(LINE_SECONDS if self.lines else SECONDS):
            if figures := {**self._shown, **self.live()}:
                super().set_postfix(figures)
            else:
                self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar, or print its line."""
        if not self.lines:
            super().display(msg, pos)
            return
        elapsed = self.format_dict["elapsed"]
        # Its monitor thread may come, too.
        if self.n == self.total or elapsed - self._printed >= LINE_SECONDS / 2:
            line = str(self) if msg is None else msg
            if line != self._line:
                print(line, file=sys.stderr, flush=True)
            self._printed, self._line = elapsed, line

    def clear(self, nolock: bool = False) -> None:
        """Make room for a message; lines need none."""
        if not self.lines:
            super().clear(nolock)

    def close(self) -> None:
        """Show the end."""
        self._ended.set()
        self._ticker.join()
        if self.lines and not self.disable:
            self._printed = -LINE_SECONDS
            self.display()
            self.disable = True
            self._decr_instances(self)
        super().close()


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, if it parses within `run_command`; flags are written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def add_switch(self, flag: str, default: int, about: str) -> None:
        """Add a flag whose value is 0 or 1."""
        self.add_argument(flag, type=int, choices=(0, 1), default=default, help=about)

    def add_dry_run(self, about: str = "say what it would do, cost and take; asks no model") -> None:
        """Add --dry-run."""
        self.add_argument("--dry-run", "--dry_run", action="store_true", help=about)

    def error(self, message: str) -> NoReturn:
        raise InputError(re.sub(r"^argument (\S+?)(/\S+)?:(?= must )|^argument (?=\S+: )", r"\1", message))


def between(least: float, most: float, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    """Return a type of flags: a number from `least` to `most`; NaN is none."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what}: {text[:SHOWN]!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be between {least} and {most}: {text[:SHOWN]}")
        return value

    return parse


def run_command(name: str, work: Callable[[], int | None], if_interrupted: str = "interrupted") -> int:
    """Do the work of a command, in the main thread, and return its exit code. SIGTERM ends it as Ctrl-C does.

    So does the end of the script that started it (parent.py). It then waits for what is in flight, and says so if that
    takes seconds; a second Ctrl-C ends the process at once.

    Args:
        name: begins the line of an error; may be empty.

    Returns:
        what `work` returns (None: 0); 2 after bad input, or if a server, a model or a file cannot be used, and 3
        if MAX_COST, MAX_TOKENS_TOTAL or MAX_HOURS is reached, with one line on standard error; 130 after Ctrl-C, with
        the line `if_interrupted`.
    """
    signals = _interrupts()
    ends = _Ends(name, signal.SIGINT in signals)
    earlier = [(number, signal.signal(number, ends)) for number in signals]
    end_with_script()
    try:
        code = work() or 0
        sys.stdout.flush()  # an error of it is one of the command
        return code
    except OSError as error:
        what = str(error.strerror or error)
        code, line = 2, f"{error.filename}: {what}" if error.filename else what
    except BudgetReached as error:
        code, line = 3, str(error)
    except (InputError, EnvError, ActorError) as error:
        code, line = 2, " ".join(str(error).split())
    except KeyboardInterrupt:
        code, line = 130, if_interrupted
    finally:
        ends.soon.cancel()
        for number, handler in earlier:
            signal.signal(number, handler)
    print(f"{name}: {line}" if name else line, file=sys.stderr)
    return code


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Give an OSError of the block, such as that of a full disk, the name of the file, if it has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno:
            raise OSError(error.errno, error.strerror, name) from error
        raise


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Keep SIGINT and SIGTERM back within the block, in the main thread: they take effect at its end.

    A process that is started within it is known to the program before an interrupt can end the program.
    """
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()  # no other thread sees a signal
    earlier = [signal.signal(number, lambda number, _: came.append(number)) for number in signals if main]
    try:
        yield
    finally:
        for number, handler in zip(signals, earlier, strict=False):
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class _Ends:
    """The handler of SIGINT and SIGTERM while a command runs: the first raises KeyboardInterrupt."""

    def __init__(self, name: str, again: bool) -> None:
        """`again`: whether a second Ctrl-C arrives."""
        self.name, self.again = name, again
        self.soon = threading.Timer(WAIT_SECONDS, self._tell)
        self.soon.daemon = True
        self._since: float | None = None  # the first SIGINT

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if signum == signal.SIGINT and self._since is not None and now - self._since > AGAIN_SECONDS:
            os._exit(130)
        if signum == signal.SIGINT:
            self._since = now if self._since is None else self._since
        if not self.soon.is_alive() and not self.soon.finished.is_set():
            self.soon.start()
        raise KeyboardInterrupt

    def _tell(self) -> None:
        line = "stopping: waits for the answers in flight" + "; Ctrl-C again ends at once" * self.again
        print(f"{self.name}: {line}" if self.name else line, file=sys.stderr, flush=True)


def _interrupts() -> list[int]:
    """Return the signals that end a command; a shell has its background jobs ignore SIGINT."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGINT]
