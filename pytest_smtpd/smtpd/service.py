"""Service: what listens and serves clients, in a thread of its own, in the caller's, or by `smtpd.loop`."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from pytest_smtpd.network.loop import Loop, close_listener, listen
from pytest_smtpd.protocol.replies import Reply

from .workers import Workers

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

    from pytest_smtpd.network.connection import Address, Connection

    from .channel import SMTPChannel

_SHUTTING_DOWN = Reply(421, "Service not available, closing transmission channel", "4.3.2")
_TIMEOUT = Reply(421, "Error: timeout", "4.4.2")

#: How many hooks may block at once where the number of clients is not limited.
MAX_WORKERS = 100


class Service:
    """The life of a server: it listens at once, on `address`, and may be served in three ways.

    `services` is the map from file descriptors to servers in which it stands for `smtpd.loop`, until it has a
    thread of its own or is closed. Raises OSError when it can't bind.
    """

    #: How many clients may be connected at once; 0: any number.
    max_connections = 0
    #: How many seconds a client may be silent; 0: for ever.
    timeout = 0.0
    #: Tells the seconds by which the server goes.
    clock: Callable[[], float] = staticmethod(time.monotonic)
    #: Whether `process_message` may block: it is called in a thread beside the one that serves, for several
    #: clients at once.
    blocking = False

    def __init__(self, address: Address, services: dict[int, Any]) -> None:
        self._map = services
        #: What hooks have raised, in order; `stop` raises it.
        self.errors: list[BaseException] = []
        #: Where hooks run that may block; see `SMTPChannel.answer_later`.
        self.workers = Workers(f"{type(self).__name__} worker", self.max_connections or MAX_WORKERS)
        self._channels: set[SMTPChannel] = set()
        # Held whenever one of these changes, and never while waiting: hooks may call `close`, too.
        self._changing = threading.RLock()
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._ended = threading.Event()
        self._listen(address)

    def handle_accepted(self, conn: Connection, addr: Address) -> SMTPChannel | None:
        """Make the channel for a new connection."""
        raise NotImplementedError

    @property
    def is_full(self) -> bool:
        """Whether there are more clients than there may be."""
        return 0 < self.max_connections < len(self._channels)

    def forget(self, channel: SMTPChannel) -> None:
        """Take notice that the channel's connection is closed."""
        self._channels.discard(channel)

    # Beginning.

    def start(self) -> Self:
        """Serve in a thread of the server's own until `stop`; if it does already, nothing happens."""
        self._begin(threaded=True)
        return self

    def serve_forever(self) -> None:
        """Serve in this thread, until `close` or `stop` is called in another one or in a hook.

        If another thread serves already, wait until it doesn't.
        """
        loop = self._begin(threaded=False)
        if loop is None:
            self._ended.wait()
            return
        try:
            loop.run()
        except BaseException:  # Ctrl-C
            self.close()
            raise

    def attach(self, loop: Loop) -> None:
        """Have the loop of `smtpd.loop` serve, unless the server is closed or has a loop."""
        with self._changing:
            if self._loop is None and self.socket.fileno() >= 0:
                self._attach(loop)

    @property
    def loop(self) -> Loop | None:
        """What serves, if anything does."""
        return self._loop

    def _listen(self, address: Address) -> None:
        self.socket: socket.socket = listen(address)
        bound = self.socket.getsockname()
        self._bound_address: Address = bound if isinstance(bound, tuple) else (bound, 0)
        self._map[self.socket.fileno()] = self

    def _begin(self, *, threaded: bool) -> Loop | None:
        """Get a loop of the server's own; None if it has one."""
        while True:
            with self._changing:
                if self._loop is None and self._thread in {None, threading.current_thread()}:
                    return self._open_loop(threaded=threaded)
                if self._serves_by_itself:
                    return None
                if self._loop is not None and self._loop.runs_here:
                    msg = "a hook can't start the server again that it has closed: it closes when the hook returns"
                    raise RuntimeError(msg)
            # What served before, `smtpd.loop` perhaps, has to end first.
            self.close()

    @property
    def _serves_by_itself(self) -> bool:
        return self._loop is not None and not self._closing and self._map.get(self.socket.fileno()) is not self

    def _open_loop(self, *, threaded: bool) -> Loop:
        if self.socket.fileno() < 0:
            self._listen(self._bound_address)
        loop = Loop(self.clock)
        self._attach(loop)
        self._map.pop(self.socket.fileno(), None)
        if threaded:
            name = f"{type(self).__name__} on {self._bound_address[:2]}"
            self._thread = threading.Thread(target=loop.run, name=name, daemon=True)
            self._thread.start()
        return loop

    def _attach(self, loop: Loop) -> None:
        self._closing = False
        self._ended = threading.Event()
        self._loop = loop
        loop.accept_from(self.socket, self._accept)
        if self.timeout:
            loop.call_later(self.timeout, lambda: self._end_idle(loop))

    def _accept(self, connection: Connection) -> SMTPChannel:
        # As in smtpd, a `handle_accepted` need not return the channel that it makes.
        made = self.handle_accepted(connection, connection.peer)
        channel = made or cast("SMTPChannel", connection.protocol)
        self._channels.add(channel)
        return channel

    def _end_idle(self, loop: Loop) -> None:
        """End the sessions whose client has been silent for too long (RFC 5321 4.5.3.2.7), and come again."""
        now = self.clock()
        # Who waits for the server's answer is not silent.
        silent_since = {channel: channel.idle_since for channel in self._channels if not channel.session.waiting}
        for channel, since in silent_since.items():
            if since + self.timeout <= now and channel.session.state.closing:
                channel.close()  # the client does not even take what has ended the session
            elif since + self.timeout <= now:
                channel.end(_TIMEOUT)
        oldest = min((since for since in silent_since.values() if since + self.timeout > now), default=now)
        loop.call_later(oldest + self.timeout - now, lambda: self._end_idle(loop))

    # Ending.

    def stop(self) -> None:
        """Close the server, and raise what hooks have raised: the exception, or a group of several."""
        self.close()
        errors, self.errors = self.errors, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = f"several hooks of {type(self).__name__} failed"
            raise BaseExceptionGroup(msg, errors)

    def close(self) -> None:
        """Stop serving: tell open sessions so with 421, close everything, join the thread.

        A closed server can be started again, on the same port. A hook may close its server, too: then this
        returns at once, and the server closes when the hook's own client has its answer.
        """
        if self.workers.runs_here:
            self.workers.afterwards(self._close_soon)
            return
        with self._changing:
            self._map.pop(self.socket.fileno(), None)
            self._closing = True
            loop, ended, thread = self._loop, self._ended, self._thread
            if loop is None:
                close_listener(self.socket)
        if loop is not None and loop.runs_here:
            loop.call_later(0, lambda: self._detach(loop))
            return
        if loop is not None:
            loop.call(lambda: self._detach(loop))
            ended.wait()
        self._join(thread)

    def _close_soon(self) -> None:
        """Close behind the answers that hooks have given so far; whoever wants to wait for it calls `close`."""
        with self._changing:
            self._map.pop(self.socket.fileno(), None)
            self._closing = True
            loop = self._loop
        if loop is not None:
            loop.call(lambda: self._detach(loop))

    def _join(self, thread: threading.Thread | None) -> None:
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            with self._changing:
                if self._thread is thread:
                    self._thread = None
        self.workers.join()

    def detached(self) -> None:
        """Take notice that the server serves no longer; in the thread that serves."""

    def _detach(self, loop: Loop) -> None:
        """Have it serve no longer; in the loop's thread."""
        if self._loop is not loop:
            return
        for channel in list(self._channels):
            loop.call(partial(channel.end, _SHUTTING_DOWN))  # at once; what it raises is kept
        self.workers.shut_down()
        self.detached()
        loop.stop_listening(self.socket)
        with self._changing:
            self.errors += loop.errors
            loop.errors.clear()
            self._loop = None
            self._ended.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
            return
        # What the body raised may be the consequence: don't replace it, tell the cause.
        self.close()
        causes, self.errors = self.errors, []
        for cause in causes:
            error.add_note(f"The server had this exception, and answered 451: {cause!r}")
