"""What waits for sockets: epoll where the system has it, else the best that `selectors` finds.

`selectors` looks up and wraps each event, which costs as much as to serve it.
"""

from __future__ import annotations

import select
import selectors
from typing import Protocol

#: What to wait for, as epoll calls it: data or a connection to take, room for data to send.
READABLE, WRITABLE = 1, 4

_EVENTS = {READABLE: selectors.EVENT_READ, WRITABLE: selectors.EVENT_WRITE}


class Poller(Protocol):
    """What the loop uses of `select.epoll`."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Wait for this file descriptor, too."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Wait for something else of it."""

    def unregister(self, fd: int, /) -> None:
        """Don't wait for it any more."""

    def poll(self, timeout: float, /) -> list[tuple[int, int]]:
        """Return the file descriptors for which something has happened, in so many seconds at the most."""

    def close(self) -> None:
        """Release what the system keeps."""


class SelectorPoller:
    """The same for other systems."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, eventmask: int) -> None:
        """Wait for this file descriptor, too."""
        self._selector.register(fd, _EVENTS[eventmask])

    def modify(self, fd: int, eventmask: int) -> None:
        """Wait for something else of it."""
        self._selector.modify(fd, _EVENTS[eventmask])

    def unregister(self, fd: int) -> None:
        """Don't wait for it any more."""
        self._selector.unregister(fd)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Return the file descriptors for which something has happened, in so many seconds at the most."""
        return [(key.fd, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        """Release what the system keeps."""
        self._selector.close()


def make_poller() -> Poller:
    """Return what is best on this system."""
    return select.epoll() if hasattr(select, "epoll") else SelectorPoller()
