"""Headers: a mapping of decoded values, and readers for those that have a structure."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd import Headers
from pytest_smtpd.testing.headers import (
    parse_addresses,
    parse_media_type,
    parse_parameters,
    parse_token,
    read_headers,
)
from pytest_smtpd.testing.mime import parse_email

HEADERS = Headers([("Subject", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="), ("X-Tag", "one"), ("To", "a"), ("x-tag", "two")])


def test_headers_are_a_mapping() -> None:
    """Headers have their first value under their name, in any case, and go in order, each name once."""
    assert HEADERS["subject"] == HEADERS["SUBJECT"] == "Grüße"
    assert dict(HEADERS) == {"Subject": "Grüße", "X-Tag": "one", "To": "a"}
    assert len(HEADERS) == 3
    assert HEADERS.get("from") is None
    with pytest.raises(KeyError):
        HEADERS["from"]


def test_membership_has_no_case() -> None:
    """A name is in the headers whatever its case; what is no name is not."""
    assert "x-TAG" in HEADERS
    assert "from" not in HEADERS
    anything: object = 1
    assert anything not in HEADERS


def test_all_values_of_a_name() -> None:
    """`get_all` returns each value of a header that came several times, in order, [] for none."""
    assert HEADERS.get_all("X-TAG") == ["one", "two"]
    assert HEADERS.get_all("subject") == ["Grüße"]
    assert HEADERS.get_all("from") == []


def test_repr_names_the_headers() -> None:
    """The repr shows which headers there are, and not all of very many."""
    assert repr(HEADERS) == "<Headers: Subject, X-Tag, To>"
    assert len(repr(Headers((f"X-{number}", "") for number in range(1000)))) < 100


@pytest.mark.parametrize(
    ("raw", "addresses"),
    [
        pytest.param("ada@example.org", ["ada@example.org"], id="bare"),
        pytest.param("Ada <ada@example.org>, bob@example.org", ["ada@example.org", "bob@example.org"], id="two"),
        pytest.param('"Bob, \\"<x@y>\\"" <bob@example.org>', ["bob@example.org"], id="quoted name"),
        pytest.param("team: a@b, c@d; e@f", ["a@b", "c@d", "e@f"], id="group"),
        pytest.param("undisclosed-recipients:;", [], id="empty group"),
        pytest.param("a@b (c, (d) <e@f>), g@h", ["a@b", "g@h"], id="nested comments"),
        pytest.param("a)@b", ["a@b"], id="closed and not opened"),
        pytest.param('"a, b"@c', ['"a, b"@c'], id="quoted local part"),
        pytest.param("a @ b", ["a@b"], id="spaces"),
        pytest.param("<@x,@y:a@b>", ["a@b"], id="source route"),
        pytest.param("A <>, b@c", ["A", "b@c"], id="empty brackets"),
        pytest.param("A <a@b, c@d", ["a@b", "c@d"], id="not closed"),
        pytest.param('"a', ['"a'], id="quote not closed"),
        pytest.param("a\\,b@c, d@e\\", ["a\\,b@c", "d@e\\"], id="backslashes"),
        pytest.param("J\udcc3\udcbcrgen <j\udcc3\udcbc@example.org>", ["jü@example.org"], id="UTF-8"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_addresses_are_found(raw: str, addresses: list[str]) -> None:
    """Addresses are found in what RFC 5322 allows; in what it doesn't, the harm stays where it is."""
    assert parse_addresses(raw) == addresses


@given(
    st.lists(
        st.tuples(
            st.text('abc "(),:;<>@\\', max_size=12),
            st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5})?@[a-z]{1,5}\.org", fullmatch=True),
        ),
        max_size=5,
    )
)
def test_addresses_that_were_formatted_are_found(pairs: list[tuple[str, str]]) -> None:
    """Whatever the names, `email.utils.formataddr` writes what the reader takes the addresses from."""
    value = ", ".join(email.utils.formataddr(pair) for pair in pairs)
    assert parse_addresses(value) == [address for _, address in pairs]


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        ("text/plain", "text/plain"),
        (' TEXT/Html;charset="x"', "text/html"),
        ("text/plain (comment)", "text/plain"),
        ("text", ""),
        ("", ""),
        (";;;", ""),
        ("/", ""),
    ],
)
def test_media_types_are_read(raw: str, media_type: str) -> None:
    """A media type is read in lower case, without what follows; "" for what is none."""
    assert parse_media_type(raw) == media_type


@pytest.mark.parametrize(("raw", "token"), [(" Attachment; filename=x", "attachment"), ("", ""), ("; x", "")])
def test_tokens_are_read(raw: str, token: str) -> None:
    """The token at the start of a header is read in lower case; "" where there is none."""
    assert parse_token(raw) == token


@pytest.mark.parametrize(
    ("raw", "parameters"),
    [
        pytest.param("a/b; charset=utf-8", {"charset": "utf-8"}, id="token"),
        pytest.param('a/b; NAME="a; b=\\"c\\""; d = e ', {"name": 'a; b="c"', "d": "e"}, id="quoted"),
        pytest.param("a/b; name=my file.pdf", {"name": "my file.pdf"}, id="spaces without quotes"),
        pytest.param('a/b; name="a', {"name": "a"}, id="not closed"),
        pytest.param("a/b; a=1; a=2", {"a": "1"}, id="the first counts"),
        pytest.param("a/b; name*=utf-8'de'gr%C3%BCn%2", {"name": "grün%2"}, id="RFC 2231"),
        pytest.param("a/b; name*=plain", {"name": "plain"}, id="RFC 2231 without a charset"),
        pytest.param("a/b; name*1=b; name*0=a; name*10=c", {"name": "abc"}, id="sections"),
        pytest.param("a/b; n*0*=latin1''%E9; n*1=%E9; n*2*=%E9", {"n": "é%E9é"}, id="encoded sections"),
        pytest.param("a/b; n*0=a%41; n*1*=%41", {"n": "a%41A"}, id="only the second one encoded"),
        pytest.param("a/b; n*=utf-8''x; n=y; n*0=z", {"n": "z"}, id="sections before others"),
        pytest.param("a/b; n=y; n*=utf-8''x", {"n": "y"}, id="the first spelling"),
        pytest.param("a/b; n*9999999=x; *=y; n**=z", {}, id="no sections"),
        pytest.param('a/b; name="=?utf-8?q?gr=C3=BCn?="', {"name": "grün"}, id="encoded word"),
        pytest.param('a/b; name="gr\udcc3\udcbcn"', {"name": "grün"}, id="UTF-8"),
        pytest.param("a/b;\r\n name=x", {"name": "x"}, id="folded"),
        pytest.param("a/b; ; =; x; y=", {"y": ""}, id="junk"),
    ],
)
def test_parameters_are_read(raw: str, parameters: dict[str, str]) -> None:
    """Parameters of MIME headers are decoded as RFC 2045 and RFC 2231 say, and as many senders write them."""
    assert parse_parameters(raw) == parameters


@given(st.binary().map(lambda octets: octets.decode("ascii", "surrogateescape")))
def test_any_header_is_read(raw: str) -> None:
    """Whatever octets a header has, its readers read it, and nothing that they return can't be encoded."""
    read = [*parse_addresses(raw), parse_media_type(raw), parse_token(raw), *parse_parameters(f"a/b; {raw}").values()]
    assert "".join(read).encode() is not None


# Reading them.

LINES = [
    b"Subject: a",
    b"subject:",
    b" b",
    b"\t",
    b": c",
    b"From ada",
    b"From: d",
    b"X\xff: \xfe",
    b"no header",
    b"\0: e",
    b"",
]
ENDS = [b"\r\n", b"\n", b"\r", b"\n\r", b""]


@given(st.lists(st.tuples(st.sampled_from(LINES) | st.binary(max_size=9), st.sampled_from(ENDS)), max_size=12))
def test_headers_are_read_as_email_reads_them(lines: list[tuple[bytes, bytes]]) -> None:
    """Whatever the content is, its headers are those that `email` finds in the whole of it."""
    data = b"".join(octets for line in lines for octets in line)
    headers = read_headers(data)
    whole = Headers(parse_email(data).raw_items())
    assert list(headers) == list(whole)
    assert [headers.get_raw(name) for name in headers] == [whole.get_raw(name) for name in whole]


@pytest.mark.parametrize(
    "structure",
    [
        b"multipart/mixed; boundary=x\r\n\r\n--x\r\nSubject: of a part\r\n\r\n--x--\r\n",
        b"message/rfc822\r\n\r\nSubject: of an e-mail in it\r\n\r\n",
        b"message/delivery-status\r\n\r\nSubject: of a report\r\n\r\n",
        b"text/plain\r\n",
    ],
)
def test_headers_of_parts_are_not_the_contents(structure: bytes) -> None:
    """What has a structure has its own headers, and not those of what is in it."""
    headers = read_headers(b"Subject: Own\r\nContent-Type: " + structure)
    assert (list(headers), headers.get_all("subject")) == (["Subject", "Content-Type"], ["Own"])
