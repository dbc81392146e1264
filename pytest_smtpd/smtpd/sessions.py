"""Sessions: the clients of a server, how many there are, and how long each is silent."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.network.connection import Timer
    from pytest_smtpd.network.loop import Loop

    from .channel import SMTPChannel

_TIMEOUT = Reply(421, "Error: timeout", "4.4.2")


class Sessions:
    """What a server knows of its clients while a loop serves them: a base class of Service."""

    #: How many clients may be connected at once; 0: any number.
    max_connections = 0
    #: How many seconds a client may be silent that connects from now on; 0: for ever.
    timeout = 0.0
    #: Tells the seconds by which the server goes.
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self) -> None:
        # Held whenever what serves changes, and never while waiting: hooks may call `close`, too.
        self._changing = threading.RLock()
        self._channels: set[SMTPChannel] = set()
        self._loop: Loop | None = None
        self._idle_timer: Timer | None = None
        # A client may be refused at once, and who leaves has it looked whether all have.
        self._is_accepting = False
        self._idle_calls: list[Callable[[], object]] = []

    @property
    def loop(self) -> Loop | None:
        """What serves, if anything does."""
        return self._loop

    @property
    def is_full(self) -> bool:
        """Whether there are more clients than there may be."""
        return 0 < self.max_connections < len(self._channels)

    def forget(self, channel: SMTPChannel) -> None:
        """Take notice that the channel's connection is closed."""
        self._channels.discard(channel)
        if self._idle_calls:
            self._call_if_idle()

    # From any thread.

    def call(self, call: Callable[[], object]) -> None:
        """Have this called in the thread that serves, and wait for it; at once if none does."""
        with self._changing:
            loop = self._loop
            if loop is None or loop.runs_here:
                call()  # and nobody begins to serve meanwhile
                return
        done = threading.Event()

        def call_and_tell() -> None:
            try:
                call()
            finally:
                done.set()

        loop.call(call_and_tell)
        done.wait()

    @contextlib.contextmanager
    def when_idle(self, call: Callable[[], object]) -> Iterator[None]:
        """Have this called inside a block as soon as no client is connected, not even one that waits to be accepted."""

        def begin() -> None:
            self._idle_calls.append(call)
            self._call_if_idle()

        def end() -> None:
            self._idle_calls.remove(call)

        # Without waiting for it: a hook may take its time.
        self._post(begin)
        try:
            yield
        finally:
            self._post(end)

    def _post(self, call: Callable[[], None]) -> None:
        """Have this called in the thread that serves; at once if none does."""
        with self._changing:
            loop = self._loop
            if loop is None:
                call()
                return
        loop.call(call)

    # In the thread that serves.

    def watch_idleness(self) -> None:
        """Come when a client may first have been silent for too long; in the loop's thread.

        To be called when `timeout` has changed: channels go on with the one that they were made with.
        """
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        now = self.clock()
        seconds = [self._silence_left(channel, now) or channel.timeout for channel in self._channels if channel.timeout]
        seconds += [self.timeout] if self.timeout else []  # of those to come
        if seconds and self._loop is not None:
            self._idle_timer = self._loop.call_later(min(seconds), self._end_idle)

    @staticmethod
    def _silence_left(channel: SMTPChannel, now: float) -> float:
        """Return for how many seconds a client may be silent yet; who waits for the server's answer is not silent."""
        since = now if channel.owes_answer else channel.idle_since
        return max(0.0, since + channel.timeout - now)

    def _end_idle(self) -> None:
        """End the sessions whose client has been silent for too long (RFC 5321 4.5.3.2.7), and come again."""
        now = self.clock()
        for channel in list(self._channels):
            if not channel.timeout or self._silence_left(channel, now):
                continue
            if channel.session.state.closing:
                channel.close()  # the client does not even take what has ended the session
            else:
                channel.end(_TIMEOUT)
        self.watch_idleness()

    def _call_if_idle(self) -> None:
        if self._is_accepting:
            return
        self._is_accepting = True
        try:
            are_all = self._loop is None or self._loop.accept_waiting()
        finally:
            self._is_accepting = False
        if self._loop is not None and not are_all:
            self._loop.call_later(0, self._call_if_idle)
        elif not self._channels:
            for call in self._idle_calls:
                call()

    def end_sessions(self, reply: Reply) -> None:
        """Send this 421 to all clients, and close their connections; in the thread that serves."""
        for channel in list(self._channels):
            channel.end(reply)
