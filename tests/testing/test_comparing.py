"""Comparing: what differs, said in few lines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd import Message
from pytest_smtpd.testing.comparing import compare_mailboxes, compare_messages, describe_difference

CONTENT = b"Subject: Hello\r\nX-Tag: a\r\nX-Tag: b\r\n\r\nHow are you?\r\n"
LINES = [f"line {number}\n" for number in range(1, 101)]


def make_message(data: bytes = CONTENT, **fields: Any) -> Message:
    """Return a message as a server would make it."""
    envelope = {"peer": ("127.0.0.1", 40000), "mailfrom": "ada@example.org", "rcpttos": ["bob@example.org"]}
    return Message(**{**envelope, "data": data, **fields})


@pytest.mark.parametrize(
    ("expected", "found", "lines"),
    [
        pytest.param("a", "a", [], id="equal"),
        pytest.param("a", "b", ["expected 'a', got 'b'"], id="short"),
        pytest.param("a\n", "a", [r"expected 'a\n', got 'a'"], id="line end"),
        pytest.param("a", "", ["expected 'a', got ''"], id="empty"),
        pytest.param(
            "x" * 100 + "a" + "y" * 100,
            "x" * 100 + "b",
            [f"line 1, column 101: expected …'{'x' * 30}a{'y' * 29}…', got …'{'x' * 30}b'"],
            id="one long line",
        ),
        pytest.param(
            "a" * 70 + "\n\n",
            "b" + "a" * 90,
            [f"line 1, column 1: expected '{'a' * 60}…', got 'b{'a' * 59}…'"],
            id="one long line from its start",
        ),
        pytest.param(
            "a\n" + "x" * 500 + "b\n",
            "a\n" + "x" * 500 + "c\n",
            [rf"line 2, column 501: expected …'{'x' * 30}b\n', got …'{'x' * 30}c\n'"],
            id="in a long line",
        ),
        pytest.param(
            "".join(LINES),
            "".join([*LINES[:49], "line fifty \n", "new\x1b\n", *LINES[50:]]),
            [
                "from line 47 on, - expected, + got:",
                *("  line 47", "  line 48", "  line 49", "- line 50", "+ 'line fifty '", r"+ new\x1b"),
                *("  line 51", "  line 52", "  line 53"),
            ],
            id="lines",
        ),
        pytest.param(
            "a\nb\nc\n" + "".join(LINES[:20]),
            "a\nx\nc\n" + "".join(LINES[:20]) + "end\n",
            [
                "from line 1 on, - expected, + got:",
                *("  a", "- b", "+ x", "  c", "  line 1", "  line 2"),
                *("…", "  line 18", "  line 19", "  line 20", "+ end", ""),
            ],
            id="two places",
        ),
        pytest.param("a\nb", "a", ["from line 1 on, - expected, + got:", "  a", "- b"], id="a line is missing"),
    ],
)
def test_texts_are_compared(expected: str, found: str, lines: list[str]) -> None:
    """Short texts are shown whole, of long ones where they begin to differ."""
    assert [line.rstrip() for line in describe_difference(expected, found)] == lines


def test_a_diff_is_short() -> None:
    """Of texts that differ everywhere, a diff shows the beginning."""
    lines = describe_difference("".join(LINES) * 1000, "".join(reversed(LINES)) * 1000)
    assert len(lines) == 32
    assert lines[-1] == "…"
    assert all(len(line) < 250 for line in describe_difference("x" * 10_000 + "\n\na\n", "y" * 10_000 + "\nb\n"))


@given(st.text("ab \n", max_size=300), st.text("ab \n", max_size=300))
def test_texts_differ_or_they_do_not(expected: str, found: str) -> None:
    """There is something to say of two texts if and only if they differ."""
    assert bool(describe_difference(expected, found)) is (expected != found)


@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [
        pytest.param(["a@b"], ["a@b"], [], id="equal"),
        pytest.param(["a@b"], ["a@b", "c@d"], ["missing: 'c@d'"], id="missing"),
        pytest.param(["a@b", "c@d"], ["a@b"], ["unexpected: 'c@d'"], id="unexpected"),
        pytest.param(["a@b", "a@b"], ["a@b"], ["unexpected: 'a@b'"], id="twice"),
        pytest.param(["a@b"], ["c@d"], ["missing: 'c@d'", "unexpected: 'a@b'"], id="another"),
        pytest.param(["c", "a"], ["a", "c"], ["in another order: expected ['a', 'c'], got ['c', 'a']"], id="order"),
        pytest.param(
            ["a@B", "a@B"],
            ["a@b"],
            ["'a@b' came as 'a@B': the same mailbox, but == compares the spelling", "unexpected: 'a@B'"],
            id="case of the domain",
        ),
        pytest.param(["A@b"], ["a@b"], ["missing: 'a@b'", "unexpected: 'A@b'"], id="case of the local part"),
    ],
)
def test_mailboxes_are_compared(left: list[str], right: list[str], lines: list[str]) -> None:
    """What is missing, what is not expected, what is only spelt otherwise, or in another order."""
    assert compare_mailboxes(left, right) == lines


def test_many_mailboxes_are_not_all_named() -> None:
    """Of very many mailboxes that differ, some are named, and the others counted."""
    [line] = compare_mailboxes([], [f"{number}@x" for number in range(100)])
    assert line.endswith("'9@x', … 90 more")


@given(st.lists(st.sampled_from("abAB"), max_size=5), st.lists(st.sampled_from("abAB"), max_size=5))
def test_mailboxes_differ_or_they_do_not(left: list[str], right: list[str]) -> None:
    """There is something to say of two lists if and only if they differ."""
    left, right = ([f"x@{domain}" for domain in domains] for domains in (left, right))
    assert bool(compare_mailboxes(left, right)) is (left != right)


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        pytest.param({}, [], id="equal"),
        pytest.param({"mailfrom": "x"}, ["mailfrom: expected 'ada@example.org', got 'x'"], id="mailfrom"),
        pytest.param({"rcpttos": []}, ["rcpttos: missing: 'bob@example.org'"], id="rcpttos"),
        pytest.param(
            {"helo": "x", "esmtp": False},
            ["helo: expected '', got 'x'", "esmtp: expected True, got False"],
            id="what the client said",
        ),
        pytest.param(
            {"data": CONTENT.replace(b"Hello", b"Bye")}, ["headers['Subject']: expected 'Hello', got 'Bye'"], id="subject"
        ),
        pytest.param(
            {"data": CONTENT.replace(b"Tag: b", b"Tag: c").replace(b"Subject", b"Title")},
            [
                "headers missing: 'Subject'",
                "headers unexpected: 'Title'",
                "headers['X-Tag']: expected ['a', 'b'], got ['a', 'c']",
            ],
            id="headers",
        ),
        pytest.param(
            {"data": CONTENT.replace(b"you", b"we")}, [r"text: expected 'How are you?\n', got 'How are we?\n'"], id="text"
        ),
        pytest.param(
            {"data": CONTENT + b"\r\n" + b"x" * 100},
            ["text:", "  from line 1 on, - expected, + got:", "    How are you?", "", f"  + {'x' * 100}"],
            id="long text",
        ),
        pytest.param(
            {"data": CONTENT.replace(b"Hello", b" Hello")},
            [
                rf"data: from octet 9 on: expected {CONTENT[:60]!r}, got b'Subject:  Hello\r\nX-Tag: a\r\nX-Tag: b\r\n\r\nHow are you?\r\n'"
            ],
            id="octets",
        ),
    ],
)  # fmt: skip
def test_messages_are_compared(fields: dict[str, Any], lines: list[str]) -> None:
    """Two messages differ in fields, and in what people see of their contents; if in nothing else, in octets."""
    assert compare_messages(make_message(**fields), make_message()) == lines


def test_attachments_are_compared() -> None:
    """Attachments are shown with their names and the beginning of what they contain."""
    head = b"Content-Type: application/pdf; name="
    [_, line] = compare_messages(make_message(head + b"a\r\n\r\nPDF"), make_message(head + b"b\r\n\r\n" + b"x" * 999))
    assert line == (
        f"attachments: expected [Attachment(name='b', type='application/pdf', content=b'{'x' * 60}…' (999 octets))], "
        "got [Attachment(name='a', type='application/pdf', content=b'PDF')]"
    )


def test_many_headers_are_not_all_named() -> None:
    """Of very many headers that differ, some are shown, and the others counted."""
    few, many = (b"".join(b"X-%d: %s\r\n" % (number, value) for number in range(100)) for value in (b"a", b"b"))
    lines = compare_messages(make_message(few), make_message(many))
    assert lines[0] == "headers['X-0']: expected 'b', got 'a'"
    assert lines[10:] == ["… and 90 more headers"]
