"""Charsets and encoded words: octets become text, whatever they are."""

from __future__ import annotations

import encodings
import pkgutil
import random
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd.testing.charsets import decode_header, decode_octets, find_charset

CODECS = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        pytest.param(b"caf\xe9", "iso-8859-1", "café", id="as declared"),
        pytest.param(b"caf\xe9", " ISO-8859-1 ", "café", id="capitals and spaces"),
        pytest.param(b"caf\xc3\xa9", "", "café", id="not declared"),
        pytest.param(b"caf\xc3\xa9", "us-ascii", "café", id="declared as ASCII"),
        pytest.param(b"caf\xe9", "utf-8", "caf\N{REPLACEMENT CHARACTER}", id="wrong octets"),
        pytest.param(b"caf\xe9", "x-klingon", r"caf\xe9", id="unknown"),
        pytest.param(b"caf\xe9", "a\0b", r"caf\xe9", id="NUL in the name"),
        pytest.param(b"caf\xe9", "x" * 1000, r"caf\xe9", id="long name"),
        pytest.param(b"+2AA-", "utf-7", "\N{REPLACEMENT CHARACTER}", id="lone surrogate"),
    ],
)
def test_octets_are_decoded(octets: bytes, charset: str, text: str) -> None:
    r"""Octets are decoded as declared, without a declaration as UTF-8; what can't be is replaced or escaped."""
    assert decode_octets(octets, charset) == text


@pytest.mark.parametrize(
    "name", ["idna", "punycode", "unicode_escape", "raw-unicode-escape", "undefined", "base64", "zip", "rot13", "../x"]
)
def test_codecs_that_are_no_charsets_are_not_used(name: str) -> None:
    """Codecs of Python's that are none for text, or take long, or warn, are no charsets."""
    assert find_charset(name) == ""


@pytest.mark.parametrize("codec", CODECS)
def test_no_codec_raises_or_warns(codec: str) -> None:
    """Whichever of Python's codecs is declared, any octets become a text that can be encoded again."""
    octets = random.Random(codec).randbytes(2000) + b"\\q \\ud800 +2AA-"  # noqa: S311 - any octets
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_octets(octets, codec).encode()


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param("Hello", "Hello", id="plain"),
        pytest.param(" a\r\n b\n\tc ", "a b\tc", id="folded"),
        pytest.param("=?utf-8?q?Gr=C3=BC=C3=9Fe_!?=", "Grüße !", id="Q"),
        pytest.param("=?ISO-8859-1?B?R3L832U=?=", "Grüße", id="B"),
        pytest.param("=?utf-8*de?q?a?=", "a", id="with a language"),
        pytest.param("Re: =?utf-8?q?a?= b", "Re: a b", id="spaces around"),
        pytest.param("=?utf-8?q?a?= \r\n =?utf-8?q?b?=", "ab", id="no space between two"),
        pytest.param("=?utf-8?q?a?= =?latin1?q?b?= c =?utf-8?q?d?=", "ab c d", id="several charsets"),
        pytest.param("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü", id="a character in two words"),
        pytest.param("=?utf-8?b?w7w?=", "ü", id="no padding"),
        pytest.param("=?utf-8?b?w*7w!=?=", "ü", id="junk in B"),
        pytest.param("=?utf-8?b?YWFhY?=", "aaa", id="one digit too many"),
        pytest.param("=?utf-8?q?=ZZ=?=", "=ZZ", id="no hexadecimal digits"),
        pytest.param("=?utf-8?q??=", "", id="empty"),
        pytest.param("=?x-klingon?q?=E9?=", r"\xe9", id="unknown charset"),
        pytest.param("=?utf-8?x?a?= =?utf-8?q?a", "=?utf-8?x?a?= =?utf-8?q?a", id="none"),
        pytest.param("Gr\udcc3\udcbc\udcc3\udc9fe", "Grüße", id="UTF-8"),
        pytest.param("\udce9", "\N{REPLACEMENT CHARACTER}", id="not UTF-8"),
    ],
)
def test_headers_are_decoded(raw: str, value: str) -> None:
    """A header's value is unfolded, its encoded words decoded, and octets that are none of theirs read as UTF-8."""
    assert decode_header(raw) == value


@given(st.binary().map(lambda octets: octets.decode("ascii", "surrogateescape")), st.sampled_from("qQbB"))
def test_any_header_is_decoded(raw: str, encoding: str) -> None:
    """Whatever octets a header has, alone or in an encoded word, it becomes a text that can be encoded."""
    assert decode_header(raw).encode() is not None
    assert decode_header(f"=?utf-8?{encoding}?{raw}?= =?a?q?{raw}?=").encode() is not None
