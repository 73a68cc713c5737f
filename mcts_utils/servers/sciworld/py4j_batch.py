"""py4j's text protocol on one socket, several requests at a time. It knows no simulator.

py4j's own client asks one thing and waits; here a list of requests goes out at once and the answers are read in order,
so a step costs two exchanges instead of six. Objects are named by the ids that the other side gives them ("o17").
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from py4j.protocol import get_command_part, unescape_new_line

# Linux only; elsewhere the answers are the same, only later. The other side writes answer by answer and waits for an
# acknowledgement after each (Nagle), which this side would hold back for 40 ms.
QUICK = getattr(socket, "TCP_QUICKACK", None)


class JavaError(ValueError):
    """The called method raised; the text is Java's."""


@dataclass(frozen=True, slots=True)
class Ref:
    """An object of the other side."""

    id: str


def call(target: Ref | str, method: str, *args: Any) -> str:
    """The request for a method of an object, or of a class named by its full name."""
    name = target.id if isinstance(target, Ref) else f"z:{target}"
    return f"c\n{name}\n{method}\n{_parts(args)}e\n"


def new(name: str, *args: Any) -> str:
    """The request for a new object of a class."""
    return f"i\n{name}\n{_parts(args)}e\n"


def static(name: str, member: str) -> str:
    """The request for a static field."""
    return f"r\nm\n{name}\n{member}\ne\n"


def forget(thing: Ref) -> str:
    """The request to let an object go; the other side holds it until then."""
    return f"m\nd\n{thing.id}\ne\n"


def _parts(args: tuple[Any, ...]) -> str:
    return "".join(f"r{arg.id}\n" if isinstance(arg, Ref) else get_command_part(arg) for arg in args)


class Py4jConnection:
    """A connection. Not safe to use from two threads at a time.

    Raises:
        OSError: from every method, if the connection breaks.
    """

    def __init__(self, port: int, token: str, timeout: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)
        self._answers = self._socket.makefile("rb")
        self.ask(f"A\n{token}\n")

    def ask(self, *requests: str) -> list[Any]:
        """The answers, in order. All requests are executed, even where one before it fails.

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
        # An exception is an object; its text is asked for.
        self._socket.sendall((f"p\nr{value.id}\ne\n" + forget(value)).encode())
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
