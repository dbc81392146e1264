"""The next hop: how it is reached, greeted, trusted and logged in to."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scripted import ScriptedServer

from pytest_smtpd import RecordingServer
from pytest_smtpd.network.tls import client_context, server_context
from pytest_smtpd.smtpd.envelope import Features
from pytest_smtpd.smtpd.next_hop import NextHop, NoConnectionError, Upstream
from pytest_smtpd.smtpd.relayed import RelayedContent

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = {"username": "ada", "password": "open sesame"}
USERS = {"ada": "open sesame"}


@contextlib.contextmanager
def opened(address: tuple[str, int], **options: Any) -> Iterator[Upstream]:
    """Return a connection that is open."""
    upstream = Upstream(NextHop(address=address, **options))
    try:
        upstream.open()
        yield upstream
    finally:
        upstream.leave()


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "mail"}, r"is \(host, port\), such as \('mail.example.org', 25\), not 'mail'"),
        ({"address": None}, "not None"),
        ({"address": ("mail", "25")}, r"not \('mail', '25'\)"),
        ({"address": ("mail",)}, "not"),
        ({"tls": "ssl"}, "upstream_tls is None, 'starttls' or 'implicit', not 'ssl'"),
        ({"ssl_context": client_context()}, "upstream_ssl_context needs upstream_tls"),
        ({"username": "ada"}, "upstream_username and upstream_password need one another"),
        ({"password": "secret"}, "upstream_username and upstream_password need one another"),
        ({"username": "ad\u00e1", "password": "x"}, "are ASCII"),
        ({"username": "ada", "password": "\u00e9"}, "are ASCII"),
        ({"timeout": 0}, "upstream_timeout is a number of seconds, more than 0, not 0"),
        ({"timeout": float("nan")}, "not nan"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    """An option that makes no sense is a ValueError that names it, and says what would."""
    with pytest.raises(ValueError, match=message):
        NextHop(**{"address": ("127.0.0.1", 25), **options})


def test_passwords_are_not_shown() -> None:
    """What shows a next hop, in a traceback perhaps, does not show the password."""
    assert "sesame" not in repr(NextHop(address=("127.0.0.1", 25), **USER))  # type: ignore[arg-type] # strings


# Connections.


def test_it_is_greeted_by_address() -> None:
    """The proxy calls itself by its address on the connection (RFC 5321 4.1.4), and asks no DNS for a name."""
    with RecordingServer() as server, opened(server.address) as upstream:
        assert upstream.docmd("NOOP")[0] == 250
    assert server.dialogues[0].lines[1].text == "EHLO [127.0.0.1]"


def test_ipv6() -> None:
    """An IPv6 address is written as RFC 5321 4.1.3 demands."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    with RecordingServer("::1") as server, opened(server.address):
        pass
    assert server.dialogues[0].lines[1].text == "EHLO [IPv6:::1]"


def test_a_unix_socket() -> None:
    """A host that begins with a slash is the path of a Unix socket."""
    with (
        tempfile.TemporaryDirectory() as directory,
        RecordingServer(f"{directory}/smtp") as server,
        opened(server.address),
    ):
        pass
    assert server.dialogues[0].lines[1].text == "EHLO localhost"


def test_lmtp() -> None:
    """To a server of LMTP it says LHLO, and nothing else if that is refused."""
    with RecordingServer(protocol="lmtp") as server, opened(server.address, lmtp=True):
        pass
    assert server.dialogues[0].lines[1].text == "LHLO [127.0.0.1]"
    with ScriptedServer(LHLO=b"500 What?\r\n") as smtp, pytest.raises(NoConnectionError, match="it answered 500 What"):
        Upstream(NextHop(address=smtp.address, lmtp=True)).open()
    assert smtp.verbs() == ["LHLO"]


@pytest.mark.parametrize(
    ("reply", "keywords", "size"),
    [
        (b"250-x\r\n250-Size 1000\r\n250-dsn\r\n250 AUTH PLAIN\r\n", {"SIZE", "DSN", "AUTH"}, 1000),
        (b"250-x\r\n250 SIZE\r\n", {"SIZE"}, 0),
        (b"250-x\r\n250 SIZE many\r\n", {"SIZE"}, 0),
        (b"250 x\r\n", set(), 0),
    ],
)
def test_features(reply: bytes, keywords: set[str], size: int) -> None:
    """What the next hop offers is known, whatever its case."""
    with ScriptedServer(EHLO=reply) as server, opened(server.address) as upstream:
        assert upstream.features == Features(frozenset(keywords), size)


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a name has several addresses, one that does not answer is not the last."""
    with RecordingServer() as server:
        addresses = [(socket.AF_INET, 1, 6, "", (host, server.port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
        with opened(("mail.example.org", 25)):
            pass
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses[:1])
        with pytest.raises(NoConnectionError, match="Connection refused"), opened(("mail.example.org", 25)):
            pass
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [])
        with pytest.raises(NoConnectionError, match="its name has no address"), opened(("mail.example.org", 25)):
            pass


def test_a_connection_that_can_not_be_made_is_aborted() -> None:
    """While a connection is being made aborting ends the wait, as it does before."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # fill the backlog: Linux then does not answer
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        upstream = Upstream(NextHop(address=listener.getsockname()))
        upstream.abort()  # there is nothing yet
        with pytest.raises(NoConnectionError, match="the proxy was closed"):
            upstream.open()
        upstream = Upstream(NextHop(address=listener.getsockname()))
        errors: list[Exception] = []

        def connect() -> None:
            try:
                upstream.open()
            except NoConnectionError as error:
                errors.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        while thread.is_alive():  # it may not have begun to connect
            upstream.abort()
            thread.join(0.01)
        assert len(errors) == 1
        with pytest.raises(NoConnectionError, match="the proxy was closed"):
            upstream.open()
        upstream.leave()


def test_what_is_closed_is_not_used() -> None:
    """A connection that is closed is dead, and says so."""
    with ScriptedServer() as server:
        upstream = Upstream(NextHop(address=server.address))
        upstream.leave()
        alive = [upstream.is_alive]
        upstream.open()
        alive.append(upstream.is_alive)
        upstream.close()
        alive.append(upstream.is_alive)
        assert alive == [False, True, False]
        with pytest.raises(OSError, match="closed"):
            upstream.ask("NOOP")
        upstream.leave()


def test_a_server_that_says_more_than_it_was_asked() -> None:
    """Who answers what was not asked is not asked any more: no reply can be told from the next."""
    with ScriptedServer(NOOP=b"250 OK\r\n250 OK\r\n") as server, opened(server.address) as upstream:
        assert upstream.ask("NOOP").is_positive
        assert not upstream.is_alive


# TLS.


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_tls(tls: Any) -> None:
    """The next hop is verified, by STARTTLS or from the start, and what it offered in the clear does not count."""
    with (
        RecordingServer(tls=tls, require_tls=True, users=USERS) as server,
        opened(("localhost", server.port), tls=tls, ssl_context=server.client_ssl_context, **USER) as upstream,
    ):
        assert "STARTTLS" not in upstream.features.keywords
        assert upstream.is_alive
        upstream.ask("MAIL FROM:<ada@example.org>")
        upstream.ask("RCPT TO:<bob@example.org>")
        assert upstream.hand_over(RelayedContent(b"x" * 1_000_000, b"X-Peer: x"), in_a_chunk=True).is_positive
        message = server.messages.one()
        assert message.tls is not None
        assert message.auth is not None
        assert message.auth.user == "ada"
        assert len(message.data) == 1_000_013


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_stranger_is_not_trusted(tls: Any) -> None:
    """Without another context it is the system's CAs that vouch for the next hop, and its name has to be right."""
    with (
        RecordingServer(tls=tls) as server,
        pytest.raises(NoConnectionError, match="CERTIFICATE_VERIFY_FAILED"),
        opened(server.address, tls=tls),
    ):
        pass
    context = server.client_ssl_context
    with (
        RecordingServer("127.0.0.2", tls=tls) as server,  # which its certificate does not name
        pytest.raises(NoConnectionError, match="mismatch"),
        opened(server.address, tls=tls, ssl_context=context),
    ):
        pass


def test_no_tls_no_mail() -> None:
    """Where STARTTLS is demanded and not there, or refused, nothing is sent in the clear."""
    with ScriptedServer(STARTTLS=b"454 Not now\r\n") as server:
        with (
            pytest.raises(NoConnectionError, match="it answered 454 Not now"),
            opened(server.address, tls="starttls", **USER),
        ):
            pass
        assert server.verbs() == ["EHLO", "STARTTLS"]


def test_nothing_from_before_the_handshake() -> None:
    """What an attacker puts behind the answer to STARTTLS is not taken for what the encrypted server says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection = listener.accept()[0]
            connection.sendall(b"220 x\r\n")
            for reply in (b"250 x\r\n", b"220 Go on\r\n250-evil\r\n250 SIZE 1\r\n"):
                connection.recv(1000)
                connection.sendall(reply)
            with server_context().wrap_socket(connection, server_side=True) as encrypted:
                encrypted.recv(1000)
                encrypted.sendall(b"250-x\r\n250 DSN\r\n")
                encrypted.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        with opened(("localhost", listener.getsockname()[1]), tls="starttls", ssl_context=client_context()) as upstream:
            assert upstream.features == Features(frozenset({"DSN"}))
        thread.join()


# AUTH.


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_auth(mechanism: str) -> None:
    """User and password are given by what the next hop offers."""
    with RecordingServer(users=USERS, auth_mechanisms=[mechanism]) as server, opened(server.address, **USER):
        pass


def test_a_wrong_password() -> None:
    """A wrong password, and a next hop that wants none, make no connection."""
    with RecordingServer(users={"ada": "secret"}) as server, RecordingServer() as other:
        for address, reason in ((server.address, r"it answered 535 5\.7\.8"), (other.address, "AUTH .*not supported")):
            with pytest.raises(NoConnectionError, match=reason), opened(address, **USER):
                pass


# Replies.


@pytest.mark.parametrize(
    "pieces", [[b"250-one\r\n", b"250 t", b"wo\r\n"], [b"250-one\n250 two\n"], [b"250-one\r\n550 two\r\n"]]
)
def test_replies_come_in_pieces(pieces: list[bytes]) -> None:
    """A reply is read whole however it comes; where codes differ the last one counts."""
    ours, theirs = socket.socketpair()
    upstream = Upstream(NextHop(address=("127.0.0.1", 25)))
    upstream.sock = ours

    def answer() -> None:
        theirs.recv(100)
        for piece in pieces:
            theirs.sendall(piece)

    with theirs:
        thread = threading.Thread(target=answer)
        thread.start()
        reply = upstream.ask("NOOP")
        thread.join()
        upstream.close()
    assert (reply.code, reply.text) == (550 if b"550 two\r\n" in pieces[0] else 250, "one\ntwo")


def test_a_reply_has_a_deadline() -> None:
    """A server that sends octet by octet has no more time for its reply than any other."""
    ours, theirs = socket.socketpair()
    upstream = Upstream(NextHop(address=("127.0.0.1", 25), timeout=0.3))
    upstream.sock = ours
    ended = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.05):
                theirs.sendall(b"2")

    with theirs:
        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(TimeoutError):
            upstream.ask("NOOP")
        ended.set()
        thread.join()
        upstream.close()


def test_lines_are_not_smuggled_in() -> None:
    """A command with a line end in it is a ValueError: no text makes two commands."""
    with ScriptedServer() as server, opened(server.address) as upstream, pytest.raises(ValueError, match="newline"):
        upstream.ask("RCPT TO:<x>\r\nDATA")


@pytest.mark.parametrize(
    ("last_words", "reply"),
    [
        (b"552-5.3.4 That is\r\n552 5.3.4 enough\r\n", "552 5.3.4 That is\n5.3.4 enough"),
        (b"250 OK\r\n", "it answered 250 before it had all"),
        (b"", "closed the connection|reset by peer"),
    ],
)
def test_a_server_that_hangs_up_amid_the_content(last_words: bytes, reply: str) -> None:
    """What a server says that does not wait for the end of what it refuses is its answer; it can't accept so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = Upstream(NextHop(address=("127.0.0.1", 25)))
        upstream.sock = socket.create_connection(listener.getsockname())
        theirs = listener.accept()[0]

        def answer() -> None:
            with theirs:
                theirs.recv(100)
                theirs.sendall(b"354 Go on\r\n")
                theirs.recv(100)
                theirs.sendall(last_words)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            said = str(upstream.hand_over(RelayedContent(b"x" * 20_000_000, b"X-Peer: x"), in_a_chunk=False))
        except OSError as error:
            said = str(error)
        assert re.fullmatch(f".*({reply}).*", said, re.DOTALL)
        thread.join()
        upstream.close()
