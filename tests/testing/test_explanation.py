"""Explanations: the whole text of failures, from which people see why their message is not there."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer, Refusal, Reply
from pytest_smtpd.testing.channel import RecordingChannel
from pytest_smtpd.testing.explanation import Section, format_errors, format_peer
from pytest_smtpd.testing.shown import format_envelope

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN = ("MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")


class Picky(RecordingServer):
    """A server that refuses some recipients and messages, and fails at others."""

    def process_message(self, *args: Any, **kwargs: Any) -> str | None:
        """Refuse spam, and fail at a bug."""
        if b"bug" in args[3]:
            msg = "what a bug"
            raise LookupError(msg)
        return "554 5.7.1 Spam" if b"spam" in args[3] else None

    class channel_class(RecordingChannel):  # noqa: N801 - smtpd's name
        """Refuses eve and, as a sender, mallory."""

        def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - smtpd's name
            """Refuse eve."""
            if "eve" in (arg or ""):
                self.push("550 5.1.1 No such user")
            else:
                super().smtp_RCPT(arg)

        def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - smtpd's name
            """Refuse mallory."""
            if "mallory" in (arg or ""):
                raise Refusal(Reply(550, "Not you", "5.7.1"))
            super().smtp_MAIL(arg)


def send(server: RecordingServer, rcptto: str = "bob@example.org", text: str = "Hi", sender: str = "ada") -> None:
    """Send a message, whatever comes of it, as smtplib does: with RSET after a refusal, and QUIT."""
    with (
        smtplib.SMTP(*server.address, local_hostname="client.example") as client,
        contextlib.suppress(smtplib.SMTPException),
    ):
        client.sendmail(f"{sender}@example.org", rcptto, f"Subject: Hello\r\n\r\n{text}\r\n")


def login(server: RecordingServer) -> None:
    """Try a wrong password."""
    with smtplib.SMTP(*server.address) as client, contextlib.suppress(smtplib.SMTPAuthenticationError):
        client.login("ada", "wrong")


def greet(server: RecordingServer) -> None:
    """Say EHLO, and go."""
    with smtplib.SMTP(*server.address) as client:
        client.ehlo("client.example")


def look(server: RecordingServer) -> None:
    """Connect, and go without a word."""
    with RawClient(server.address) as client:
        client.read_reply()


def give_up(server: RecordingServer) -> None:
    """Go away in the middle of a message."""
    with RawClient(server.address) as client:
        client.read_reply()
        for command in ("EHLO client.example", *BEGIN):
            client.ask(command)
        client.send(b"Subject: Hello\r\n")


def without_tls(server: RecordingServer) -> None:
    """Send without STARTTLS."""
    send(server)


def distrust(server: RecordingServer) -> None:
    """Begin TLS with something that is no handshake."""
    with RawClient(server.address) as client:
        client.read_reply()
        client.ask("EHLO client.example")
        client.ask("STARTTLS")
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        client.socket.recv(1000)


NONE = "expected exactly one message with subject='Welcome', found none\n"
NOTHING = NONE + "The server has received no message.\n"
CASES: dict[str, tuple[dict[str, Any], Callable[[RecordingServer], object], str]] = {
    "wrong subject": (
        {},
        send,
        NONE + "Messages received: 1\n"
        "  [0] from <ada@example.org> to <bob@example.org>: 'Hello'\n"
        "        subject: expected 'Welcome', got 'Hello'",
    ),
    "nobody connected": ({}, lambda _: None, NOTHING + "No client has connected to smtp://HERE."),
    "refused recipient": (
        {},
        lambda server: send(server, "eve@example.org"),
        NOTHING + "Recipients refused: 1\n  <eve@example.org>, mail from <ada@example.org>: 550 5.1.1 No such user",
    ),
    "refused content": (
        {},
        lambda server: send(server, text="spam"),
        NOTHING + "Messages refused: 1\n  from <ada@example.org> to <bob@example.org>: 554 5.7.1 Spam",
    ),
    "refused sender": (
        {},
        lambda server: send(server, sender="mallory"),
        NOTHING + "Sessions without a message: 1\n"
        "  CLIENT: C: MAIL FROM:<mallory@example.org> size=22, S: 550 5.7.1 Not you",
    ),
    "a hook raised": (
        {},
        lambda server: send(server, text="bug"),
        NOTHING + "Exceptions in the server: 1\n  LookupError('what a bug')\nMessages refused: 1\n"
        "  from <ada@example.org> to <bob@example.org>: "
        "451 4.3.0 Error: requested action aborted: local error in processing",
    ),
    "wrong password": (
        {"users": {"ada": "secret"}, "auth_mechanisms": ["PLAIN"]},
        login,
        NOTHING + "Sessions without a message: 1\n"
        "  CLIENT: C: AUTH PLAIN ****, S: 535 5.7.8 Authentication credentials invalid",
    ),
    "without STARTTLS": (
        {"require_tls": True},
        without_tls,
        NOTHING + "Sessions without a message: 1\n"
        "  CLIENT: C: MAIL FROM:<ada@example.org> size=22, S: 530 5.7.0 Must issue a STARTTLS command first",
    ),
    "no handshake": (
        {"tls": "starttls"},
        distrust,
        NOTHING + "TLS connections that failed: 1\n  CLIENT: TLS failed: HTTP_REQUEST",
    ),
    "EHLO, QUIT": (
        {},
        greet,
        NOTHING + "Sessions without a message: 1\n  CLIENT: C: EHLO client.example, S: 250 localhost",
    ),
    "not a word": ({}, look, NOTHING + "Sessions without a message: 1\n  CLIENT: the client said nothing"),
    "went away": (
        {},
        give_up,
        NOTHING + "Transactions begun and not completed: 1\n"
        "  from <ada@example.org> to <bob@example.org>, "
        "ended after C: DATA, S: 354 End data with <CR><LF>.<CR><LF>",
    ),
}


@pytest.mark.parametrize(("options", "act", "text"), CASES.values(), ids=CASES)
def test_a_failure_tells_why(options: dict[str, Any], act: Callable[[RecordingServer], object], text: str) -> None:
    """A failure says what was expected, and in one place why it is not there: each session is told of once."""
    with Picky(**options) as server:
        act(server)
        server.wait_until_idle()
        with pytest.raises(AssertionError) as caught:
            server.assert_received(subject="Welcome")
        server.errors.clear()
        found = str(caught.value).replace(f"127.0.0.1:{server.port}", "HERE")
    found = re.sub(r"127\.0\.0\.1:[0-9]+", "CLIENT", found).replace("MAIL from:", "MAIL FROM:")  # Python 3.13
    assert re.sub(r"TLS failed: .*(HTTP_REQUEST).*", r"TLS failed: \1", found) == text


def test_a_long_text_is_a_diff() -> None:
    """Where long texts differ, a failure shows the lines around the difference, indented under the message."""
    lines = [f"line {number}" for number in range(500)]
    with RecordingServer() as server:
        send(server, text="\r\n".join([*lines[:250], "another line", *lines[251:]]))
        with pytest.raises(AssertionError) as caught:
            server.assert_received(text="\n".join(lines) + "\n")
    assert str(caught.value).splitlines()[2:12] == [
        "  [0] from <ada@example.org> to <bob@example.org>: 'Hello'",
        "        text: from line 248 on, - expected, + got:",
        "            line 247",
        "            line 248",
        "            line 249",
        "          - line 250",
        "          + another line",
        "            line 251",
        "            line 252",
        "            line 253",
    ]


def test_an_lmtp_message_may_be_refused_for_one_recipient() -> None:
    """In LMTP each recipient has a reply: who was refused is told, though there is a message."""

    class Choosy(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> str | None:
            """Refuse eve."""
            return "550 5.1.1 No eve" if args[2] == ["eve@example.org"] else None

    with Choosy(protocol="lmtp") as server, RawClient(server.address) as client:
        client.read_reply()
        for command in ("LHLO client.example", *BEGIN[:2], "RCPT TO:<eve@example.org>", "DATA"):
            client.ask(command)
        client.send(b"x\r\n.\r\n")
        assert [client.read_reply()[:3] for _ in range(2)] == ["250", "550"]
        with pytest.raises(AssertionError) as caught:
            server.assert_received(mailfrom="eve@example.org")
    assert str(caught.value).endswith(
        "Messages refused: 1\n  from <ada@example.org> to <bob@example.org>, <eve@example.org>: 550 5.1.1 No eve"
    )


def test_recipients_that_were_all_refused_are_not_told_twice() -> None:
    """A transaction without recipients, as all were refused, is not told of as one that was not completed."""
    with Picky() as server:
        with RawClient(server.address) as client:
            client.read_reply()
            for command in ("EHLO client.example", BEGIN[0], "RCPT TO:<eve@example.org>", "DATA", "QUIT"):
                client.ask(command)
        server.wait_until_idle()
        assert [str(aborted) for aborted in server.aborted] == ["from <ada@example.org> to nobody"]
        assert "not completed" not in server.report()
        assert "Sessions without" not in server.report()


def test_what_was_begun_anew_is_not_open() -> None:
    """RSET and EHLO end a transaction: nothing was left undone."""
    for command in ("RSET", "EHLO client.example"):
        with RecordingServer() as server:
            with RawClient(server.address) as client:
                client.read_reply()
                for each in ("EHLO client.example", *BEGIN[:2], command, "QUIT"):
                    client.ask(each)
            server.wait_until_idle()
            assert "Sessions without a message: 1\n" in server.report()
            assert "not completed" not in server.report()


def test_nothing_is_raw() -> None:
    """Whatever clients send, no control character and no change of direction gets into failures and dialogues."""
    hostile = "\x1b[2J\x9b\u202e\x07"
    with RecordingServer() as server:
        with RawClient(server.address) as client:
            client.read_reply()
            for command in (f"EHLO {hostile}", f"{hostile}", "EHLO x", f"MAIL FROM:<{hostile}@x.example> SMTPUTF8"):
                client.ask(command)
            client.ask(f"RCPT TO:<{hostile}@x.example> X={hostile}")
            client.ask("MAIL FROM:<x@\u202e.example> SMTPUTF8")
            client.ask("RCPT TO:<x@\u202e.example>")
            client.ask("DATA")
            client.send(f"Subject: {hostile}\r\n\r\n{hostile}\r\n.\r\n".encode())
            client.read_reply()
        with pytest.raises(AssertionError) as caught:
            server.assert_received(subject="Welcome", helo="client.example", rcpttos=["a@b.example"], body="x" * 9)
        for text in (str(caught.value), server.report(), str(server.dialogues[0])):
            assert all(line.isprintable() for line in text.splitlines())
        assert "\\u202e" in server.report()


# Bounds.


def test_failures_are_short_whatever_was_received() -> None:
    """Thousands of messages, recipients and octets make no long failure."""
    server = RecordingServer()
    with server:
        with smtplib.SMTP(*server.address) as client:
            many = [f"{number}@example.org" for number in range(1000)]
            client.sendmail("ada@example.org", many, f"Subject: {'long ' * 200_000}\r\n\r\n{'x' * 5_000}\r\n")
            client.sendmail("ada@example.org", many, "Subject: Hello\r\n\r\nHi\r\n")
        message = server.messages[1]
        for _ in range(4999):
            server.messages.add(message, server.messages.generation)
        with pytest.raises(AssertionError) as caught:
            server.assert_received(subject="Welcome" * 1000, rcpttos=[*many, "x@example.org"], body="Hello" * 1000)
    assert len(str(caught.value)) < 20_000
    assert "  … and 4981 more" in str(caught.value)


def test_the_nearest_message_is_listed_wherever_it_is() -> None:
    """Of many messages the nearest one is listed, also if it came late."""
    with RecordingServer() as server:
        with smtplib.SMTP(*server.address) as client:
            for number in range(30):
                sender = "eve" if number == 25 else "ada"
                client.sendmail(f"{sender}@example.org", "bob@example.org", f"Subject: {number}\r\n\r\n")
        with pytest.raises(AssertionError) as caught:
            server.assert_received(subject="Welcome", mailfrom="eve@example.org")
    assert str(caught.value).splitlines()[-3:] == [
        "  [25] from <eve@example.org> to <bob@example.org>: '25'",
        "        subject: expected 'Welcome', got '25'",
        "  … and 9 more",
    ]


def test_many_sessions_are_counted() -> None:
    """Of a thousand sessions the first ones are listed, and of a report's dialogues the last ones shown."""
    with Picky() as server:
        for _ in range(25):
            with RawClient(server.address) as client:
                client.read_reply()
                client.send(b"EHLO client.example\r\nMAIL FROM:<ada@example.org>\r\n")
                client.send(b"RCPT TO:<eve@example.org>\r\n" * 100 + b"QUIT\r\n")
                while client.read_reply():
                    pass
        report = server.report().splitlines()
    assert report[1] == "Recipients refused: 2500"
    assert report[2:22] == ["  <eve@example.org>, mail from <ada@example.org>: 550 5.1.1 No such user"] * 20
    assert report[22:25] == ["  … and 2480 more", "(20 earlier dialogues are left out)", report[24]]
    assert sum(line.startswith("Dialogue with ") for line in report) == 5
    assert len(report) == 24 + 5 * (1 + 1 + 60)


@pytest.mark.parametrize("option", [{"tls": "implicit"}, {"proxy_protocol": True}], ids=["TLS", "PROXY"])
def test_who_has_not_begun_has_connected(option: dict[str, Any]) -> None:
    """A client that waits for a greeting, instead of beginning with TLS or the proxy's header, is told of."""
    with RecordingServer(**option) as server, RawClient(server.address) as client:
        with pytest.raises(AssertionError):  # it is noticed by then
            server.wait_until_idle(0.01)
        host, port = client.socket.getsockname()
        told = f"Clients connected that have said nothing: 1\n  {host}:{port}"
        with pytest.raises(AssertionError) as caught:
            server.assert_received(subject="Welcome")
        assert str(caught.value) == NOTHING + told
        assert server.report().endswith(told)


def test_who_was_there_before_has_connected() -> None:
    """A client of an earlier test that is connected still, and says nothing, is told of, and so are those who came since."""
    with RecordingServer() as server, RawClient(server.address) as client:
        client.read_reply()
        server.clear()
        greet(server)
        host, port = client.socket.getsockname()
        with pytest.raises(AssertionError) as caught:
            server.assert_received()
    assert str(caught.value).splitlines()[2:] == [
        "Sessions without a message: 1",
        mock.ANY,
        "Clients connected that have said nothing: 1",
        f"  {host}:{port}",
    ]


def test_exceptions_are_short() -> None:
    """Of many exceptions the first ones are told, and of each the end, in lines that are not too long."""

    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        raise ValueError("x" * 10_000)

    errors: list[BaseException] = []
    for depth in (0, 0, 0, 0, 500, 0, 0):
        try:
            recurse(depth)
        except ValueError as error:
            errors.append(error)
    lines = format_errors(errors)
    assert lines[-1] == "… and 2 more"
    assert max(map(len, lines)) <= 501
    assert len(lines) < 5 * 61
    assert format_errors(errors[:1])[0] == "Traceback (most recent call last):"
    assert format_errors([]) == []


def test_sections_describe_only_what_they_list() -> None:
    """What is not listed is not even described, only counted."""
    described: list[object] = []

    def describe(number: object) -> str:
        described.append(number)
        return "x" * 1000

    section = Section("Things")
    assert section.lines == []
    for number in range(30):
        section.add(describe, number)
    assert section.lines == ["Things: 30", *[f"  {'x' * 500}…"] * 20, "  … and 10 more"]
    assert described == list(range(20))
    assert Section("Things", ["a", 5]).lines == ["Things: 2", "  a", "  5"]


@pytest.mark.parametrize(
    ("rcpttos", "text"),
    [
        ([], "from <> to nobody"),
        (["a@b.example"], "from <> to <a@b.example>"),
        (["a@b.example"] * 7, f"from <> to {'<a@b.example>, ' * 5}2 more"),
        (["\x1b" * 300], f"from <> to <{chr(92)}x1b"),
    ],
)
def test_an_envelope_is_a_line(rcpttos: list[str], text: str) -> None:
    """An envelope shows the first recipients, and counts the others."""
    assert format_envelope("", rcpttos).startswith(text)


@pytest.mark.parametrize(
    ("peer", "text"),
    [(("127.0.0.1", 25), "127.0.0.1:25"), (("::1", 25, 0, 0), "[::1]:25"), (("", 0), "a local client")],
)
def test_a_client_is_its_address(peer: tuple[Any, ...], text: str) -> None:
    """A client is named by its address, as in URLs; one of a Unix socket has none."""
    assert format_peer(peer) == text
