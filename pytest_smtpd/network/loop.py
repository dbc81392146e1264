"""One thread, one selector: accepts, reads, writes, keeps timers, and takes calls from other threads.

It knows no SMTP. What is read goes to a `Protocol`, whose methods are named after those of asyncio's
protocols and are all called in the loop's thread, one at a time.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Protocol as Interface

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many octets are read at once. Larger buffers are not served from malloc's heap and cost far more.
READ_SIZE = 16_384
#: Size of the buffer that all connections share for large content, and how often one of them may fill it
#: before the others have their turn.
SCRATCH_SIZE = 262_144
BURST = 8
#: Connections that may wait to be accepted: bursts must not run into one-second SYN retries.
BACKLOG = 1024
#: How many of them are accepted before the others have their turn.
ACCEPT_BURST = 64
#: Seconds until accepting is tried again after the process had run out of file descriptors.
ACCEPT_RETRY = 0.1

Address: TypeAlias = tuple[Any, ...]


class Protocol(Interface):
    """What is done with a connection's data."""

    def connection_made(self) -> None:
        """Begin: the connection is open."""

    def data_received(self, data: bytes) -> None:
        """Take what was read."""

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the part of `scratch` to read into; asked for while `Connection.reads_large` is set."""

    def buffer_updated(self, received: int) -> None:
        """Take `received` octets, which stand in the buffer last given out."""

    def eof_received(self) -> None:
        """End: the client sends no more. Who wants the connection closed has to close it."""

    def connection_lost(self) -> None:
        """Forget the connection: it is closed, whoever closed it. Called once."""


def listen(address: Address) -> socket.socket:
    """Return a socket that listens on (host, port), port 0 for any free one; IPv4 or IPv6, as the host says.

    Raises OSError in the caller's thread when it can't be bound.
    """
    host, port = address[:2]
    family, kind, protocol, _, resolved = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(resolved)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


Accept: TypeAlias = "Callable[[Connection], Protocol]"


class Connection:
    """A client's connection, for the loop's thread alone; other threads go through `Loop.call`."""

    __slots__ = ("_closing", "_loop", "_outgoing", "_paused", "peer", "protocol", "reads_large", "socket")

    protocol: Protocol

    def __init__(self, loop: Loop, accepted: socket.socket, peer: Address) -> None:
        self.socket = accepted
        self.peer = peer
        self._loop = loop
        self._outgoing = b""
        self._closing = False
        self._paused = False
        #: Whether to read large chunks, through the protocol's `get_buffer` instead of its `data_received`.
        self.reads_large = False

    def write(self, data: bytes) -> None:
        """Send, at once as far as the client takes it; nothing is read before the rest is gone."""
        if not self._outgoing:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._outgoing += data
        self._loop.watch(self)

    def flush(self) -> None:
        """Send more of what waits: the client takes data again."""
        data, self._outgoing = self._outgoing, b""
        self.write(data)
        if self._closing and not self._outgoing:
            self.close()
        else:
            self._loop.watch(self)

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        self._paused = True
        self._loop.watch(self)

    def resume_reading(self) -> None:
        """Read again."""
        self._paused = False
        self._loop.watch(self)

    def close(self) -> None:
        """Close as soon as all is sent."""
        self._closing = True
        if self._outgoing:
            self._loop.watch(self)
            return
        # Whoever closes a socket that has unread data resets the connection, which may cost the client the
        # last reply.
        with contextlib.suppress(OSError):
            self.socket.recv(READ_SIZE)
        self.abort()

    def abort(self) -> None:
        """Close now, whatever has not been sent."""
        self._loop.forget(self)

    @property
    def is_closed(self) -> bool:
        """Whether there is a socket any more."""
        return self.socket.fileno() < 0

    @property
    def interest(self) -> int:
        """What the selector is to wait for: writing before reading, so that no client makes replies pile up."""
        if self._outgoing:
            return selectors.EVENT_WRITE
        return 0 if self._paused or self._closing else selectors.EVENT_READ


class Timer:
    """A call to come; `cancel` takes it back."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Don't call any more."""
        self.call = None


class Loop:
    """A selector and what it watches; it lives as long as it listens.

    `run` serves in the thread that calls it, until `stop_listening` was called for the last listener.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # A thread that waits in select() is woken by an octet in a pair of sockets: no polling.
        self._waking, self._waker = socket.socketpair()
        self._waking.settimeout(0)
        self._waker.settimeout(0)
        self._selector.register(self._waking, selectors.EVENT_READ, self._wake)
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = itertools.count()
        self._scratch = bytearray()
        self._listeners: dict[socket.socket, Accept] = {}
        self._connections: set[Connection] = set()
        self._closed = False
        # Held by the thread that runs the loop; only with it may anything else here be touched.
        self._running = threading.RLock()
        #: What protocols and calls have raised; the loop goes on.
        self.errors: list[Exception] = []

    # From any thread.

    def call(self, call: Callable[[], None]) -> None:
        """Have this called in the thread that runs the loop; at once if it is this one, or if none does."""
        self._calls.append(call)
        # A full pipe wakes as well as one octet more; a closed one is nobody's.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        if self._running.acquire(blocking=False):
            try:
                self._make_calls()
            finally:
                self._running.release()

    # In the loop's thread.

    def run(self) -> None:
        """Serve until nothing listens any more."""
        with self._running:
            while not self._closed:
                self.run_once()

    def run_once(self, timeout: float | None = None) -> None:
        """Wait for something to happen, at most `timeout` seconds (None: for ever), and deal with it."""
        with self._running:
            for key, events in self._selector.select(self._seconds_to_wait(timeout)):
                if not isinstance(key.data, Connection):
                    key.data()
                elif not key.data.is_closed:
                    self._serve(key.data, events)
            self._run_timers()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Have this called after so many seconds; return what can cancel it."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._timer_numbers), timer))
        return timer

    def accept_from(self, listener: socket.socket, accept: Accept) -> None:
        """Accept connections on this socket; `accept` returns the protocol of each."""
        self._listeners[listener] = accept
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))

    def stop_listening(self, listener: socket.socket) -> None:
        """Close this socket; with the last one all connections, and the loop itself."""
        if self._listeners.pop(listener, None) is None:
            return
        with contextlib.suppress(KeyError):  # it is not registered while accepting pauses
            self._selector.unregister(listener)
        listener.close()
        if not self._listeners:
            self._close()

    def _close(self) -> None:
        self._closed = True
        for connection in list(self._connections):
            connection.abort()
        self._selector.close()
        self._waking.close()
        self._waker.close()

    def watch(self, connection: Connection) -> None:
        """Wait for what the connection is interested in now."""
        if connection.is_closed:
            return
        interest = connection.interest
        registered = connection.socket in self._selector.get_map()
        if registered and interest:
            self._selector.modify(connection.socket, interest, connection)
        elif interest:
            self._selector.register(connection.socket, interest, connection)
        elif registered:
            self._selector.unregister(connection.socket)

    def forget(self, connection: Connection) -> None:
        """Close a connection and tell its protocol."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        with contextlib.suppress(KeyError):  # it is not registered while nothing interests it
            self._selector.unregister(connection.socket)
        connection.socket.close()
        connection.protocol.connection_lost()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._waking.recv(4096):
                pass
        self._make_calls()

    def _make_calls(self) -> None:
        while self._calls:
            self._call(self._calls.popleft())

    def _seconds_to_wait(self, timeout: float | None) -> float | None:
        if not self._timers:
            return timeout
        until_timer = max(0.0, self._timers[0][0] - time.monotonic())
        return until_timer if timeout is None else min(timeout, until_timer)

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                self._call(timer.call)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the loop outlives what it calls
            self.errors.append(error)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                accepted, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the client has gone again
            except OSError:
                # Out of file descriptors: the listener stays readable, so don't turn in circles.
                self._selector.unregister(listener)
                self.call_later(ACCEPT_RETRY, lambda: self._accept_again(listener))
                return
            self._open(accepted, peer, self._listeners[listener])

    def _accept_again(self, listener: socket.socket) -> None:
        if accept := self._listeners.get(listener):
            self.accept_from(listener, accept)

    def _open(self, accepted: socket.socket, peer: Address, accept: Accept) -> None:
        accepted.settimeout(0)
        with contextlib.suppress(OSError):  # not every kind of socket has it, nor one that the client has reset
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, accepted, peer)
        try:
            connection.protocol = accept(connection)
        except Exception as error:  # noqa: BLE001 - one client's failure must not end the others
            self.errors.append(error)
            accepted.close()
            return
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)
        self._call(connection.protocol.connection_made)

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                connection.flush()
            elif connection.reads_large:
                self._read_large(connection)
            else:
                self._read(connection)
        except BlockingIOError:
            pass
        except OSError:
            connection.abort()
        except Exception as error:  # noqa: BLE001 - one connection's failure must not end the others
            self.errors.append(error)
            connection.abort()

    def _read(self, connection: Connection) -> None:
        if data := connection.socket.recv(READ_SIZE):
            connection.protocol.data_received(data)
        else:
            self._end_of_data(connection)

    def _read_large(self, connection: Connection) -> None:
        if not self._scratch:
            self._scratch = bytearray(SCRATCH_SIZE)
        protocol = connection.protocol
        for _ in range(BURST):
            with protocol.get_buffer(self._scratch) as buffer:
                received = connection.socket.recv_into(buffer)
            if not received:
                self._end_of_data(connection)
                return
            protocol.buffer_updated(received)
            if not connection.reads_large or connection.is_closed:
                return

    def _end_of_data(self, connection: Connection) -> None:
        # A socket at its end stays readable: nobody may wait for that.
        connection.pause_reading()
        connection.protocol.eof_received()
