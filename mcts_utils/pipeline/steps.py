"""Steps of a long run: done once, in order, each with the servers that it needs; or printed as a script.

A step is done while its command, its output and everything before it are unchanged: its stamp holds a hash of the
command and of the stamp before it, and one of the output. So a change in one step reopens all that follow.
"""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from mcts_utils.pipeline.processes import Failed, Process, Variables, end, run, start
from mcts_utils.storage.files import sha256_file

SCRIPT = "run_all.sh"  # each message begins with it
# A word X=@NAME of a command: X is the URL of server NAME.
REFERENCE = re.compile(r"^([A-Z_]+)=@([A-Za-z_]+)$")
HEAD = r"""set -euo pipefail
pids=() && trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT && trap 'exit 130' INT && trap 'exit 143' TERM
start() { read -r url pid < <(%s -m mcts_utils.pipeline.processes "$@") && pids+=("$pid"); }
stop() { kill "$1" && while kill -0 "$1" 2>/dev/null; do sleep 0.2; done; }"""


@dataclass(frozen=True)
class Server:
    """A server. Commands refer to its URL as X=@NAME; of each name one server runs at a time."""

    name: str
    log: str
    seconds: str  # it must have named its URL by then
    words: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A command that is run once."""

    name: str  # such as iteration_1/textcraft/collect
    output: str  # the file that it writes last
    words: tuple[str, ...]
    servers: tuple[Server, ...] = ()
    stops: str = ""  # name of a server that must not run
    retry: bool = False  # exit code 1 ("some tasks failed") is tried once more, then told
    prints: bool = False  # `output` is what it prints; exit code 2 is only told if it printed something


def filled(template: str, **values: object) -> tuple[str, ...]:
    """Return the words of a template such as "env SEED={seed} python eval.py"; empty ones are left out."""
    return tuple(filter(None, (word.format_map(values) for word in template.split())))


def quoted(*words: str) -> str:
    """Return a command as it can be pasted into a shell."""
    return " ".join(
        REFERENCE.sub(r'\1="$\2"', word) if REFERENCE.match(word) else shlex.quote(word) for word in words
    )


class Runner:
    """Run steps in order, or (`dry`) print them as lines of a bash script that begins with HEAD."""

    def __init__(
        self, folder: str, settings: str, urls: Variables, servers: AsyncExitStack, dry: bool = False
    ) -> None:
        """Take the run's folder, a hash of what no command shows, and the URLs of servers that are there."""
        self._stamps, self._servers, self._dry = Path(folder, "done"), servers, dry
        self.urls, self._given = dict(urls), frozenset(urls)
        self.chain = settings  # hash of all that was done so far; empty after a step that was only printed
        self.out: TextIO = sys.stdout
        self._running: dict[str, tuple[Server, Process | None]] = {}

    async def step(self, step: Step) -> None:
        """Run a step, unless it is done; raise Failed if it, or one of its servers, fails."""
        stamp, output = self._stamps / step.name, Path(step.output)
        way = sha256(f"{self.chain}\n{' '.join(step.words)}\n".encode()).hexdigest()
        done = self.chain and stamp.is_file() and output.is_file()
        if done and stamp.read_text() == f"{way} {sha256_file(output)}\n":
            print(f"# done before: {step.name}", file=self.out)
        else:
            self.chain = ""
            await self._halt(step.stops)
            for server in step.servers:
                await self.serve(server)
            if self._dry:
                print(quoted(*step.words), *["|", "tee", quoted(step.output)] * step.prints)
                return
            await self._execute(step)
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(f"{way} {sha256_file(output)}\n")
        self.chain = sha256_file(stamp)

    async def serve(self, server: Server) -> None:
        """Start a server, in place of another one of its name, unless it runs."""
        name, process = server.name, None
        if name in self._given or self._running.get(name, (None,))[0] == server:
            return
        await self._halt(name)
        if self._dry:
            words = quoted("start", server.seconds, server.log, *server.words)
            print(f"{words}; {name}=$url {name}_pid=$pid")
        else:
            seconds = float(server.seconds)
            self.urls[name], process = await start(server.words, server.log, seconds, self._servers)
        self._running[name] = (server, process)

    async def command(self, *words: str) -> None:
        """Run a command that is repeated each time."""
        if self._dry:
            print(quoted(*words))
        elif code := await run(words):
            raise Failed("", code)  # it said why

    async def _halt(self, name: str) -> None:
        server, process = self._running.pop(name, (None, None))
        if process:
            await end(process)
        elif server:
            print(f'stop "${name}_pid"')

    async def _execute(self, step: Step) -> None:
        print(f"== {step.name}", file=self.out, flush=True)
        part, note = Path(f"{step.output}.part"), ""
        code = await self._attempt(step, part)
        if code == 1 and step.retry and (code := await self._attempt(step, part)) == 1:
            note = "some tasks failed twice; the run goes on without them (the files say why)"
        elif code == 2 and step.prints and part.stat().st_size:
            note = "not everything is as it should be (exit code 2)"
        elif code:
            text = f"stopped at {step.name} (exit code {code}); the same command continues from there"
            raise Failed(text, code)
        if note:
            print(f"{SCRIPT}: {step.name}: {note}", file=sys.stderr)
        if step.prints:
            part.replace(step.output)

    async def _attempt(self, step: Step, part: Path) -> int:
        words = [
            REFERENCE.sub(lambda match: f"{match[1]}={self.urls[match[2]]}", word) for word in step.words
        ]
        if not step.prints:
            return await run(words, self.out)
        with part.open("w+") as printed:
            code = await run(words, printed)
            printed.seek(0)
            print(printed.read(), end="", file=self.out)
        return code
