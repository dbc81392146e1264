"""What a failure shows: values cut, and no control characters."""

from __future__ import annotations

import pytest

from pytest_smtpd.testing.shown import shorten, show


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Grüße", "Grüße", id="short"),
        pytest.param("x" * 60, "x" * 60, id="as long as may be"),
        pytest.param("x" * 61, "x" * 60 + "…", id="longer"),
        pytest.param("a\x1b[31m\x07b\u202e\n", r"a\x1b[31m\x07b\u202e\n", id="control characters"),
        pytest.param("\udcff it's", r"\udcff it's", id="lone surrogate"),
    ],
)
def test_texts_are_cut_and_escaped(text: str, shown: str) -> None:
    """A text is shown up to a length, and what is not printable in it as an escape sequence."""
    assert shorten(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("a\n", r"'a\n'", id="text"),
        pytest.param("x" * 61, "'" + "x" * 60 + "…'", id="long text"),
        pytest.param(b"\0" * 61, "b'" + r"\x00" * 60 + "…'", id="long octets"),
        pytest.param([], "[]", id="empty list"),
        pytest.param(("a",), "('a',)", id="tuple of one"),
        pytest.param(("a", 1), "('a', 1)", id="tuple"),
        pytest.param([["x" * 61]], "[['" + "x" * 60 + "…']]", id="in lists"),
        pytest.param([1, 2, 3, 4, 5, 6, 7], "[1, 2, 3, 4, 5, … 2 more]", id="long list"),
        pytest.param(None, "None", id="anything"),
    ],
)
def test_values_are_shown_as_their_repr_cut(value: object, shown: str) -> None:
    """A value is shown as its repr; of long texts, octets and lists the beginning."""
    assert show(value) == shown
