"""MIME: parts sorted into bodies and attachments, read within bounds."""

from __future__ import annotations

import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd.testing.mime import MAX_DEPTH, MAX_PARTS, MAX_STRUCTURED_HEADER, Content, parse_email


def make_part(content_type: str, body: str = "", *more: str) -> bytes:
    """Return an e-mail, or a part of one."""
    return "\r\n".join([f"Content-Type: {content_type}", *more, "", body]).encode()


def make_multipart(subtype: str, *parts: bytes) -> bytes:
    """Return a multipart of these parts."""
    boundary = f"b{len(b''.join(parts))}"
    joined = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts)
    return make_part(f"multipart/{subtype}; boundary={boundary}") + joined + b"--%s--\r\n" % boundary.encode()


TEXT = make_part("text/plain", "text")
HTML = make_part("text/html", "html")
IMAGE = make_part("image/png", "PNG", "Content-ID: <logo>")
FILE = make_part("application/pdf", "PDF", 'Content-Disposition: attachment; filename="a.pdf"')


@pytest.mark.parametrize(
    ("data", "text", "html", "attached"),
    [
        pytest.param(TEXT, "text", "", [], id="text"),
        pytest.param(HTML, "", "html", [], id="HTML"),
        pytest.param(b"\r\ntext", "text", "", [], id="no type"),
        pytest.param(make_part("x", "text"), "text", "", [], id="bad type"),
        pytest.param(FILE, "", "", ["application/pdf"], id="file alone"),
        pytest.param(make_part("text/csv", "a,b"), "", "", ["text/csv"], id="other text alone"),
        pytest.param(make_multipart("alternative", TEXT, HTML), "text", "html", [], id="alternative"),
        pytest.param(
            make_multipart("mixed", make_multipart("mixed", TEXT, FILE), make_part("text/plain", "footer")),
            "text",
            "",
            ["application/pdf", "text/plain"],
            id="mixed in mixed",
        ),
        pytest.param(make_multipart("related", HTML, IMAGE, FILE), "", "html", ["application/pdf"], id="related"),
        pytest.param(
            make_multipart("alternative", TEXT, make_multipart("related", HTML, IMAGE)), "text", "html", [], id="logo"
        ),
        pytest.param(
            make_multipart("related", HTML, make_part("image/png", "PNG"), make_part("image/gif", "GIF", "Content-Location: x")),
            "",
            "html",
            ["image/png"],
            id="nothing refers to it",
        ),
        pytest.param(
            make_multipart("alternative", TEXT, make_part("text/calendar", "x")), "text", "", ["text/calendar"], id="invitation"
        ),
        pytest.param(
            make_multipart("mixed", make_part("text/plain", "x", "Content-Disposition: attachment"), TEXT),
            "text",
            "",
            ["text/plain"],
            id="attached text",
        ),
        pytest.param(make_multipart("mixed", TEXT, make_part("message/rfc822", "a: b")), "text", "", ["message/rfc822"], id="mail"),
        pytest.param(make_multipart("digest", b"\r\na: b\r\n\r\nc"), "", "", ["message/rfc822"], id="digest"),
        pytest.param(make_part("message/rfc822", "a: b"), "", "", ["message/rfc822"], id="nothing but mail"),
        pytest.param(make_part("multipart/mixed", "text"), "text", "", [], id="no boundary"),
        pytest.param(make_part("multipart/mixed; boundary=x", "text"), "text", "", [], id="no parts"),
        pytest.param(
            make_part("multipart/mixed; boundary=x", "--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext"),
            "text",
            "",
            [],
            id="a multipart in its own boundary",
        ),
        pytest.param(make_part("multipart/mixed; boundary=x", "--x\r\n\r\ntext"), "text", "", [], id="cut off"),
        pytest.param(make_part('multipart/mixed; boundary="(.*+[?"', "--(.*+[?\r\n\r\na\r\n--(.*+[?--"), "a", "", [], id="boundary"),
    ],
)  # fmt: skip
def test_parts_are_bodies_or_attached(data: bytes, text: str, html: str, attached: list[str]) -> None:
    """The first text and HTML are bodies, what HTML shows is neither, and all the rest is attached."""
    content = Content.read(data)
    assert (content.body("text/plain"), content.body("text/html")) == (text, html)
    assert [part.media_type for part in content.attached] == attached


def test_related_parts_begin_where_they_say() -> None:
    """What a multipart/related shows is its first part, or the one that `start` names (RFC 2387 3.2)."""
    page = make_part("text/html", "page", "Content-ID: <page>")
    data = make_multipart("related", IMAGE, page)
    assert [part.media_type for part in Content.read(data).attached] == ["image/png"]
    data = data.replace(b"multipart/related", b'multipart/related; start="<page>"', 1)
    assert Content.read(data).body("text/html") == "page"
    assert Content.read(data).attached == []


def test_attached_mail_is_what_was_sent() -> None:
    """The octets of an e-mail that is attached are those that were sent, and `parse_email` has it parsed as well."""
    inner = b"SUBJECT:  Inner\r\nTo: x\r\n\r\nHello\r\n.\r\n"
    data = make_multipart("mixed", TEXT, b"Content-Type: message/rfc822\r\n\r\n" + inner)
    assert Content.read(data).attached[0].octets == inner
    parsed = list(parse_email(data).iter_attachments())[0].get_content()  # noqa: RUF015 - there is one
    assert isinstance(parsed, EmailMessage)
    assert parsed["subject"] == "Inner"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ('Content-Disposition: attachment; filename="a b.pdf"', "a b.pdf"),
        ("Content-Disposition: attachment; filename*=utf-8''gr%C3%BCn.pdf", "grün.pdf"),
        ("Content-Disposition: attachment; filename==?utf-8?q?gr=C3=BCn?=.pdf", "grün.pdf"),
        ('Content-Type: a/b; name="c.pdf"', "c.pdf"),
        ("Content-Disposition: attachment", ""),
    ],
)
def test_file_names(headers: str, name: str) -> None:
    """The name of a file is in one of two headers, however it is encoded; "" if there is none."""
    assert parse_email(f"{headers}\r\n\r\n".encode()).file_name == name


@pytest.mark.parametrize(
    ("encoding", "sent", "octets"),
    [
        ("base64", b"SGVsbG8=", b"Hello"),
        ("BASE64", b"!SGVs bG8", b"Hello"),
        ("base64", b"!=a", b"!=a"),
        ("quoted-printable", b"=48el=\r\nlo=", b"Hello"),
        ("quoted-printable", b"=ZZ=", b"=ZZ"),
        ("x-uuencode", b"begin 644 a\r\n%2&5L;&\\\r\n`\r\nend\r\n", b"Hello"),
        ("x-uuencode", b"Hello", b"Hello"),
        ("8bit", b"\xe9\0", b"\xe9\0"),
        ("x-klingon", b"Hello", b"Hello"),
        ("\xff", b"Hello", b"Hello"),
    ],
)
def test_transfer_encodings_are_undone(encoding: str, sent: bytes, octets: bytes) -> None:
    """Transfer encodings are undone; what is not encoded so is taken as it stands."""
    data = f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode("latin-1") + sent
    assert parse_email(data).octets == octets


def test_email_has_typed_headers_and_lenient_parts() -> None:
    """What `parse_email` returns is an EmailMessage with all that `email` knows to do with one."""
    content = EmailMessage(policy=email.policy.SMTP)
    content["To"] = "Ada <ada@example.org>"
    content.set_content("Hällo\n")
    content.add_attachment(b"PNG", maintype="image", subtype="png", filename="größe.png")
    parsed = parse_email(bytes(content))
    assert parsed["to"].addresses[0].display_name == "Ada"
    assert [part.get_filename() for part in parsed.iter_attachments()] == ["größe.png"]
    body = parsed.get_body()
    assert body is not None
    assert (body.get_content(), body.get_content_charset()) == ("Hällo\r\n", "utf-8")
    assert bytes(parsed).splitlines() == bytes(content).splitlines()


def test_email_does_not_fail_where_email_would() -> None:
    """A charset that is none does not keep `email` from returning text."""
    parsed = parse_email(b"Content-Type: text/plain; charset=punycode\r\n\r\ncaf\xe9")
    assert parsed.get_content() == "caf\N{REPLACEMENT CHARACTER}"
    assert parsed.get_content_charset() is None


@pytest.mark.parametrize("name", ["Subject", "To", "Date", "Content-Type", "Content-Disposition", "X-Other"])
def test_headers_that_are_too_long_are_decoded_only(name: str) -> None:
    """A header beyond the bound is not taken apart, but decoded."""
    value = "=?utf-8?q?=C3=BC?= " + "a" * MAX_STRUCTURED_HEADER
    found = str(parse_email(f"{name}: {value}\r\n\r\n".encode())[name])
    assert found in {"ü " + "a" * MAX_STRUCTURED_HEADER, "text/plain", "attachment"}


@pytest.mark.parametrize(
    ("kind", "levels"), [("multipart/mixed; boundary=b{}", MAX_DEPTH), ("message/rfc822", MAX_DEPTH)]
)
def test_parts_are_nested_no_deeper_than_they_may(kind: str, levels: int) -> None:
    """Of 10,000 parts in parts those are there that the bound allows, and the headers in any case."""
    opening = "Subject: x\r\n" + "".join(
        f"Content-Type: {kind}\r\n\r\n--b{{}}\r\n".replace("{}", str(n)) for n in range(10_000)
    )
    if kind == "message/rfc822":
        opening = "Subject: x\r\n" + f"Content-Type: {kind}\r\n\r\n" * 10_000
    parsed = parse_email(opening.encode())
    assert parsed["subject"] == "x"
    assert sum(1 for _ in parsed.walk()) == levels + 1
    assert isinstance(Content.read(opening.encode()).attached, list)


@pytest.mark.parametrize(
    ("start", "part"), [("multipart/mixed; boundary=x", b"--x\r\n\r\n"), ("message/delivery-status", b"a: b\r\n\r\n")]
)
def test_there_are_no_more_parts_than_may_be(start: str, part: bytes) -> None:
    """Of very many parts, the first ones are there."""
    parsed = parse_email(make_part(start) + part * (MAX_PARTS + 100))
    assert sum(1 for _ in parsed.walk()) == MAX_PARTS + 1


SAMPLE = make_multipart(
    "mixed",
    make_multipart("alternative", TEXT, make_multipart("related", HTML, IMAGE)),
    FILE,
    make_part("message/rfc822", "Subject: x\r\n\r\nHello"),
    make_part("message/delivery-status", "a: b\r\n\r\nc: d\r\n"),
)


def test_mail_that_was_cut_off_can_be_read() -> None:
    """Wherever an e-mail is cut off, what is left of it can be read."""
    for end in range(len(SAMPLE)):
        content = Content.read(SAMPLE[:end])
        assert isinstance(content.body("text/plain") + content.body("text/html"), str)
        assert all(isinstance(part.octets, bytes) and isinstance(part.file_name, str) for part in content.attached)
        assert parse_email(SAMPLE[:end]).as_string() is not None


@given(st.lists(st.sampled_from(SAMPLE.splitlines(keepends=True)) | st.binary(max_size=20), max_size=40))
def test_any_mail_can_be_read(lines: list[bytes]) -> None:
    """Whatever lines of MIME come in whatever order, they can be read."""
    data = b"".join(lines)
    content = Content.read(data)
    assert isinstance(content.body("text/plain") + content.body("text/html"), str)
    assert all(isinstance(part.octets, bytes) and isinstance(part.file_name, str) for part in content.attached)
    assert list(parse_email(data).walk())
