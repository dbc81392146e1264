"""Growth: what a session costs, in steps and in octets, grows with what it is sent and no faster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support import FULL, assert_proportional, steps, traffic

from pytest_smtpd.protocol import mail
from pytest_smtpd.protocol.content import content_lints
from pytest_smtpd.protocol.mail import Content
from pytest_smtpd.protocol.session import NEED_DATA, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.protocol.grammar import Parameters
    from pytest_smtpd.protocol.lints import Lint
    from pytest_smtpd.protocol.state import Settings

UNLIMITED = replace(FULL, data_size_limit=0, max_recipients=0)
LMTP = replace(UNLIMITED, lmtp=True)
MAIL = b"MAIL FROM:<ada@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.org>\r\n"
DATA = b"DATA\r\nSubject: x\r\n\r\nHello\r\n.\r\n"

#: What a client says: the beginning, what is repeated, the end.
COMMANDS = {
    "commands": (b"", b"NOOP\r\n", b""),
    "commands with bare line ends": (b"", b"NOOP\n", b""),
    "unknown commands": (b"", b"XFOO bar\r\n", b""),
    "empty lines": (b"", b"\r\n", b""),
    "a line without an end": (b"x" * 600, b"x", b"\r\n"),
    "recipients": (MAIL, RCPT, DATA),
    "transactions": (b"", MAIL + RCPT + b"RSET\r\n", b""),
}
MESSAGES = {
    "messages": (b"", MAIL + RCPT + DATA, b""),
    "messages in one chunk": (b"", MAIL + RCPT + b"BDAT 3 LAST\r\na\r\n", b""),
    "chunks": (MAIL + RCPT, b"BDAT 19\r\n0123456789abcdefg\r\n", b"BDAT 0 LAST\r\n"),
    "chunks without a transaction": (b"", b"BDAT 19\r\n0123456789abcdefg\r\n", b""),
}
CONTENTS = {
    f"content of {name}": (MAIL + RCPT + b"DATA\r\n", repeated, b"\r\n.\r\n")
    for name, repeated in {
        "short lines": b"x\r\n",
        "lines that are a dot": b"..\r\n",
        "lines that begin with a dot": b"..x\r\n",
        "empty lines": b"\r\n",
        "one long line": b"x",
        "dots in one line": b".",
        "line feeds": b"\n",
        "carriage returns": b"\r",
        "bare ends": b"\n.\n",
        "beginnings of ends": b"\r\n.\r",
    }.items()
}
CHUNK = {"content of one chunk": (MAIL + RCPT + b"BDAT 12345 LAST\r\n", b"x", b"")}
SAID = COMMANDS | MESSAGES | CONTENTS | CHUNK


def drive(octets: bytes, segment: int, settings: Settings) -> Iterator[None]:
    """Give a session octets in segments of this size, and each event its own answer; pause behind each."""
    session = Session(settings)
    session.send(session.connect().reply)
    octets = (b"LHLO x\r\n" if settings.lmtp else b"EHLO x\r\n") + octets
    for start in range(0, len(octets), segment):
        session.receive_data(octets[start : start + segment])
        while (event := session.next_event()) is not NEED_DATA:
            if isinstance(event, Content):
                event.decide(event.reply)
            session.send(event.reply)
            yield
        session.data_to_send()
        yield


def steps_of(octets: bytes, segment: int, settings: Settings) -> int:
    """Return how many lines of Python a session goes through for these octets."""

    def run() -> None:
        for _ in drive(octets, segment, settings):
            pass

    return steps(run)


def traffic_of(octets: bytes, segment: int, settings: Settings) -> int:
    """Return how many octets a session allocates for these octets."""
    return traffic(drive(octets, segment, settings))


def grow(said: tuple[bytes, bytes, bytes], times: int) -> bytes:
    """Return what a client says with its middle so many times."""
    start, repeated, end = said
    return start + repeated * times + end


@pytest.mark.parametrize("cost", [steps_of, traffic_of])
@pytest.mark.parametrize(("segment", "size"), [(1, 150), (300, 1000)], ids=["octet by octet", "in pieces"])
@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_a_session_costs_what_is_said_in_it(
    said: tuple[bytes, bytes, bytes], segment: int, size: int, cost: Callable[[bytes, int, Settings], int]
) -> None:
    """However it is cut, ten times as much takes no more than ten times the steps and octets."""
    times = size // len(said[1])
    assert_proportional(lambda times: cost(grow(said, times), segment, UNLIMITED), times)


@pytest.mark.parametrize("said", [COMMANDS["recipients"], *MESSAGES.values()], ids=["recipients", *MESSAGES])
def test_what_comes_at_once_is_not_copied_over_and_over(said: tuple[bytes, bytes, bytes]) -> None:
    """In one segment of 200,000 octets, no command and no message costs what is behind it."""
    # What a receiver is given at a time may be copied, and the smaller segment has little more than that.
    times = 20_000 // len(said[1])
    assert_proportional(lambda times: traffic_of(grow(said, times), 10**9, UNLIMITED), times, most=30)


@pytest.mark.parametrize("cost", [steps_of, traffic_of])
def test_refused_recipients_cost_as_much_as_there_are(cost: Callable[[bytes, int, Settings], int]) -> None:
    """Ten times the refused recipients cost no more than ten times as much, though they are kept."""
    refused = b"RCPT TO:<bob@example.org> X=1\r\n"
    assert_proportional(lambda size: cost(grow((MAIL, refused, RCPT + DATA), size), 300, UNLIMITED), 90)


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("cost", [steps_of, traffic_of])
def test_lmtp_costs_as_much_as_there_are_recipients(cost: Callable[[bytes, int, Settings], int], limit: int) -> None:
    """In LMTP, where each recipient is answered, accepted or not, ten times as many cost ten times as much."""
    settings = replace(LMTP, data_size_limit=limit)
    assert_proportional(lambda size: cost(grow((MAIL, RCPT, DATA), size), 1000, settings), 90)


def test_strict_lmtp_looks_at_content_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strict server looks over the content of a message once, however many recipients are answered in LMTP."""
    looked_at = []

    def count(data: bytes, parameters: Parameters, line_limit: int) -> Iterator[Lint]:
        looked_at.append(data)
        return content_lints(data, parameters, line_limit)

    monkeypatch.setattr(mail, "content_lints", count)
    for _ in drive(MAIL + RCPT * 10 + DATA, 1, replace(LMTP, strict=True)):
        pass
    assert looked_at == [b"Subject: x\r\n\r\nHello\r\n"]
