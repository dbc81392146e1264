"""GNU Mailman 3 behind a MailmanProxy."""

from __future__ import annotations

import re
import smtplib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from mailman import Mailman

from pytest_smtpd import RecordingServer, smtpd

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA, BOB = "ada@example.org", "bob@example.org"
ANTS = "ants@lists.example"
CONTENT = f"From: {ADA}\r\nTo: {ANTS}\r\nMessage-ID: <1@example.org>\r\nSubject: hello\r\n\r\nworld\r\n".encode()

README = Path(__file__).parents[2] / "README.md"


class Place(NamedTuple):
    """In which queue Mailman puts what is for an address, and what it notes about it."""

    address: str
    queue: str
    note: bytes


PLACES = [
    Place(ANTS, "in", b"to_list"),
    Place("ANTS@Lists.Example", "in", b"to_list"),
    Place('"ants"@lists.example', "in", b"to_list"),
    Place("ants@alias.example", "in", b"to_list"),
    Place("ants-owner@lists.example", "in", b"to_owner"),
    Place("ants-request@lists.example", "command", b"request"),
    Place("ants-join@lists.example", "command", b"join"),
    Place("ants-confirm+0123456789@lists.example", "command", b"confirm"),
    Place("ants-bounces@lists.example", "bounces", b"bounces"),
    Place("ants-bounces+bob=example.org@lists.example", "bounces", b"bounces"),
]


@pytest.fixture(scope="module")
def mailman() -> Iterator[Mailman]:
    """Return a Mailman that runs."""
    with Mailman() as running:
        yield running


@pytest.fixture
def upstream() -> Iterator[RecordingServer]:
    """Return where the rest goes."""
    with RecordingServer() as server:
        yield server


@pytest.fixture
def proxy(mailman: Mailman, upstream: RecordingServer) -> Iterator[smtpd.MailmanProxy]:
    """Return a proxy before both."""
    with smtpd.MailmanProxy(("127.0.0.1", 0), upstream.address, map={}, lmtp=mailman.lmtp) as running:
        yield running


def send(proxy: smtpd.MailmanProxy, *rcpttos: str, content: bytes = CONTENT) -> dict[str, tuple[int, bytes]]:
    """Send a message through the proxy; return who was refused."""
    with smtplib.SMTP(*proxy.socket.getsockname()) as client:
        return client.sendmail(ADA, rcpttos, content)


def queued(mailman: Mailman) -> dict[str, list[bytes]]:
    """Return what Mailman has, and have it forget that."""
    return {name: found for name in ("in", "command", "bounces") if (found := mailman.take_queue(name))}


@pytest.mark.parametrize("place", PLACES, ids=[place.address for place in PLACES])
def test_what_is_for_mailman(
    proxy: smtpd.MailmanProxy, mailman: Mailman, upstream: RecordingServer, place: Place
) -> None:
    """Each address that Mailman has gets there, with the content as it was, and the upstream never hears of it."""
    assert send(proxy, place.address) == {}
    [(queue, [message])] = queued(mailman).items()
    assert queue == place.queue
    assert place.note in message
    assert b"hello" in message
    assert b"world" in message
    assert "MAIL" not in "".join(str(dialogue) for dialogue in upstream.dialogues)


@pytest.mark.parametrize(
    "address", [BOB, "nobody@lists.example", "ants@example.org", "ants-foo@lists.example", "b\u00f3b@lists.example"]
)
def test_what_is_not(proxy: smtpd.MailmanProxy, mailman: Mailman, upstream: RecordingServer, address: str) -> None:
    """An address that Mailman does not have goes to the upstream, also one that looks like a list's."""
    with smtplib.SMTP(*proxy.socket.getsockname()) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        client.sendmail(ADA, address, CONTENT, ["SMTPUTF8"])
    assert upstream.messages.one().rcpttos == [address]
    assert queued(mailman) == {}


def test_all_at_once(proxy: smtpd.MailmanProxy, mailman: Mailman, upstream: RecordingServer) -> None:
    """A message for many is parted: each of Mailman's addresses has its own copy, all others one together."""
    assert send(proxy, *(place.address for place in PLACES), BOB, ADA) == {}
    assert {queue: len(found) for queue, found in queued(mailman).items()} == {"in": 5, "command": 3, "bounces": 2}
    assert upstream.messages.one().rcpttos == [BOB, ADA]


def test_a_malformed_post(proxy: smtpd.MailmanProxy, mailman: Mailman, upstream: RecordingServer) -> None:
    """What Mailman refuses for its content is refused, and the others don't get it either."""
    with pytest.raises(smtplib.SMTPDataError, match="501") as caught:
        send(proxy, ANTS, BOB, content=b"no header\r\n")
    assert "defects" in str(caught.value.smtp_error)
    assert queued(mailman) == {}
    assert not upstream.messages
    assert send(proxy, BOB, content=b"no header\r\n") == {}


def test_mailman_is_stopped(proxy: smtpd.MailmanProxy, mailman: Mailman, upstream: RecordingServer) -> None:
    """While Mailman does not run, nobody gets anything, and the client is told to try again; then all is well."""
    assert send(proxy, ANTS, BOB) == {}
    mailman.stop("lmtp")
    try:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            send(proxy, ANTS, BOB)
    finally:
        mailman.start("lmtp", mailman.lmtp)
    assert [code for code, _ in caught.value.recipients.values()] == [451, 451]
    assert send(proxy, ANTS, BOB) == {}
    assert len(queued(mailman)["in"]) == len(upstream.messages) == 2


def test_the_rest_server_tells_lists(mailman: Mailman, upstream: RecordingServer) -> None:
    """The function of the README that asks Mailman's REST server knows the lists, and nothing else."""
    [code] = re.findall(
        r"^```python\n((?:(?!```).)*def is_list.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    namespace: dict[str, Any] = {}
    exec(code.replace("127.0.0.1:8001", mailman.rest), namespace)  # noqa: S102 - our own README
    with smtpd.MailmanProxy(
        ("127.0.0.1", 0), upstream.address, map={}, lmtp=mailman.lmtp, is_list=namespace["is_list"]
    ) as proxy:
        assert send(proxy, ANTS, BOB, "nobody@lists.example") == {}
    assert list(queued(mailman)) == ["in"]
    assert upstream.messages.one().rcpttos == [BOB, "nobody@lists.example"]
