"""Listening TCP sockets of the bundled servers, and the bounds of what they read. Standard library only."""

from __future__ import annotations

import re
import socket

BACKLOG = 2048  # connections that may wait to be accepted
HEAD_BYTES = 16 * 1024  # of a request, its headers included
BODY_BYTES = 4 * 1024 * 1024  # of a request
SLOW_SECONDS = 30.0  # for a request to arrive as a whole; then its connection is closed
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one.

    Raises:
        OSError: the port is in use, or the host is not an address of this machine.
        OverflowError: the port number is out of range.
    """
    # The protocol is named because asyncio turns off Nagle's algorithm (40 ms an answer) only on such sockets.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def is_local(host: str) -> bool:
    """Return True if a Host header names this machine; a page can send its own name there, and point it here."""
    return re.sub(r":\d*\Z", "", host).lower() in LOCAL_HOSTS


def is_foreign(origin: str) -> bool:
    """Return True if a request with this Origin header (empty: none) comes from a web page of another machine."""
    return bool(origin) and not is_local(origin.partition("://")[2])
