"""Hostile mail: whatever somebody sends, looking at it takes no more time than in proportion to its size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_linear

from pytest_smtpd import Message
from pytest_smtpd.testing.comparing import compare_messages, describe_difference

if TYPE_CHECKING:
    from collections.abc import Callable

DERIVED = ("email", "subject", "text", "html", "attachments", "links", "bcc", "dsn", "lints")


def make_message(data: bytes) -> Message:
    """Return a message as a server would make it."""
    return Message(peer=("127.0.0.1", 40000), mailfrom="ada@example.org", rcpttos=["bob@example.org"], data=data)


def look(data: bytes) -> None:
    """Look at everything that derives from a message, and print it."""
    message = make_message(data)
    derived = [*(getattr(message, name) for name in DERIVED), message.codes(), *message.headers.values()]
    assert all(value is not None for value in derived)
    for shown in (str(message), repr(message), repr(message.attachments[:9]), repr(message.headers)):
        assert shown.isprintable()
        assert len(shown) < 10_000


# The start of an e-mail, what is repeated, and the end. A number in what is repeated makes each one another.
HEADERS = {
    "many headers": (b"", b"X-A: b\r\n", b"\r\n"),
    "different headers": (b"", b"X-%d: b\r\n", b"\r\n"),
    "folded": (b"Subject: a", b"\r\n b", b"\r\n\r\n"),
    "words": (b"Subject: ", b"a ", b"\r\n\r\n"),
    "encoded words": (b"Subject: ", b"=?utf-8?q?a?= ", b"\r\n\r\n"),
    "encoded words of two kinds": (b"Subject: ", b"=?utf-8?q?a?= =?latin1?b?YQ==?= ", b"\r\n\r\n"),
    "encoded words of unknown charsets": (b"Subject: ", b"=?x%d?q?a?= ", b"\r\n\r\n"),
    "beginnings of encoded words": (b"Subject: ", b"=?", b"\r\n\r\n"),
    "beginnings of encoded words with a charset": (b"Subject: ", b"=?a?q?", b"\r\n\r\n"),
    "addresses": (b"To: ", b"a@b.example, ", b"\r\n\r\n"),
    "address words": (b"To: ", b"a ", b"\r\n\r\n"),
    "address comments": (b"To: ", b"(", b"\r\n\r\n"),
    "address quotes": (b"To: ", b'"', b"\r\n\r\n"),
    "address backslashes": (b"To: ", b"\\", b"\r\n\r\n"),
    "address brackets": (b"To: ", b"<", b"\r\n\r\n"),
    "address groups": (b"To: ", b"a:", b"\r\n\r\n"),
    "semicolons": (b"Content-Type: text/plain", b";", b"\r\n\r\n"),
    "semicolons in quotes": (b'Content-Type: text/plain; a="', b";", b"\r\n\r\n"),
    "spaces behind a semicolon": (b"Content-Type: text/plain;", b" ", b"\r\n\r\n"),
    "semicolons and spaces": (b"Content-Type: text/plain", b"; ", b"\r\n\r\n"),
    "parameters": (b"Content-Type: text/plain", b"; a%d=b", b"\r\n\r\n"),
    "sections": (b"Content-Disposition: attachment", b"; filename*%d*=b", b"\r\n\r\n"),
    "stars": (b"Content-Type: text/plain;", b"a*", b"=b\r\n\r\n"),
    "transfer encoding": (b"Content-Transfer-Encoding: ", b"a ", b"\r\n\r\n"),
    "boundary": (b"Content-Type: multipart/mixed; boundary=", b"(a+)+", b"\r\n\r\n--(a+)+(a+)+\r\n"),
}
PARTS = {
    "parts in parts": (b"", b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", b""),
    "mail in mail": (b"", b"Content-Type: message/rfc822\r\n\r\n", b""),
    "parts": (b"Content-Type: multipart/mixed; boundary=x\r\n\r\n", b"--x\r\n\r\n", b""),
    "delivery status": (b"Content-Type: message/delivery-status\r\n\r\n", b"a: b\r\n\r\n", b""),
    "lines in deep parts": (
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(30)) + b"\r\n",
        b"--\r\n",
        b"",
    ),
    "base64": (b"Content-Transfer-Encoding: base64\r\n\r\n", b"!=a", b""),
    "quoted-printable": (b"Content-Transfer-Encoding: quoted-printable\r\n\r\n", b"=", b""),
    "punycode": (b"Content-Type: text/plain; charset=punycode\r\n\r\na-", b"b", b""),
    "idna": (b"Content-Type: text/plain; charset=idna\r\n\r\n", b"\xff.", b""),
    "unicode_escape": (b"Content-Type: text/plain; charset=unicode_escape\r\n\r\n", b"\\q", b""),
    "UTF-7": (b"Content-Type: text/plain; charset=utf-7\r\n\r\n", b"+2AA-", b""),
}
TEXT = {
    "URLs": (b"\r\n", b"http://", b""),
    "brackets behind a URL": (b"\r\nhttp://a", b")", b""),
    "URLs in brackets": (b"\r\n", b"<http://a\n", b""),
    "broken URL": (b"\r\n<http://a", b"\n a", b""),
    "schemes": (b"\r\n", b"a.", b""),
    "digits": (b"\r\ncode ", b"1", b""),
    "digits one by one": (b"\r\ncode ", b"1 ", b""),
    "twos": (b"\r\ncode ", b"11-", b""),
    "codes": (b"\r\ncode ", b"123456, ", b""),
    "no codes": (b"\r\n", b"123456, ", b""),
    "capitals": (b"\r\ncode ", b"A-", b""),
    "capitals and digits": (b"\r\ncode ", b"A1B2C-", b""),
    "letters": (b"\r\n", b"ab", b""),
    "empty lines": (b"\r\n", b"\r\n \t", b""),
    "spaces": (b"\r\ncode.", b" ", b"x"),
}
HTML = {
    f"HTML {repeated.decode()}": (b"Content-Type: text/html\r\n\r\n" + start, repeated, b"")
    for start, repeated in (
        *(
            (b"", each)
            for each in (b"<", b"</", b"<!", b"<!--", b"<?", b"<a ", b"<a href='", b"<a href=%d>", b"<![CDATA[")
        ),
        *(
            (b"", each)
            for each in (b"<script>", b"<style></style>", b"<script></", b'<a a=">', b"<a href=x>1<div>", b"<p>")
        ),
        *((b"", each) for each in (b"&", b"&a", b"&#1;", b"\n \t")),
        *((b"<a", each) for each in (b" a%d", b" a=", b" ", b"=", b"/", b" a='")),
        *((b"<a href=", each) for each in (b"x", b"&amp", b"&#", b"'")),
        *((start, b"1") for start in (b"&#", b"&#x")),
    )
}
MAIL = HEADERS | PARTS | TEXT | HTML


def cost(read: Callable[[bytes], object], data: bytes) -> int:
    """Return what reading costs this time, in any unit."""
    start = time.process_time_ns()
    read(data)
    return time.process_time_ns() - start


def grow(mail: tuple[bytes, bytes, bytes], size: int) -> bytes:
    """Return an e-mail of about this size."""
    start, repeated, end = mail
    numbers = range(size // len(repeated))
    return start + b"".join(repeated.replace(b"%d", b"%d" % number) for number in numbers) + end


@pytest.mark.parametrize("mail", MAIL.values(), ids=MAIL)
def test_looking_takes_as_long_as_the_message_is(mail: tuple[bytes, bytes, bytes]) -> None:
    """Ten times the message costs ten times as much to look at or so, not a hundred times, and never raises."""
    small, large = (grow(mail, size) for size in (3_000, 30_000))
    look(small)  # what is imported first
    assert_linear(lambda: cost(look, small), lambda: cost(look, large), times=30, least=2, most=20)


@pytest.mark.parametrize("unit", ["a", "a\n", "a\nb\n", " \n"])
def test_comparing_takes_as_long_as_the_texts_are(unit: str) -> None:
    """Texts of ten megabytes are compared in a moment, and what is said of them is short."""
    text = unit * (10_000_000 // len(unit))
    for other in (text + "x", "x" + text, text[:5_000_000] + "x" + text[5_000_000:], text[::-1] + "x"):
        assert sum(map(len, describe_difference(text, other))) < 10_000


def test_hostile_messages_can_be_compared() -> None:
    """What is said of two messages that differ in everything is short."""
    left, right = (make_message(grow(mail, 50_000)) for mail in (MAIL["different headers"], MAIL["parts"]))
    assert sum(map(len, compare_messages(left, right))) < 10_000


@given(
    st.lists(st.sampled_from([part for mail in MAIL.values() for part in mail]) | st.binary(max_size=10), max_size=30)
)
def test_any_message_can_be_looked_at(parts: list[bytes]) -> None:
    """Whatever is put together from parts of hostile mail, nothing raises."""
    look(b"".join(parts))
