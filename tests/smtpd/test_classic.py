"""What CPython's own tests hold of smtpd and of the servers for smtplib's tests, as dialogues; and where this one differs.

The tests that they come from are those of Python 3.11: Lib/test/test_smtpd.py and Lib/test/test_smtplib.py.
"""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import smtpd

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0


class Server(smtpd.SMTPServer):
    """Keeps messages, and answers some of them."""

    def __init__(self, host: str = "127.0.0.1", **options: Any) -> None:
        super().__init__((host, 0), ("b", 0), map={}, **options)
        self.messages: list[tuple[Any, ...]] = []

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> str | None:
        """Keep it; answer what asks for an answer."""
        self.messages.append((peer, mailfrom, rcpttos, data))
        if data in {"return status", b"return status"}:
            return "250 Okish"
        return "250 SMTPUTF8 message okish" if "SMTPUTF8" in kwargs.get("mail_options", []) else None


# Where this one differs, each with the reason.


@dataclass(frozen=True)
class Difference:
    """What CPython's tests want after some lines, what is answered here, and why."""

    lines: tuple[str, ...]
    theirs: str
    ours: str
    reason: str


HELO, EHLO = ("HELO example",), ("EHLO example",)
DUPLICATE = "503 Duplicate HELO/EHLO"
HELLO_AGAIN = "RFC 5321 4.1.4: a second HELO or EHLO is an implicit RSET"
HELP_CODE = "RFC 5321 4.2.2: 214 is the code of a help message"
SUPPORTED = "Supported commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY"

DIFFERENCES = (
    Difference((*EHLO, *EHLO), DUPLICATE, "250-localhost\n250-SIZE 33554432\n250 HELP", HELLO_AGAIN),
    Difference((*EHLO, *HELO), DUPLICATE, "250 localhost", HELLO_AGAIN),
    Difference((*HELO, *HELO), DUPLICATE, "250 localhost", HELLO_AGAIN),
    Difference((*HELO, *EHLO), DUPLICATE, "250-localhost\n250-SIZE 33554432\n250 HELP", HELLO_AGAIN),
    Difference(("HELP",), f"250 {SUPPORTED}", f"214 {SUPPORTED}", HELP_CODE),
    Difference(("HELP MAIL",), "250 Syntax: MAIL FROM: <address>", "214 Syntax: MAIL FROM: <address>", HELP_CODE),
    Difference(("NOOP hi",), "501 Syntax: NOOP", "250 OK", "RFC 5321 4.1.1.9: NOOP may have a string"),
    Difference(
        ("QUIT bye bye",), "221 Bye", "501 Syntax: QUIT", "RFC 5321 4.1.1: parameters that nothing defines are refused"
    ),
)
#: What can't be said in a line of a dialogue.
OTHER_DIFFERENCES = {
    "the greeting's and HELO's name is `hostname`, not getfqdn()": "it may ask DNS for seconds, at each connection",
    "DebuggingServer prints bytes as text, not line by line as b'...'": "so it did for ten years, as the page shows",
    "DEBUGSTREAM gets the dialogue, not 'sender:', 'recips:' and 'Data:'": "RFC 5321 appendix D shows how",
    "process_message that is missing is answered with 451": "CPython's closes the connection without an answer",
    "a test feeds channels through a socket, not through mocks of asyncore": "there is no asyncore",
    "attributes such as _SMTPChannel__server, deprecated since Python 3.2, are gone": "they have public names",
    "content is not kept in `received_data` when it is answered": "a session would hold its last message for ever",
    "the CRLF of a line counts for its length": "RFC 5321 4.5.3.1.4",
    "8BITMIME lengthens the line of MAIL by 17 octets": "RFC 6152 2 (5)",
}


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: " | ".join(difference.lines))
def test_where_this_one_differs(difference: Difference) -> None:
    """Where CPython's tests want what RFC 5321 forbids, the RFC holds."""
    assert difference.ours != difference.theirs
    with Server(decode_data=True) as server:
        assert converse(server, *difference.lines)[-1] == difference.ours


def test_the_differences_have_reasons() -> None:
    """Each difference in a reply is backed by an RFC, and each other one by a reason."""
    assert all(difference.reason.startswith("RFC 5321 ") for difference in DIFFERENCES)
    assert all(OTHER_DIFFERENCES.values())


# Dialogues.


def converse(server: Server, *lines: str | bytes) -> list[str]:
    """Send lines, one after the other, and return the reply to each; content is a line that ends in a dot."""
    host, port = server.socket.getsockname()[:2]
    with RawClient((host, port)) as client:
        client.read_reply()
        replies = []
        for line in lines:
            client.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
            replies.append(client.read_reply())
        return replies


MAIL, RCPT = "MAIL From:eggs@example", "RCPT To:spam@example"
HELO_ENVELOPE = (*HELO, MAIL, RCPT, "DATA")
GO_ON = "354 End data with <CR><LF>.<CR><LF>"
SYNTAX = "501 Syntax: MAIL FROM: <address>"
PARAMETERS = " [SP <mail-parameters>]"
QUOTED = '"Fred Blogs"@example.com'
NOT_IMPLEMENTED = "555 {} parameters not recognized or not implemented"

#: By what is said: the last reply.
DIALOGUES: dict[tuple[str | bytes, ...], str] = {
    ("",): "500 Error: bad syntax",
    EHLO: "250-localhost\n250-SIZE 33554432\n250 HELP",
    ("EHLO",): "501 Syntax: EHLO hostname",
    HELO: "250 localhost",
    ("HELO",): "501 Syntax: HELO hostname",
    ("HELP SPAM",): f"501 {SUPPORTED}",
    (*HELO, "MAIL from:<foo@example.com> SIZE=1234"): SYNTAX,
    (*HELO, "MAIL from:   <foo@example.com>"): "250 OK",
    (*EHLO, "MAIL from:   <foo@example.com> size=20"): "250 OK",
    ("NOOP",): "250 OK",
    (*HELO, "NOOP"): "250 OK",
    ("QUIT",): "221 Bye",
    (*HELO, "QUIT"): "221 Bye",
    (*HELO, f"MAIL from: {'a' * 512}@example"): "500 Error: line too long",
    (*EHLO, f"MAIL from:<{'a' * 492}@example> SIZE=1234"): "250 OK",
    (*EHLO, f"MAIL from:<{'a' * 518}@example> SIZE=1234"): "500 Error: line too long",
    (*EHLO, "MAIL FROM:<eggs@example> SIZE=512"): "250 OK",
    (*EHLO, "MAIL FROM:<eggs@example> SIZE=invalid"): SYNTAX + PARAMETERS,
    (*EHLO, "MAIL FROM:<eggs@example> ham=green"): NOT_IMPLEMENTED.format("MAIL FROM"),
    (*EHLO, "MAIL FROM:<eggs@example>", "RCPT TO:<eggs@example> ham=green"): NOT_IMPLEMENTED.format("RCPT TO"),
    (*HELO, "RCPT to:spam@example"): "503 Error: need MAIL command",
    (*HELO, "MAIL from eggs@example"): SYNTAX,
    (*EHLO, "MAIL from eggs@example"): SYNTAX + PARAMETERS,
    (*HELO, "MAIL from:"): SYNTAX,
    (*HELO, "MAIL from:<eggs@example>"): "250 OK",
    (*EHLO, "MAIL from:<>"): "250 OK",
    (*HELO, "MAIL from:eggs@example", "MAIL from:spam@example"): "503 Error: nested MAIL command",
    ("VRFY eggs@example",): "252 Cannot VRFY user, but will accept message and attempt delivery",
    ("VRFY",): "501 Syntax: VRFY <address>",
    ("EXPN",): "502 EXPN not implemented",
    ("MAIL from:<foo@example.com>",): "503 Error: send HELO first",
    (*HELO, MAIL, "DATA"): "503 Error: need RCPT command",
    (*HELO, MAIL, "RCPT to eggs@example"): "501 Syntax: RCPT TO: <address>",
    (*EHLO, MAIL, "RCPT to eggs@example"): "501 Syntax: RCPT TO: <address>" + PARAMETERS,
    (*HELO, MAIL, "RCPT to: <eggs@example>"): "250 OK",
    ("RCPT to eggs@example",): "503 Error: send HELO first",
    HELO_ENVELOPE: GO_ON,
    (*HELO, MAIL, RCPT, "DATA spam"): "501 Syntax: DATA",
    ("DATA spam",): "503 Error: send HELO first",
    (*HELO_ENVELOPE, "return status\r\n."): "250 Okish",
    (*HELO, MAIL, RCPT, "RSET"): "250 OK",
    (*HELO, "RSET"): "250 OK",
    ("RSET hi",): "501 Syntax: RSET",
    ("UNKNOWN_CMD",): '500 Error: command "UNKNOWN_CMD" not recognized',
    (*EHLO, "MAIL from: <naive@example.com> SMTPUTF8"): NOT_IMPLEMENTED.format("MAIL FROM"),
    (*EHLO, "MAIL from: <naive@example.com> size=20 SMTPUTF8 BODY=8BITMIME"): NOT_IMPLEMENTED.format("MAIL FROM"),
    (*EHLO, "MAIL from: <naive@example.com> size=20 BODY=UNKNOWN"): NOT_IMPLEMENTED.format("MAIL FROM"),
    (*EHLO, "MAIL from: <naive@example.com> size=20 body=8bitmime"): NOT_IMPLEMENTED.format("MAIL FROM"),
}
ONE_RCPT = (*EHLO, "MAIL from: <foo@example.com> size=20")
#: Dialogues with a server that has the options.
OTHER_DIALOGUES: list[tuple[dict[str, Any], tuple[str | bytes, ...], str]] = [
    ({}, (*ONE_RCPT, "RCPT to: <foo@example.com> foo=bar"), NOT_IMPLEMENTED.format("RCPT TO")),
    ({}, (*ONE_RCPT, "RCPT to: <foo@example.com>"), "250 OK"),
    ({}, (*EHLO, "MAIL from: <a@b.com> size=20 SMTPUTF8"), NOT_IMPLEMENTED.format("MAIL FROM")),
    ({}, (*EHLO, "MAIL from: <a@b.com> BODY=8BITMIME SMTPUTF8"), NOT_IMPLEMENTED.format("MAIL FROM")),
    ({}, (*EHLO, "MAIL from: <a@b.com> BODY=UNKNOWN"), "501 Error: BODY can only be one of 7BIT, 8BITMIME"),
    ({}, (*EHLO, "MAIL from: <a@b.com> size=20 body=8bitmime"), "250 OK"),
    ({"enable_SMTPUTF8": True}, (*EHLO, "MAIL from: <a@b.com> size=20 body=8bitmime smtputf8"), "250 OK"),
    ({"enable_SMTPUTF8": True}, (*EHLO, "MAIL from: <naïve@example.com> BODY=8BITMIME SMTPUTF8"), "250 OK"),
    (
        {"enable_SMTPUTF8": True},
        (*EHLO, "MAIL from: <a@example> BODY=8BITMIME SMTPUTF8", RCPT, "DATA", "c\r\n."),
        "250 SMTPUTF8 message okish",
    ),
    ({"enable_SMTPUTF8": True}, (*EHLO, "MAIL from: <a@example> ", RCPT, "DATA", "c\r\n."), "250 OK"),
    ({"data_size_limit": 32}, (*HELO_ENVELOPE, "data\r\nmore\r\n."), "250 OK"),
    ({"data_size_limit": 32}, (*HELO_ENVELOPE, f"{'x' * 36}\r\n."), "552 Error: Too much mail data"),
    (
        {"data_size_limit": 1048},
        (*EHLO, "MAIL FROM:<eggs@example> SIZE=2096"),
        "552 Error: message size exceeds fixed maximum message size",
    ),
]


def _show(value: object) -> str:
    return str(value)[:60]


@pytest.mark.parametrize(("lines", "reply"), DIALOGUES.items(), ids=_show)
def test_the_last_reply(lines: tuple[str | bytes, ...], reply: str) -> None:
    """A server that decodes data answers as CPython's tests want it."""
    with Server(decode_data=True) as server:
        assert converse(server, *lines)[-1] == reply


@pytest.mark.parametrize(("options", "lines", "reply"), OTHER_DIALOGUES, ids=_show)
def test_the_last_reply_with_options(options: dict[str, Any], lines: tuple[str | bytes, ...], reply: str) -> None:
    """A server with other options answers as CPython's tests want it."""
    with Server(**options) as server:
        assert converse(server, *lines)[-1] == reply


#: By the server's options and what is said: sender, recipients and data of the message.
MESSAGES: list[tuple[dict[str, Any], tuple[str | bytes, ...], tuple[Any, ...]]] = [
    ({}, (*HELO_ENVELOPE, "data\r\nmore\r\n."), ("eggs@example", ["spam@example"], b"data\nmore")),
    ({"decode_data": True}, (*HELO_ENVELOPE, "data\r\nmore\r\n."), ("eggs@example", ["spam@example"], "data\nmore")),
    ({"decode_data": True}, (*HELO_ENVELOPE, "..\r\n."), ("eggs@example", ["spam@example"], ".")),
    (
        {},
        (*HELO, MAIL, RCPT, "RCPT To:ham@example", "DATA", "data\r\n."),
        ("eggs@example", ["spam@example", "ham@example"], b"data"),
    ),
    (
        {},
        (*HELO, MAIL, RCPT, "RSET", "MAIL From:foo@example", "RCPT To:eggs@example", "DATA", "data\r\n."),
        ("foo@example", ["eggs@example"], b"data"),
    ),
    ({}, (*EHLO, f"MAIL from: <{QUOTED}>", RCPT, "DATA", "\r\n."), (QUOTED, ["spam@example"], b"")),
    ({}, (*EHLO, f"MAIL from: {QUOTED}", RCPT, "DATA", "\r\n."), (QUOTED, ["spam@example"], b"")),
    ({}, (*EHLO, f"MAIL from: <{QUOTED}> SIZE=1000", RCPT, "DATA", "\r\n."), (QUOTED, ["spam@example"], b"")),
    ({}, (*EHLO, f"MAIL from: {QUOTED} SIZE=1000", RCPT, "DATA", "\r\n."), (QUOTED, ["spam@example"], b"")),
    (
        {},
        (*HELO_ENVELOPE, "utf8 enriched text: żźć\r\nand some plain ascii\r\n."),
        ("eggs@example", ["spam@example"], "utf8 enriched text: żźć\nand some plain ascii".encode()),
    ),
    (
        {"decode_data": True},
        (*HELO_ENVELOPE, "utf8 enriched text: żźć\r\nand some plain ascii\r\n."),
        ("eggs@example", ["spam@example"], "utf8 enriched text: żźć\nand some plain ascii"),
    ),
    (
        {"enable_SMTPUTF8": True},
        (*EHLO, "MAIL From: naïve@examplé BODY=8BITMIME SMTPUTF8", "RCPT To:späm@examplé", "DATA", "x\r\n."),
        ("naïve@examplé", ["späm@examplé"], b"x"),
    ),
]


@pytest.mark.parametrize(("options", "lines", "message"), MESSAGES, ids=_show)
def test_the_message(options: dict[str, Any], lines: tuple[str | bytes, ...], message: tuple[Any, ...]) -> None:
    """process_message gets the client's address, the envelope and the data."""
    with Server(**options) as server:
        assert converse(server, *lines)[-1].startswith("250 ")
    [(peer, *received)] = server.messages
    assert peer[0] == "127.0.0.1"
    assert received == list(message)


def test_long_lines_again_and_again() -> None:
    """A MAIL that is too long for the extensions is refused, and the next one that fits is not, in each transaction."""
    # 512 octets, 26 for SIZE, 17 for BODY and 10 for SMTPUTF8.
    fitting = "a" * (512 + 26 + 17 + 10 - len("MAIL from:<@example>\r\n"))
    transaction = (f"MAIL from:<{fitting}a@example>", f"MAIL from:<{fitting}@example>", RCPT, "DATA", "test\r\n.")
    with Server(enable_SMTPUTF8=True) as server:
        replies = converse(server, *EHLO, *transaction * 3)
    assert [reply[:3] for reply in replies[1:]] == ["500", "250", "250", "354", "250"] * 3


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param(
            "::1", marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
        ),
    ],
)
def test_the_family_is_the_hosts(host: str) -> None:
    """The socket's family is that of the local address, whatever the remote address is."""
    with Server(host) as server:
        assert (server.socket.family == socket.AF_INET6) == (":" in host)
        assert converse(server, *HELO_ENVELOPE, "x\r\n.")[-1] == "250 OK"
    assert server.messages[0][0][0] == host


# The servers for smtplib's tests: a debugging one, and one that simulates.


@pytest.fixture
def debugging_server() -> Iterator[smtpd.DebuggingServer]:
    """Return a debugging server that decodes data."""
    with smtpd.DebuggingServer(("127.0.0.1", 0), ("nowhere", -1), map={}, decode_data=True) as server:
        yield server


def connect(server: smtpd.SMTPServer) -> smtplib.SMTP:
    """Return a client of smtplib's."""
    host, port = server.socket.getsockname()
    return smtplib.SMTP(host, port, local_hostname="localhost", timeout=DEADLINE)


def test_what_smtplib_is_answered(debugging_server: smtpd.DebuggingServer) -> None:
    """Smtplib's commands are answered as its own tests want it."""
    with connect(debugging_server) as client:
        assert client.noop() == (250, b"OK")
        assert client.rset() == (250, b"OK")
        assert client.ehlo() == (250, b"localhost\nSIZE 33554432\nHELP")
        assert client.docmd("EXPN") == (502, b"EXPN not implemented")
        assert client.vrfy("nobody@nowhere.com")[0] == 252
        assert client.help() == SUPPORTED.encode()


@pytest.mark.parametrize(
    "text", ["A test message", b"A test message", ".A test\n.mes.sage."], ids=["text", "bytes", "dots"]
)
def test_what_smtplib_sends_is_printed(
    debugging_server: smtpd.DebuggingServer, capsys: pytest.CaptureFixture[str], text: str | bytes
) -> None:
    """Content without headers is printed as it is, and nothing is added."""
    with connect(debugging_server) as client:
        client.sendmail("John", "Sally", text)
    shown = text if isinstance(text, str) else text.decode()
    framed = f"---------- MESSAGE FOLLOWS ----------\n{shown}\n------------ END MESSAGE ------------\n"
    assert capsys.readouterr().out == framed


def test_messages_of_the_email_package_are_printed(
    debugging_server: smtpd.DebuggingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message is printed with its headers, X-Peer behind them, and without Bcc."""
    message = EmailMessage()
    message.set_content("A test message\n")
    message["From"], message["To"] = "foo@bar.com", "John, Dinsdale"
    message["Bcc"] = "John Root <root@localhost>"
    with connect(debugging_server) as client:
        client.send_message(message)
    del message["Bcc"]
    headers, _, body = message.as_string().partition("\n\n")
    shown = f"{headers}\nX-Peer: 127.0.0.1\n\n{body}"
    framed = f"---------- MESSAGE FOLLOWS ----------\n{shown}------------ END MESSAGE ------------\n"
    assert capsys.readouterr().out == framed


class SimulatingChannel(smtpd.SMTPChannel):
    """Answers what it is told to, and authenticates in steps."""

    AUTH = 99
    #: Replies to verbs, one after the other; and whether the last one ends the session.
    replies: dict[str, list[str]]
    disconnects = False
    resets = 0

    def __init__(self, features: list[str], *args: Any, **kwargs: Any) -> None:
        self._features = "".join(f"250-{feature}\r\n" for feature in features)
        self.replies = {}
        super().__init__(*args, **kwargs)

    def _simulate(self, verb: str) -> bool:
        if not self.replies.get(verb):
            return False
        self.push(self.replies[verb].pop(0))
        if self.disconnects:
            self.close_when_done()
        return True

    def smtp_EHLO(self, arg: str | None) -> None:  # noqa: N802
        """Offer what the test wants."""
        self.push(f"250-testhost\r\n250-SIZE 20000000\r\n{self._features}250 HELP")
        self.seen_greeting = arg or ""
        self.extended_smtp = True

    def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """Answer as told."""
        if not self._simulate("MAIL"):
            super().smtp_MAIL(arg)

    def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """Answer as told."""
        if not self._simulate("RCPT"):
            super().smtp_RCPT(arg)

    def smtp_RSET(self, arg: str | None) -> None:  # noqa: N802
        """Count."""
        self.resets += 1
        super().smtp_RSET(arg)

    def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        """Begin."""
        _, _, response = (arg or "").partition(" ")
        self.smtp_state = self.AUTH
        self._authenticate(response) if response else self.push("334 ")

    def found_terminator(self) -> None:
        """Go on with AUTH; answer content as told."""
        if self.smtp_state == self.AUTH:
            self._authenticate(self._emptystring.join(self.received_lines))
        elif self.smtp_state != self.DATA or not self._simulate("CONTENT"):
            super().found_terminator()

    def _authenticate(self, response: str) -> None:
        self.smtp_state = self.COMMAND
        *_, user, password = base64.b64decode(response).decode().split("\0")
        self.push("235 Succeeded" if (user, password) == ("ada", "secret") else "535 invalid")


class SimulatingServer(smtpd.SMTPServer):
    """Makes simulating channels, with arguments of its own, and returns none, as smtpd's handle_accepted did."""

    channel: SimulatingChannel

    def __init__(self, *features: str) -> None:
        super().__init__(("127.0.0.1", 0), ("nowhere", -1), map={}, decode_data=True)
        self.features = list(features)
        self.messages: list[tuple[str, list[str]]] = []

    def handle_accepted(self, conn: Any, addr: Any) -> None:  # type: ignore[override] # as smtpd's
        """Make a channel."""
        self.channel = SimulatingChannel(self.features, self, conn, addr, decode_data=self._decode_data)

    def process_message(  # type: ignore[override] # without **kwargs
        self, peer: Any, mailfrom: str, rcpttos: list[str], data: str
    ) -> None:
        """Keep the envelope."""
        self.messages.append((mailfrom, rcpttos))

    def handle_error(self) -> None:
        """Raise what asyncore caught; never called here, and never missed."""
        raise  # noqa: PLE0704 - as CPython's does


def test_a_simulating_server_authenticates() -> None:
    """Smtplib can log in where a channel handles AUTH by itself, with an initial response and without."""
    with SimulatingServer("AUTH PLAIN") as server:
        for initial in (True, False):
            with connect(server) as client:
                assert client.ehlo()[0] == 250
                assert client.esmtp_features == {"size": "20000000", "auth": " PLAIN", "help": ""}
                assert client.login("ada", "secret", initial_response_ok=initial) == (235, b"Succeeded")
        with connect(server) as client, pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
            client.login("ada", "wrong")


@pytest.mark.parametrize(
    ("verb", "replies", "error", "resets"),
    [
        ("MAIL", ["450 no"], smtplib.SMTPSenderRefused, 1),
        ("MAIL", ["421 closing"], smtplib.SMTPSenderRefused, 0),
        ("RCPT", ["250 ok", "452 full"], None, 0),
        ("RCPT", ["550 no", "550 no"], smtplib.SMTPRecipientsRefused, 1),
        ("RCPT", ["250 accepted", "421 closing"], smtplib.SMTPRecipientsRefused, 0),
        ("CONTENT", ["450 no"], smtplib.SMTPDataError, 1),
        ("CONTENT", ["421 closing"], smtplib.SMTPDataError, 0),
    ],
)
def test_smtplib_sees_simulated_replies(
    verb: str, replies: list[str], error: type[Exception] | None, resets: int
) -> None:
    """What a channel simulates reaches smtplib, which ends the transaction with RSET, or finds the session closed."""
    with SimulatingServer() as server, connect(server) as client:
        client.noop()
        server.channel.replies[verb] = list(replies)
        with pytest.raises(error) if error else contextlib.nullcontext():
            assert list(client.sendmail("John", ["Sally", "Bob"], "test message")) == ["Bob"]
        assert server.channel.resets == resets
        assert (client.sock is None) == (replies[-1][:3] == "421")
    assert server.messages == ([] if error else [("John", ["Sally"])])


def test_a_simulating_channel_may_disconnect() -> None:
    """A channel may close the connection behind any reply, and smtplib tells the reply."""
    with SimulatingServer() as server, connect(server) as client:
        client.noop()
        server.channel.disconnects = True
        server.channel.replies["MAIL"] = ["451 go away"]
        with pytest.raises(smtplib.SMTPSenderRefused, match="451"):
            client.sendmail("John", "Sally", "test message")
        assert client.sock is None


def test_the_last_error_is_raised() -> None:
    """A process_message that is missing reaches whoever stops the server, and the client gets 451."""
    server = smtpd.SMTPServer(("127.0.0.1", 0), ("b", 0), map={}, decode_data=True)
    with RawClient(server.start().socket.getsockname()) as client:
        client.read_reply()
        assert [client.ask(line) for line in (*HELO_ENVELOPE, "spam\r\n.")][-1].startswith("451 ")
    with pytest.raises(NotImplementedError):
        server.stop()
