"""Service: what listens and serves clients, in a thread of its own, in the caller's, or by `smtpd.loop`."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pytest_smtpd.network.listening import close_listener, hold, listen, listen_again
from pytest_smtpd.network.loop import Loop
from pytest_smtpd.protocol.replies import Reply

from .sessions import Sessions
from .workers import Workers

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from types import TracebackType

    from pytest_smtpd.network.connection import Address, Connection

    from .channel import SMTPChannel

_SHUTTING_DOWN = Reply(421, "Service not available, closing transmission channel", "4.3.2")

#: How many hooks may block at once where the number of clients is not limited.
MAX_WORKERS = 100


def raise_together(errors: list[BaseException], whose: str) -> None:
    """Raise what hooks have raised: the exception, or a group of several."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        msg = f"several hooks of {whose} failed"
        raise BaseExceptionGroup(msg, errors)


class Service(Sessions):
    """The life of a server: it listens at once, on `address`, and may be served in three ways.

    `services` is the map from file descriptors to servers in which it stands for `smtpd.loop`, until it has a
    thread of its own or is closed. Raises OSError when it can't bind.
    """

    #: Whether `process_message` may block: it is called in a thread beside the one that serves, for several
    #: clients at once.
    blocking = False

    def __init__(self, address: Address, services: dict[int, Any]) -> None:
        super().__init__()
        self._map = services
        #: What hooks have raised, in order; `stop` raises it.
        self.errors: list[BaseException] = []
        #: Where hooks run that may block; see `SMTPChannel.answer_later`.
        self.workers = Workers(f"{type(self).__name__} worker", self.max_connections or MAX_WORKERS)
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

    def stopped(self) -> None:
        """Take notice that nothing is served any more, until the server is started again."""

    # From any thread.

    @property
    def is_closed(self) -> bool:
        """Whether the server was closed, and not for the time of a `down`, and not started again since."""
        return self.socket.fileno() < 0 and not self._is_down

    @property
    def is_down(self) -> bool:
        """Whether this is the time of a `down`."""
        return self._is_down

    def take_errors(self) -> list[BaseException]:
        """Return what hooks have raised, and forget it: whoever asks sees to it that it is noticed."""
        with self._changing:  # nobody else takes them, too
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
        self.workers.join()  # a hook that goes on could close what serves next

    @property
    def common_loop(self) -> Loop | None:
        """What serves for `smtpd.loop`, if that has begun; not a loop of the server's own."""
        with self._changing:
            return None if self._serves_by_itself else self._loop

    def attach(self, loop: Loop) -> None:
        """Have the loop of `smtpd.loop` serve, unless the server is closed or has a loop."""
        with self._changing:
            if self._loop is None and self.socket.fileno() >= 0:
                self._attach(loop)

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

    def _begin(self, *, threaded: bool, ends_break: bool = False) -> Loop | None:
        """Get a loop of the server's own; None if it has one."""
        while True:
            with self._changing:
                if ends_break and not self._is_down:
                    return None
                if self._loop is None and self._thread in {None, threading.current_thread()}:
                    return self._open_loop(threaded=threaded)
                if self._serves_by_itself:
                    return None
                if self.workers.runs_here or (self._loop is not None and self._loop.runs_here):
                    msg = "a hook can't start the server again that it has closed: it closes when the hook returns"
                    raise RuntimeError(msg)
                thread, served = self._thread, self._loop
                # What served before, `smtpd.loop` perhaps, has to end first.
                if served is not None:
                    self._begin_to_close(is_down=self._is_down)
                ended = self._ended
            self._wait_for_end(served, thread, ended)

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
            thread = threading.Thread(target=loop.run, name=name, daemon=True)
            try:
                thread.start()
            except BaseException:
                self._closing = True
                loop.call(lambda: self._detach(loop))
                raise
            self._thread = thread
        return loop

    def _attach(self, loop: Loop) -> None:
        self._closing = False
        self._ended = threading.Event()
        self._loop = loop
        loop.accept_from(self.socket, self._accept)
        self.watch_idleness()

    def _accept(self, connection: Connection) -> SMTPChannel | None:
        # As in smtpd, a `handle_accepted` need not return the channel that it makes, and one that makes none has
        # refused the client.
        made = self.handle_accepted(connection, connection.peer)
        channel: SMTPChannel | None = made or getattr(connection, "protocol", None)
        if channel is not None:
            self._channels.add(channel)
        return channel

    # Ending.

    def stop(self) -> None:
        """Close the server, and raise what hooks have raised: the exception, or a group of several."""
        self.close()
        self.raise_errors()

    def raise_errors(self) -> None:
        """Raise what hooks have raised, and forget it: the exception, or a group of several."""
        raise_together(self.take_errors(), type(self).__name__)

    def close(self) -> None:
        """Stop serving: tell open sessions so with 421, close everything, join the thread.

        A closed server can be started again, on the same port. A hook may close its server, too: then this
        returns at once, and the server closes when the hook's own client has its answer.
        """
        if self.workers.runs_here:
            self.workers.afterwards(self._close_soon)
        else:
            self._close(is_down=False)

    def _close(self, *, is_down: bool) -> None:
        with self._changing:
            thread, ended = self._thread, self._ended
            loop = self._begin_to_close(is_down=is_down)
        self._wait_for_end(loop, thread, ended)

    def _wait_for_end(self, loop: Loop | None, thread: threading.Thread | None, ended: threading.Event) -> None:
        """Have this loop let go of the server, and wait until it has, and until its thread has ended."""
        if loop is not None and loop.runs_here:
            loop.call_later(0, lambda: self._detach(loop))
            return
        if loop is not None:
            loop.call(lambda: self._detach(loop))
            if thread is None or thread is threading.current_thread():
                ended.wait()
        self._join(thread)

    def _close_soon(self) -> None:
        """Close behind the answers that hooks have given so far; whoever wants to wait for it calls `close`."""
        loop = self._begin_to_close(is_down=False)
        if loop is not None:
            loop.call(lambda: self._detach(loop))

    def _begin_to_close(self, *, is_down: bool) -> Loop | None:
        """Give up what can be given up at once; return the loop that has to let go of the rest, if one serves."""
        with self._changing:
            self._map.pop(self.socket.fileno(), None)
            self._closing = True
            self._is_down = is_down
            if self._holder is not None:
                self._holder.close()
                self._holder = None
            if self._loop is None:
                close_listener(self.socket)
                self.stopped()
            return self._loop

    def _join(self, thread: threading.Thread | None) -> None:
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            with self._changing:
                if self._thread is thread:
                    self._thread = None
        self.workers.join()

    def _detach(self, loop: Loop) -> None:
        """Have it serve no longer; in the loop's thread."""
        if self._loop is not loop:
            return
        for channel in list(self._channels):
            loop.call(partial(channel.end, _SHUTTING_DOWN))  # at once; what it raises is kept
        self.workers.shut_down()
        loop.stop_listening(self.socket)
        for channel in list(self._channels):
            channel.close()  # that of a client who takes no 421, where the loop serves others as well
        with self._changing:
            if loop.errors is not self.errors:  # the loop of `smtpd.loop` may serve others as well
                self.errors += loop.errors
                loop.errors.clear()
            self._loop = None
            ended = self._ended  # the next one begins another
        try:
            self.stopped()
        except Exception as error:  # noqa: BLE001 - it reaches whoever stops the server
            self.errors.append(error)
        finally:
            ended.set()

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
            self._begin(threaded=True, ends_break=True)

    def _go_down(self) -> None:
        with self._changing:
            if self._is_down:
                msg = "the server is down already: down() can't be nested"
                raise RuntimeError(msg)
            in_hook = self.workers.runs_here or self._thread is threading.current_thread()
            if not self._serves_by_itself or self._thread is None or in_hook:
                msg = "down() is for a server that start() or `with` has started, and not for its hooks"
                raise RuntimeError(msg)
            thread, ended, holder = self._thread, self._ended, hold(self.socket)
            loop = self._begin_to_close(is_down=True)
            self._holder = holder
        self._wait_for_end(loop, thread, ended)

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
