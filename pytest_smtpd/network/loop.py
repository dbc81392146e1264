"""One thread, one poller: accepts, reads, writes, keeps timers, and takes calls from other threads.

It knows no SMTP. What is read goes to a `Protocol`, whose methods are named after those of asyncio's
protocols and are all called in the loop's thread, one at a time.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import signal
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias
from typing import Protocol as Interface

from .connection import READ_SIZE, Address, Connection, Protocol, Timer
from .listening import INHERITS_NODELAY, close_listener, send_at_once
from .poller import READABLE, make_poller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Size of the buffer that all connections share for large content, and how often one of them may fill it
#: before the others have their turn.
SCRATCH_SIZE = 262_144
BURST = 8
#: How many are accepted at the most where all those are to be who are connected.
ACCEPT_BURST = 64
#: Seconds until accepting is tried again after the process had run out of file descriptors.
ACCEPT_RETRY = 0.1
#: For how many seconds a poller is asked to wait at the most: they take no more than 2**31 milliseconds.
MAX_WAIT = 86_400.0


#: Returns what is done with a connection; None: nothing, it is closed.
Accept: TypeAlias = "Callable[[Connection], Protocol | None]"


class Watched(Interface):
    """What is waited for, under its file descriptor."""

    def serve(self) -> object:
        """Read or write: the time has come."""

    def abort(self) -> None:
        """End: it has failed."""


class _Reader:
    """What is called when there is something to be read, and goes on whatever that raises."""

    def __init__(self, serve: Callable[[], object]) -> None:
        self.serve = serve

    def abort(self) -> None:
        """Go on."""


class Loop:
    """A poller and what it watches; it lives as long as it listens.

    `run` serves in the thread that calls it, until `stop_listening` was called for the last listener. What
    protocols and calls raise is added to `errors`; the loop goes on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, errors: list[BaseException] | None = None) -> None:
        #: Tells the seconds by which timers go.
        self.clock = clock
        self._poller = make_poller()
        self._watched: dict[int, Watched] = {}
        # A thread that waits is woken by an octet in a pair of sockets: no polling.
        self._waking, self._waker = socket.socketpair()
        self._waking.settimeout(0)
        self._waker.settimeout(0)
        self._watch(self._waking.fileno(), _Reader(self._wake))
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = itertools.count()
        self._scratch = bytearray()
        self._listeners: dict[socket.socket, Accept] = {}
        self._connections: set[Connection] = set()
        self._closed = False
        # Who is served in the present turn.
        self._ready: list[tuple[int, int]] = []
        # Held by the thread that runs the loop; only with it may anything else here be touched.
        self._running = threading.RLock()
        self._runner = 0
        self.errors: list[BaseException] = [] if errors is None else errors

    # From any thread.

    def call(self, call: Callable[[], None]) -> None:
        """Have this called in the thread that runs the loop; at once if it is this one, or if none does."""
        self._calls.append(call)
        if not self.runs_here:
            # A full pipe wakes as well as one octet more; a closed one is nobody's.
            with contextlib.suppress(OSError):
                self._waker.send(b"\0")
        self._make_calls_unless_run()

    @property
    def runs_here(self) -> bool:
        """Whether this is the thread that runs the loop just now."""
        return self._runner == threading.get_ident()

    @property
    def is_listening(self) -> bool:
        """Whether there is something to serve."""
        return bool(self._listeners)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Keep other threads from making calls meanwhile; say whether the loop has not ended."""
        try:
            with self._running:
                yield not self._closed
        finally:
            self._make_calls_unless_run()

    # In the loop's thread.

    def run(self) -> None:
        """Serve until nothing listens any more."""
        with self._serving():
            while not self._closed:
                self._turn(MAX_WAIT)

    def run_once(self, timeout: float | None = None) -> None:
        """Wait for something to happen, at most `timeout` seconds (None: for ever), and deal with it."""
        with self._serving():
            if not self._closed:
                self._turn(MAX_WAIT if timeout is None else min(timeout, MAX_WAIT))
                self._run_timers()

    @contextlib.contextmanager
    def _serving(self) -> Iterator[None]:
        """Run the loop in this thread, and in no other meanwhile."""
        try:
            with self._running:
                before, self._runner = self._runner, threading.get_ident()
                self._poll: Callable[[float], list[tuple[int, int]]] = self._poller.poll
                if threading.current_thread() is threading.main_thread():
                    self._poll = self._poll_in_main_thread
                try:
                    yield
                finally:
                    self._runner = before
        finally:
            self._make_calls_unless_run()

    def _turn(self, timeout: float) -> None:
        if self._timers:
            left = self._timers[0][0] - self.clock()
            if left <= 0:
                left = self._run_timers()
                if self._closed:
                    return
            timeout = min(timeout, left)
        self._ready = self._poll(timeout)
        for descriptor, _ in self._ready:
            watched = self._watched.get(descriptor)
            if watched is None:
                continue  # what was served before has closed it
            try:
                watched.serve()
            except BaseException as error:  # noqa: BLE001 - one client's failure must not end the others
                self._fail(watched, error)

    def _keep(self, error: BaseException) -> None:
        """Keep what protocols and calls raise: also pytest.fail(), which must not end a thread that serves."""
        if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            raise error  # Ctrl-C, or what a signal handler raises: it ends who serves
        self.errors.append(error)

    def _fail(self, watched: Watched, error: BaseException) -> None:
        self._keep(error)
        watched.abort()

    def _poll_in_main_thread(self, timeout: float) -> list[tuple[int, int]]:
        # Python runs signal handlers, Ctrl-C's too, in the main thread between its own steps: a signal that comes
        # just before the system call, or to another thread, would wait as long as this does.
        before = -1
        try:
            before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
            return self._poller.poll(timeout)
        finally:
            signal.set_wakeup_fd(before)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Have this called after so many seconds; return what can cancel it."""
        timer = Timer(call)
        heapq.heappush(self._timers, (self.clock() + seconds, next(self._timer_numbers), timer))
        return timer

    def accept_from(self, listener: socket.socket, accept: Accept) -> None:
        """Accept connections on this socket; `accept` returns the protocol of each."""
        self._listeners[listener] = accept
        self._watch(listener.fileno(), _Reader(lambda: self._accept_ready(listener)))

    def accept_waiting(self) -> bool:
        """Accept those who are connected already, before the loop comes to it; say whether these were all."""
        return all(self._accept_burst(listener) for listener in list(self._listeners))

    def stop_listening(self, listener: socket.socket) -> None:
        """Close this socket; with the last one all connections, and the loop itself."""
        if self._listeners.pop(listener, None) is None:
            return
        self._unwatch(listener.fileno())
        close_listener(listener)
        if not self._listeners:
            self.close()

    def close(self) -> None:
        """End the loop: close all connections and the poller."""
        self._closed = True
        for connection in list(self._connections):
            connection.abort()
        self._watched.clear()
        self._poller.close()
        self._waking.close()
        self._waker.close()

    def watch(self, connection: Connection) -> None:
        """Wait for what the connection is interested in now."""
        if connection.is_closed:
            return
        descriptor, interest = connection.socket.fileno(), connection.interest
        if not interest:
            self._unwatch(descriptor)
        elif descriptor in self._watched:
            self._poller.modify(descriptor, interest)
        else:
            self._watch(descriptor, connection, interest)

    def _watch(self, descriptor: int, watched: Watched, interest: int = READABLE) -> None:
        self._poller.register(descriptor, interest)
        self._watched[descriptor] = watched

    def _unwatch(self, descriptor: int) -> None:
        """Wait for it no longer; it need not have been waited for."""
        if self._watched.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def forget(self, connection: Connection) -> None:
        """Close a connection and tell its protocol."""
        if connection not in self._connections:
            return
        self._unwatch(connection.socket.fileno())
        connection.socket.close()
        self._connections.discard(connection)  # last: Ctrl-C may come between any two of these
        self._call(connection.protocol.connection_lost)

    def _wake(self) -> None:
        # What is left of it wakes again. Or it is closed: the same batch of events has ended the loop.
        with contextlib.suppress(OSError):
            self._waking.recv(READ_SIZE)
        self._make_calls()

    def _make_calls_unless_run(self) -> None:
        """Make the calls that wait if no thread runs the loop: neither side may leave them to the other."""
        while self._calls and self._running.acquire(blocking=False):
            before, self._runner = self._runner, threading.get_ident()
            try:
                self._make_calls()
                if not before:
                    self._run_timers()  # a hook that was called may have put off something until it returns
            finally:
                self._runner = before
                self._running.release()

    def _make_calls(self) -> None:
        while self._calls:
            self._call(self._calls.popleft())

    def _run_timers(self) -> float:
        """Make the calls that are due; return in how many seconds the next one is."""
        timers = self._timers
        now = due = self.clock()
        while timers and timers[0][0] <= due:  # not later: one that comes again at once must let the others in
            timer = heapq.heappop(timers)[2]
            if timer.call is not None:
                self._call(timer.call)
            now = self.clock()
        return max(0.0, timers[0][0] - now) if timers else MAX_WAIT

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - the loop outlives what it calls
            self._keep(error)

    def _accept_ready(self, listener: socket.socket) -> None:
        # One a turn: to learn that nobody else waits costs a system call, and an exception. Where others are served in
        # the same turn, that would let those wait who come in numbers.
        if len(self._ready) > 1:
            self._accept_burst(listener)
        else:
            self._accept(listener)

    def _accept_burst(self, listener: socket.socket) -> bool:
        """Accept those who are connected, up to a number; say whether these were all."""
        return not all(self._accept(listener) for _ in range(ACCEPT_BURST))

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one of those who are connected; say whether there may be more."""
        accept = self._listeners.get(listener)
        if accept is None:
            return False  # it was closed meanwhile
        try:
            accepted, peer = listener.accept()
        except BlockingIOError:
            return False
        except ConnectionError:
            return True  # the client has gone again
        except OSError:
            # Out of file descriptors: the listener stays readable, so don't turn in circles.
            self._pause_accepting(listener)
            return False
        self._open(accepted, peer, accept)
        return True

    def _pause_accepting(self, listener: socket.socket) -> None:
        if listener.fileno() in self._watched:  # else it pauses already
            self._unwatch(listener.fileno())
            self.call_later(ACCEPT_RETRY, lambda: self._accept_again(listener))

    def _accept_again(self, listener: socket.socket) -> None:
        if accept := self._listeners.get(listener):
            self.accept_from(listener, accept)

    def _open(self, accepted: socket.socket, peer: Address | str, accept: Accept) -> None:
        accepted.settimeout(0)
        if not isinstance(peer, tuple):
            peer = (os.fsdecode(peer), 0)  # a Unix socket's client has no address, or a path
        if not INHERITS_NODELAY:
            send_at_once(accepted)
        connection = Connection(self, accepted, peer)
        try:
            protocol = accept(connection)
        except BaseException as error:  # noqa: BLE001 - one client's failure must not end the others
            accepted.close()
            self._keep(error)
            return
        if protocol is None:
            accepted.close()
            return
        connection.protocol = protocol
        self._connections.add(connection)
        if self._closed or connection.is_closing:  # `accept` has ended the loop, or the connection
            connection.abort()
            return
        self._watch(accepted.fileno(), connection)
        try:
            connection.protocol.connection_made()
        except BaseException as error:  # noqa: BLE001 - one client's failure must not end the others
            self._fail(connection, error)

    def read_large(self, connection: Connection) -> None:
        """Read a lot for a connection; the buffer is the same for all."""
        if not self._scratch:
            self._scratch = bytearray(SCRATCH_SIZE)
        for _ in range(BURST):
            with connection.protocol.get_buffer(self._scratch) as buffer:
                try:
                    received = connection.socket.recv_into(buffer)
                except BlockingIOError:
                    return
                except OSError:
                    connection.abort()
                    return
            if not received:
                connection.receive_eof()
                return
            connection.protocol.buffer_updated(received)
            if not connection.reads_large or connection.is_closed or connection.interest != READABLE:
                return
