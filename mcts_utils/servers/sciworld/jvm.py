"""One Java process with the ScienceWorld simulator in it, and the check that Java and the package are there.

The Java process ends when its standard input closes, so it cannot outlive this one, however this one ends. It prints
nothing: the simulator's own output is switched off. What a simulator does is in simulator.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from py4j.java_gateway import find_jar_path

from mcts_utils.servers.sciworld.py4j_batch import Py4jConnection, Ref, call, new, release, static

MINIMUM_JAVA = 11
START_SECONDS = 120  # for the connection to a starting process; far more than it takes
STOP_SECONDS = 10
# Every object gets the same identity hash, so the simulator's sets iterate in insertion order: the same actions give
# the same texts, in any process and beside any other session. Without it, listings and a few outcomes vary, as on the
# public server. Not the default, because a step then takes 1.5 times as long.
REPRODUCIBLE = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
VERSION = re.compile(r'version "(?:1\.)?(\d+)[^"]*"')


class Missing(Exception):
    """Java or the scienceworld package is missing or too old; the message is one line."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How to start a Java process."""

    java: str = "java"  # the program
    heap: str = "384m"  # heap memory, in the form of Java's -Xmx
    reproducible: bool = False  # the same actions always give the same texts


def options(setup: Setup) -> list[str]:
    """Return Java's flags. A process that runs out of memory ends, because its simulators would answer nonsense."""
    fixed = REPRODUCIBLE if setup.reproducible else ()
    return [f"-Xmx{setup.heap}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", *fixed]


def check(setup: Setup) -> Path:
    """Check that Java starts with these settings, and return the path of the simulator's jar.

    Raises:
        Missing: Java or the package is missing or does not work; the message says what was found.
    """
    found = shutil.which(setup.java)
    if found is None:
        raise Missing(
            f"java: no program '{setup.java}' found; ScienceWorld needs Java {MINIMUM_JAVA} or later"
        )
    checked = subprocess.run(
        [found, *options(setup), "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    lines = [line.strip() for line in (checked.stderr + checked.stdout).splitlines() if line.strip()]
    version = VERSION.search(checked.stderr + checked.stdout)
    if version is not None and int(version[1]) < MINIMUM_JAVA:
        raise Missing(f"java: {found} is version {version[1]}; ScienceWorld needs {MINIMUM_JAVA} or later")
    if checked.returncode or version is None:
        output = [line for line in lines if not line.startswith("Picked up")]
        raise Missing(
            f"java: {found} does not start with --heap {setup.heap}: {output[0] if output else 'no output'}"
        )
    package = importlib.util.find_spec("scienceworld")
    if package is None or package.origin is None:
        raise Missing("scienceworld: the Python package is not installed; pip install scienceworld")
    jar = Path(package.origin).with_name("scienceworld.jar")
    if not jar.is_file():
        raise Missing(f"scienceworld: the package has no {jar.name} in {jar.parent}")
    return jar


class Jvm:
    """A running Java process. Hold `lock` for every exchange: its simulators share global counters."""

    def __init__(self, setup: Setup, jar: Path) -> None:
        """Start the process and connect to it; raise OSError if it does not start."""
        self.lock = threading.RLock()
        self.simulators = 0  # the number in use, kept by the pool
        self.dead = False  # ended, or to be ended
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [
                *(setup.java, *options(setup)),
                *("-classpath", os.pathsep.join((find_jar_path(), str(jar)))),
                *("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,  # the simulator writes a table of object types to its working directory
            process_group=0,  # Ctrl-C goes to the server, which then ends this process itself
        )
        try:
            self.connection = self._connect()
            ask = self.connection.ask
            null_stream = ask(call("java.io.OutputStream", "nullOutputStream"))[0]
            printer = ask(new("java.io.PrintStream", null_stream))[0]
            ask(call("java.lang.System", "setOut", printer), release(printer), release(null_stream))
            self.random: Ref = ask(static("scala.util.Random$", "MODULE$"))[0]
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Py4jConnection:
        assert self.process.stdout is not None
        port, token = self.process.stdout.readline(), self.process.stdout.readline()
        if not port.strip().isdigit():
            raise OSError(f"java ended with exit code {self.process.wait(STOP_SECONDS)} while starting")
        return Py4jConnection(int(port), token.decode().strip(), START_SECONDS)

    def running(self) -> bool:
        """Return True if the process can be used."""
        return not self.dead and self.process.poll() is None

    def close(self) -> None:
        """End the process and wait for it: close its input, and kill it if it does not react within STOP_SECONDS."""
        self.dead = True
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if hasattr(self, "connection"):
            self.connection.close()
        self._folder.cleanup()
