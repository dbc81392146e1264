"""Service: what listens and serves clients, in a thread of its own, in the caller's, or by `smtpd.loop`."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from pytest_smtpd.network.loop import Loop, close_listener, hold, listen, listen_again
from pytest_smtpd.protocol.replies import Reply

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from pytest_smtpd.network.connection import Address, Connection, Timer

    from .channel import SMTPChannel

_SHUTTING_DOWN = Reply(421, "Service not available, closing transmission channel", "4.3.2")
_TIMEOUT = Reply(421, "Error: timeout", "4.4.2")


class Service:
    """The life of a server: it listens at once, on `address`, and may be served in three ways.

    `services` is the map from file descriptors to servers in which it stands for `smtpd.loop`, until it has a
    thread of its own or is closed. Raises OSError when it can't bind.
    """

    #: How many clients may be connected at once; 0: any number.
    max_connections = 0
    #: How many seconds a client may be silent that connects from now on; 0: for ever.
    timeout = 0.0
    #: Tells the seconds by which the server goes.
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, address: Address, services: dict[int, Any]) -> None:
        self._map = services
        #: What hooks have raised, in order; `stop` raises it.
        self.errors: list[BaseException] = []
        self._channels: set[SMTPChannel] = set()
        # Held whenever one of these changes, and never while waiting: hooks may call `close`, too.
        self._changing = threading.RLock()
        self._loop: Loop | None = None
        self._idle_timer: Timer | None = None
        self._idle_calls: list[Callable[[], object]] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._ended = threading.Event()
        self._is_down = False
        # Keeps the port while the server is down.
        self._holder: socket.socket | None = None
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
        if self._idle_calls:
            self._call_if_idle()

    def stopped(self) -> None:
        """Take notice that nothing is served any more, until the server is started again."""

    # From any thread.

    @property
    def is_closed(self) -> bool:
        """Whether the server was closed, and not started again since."""
        return self.socket.fileno() < 0

    def call(self, call: Callable[[], object]) -> None:
        """Have this called in the thread that serves, and wait for it; at once if none does."""
        loop = self._loop
        if loop is None or loop.runs_here:
            call()
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
        loop = self._loop
        if loop is None:
            call()
        else:
            loop.call(call)

    def take_errors(self) -> list[BaseException]:
        """Return what hooks have raised, and forget it: whoever asks sees to it that it is noticed."""
        taken = self.errors[:]
        del self.errors[: len(taken)]  # and nothing that comes meanwhile
        return taken

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

    def _listen_again(self) -> None:
        if self._holder is None:
            self._listen(self._bound_address)
        else:
            listen_again(self._holder)
            self.socket, self._holder = self._holder, None
        self._is_down = False

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
            self._listen_again()
        loop = Loop(self.clock, self.errors)
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
        self.watch_idleness()

    def _accept(self, connection: Connection) -> SMTPChannel:
        # As in smtpd, a `handle_accepted` need not return the channel that it makes.
        made = self.handle_accepted(connection, connection.peer)
        channel = made or cast("SMTPChannel", connection.protocol)
        self._channels.add(channel)
        return channel

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
        if self._loop is not None:
            self._loop.accept_waiting()
        if not self._channels:
            for call in self._idle_calls:
                call()

    def end_sessions(self, reply: Reply) -> None:
        """Send this 421 to all clients, and close their connections; in the thread that serves."""
        for channel in list(self._channels):
            channel.end(reply)

    # Ending.

    def stop(self) -> None:
        """Close the server, and raise what hooks have raised: the exception, or a group of several."""
        self.close()
        self.raise_errors()

    def raise_errors(self) -> None:
        """Raise what hooks have raised, and forget it: the exception, or a group of several."""
        errors = self.take_errors()
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
        with self._changing:
            self._map.pop(self.socket.fileno(), None)
            self._closing = True
            self._is_down = False
            if self._holder is not None:
                self._holder.close()
                self._holder = None
            loop, ended, thread = self._loop, self._ended, self._thread
            if loop is None:
                close_listener(self.socket)
                self.stopped()
        if loop is not None and loop.runs_here:
            loop.call_later(0, lambda: self._detach(loop))
            return
        if loop is not None:
            loop.call(lambda: self._detach(loop))
            ended.wait()
        self._join(thread)

    def _join(self, thread: threading.Thread | None) -> None:
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            with self._changing:
                if self._thread is thread:
                    self._thread = None

    def _detach(self, loop: Loop) -> None:
        """Have it serve no longer; in the loop's thread."""
        if self._loop is not loop:
            return
        for channel in list(self._channels):
            loop.call(partial(channel.end, _SHUTTING_DOWN))  # at once; what it raises is kept
        loop.stop_listening(self.socket)
        with self._changing:
            if loop.errors is not self.errors:  # the loop of `smtpd.loop` may serve others as well
                self.errors += loop.errors
                loop.errors.clear()
            self._loop = None
            self._ended.set()
        self.stopped()

    # A break.

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections for the time of a `with`, then listen on the same port again, which is kept meanwhile.

        Sessions that are open are ended with 421. A Unix socket's path vanishes, and on Windows the port is free.
        Who calls `start` in the block ends the break early; after a `stop` in it the server stays as it is. Raises
        RuntimeError where the server does not serve in a thread of its own, is down already, and in a hook.
        """
        self._go_down()
        try:
            yield
        finally:
            if self._is_down:
                self.start()

    def _go_down(self) -> None:
        with self._changing:
            if self._is_down:
                msg = "the server is down already: down() can't be nested"
                raise RuntimeError(msg)
            if not self._serves_by_itself or self._thread in {None, threading.current_thread()}:
                msg = "down() is for a server that start() or `with` has started, and not for its hooks"
                raise RuntimeError(msg)
            holder = hold(self.socket)
        self.close()
        with self._changing:
            self._is_down, self._holder = True, holder

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
        for cause in self.take_errors():
            error.add_note(f"The server had this exception, and answered 451: {cause!r}")
