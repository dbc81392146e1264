"""Marks: content is interrupted when so many octets have come, in a session without I/O."""

from __future__ import annotations

import pytest
from support import FULL

from pytest_smtpd.protocol.mail import Arrival, Content
from pytest_smtpd.protocol.session import NEED_DATA, Session

BEGIN = b"EHLO client.example\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
CONTENT = b"0123456789\r\n" * 10
MAIL_DATA = b"DATA\r\n" + CONTENT + b".\r\n"
CHUNKS = b"BDAT 60\r\n" + CONTENT[:60] + b"BDAT 60 LAST\r\n" + CONTENT[60:]


def interruptions(*segments: bytes, marks: list[int]) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return after how many octets a session was interrupted, what it had by then, and what it received in the end."""
    session = Session(FULL)
    session.marks = marks
    session.send(session.connect().reply)
    found = []
    received = b""
    for segment in segments:
        session.receive_data(segment)
        while (event := session.next_event()) is not NEED_DATA:
            if isinstance(event, Arrival):
                found.append((event.mark, event.data))
                session.data_to_send()
                session.send(event.reply)
                assert session.data_to_send() == b""
            else:
                received = event.data if isinstance(event, Content) else received
                session.send(event.reply)
    return found, received


@pytest.mark.parametrize("transfer", [MAIL_DATA, CHUNKS], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "octet by octet"])
def test_content_is_interrupted_at_each_mark(transfer: bytes, split: bool) -> None:  # noqa: FBT001 - parametrized
    """However the octets come, the session asks at each mark, with the content up to there, and loses none."""
    octets = BEGIN + transfer + b"NOOP\r\n"
    segments = [bytes([octet]) for octet in octets] if split else [octets]
    found, received = interruptions(*segments, marks=[5, 60, 119, 120, 500])
    if transfer is CHUNKS:
        assert found == [(5, CONTENT[:5]), (60, CONTENT[:60]), (119, CONTENT[:119])]
    else:  # a line end may belong to the end of mail data, until another octet comes
        assert found == [(5, CONTENT[:5]), (60, CONTENT[:61])]
    assert received == CONTENT


def test_the_end_of_content_is_no_interruption() -> None:
    """Content that ends at the mark, or before, is not interrupted, whatever is pipelined behind it."""
    found, received = interruptions(BEGIN + MAIL_DATA + b"NOOP\r\n" * 50, marks=[120, 121, 200])
    assert (found, received) == ([], CONTENT)


def test_marks_are_asked_for_again_in_the_next_message() -> None:
    """Each message of a session is interrupted."""
    again = b"MAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\n" + MAIL_DATA
    found, _ = interruptions(BEGIN + MAIL_DATA + again, marks=[7])
    assert [mark for mark, _ in found] == [7, 7]


def test_a_session_with_marks_wants_no_buffer() -> None:
    """Large content does not bypass the marks."""
    session = Session(FULL)
    session.send(session.connect().reply)
    session.receive_data(BEGIN + b"DATA\r\nSubject: x\r\n\r\n" + b"x" * 100)
    while (event := session.next_event()) is not NEED_DATA:
        session.send(event.reply)
    assert session.wants_buffer
    session.marks = [1000]
    assert not session.wants_buffer
