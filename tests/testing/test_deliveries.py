"""Deliveries: what came twice, what is missing, and what a failure tells of it."""

from __future__ import annotations

import contextlib
import re
import smtplib
from typing import TYPE_CHECKING, Any

import pytest

from pytest_smtpd import Message, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a server."""
    with RecordingServer() as server:
        yield server


def send(server: RecordingServer, message_id: str, *rcpttos: str, subject: str = "Hi") -> None:
    """Send one message, on a connection of its own; "" for one without a Message-ID."""
    field = f"Message-ID: {message_id}\r\n" if message_id else ""
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("noreply@example.org", rcpttos or [ADA], f"{field}Subject: {subject}\r\n\r\nHello\r\n")


def failure(server: RecordingServer, **arguments: Any) -> str:
    """Return what the assertion says when it fails."""
    with pytest.raises(AssertionError) as raised:
        server.assert_delivered_exactly_once(**arguments)
    return str(raised.value)


def test_each_message_once(server: RecordingServer) -> None:
    """The assertion holds where no message came twice, and those that are expected did."""
    send(server, "<1@x>")
    send(server, "<2@x>", ADA, BOB)
    server.assert_delivered_exactly_once()
    server.assert_delivered_exactly_once(expected=["<1@x>"])
    server.assert_delivered_exactly_once("message-id", expected=("<1@x>", "<2@x>"))


def test_a_message_may_come_twice_for_different_recipients(server: RecordingServer) -> None:
    """A sender that tries again for those who were refused at first delivers once to each."""
    server.on("RCPT", rcpttos=BOB, times=1).defer()
    send(server, "<1@x>", ADA, BOB)
    send(server, "<1@x>", BOB)
    server.assert_delivered_exactly_once(expected=["<1@x>"])


def test_a_duplicate(server: RecordingServer) -> None:
    """What came twice for a recipient is named, with each copy's number, time, client, and end of the session."""
    server.on("CONTENT", times=1).store().reset()
    with contextlib.suppress(smtplib.SMTPException):
        send(server, "<1@x>")
    send(server, "<2@x>")
    send(server, "<1@x>", "ada@EXAMPLE.org", BOB)
    said = failure(server, expected=["<1@x>"])
    assert said.startswith("expected each message exactly once, told apart by Message-ID, found 3\n")
    copy = r"\[{}\] \d\d:\d\d:\d\d\.\d{{6}} from 127\.0\.0\.1:\d+, in a session that ended with {}"
    first, second = copy.format(0, r"\(the server has reset the connection\)"), copy.format(2, r"S: 250 .*OK")
    pattern = rf"\nDelivered again, '<1@x>' to <ada@example\.org>: 2\n  {first}\n  {second}"
    assert re.search(f"{pattern}$", said)


def test_many_duplicates(server: RecordingServer) -> None:
    """However much came twice, a failure has an end."""
    for _ in range(2):
        with smtplib.SMTP(*server.address) as client:
            for number in range(23):
                client.sendmail("noreply@example.org", ADA, f"Message-ID: <{number}@x>\r\n\r\nHello\r\n")
    said = failure(server)
    assert said.count("Delivered again, ") == 20
    assert said.endswith("\n… and 3 more that came again")


def test_what_never_came(server: RecordingServer) -> None:
    """Each expected message that did not come is named once."""
    send(server, "<1@x>")
    said = failure(server, expected=["<1@x>", "<2@x>", "<2@x>", "<3@x>"])
    assert said.endswith("\nNever delivered: 2\n  '<2@x>'\n  '<3@x>'")


def test_nothing_came(server: RecordingServer) -> None:
    """Where nothing came the assertion fails: a sender that sends nothing is not a good one."""
    said = failure(server)
    assert said.startswith("expected each message exactly once, told apart by Message-ID, found none\n")
    assert "No client has connected" in said
    assert failure(server, expected=["<1@x>"]).endswith("Never delivered: 1\n  '<1@x>'")
    assert failure(server, expected=[]).startswith("expected")


def test_a_message_without_the_header(server: RecordingServer) -> None:
    """A message that nothing tells apart from others can't be counted, so the assertion fails."""
    send(server, "<1@x>")
    send(server, "", subject="Nameless")
    said = failure(server)
    assert said.endswith(f"\nWithout Message-ID: 1\n  [1] from <noreply@example.org> to <{ADA}>: 'Nameless'")


def test_a_function_tells_messages_apart(server: RecordingServer) -> None:
    """Any function can tell messages apart; for what it returns None, the assertion fails."""
    send(server, "<1@x>", subject="one")
    send(server, "<2@x>", subject="two")
    send(server, "<3@x>", subject="one")

    def order_number(message: Message) -> str | None:
        return message.subject if message.subject != "two" else None

    said = failure(server, by=order_number)
    assert said.startswith("expected each message exactly once, told apart by order_number, found 3\n")
    assert "\nDelivered again, 'one' to <ada@example.org>: 2\n  [0] " in said
    assert "\nFor which the function returns None: 1\n  [1] from" in said
    server.assert_delivered_exactly_once(by=lambda message: message.headers["Message-ID"])


def test_criteria(server: RecordingServer) -> None:
    """Criteria choose the messages about which the assertion is, and their numbers stay those of all."""
    send(server, "<1@x>", subject="one")
    send(server, "<2@x>", subject="two")
    send(server, "<2@x>", subject="two")
    server.assert_delivered_exactly_once(subject="one")
    said = failure(server, subject="two")
    assert said.startswith("expected each message exactly once, told apart by Message-ID with subject='two', found 2\n")
    assert re.search(r"again, .*: 2\n  \[1\] .*\n  \[2\] ", said)
    with pytest.raises(TypeError, match="subjet is no criterion for messages"):
        server.assert_delivered_exactly_once(subjet="two")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": 3}, "by is the name of a header, or a function that returns what tells messages apart, not 3"),
        ({"expected": "<1@x>"}, "expected is a list of what tells messages apart: ['<1@x>']"),
        ({"by": lambda message: message.rcpttos}, f"by returns something hashable that tells messages apart, not ['{ADA}']"),
    ],
)  # fmt: skip
def test_mistakes(server: RecordingServer, arguments: dict[str, Any], message: str) -> None:
    """Arguments of another kind are a TypeError that says what is wanted."""
    send(server, "<1@x>")
    with pytest.raises(TypeError, match=re.escape(message)):
        server.assert_delivered_exactly_once(**arguments)
