"""Postfix, as the upstream of a proxy and as a client."""

from __future__ import annotations

import email
import smtplib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from postfix import Postfix

from pytest_smtpd import smtpd
from pytest_smtpd.network.tls import certfile, client_context
from pytest_smtpd.protocol.mail import Mail
from pytest_smtpd.smtpd.proxy import ProxyChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

ADA, BOB, CAROL = "ada@example.org", "bob@example.net", "carol@example.net"
CONTENT = (
    f"Date: Mon, 23 Nov 2026 16:00:00 +0000\r\nFrom: {ADA}\r\nTo: {BOB}\r\nMessage-ID: <1@example.org>\r\n"
    "Subject: Gr\u00fc\u00dfe\r\n\r\n.\r\n..\r\nx\r\n"
).encode()

#: How many seconds a test that fails gives Postfix.
DEADLINE = 30.0


class Destination(smtpd.SMTPServer):
    """Where Postfix relays to: a server as smtpd's users write it. Answers as it is told to, and keeps what it gets."""

    def __init__(self) -> None:
        #: What is answered to the messages to come for an address, in order.
        self.answers: dict[str, list[str]] = {}
        self._kept: list[tuple[str, list[str], bytes]] = []
        self._arrived = threading.Condition()
        super().__init__(("127.0.0.1", 0), None, map={}, enable_SMTPUTF8=True)
        self.address: tuple[str, int] = self.socket.getsockname()

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> str | None:
        """Keep the message, whatever the answer."""
        answers = self.answers.get(rcpttos[0], [])
        with self._arrived:
            self._kept.append((mailfrom, rcpttos, data))
            self._arrived.notify_all()
        return answers.pop(0) if answers else None

    def wait_for(self, *rcpttos: str, count: int = 1) -> list[tuple[str, bytes]]:
        """Wait for so many messages to these; return from whom they are, and what is in them."""

        def found() -> list[tuple[str, bytes]]:
            return [(mailfrom, data) for mailfrom, to, data in self._kept if sorted(to) == sorted(rcpttos)]

        with self._arrived:
            assert self._arrived.wait_for(lambda: len(found()) >= count, DEADLINE), self._kept
            return found()


@pytest.fixture(scope="module")
def destination() -> Iterator[Destination]:
    """Return the server to which Postfix relays."""
    with Destination() as server:
        yield server


class WatchedChannel(ProxyChannel):
    """Tells when a message had to be refused for now."""

    def note(self, event: Event, reply: Reply) -> None:
        """Notice a MAIL that was answered with 451."""
        if isinstance(event, Mail) and reply.code == 451:
            assert isinstance(self.smtp_server, WatchedProxy)
            self.smtp_server.has_deferred.set()
        super().note(event, reply)


class WatchedProxy(smtpd.PureProxy):
    """Relays to a server that is not there yet."""

    channel_class = WatchedChannel

    def __init__(self) -> None:
        self.upstream = Destination()
        self.upstream.close()
        self.has_deferred = threading.Event()
        super().__init__(("127.0.0.1", 0), self.upstream.address, map={})


@pytest.fixture(scope="module")
def watched_proxy() -> Iterator[WatchedProxy]:
    """Return a proxy to which Postfix relays what is for relayed.example."""
    with WatchedProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def postfix(destination: Destination, watched_proxy: WatchedProxy) -> Iterator[Postfix]:
    """Return a Postfix that relays to both."""
    ports = [server.socket.getsockname()[1] for server in (destination, watched_proxy)]
    settings = {
        "relayhost": f"[127.0.0.1]:{ports[0]}",
        "transport_maps": f"inline:{{relayed.example=smtp:[127.0.0.1]:{ports[1]}}}",
        "smtpd_recipient_restrictions": "check_recipient_access inline:{no@example.net=REJECT, later@example.net=DEFER}",
        "message_size_limit": "100000",
        "smtpd_tls_cert_file": certfile(),
        "smtpd_tls_key_file": certfile(),
        "smtpd_tls_security_level": "may",
    }
    with Postfix(settings) as running:
        yield running


@pytest.fixture
def proxy(postfix: Postfix) -> Iterator[smtpd.PureProxy]:
    """Return a proxy before Postfix."""
    with smtpd.PureProxy(("127.0.0.1", 0), postfix.address, map={}) as running:
        yield running


def connect(server: smtpd.SMTPServer) -> smtplib.SMTP:
    """Return a client."""
    return smtplib.SMTP(*server.socket.getsockname())


def without_trace(data: bytes) -> bytes:
    """Return content without the header that Postfix has put in front, and with the line ends of SMTP."""
    data = data.replace(b"\n", b"\r\n") + b"\r\n"
    assert data.startswith(b"Received: ")
    headers = data.split(b"\r\n")
    while headers[0].startswith((b"Received:", b"\t")):
        headers.pop(0)
    return b"\r\n".join(headers)


# As the upstream of a proxy.


def test_it_is_relayed_to(proxy: smtpd.PureProxy, destination: Destination) -> None:
    """What a proxy relays to Postfix arrives behind it with its envelope, and X-Peer as the last header."""
    with connect(proxy) as client:
        assert client.sendmail(ADA, [BOB, CAROL], CONTENT, ["BODY=8BITMIME"]) == {}
    [(mailfrom, data)] = destination.wait_for(BOB, CAROL)
    assert mailfrom == ADA
    assert without_trace(data) == CONTENT.replace(b"\r\n\r\n", b"\r\nX-Peer: 127.0.0.1\r\n\r\n")


def test_what_it_offers_is_offered(proxy: smtpd.PureProxy) -> None:
    """Clients of the proxy are offered what Postfix offers and the proxy can pass on."""
    with connect(proxy) as client:
        client.ehlo()
        offered = client.esmtp_features
    assert offered.pop("size") == str(100_000 - 80)
    assert offered.keys() == {"8bitmime", "smtputf8", "pipelining", "enhancedstatuscodes", "chunking", "dsn", "help"}


def test_what_it_refuses_is_refused(proxy: smtpd.PureProxy) -> None:
    """Postfix's refusals reach the client word for word, and who is not refused gets the message."""
    with connect(proxy) as client:
        refused = client.sendmail(ADA, ["no@example.net", "later@example.net", "dan@example.net"], CONTENT)
        assert refused == {
            "no@example.net": (554, b"5.7.1 <no@example.net>: Recipient address rejected: Access denied"),
            "later@example.net": (450, b"4.7.1 <later@example.net>: Recipient address rejected: Access denied"),
        }
        assert client.docmd(f"MAIL FROM:<{ADA}> SIZE=100001")[0] == 552
        assert client.docmd("MAIL FROM:<ada@[127.0.0.1>")[0] == 501


def test_it_is_spoken_to_over_tls(postfix: Postfix, destination: Destination) -> None:
    """Postfix is verified by STARTTLS, name included."""
    with (
        smtpd.PureProxy(
            ("127.0.0.1", 0),
            ("localhost", postfix.address[1]),
            map={},
            upstream_tls="starttls",
            upstream_ssl_context=client_context(),
        ) as proxy,
        connect(proxy) as client,
    ):
        client.sendmail(ADA, "tls@example.net", CONTENT)
    destination.wait_for("tls@example.net")


def test_smtputf8_and_chunks_go_through(proxy: smtpd.PureProxy, destination: Destination) -> None:
    """An international address, and content in chunks, go through Postfix to the destination."""
    with connect(proxy) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        assert client.docmd("MAIL FROM:<ad\u00e1@example.org> SMTPUTF8 BODY=8BITMIME")[0] == 250
        assert client.docmd("RCPT TO:<b\u00f3b@example.net> NOTIFY=NEVER")[0] == 250
        client.send(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        assert client.getreply()[0] == 250
    [(mailfrom, data)] = destination.wait_for("b\u00f3b@example.net")
    assert mailfrom == "ad\u00e1@example.org"
    assert without_trace(data) == CONTENT.replace(b"\r\n\r\n", b"\r\nX-Peer: 127.0.0.1\r\n\r\n")


def test_nothing_is_smuggled_in(proxy: smtpd.PureProxy, destination: Destination) -> None:
    """Content that some servers would take for two messages is one message behind Postfix, too."""
    smuggled = b"a\n.\r\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\nb\r\n"
    with connect(proxy) as client:
        client.ehlo()
        client.docmd(f"MAIL FROM:<{ADA}>")
        client.docmd("RCPT TO:<frank@example.net>")
        client.docmd("DATA")
        client.send(b"Subject: x\r\n\r\n" + smuggled + b".\r\n")
        assert client.getreply()[0] == 250
    [(_, data)] = destination.wait_for("frank@example.net")
    assert without_trace(data).endswith(smuggled.replace(b"a\n.", b"a\r\n."))


# As a client.


@pytest.fixture
def send(postfix: Postfix) -> Callable[..., None]:
    """Return a function that gives a message to Postfix."""

    def send(*rcpttos: str, **options: Any) -> None:
        with smtplib.SMTP(*postfix.address) as client:
            client.sendmail(ADA, rcpttos, CONTENT, **options)

    return send


def test_it_relays(send: Callable[..., None], destination: Destination) -> None:
    """Postfix relays a message for three in one transaction."""
    send("one@example.net", "two@example.net", "three@example.net", mail_options=["BODY=8BITMIME"])
    [(mailfrom, data)] = destination.wait_for("one@example.net", "two@example.net", "three@example.net")
    assert mailfrom == ADA
    assert without_trace(data) == CONTENT


def test_it_tries_again(send: Callable[..., None], destination: Destination) -> None:
    """What is answered with 451 Postfix tries again, until it is accepted; then no more."""
    destination.answers["again@example.net"] = ["451 4.2.0 Not now", "451 4.2.0 Not yet"]
    send("again@example.net")
    first, *others = destination.wait_for("again@example.net", count=3)
    assert others == [first, first]


def test_it_bounces(send: Callable[..., None], destination: Destination) -> None:
    """What is answered with 550 Postfix returns to the sender, with the answer, from the null path."""
    destination.answers["gone@example.net"] = ["550 5.1.1 No such user here"]
    send("gone@example.net")
    [(mailfrom, data)] = destination.wait_for(ADA)
    assert mailfrom == ""
    report = email.message_from_bytes(data)
    assert report.get_content_type() == "multipart/report"
    status = str(report.get_payload(1))
    assert "Action: failed\nStatus: 5.1.1\n" in status
    assert "No such user here" in status


def test_it_waits_for_the_upstream_of_a_proxy(send: Callable[..., None], watched_proxy: WatchedProxy) -> None:
    """While a proxy's upstream is away Postfix keeps a message, also one that not every server takes; then it arrives."""
    send("b\u00f3b@relayed.example", mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    assert watched_proxy.has_deferred.wait(DEADLINE)
    with watched_proxy.upstream as upstream:
        [(mailfrom, data)] = upstream.wait_for("b\u00f3b@relayed.example")
    assert mailfrom == ADA
    assert without_trace(data) == CONTENT.replace(b"\r\n\r\n", b"\r\nX-Peer: 127.0.0.1\r\n\r\n")
