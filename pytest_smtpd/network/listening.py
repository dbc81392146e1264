"""Sockets that listen: bound in the caller's thread, where errors belong."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Address

MAX_PORT = 65_535
#: Connections that may wait to be accepted: bursts must not run into one-second SYN retries.
BACKLOG = 1024
#: Whether accepted sockets inherit TCP_NODELAY from those that listen here.
INHERITS_NODELAY = sys.platform == "linux"


def listen(address: Address) -> socket.socket:
    """Return a socket that listens on (host, port), port 0 for any free one; IPv4 or IPv6, as the host says.

    A host that begins with a slash is the path of a Unix socket, as for smtplib.LMTP. Raises OSError in the
    caller's thread when it can't be bound, TypeError and ValueError for what is no address.
    """
    if not isinstance(address[1], int):  # "127.0.0.1" has a [1], too
        msg = f"an address is (host, port), not {address!r}"
        raise TypeError(msg)
    host, port = address[:2]
    if not 0 <= port <= MAX_PORT:
        msg = f"a port is from 0 to {MAX_PORT}, not {port}"
        raise ValueError(msg)
    resolved: Address | str
    if isinstance(host, str) and host.startswith("/"):
        family, kind, protocol, resolved = socket.AF_UNIX, socket.SOCK_STREAM, 0, host
    else:
        family, kind, protocol, _, resolved = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # Not on Windows, where it lets others take the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(resolved)
        listener.listen(BACKLOG)
        send_at_once(listener)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def send_at_once(sock: socket.socket) -> None:
    """Have replies sent when they are written: Nagle would have them wait for delayed acknowledgements."""
    with contextlib.suppress(OSError):  # not every kind of socket has it, nor one that the client has reset
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def hold(listener: socket.socket) -> socket.socket | None:
    """Return a socket bound where this one listens, so that nobody takes the port when that one is closed.

    It refuses connections until `listen_again`. None where there is no such thing: for Unix sockets, whose path
    vanishes, and on Windows.
    """
    if listener.family not in {socket.AF_INET, socket.AF_INET6} or not hasattr(socket, "SO_REUSEPORT"):
        return None
    holder = socket.socket(listener.family, listener.type, listener.proto)
    try:
        # Two sockets may be bound to the same port if both agree; one is closed before the other listens.
        for one in (listener, holder):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(listener.getsockname())
        # From here on nobody else may: as long as no socket listens, SO_REUSEADDR would be enough to take the port.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    except OSError:
        holder.close()
        raise
    return holder


def listen_again(holder: socket.socket) -> None:
    """Have a socket made by `hold` listen. Raises OSError when another one does."""
    # Connections that ended a moment ago still have the port.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.listen(BACKLOG)
    send_at_once(holder)
    holder.settimeout(0)


def close_listener(listener: socket.socket) -> None:
    """Close a socket made by `listen`, and remove the file of a Unix socket."""
    path = listener.getsockname() if listener.fileno() >= 0 else None
    listener.close()
    if isinstance(path, str):
        with contextlib.suppress(OSError):  # it is gone, or not to be removed any more
            Path(path).unlink()
