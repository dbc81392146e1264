"""Replies: what is written, what is read, and what cannot be one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd.protocol.replies import MAX_REPLY_LINE, RawReply, Reply

ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")

replies = st.builds(Reply, st.integers(200, 599), st.text(max_size=2000), utf8=st.booleans())


def written(reply: Reply, *, enhanced: bool = False) -> str:
    """Return a reply as it is sent."""
    return reply.to_bytes(enhanced=enhanced).decode("utf-8" if reply.utf8 else "ascii")


def lines(reply: Reply, *, enhanced: bool = False) -> list[str]:
    """Return the lines of a reply as they are sent, without their line ends."""
    return written(reply, enhanced=enhanced).removesuffix("\r\n").split("\r\n")


# Reading.


@pytest.mark.parametrize(
    ("text", "code", "reply_text"),
    [
        pytest.param("550 No such user", 550, "No such user", id="one line"),
        pytest.param("550 No such user\r\n", 550, "No such user", id="with its line end"),
        pytest.param("250-one\r\n250 two", 250, "one\ntwo", id="two lines"),
        pytest.param("250-one\n250-two\n250 three", 250, "one\ntwo\nthree", id="lines that end with LF"),
        pytest.param("250-\r\n250 two", 250, "\ntwo", id="an empty first line"),
        pytest.param("354", 354, "", id="a code alone"),
        pytest.param("354 ", 354, "", id="a code and a space"),
        pytest.param("250-one\r\n250", 250, "one\n", id="a code alone in the last line"),
        pytest.param("550  two spaces", 550, " two spaces", id="a text that begins with a space"),
        pytest.param("550 5.1.1 No", 550, "5.1.1 No", id="an enhanced status code, which is text"),
        pytest.param("550 M\u00fcller?", 550, "M\u00fcller?", id="more than ASCII"),
        pytest.param("200 lowest", 200, "lowest", id="the lowest code"),
        pytest.param("599 highest", 599, "highest", id="the highest code"),
    ],
)
def test_parse_reads_what_is_sent(text: str, code: int, reply_text: str) -> None:
    """A reply is read from its lines: the code that they share, and their texts parted by line feeds."""
    assert Reply.parse(text) == Reply(code, reply_text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("OK", id="no code"),
        pytest.param("25 OK", id="two digits"),
        pytest.param("2500 OK", id="four digits"),
        pytest.param("199 OK", id="1yz"),
        pytest.param("600 OK", id="6yz"),
        pytest.param("250OK", id="no space behind the code"),
        pytest.param(" 250 OK", id="a space before the code"),
        pytest.param("\u0662\u0665\u0660 OK", id="digits that are not ASCII"),
        pytest.param("250-one", id="no last line"),
        pytest.param("250-one\r\n250-two", id="no last line after two"),
        pytest.param("250 one\r\n250 two", id="two last lines"),
        pytest.param("250\r\n250 two", id="a first line without a hyphen"),
        pytest.param("250-one\r\n251 two", id="two codes"),
        pytest.param("250-one\r\ntwo", id="a line without a code"),
        pytest.param("one\r\n250 two", id="a first line without a code"),
        pytest.param("250-one\r\n\r\n250 two", id="an empty line"),
    ],
)
def test_parse_refuses_what_is_no_reply(text: str) -> None:
    """What is no reply is a ValueError that shows it, and how a reply looks."""
    expected = f"{text!r} is no SMTP reply: it must look like '550 No such user'"
    with pytest.raises(ValueError, match=re.escape(expected)):
        Reply.parse(text)


@given(st.integers(200, 599), st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1))
def test_parse_reads_what_to_bytes_writes(code: int, texts: list[str]) -> None:
    """Any reply of short lines of printable ASCII is read as it was written."""
    text = "\n".join(line[:400] for line in [*texts, "."])
    assert Reply.parse(written(Reply(code, text))) == Reply(code, text)


# Writing.


@pytest.mark.parametrize(
    ("reply", "plain", "enhanced"),
    [
        pytest.param(Reply(250, "OK", "2.1.0"), "250 OK\r\n", "250 2.1.0 OK\r\n", id="one line"),
        pytest.param(Reply(550, "No"), "550 No\r\n", "550 5.0.0 No\r\n", id="no code: the class alone"),
        pytest.param(Reply(450), "450 \r\n", "450 4.0.0\r\n", id="no text: still the space"),
        pytest.param(Reply(450, "", "4.2.1"), "450 \r\n", "450 4.2.1\r\n", id="no text and a code"),
        pytest.param(Reply(354, "Go on"), "354 Go on\r\n", "354 Go on\r\n", id="an intermediate reply has none"),
        pytest.param(
            Reply(214, "one\ntwo\nthree", "2.0.0"),
            "214-one\r\n214-two\r\n214 three\r\n",
            "214-2.0.0 one\r\n214-2.0.0 two\r\n214 2.0.0 three\r\n",
            id="three lines",
        ),
        pytest.param(
            Reply(250, "one\n\ntwo", "2.0.0"),
            "250-one\r\n250-\r\n250 two\r\n",
            "250-2.0.0 one\r\n250-2.0.0\r\n250 2.0.0 two\r\n",
            id="an empty line",
        ),
        pytest.param(Reply(550, "5.1.1 No"), "550 5.1.1 No\r\n", "550 5.1.1 No\r\n", id="a text with a code"),
        pytest.param(Reply(550, "5.1.1"), "550 5.1.1\r\n", "550 5.1.1\r\n", id="a text that is a code"),
        pytest.param(Reply(550, "5.1.1 No", "5.7.1"), "550 5.1.1 No\r\n", "550 5.1.1 No\r\n", id="both: the text's"),
        pytest.param(
            Reply(550, "5.1.1 one\n5.1.1 two"),
            "550-5.1.1 one\r\n550 5.1.1 two\r\n",
            "550-5.1.1 one\r\n550 5.1.1 two\r\n",
            id="each line with a code",
        ),
        pytest.param(
            # RFC 2034 4: the same status code in each line.
            Reply(550, "5.1.1 one\ntwo"),
            "550-5.1.1 one\r\n550 two\r\n",
            "550-5.1.1 one\r\n550 5.1.1 two\r\n",
            id="the first line's code is all lines' code",
        ),
        pytest.param(
            Reply(550, "5.1 is no code"),
            "550 5.1 is no code\r\n",
            "550 5.0.0 5.1 is no code\r\n",
            id="a text with something like a code",
        ),
        pytest.param(Reply(250, "M\u00fcll"), "250 M\\xfcll\r\n", "250 2.0.0 M\\xfcll\r\n", id="more than ASCII"),
        pytest.param(
            Reply(250, "M\u00fcll", utf8=True), "250 M\u00fcll\r\n", "250 2.0.0 M\u00fcll\r\n", id="UTF-8 if it may be"
        ),
        pytest.param(
            Reply(250, "a\r\nb\rc"),
            "250-a\r\n250-b\r\n250 c\r\n",
            "250-2.0.0 a\r\n250-2.0.0 b\r\n250 2.0.0 c\r\n",
            id="any line end parts lines",
        ),
    ],
)
def test_to_bytes_writes_both_forms(reply: Reply, plain: str, enhanced: str) -> None:
    """A reply is sent without enhanced status codes, or with the same one in each of its lines."""
    assert (written(reply), written(reply, enhanced=True)) == (plain, enhanced)


@pytest.mark.parametrize("enhanced", [False, True], ids=["plain", "enhanced"])
@pytest.mark.parametrize("status", ["", "5.1.1", "5.123.123"])
@pytest.mark.parametrize("length", [1, 495, 496, 497, 502, 512, 992, 993, 5000])
def test_a_long_line_is_folded(length: int, status: str, *, enhanced: bool) -> None:
    """A text too long for one line becomes more lines of 512 octets at the most, and loses nothing."""
    reply = Reply(550, "x" * length, status)
    sent = lines(reply, enhanced=enhanced)
    assert max(map(len, sent)) + 2 <= MAX_REPLY_LINE
    assert sum(line.count("x") for line in sent) == length
    assert [line[3] for line in sent] == ["-"] * (len(sent) - 1) + [" "]
    assert {line[4:].partition(" ")[0] for line in sent if enhanced} <= {status or "5.0.0"}


@pytest.mark.parametrize("text", ["\U0001f600" * 1000, "\u00e9" * 1000, "e\u00e9" * 500])
def test_a_line_of_utf8_is_folded_between_characters(text: str) -> None:
    """Where more than ASCII is allowed octets are counted, and no character is cut."""
    sent = lines(Reply(550, text, "5.1.1", utf8=True), enhanced=True)
    assert max(len(line.encode()) for line in sent) + 2 <= MAX_REPLY_LINE
    assert "".join(line.removeprefix("550-").removeprefix("550 ").removeprefix("5.1.1 ") for line in sent) == text


def test_what_fits_is_not_folded() -> None:
    """496 octets of text, which fit beside the longest enhanced status code, stay one line of 512."""
    reply = Reply(550, "x" * 496, "5.123.123")
    assert len(reply.to_bytes(enhanced=True)) == MAX_REPLY_LINE
    assert len(lines(reply)) == 1
    assert len(lines(Reply(550, "x" * 497))) == 2


def test_a_folded_line_keeps_its_status_code() -> None:
    """Where the text begins with an enhanced status code, what is folded off has the same one."""
    sent = lines(Reply(550, "5.1.1 " + "x" * 1000), enhanced=True)
    assert {line[4:].partition(" ")[0] for line in sent} == {"5.1.1"}


@given(replies, st.booleans())
def test_any_text_makes_a_well_formed_reply(reply: Reply, enhanced: bool) -> None:  # noqa: FBT001 - Hypothesis gives it
    """Whatever the text is, the octets are lines with the code, a mark and no more than 512 octets.

    They are ASCII, or UTF-8 where that is allowed.
    """
    sent = lines(reply, enhanced=enhanced)
    assert {line[:3] for line in sent} == {str(reply.code)}
    assert [line[3] for line in sent] == ["-"] * (len(sent) - 1) + [" "]
    assert max(len(line.encode()) for line in sent) + 2 <= MAX_REPLY_LINE
    assert not re.search(r"[\r\n]", "".join(sent))
    if enhanced and not reply.is_intermediate:
        assert [line for line in sent if not ENHANCED.match(line, 4)] == []


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        pytest.param(Reply(250, "OK"), "250 OK", id="code and text"),
        pytest.param(Reply(250, "OK", "2.1.0"), "250 2.1.0 OK", id="all three"),
        pytest.param(Reply(250), "250", id="code alone"),
        pytest.param(Reply(250, "", "2.1.0"), "250 2.1.0", id="both codes"),
    ],
)
def test_str_is_for_people(reply: Reply, text: str) -> None:
    """As a string a reply is its code, its enhanced status code and its text, as far as it has them."""
    assert str(reply) == text


# Values.


@pytest.mark.parametrize("code", [-1, 0, 25, 199, 600, 2500])
def test_a_code_is_from_200_to_599(code: int) -> None:
    """Another code is a ValueError that names it."""
    with pytest.raises(ValueError, match=rf"from 200 to 599, not {code}$"):
        Reply(code, "OK")


@pytest.mark.parametrize(
    "enhanced", ["5", "5.1", "5.1.1.1", "5.1.x", "5.1.1 ", " 5.1.1", "5.1.1\n", "5.1234.1", "3.0.0"]
)
def test_an_enhanced_status_code_has_three_parts(enhanced: str) -> None:
    """What is not made like 5.1.1 is a ValueError that shows it."""
    with pytest.raises(ValueError, match=re.escape(f"looks like 5.1.1, not {enhanced!r}")):
        Reply(int(f"{enhanced.strip()[0]}50"), "No", enhanced)


@pytest.mark.parametrize(("code", "enhanced"), [(250, "5.1.1"), (550, "4.1.1"), (450, "2.0.0"), (354, "2.0.0")])
def test_both_codes_are_of_one_class(code: int, enhanced: str) -> None:
    """An enhanced status code of another class than the reply code is a ValueError that names both."""
    with pytest.raises(ValueError, match=rf"{re.escape(enhanced)} contradicts the reply code {code}"):
        Reply(code, "OK", enhanced)


def test_a_text_that_has_no_utf8_is_refused_at_once() -> None:
    """What can't be sent as UTF-8 is refused where the reply is made, not where it is sent."""
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        Reply(550, "No \ud800", utf8=True)
    assert Reply(550, "No \ud800").to_bytes() == b"550 No \\ud800\r\n"


@pytest.mark.parametrize(
    ("code", "is_positive", "is_intermediate", "is_negative"),
    [
        (200, True, False, False),
        (299, True, False, False),
        (300, False, True, False),
        (399, False, True, False),
        (400, False, False, True),
        (599, False, False, True),
    ],
)
def test_the_first_digit_says_how_it_went(
    code: int, *, is_positive: bool, is_intermediate: bool, is_negative: bool
) -> None:
    """2yz is positive, 3yz intermediate, and all else negative."""
    reply = Reply(code)
    assert (reply.is_positive, reply.is_intermediate, reply.is_negative) == (is_positive, is_intermediate, is_negative)


def test_raw_replies_are_values() -> None:
    """Raw replies with the same code and octets are equal and have one hash; no other reply equals them."""
    raw = RawReply(250, b"2")
    assert {raw, RawReply(250, b"2")} == {raw}
    assert raw not in {RawReply(250, b"25"), RawReply(251, b"2"), Reply(250)}


def test_replies_are_values() -> None:
    """Replies with the same code, text and enhanced status code are equal and have one hash; others differ."""
    reply = Reply(250, "OK", "2.1.0")
    assert {reply, Reply(250, "OK", "2.1.0")} == {reply}
    assert reply not in {Reply(251, "OK", "2.1.0"), Reply(250, "KO", "2.1.0"), Reply(250, "OK", "2.1.5")}
    assert reply != Reply(250, "OK", "2.1.0", utf8=True)
    assert repr(reply) == "Reply(code=250, text='OK', enhanced='2.1.0', utf8=False)"


@pytest.mark.parametrize(("code", "is_permanent"), [(250, False), (354, False), (499, False), (500, True), (599, True)])
def test_permanent_replies(code: int, *, is_permanent: bool) -> None:
    """A reply is permanently negative from 500 on."""
    assert Reply(code).is_permanent == is_permanent
