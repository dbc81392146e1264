"""What a server does beyond a session: TLS, limits, time-outs, LMTP, proxies, shutdown; through real connections."""

from __future__ import annotations

import contextlib
import select
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.network.tls import certfile, client_context, server_context
from pytest_smtpd.protocol.events import Command
from pytest_smtpd.protocol.mail import Content
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.smtpd.channel import HANDSHAKE_SECONDS
from pytest_smtpd.testing.channel import RecordingChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.protocol.events import Event

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0

CONTENT = b"Subject: Hello\r\n\r\nHow are you?\r\n"
ENVELOPE = ("MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>")
PIPELINED = (
    b"EHLO client.example\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
    b"DATA\r\n" + CONTENT + b".\r\nQUIT\r\n"
)
CODES = ["220", "250", "250", "250", "354", "250", "221"]

STARTTLS: dict[str, Any] = {"tls": "starttls"}
IMPLICIT: dict[str, Any] = {"tls": "implicit"}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.seconds


def settle(server: RecordingServer) -> None:
    """Wait until the server's thread has done what it was at, and what had come in by then."""
    loop = server._loop  # noqa: SLF001 - there is no other way to wake it
    assert loop is not None
    # What wakes the loop may be served in front of what woke it at the same time.
    for _ in range(2):
        done = threading.Event()
        loop.call(done.set)
        assert done.wait(DEADLINE)


def advance(server: RecordingServer, seconds: float) -> None:
    """Let so much time pass for a server whose clock is a `Clock`."""
    settle(server)
    assert isinstance(server.clock, Clock)
    server.clock.seconds += seconds
    settle(server)


class Client(RawClient):
    """A client in raw octets that can begin TLS."""

    def start_tls(self, context: ssl.SSLContext | None = None) -> Self:
        """Do the handshake; the server is verified."""
        self._file.close()
        self.socket = (context or client_context()).wrap_socket(self.socket, server_hostname="localhost")
        self._file = self.socket.makefile("rb")
        return self

    def greeted(self) -> Self:
        """Read the greeting and say EHLO."""
        assert self.read_reply().startswith("220 ")
        assert self.ask("EHLO client.example").startswith("250")
        return self

    def secured(self, context: ssl.SSLContext | None = None) -> Self:
        """Say EHLO, STARTTLS, and EHLO again."""
        self.greeted()
        assert self.ask("STARTTLS").startswith("220 ")
        self.start_tls(context)
        assert self.ask("EHLO client.example").startswith("250")
        return self

    def deliver(self, content: bytes = CONTENT) -> str:
        """Send a message without dots at the beginning of lines, and return the reply to it."""
        for command in (*ENVELOPE, "DATA"):
            assert self.ask(command)[0] in "23"
        self.send(content + b".\r\n")
        return self.read_reply()

    def read_rest(self) -> bytes:
        """Read, as it comes from the network, until the server closes the connection."""
        octets = []
        with contextlib.suppress(ConnectionResetError):
            while chunk := self.socket.recv(65536):
                octets.append(chunk)
        return b"".join(octets)

    @property
    def has_something_to_read(self) -> bool:
        """Whether anything has come from the server that was not read yet."""
        return bool(select.select([self.socket], [], [], 0)[0])


class ProxiedClient(Client):
    """A client behind a proxy that sends a header first."""

    def __init__(self, address: tuple[str, int], header: bytes) -> None:
        super().__init__(address)
        self.send(header)


class MemoryTLS:
    """The client's side of TLS, for octets to be sent when and how a test wants."""

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = client_context().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def attempt(self, call: Callable[[], object]) -> bytes:
        """Do something that may need an answer, and return what is to be sent for it."""
        with contextlib.suppress(ssl.SSLWantReadError):
            call()
        return self._outgoing.read()

    def handshake(self, client: Client) -> None:
        """Do what is left of the handshake over this connection."""
        while self.ssl.version() is None or self._outgoing.pending:
            client.send(self.attempt(self.ssl.do_handshake))
            if self.ssl.version() is None:
                self._incoming.write(client.socket.recv(65536))

    def decrypt(self, octets: bytes) -> bytes:
        """Return what these octets, the last ones of the connection, say."""
        self._incoming.write(octets)
        self._incoming.write_eof()
        plaintext = []
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while chunk := self.ssl.read(65536):
                plaintext.append(chunk)
        return b"".join(plaintext)


@pytest.fixture
def start() -> Iterator[Callable[..., RecordingServer]]:
    """Return a function that starts a server with the options it is given."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(RecordingServer(*args, **options))


class ClockedServer(RecordingServer):
    """A server whose time passes when it is told to; each one has its own."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        super().__init__(**options)


@pytest.fixture
def start_clocked() -> Iterator[Callable[..., ClockedServer]]:
    """Return a function that starts a server whose time passes when it is told to."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(ClockedServer(**options))


def codes(octets: bytes) -> list[str]:
    """Return the codes of replies."""
    return [line[:3] for line in octets.decode().splitlines() if line[3:4] != "-"]


# Limits and the end of sessions.


def test_too_many_connections(start: Callable[..., RecordingServer]) -> None:
    """One client more than `max_connections` gets a 421 for a greeting and is closed; when one goes, one may come.

    Row 4. As the greeting it has no enhanced status code (RFC 2034 4).
    """
    server = start(max_connections=2)
    with Client(server.address).greeted() as first, Client(server.address).greeted() as second:
        with Client(server.address) as third:
            assert third.read_reply() == "421 Error: too many connections"
            assert third.read_reply() == ""
        assert first.ask("NOOP").startswith("250")
        assert second.ask("QUIT").startswith("221")
        assert second.read_reply() == ""
        with Client(server.address).greeted() as fourth:
            assert fourth.deliver().startswith("250")
    assert len(server.messages) == 1


@pytest.fixture
def stuck(start_clocked: Callable[..., ClockedServer]) -> Iterator[tuple[ClockedServer, Client]]:
    """Return a server and its client, which sends commands and takes no replies."""
    server = start_clocked(timeout=300)
    with Client(server.address).greeted() as client:
        (channel,) = server._channels  # noqa: SLF001 - the only way to its socket
        for end, option in ((client.socket, socket.SO_RCVBUF), (channel.conn.socket, socket.SO_SNDBUF)):
            end.setsockopt(socket.SOL_SOCKET, option, 4096)
        client.send(b"HELP\r\n" * 40_000)
        yield server, client


def test_a_client_that_takes_nothing_is_closed(stuck: tuple[ClockedServer, Client]) -> None:
    """A client that is silent and does not even take its 421 is closed all the same, one `timeout` later."""
    server, client = stuck
    for _ in range(2):
        advance(server, 301)
    with pytest.raises(ConnectionError):
        client.socket.sendall(b"NOOP\r\n" * 1_000_000)


def test_a_session_is_ended_once(stuck: tuple[ClockedServer, Client]) -> None:
    """A session that has had its 421, taken or not, gets no other one when the server stops."""
    server, _ = stuck
    advance(server, 301)
    server.stop()
    assert str(server.dialogues[0]).count("S: 421") == 1


def test_a_server_that_wants_tls_needs_a_context() -> None:
    """A subclass that offers TLS without an `ssl_context` learns of it when it stops."""

    class Forgetful(smtpd.SMTPServer):
        implicit_tls = True

    server = Forgetful(("127.0.0.1", 0), None).start()
    with socket.create_connection(server.socket.getsockname(), timeout=DEADLINE) as client:
        assert client.recv(1) == b""
    with pytest.raises(RuntimeError, match="needs an ssl_context"):
        server.stop()


@pytest.mark.parametrize("tls", [{}, STARTTLS, IMPLICIT], ids=["plain", "STARTTLS", "implicit"])
def test_silent_clients_are_timed_out(start_clocked: Callable[..., ClockedServer], tls: dict[str, Any]) -> None:
    """A client that is silent for `timeout` seconds gets 421 4.4.2, and its connection is closed (row 177)."""
    server = start_clocked(timeout=300, **tls)
    with Client(server.address) as client:
        if tls:
            client.start_tls().greeted() if server.implicit_tls else client.secured()
        else:
            client.greeted()
        advance(server, 299)
        assert client.ask("NOOP").startswith("250")
        advance(server, 299)
        assert client.ask("NOOP").startswith("250")
        advance(server, 301)
        assert client.read_reply() == "421 4.4.2 Error: timeout"
        assert client.read_reply() == ""


def test_only_the_silent_are_timed_out(start_clocked: Callable[..., ClockedServer]) -> None:
    """The time-out ends the sessions of silent clients alone; a message half sent is aborted."""
    server = start_clocked(timeout=300)
    with Client(server.address).greeted() as silent, Client(server.address).greeted() as busy:
        for command in (*ENVELOPE, "DATA"):
            silent.ask(command)
        silent.send(b"Subject: never ending\r\n")
        advance(server, 200)
        busy.ask("NOOP")
        advance(server, 101)
        assert silent.read_reply().startswith("421 4.4.2 ")
        assert silent.read_reply() == ""
        assert busy.deliver().startswith("250")
    assert [message.data for message in server.messages] == [CONTENT]
    assert [aborted.rcpttos for aborted in server.aborted] == [["bob@example.org"]]


def test_a_timeout_of_0_is_none(start_clocked: Callable[..., ClockedServer]) -> None:
    """With `timeout=0` a client may be silent for ever."""
    server = start_clocked(timeout=0)
    with Client(server.address).greeted() as client:
        advance(server, 1e9)
        assert client.ask("NOOP").startswith("250")


def test_a_session_keeps_the_timeout_that_it_began_with(start_clocked: Callable[..., ClockedServer]) -> None:
    """When `timeout` changes, sessions that are open go on with theirs, longer or shorter, and none at all."""
    server = start_clocked(timeout=0)
    with Client(server.address).greeted() as patient, contextlib.ExitStack() as stack:
        with server.options(timeout=10):
            hasty = stack.enter_context(Client(server.address).greeted())
        with server.options(timeout=300):
            usual = stack.enter_context(Client(server.address).greeted())
            advance(server, 9)
            assert not hasty.has_something_to_read
            advance(server, 2)
            assert hasty.read_reply() == "421 4.4.2 Error: timeout"
            assert hasty.read_reply() == ""
            advance(server, 200)
            assert not usual.has_something_to_read
        late = stack.enter_context(Client(server.address).greeted())
        advance(server, 100)
        assert usual.read_reply() == "421 4.4.2 Error: timeout"
        advance(server, 1e9)
        assert patient.ask("NOOP") == late.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize("tls", [{}, STARTTLS], ids=["plain", "TLS"])
def test_stopping_says_421(start: Callable[..., RecordingServer], tls: dict[str, Any]) -> None:
    """Whoever is connected when the server stops gets 421 4.3.2 and is closed; half a message is not stored (row 178)."""
    server = start(**tls)
    with Client(server.address) as idle, Client(server.address) as sending:
        for client in (idle, sending):
            client.secured() if tls else client.greeted()
        for command in (*ENVELOPE, "DATA"):
            assert sending.ask(command)[0] in "23"
        sending.send(b"Subject: unfinished\r\n")
        settle(server)
        server.stop()
        for client in (idle, sending):
            assert client.read_reply() == "421 4.3.2 Service not available, closing transmission channel"
            assert client.read_reply() == ""
    assert not server.messages
    assert [str(aborted) for aborted in server.aborted] == ["from <ada@example.org> to <bob@example.org>"]


@pytest.mark.parametrize("tls", [{}, STARTTLS], ids=["plain", "TLS"])
def test_a_hook_that_fails_is_answered_with_451(tls: dict[str, Any]) -> None:
    """A `process_message` that raises is answered with 451 4.3.0; the session goes on, and `stop` raises (row 180)."""
    errors = [KeyError("one")]

    class Failing(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> str | None:
            if errors:
                raise errors.pop()
            return None

    server = Failing(**tls).start()
    with Client(server.address) as client:
        client.secured() if tls else client.greeted()
        assert client.deliver().startswith("451 4.3.0 ")
        assert client.deliver().startswith("250 ")
    assert len(server.messages) == 1
    with pytest.raises(KeyError, match="one"):
        server.stop()


@pytest.mark.parametrize("until", [b"QUIT\r\n", b".\r\n"], ids=["behind QUIT", "behind the content"])
def test_a_client_that_sends_no_more_is_answered(start: Callable[..., RecordingServer], until: bytes) -> None:
    """A client that sends all at once and shuts down its side still gets all replies (row 181)."""
    server = start()
    said = PIPELINED[: PIPELINED.index(until) + len(until)]
    with Client(server.address) as client:
        client.send(said)
        client.socket.shutdown(socket.SHUT_WR)
        assert codes(client.read_rest()) == CODES[: 7 if until.startswith(b"QUIT") else 6]
    assert server.messages.one().data == CONTENT
    assert not server.aborted


def test_a_client_that_ends_tls_is_answered(start: Callable[..., RecordingServer]) -> None:
    """A client that sends all at once and a close_notify behind it still gets all replies (RFC 8446 6.1; row 181)."""
    server = start(**IMPLICIT)
    tls = MemoryTLS()
    with Client(server.address) as client:
        tls.handshake(client)
        octets = tls.attempt(lambda: tls.ssl.write(PIPELINED)) + tls.attempt(tls.ssl.unwrap)
        client.send(octets)
        assert codes(tls.decrypt(client.read_rest())) == CODES
    assert server.messages.one().tls is not None


# STARTTLS.


def test_what_is_injected_behind_starttls_is_dropped(start: Callable[..., RecordingServer]) -> None:
    """Commands in the same write as STARTTLS are never answered nor obeyed (CVE-2011-0411, RFC 3207 4.2; row 128)."""
    server = start(**STARTTLS)
    injected = b"NOOP\r\nEHLO evil.example\r\nMAIL FROM:<mallory@example.org>\r\nRCPT TO:<mallory@example.org>\r\n"
    with Client(server.address).greeted() as client:
        client.send(b"STARTTLS\r\n" + injected)
        assert client.read_reply() == "220 2.0.0 Ready to start TLS"
        client.start_tls()
        settle(server)
        assert not client.has_something_to_read
        assert client.ask("MAIL FROM:<ada@example.org>").startswith("503 ")
        assert client.ask("EHLO client.example").startswith("250-localhost\n")
        assert client.deliver().startswith("250")
    message = server.messages.one()
    assert (message.mailfrom, message.rcpttos, message.helo) == (
        "ada@example.org",
        ["bob@example.org"],
        "client.example",
    )
    assert "mallory" not in str(message.dialogue)


def test_half_a_line_injected_behind_starttls_is_dropped(start: Callable[..., RecordingServer]) -> None:
    """Half a command in the clear is not completed by what comes encrypted (row 129)."""
    server = start(**STARTTLS)
    with Client(server.address).greeted() as client:
        client.send(b"STARTTLS\r\nRS")
        assert client.read_reply().startswith("220 ")
        client.start_tls()
        assert client.ask("ET").startswith('500 5.5.1 Error: command "ET"')


def test_tls_begins_a_new_session(start: Callable[..., RecordingServer]) -> None:
    """What was said before STARTTLS is forgotten: a transaction, a login, and EHLO (RFC 3207 4.2)."""
    server = start(users={"ada": "secret"}, auth_without_tls=True, **STARTTLS)
    with Client(server.address).greeted() as client:
        assert client.ask("AUTH PLAIN AGFkYQBzZWNyZXQ=").startswith("235")
        for command in ENVELOPE:
            assert client.ask(command).startswith("250")
        assert client.ask("STARTTLS").startswith("220")
        client.start_tls()
        assert client.ask("RCPT TO:<bob@example.org>").startswith("503")
        assert client.ask("EHLO client.example").startswith("250")
        assert client.ask("RCPT TO:<bob@example.org>").startswith("503")
        assert client.deliver().startswith("250")
    assert server.messages.one().auth is None


# Handshakes that fail.


def hang_up(client: Client) -> None:
    """Go away."""
    client.socket.shutdown(socket.SHUT_WR)


def speak_plainly(client: Client) -> None:
    """Go on without TLS, as a client does that was told a lie about what 220 means."""
    client.send(b"EHLO client.example\r\n")


def distrust(client: Client) -> None:
    """Refuse the server's certificate."""
    # The socket is read to its end afterwards, when ssl has closed its own.
    tls, client.socket = client.socket, client.socket.dup()
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(tls, server_hostname="localhost")


def fall_silent(_client: Client) -> None:
    """Say nothing."""


FAILURES = [
    pytest.param(hang_up, "the client closed the connection during the TLS handshake", id="hangs up"),
    pytest.param(speak_plainly, r"(?i)wrong.version.number|http.request|unexpected.message", id="plaintext"),
    pytest.param(distrust, "(?i)unknown.ca", id="distrusts"),
    pytest.param(fall_silent, "the client did not finish the TLS handshake within 30 s", id="stalls"),
]


@pytest.mark.parametrize("tls", [STARTTLS, IMPLICIT], ids=["STARTTLS", "implicit"])
@pytest.mark.parametrize(("misbehave", "error"), FAILURES)
def test_a_failed_handshake_ends_its_connection_alone(
    start_clocked: Callable[..., ClockedServer],
    tls: dict[str, Any],
    misbehave: Callable[[Client], None],
    error: str,
) -> None:
    """A handshake that fails ends that connection and is recorded; others go on, old and new (row 135)."""
    server = start_clocked(**tls)

    def served() -> Client:
        client = Client(server.address)
        return client.start_tls().greeted() if server.implicit_tls else client.secured()

    with served() as other, Client(server.address) as failing:
        if not server.implicit_tls:
            assert failing.greeted().ask("STARTTLS").startswith("220")
        address = failing.socket.getsockname()
        misbehave(failing)
        # Connections are accepted in their order: when this one is served, the one before waits for its handshake.
        with served():
            advance(server, HANDSHAKE_SECONDS)
        assert not any(failing.read_rest().startswith(code) for code in (b"220", b"250", b"421"))
        assert other.deliver().startswith("250")
        with served() as later:
            assert later.deliver().startswith("250")
    (failure,) = server.tls_failures
    assert failure.peer == address
    with pytest.raises(OSError, match=error):
        raise failure.error
    assert len(server.messages) == 2


def test_a_reset_during_the_handshake_is_a_failure(start: Callable[..., RecordingServer]) -> None:
    """A client that resets the connection instead of finishing the handshake is listed among the failures."""
    server = start(**STARTTLS)
    with Client(server.address) as client:
        assert client.greeted().ask("STARTTLS").startswith("220 ")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Client(server.address) as other:
        assert other.greeted().deliver().startswith("250")
    (failure,) = server.tls_failures
    assert isinstance(failure.error, ConnectionResetError)


@pytest.mark.parametrize("tls", [STARTTLS, IMPLICIT], ids=["STARTTLS", "implicit"])
def test_a_handshake_has_its_time(start_clocked: Callable[..., ClockedServer], tls: dict[str, Any]) -> None:
    """A handshake may take up to 30 seconds; when it is done, its timer does nothing."""
    server = start_clocked(**tls)
    with Client(server.address) as client:
        if not server.implicit_tls:
            assert client.greeted().ask("STARTTLS").startswith("220")
        advance(server, HANDSHAKE_SECONDS - 1)
        client.start_tls()
        if server.implicit_tls:
            assert client.read_reply().startswith("220 ")
        assert client.ask("EHLO client.example").startswith("250")
        advance(server, 10)
        assert client.deliver().startswith("250")
    assert server.tls_failures == []


def test_a_handshake_that_is_timed_out_earlier_has_failed_as_well(start_clocked: Callable[..., ClockedServer]) -> None:
    """Where `timeout` is shorter than a handshake may take, it ends the handshake, which is recorded as failed."""
    server = start_clocked(timeout=10, **STARTTLS)
    with Client(server.address).greeted() as client:
        assert client.ask("STARTTLS").startswith("220")
        advance(server, 11)
        assert client.read_rest() == b""
    assert len(server.tls_failures) == 1


def test_a_broken_record_ends_the_connection(start: Callable[..., RecordingServer]) -> None:
    """A record that was tampered with ends the connection in mid-session, and is recorded."""
    server = start(**IMPLICIT)
    tls = MemoryTLS()
    with Client(server.address) as client:
        tls.handshake(client)
        record = tls.attempt(lambda: tls.ssl.write(b"EHLO client.example\r\n"))
        client.send(record[:-1] + bytes([record[-1] ^ 1]))
        assert b"250" not in client.read_rest()
    (failure,) = server.tls_failures
    assert isinstance(failure.error, ssl.SSLError)


def test_what_comes_before_a_broken_record_is_taken(start: Callable[..., RecordingServer]) -> None:
    """A command in front of a record that is broken, in one segment, is heard; with the record the connection ends."""
    server = start(**IMPLICIT)
    tls = MemoryTLS()
    with Client(server.address) as client:
        tls.handshake(client)
        record = tls.attempt(lambda: tls.ssl.write(b"EHLO client.example\r\n"))
        broken = tls.attempt(lambda: tls.ssl.write(b"NOOP\r\n"))
        client.send(record + broken[:-1] + bytes([broken[-1] ^ 1]))
        client.read_rest()
    assert len(server.tls_failures) == 1
    assert "C: EHLO client.example" in str(server.dialogues[0])
    assert "NOOP" not in str(server.dialogues[0])


def test_a_failure_is_told_when_a_message_is_missed(start: Callable[..., RecordingServer]) -> None:
    """The failure of an assertion tells of TLS connections that failed: that is why there is no message."""
    server = start(**STARTTLS)
    with smtplib.SMTP(*server.address) as client:
        client.ehlo()
        client.docmd("STARTTLS")
        client.send(b"this is no TLS\r\n")
        assert client.sock is not None
        while client.sock.recv(1000):
            pass
    with pytest.raises(AssertionError, match=r"TLS connections that failed: 1\n  127\.0\.0\.1:[0-9]+: "):
        server.assert_received()


# Implicit TLS, and what messages tell of TLS.


def test_implicit_tls_says_nothing_in_the_clear(start: Callable[..., RecordingServer]) -> None:
    """With implicit TLS the greeting comes behind the handshake, and STARTTLS is not offered (RFC 8314 3.3; row 136)."""
    server = start(**IMPLICIT)
    with Client(server.address) as client:
        settle(server)
        assert not client.has_something_to_read
        client.start_tls()
        assert client.read_reply().startswith("220 localhost ESMTP")
        assert "STARTTLS" not in client.ask("EHLO client.example")
        assert client.ask("STARTTLS")[:3] in {"500", "502", "503"}
        assert client.deliver().startswith("250")
    assert server.url.startswith("smtps://")
    assert server.messages.one().tls is not None


def test_a_message_tells_of_its_tls(start: Callable[..., RecordingServer]) -> None:
    """`message.tls` has version, cipher and the name that the client asked for; it is None for what came in the clear."""
    server = start(**STARTTLS)
    with Client(server.address).greeted() as client:
        client.deliver()
    with Client(server.address).secured() as client:
        client.deliver()
        used = client.socket
        assert isinstance(used, ssl.SSLSocket)
        cipher = used.cipher()
    plain, encrypted = server.messages
    assert plain.tls is None
    assert encrypted.tls is not None
    assert cipher is not None
    assert (encrypted.tls.version, encrypted.tls.cipher) == ("TLSv1.3", cipher[0])
    assert encrypted.tls.server_name == "localhost"
    assert encrypted.tls.peer_certificate is None


@pytest.mark.parametrize("tls", [STARTTLS, IMPLICIT], ids=["STARTTLS", "implicit"])
@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_a_clients_certificate_is_on_the_message(
    start: Callable[..., RecordingServer], tls: dict[str, Any], wanted: str
) -> None:
    """With `client_certificates` the certificate that a client shows is on its message, verified."""
    server = start(client_certificates=wanted, **tls)
    context = client_context()
    context.load_cert_chain(certfile("client"))
    with Client(server.address) as client:
        client.start_tls(context).greeted() if server.implicit_tls else client.secured(context)
        assert client.deliver().startswith("250")
    message = server.messages.one()
    assert message.tls is not None
    assert message.tls.peer_certificate is not None
    assert message.tls.peer_certificate["subjectAltName"] == (("email", "client@example.org"),)


def test_a_certificate_may_be_optional(start: Callable[..., RecordingServer]) -> None:
    """With "optional" a client without a certificate is served, and its message has none."""
    server = start(client_certificates="optional")
    with Client(server.address).secured() as client:
        client.deliver()
    message = server.messages.one()
    assert message.tls is not None
    assert message.tls.peer_certificate is None


@pytest.mark.parametrize(
    ("wanted", "certificate", "error"),
    [
        ("required", None, "(?i)peer.did.not.return.a.certificate"),
        ("required", "self-signed", "(?i)certificate.verify.failed"),
        ("optional", "self-signed", "(?i)certificate.verify.failed"),
    ],
)
def test_a_client_without_the_right_certificate_is_refused(
    start: Callable[..., RecordingServer], wanted: str, certificate: str | None, error: str
) -> None:
    """A client that has to show a certificate and has none, or one of another CA, fails in the handshake (row 134)."""
    server = start(client_certificates=wanted, **IMPLICIT)
    context = client_context()
    if certificate:
        context.load_cert_chain(certfile(certificate))
    # For TLS 1.3 the client's handshake is done when the server refuses.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Client(server.address) as client, pytest.raises(ssl.SSLError):
        client.start_tls(context)
    (failure,) = server.tls_failures
    assert failure.peer[0] == "127.0.0.1"
    with pytest.raises(ssl.SSLError, match=error):
        raise failure.error


def test_a_policy_may_refuse_all_but_quit() -> None:
    """A subclass to whom the TLS is not good enough answers 554 5.7.x to all but QUIT (RFC 3207 4.1; row 134)."""
    refusal = Reply(554, "Error: this cipher is too weak", "5.7.1")

    class Picky(RecordingChannel):
        def answer(self, event: Event) -> Reply | None:
            tls = self.conn.tls
            if isinstance(event, Command) and event.verb != "QUIT" and tls and tls.info.version == "TLSv1.2":
                return refusal
            return super().answer(event)

    class Server(RecordingServer):
        channel_class = Picky

    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Server(tls="starttls") as server:
        with Client(server.address).greeted() as weak:
            weak.ask("STARTTLS")
            weak.start_tls(context)
            # Replies to EHLO have no enhanced status codes (RFC 2034 4).
            assert weak.ask("EHLO client.example") == "554 Error: this cipher is too weak"
            for command in (*ENVELOPE, "DATA", "NOOP"):
                assert weak.ask(command) == "554 5.7.1 Error: this cipher is too weak"
            assert weak.ask("QUIT").startswith("221 ")
            assert weak.read_reply() == ""
        with Client(server.address).secured() as strong:
            assert strong.deliver().startswith("250")
        assert len(server.messages) == 1


def test_a_servers_own_context_is_used(start: Callable[..., RecordingServer]) -> None:
    """With `ssl_context`, a user's own, TLS is as that says: here no newer than 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = start(ssl_context=context)
    with Client(server.address).secured() as client:
        client.deliver()
    message = server.messages.one()
    assert message.tls is not None
    assert (message.tls.version, message.tls.server_name) == ("TLSv1.2", None)


@pytest.mark.parametrize("certificate", ["expired", "not-yet-valid", "wrong-host", "self-signed"])
def test_a_bad_certificate_is_for_clients_to_refuse(start: Callable[..., RecordingServer], certificate: str) -> None:
    """With the context of a bad certificate a test sees whether its client looks: who does, refuses."""
    server = start(ssl_context=server_context(certificate), **IMPLICIT)
    with pytest.raises(ssl.SSLCertVerificationError):
        smtplib.SMTP_SSL("localhost", server.port, context=server.client_ssl_context)
    with smtplib.SMTP_SSL(*server.address, context=ssl._create_unverified_context()) as careless:  # noqa: S323, SLF001
        careless.sendmail("ada@example.org", "bob@example.org", CONTENT)
    assert len(server.messages) == 1


@pytest.mark.parametrize("tls", [STARTTLS, IMPLICIT], ids=["STARTTLS", "implicit"])
def test_large_messages_come_through_tls(start: Callable[..., RecordingServer], tls: dict[str, Any]) -> None:
    """Ten megabytes, by DATA and by BDAT, come through TLS as they were sent."""
    server = start(**tls)
    content = b"".join(b"%07d %s\r\n" % (number, bytes(range(32, 127)) * 8) for number in range(13_000))
    assert len(content) > 10_000_000
    with Client(server.address) as client:
        client.start_tls().greeted() if server.implicit_tls else client.secured()
        assert client.deliver(content).startswith("250")
        for command in ENVELOPE:
            client.ask(command)
        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
        assert client.read_reply().startswith("250")
        assert client.ask("QUIT").startswith("221")
    assert [message.data == content for message in server.messages] == [True, True]


def test_too_large_messages_are_refused_through_tls(start: Callable[..., RecordingServer]) -> None:
    """Content over the limit is read to its end through TLS, too, refused with 552, and the session goes on."""
    server = start(data_size_limit=100_000, **STARTTLS)
    with Client(server.address).secured() as client:
        assert client.deliver(b"x" * 78 + b"\r\n" * 500_000).startswith("552 5.3.4 ")
        assert client.deliver().startswith("250")
    assert server.messages.one().data == CONTENT


# AUTH on the message.


def test_a_message_tells_who_sent_it(start: Callable[..., RecordingServer]) -> None:
    """`message.auth` has mechanism, user, authorization identity and password; None for who did not log in."""
    server = start(users={"ada": "secret"}, auth_mechanisms=["PLAIN", "CRAM-MD5"])
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", "bob@example.org", CONTENT)
    with Client(server.address).greeted() as raw:
        assert raw.ask("AUTH PLAIN Ym9iAGFkYQBzZWNyZXQ=").startswith("235 2.7.0 ")  # bob, ada, secret
        raw.deliver()
        raw.ask("RSET")
        raw.deliver()
    with smtplib.SMTP(*server.address) as client:
        client.login("ada", "secret")
        client.sendmail("ada@example.org", "bob@example.org", CONTENT)
    nobody, *plain, cram = (message.auth for message in server.messages)
    assert nobody is None
    for auth in plain:
        assert auth is not None
        assert (auth.mechanism, auth.user, auth.authzid, auth.password) == ("PLAIN", "ada", "bob", "secret")
    assert cram is not None
    assert (cram.mechanism, cram.user, cram.password) == ("CRAM-MD5", "ada", None)
    assert "secret" not in repr(server.messages[1])


# The PROXY protocol.

V1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 111 25\r\n"
V1_TCP6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 111 25\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2 = SIGNATURE + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, bytes([1, 2, 3, 4]), bytes([5, 6, 7, 8]), 111, 25)
V2_LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
HEADERS = [
    pytest.param(V1, ("1.2.3.4", 111), id="v1"),
    pytest.param(V1_TCP6, ("2001:db8::1", 111), id="v1 TCP6"),
    pytest.param(b"PROXY UNKNOWN\r\n", None, id="v1 UNKNOWN"),
    pytest.param(V2, ("1.2.3.4", 111), id="v2"),
    pytest.param(V2_LOCAL, None, id="v2 LOCAL"),
]


@pytest.mark.parametrize("tls", [{}, STARTTLS, IMPLICIT], ids=["plain", "STARTTLS", "implicit"])
@pytest.mark.parametrize(("header", "peer"), HEADERS)
def test_a_proxy_tells_the_clients_address(
    start: Callable[..., RecordingServer], tls: dict[str, Any], header: bytes, peer: tuple[str, int] | None
) -> None:
    """Behind a PROXY header, the client is who it says; without an address in it, who is connected (row 183)."""
    server = start(proxy_protocol=True, **tls)
    with ProxiedClient(server.address, header) as client:
        address = client.socket.getsockname()
        if server.implicit_tls:
            client.start_tls()
        client.secured() if tls == STARTTLS else client.greeted()
        assert client.deliver().startswith("250")
    message = server.messages.one()
    assert message.peer == (peer or address)
    assert message.dialogue is not None
    assert message.dialogue.peer == (peer or address)
    assert (message.tls is not None) == bool(tls)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_nobody_is_greeted_before_the_header_is_complete(start: Callable[..., RecordingServer], header: bytes) -> None:
    """The greeting comes behind the last octet of the header, however it is cut."""
    server = start(proxy_protocol=True)
    for cut in range(1, len(header)):
        with ProxiedClient(server.address, header[:cut]) as client:
            settle(server)
            assert not client.has_something_to_read
            client.send(header[cut:])
            client.greeted()


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_may_come_with_what_follows(start: Callable[..., RecordingServer], header: bytes) -> None:
    """Header and first commands in one segment are both read."""
    server = start(proxy_protocol=True)
    with ProxiedClient(server.address, header + PIPELINED) as client:
        assert codes(client.read_rest()) == CODES
    assert server.messages.one().peer == ("1.2.3.4", 111)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_may_come_with_the_handshake(start: Callable[..., RecordingServer], header: bytes) -> None:
    """Header and first message of the TLS handshake in one segment are both read."""
    server = start(proxy_protocol=True, **IMPLICIT)
    tls = MemoryTLS()
    with ProxiedClient(server.address, header + tls.attempt(tls.ssl.do_handshake)) as client:
        tls._incoming.write(client.socket.recv(65536))  # noqa: SLF001
        tls.handshake(client)
        client.send(tls.attempt(lambda: tls.ssl.write(PIPELINED)))
        assert codes(tls.decrypt(client.read_rest())) == CODES
    message = server.messages.one()
    assert (message.peer, message.tls is not None) == (("1.2.3.4", 111), True)


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO client.example\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 111 99999\r\n",
        b"PROXY TCP4 1.2.3.4\r\n",
        SIGNATURE + b"\x31\x11\0\0",
        b"PROXY " + b"x" * 200,
    ],
    ids=["none", "bad port", "too short", "v3", "too long"],
)
def test_a_malformed_header_ends_the_connection(start: Callable[..., RecordingServer], header: bytes) -> None:
    """What is no PROXY header ends the connection without a word, and no other (row 183)."""
    server = start(proxy_protocol=True)
    with ProxiedClient(server.address, V1).greeted() as other, ProxiedClient(server.address, header) as client:
        assert client.read_rest() == b""
        assert other.deliver().startswith("250")


@pytest.mark.parametrize("tls", [{}, IMPLICIT], ids=["plain", "implicit"])
def test_a_proxy_that_says_nothing_is_timed_out(
    start_clocked: Callable[..., ClockedServer], tls: dict[str, Any]
) -> None:
    """A connection whose header does not come is closed after `timeout`, without a word: least of all in the clear."""
    server = start_clocked(proxy_protocol=True, timeout=10, **tls)
    with ProxiedClient(server.address, V1[:10]) as client:
        with ProxiedClient(server.address, V1) as other:
            if tls:
                other.start_tls()
            other.greeted()
            advance(server, 11)
        assert client.read_rest() == b""


def test_a_failed_handshake_has_the_proxied_address(start: Callable[..., RecordingServer]) -> None:
    """A handshake that fails behind a PROXY header is recorded with the client's address."""
    server = start(proxy_protocol=True, **IMPLICIT)
    with ProxiedClient(server.address, V1 + b"this is no TLS\r\n") as client:
        client.read_rest()
    assert [failure.peer for failure in server.tls_failures] == [("1.2.3.4", 111)]


# LMTP.


def lmtp_replies(client: RawClient) -> list[str]:
    """Deliver a message to bob and carol by LMTP, and return what is answered to the content."""
    commands = ("LHLO client.example", *ENVELOPE, "RCPT TO:<carol@example.org>", "DATA")
    for command in commands:
        assert client.ask(command)[0] in "23"
    client.send(CONTENT + b".\r\n")
    return [client.read_reply() for _ in range(2)]


def test_lmtp_over_tcp(start: Callable[..., RecordingServer]) -> None:
    """By LMTP there is a greeting that says so, LHLO instead of EHLO, and a reply for each recipient (RFC 2033)."""
    server = start(protocol="lmtp")
    with RawClient(server.address) as client:
        assert client.read_reply().startswith("220 localhost LMTP")
        assert client.ask("EHLO client.example").startswith("500")
        assert [reply[:9] for reply in lmtp_replies(client)] == ["250 2.0.0", "250 2.0.0"]
        assert client.ask("QUIT").startswith("221")
    assert server.url == f"lmtp://127.0.0.1:{server.port}"
    assert server.messages.one().rcpttos == ["bob@example.org", "carol@example.org"]


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Return a path for a Unix socket, which has to be short."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory, "lmtp")


def test_lmtp_over_a_unix_socket(start: Callable[..., RecordingServer], socket_path: Path) -> None:
    """On a Unix socket LMTP is served likewise, and the file is gone when the server has stopped."""
    server = start(str(socket_path), protocol="lmtp")
    assert socket_path.is_socket()
    assert (server.host, server.url) == (str(socket_path), f"lmtp://{socket_path}")
    with smtplib.LMTP(server.host) as client:
        client.sendmail("ada@example.org", ["bob@example.org"], CONTENT)
    assert server.messages.one().data == CONTENT
    server.stop()
    assert not socket_path.exists()
    with server:
        assert socket_path.is_socket()
        with smtplib.LMTP(server.host) as client:
            client.sendmail("ada@example.org", ["bob@example.org"], CONTENT)
        assert len(server.messages) == 2
    assert not socket_path.exists()


def test_a_server_that_never_ran_removes_its_socket(socket_path: Path) -> None:
    """The file of a Unix socket is there from the constructor to `close`, also if nothing was served."""
    server = RecordingServer(str(socket_path), protocol="lmtp")
    assert socket_path.is_socket()
    server.close()
    assert not socket_path.exists()


def test_open_unix_connections_are_closed(start: Callable[..., RecordingServer], socket_path: Path) -> None:
    """Whoever is connected by a Unix socket when the server stops gets the 421 as well."""
    server = start(str(socket_path), protocol="lmtp")
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as replies:
        client.settimeout(DEADLINE)
        client.connect(server.host)
        assert replies.readline().startswith(b"220 ")
        server.stop()
        assert codes(replies.read()) == ["421"]


class LateChannel(RecordingChannel):
    """Answers content later, when `push` is called."""

    def answer(self, event: Event) -> Reply | None:
        """Have the answer to content wait."""
        if not isinstance(event, Content):
            return super().answer(event)
        assert isinstance(self.smtp_server, LateServer)
        self.smtp_server.asked(self)
        return None


class LateServer(ClockedServer):
    """Answers content when the test says so."""

    channel_class = LateChannel

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._asking = threading.Semaphore(0)
        self._channel: LateChannel | None = None

    def asked(self, channel: LateChannel) -> None:
        """Note who waits for an answer."""
        self._channel = channel
        self._asking.release()

    def push_next(self, reply: str) -> None:
        """Answer the content that waits, or the next."""
        assert self._asking.acquire(timeout=DEADLINE)
        channel = self._channel
        assert channel is not None
        assert self._loop is not None
        self._loop.call(lambda: channel.push(reply))


@pytest.mark.parametrize(
    ("answers", "recorded"),
    [
        (["250 2.1.5 bob", "250 2.1.5 carol"], [["bob@example.org", "carol@example.org"]]),
        (["250 2.1.5 bob", "550 5.2.1 carol"], [["bob@example.org"]]),
        (["450 4.2.1 bob", "250 2.1.5 carol"], [["carol@example.org"]]),
        (["550 5.2.1 bob", "550 5.2.1 carol"], []),
    ],
    ids=["both", "first", "second", "neither"],
)
def test_late_answers_by_lmtp(answers: list[str], recorded: list[list[str]]) -> None:
    """Each recipient's answer may come later, by `push`; the message is recorded, for who accepted, before the last."""
    with LateServer(protocol="lmtp") as server, RawClient(server.address) as client:
        client.read_reply()
        for command in ("LHLO client.example", *ENVELOPE, "RCPT TO:<carol@example.org>", "DATA"):
            client.ask(command)
        client.send(CONTENT + b".\r\nNOOP\r\n")
        for answer in answers:
            assert not server.messages
            server.push_next(answer)
            assert client.read_reply() == answer
        assert [message.rcpttos for message in server.messages] == recorded
        assert client.read_reply().startswith("250 2.0.0 ")


def test_who_waits_for_an_answer_is_not_silent() -> None:
    """A client that waits for an answer which comes late is not timed out, however long that takes."""
    with LateServer(timeout=10) as server, Client(server.address).greeted() as client:
        for command in (*ENVELOPE, "DATA"):
            client.ask(command)
        client.send(CONTENT + b".\r\n")
        server._asking.acquire(timeout=DEADLINE)  # noqa: SLF001
        server._asking.release()  # noqa: SLF001
        advance(server, 100)
        assert not client.has_something_to_read
        server.push_next("250 2.0.0 Late")
        assert client.read_reply() == "250 2.0.0 Late"
        assert client.ask("QUIT").startswith("221")
    assert len(server.messages) == 1


def test_who_was_answered_late_has_its_time() -> None:
    """The time in which a client has to speak again begins when its answer is sent (RFC 5321 4.5.3.2.7)."""
    with LateServer(timeout=10) as server, Client(server.address).greeted() as client:
        for command in (*ENVELOPE, "DATA"):
            client.ask(command)
        client.send(CONTENT + b".\r\n")
        server._asking.acquire(timeout=DEADLINE)  # noqa: SLF001
        server._asking.release()  # noqa: SLF001
        for seconds in (100, 9):
            advance(server, seconds)
        server.push_next("250 2.0.0 Late")
        assert client.read_reply() == "250 2.0.0 Late"
        advance(server, 9)
        assert client.ask("NOOP").startswith("250")


def test_a_late_answer_reaches_who_sends_no_more() -> None:
    """A client that has shut down its side gets the answer that comes late, and is closed then (row 181)."""
    with LateServer() as server, Client(server.address) as client:
        client.send(PIPELINED.removesuffix(b"QUIT\r\n"))
        client.socket.shutdown(socket.SHUT_WR)
        server.push_next("250 2.0.0 Late")
        assert client.read_rest().endswith(b"250 2.0.0 Late\r\n")
    assert len(server.messages) == 1


# What TLS costs.


def test_tls_costs_nothing_until_it_is_used() -> None:
    """A server without TLS that has taken a message has not imported ssl, which takes longer than all of the rest."""
    script = """if True:
        import socket, sys
        from pytest_smtpd import RecordingServer
        with RecordingServer(users={"ada": "secret"}, require_auth=False) as server:
            with socket.create_connection(server.address) as client, client.makefile("rb") as replies:
                client.sendall(b"EHLO x\\r\\nMAIL FROM:<a@example.org>\\r\\nRCPT TO:<b@example.org>\\r\\n")
                client.sendall(b"DATA\\r\\nSubject: Hello\\r\\n\\r\\n.\\r\\nQUIT\\r\\n")
                replies.read()
            assert server.assert_received(subject="Hello").tls is None
            str(server.dialogues[0])
        assert "ssl" not in sys.modules and "_ssl" not in sys.modules
        with RecordingServer(tls="starttls"):
            assert "ssl" in sys.modules
    """
    command = [sys.executable, "-W", "error", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the script above
    assert (ran.returncode, ran.stderr) == (0, "")


def test_an_overridden_ehlo_that_answers_as_usual() -> None:
    """A channel whose `smtp_EHLO` calls super offers what it would without: keywords carry no status codes (RFC 2034 4)."""

    class Channel(RecordingChannel):
        def smtp_EHLO(self, arg: str | None) -> None:  # noqa: N802 - a command's name
            super().smtp_EHLO(arg)

    class Server(RecordingServer):
        channel_class = Channel

    with Server() as server, smtplib.SMTP(*server.address) as client:
        client.ehlo()
        assert {"size", "enhancedstatuscodes"} <= client.esmtp_features.keys()
        assert client.docmd("NOOP") == (250, b"2.0.0 OK")
