"""Shared parts of the programs that the scripts start: variables, child processes, ends with one line and an exit code.

    python -m mcts_utils.pipeline.processes SECONDS LOG COMMAND...

starts a server for a shell script, waits at most SECONDS for its URL, and prints the URL and the process id. The server
ends with the script.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from mcts_utils.config import env_file
from mcts_utils.parent import end_with_script
from mcts_utils.types import InputError

Variables = Mapping[str, str]
# What a server prints when it is ready: "... on http://...", "... at http://..." or "export X=http://...".
ADDRESS = re.compile(r"^(?:.* (?:on|at) |export [A-Z_]+=)(http\S+)\n", re.MULTILINE)
# A process group of its own: Ctrl-C reaches the program alone, which ends the work before the servers.
begin = partial(asyncio.create_subprocess_exec, stdin=DEVNULL, process_group=0)


class Failed(Exception):
    """The end of a run: a text (empty: it was said already) and an exit code."""


def variables() -> tuple[Variables, Variables]:
    """Return the shell's variables, and what the stages see: these over those of `.env`."""
    return os.environ, {**env_file(), **os.environ}


def check(found: Variables, *rules: tuple[str, str, str]) -> None:
    """Check each word of some variables; raise InputError naming the first wrong one.

    Args:
        rules: names, the pattern of a word, what an error says of a word that does not match.
    """
    for names, pattern, must in rules:
        for name in names.split():
            for word in found[name].split():
                if not re.fullmatch(pattern, word):
                    raise InputError(f"{name} must {must}: '{word}'")


def child_environ(parent: int) -> Variables:
    """Return the variables of a child, which ends with process `parent` (parent.py), even if that is killed."""
    return {**os.environ, "END_WITH": str(parent)}


async def end(process: Process) -> None:
    """End a process by its own id, if it still runs."""
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


async def run(words: Sequence[str], out: IO[Any] | None = None, err: int | None = None) -> int:
    """Run a command to its end and return its exit code; 128 + N if signal N ended it."""
    process = await begin(*words, stdout=out, stderr=err, env=child_environ(os.getpid()))
    try:
        code = await process.wait()
    finally:
        await end(process)
    return code if code >= 0 else 128 - code


async def start(
    words: Sequence[str], log: str, seconds: float, servers: AsyncExitStack, parent: int | None = None
) -> tuple[str, Process]:
    """Start a server, which ends with the stack, and return its URL, which it must print in time, and its process.

    A server of ours also ends with process `parent` (None: this one), even if that is killed.
    """
    with open(log, "wb") as out:
        environ = child_environ(parent or os.getpid())
        process = await begin(*words, stdout=out, stderr=STDOUT, env=environ)
    servers.push_async_callback(end, process)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, text = process.returncode is not None, Path(log).read_text(errors="replace")
        if found := ADDRESS.search(text):
            return found[1], process
        if ended:
            raise Failed(f"'{' '.join(words)}' did not start: {''.join(text.splitlines()[-1:])}", 1)
        await asyncio.sleep(0.1)
    raise Failed(f"'{' '.join(words)}' printed no address within {seconds:g} s (log: {log})", 1)


def run_script(script: str, body: Callable[[AsyncExitStack], Awaitable[int]]) -> int:
    """Return the exit code of a script's work, which gets a stack for its servers. InputError and Failed are one line.

    SIGHUP, SIGINT and SIGTERM cancel the work, and so does the end of the script that started it; the exit code is
    128 + signal.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # children print there, too
    came: list[int] = []

    async def main() -> int:
        def stop(number: int) -> None:
            came.append(number)
            work.cancel()

        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
        end_with_script()
        async with AsyncExitStack() as servers:
            work = asyncio.ensure_future(body(servers))
            return await work

    try:
        return asyncio.run(main())
    except (InputError, Failed) as error:
        if error.args[0]:
            print(f"{script}: {error.args[0]}", file=sys.stderr)
        return error.args[1] if isinstance(error, Failed) else 2
    except asyncio.CancelledError:
        return 128 + came[0]


if __name__ == "__main__":
    try:
        seconds, log, *command = sys.argv[1:]
        address, server = asyncio.run(start(command, log, float(seconds), AsyncExitStack(), os.getppid()))
    except Failed as error:
        sys.exit(error.args[0])
    print(address, server.pid, flush=True)
    os._exit(0)  # nothing is tidied up: the server stays
