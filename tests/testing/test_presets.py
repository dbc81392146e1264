"""Presets: greylisting, limits and outages as clients meet them."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING, Any

import pytest

from pytest_smtpd import RecordingServer
from pytest_smtpd.testing import presets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ClockedServer(RecordingServer):
    """Goes by a clock that tests move."""

    now = 1000.0

    def clock(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def server() -> Iterator[ClockedServer]:
    """Return a running server."""
    with ClockedServer(allow_unused_rules=True) as server:
        yield server


def send(
    server: RecordingServer, *rcpttos: str, mailfrom: str = "ada@example.org", size: int = 100
) -> dict[str, tuple[int, bytes]]:
    """Send a message of so many octets as an application does; return the recipients that were refused."""
    content = "Subject: Hello\r\n\r\n".ljust(size - 2, "x") + "\r\n"
    with smtplib.SMTP(*server.address) as client:
        return client.sendmail(mailfrom, rcpttos or ["bob@example.org"], content)


def test_a_greylisted_recipient_is_accepted_the_second_time(server: ClockedServer) -> None:
    """Each pair of sender and recipient is deferred once."""
    rule = server.greylist()
    with pytest.raises(smtplib.SMTPRecipientsRefused) as raised:
        send(server)
    assert raised.value.recipients == {"bob@example.org": (450, b"4.7.1 Greylisted, try again later")}
    assert send(server, "bob@EXAMPLE.org", "eve@example.org").keys() == {"eve@example.org"}
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(server, mailfrom="eve@example.org")
    assert (rule.hits, len(server.messages)) == (3, 1)
    assert str(rule) == "on('RCPT', is_greylisted).defer('450 4.7.1 Greylisted, try again later')"
    assert rule.where.startswith(__file__)


def test_greylisting_may_last_for_a_while(server: ClockedServer) -> None:
    """Who comes again too early is deferred again, counted from the first time."""
    server.greylist(60, "451 4.7.1 Later")
    for seconds in (0, 59):
        server.now = 1000 + seconds
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
            send(server)
    server.now = 1060
    send(server)


def test_a_rate_limit_defers_what_is_too_much(server: ClockedServer) -> None:
    """After so many messages MAIL is deferred, until the first of them is long enough ago."""
    server.rate_limit(2, 60)
    send(server)
    server.now += 30
    send(server)
    with pytest.raises(smtplib.SMTPSenderRefused) as raised:
        send(server)
    assert (raised.value.smtp_code, raised.value.smtp_error) == (450, b"4.7.1 Too much mail, try again later")
    server.now += 30
    send(server)
    with pytest.raises(smtplib.SMTPSenderRefused):
        send(server)


def test_a_rate_limit_may_be_for_ever(server: ClockedServer) -> None:
    """Without seconds, so many messages are all there will be."""
    server.rate_limit(1, text="554 5.7.1 That was all")
    send(server)
    server.now += 1e9
    with pytest.raises(smtplib.SMTPSenderRefused, match="554"):
        send(server)


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_a_quota_counts_what_a_recipient_has(protocol: Any) -> None:
    """A message that does not fit is refused, for a recipient that has too much by then; clearing makes room."""
    with RecordingServer(protocol=protocol) as server:
        server.quota(250)

        def deliver(rcptto: str, size: int) -> int:
            with (smtplib.LMTP if protocol == "lmtp" else smtplib.SMTP)(*server.address) as client:
                try:
                    client.sendmail("ada@example.org", rcptto, b"x" * (size - 2) + b"\r\n")
                except smtplib.SMTPDataError as error:
                    return error.smtp_code
                return 250

        assert [deliver("bob@example.org", 100) for _ in range(3)] == [250, 250, 452]
        assert [deliver("bob@EXAMPLE.org", 50), deliver("bob@example.org", 10)] == [250, 452]
        assert [deliver("eve@example.org", 251), deliver("eve@example.org", 250)] == [452, 250]
        server.clear()
        assert deliver("bob@example.org", 100) == 250


def test_a_quota_may_be_final(server: ClockedServer) -> None:
    """A text with a 5yz refuses for good."""
    server.quota(10, "552 5.2.2 Over quota")
    with pytest.raises(smtplib.SMTPDataError, match="552"):
        send(server)


def test_a_quota_looks_at_each_message_once(server: ClockedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a quota costs a message does not grow with what was received before."""
    read: list[str] = []

    def note(mailbox: str) -> str:
        read.append(mailbox)
        return mailbox

    monkeypatch.setattr(presets, "canonical_mailbox", note)
    server.quota(1000)
    for _ in range(5):
        send(server)
    assert len(read) == 5 + 4  # as the recipient of the message that comes, and of those that were there


def test_a_quota_is_of_what_is_there(server: ClockedServer) -> None:
    """A mailbox that was cleared is empty again."""
    server.quota(250)
    send(server)
    size = server.messages[0].size
    for _ in range(250 // size - 1):
        send(server)
    with pytest.raises(smtplib.SMTPDataError, match="452"):
        send(server)
    server.clear()
    send(server)


def test_a_flapping_server_comes_and_goes() -> None:
    """Clients that try long enough see both, on the same port; behind the block the server is there."""
    with RecordingServer() as server:
        seen: set[str] = set()
        with server.flapping(up=0.02, down=0.02):
            while len(seen) < 2:
                try:
                    send(server)
                    seen.add("up")
                except OSError:
                    seen.add("down")
        send(server)


def test_what_fails_while_flapping_reaches_the_test() -> None:
    """A server that is down already can't flap; its stop raises that."""
    server = RecordingServer().start()
    with server.down(), server.flapping(up=0.001, down=0.001):
        while not server.errors:
            pass
    with pytest.raises(RuntimeError, match="down"):
        server.stop()


@pytest.mark.parametrize(
    ("preset", "error"),
    [
        (lambda server: server.greylist(-1), "greylist takes a number above 0, not -1"),
        (lambda server: server.rate_limit(0), "messages is a whole number from 1 on, not 0"),
        (lambda server: server.rate_limit(1, 0), "rate_limit takes a number above 0, not 0"),
        (lambda server: server.quota(0), "octets is a whole number from 1 on, not 0"),
        (lambda server: server.quota(5, "250 OK"), "'250 OK' has the code 250"),
        (lambda server: server.flapping(0, 1).__enter__(), "up takes a number above 0, not 0"),
        (lambda server: server.flapping(1, 0).__enter__(), "down takes a number above 0, not 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    server: ClockedServer, preset: Callable[[RecordingServer], object], error: str
) -> None:
    """The ValueError names what is wrong."""
    with pytest.raises(ValueError, match=error):
        preset(server)
