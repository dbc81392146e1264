"""Interplay: what capabilities that have nothing to do with one another make of one another."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingChannel, RecordingServer, Reply, smtp_faults, smtpd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEGIN = ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")
CONTENT = b"Subject: Hello\r\n\r\nHow are you?\r\n.\r\n"


class Blocking(RecordingServer):
    """A server whose hook takes its time."""

    blocking = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.entered, self.gate = threading.Event(), threading.Event()

    def process_message(self, *_arguments: Any, **_keywords: Any) -> None:
        """Wait for the gate."""
        self.entered.set()
        assert self.gate.wait(10)


@contextlib.contextmanager
def delivering(server: RecordingServer, *commands: str) -> Iterator[RawClient]:
    """Connect, say these commands, and send the content; its answer is still to be read."""
    with RawClient(server.address) as client:
        client.read_reply()
        for command in commands or BEGIN:
            assert client.ask(command)[0] in "23"
        client.send(CONTENT)
        yield client


def send(server: RecordingServer) -> None:
    """Send a message."""
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", "bob@example.org", "Subject: Hello\r\n\r\nHow are you?\r\n")


# Breaks.


def test_a_wait_goes_on_through_a_break() -> None:
    """Who waits for a message while the server is down gets it when it is up again."""
    with RecordingServer() as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.wait_for, timeout=30)
        while not server.messages._watchers:  # noqa: SLF001 - nobody else can see that somebody waits
            pass
        with server.down():
            pass
        send(server)
        assert len(waiting.result()) == 1


def test_a_wait_in_a_break_says_that_it_is_one() -> None:
    """A wait that ends while the server is down has waited, and says so."""
    with (
        RecordingServer() as server,
        server.down(),
        pytest.raises(AssertionError, match=r"within 0.01 s(.|\n)* is down"),
    ):
        server.wait_for(timeout=0.01)


def test_a_break_is_not_for_hooks_that_block() -> None:
    """A blocking hook that calls `down` gets its RuntimeError, and the server goes on."""

    class Down(Blocking):
        def process_message(self, *_arguments: Any, **_keywords: Any) -> None:
            with self.down():
                pass

    with Down() as server:
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            send(server)
        [error] = server.take_errors()
        assert "not for its hooks" in str(error)
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            send(server)
        server.take_errors()


@pytest.mark.parametrize("is_local", [False, True])
def test_who_stops_a_server_that_goes_down_has_stopped_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_local: bool
) -> None:
    """Where another thread stops the server while it goes down, it stays closed, and its address is free."""
    with RecordingServer(str(tmp_path / "smtp.sock") if is_local else "127.0.0.1") as server:
        wait = server._wait_for_end  # noqa: SLF001 - to come in between

        def stop_as_well(*served: Any) -> None:
            monkeypatch.undo()
            wait(*served)
            server.stop()

        monkeypatch.setattr(server, "_wait_for_end", stop_as_well)
        with server.down():
            assert server.is_closed
        assert server.is_closed
        with RecordingServer(*server.address):
            pass


# Hooks that block.


@pytest.mark.parametrize("end", ["sessions", "down"])
def test_what_a_hook_accepts_too_late_is_not_recorded(end: str) -> None:
    """A client that was told 421 while a blocking hook had its message keeps it: it is not recorded as well."""
    with Blocking() as server, delivering(server) as client:
        assert server.entered.wait(10)
        if end == "sessions":
            server.call(lambda: server.end_sessions(Reply(421, "Bye", "4.3.2")))
            server.gate.set()
        else:
            threading.Timer(0.05, server.gate.set).start()
            with server.down():
                pass
        assert client.read_reply().startswith("421")
        server.stop()
        assert (len(server.messages), len(server.aborted)) == (0, 1)
        assert "S: 250 2.0.0 OK" not in str(server.dialogues[0])


def test_a_late_answer_is_cut_as_a_rule_says() -> None:
    """`fragment` holds for the answer of a hook that blocks, too."""
    with Blocking() as server:
        rule = server.on("CONTENT").fragment(1, 2, pause=0.001)
        server.gate.set()
        send(server)
        assert rule.hits == len(server.messages) == 1


@pytest.mark.parametrize("blocking", [False, True])
def test_an_overridden_push_sees_all_replies(*, blocking: bool) -> None:
    """Also those of a hook that blocks go through a channel's own `push`."""
    seen = []

    class Channel(smtpd.SMTPChannel):
        def push(self, msg: str) -> None:
            seen.append(msg)
            super().push(msg)

    class Server(smtpd.SMTPServer):
        channel_class = Channel

        def process_message(self, *_arguments: Any, **_keywords: Any) -> str:
            return "250 Taken"

    Server.blocking = blocking
    with Server(("127.0.0.1", 0), None, map={}) as server:
        with smtplib.SMTP(*server.socket.getsockname()) as client:
            client.sendmail("ada@example.org", "bob@example.org", "Subject: Hello\r\n\r\n")
        assert "250 Taken" in seen


# Rules.


@pytest.mark.parametrize("end", [RecordingServer.end_rules, RecordingServer.close])
def test_a_recipient_that_has_its_answer_keeps_the_message(end: Callable[[RecordingServer], None]) -> None:
    """What LMTP's first recipient was told 250 for is recorded, though a rule held the second one to the end."""
    commands = ("LHLO x", BEGIN[1], BEGIN[2], "RCPT TO:<eve@example.org>", "DATA")
    with RecordingServer(protocol="lmtp") as server:
        rule = server.on("CONTENT", nth=2).hold()
        with delivering(server, *commands) as client:
            assert client.read_reply().startswith("250")
            assert rule.reached.wait(10)
            end(server)
            assert client.read_reply().startswith("421")
        assert server.messages.one().rcpttos == ["bob@example.org"]


def _fail(*_arguments: object) -> Any:
    pytest.fail("on purpose")


def test_a_failure_at_tls_reaches_the_test() -> None:
    """`pytest.fail` in a `match` at TLS is kept, and the server goes on."""
    with RecordingServer(tls="starttls") as server:
        server.on("TLS", _fail).hang()
        with smtplib.SMTP("localhost", server.port) as client:
            client.starttls(context=server.client_ssl_context)
        assert [str(error) for error in server.take_errors()] == ["on purpose"]


def test_a_failure_amid_content_reaches_the_test() -> None:
    """`pytest.fail` in a `match` with `after_bytes` is kept; the content, which is due no answer there, goes on."""
    with RecordingServer() as server:
        server.on("CONTENT", _fail, after_bytes=4).hang()
        send(server)
        assert len(server.messages) == 1
        assert [str(error) for error in server.take_errors()] == ["on purpose"]


def test_a_failure_in_users_reaches_the_test() -> None:
    """`pytest.fail` in a function for `users` is kept, and the client is told to try again."""
    with RecordingServer(users=_fail) as server, RawClient(server.address) as client:
        client.read_reply()
        client.ask("EHLO x")
        assert client.ask("AUTH PLAIN " + base64.b64encode(b"\0ada\0secret").decode()).startswith("454")
        assert [str(error) for error in server.take_errors()] == ["on purpose"]


@pytest.mark.parametrize("method", ["push", "found_terminator"])
def test_a_rule_amid_content_asks_no_override(method: str) -> None:
    """A channel that sees all lines or replies does not see that content has come so far: nothing hangs on it."""

    def override(self: Any, *arguments: Any) -> None:
        getattr(super(Channel, self), method)(*arguments)

    Channel = type("Channel", (RecordingChannel,), {method: override})  # noqa: N806 - a class
    Server = type("Server", (RecordingServer,), {"channel_class": Channel})  # noqa: N806
    with Server() as server:
        server.on("CONTENT", after_bytes=4, mailfrom="eve@example.org").hang()
        send(server)
        assert len(server.messages) == 1


def test_what_came_with_a_proxys_header_waits_for_tls() -> None:
    """A ClientHello in one segment with the header of the PROXY protocol goes to TLS, also if a rule delays that."""
    with RecordingServer(proxy_protocol=True, tls="implicit") as server:
        server.on("TLS").delay(0.01)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server.client_ssl_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        with socket.create_connection(server.address, timeout=10) as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n" + outgoing.read())
            assert client.recv(1)[0] == 22  # a TLS record of a handshake


def test_rules_and_faults_print_as_what_they_are() -> None:
    """In a traceback a rule shows how it was given, and a fault its name."""
    with RecordingServer(allow_unused_rules=True) as server:
        rule = server.on("MAIL", times=2).defer("Busy")
    assert repr(rule) == "<Rule on('MAIL', times=2).defer('Busy')>"
    assert repr(smtp_faults("rcpt-450-busy")) == "[<Fault rcpt-450-busy>]"


def test_failures_of_tls_print_their_client() -> None:
    """A failure of TLS prints with the address of its client."""
    with RecordingServer(tls="implicit") as server:
        with RawClient(server.address) as client:
            client.send(b"EHLO x\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(1024):
                pass
        server.wait_until_idle()
        assert str(server.tls_failures[0]).startswith("from 127.0.0.1: ")


# Other things.


def test_a_verb_of_ones_own_may_open_a_transaction() -> None:
    """A channel that answers SEND as MAIL records what comes of it."""

    class Channel(RecordingChannel):
        def smtp_SEND(self, arg: str | None) -> None:  # noqa: N802 - smtpd's kind of name
            self.smtp_MAIL(arg)

    class Server(RecordingServer):
        channel_class = Channel

    commands = (BEGIN[0], "SEND FROM:<ada@example.org>", BEGIN[2], BEGIN[3])
    with Server() as server, delivering(server, *commands) as client:
        assert client.read_reply().startswith("250")
        assert server.messages.one().mailfrom == "ada@example.org"


def test_many_that_are_turned_away_do_not_keep_the_server_busy_with_itself() -> None:
    """However many clients wait to be turned away when the last one leaves, nothing is exhausted."""

    class Slow(Blocking):
        blocking = False

    with Slow(max_connections=1) as server, contextlib.ExitStack() as stack:
        first = stack.enter_context(delivering(server))
        assert server.entered.wait(10)
        others = [stack.enter_context(RawClient(server.address)) for _ in range(200)]
        with ThreadPoolExecutor() as pool:
            idle = pool.submit(server.wait_until_idle, timeout=10)
            server.gate.set()
            assert {other.read_reply()[:3] for other in others} == {"421"}
            assert first.read_reply().startswith("250")
            first.socket.shutdown(socket.SHUT_RDWR)
            idle.result()
        assert server.errors == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract addresses")
def test_a_client_with_an_abstract_address_can_be_reported(tmp_path: Path) -> None:
    """The address of a Unix socket's client may be octets; reports show it, without its NUL."""
    path = str(tmp_path / "smtp.sock")
    with RecordingServer(path) as server, socket.socket(socket.AF_UNIX) as client:
        client.bind("\0pytest-smtpd-client")
        client.connect(path)
        client.recv(1024)
        assert "pytest-smtpd-client" in server.report()
        assert server.report().replace("\n", "").isprintable()


def test_a_list_that_has_a_message_does_not_get_it_again() -> None:
    """MailmanProxy leaves a list out that has the message, also if only one destination is left the second time."""
    with RecordingServer(protocol="lmtp") as mailman, RecordingServer() as upstream:
        mailman.on("RCPT", lambda message: not message.rcpttos[0].startswith("list")).reject()
        upstream.on("CONTENT", nth=1).defer()
        proxy = smtpd.MailmanProxy(("127.0.0.1", 0), upstream.address, lmtp=mailman.address, map={})
        mail = ("ada@example.org", ["list@example.org", "bob@example.org"], "Message-ID: <1@x>\r\n\r\n")
        with proxy, smtplib.SMTP(*proxy.socket.getsockname()) as client:
            with pytest.raises(smtplib.SMTPDataError):
                client.sendmail(*mail)
            upstream.on("RCPT", nth=1).defer()
            assert client.sendmail(*mail).keys() == {"bob@example.org"}
        assert len(mailman.messages) == 1


def test_an_upstream_may_offer_any_size() -> None:
    """A size with thousands of digits in the upstream's EHLO is no size."""
    with RecordingServer() as upstream:
        upstream.on("EHLO").raw(b"250-x\r\n250 SIZE " + b"9" * 5000 + b"\r\n")
        with (
            smtpd.PureProxy(("127.0.0.1", 0), upstream.address, map={}) as proxy,
            smtplib.SMTP(*proxy.socket.getsockname()) as client,
        ):
            assert client.ehlo()[0] == 250
        assert proxy.errors == []
