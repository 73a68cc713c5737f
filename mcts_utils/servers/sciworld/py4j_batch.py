"""A client of py4j's text protocol on one socket that sends several requests at a time. It knows no simulator.

py4j's own client sends one request and waits; here a list of requests is sent at once and the answers are read in
order, so a step costs two exchanges instead of six. Java names its objects by ids such as "o17".
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from py4j.protocol import get_command_part, unescape_new_line

# Linux only; on other systems the same answers come later. Java writes answer by answer and waits for an
# acknowledgement after each (Nagle's algorithm), which this side would otherwise delay by 40 ms.
QUICK = getattr(socket, "TCP_QUICKACK", None)


class JavaError(ValueError):
    """The called method raised an exception; the message is Java's."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a Java object."""

    id: str  # such as "o17"


def call(target: Ref | str, method: str, *args: Any) -> str:
    """Return the request that calls a method of an object, or of a class given by its full name."""
    name = target.id if isinstance(target, Ref) else f"z:{target}"
    return f"c\n{name}\n{method}\n{_parts(args)}e\n"


def new(name: str, *args: Any) -> str:
    """Return the request for a new object of a class."""
    return f"i\n{name}\n{_parts(args)}e\n"


def static(name: str, member: str) -> str:
    """Return the request for a static field of a class."""
    return f"r\nm\n{name}\n{member}\ne\n"


def release(ref: Ref) -> str:
    """Return the request to release an object; Java keeps it until then."""
    return f"m\nd\n{ref.id}\ne\n"


def _parts(args: tuple[Any, ...]) -> str:
    return "".join(f"r{arg.id}\n" if isinstance(arg, Ref) else get_command_part(arg) for arg in args)


class Py4jConnection:
    """A connection. Not thread-safe. Every method raises OSError if the connection breaks."""

    def __init__(self, port: int, token: str, timeout: float) -> None:
        """Connect to a port of this machine within `timeout` seconds, and authenticate with the token."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)
        self._answers = self._socket.makefile("rb")
        self.ask(f"A\n{token}\n")

    def ask(self, *requests: str) -> list[Any]:
        """Send the requests and return the answers, in order. All are executed, even if an earlier one fails.

        Raises:
            JavaError: the first failure.
        """
        self._socket.sendall("".join(requests).encode("utf-8", "replace"))
        if QUICK is not None and len(requests) > 1:
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK, 1)
        lines = [self._line() for _ in requests]
        for request, line in zip(requests, lines, strict=True):
            if line.startswith("!x"):
                target, method = request.split("\n")[1:3]
                raise JavaError(
                    f"An error occurred while calling {target}.{method}.\n: {self._reason(line[2:])}"
                )
        return [_value(line[2:]) for line in lines]

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()

    def _line(self) -> str:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the process closed the connection")
        return line.decode("utf-8")[:-1]

    def _reason(self, answer: str) -> str:
        value = _value(answer)
        if not isinstance(value, Ref):
            return str(value)
        # An exception is a Java object; this asks for its text.
        self._socket.sendall((f"p\nr{value.id}\ne\n" + release(value)).encode())
        text, _ = self._line(), self._line()
        return str(_value(text[2:]))


def _value(answer: str) -> Any:
    kind, text = answer[:1], answer[1:]
    if kind == "s":
        return unescape_new_line(text)
    if kind == "b":
        return text == "true"
    if kind in ("i", "L"):
        return int(text)
    if kind == "d":
        return float(text)
    return None if kind in ("v", "n", "") else Ref(text)
