"""Criteria: which messages match, and why the others don't."""

from __future__ import annotations

import dataclasses
import email.policy
import inspect
import itertools
import operator
import re
from email.message import EmailMessage
from functools import partial
from typing import Any
from unittest.mock import ANY

import pytest
from dirty_equals import Contains, IsBytes, IsList, IsStr
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_smtpd import Lint, Message
from pytest_smtpd.testing.criteria import Criteria


def make_content() -> bytes:
    """Return an e-mail with two bodies and two attachments."""
    content = EmailMessage(policy=email.policy.SMTP)
    content["Subject"] = "Welcome, Ada"
    content["To"] = "ada@example.org"
    content["X-Tag"] = "first"
    content["X-Tag"] = "second"
    content.set_content("Only in the text\n")
    content.add_alternative("<p>Only in the HTML</p>\n", subtype="html")
    content.add_attachment(b"PDF", maintype="application", subtype="pdf", filename="invoice.pdf")
    content.add_attachment(b"PNG", maintype="image", subtype="png", filename="logo.png")
    return bytes(content)


MESSAGE = Message(
    peer=("127.0.0.1", 40000),
    mailfrom="noreply@example.org",
    rcpttos=["ada@example.org", "bob@example.org"],
    data=make_content(),
    helo="client.example",
)


def to(*rcpttos: str) -> Message:
    """Return the message, sent to these recipients."""
    return dataclasses.replace(MESSAGE, rcpttos=list(rcpttos))


MATCHING: dict[str, dict[str, Any]] = {
    "nothing asked": {},
    "equal": {"subject": "Welcome, Ada"},
    "equal, not text": {"esmtp": True, "lints": (), "mail_options": []},
    "pattern is searched": {"subject": re.compile("come.*Ada$")},
    "pattern of bytes": {"data": re.compile(rb"(?m)^X-Tag: second\r$")},
    "pattern in what is no text": {"peer": re.compile(r"127\.0\.0\.1")},
    "callable is asked": {"subject": lambda subject: subject.isprintable()},
    "callable gets the attribute": {"rcpttos": lambda rcpttos: len(rcpttos) == 2},
    "callable may return anything": {"data": len},
    "all of several": {"subject": "Welcome, Ada", "mailfrom": "noreply@example.org", "helo": "client.example"},
    "mailfrom": {"mailfrom": "noreply@example.org"},
    "mailfrom, domain in capitals": {"mailfrom": "noreply@EXAMPLE.Org"},
    "mailfrom, needlessly quoted": {"mailfrom": '"noreply"@example.org'},
    "mailfrom, pattern": {"mailfrom": re.compile("^noreply@")},
    "mailfrom, callable": {"mailfrom": lambda mailfrom: mailfrom.endswith(".org")},
    "recipient": {"rcpttos": "bob@example.org"},
    "recipient, domain in capitals": {"rcpttos": "bob@EXAMPLE.ORG"},
    "recipient, pattern": {"rcpttos": re.compile("^bob")},
    "recipients in order": {"rcpttos": ("ada@example.org", "bob@EXAMPLE.org")},
    "recipients in any order": {"rcpttos": ["bob@example.org", '"ada"@example.org']},
    "recipients in any order, patterns": {"rcpttos": [re.compile("@"), re.compile("ada")]},
    "recipients in any order, a pattern and an address": {"rcpttos": [re.compile("@"), "ada@example.org"]},
    "recipients in order, patterns": {"rcpttos": (re.compile("ada"), re.compile("bob"))},
    "body, in the text": {"body": "Only in the text"},
    "body, in the HTML": {"body": "Only in the HTML"},
    "body, pattern": {"body": re.compile("<p>.*</p>")},
    "body, callable": {"body": lambda body: body.startswith("Only")},
    "header": {"headers": {"subject": "Welcome, Ada"}},
    "header that came twice": {"headers": {"X-Tag": "second"}},
    "headers, pattern and callable": {"headers": {"To": re.compile("ada"), "x-tag": str.islower}},
    "no headers": {"headers": {}},
    "attachment": {"attachment": "logo.png"},
    "attachment, pattern": {"attachment": re.compile(r"\.pdf$")},
    "attachment, callable": {"attachment": lambda name: name.startswith("inv")},
    "links": {"links": []},
    "bcc": {"bcc": ["bob@example.org"]},
}

DIFFERING: dict[str, dict[str, Any]] = {
    "subject": {"subject": "Welcome"},
    "subject in capitals": {"subject": "WELCOME, ADA"},
    "pattern": {"subject": re.compile("^Ada")},
    "callable": {"subject": lambda subject: subject == ""},
    "one of several": {"subject": "Welcome, Ada", "helo": "other.example"},
    "mailfrom, local part in capitals": {"mailfrom": "NoReply@example.org"},
    "mailfrom, part of it": {"mailfrom": "noreply"},
    "mailfrom, null": {"mailfrom": ""},
    "recipient, none of them": {"rcpttos": "eve@example.org"},
    "recipient, part of one": {"rcpttos": "ada"},
    "recipient, pattern": {"rcpttos": re.compile("^eve")},
    "recipients, one missing": {"rcpttos": ["ada@example.org"]},
    "recipients, one too many": {"rcpttos": ["ada@example.org", "bob@example.org", "eve@example.org"]},
    "recipients, patterns for one of them": {"rcpttos": [re.compile("ada"), re.compile("^ada")]},
    "recipients, a pattern too many": {"rcpttos": [re.compile("@"), re.compile("@"), re.compile("@")]},
    "recipients, a pattern and another one": {"rcpttos": [re.compile("@"), "eve@example.org"]},
    "recipients, one twice": {"rcpttos": ["ada@example.org", "ada@example.org"]},
    "recipients, other order": {"rcpttos": ("bob@example.org", "ada@example.org")},
    "recipients in order, one missing": {"rcpttos": ("ada@example.org",)},
    "body": {"body": "Neither here nor there"},
    "body, pattern": {"body": re.compile("neither")},
    "header, value": {"headers": {"Subject": "Welcome"}},
    "header, missing": {"headers": {"Reply-To": "ada@example.org"}},
    "headers, one of them": {"headers": {"Subject": "Welcome, Ada", "X-Tag": "third"}},
    "attachment": {"attachment": "photo.png"},
}


@pytest.mark.parametrize("criteria", MATCHING.values(), ids=MATCHING)
def test_a_message_that_meets_all_criteria_matches(criteria: dict[str, Any]) -> None:
    """A message matches when it meets each criterion, and then there is nothing to explain."""
    assert Criteria(criteria).match(MESSAGE)
    assert Criteria(criteria).explain(MESSAGE) == []


@pytest.mark.parametrize("criteria", DIFFERING.values(), ids=DIFFERING)
def test_a_message_that_misses_a_criterion_does_not_match(criteria: dict[str, Any]) -> None:
    """A message that misses a criterion does not match, and there is one line that says why."""
    assert not Criteria(criteria).match(MESSAGE)
    assert len(Criteria(criteria).explain(MESSAGE)) == 1


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("ada@Example.ORG", True),
        ('"ada"@example.org', True),
        (r'"\a\d\a"@example.org', True),
        ("Ada@example.org", False),
        ("ada@example.com", False),
        ("ada", False),
        ("ada+tag@example.org", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("kind", [str, list, tuple], ids=["scalar", "list", "tuple"])
def test_recipients_are_compared_as_mailboxes(address: str, kind: type, *, same: bool) -> None:
    """The case of a domain and needless quotes make no other mailbox; that of the local part does (RFC 5321 2.4)."""
    expected = address if kind is str else kind([address])
    assert Criteria({"rcpttos": expected}).match(to("ada@example.org")) is same


@pytest.mark.parametrize("address", ['"ada lovelace"@example.org', r'"ada\ lovelace"@EXAMPLE.org'])
def test_quoted_local_parts_are_compared_by_their_meaning(address: str) -> None:
    """A local part that needs its quotes is the same whichever characters are escaped in it."""
    assert Criteria({"rcpttos": address}).match(to('"ada lovelace"@example.org'))


def test_a_list_counts_repetitions() -> None:
    """A list names each recipient as often as it came."""
    twice = to("ada@example.org", "ada@example.org", "bob@example.org")
    assert Criteria({"rcpttos": ["bob@example.org", "ada@example.org", "ada@example.org"]}).match(twice)
    assert not Criteria({"rcpttos": ["bob@example.org", "ada@example.org"]}).match(twice)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("subjekt", "did you mean subject?"),
        ("rcpttto", "did you mean rcpttos?"),
        ("mail_from", "did you mean mailfrom?"),
        ("header", "did you mean headers?"),
        ("attachement", "did you mean attachment?"),
        ("to", "did you mean rcpttos, or headers={'To': …}?"),
        ("recipients", "did you mean rcpttos?"),
        ("sender", "did you mean mailfrom?"),
        ("from_", "did you mean mailfrom, or headers={'From': …}?"),
    ],
)
def test_a_misspelt_name_gets_the_right_one(name: str, hint: str) -> None:
    """A name that is nearly a criterion raises TypeError, which suggests that one."""
    with pytest.raises(TypeError, match=f"^{name} is no criterion for messages: {re.escape(hint)}$"):
        Criteria({name: "x"})


def test_an_unknown_name_gets_the_list_of_names() -> None:
    """A name that is like no criterion raises TypeError, which lists all names."""
    with pytest.raises(TypeError, match=r"^zzz is no criterion for messages: there are ") as caught:
        Criteria({"zzz": "x"})
    names = str(caught.value).partition("there are ")[2].split(", ")
    assert names == sorted(names)
    assert {"attachment", "body", "headers", "links", "mailfrom", "rcpttos", "subject"} <= set(names)


def test_every_public_attribute_of_a_message_is_a_criterion() -> None:
    """Whatever can be read from a message can be asked for."""
    names = [name for name in dir(MESSAGE) if not name.startswith("_") and not inspect.ismethod(getattr(MESSAGE, name))]
    assert "subject" in names
    for name in names:
        assert Criteria({name: getattr(MESSAGE, name)}).match(MESSAGE)


MATCHERS: dict[str, tuple[dict[str, Any], bool]] = {
    "a matcher": ({"subject": IsStr(regex="Welcome.*")}, True),
    "a matcher that differs": ({"subject": IsStr(regex="Goodbye.*")}, False),
    "a matcher's class": ({"subject": IsStr}, True),
    "anything": ({"subject": ANY, "rcpttos": ANY, "headers": {"To": ANY}}, True),
    "a header that must be there": ({"headers": {"Cc": ANY}}, False),
    "a matcher for a list": ({"rcpttos": Contains("bob@example.org")}, True),
    "a matcher for a whole list": ({"rcpttos": IsList(IsStr(), IsStr())}, True),
    "a matcher for the length of a list": ({"rcpttos": IsList(length=3)}, False),
    "matchers in a list": ({"rcpttos": [IsStr(regex="bob.*"), "ada@EXAMPLE.org"]}, True),
    "matchers in a list, that want the same": ({"rcpttos": [IsStr(regex="bob.*"), "bob@example.org"]}, False),
    "matchers in a tuple": ({"rcpttos": ("ada@EXAMPLE.org", IsStr(regex="bob.*"))}, True),
    "matchers of headers": ({"headers": {"To": IsStr(regex="ada.*"), "X-Tag": IsStr(max_length=5)}}, True),
    "a matcher for octets": ({"data": IsBytes()}, True),
}


@pytest.mark.parametrize(("criteria", "met"), MATCHERS.values(), ids=MATCHERS)
def test_objects_that_are_made_to_be_compared_decide(criteria: dict[str, Any], *, met: bool) -> None:
    """Objects of dirty-equals and `unittest.mock.ANY` may stand wherever a value may."""
    assert Criteria(criteria).match(MESSAGE) is met


def test_a_matcher_prints_as_it_was_written() -> None:
    """A criterion prints as it did before it was compared: an object of dirty-equals prints what it has met."""
    criteria = Criteria({"subject": IsStr(regex="Welcome.*")})
    assert criteria.match(MESSAGE)
    assert str(criteria) == "subject=IsStr(regex='Welcome.*')"


def test_the_exception_of_a_function_names_the_criterion() -> None:
    """What a function raises says in a note for which criterion, and for which message, it was asked."""

    def is_urgent(subject: str) -> bool:
        return subject.urgent  # type: ignore[attr-defined, no-any-return] # the point of the test

    with pytest.raises(AttributeError, match="urgent") as caught:
        Criteria({"subject": is_urgent}).match(MESSAGE)
    assert caught.value.__notes__ == [f"raised by the criterion subject=is_urgent, for the message {MESSAGE}"]


def test_a_thousand_patterns_find_their_recipients() -> None:
    """However many recipients and patterns there are, and whoever has to make room, each gets its own."""
    many = to(*(f"{number}@example.org" for number in range(300)))
    anybody = re.compile("@")
    ordered = [re.compile(f"^{number}@") for number in range(150)]
    assert Criteria({"rcpttos": [anybody] * 150 + ordered}).match(many)
    assert not Criteria({"rcpttos": [anybody] * 150 + [*ordered[:-1], ordered[0]]}).match(many)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ada@a.example", "ada@A.example", '"ada"@a.example', "bob@a.example"]),
            st.sampled_from(["ada@a.EXAMPLE", "bob@a.example", *map(re.compile, ["ada@", "A", '"', "bob", "@a"])]),
        ),
        max_size=5,
    )
)
@example([("ada@A.example", re.compile("A")), ("ada@a.example", "ada@a.example")])
@example([("ada@A.example", "ada@a.example"), ("ada@a.example", re.compile("A"))])
@example([("ada@A.example", "ada@a.example"), ("ada@a.example", re.compile("ada")), ("bob@x", re.compile("ada"))])
def test_recipients_in_any_order_are_those_in_some_order(pairs: list[tuple[str, Any]]) -> None:
    """A list matches if some order of it does as a tuple, however the mailboxes are spelt."""
    found, expected = [address for address, _ in pairs], [value for _, value in pairs]
    in_some_order = any(Criteria({"rcpttos": order}).match(to(*found)) for order in itertools.permutations(expected))
    assert Criteria({"rcpttos": expected}).match(to(*found)) == in_some_order


@pytest.mark.parametrize(
    ("criteria", "lines"),
    [
        pytest.param(
            {"subject": "Goodbye", "helo": "client.example", "mailfrom": "ada@example.org"},
            [
                "subject: expected 'Goodbye', got 'Welcome, Ada'",
                "mailfrom: expected 'ada@example.org', got 'noreply@example.org'",
            ],
            id="only what differs, in the order asked",
        ),
        pytest.param(
            {"rcpttos": "eve@example.org"},
            ["rcpttos: expected 'eve@example.org', got ['ada@example.org', 'bob@example.org']"],
            id="all recipients",
        ),
        pytest.param(
            {"attachment": "a.txt"}, ["attachment: expected 'a.txt', got ['invoice.pdf', 'logo.png']"], id="attachments"
        ),
        pytest.param(
            {"headers": {"x-tag": "third", "Reply-To": re.compile("ada")}},
            [
                "headers['x-tag']: expected 'third', got ['first', 'second']",
                "headers['Reply-To']: expected /ada/, got none",
            ],
            id="a line for each header",
        ),
        pytest.param(
            {"subject": re.compile("^Ada")}, ["subject: expected /^Ada/, got 'Welcome, Ada'"], id="patterns in slashes"
        ),
        pytest.param({"lints": (Lint.BARE_LF,)}, ["lints: expected ('bare-lf',), got ()"], id="strings"),
        pytest.param(
            {"helo": lambda helo: helo == ""},
            ["helo: expected <lambda at test_criteria.py>, got 'client.example'"],
            id="where a lambda is",
        ),
        pytest.param({"helo": str.isupper}, ["helo: expected str.isupper, got 'client.example'"], id="a method"),
        pytest.param(
            {"helo": partial(operator.eq, "x")}, ["helo: expected partial(eq, …), got 'client.example'"], id="a partial"
        ),
        pytest.param(
            {"text": "Only in the test\nand here\n"},
            [
                "text: from line 1 on, - expected, + got:",
                "  - Only in the test",
                "  - and here",
                "  + Only in the text",
            ],
            id="a diff of texts",
        ),
        pytest.param(
            {"rcpttos": [f"{number}@example.org" for number in range(1000)]},
            [
                f"rcpttos: missing: {', '.join(repr(f'{number}@example.org') for number in range(10))}, … 990 more",
                "  unexpected: 'ada@example.org', 'bob@example.org'",
            ],
            id="many recipients",
        ),
    ],
)
def test_explain_says_what_was_expected_and_what_came(criteria: dict[str, Any], lines: list[str]) -> None:
    """There is a line for each criterion that the message misses: what was expected and what it has."""
    # Where a lambda is depends on what is written here.
    found = [re.sub(r"(?<=test_criteria\.py):[0-9]+", "", line) for line in Criteria(criteria).explain(MESSAGE)]
    assert found == lines


def test_explain_shows_recipients_as_a_list_even_if_there_is_one() -> None:
    """A single recipient is shown as the list that it is."""
    lines = Criteria({"rcpttos": "eve@example.org"}).explain(to("ada@example.org"))
    assert lines == ["rcpttos: expected 'eve@example.org', got ['ada@example.org']"]


def test_explain_of_body_shows_text_and_html() -> None:
    """For `body`, both bodies are shown."""
    (line,) = Criteria({"body": "absent"}).explain(MESSAGE)
    assert line == ("body: expected 'absent' in it, got text 'Only in the text\\n', HTML '<p>Only in the HTML</p>\\n'")
    empty = dataclasses.replace(MESSAGE, data=b"")
    assert Criteria({"body": "absent"}).explain(empty) == ["body: expected 'absent' in it, got none"]


def test_criteria_print_as_keyword_arguments() -> None:
    """Criteria print as they were written; none print as nothing, and are false."""
    criteria = Criteria({"subject": "Hello", "mailfrom": re.compile("^ada")})
    assert str(criteria) == "subject='Hello', mailfrom=/^ada/"
    assert criteria
    assert (str(Criteria({})), bool(Criteria({}))) == ("", False)


@pytest.mark.parametrize("value", ["<", "=?utf-8?q?a?=@", '"'])
def test_a_header_that_cannot_be_parsed_is_compared_as_it_came(value: str) -> None:
    """A malformed address header neither matches nor breaks the search: it is compared as it was written."""
    message = dataclasses.replace(MESSAGE, data=f"To: {value}\r\n\r\n".encode())
    criteria = Criteria({"headers": {"To": "ada@example.org"}})
    assert not criteria.match(message)
    assert criteria.explain(message)[0].startswith("headers['To']: expected 'ada@example.org', got ")
