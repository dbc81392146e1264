"""Expectations: what a criterion may be compared with, and how that prints."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from dirty_equals import IsStr

from pytest_smtpd.testing.expectations import check_expected, show_expected


class Text(str):
    """A string of somebody else's, as web frameworks have them."""

    __slots__ = ()


class Colour(StrEnum):
    """Strings by name."""

    RED = "red"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("subject", "x"),
        ("subject", Text("x")),
        ("subject", Colour.RED),
        ("subject", re.compile("x")),
        ("subject", str.isupper),
        ("subject", IsStr()),
        ("subject", IsStr),
        ("data", b"x"),
        ("data", bytearray(b"x")),
        ("data", re.compile(b"x")),
        ("esmtp", True),
        ("mailfrom", ""),
        ("rcpttos", "postmaster"),
        ("rcpttos", []),
        ("rcpttos", ["a@b.example", re.compile("x"), IsStr()]),
        ("rcpttos", '"<a,b>"@example.org'),
        ("rcpttos", lambda rcpttos: rcpttos),
        ("tls", None),
        ("peer", ("127.0.0.1", 25)),
        ("links", []),
        ("headers", MappingProxyType({"To": "x"})),
        ("received_at", 5),
    ],
)
def test_what_may_match_passes(name: str, expected: Any) -> None:
    """Values of the attribute's type, patterns, functions and objects of other types may be asked for."""
    check_expected(name, expected)


@pytest.mark.parametrize(
    ("name", "expected", "text"),
    [
        ("data", "text", "data is compared with bytes, a pattern of bytes or a function, not with 'text'"),
        ("data", re.compile("x"), "data is compared with bytes, a pattern of bytes or a function, not with /x/"),
        ("subject", b"x", "subject is compared with a string, a pattern or a function, not with b'x'"),
        ("subject", re.compile(b"x"), "subject is compared with a string, a pattern or a function, not with /b'x'/"),
        ("subject", None, "subject is compared with a string, a pattern or a function, not with None"),
        ("subject", str, "subject is compared with a string, a pattern or a function, not with str"),
        ("mailfrom", ["a@b.example"], "mailfrom is compared with a string, a pattern or a function, not with "),
        ("rcpttos", 5, "rcpttos is compared with an address, a list or tuple of addresses, a pattern or a function, "),
        ("rcpttos", {"a@b.example"}, "rcpttos is compared with an address, a list or tuple of addresses"),
        ("rcpttos", ["a@b.example", 5], "rcpttos: an address is a string, a pattern or a function, not 5"),
        ("rcpttos", [["a@b.example"]], "rcpttos: an address is a string, a pattern or a function, not ['a@b.example']"),
        ("esmtp", 1, "esmtp is compared with True or False, not with 1"),
        ("tls", True, "tls is compared with None, or a function such as lambda tls: tls is not None, not with True"),
        ("auth", "ada", "auth is compared with None, or a function such as lambda auth: auth.user == 'ada', not with "),
        ("received_at", str, "received_at is compared with a value, a pattern or a function, not with str"),
        ("headers", ["To"], "headers= takes a dict of names and values, not ['To']"),
        ("headers", "To: x", "headers= takes a dict of names and values, not 'To: x'"),
        ("headers", None, "headers= takes a dict of names and values, not None"),
        ("headers", {"To": 5}, "headers= compares each name with a string, a pattern or a function, not 'To' with 5"),
        ("headers", {5: "x"}, "headers= compares each name with a string, a pattern or a function, not 5 with 'x'"),
    ],
)
def test_what_can_never_match_is_a_type_error(name: str, expected: Any, text: str) -> None:
    """A value of a type that no message has raises TypeError, which names the criterion and what it may be."""
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
        check_expected(name, expected)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("Ada <ada@example.org>", "'ada@example.org'"),
        ("<ada@example.org>", "'ada@example.org'"),
        ("ada@example.org, bob@example.org", "['ada@example.org', 'bob@example.org']"),
    ],
)
@pytest.mark.parametrize("name", ["rcpttos", "mailfrom"])
def test_the_form_of_a_header_is_a_value_error(name: str, address: str, meant: str) -> None:
    """An address with a name or in brackets, and several in one string, are errors that tell what is meant."""
    with pytest.raises(ValueError, match="addresses only") as caught:
        check_expected(name, address)
    assert str(caught.value) == f"{name} has addresses only, as in the envelope: {meant} instead of {address!r}"


def is_welcome(subject: str) -> bool:
    """Tell a welcome."""
    return subject == "Welcome"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", "'x'"),
        ("x" * 300, f"'{'x' * 200}…'"),
        (re.compile("^x"), "/^x/"),
        (re.compile("\x1b"), r"/\x1b/"),
        (re.compile(b"x"), "/b'x'/"),
        ([re.compile("x"), "y"], "[/x/, 'y']"),
        (("x",), "('x',)"),
        ((), "()"),
        (["x"] * 12, "['x', 'x', 'x', 'x', 'x', … 7 more]"),
        ({"To": is_welcome}, "{'To': is_welcome}"),
        (is_welcome, "is_welcome"),
        (partial(is_welcome, "x"), "partial(is_welcome, …)"),
        (partial(partial, print), "partial(partial, …)"),
        (str.isupper, "str.isupper"),
        (int, "int"),
        (5, "5"),
    ],
)
def test_values_print_as_people_write_them(value: Any, shown: str) -> None:
    """Patterns stand in slashes, functions by their names, and what is long is cut."""
    assert show_expected(value) == shown


def test_a_lambda_prints_as_where_it_is() -> None:
    """A lambda, whose name says nothing, prints with its file and line."""
    assert re.fullmatch(r"<lambda at test_expectations\.py:[0-9]+>", show_expected(lambda subject: subject))
