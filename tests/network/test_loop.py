"""The loop: one thread for all connections, with real sockets and with protocols that know no SMTP."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import math
import os
import queue
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import pytest

from pytest_smtpd.network.listening import hold, listen, listen_again
from pytest_smtpd.network.loop import ACCEPT_BURST, Loop
from pytest_smtpd.network.poller import READABLE, WRITABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.network.connection import Connection, Timer

T = TypeVar("T")

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0

#: Far more than the small buffers of `Service` and its clients hold.
LARGE = 4_194_304


def resources() -> tuple[set[threading.Thread], set[str]]:
    """Return the threads and, where the system tells them, the open file descriptors with what they are."""
    descriptors = set()
    for path in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            descriptors.add(f"{path.name} {path.readlink()}")
    return set(threading.enumerate()), descriptors


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Hold for every test here that no thread and no socket outlives it, without help by the collector."""
    gc.collect()
    threads, descriptors = resources()
    yield
    threads_after, descriptors_after = resources()
    assert threads_after - threads == set()
    assert descriptors_after - descriptors == set()


class Echo:
    """A protocol that sends back what it reads, and closes when the client sends no more."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.received = b""
        self.losses = 0
        self.lost = threading.Event()

    def connection_made(self) -> None:
        """Have little room for what the client doesn't read."""
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.received += data
        self.connection.write(data)

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Read into all of it."""
        return memoryview(scratch)

    def buffer_updated(self, received: int) -> None:
        """Let subclasses take it."""

    def tls_established(self) -> None:
        """Go on."""

    def tls_failed(self, error: OSError) -> None:
        """Leave it at that."""

    def eof_received(self) -> None:
        """Close."""
        self.connection.close()

    def connection_lost(self) -> None:
        """Count: it happens once."""
        self.losses += 1
        self.lost.set()


class Service:
    """A loop with one listener: run by a thread after `start`, by the test itself without."""

    def __init__(self, accept: Callable[[Connection], Echo] = Echo) -> None:
        self.loop = Loop()
        self.listener = listen(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.thread: threading.Thread | None = None
        self.errors_expected = False
        self._accept = accept
        self._accepted: queue.SimpleQueue[Echo] = queue.SimpleQueue()
        self._clients = contextlib.ExitStack()
        self.loop.accept_from(self.listener, self.accept)

    def accept(self, connection: Connection) -> Echo:
        """Make the protocol for a connection, and tell the test."""
        protocol = self._accept(connection)
        self._accepted.put(protocol)
        return protocol

    def start(self) -> Self:
        """Run the loop in a thread."""
        running = threading.Event()
        self.loop.call_later(0, running.set)
        self.thread = threading.Thread(target=self.loop.run, name="loop under test", daemon=True)
        self.thread.start()
        assert running.wait(DEADLINE)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.stop()
        self.join()
        self._clients.close()
        assert kind is not None or self.errors_expected or self.loop.errors == []

    def stop(self) -> None:
        """Have the loop end."""
        self.loop.call(lambda: self.loop.stop_listening(self.listener))

    def join(self) -> None:
        """Wait until it has ended."""
        if self.thread is not None:
            self.thread.join(DEADLINE)
            assert not self.thread.is_alive()

    def client(self) -> socket.socket:
        """Return a new client, which has little room for what it doesn't read."""
        client = self._clients.enter_context(socket.socket())
        client.settimeout(DEADLINE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.connect(self.address)
        return client

    def accepted(self) -> Echo:
        """Return the protocol of the next connection that is accepted."""
        if self.thread is None:
            self.run_until(lambda: not self._accepted.empty())
        return self._accepted.get(timeout=DEADLINE)

    @property
    def unclaimed(self) -> int:
        """How many were accepted whom the test has not asked for by `accepted`, which runs the loop until one is."""
        return self._accepted.qsize()

    def connect(self) -> tuple[socket.socket, Echo]:
        """Return a new client and the protocol of its connection."""
        return self.client(), self.accepted()

    def run_until(self, condition: Callable[[], object]) -> None:
        """Run the loop by hand until something is so."""
        for _ in range(1000):
            if condition():
                return
            self.loop.run_once(0.1)
        pytest.fail("it never came to that")

    def ask(self, question: Callable[[], T]) -> T:
        """Return what this returns in the loop's thread."""
        answer: Future[T] = Future()
        self.loop.call(lambda: answer.set_result(question()))
        return answer.result(DEADLINE)


@pytest.fixture
def service() -> Iterator[Service]:
    """Return a service of Echo in a thread."""
    with Service() as service:
        yield service.start()


@pytest.fixture
def by_hand() -> Iterator[Service]:
    """Return a service of Echo that the test itself runs."""
    with Service() as service:
        yield service


def _do_nothing(_: object) -> None:
    pass


def receive(client: socket.socket, size: int | None = None) -> bytes:
    """Receive so many octets; all until the end of the connection by default."""
    received = bytearray()
    while size is None or len(received) < size:
        data = client.recv(1_048_576)
        if not data:
            break
        received += data
    return bytes(received)


def echo(client: socket.socket, data: bytes = b"hello") -> bytes:
    """Send something and return what comes back."""
    client.sendall(data)
    return receive(client, len(data))


def reset(client: socket.socket) -> None:
    """Close a connection as a client does that crashes: with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_idle(loop: Loop) -> bool:
    """Whether a loop has nothing to do but to wait."""
    start = time.monotonic()
    loop.run_once(0.05)
    return time.monotonic() - start > 0.04


# Binding.


@pytest.mark.parametrize(
    ("host", "family", "name"),
    [
        pytest.param("127.0.0.1", socket.AF_INET, "127.0.0.1", id="IPv4"),
        pytest.param("::1", socket.AF_INET6, "::1", id="IPv6"),
        pytest.param("", None, None, id="any address"),
    ],
)
def test_the_host_chooses_the_address_family(host: str, family: int | None, name: str | None) -> None:
    """Port 0 becomes a free port on the address of the host, which takes connections at once."""
    if name == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen((host, 0)) as listener:
        bound = listener.getsockname()
        assert bound[1] > 0
        assert (family, name) in [(None, None), (listener.family, bound[0])]
        with socket.create_connection((name or "127.0.0.1", bound[1]), timeout=DEADLINE) as client:
            assert client.getpeername()[1] == bound[1]


def test_a_port_that_is_taken_is_refused_in_the_caller() -> None:
    """The socket is kept from the moment when its port is known: nobody else gets the port."""
    with listen(("127.0.0.1", 0)) as listener, pytest.raises(OSError, match="in use"):
        listen(listener.getsockname())


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("no.such.host.invalid", id="a name that does not exist"),
        pytest.param("203.0.113.1", id="an address that is not ours"),
        pytest.param("127.0.0.1.1", id="a bad address"),
    ],
)
def test_a_bad_host_is_refused_in_the_caller(host: str) -> None:
    """A host that can't be bound raises OSError, and leaves no socket."""
    with pytest.raises(OSError, match=r"\w"):
        listen((host, 0))


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
def test_a_port_that_is_none_is_refused_in_the_caller(port: int) -> None:
    """A number that is no port is an error and not another port."""
    with pytest.raises((OSError, OverflowError, ValueError)), listen(("127.0.0.1", port)):
        pass


def test_a_client_that_comes_before_the_loop_runs_is_served(by_hand: Service) -> None:
    """Whoever connects once the socket is bound is served as soon as the loop runs."""
    client = by_hand.client()
    client.sendall(b"early")
    by_hand.start()
    assert receive(client, 5) == b"early"


def test_accepted_sockets_send_without_delay(service: Service) -> None:
    """Accepted sockets have TCP_NODELAY: a reply doesn't wait for the client's ACK."""
    _, protocol = service.connect()
    assert protocol.connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_accepted_sockets_send_without_delay_where_they_inherit_nothing(
    by_hand: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a socket has nothing from its listener, which is everywhere but on Linux, it gets TCP_NODELAY itself."""
    monkeypatch.setattr("pytest_smtpd.network.loop.INHERITS_NODELAY", False)
    by_hand.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    _, protocol = by_hand.connect()
    assert protocol.connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_connection_knows_its_peer(service: Service) -> None:
    """`peer` is the client's address."""
    client, protocol = service.connect()
    assert protocol.connection.peer == client.getsockname()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_other_kinds_of_sockets_are_served(service: Service, tmp_path: Path) -> None:
    """A listener need not be a TCP socket."""
    path = os.path.relpath(tmp_path / "socket")  # the name of a Unix socket must be short
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        listener.settimeout(0)
        service.ask(lambda: service.loop.accept_from(listener, service.accept))
        client.settimeout(DEADLINE)
        client.connect(path)
        assert echo(client) == b"hello"
        service.ask(lambda: service.loop.stop_listening(listener))


# Reading and writing.


def test_what_is_written_arrives(service: Service) -> None:
    """What a client sends is read, and what a protocol writes arrives."""
    client, protocol = service.connect()
    assert echo(client, b"one") == b"one"
    assert echo(client, b"two") == b"two"
    assert protocol.received == b"onetwo"


def test_clients_are_served_side_by_side(service: Service) -> None:
    """Each client gets what is meant for it, whatever the others do."""
    clients = [service.client() for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendall(b"%02d" % number)
    assert [receive(client, 2) for client in clients] == [b"%02d" % number for number in range(20)]


def test_an_empty_write_is_no_write(service: Service) -> None:
    """Writing nothing does nothing."""
    client, protocol = service.connect()
    service.ask(lambda: protocol.connection.write(b""))
    assert echo(client) == b"hello"


class Multiplier(Echo):
    """A protocol that answers each octet with very many of them."""

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.received += data
        for octet in data:
            self.connection.write(bytes([octet]) * LARGE)


@pytest.fixture
def multiplier() -> Iterator[Service]:
    """Return a service of Multiplier in a thread."""
    with Service(Multiplier) as service:
        yield service.start()


def test_a_client_that_reads_nothing_is_read_no_further(multiplier: Service) -> None:
    """While a client doesn't read, its next octets stay unread, and the others are served."""
    client, protocol = multiplier.connect()
    client.sendall(b"1")
    assert receive(client, 1).startswith(b"1")
    other, _ = multiplier.connect()
    client.sendall(b"2")
    other.sendall(b"o")
    assert receive(other, LARGE) == b"o" * LARGE
    assert protocol.received == b"1"
    assert multiplier.ask(lambda: protocol.connection.interest) == WRITABLE


def test_what_piled_up_arrives_in_order(multiplier: Service) -> None:
    """When a client reads again, it gets everything, in order."""
    client, _ = multiplier.connect()
    client.sendall(b"123")
    assert receive(client, 3 * LARGE) == b"1" * LARGE + b"2" * LARGE + b"3" * LARGE
    client.sendall(b"4")
    assert receive(client, LARGE) == b"4" * LARGE


def test_a_write_without_any_room_is_sent_later(service: Service) -> None:
    """Small writes arrive completely, also the one for which not an octet of room was left."""

    def fill() -> int:
        written = 0
        while protocol.connection.interest == READABLE:
            protocol.connection.write(b"x")
            written += 1
        return written

    client, protocol = service.connect()
    written = service.ask(fill)
    service.ask(protocol.connection.close)
    assert receive(client) == b"x" * written


def test_writing_to_one_who_has_gone_is_harmless(multiplier: Service) -> None:
    """A write after the end of the connection does nothing, with or without replies that were pending."""
    client, protocol = multiplier.connect()
    client.sendall(b"1")
    receive(client, 1)
    multiplier.ask(protocol.connection.abort)
    for _ in range(2):
        multiplier.ask(lambda: protocol.connection.write(b"more"))
    assert protocol.losses == 1


def test_nothing_is_read_while_reading_is_paused(service: Service) -> None:
    """What comes after `pause_reading` is read after `resume_reading`."""
    client, protocol = service.connect()
    other, _ = service.connect()
    for _ in range(2):  # twice is once
        service.ask(protocol.connection.pause_reading)
    client.sendall(b"wait")
    assert echo(other) == b"hello"
    assert protocol.received == b""
    service.ask(protocol.connection.resume_reading)
    assert receive(client, 4) == b"wait"


def test_replies_are_sent_while_reading_is_paused(service: Service) -> None:
    """`pause_reading` holds up no reply, however large."""
    client, protocol = service.connect()
    service.ask(protocol.connection.pause_reading)
    service.ask(lambda: protocol.connection.write(b"x" * LARGE))
    assert len(receive(client, LARGE)) == LARGE


class Rival(Echo):
    """A protocol that has another connection paused when it reads something."""

    other: Echo

    def data_received(self, data: bytes) -> None:
        """Pause the other."""
        self.received += data
        self.other.connection.pause_reading()


def test_pausing_holds_for_what_is_ready_already() -> None:
    """A connection that another one's protocol pauses is not read any more, although it was readable before."""
    with Service(Rival) as service:
        (client, one), (other_client, other) = service.connect(), service.connect()
        assert isinstance(one, Rival)
        assert isinstance(other, Rival)
        one.other, other.other = other, one
        client.sendall(b"x")
        other_client.sendall(b"x")
        service.run_until(lambda: one.received or other.received)
        assert one.received + other.received == b"x"


# The end of a connection.


class Farewell(Echo):
    """A protocol that answers with a lot and then ends the connection."""

    end: ClassVar[str]

    def data_received(self, data: bytes) -> None:
        """Answer and end."""
        self.connection.write(data * LARGE)
        getattr(self.connection, self.end)()


class Closing(Farewell):
    """Ends with `close`."""

    end = "close"


class Aborting(Farewell):
    """Ends with `abort`."""

    end = "abort"


def test_close_waits_until_all_is_sent() -> None:
    """After `close` the client still gets all that was written before, then the end."""
    with Service(Closing) as service:
        client, protocol = service.start().connect()
        client.sendall(b"x")
        assert len(receive(client)) == LARGE
        assert protocol.lost.wait(DEADLINE)
        assert protocol.connection.is_closed


def test_close_reads_no_more() -> None:
    """What the client sends after `close` is not read."""
    with Service(Closing) as service:
        client, _ = service.start().connect()
        client.sendall(b"x")
        receive(client, 1)
        client.sendall(b"y")
        assert set(receive(client)) == set(b"x")


def test_a_connection_with_nothing_to_read_after_all_is_left_alone() -> None:
    """A connection that was ready, and has nothing to read any more when its turn comes, stays open."""

    class Greedy(Echo):
        others: ClassVar[list[Connection]] = []

        def connection_made(self) -> None:
            """Remember it."""
            self.others.append(self.connection)

        def data_received(self, data: bytes) -> None:
            """Take what the others were to read, too."""
            for connection in self.others:
                with contextlib.suppress(BlockingIOError):
                    data += connection.socket.recv(100)
            super().data_received(data)

    with Service(Greedy) as by_hand:
        (first, one), (second, other) = by_hand.connect(), by_hand.connect()
        first.sendall(b"a")
        second.sendall(b"b")
        by_hand.run_until(lambda: one.received or other.received)
        assert sorted(one.received + other.received) == sorted(b"ab")
        assert not one.connection.is_closed
        assert not other.connection.is_closed


def test_close_leaves_nothing_unread_behind(by_hand: Service) -> None:
    """A client that has sent more by the time of `close` gets the last reply and an end without an error."""
    client, protocol = by_hand.connect()
    client.sendall(b"unread")
    protocol.connection.write(b"bye")
    protocol.connection.close()
    assert receive(client) == b"bye"


def test_abort_waits_for_nothing() -> None:
    """`abort` closes at once, whatever has not been sent."""
    with Service(Aborting) as service:
        client, protocol = service.start().connect()
        client.sendall(b"x")
        assert len(receive(client)) < LARGE
        assert protocol.connection.is_closed


def test_connection_lost_comes_once(service: Service) -> None:
    """However often and from which side a connection is closed, its protocol is told once."""
    client, protocol = service.connect()
    for end in (protocol.connection.close, protocol.connection.abort, protocol.connection.close):
        service.ask(end)
    assert receive(client) == b""
    client.close()
    service.ask(protocol.connection.resume_reading)
    assert protocol.losses == 1


class LastWord(Echo):
    """A protocol that has something to say at the end."""

    def eof_received(self) -> None:
        """Say it."""
        self.connection.write(b", and goodbye")
        self.connection.close()


def test_a_half_closed_client_gets_its_replies() -> None:
    """A client that sends no more is still sent what is written, then the end."""
    with Service(LastWord) as service:
        client, _ = service.start().connect()
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert receive(client) == b"hello, and goodbye"


class Mute(Echo):
    """A protocol that does nothing at the end."""

    def eof_received(self) -> None:
        """Note it."""
        self.received = b"end"


def test_a_half_closed_connection_is_not_waited_for() -> None:
    """A connection whose client sends no more costs no time, although its protocol doesn't close it."""
    with Service(Mute) as service:
        client, protocol = service.connect()
        client.shutdown(socket.SHUT_WR)
        service.run_until(lambda: protocol.received == b"end")
        assert is_idle(service.loop)
        protocol.connection.write(b"still here")
        assert receive(client, 10) == b"still here"


def test_a_reset_disturbs_nobody(service: Service) -> None:
    """A client that resets its connection ends that one, without an error, and no other."""
    client, protocol = service.connect()
    other, _ = service.connect()
    reset(client)
    assert protocol.lost.wait(DEADLINE)
    assert echo(other) == b"hello"


def test_a_reset_with_replies_pending_disturbs_nobody(multiplier: Service) -> None:
    """A client that resets its connection while replies to it pile up ends that one, and no other."""
    client, protocol = multiplier.connect()
    client.sendall(b"1")
    receive(client, 1)
    reset(client)
    assert protocol.lost.wait(DEADLINE)
    other, _ = multiplier.connect()
    other.sendall(b"2")
    assert receive(other, LARGE) == b"2" * LARGE


def test_a_write_to_a_reset_connection_ends_it(by_hand: Service) -> None:
    """A reply to a client that has reset its connection raises nothing and ends the connection."""
    client, protocol = by_hand.connect()
    reset(client)
    protocol.connection.write(b"hello?")
    assert protocol.losses == 1


def test_a_reset_before_it_is_accepted_disturbs_nobody(by_hand: Service) -> None:
    """A client that has reset its connection before it is accepted is forgotten."""
    reset(by_hand.client())
    gone = by_hand.accepted()
    by_hand.run_until(gone.lost.is_set)
    client, _ = by_hand.connect()
    by_hand.start()
    assert echo(client) == b"hello"


# Large content.


class Hasher(Echo):
    """A protocol that reads large chunks, behind a margin in the buffer, and answers with their hash."""

    margin = 5

    def connection_made(self) -> None:
        """Ask for large chunks."""
        self.connection.reads_large = True
        self.hash = hashlib.sha256()

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Leave a margin."""
        self.scratch = scratch
        return memoryview(scratch)[self.margin :]

    def buffer_updated(self, received: int) -> None:
        """Take them."""
        with memoryview(self.scratch)[self.margin :][:received] as chunk:
            self.hash.update(chunk)

    def eof_received(self) -> None:
        """Answer."""
        self.connection.write(self.hash.digest())
        self.connection.close()


@pytest.mark.parametrize("connections", [1, 5])
def test_large_content_is_not_mixed_up(connections: int) -> None:
    """Connections that read large chunks, all through the one buffer, each get what was sent to them."""

    def send(client: socket.socket, content: bytes) -> bytes:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        return receive(client)

    contents = [bytes([65 + number]) * (LARGE + number) for number in range(connections)]
    with Service(Hasher) as service, ThreadPoolExecutor(connections) as pool:
        service.start()
        clients = [service.client() for _ in contents]
        hashes = list(pool.map(send, clients, contents))
        assert hashes == [hashlib.sha256(content).digest() for content in contents]


class Sampler(Echo):
    """A protocol that reads octets one at a time as large content, and does something at the first one."""

    at_first: ClassVar[Callable[[Sampler], None]]

    def connection_made(self) -> None:
        """Ask for large chunks."""
        self.connection.reads_large = True

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Take one octet."""
        self.scratch = scratch
        return memoryview(scratch)[:1]

    def buffer_updated(self, received: int) -> None:
        """Do it."""
        self.received += self.scratch[:received]
        if len(self.received) == 1:
            type(self).at_first(self)


def _stop_reading_large(protocol: Sampler) -> None:
    protocol.connection.reads_large = False


@pytest.mark.parametrize(
    ("at_first", "received"),
    [
        pytest.param(_do_nothing, b"abcdef", id="nothing"),
        pytest.param(_stop_reading_large, b"abcdef", id="reads_large = False"),
        pytest.param(lambda protocol: protocol.connection.pause_reading(), b"a", id="pause_reading"),
        pytest.param(lambda protocol: protocol.connection.write(bytes(LARGE)), b"a", id="write more than goes out"),
        pytest.param(lambda protocol: protocol.connection.close(), b"a", id="close"),
        pytest.param(lambda protocol: protocol.connection.abort(), b"a", id="abort"),
    ],
)
def test_large_reading_can_be_stopped_at_any_octet(
    at_first: Callable[[Sampler], None], received: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two large chunks, too, a protocol can pause, close or go back to `data_received`."""
    monkeypatch.setattr(Sampler, "at_first", staticmethod(at_first), raising=False)
    with Service(Sampler) as service:
        client, protocol = service.connect()
        client.sendall(b"abcdef")
        for _ in range(3):
            service.loop.run_once(0.01)
        assert protocol.received == received


def test_a_reset_amid_large_content_disturbs_nobody() -> None:
    """A client that resets its connection while large chunks are read ends that one, without an error."""
    with Service(Hasher) as service:
        client, protocol = service.start().connect()
        client.sendall(bytes(1000))
        reset(client)
        assert protocol.lost.wait(DEADLINE)


def test_the_end_of_large_chunks_can_be_waited_for() -> None:
    """A connection that reads large chunks waits for the rest like any other."""
    with Service(Hasher) as service:
        client, _ = service.start().connect()
        client.sendall(b"one")
        service.ask(lambda: None)
        client.sendall(b"two")
        client.shutdown(socket.SHUT_WR)
        assert receive(client) == hashlib.sha256(b"onetwo").digest()


# Timers.


@pytest.mark.parametrize("seconds", [1e7, 1e300, math.inf])
def test_a_timer_may_be_far_away(service: Service, seconds: float) -> None:
    """A timer later than any selector can wait for keeps nobody from being served."""
    service.ask(lambda: service.loop.call_later(seconds, raising(AssertionError("far too early"))))
    client, _ = service.connect()
    assert echo(client) == b"hello"


def test_timers_run_in_the_order_of_their_times(by_hand: Service) -> None:
    """Timers are called when they are due, those for the same time in the order in which they were set."""
    called: list[str] = []
    for seconds, name in [(0.02, "last"), (0.0, "first"), (0.0, "second"), (0.01, "third")]:
        by_hand.loop.call_later(seconds, lambda name=name: called.append(name))  # type: ignore[misc]  # its default
    by_hand.run_until(lambda: "last" in called)
    assert called == ["first", "second", "third", "last"]


def test_a_timer_is_not_early(by_hand: Service) -> None:
    """A timer runs after the time that it was given, and `run_once` waits no longer than for it."""
    start = time.monotonic()
    times: list[float] = []
    by_hand.loop.call_later(0.05, lambda: times.append(time.monotonic()))
    while not times:
        by_hand.loop.run_once(DEADLINE)
    assert 0.05 <= times[0] - start < DEADLINE


def test_a_cancelled_timer_is_not_called(by_hand: Service) -> None:
    """`cancel` takes a timer back, also from within another timer that is due at the same time."""
    called: list[str] = []
    timers: list[Timer] = []
    by_hand.loop.call_later(0, lambda: timers.pop().cancel())
    timers.append(by_hand.loop.call_later(0, lambda: called.append("cancelled")))
    by_hand.loop.call_later(0, lambda: called.append("kept"))
    by_hand.run_until(lambda: called)
    assert called == ["kept"]


def test_run_once_may_be_given_any_timeout(by_hand: Service) -> None:
    """A timeout that no system call takes is as good as none."""
    by_hand.client()
    by_hand.loop.run_once(1e12)
    assert by_hand.accepted()


def test_run_once_waits_no_longer_than_its_timeout(by_hand: Service) -> None:
    """`run_once` returns after its timeout when neither a timer nor a client comes before."""
    called: list[str] = []
    by_hand.loop.call_later(3600, lambda: called.append("in an hour"))
    assert is_idle(by_hand.loop)
    assert called == []


def test_a_timer_runs_in_the_loops_thread(service: Service) -> None:
    """Timers are called in the thread that runs the loop, and may write to its clients."""
    client, protocol = service.connect()
    service.ask(lambda: service.loop.call_later(0.01, lambda: protocol.connection.write(b"time")))
    assert receive(client, 4) == b"time"


def test_a_timer_that_fails_ends_nothing(service: Service) -> None:
    """What a timer raises is kept in `errors`, and the loop goes on."""
    error, done = ValueError("late"), threading.Event()
    service.ask(lambda: service.loop.call_later(0, raising(error)))
    service.ask(lambda: service.loop.call_later(0, done.set))
    assert done.wait(DEADLINE)
    assert service.loop.errors == [error]
    service.errors_expected = True


# Calls.


def raising(error: Exception) -> Callable[..., Any]:
    """Return a function that raises."""

    def function(*_: object) -> None:
        raise error

    return function


def test_a_call_from_another_thread_is_made_in_the_loops(service: Service) -> None:
    """`call` has something called in the thread that runs the loop."""
    assert service.ask(threading.current_thread) is service.thread


def test_a_call_from_the_loops_own_thread_is_made_at_once(service: Service) -> None:
    """In the loop's thread, `call` returns when the call was made."""

    def call() -> list[str]:
        made: list[str] = []
        service.loop.call(lambda: made.append("at once"))
        return [*made, "then"]

    assert service.ask(call) == ["at once", "then"]


def test_a_call_is_made_at_once_when_nobody_runs_the_loop(by_hand: Service) -> None:
    """When no thread runs the loop, the thread that calls makes the call."""
    called: list[threading.Thread] = []
    by_hand.loop.call(lambda: called.append(threading.current_thread()))
    assert called == [threading.current_thread()]


def test_calls_are_made_in_order(service: Service) -> None:
    """Calls of one thread are made in its order, also more of them than the waking pipe has room for."""
    numbers: list[int] = []
    gate = threading.Event()

    def wait() -> None:
        assert gate.wait(DEADLINE)

    service.loop.call(wait)
    for number in range(3000):
        service.loop.call(functools.partial(numbers.append, number))
    assert numbers == []
    gate.set()
    service.ask(lambda: None)
    assert numbers == list(range(3000))


@pytest.mark.parametrize("run", ["run", "run_once"])
def test_no_call_is_lost_at_the_end(run: str, by_hand: Service) -> None:
    """A call that comes when the loop is about to return is made, although nobody runs the loop any more."""
    made = threading.Event()
    loop = by_hand.loop

    def last_act() -> None:
        if run == "run":
            loop.stop_listening(by_hand.listener)
        other = threading.Thread(target=loop.call, args=[made.set])
        other.start()
        other.join()

    loop.call_later(0, last_act)
    getattr(loop, run)()
    assert made.is_set()


def test_a_call_that_fails_ends_nothing(service: Service) -> None:
    """What a call raises is kept in `errors`, and the loop goes on."""
    error = ValueError("no")
    service.loop.call(raising(error))
    client, _ = service.connect()
    assert echo(client) == b"hello"
    assert service.loop.errors == [error]
    service.errors_expected = True


# What goes wrong.


FAILURE = RuntimeError("protocol")


class Failing(Echo):
    """A protocol that fails in one of its methods."""

    method: ClassVar[str]

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        setattr(self, self.method, raising(FAILURE))
        if self.method == "buffer_updated":
            connection.reads_large = True


class FailingWith(Echo):
    """A protocol that fails with the error it is given."""

    def __init__(self, connection: Connection, error: Exception) -> None:
        super().__init__(connection)
        self.error = error

    def data_received(self, data: bytes) -> None:
        """Fail."""
        raise self.error


def first(accept: Callable[[Connection], Echo]) -> Callable[[Connection], Echo]:
    """Return what accepts the first connection so, and Echo the others."""
    kinds = iter([accept])

    def accept_next(connection: Connection) -> Echo:
        return next(kinds, Echo)(connection)

    return accept_next


@pytest.fixture
def failing_first(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Return a service in a thread whose first connection fails in the method that the test says; no other."""
    with Service(first(type("FailingHere", (Failing,), {"method": request.param}))) as service:
        service.errors_expected = True
        yield service.start()


def _send(client: socket.socket) -> None:
    client.sendall(b"x")


def _end(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("failing_first", "act"),
    [
        pytest.param("connection_made", _do_nothing, id="connection_made"),
        pytest.param("data_received", _send, id="data_received"),
        pytest.param("buffer_updated", _send, id="buffer_updated"),
        pytest.param("eof_received", _end, id="eof_received"),
        pytest.param("connection_lost", _end, id="connection_lost"),
    ],
    indirect=["failing_first"],
)
def test_a_protocol_that_fails_ends_its_connection_only(
    failing_first: Service, act: Callable[[socket.socket], None]
) -> None:
    """What a protocol raises is kept in `errors`; its connection is closed, and the others are served."""
    client = failing_first.client()
    act(client)
    assert receive(client) == b""
    assert echo(failing_first.client()) == b"hello"
    assert failing_first.loop.errors == [FAILURE]


@pytest.mark.parametrize("error", [FileNotFoundError("mailbox"), BlockingIOError("lock")], ids=repr)
def test_a_protocols_own_os_errors_are_errors(error: OSError) -> None:
    """An OSError that a protocol raises is kept like any other: it is not the connection's."""
    with Service(first(lambda connection: FailingWith(connection, error))) as service:
        client = service.start().client()
        client.sendall(b"x")
        assert receive(client) == b""
        assert service.loop.errors == [error]
        service.errors_expected = True


@pytest.mark.parametrize("failing_first", ["connection_lost"], indirect=True)
def test_a_connection_lost_that_fails_after_a_reset_ends_nothing(failing_first: Service) -> None:
    """The loop goes on when a protocol raises because its client has reset the connection."""
    client, _ = failing_first.connect()
    reset(client)
    assert echo(failing_first.client()) == b"hello"
    assert failing_first.loop.errors == [FAILURE]


def test_connections_are_all_closed_although_a_protocol_fails() -> None:
    """The end of the loop closes every connection, also when `connection_lost` raises."""
    with Service(type("FailingHere", (Failing,), {"method": "connection_lost"})) as service:
        service.start()
        clients = [service.connect()[0] for _ in range(3)]
        service.stop()
        service.join()
        assert [receive(client) for client in clients] == [b"", b"", b""]
        assert service.loop.errors == [FAILURE] * 3
        service.errors_expected = True


def test_an_accept_that_fails_ends_its_connection_only() -> None:
    """What `accept` raises is kept in `errors`; the client is disconnected, and the next one is served."""
    with Service(first(raising(FAILURE))) as service:
        assert receive(service.start().client()) == b""
        assert echo(service.client()) == b"hello"
        assert service.loop.errors == [FAILURE]
        service.errors_expected = True


# Accepting.


def test_a_burst_of_connections_is_accepted(by_hand: Service) -> None:
    """Hundreds of connections that come at once are all accepted and served."""
    clients = [by_hand.client() for _ in range(5 * ACCEPT_BURST)]
    by_hand.start()
    for client in clients:
        client.sendall(b"hello")
    assert {receive(client, 5) for client in clients} == {b"hello"}


def test_a_burst_leaves_the_others_their_turn(by_hand: Service) -> None:
    """Of many who connect while others are served, so many are accepted in each turn, and the others served in it."""
    client, protocol = by_hand.connect()
    for _ in range(3 * ACCEPT_BURST):
        by_hand.client()
    client.sendall(b"hello")
    by_hand.loop.run_once(DEADLINE)
    assert protocol.received == b"hello"
    assert by_hand.unclaimed == ACCEPT_BURST


class Faulty(socket.socket):
    """A listener whose first client has gone by the time it is accepted, which Linux alone never says."""

    gone = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Say so, once."""
        if self.gone:
            return super().accept()
        self.gone = True
        raise ConnectionAbortedError


def test_a_client_that_has_gone_again_is_skipped(by_hand: Service) -> None:
    """A connection that is aborted before it is accepted is skipped, and the next one is accepted."""
    with Faulty(fileno=listen(("127.0.0.1", 0)).detach()) as listener:
        listener.settimeout(0)
        by_hand.loop.accept_from(listener, by_hand.accept)
        with socket.create_connection(listener.getsockname(), timeout=DEADLINE) as client:
            assert by_hand.accepted().connection.peer == client.getsockname()
            by_hand.loop.stop_listening(listener)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can shut down a listener and have it listen again")
def test_accepting_pauses_when_it_fails(by_hand: Service) -> None:
    """When accepting fails, the loop serves the others, does not turn in circles, and tries again later."""
    client, _ = by_hand.connect()
    by_hand.listener.shutdown(socket.SHUT_RD)
    by_hand.loop.run_once(DEADLINE)
    by_hand.loop.accept_waiting()  # fails while accepting pauses, too
    assert is_idle(by_hand.loop)
    by_hand.listener.listen()
    by_hand.address = by_hand.listener.getsockname()  # it has got another port
    by_hand.start()
    assert echo(client) == b"hello"
    assert echo(by_hand.client()) == b"hello"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can shut down a listener")
def test_a_listener_can_be_closed_while_accepting_pauses(by_hand: Service) -> None:
    """A listener that is closed while accepting pauses stays closed when the pause is over."""
    with listen(("127.0.0.1", 0)) as listener:
        by_hand.loop.accept_from(listener, by_hand.accept)
        listener.shutdown(socket.SHUT_RD)
        by_hand.loop.run_once(DEADLINE)
        by_hand.loop.stop_listening(listener)
    while not is_idle(by_hand.loop):
        pass
    assert is_idle(by_hand.loop)
    assert by_hand.loop.errors == []


def test_accept_may_close_its_listener(by_hand: Service) -> None:
    """An `accept` that closes its listener is called for no other client, although more are waiting."""
    with listen(("127.0.0.1", 0)) as listener:

        def accept(connection: Connection) -> Echo:
            by_hand.loop.stop_listening(listener)
            return by_hand.accept(connection)

        by_hand.loop.accept_from(listener, accept)
        by_hand.address = listener.getsockname()
        first, second = by_hand.client(), by_hand.client()
        by_hand.loop.accept_waiting()
    with pytest.raises(ConnectionResetError):
        second.recv(1)
    by_hand.start()
    assert echo(first) == b"hello"


OUT_OF_DESCRIPTORS = """
    import resource, socket, time
    from pytest_smtpd.network.listening import listen
    from pytest_smtpd.network.loop import ACCEPT_RETRY, Loop

    class Echo:
        def __init__(self, connection): self.connection = connection
        def connection_made(self): pass
        def data_received(self, data): self.connection.write(data)
        def eof_received(self): self.connection.close()
        def connection_lost(self): pass

    def answered(clients):
        count = 0
        for client in clients:
            try:
                count += client.recv(1) == b"x"
            except BlockingIOError:
                pass
        return count

    accepted = []
    loop, listener = Loop(), listen(("127.0.0.1", 0))
    loop.accept_from(listener, lambda connection: accepted.append(connection) or Echo(connection))
    clients = [socket.create_connection(listener.getsockname(), timeout=10) for _ in range(10)]
    for client in clients:
        client.settimeout(0)
        client.sendall(b"x")

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(client.fileno() for client in clients) + 1 + 3, limits[1]))
    start = time.monotonic()
    for _ in range(8):
        loop.run_once()
    pauses = (time.monotonic() - start) / ACCEPT_RETRY
    loop.accept_waiting()  # while accepting pauses, too
    print(len(accepted), answered(clients), pauses >= 2)

    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    total = 0
    while total < 7:
        loop.run_once()
        total += answered(clients[3:])
    print(len(accepted), total, loop.errors)
    loop.stop_listening(listener)
    for client in clients:
        client.close()
"""


def run_python(script: str) -> tuple[str, str]:
    """Run a script with warnings as errors; return what it prints, and what it says on standard error."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own
    return done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere descriptors are counted otherwise")
def test_out_of_file_descriptors() -> None:
    """A process without free file descriptors serves those it has, does not spin, and accepts the others later."""
    assert run_python(OUT_OF_DESCRIPTORS) == ("3 3 True\n10 7 []\n", "")


# The end of the loop.


def test_stop_listening_is_idempotent(by_hand: Service) -> None:
    """Stopping a listener again does nothing, also when it was never listened to."""
    with listen(("127.0.0.1", 0)) as stranger:
        by_hand.loop.stop_listening(stranger)
        assert stranger.fileno() >= 0
    for _ in range(2):
        by_hand.loop.stop_listening(by_hand.listener)
    assert by_hand.listener.fileno() < 0


def test_the_last_listener_ends_the_loop(service: Service) -> None:
    """Connections stay open when one of two listeners is closed; with the last one all end, and `run` returns."""
    second = listen(("127.0.0.1", 0))
    address = second.getsockname()
    service.ask(lambda: service.loop.accept_from(second, service.accept))
    client, protocol = service.connect()
    with socket.create_connection(address, timeout=DEADLINE) as other:
        assert echo(other) == b"hello"
        service.ask(lambda: service.loop.stop_listening(second))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=DEADLINE)
        assert [echo(client), echo(other)] == [b"hello", b"hello"]
        service.stop()
        service.join()
        assert [receive(client), receive(other)] == [b"", b""]
        assert protocol.losses == 1


def test_a_loop_that_has_ended_stays_ended(by_hand: Service) -> None:
    """Running or calling a loop after its end does no harm: it returns at once, and calls are still made."""
    called: list[str] = []
    by_hand.loop.stop_listening(by_hand.listener)
    by_hand.loop.run()
    by_hand.loop.run_once()
    by_hand.loop.call(lambda: called.append("after"))
    assert called == ["after"]


class Reporting(Echo):
    """A protocol that reports where it is."""

    def __init__(self, connection: Connection, report: Callable[[str], None]) -> None:
        super().__init__(connection)
        self.report = report
        report("accept")

    def connection_made(self) -> None:
        """Report."""
        self.report("connection_made")

    def data_received(self, data: bytes) -> None:
        """Report."""
        self.report("data_received")


@pytest.mark.parametrize("place", ["accept", "connection_made", "data_received"])
@pytest.mark.parametrize("others", [0, 1], ids=["", "two listeners"])
@pytest.mark.parametrize("calls", [0, 1], ids=["", "woken"])
def test_a_protocol_may_end_the_loop(place: str, others: int, calls: int) -> None:
    """Wherever the loop is ended, it ends without an error, whatever else had just become ready."""

    def report(reached: str) -> None:
        if reached == place:
            for listener in listeners:
                service.loop.stop_listening(listener)

    with Service(lambda connection: Reporting(connection, report)) as service, contextlib.ExitStack() as stack:
        listeners = [service.listener, *(listen(("127.0.0.1", 0)) for _ in range(others))]
        clients = [service.client(), service.client()]
        if place == "data_received":
            assert service.accepted() is not service.accepted()
        # All of this is ready at once when the loop looks.
        for client in clients:
            client.sendall(b"x")
        for other in listeners[1:]:
            service.loop.accept_from(other, service.accept)
            stack.enter_context(socket.create_connection(other.getsockname(), timeout=DEADLINE))
        for _ in range(calls):
            service.loop.call(lambda: None)
        service.loop.run()


LIFE_CYCLE = """
    import socket, threading
    from pytest_smtpd.network.listening import listen
    from pytest_smtpd.network.loop import Loop

    class Echo:
        def __init__(self, connection): self.connection = connection
        def connection_made(self): pass
        def data_received(self, data): self.connection.write(data)
        def eof_received(self): self.connection.close()
        def connection_lost(self): pass

    loop, listener = Loop(), listen(("127.0.0.1", 0))
    loop.accept_from(listener, Echo)
    thread = threading.Thread(target=loop.run)
    thread.start()
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"hello")
        print(client.recv(5))
        loop.call(lambda: loop.stop_listening(listener))
        thread.join()
        print(client.recv(5))
"""


def test_a_held_port_refuses_connections_until_it_is_listened_on_again() -> None:
    """A port changes from one socket to another without being free, though connections to it end meanwhile."""
    listener = listen(("127.0.0.1", 0))
    address = listener.getsockname()
    with socket.create_connection(address) as client:
        # The side that closes first keeps the port for a while (TIME_WAIT).
        listener.setblocking(True)  # noqa: FBT003 - socket's signature
        listener.accept()[0].close()
        holder = hold(listener)
        listener.close()
        assert holder is not None
        with holder:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            assert client.recv(1) == b""
            client.close()
            listen_again(holder)
            assert holder.gettimeout() == 0
            assert holder.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            socket.create_connection(address).close()


def test_a_port_is_not_held_without_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sockets can't share a port for a moment, as on Windows, nothing holds it."""
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    with listen(("127.0.0.1", 0)) as listener:
        assert hold(listener) is None


def test_a_port_that_cannot_be_held_is_an_error() -> None:
    """What the system refuses raises OSError, and leaves no socket behind."""
    listener = listen(("127.0.0.1", 0))
    listener.close()
    with pytest.raises(OSError, match=r"Bad file descriptor|not a socket"):
        hold(listener)


def test_nothing_is_left_to_the_garbage_collector() -> None:
    """A loop's whole life passes without a ResourceWarning."""
    assert run_python(LIFE_CYCLE) == ("b'hello'\nb''\n", "")
