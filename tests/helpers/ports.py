"""Ports for programs that must be told their number beforehand. No test by itself."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def reserved_ports(count: int) -> Iterator[int]:
    """Yield the first of `count` free ports in a row, below those that connections are made from.

    The port before them is held meanwhile, so no other test process is given the same ones.
    """
    bases = list(range(21000, 32000, 250))
    random.SystemRandom().shuffle(bases)
    for base in bases:
        with socket.socket() as guard:
            try:
                guard.bind(("127.0.0.1", base))
                guard.listen()
                with ExitStack() as probes:
                    for port in range(base + 1, base + 1 + count):
                        probes.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            yield base + 1
            return
    raise RuntimeError(f"no {count} free ports in a row")
