"""Listening TCP sockets for the bundled servers. Standard library only."""

from __future__ import annotations

import socket

BACKLOG = 2048  # connections that may wait to be accepted


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
