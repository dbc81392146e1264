"""Message: the envelope and the content as they were sent, and what derives from them."""

from __future__ import annotations

import dataclasses
import email.policy
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import Attachment, Lint, Message, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = b"Subject: Hello\r\n\r\nHow are you?\r\n"
DERIVED = ("email", "subject", "text", "html", "attachments", "links", "bcc", "lints")


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer() as server:
        yield server


@pytest.fixture
def client(server: RecordingServer) -> Iterator[smtplib.SMTP]:
    """Return a client of the running server."""
    with smtplib.SMTP(*server.address, local_hostname="client.example") as client:
        yield client


def make_message(data: bytes = PLAIN, **fields: Any) -> Message:
    """Return a message as a server would make it."""
    envelope = {"peer": ("127.0.0.1", 40000), "mailfrom": "ada@example.org", "rcpttos": ["bob@example.org"]}
    return Message(**{**envelope, "data": data, **fields})


def make_text(text: str, subtype: str = "plain") -> Message:
    """Return a message with this body."""
    content = EmailMessage(policy=email.policy.SMTP)
    content.set_content(text, subtype=subtype)
    return make_message(bytes(content))


def make_newsletter() -> EmailMessage:
    """Return an e-mail that has all that derived attributes look at."""
    content = EmailMessage(policy=email.policy.SMTP)
    content["Subject"] = "Grüße aus Köln"
    content["To"] = "Bob <bob@example.org>"
    content.set_content("Visit https://example.org/text.\n")
    content.add_alternative('<p>Visit <a href="https://example.org/html">us</a></p>\n', subtype="html")
    content.add_attachment(b"\x89PNG\0\r\n", maintype="image", subtype="png", filename="größe.png")
    content.add_attachment("a,b\r\n", subtype="csv")
    return content


# What was said in the session.


def test_fields_hold_what_the_client_said(server: RecordingServer, client: smtplib.SMTP) -> None:
    """All that smtplib says in a session is in the message, addresses and values as it spelt them."""
    before = datetime.now(UTC)
    assert client.sock is not None
    peer = client.sock.getsockname()
    client.sendmail("Ada@Example.ORG", ["bob@example.org", "eve@example.com"], PLAIN, ["body=8bitmime"])
    message = server.messages.one()
    assert message == Message(
        peer=peer,
        mailfrom="Ada@Example.ORG",
        rcpttos=["bob@example.org", "eve@example.com"],
        data=PLAIN,
        mail_options=[f"SIZE={len(PLAIN)}", "BODY=8bitmime"],
        rcpt_options=[[], []],
        helo="client.example",
        esmtp=True,
    )
    assert before <= message.received_at <= datetime.now(UTC)


@pytest.mark.parametrize(("verb", "esmtp"), [("helo", False), ("ehlo", True)])
def test_esmtp_says_how_the_client_greeted(
    server: RecordingServer, client: smtplib.SMTP, verb: str, *, esmtp: bool
) -> None:
    """`helo` is the name that the client gave, `esmtp` whether it gave it with EHLO."""
    getattr(client, verb)("other.example")
    client.sendmail("ada@example.org", "bob@example.org", PLAIN)
    message = server.messages.one()
    assert (message.helo, message.esmtp) == ("other.example", esmtp)


def test_null_reverse_path_is_empty(server: RecordingServer, client: smtplib.SMTP) -> None:
    """A bounce, sent from <>, has the mailfrom ""."""
    client.sendmail("", "bob@example.org", PLAIN)
    assert server.messages.one().mailfrom == ""


def test_recipients_are_kept_as_often_as_they_came(server: RecordingServer, client: smtplib.SMTP) -> None:
    """`rcpttos` has the accepted recipients in order, repetitions included, and refused ones not."""
    client.sendmail("ada@example.org", ["z@example.org", "ada@[nowhere]", "a@example.org", "z@example.org"], PLAIN)
    assert server.messages.one().rcpttos == ["z@example.org", "a@example.org", "z@example.org"]


def test_non_ascii_addresses_are_text(server: RecordingServer, client: smtplib.SMTP) -> None:
    """Addresses that came with SMTPUTF8 are in the message as text."""
    client.sendmail("päivi@example.org", ["jürgen@example.org"], PLAIN, ["SMTPUTF8"])
    message = server.messages.one()
    assert (message.mailfrom, message.rcpttos) == ("päivi@example.org", ["jürgen@example.org"])
    assert "SMTPUTF8" in message.mail_options


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b".\r\n..\r\n.hidden\r\n...\r\n", id="leading dots"),
        pytest.param(b"Subject: x\r\n\r\n\r\n\r\n", id="blank lines at the end"),
        pytest.param(b"\r\n", id="one blank line"),
        pytest.param(bytes(octet for octet in range(256) if octet not in b"\r\n") + b"\r\n", id="all octets"),
        pytest.param(b".. a line of a large message\r\n" * 50_000, id="large"),
    ],
)
def test_data_is_what_was_sent(server: RecordingServer, client: smtplib.SMTP, data: bytes) -> None:
    """The content arrives octet for octet: CRLF stays CRLF, and the dots that the client stuffed are gone."""
    client.sendmail("ada@example.org", "bob@example.org", data)
    assert server.messages.one().data == data


@pytest.mark.parametrize("line_end", [b"\n", b"\r"], ids=["LF", "CR"])
def test_data_keeps_bare_line_ends(server: RecordingServer, line_end: bytes) -> None:
    """Line ends that are no CRLF are kept as they came."""
    data = b"one" + line_end + b"two\r\n"
    with RawClient(server.address) as raw:
        send_raw(raw, data)
    assert server.messages.one().data == data


def send_raw(raw: RawClient, data: bytes) -> None:
    """Send content as it is."""
    raw.read_reply()
    for command in ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA"):
        raw.ask(command)
    raw.send(data + b".\r\n")
    assert raw.read_reply() == "250 2.0.0 OK"


# What derives from it.


def test_derived_attributes_of_a_real_email(server: RecordingServer, client: smtplib.SMTP) -> None:
    """Subject, bodies, attachments and links of a multipart e-mail are decoded."""
    client.send_message(make_newsletter(), "ada@example.org", ["bob@example.org", "eve@example.org"])
    message = server.messages.one()
    assert message.subject == "Grüße aus Köln"
    assert message.text.splitlines() == ["Visit https://example.org/text."]
    assert message.html.strip() == '<p>Visit <a href="https://example.org/html">us</a></p>'
    assert message.attachments == [
        Attachment(name="größe.png", type="image/png", content=b"\x89PNG\0\r\n"),
        Attachment(name="", type="text/csv", content=b"a,b\r\n"),
    ]
    assert message.links == ["https://example.org/text", "https://example.org/html"]
    assert message.bcc == ["eve@example.org"]


def test_email_is_the_parsed_content() -> None:
    """`email` is an EmailMessage with typed headers, parsed once."""
    message = make_message(b"To: Ada <ada@example.org>, bob@example.org\r\n\r\nHello\r\n")
    assert isinstance(message.email, EmailMessage)
    assert [address.addr_spec for address in message.email["to"].addresses] == ["ada@example.org", "bob@example.org"]
    assert message.email is message.email


def test_an_attached_email_has_content() -> None:
    """An e-mail that is attached to an e-mail is an attachment with its octets."""
    inner = EmailMessage()
    inner["Subject"] = "Inner"
    inner.set_content("Forwarded\n")
    outer = EmailMessage(policy=email.policy.SMTP)
    outer.set_content("See the attachment\n")
    outer.add_attachment(inner)
    attachment = make_message(bytes(outer)).attachments[0]
    assert attachment.type == "message/rfc822"
    assert b"Subject: Inner" in attachment.content
    assert b"Forwarded" in attachment.content


def test_inline_images_are_no_attachments() -> None:
    """What an HTML body shows itself is not among the attachments."""
    content = EmailMessage(policy=email.policy.SMTP)
    content.set_content("<img src='cid:logo'>", subtype="html")
    content.add_related(b"PNG", "image", "png", cid="<logo>")
    content.add_attachment(b"PDF", maintype="application", subtype="pdf", filename="a.pdf")
    message = make_message(bytes(content))
    assert [attachment.name for attachment in message.attachments] == ["a.pdf"]
    assert message.html.strip() == "<img src='cid:logo'>"


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        pytest.param(b"Subject: Hello\r\n", "Hello", id="plain"),
        pytest.param(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n", "Grüße", id="encoded words, Q"),
        pytest.param(b"Subject: =?iso-8859-1?b?R3L832U=?=\r\n", "Grüße", id="encoded words, B"),
        pytest.param("Subject: Grüße\r\n".encode(), "Grüße", id="UTF-8"),
        pytest.param(b"Subject: one\r\n two\r\n", "one two", id="folded"),
        pytest.param(b"X-Other: Hello\r\n", "", id="none"),
        pytest.param(b"Subject:\r\n", "", id="empty"),
    ],
)
def test_subject_is_decoded(header: bytes, subject: str) -> None:
    """The subject is the header's text, decoded and unfolded; "" without a header."""
    assert make_message(header + b"\r\n").subject == subject


@pytest.mark.parametrize(
    ("subtype", "text", "links"),
    [
        pytest.param("plain", "See https://example.org/a?b=c#d.", ["https://example.org/a?b=c#d"], id="full stop"),
        pytest.param("plain", "Look (at http://example.org/)!", ["http://example.org/"], id="in parentheses"),
        pytest.param("plain", "<https://example.org/a>", ["https://example.org/a"], id="in angle brackets"),
        pytest.param("plain", "https://b/ https://a/ https://b/", ["https://b/", "https://a/"], id="each once"),
        pytest.param("plain", "www.example.org, ftp://example.org/", [], id="nothing but http and https"),
        pytest.param("html", '<a class="x" href="https://a/?x=1&amp;y=2">a</a>', ["https://a/?x=1&y=2"], id="entities"),
        pytest.param("html", '<a name="here">https://a/</a><a href>b</a><img src="https://c/">', [], id="no links"),
        pytest.param("html", '<A HREF="https://a/"><a href="/b">', ["https://a/", "/b"], id="capitals, relative"),
    ],
)
def test_links_are_found(subtype: str, text: str, links: list[str]) -> None:
    """Links are the URLs in the text and what the HTML body's anchors lead to, each once, in order."""
    assert make_text(text, subtype).links == links


@pytest.mark.parametrize(
    ("headers", "bcc"),
    [
        pytest.param("", ["bob@example.org"], id="no headers"),
        pytest.param("To: bob@example.org", [], id="To"),
        pytest.param("To: eve@example.org\r\nCc: Bob <bob@example.org>", [], id="Cc"),
        pytest.param("Resent-To: bob@example.org", [], id="Resent-To"),
        pytest.param("To: eve@example.org\r\nTo: bob@example.org", [], id="second To"),
        pytest.param("To: team: bob@example.org, eve@example.org;", [], id="group"),
        pytest.param("To: bob@EXAMPLE.org", [], id="domain in capitals"),
        pytest.param("To: BOB@example.org", ["bob@example.org"], id="local part in capitals"),
        pytest.param("From: bob@example.org", ["bob@example.org"], id="From"),
        pytest.param('To: "Bob, the =?utf-8?q?gro=C3=9Fe?=" <bob@example.org>', [], id="encoded name"),
        pytest.param("To: <", ["bob@example.org"], id="malformed To"),
        pytest.param("To: =?utf-8?q?a?=@", ["bob@example.org"], id="malformed encoded word"),
    ],
)
def test_bcc_is_in_no_header(headers: str, bcc: list[str]) -> None:
    """Blind copies go to the recipients in the envelope whom no header names."""
    assert make_message(f"{headers}\r\n\r\nHello\r\n".encode()).bcc == bcc


def test_bcc_knows_utf_8_headers() -> None:
    """A recipient whom an internationalized header names in UTF-8 is no blind copy (RFC 6532 3.2)."""
    message = make_message("To: Jürgen <jürgen@example.org>\r\n\r\n".encode(), rcpttos=["jürgen@example.org"])
    assert message.bcc == []


def test_lints_tell_what_the_client_did_wrong(server: RecordingServer) -> None:
    """What was wrong in the envelope and what is wrong in the content is in `lints`, in this order."""
    with RawClient(server.address) as raw:
        raw.read_reply()
        for command in ("EHLO client.example", "MAIL FROM: <ada@example.org>", "RCPT TO:bob@example.org", "DATA"):
            raw.ask(command)
        raw.send(b"Subject: x\n\r\n.\r\n")
        raw.read_reply()
    message = server.messages.one()
    assert message.envelope_lints == (Lint.SPACE_BEFORE_PATH, Lint.NO_BRACKETS)
    assert message.lints == (Lint.SPACE_BEFORE_PATH, Lint.NO_BRACKETS, Lint.BARE_LF)


def test_content_lints_depend_on_mail_options() -> None:
    """Octets above 127 are wrong without BODY=8BITMIME, and more octets than SIZE announced with it."""
    data = "ü\r\n".encode()
    assert make_message(data).lints == (Lint.UNDECLARED_8BIT,)
    assert make_message(data, mail_options=["BODY=8BITMIME", "SIZE=3"]).lints == (Lint.SIZE_EXCEEDED,)


def test_smtplib_gives_no_lints(server: RecordingServer, client: smtplib.SMTP) -> None:
    """A client that follows the rules has no lints."""
    client.send_message(make_newsletter(), "ada@example.org", ["bob@example.org"])
    assert server.messages.one().lints == ()


# Whatever came.


def test_empty_data_has_nothing_in_it(server: RecordingServer) -> None:
    """A message without any content is a message: everything that derives from it is empty."""
    with RawClient(server.address) as raw:
        send_raw(raw, b"")
    message = server.messages.one()
    assert message.data == b""
    assert (message.subject, message.text.strip(), message.html, message.lints) == ("", "", "", ())
    assert (message.attachments, message.links) == ([], [])


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\xff\xfe no header\r\n", id="no header"),
        pytest.param(b'Subject: =?utf-8?b?\xff?=\r\nTo: "\r\nFrom: \xe9 <\r\nDate: x\r\n\r\n', id="bad headers"),
        pytest.param(b"To: <\r\nCc: =?utf-8?q?a?=@\r\n\r\n", id="bad addresses"),
        pytest.param(b"Content-Type: ;;;\r\nContent-Transfer-Encoding: \xff\r\n\r\nabc\r\n", id="bad content type"),
        pytest.param(b"Content-Transfer-Encoding: base64\r\n\r\n!!!=a\r\n", id="bad base64"),
        pytest.param(b"Content-Type: multipart/mixed\r\n\r\nabc\r\n", id="mixed without boundary"),
        pytest.param(b"Content-Type: multipart/related\r\n\r\nabc\r\n", id="related without boundary"),
        pytest.param(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nabc\r\n", id="unclosed"),
        pytest.param(b"Content-Type: text/html\r\n\r\n<![junk]><a href='\r\n", id="bad HTML"),
    ],
)
def test_malformed_mail_can_be_read(data: bytes, name: str) -> None:
    """However broken the content is, each derived attribute has a value, and the message can be printed."""
    message = make_message(data)
    assert getattr(message, name) is not None
    assert "ada@example.org" in str(message)


@pytest.mark.parametrize(
    "charset", ["x-klingon", "hex", "undefined", "idna", '"a\0b"'], ids=["unknown", "hex", "undefined", "idna", "NUL"]
)
def test_text_in_a_charset_that_cannot_be_decoded(charset: str) -> None:
    r"""Text in a charset that Python can't decode is read as ASCII, with \x escapes for the other octets."""
    data = f"Content-Type: text/plain; charset={charset}\r\n\r\ncaf".encode() + b"\xe9\r\n"
    assert make_message(data).text.rstrip() == r"caf\xe9"


def test_octets_that_the_charset_does_not_have_are_replaced() -> None:
    """Octets that are wrong in the declared charset do not cost the rest of the text."""
    data = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncaf\xe9 ol\xc3\xa9\r\n"
    assert make_message(data).text.rstrip() == "caf\N{REPLACEMENT CHARACTER} olé"


def test_links_before_broken_html_are_found() -> None:
    """HTML that can't be parsed to its end has the links that stand before."""
    assert make_text('<a href="https://example.org/">x</a><![junk]>', "html").links == ["https://example.org/"]


# A value.


@pytest.mark.parametrize("name", [*(field.name for field in dataclasses.fields(Message)), *DERIVED])
def test_messages_are_frozen(name: str) -> None:
    """No attribute of a message can be set."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(make_message(), name, "changed")


def test_the_time_makes_no_difference() -> None:
    """Messages are equal when all is equal but the time."""
    early, late = (make_message(received_at=datetime(2024, month, 1, tzinfo=UTC)) for month in (1, 2))
    assert early == late
    assert early != make_message(mailfrom="eve@example.org")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        pytest.param(make_message(), "from <ada@example.org> to <bob@example.org>: 'Hello'", id="usual"),
        pytest.param(
            make_message(b"\r\n", mailfrom="", rcpttos=["a@example.org", "b@example.org"]),
            "from <> to <a@example.org>, <b@example.org>: ''",
            id="bounce without a subject",
        ),
        pytest.param(
            make_message(b"Subject: " + b"x" * 61 + b"\r\n\r\n"),
            f"from <ada@example.org> to <bob@example.org>: '{'x' * 60}…'",
            id="long subject",
        ),
    ],
)
def test_str_is_one_line_that_tells_messages_apart(message: Message, line: str) -> None:
    """A message prints as its envelope and its subject, of which not more than 60 characters."""
    assert str(message) == line


def test_repr_has_the_envelope_and_not_the_content() -> None:
    """The repr of a message shows what was said in the session, and never the content, which may be huge."""
    shown = repr(make_message(b"Subject: secret\r\n\r\n", helo="client.example"))
    assert shown.startswith("Message(peer=('127.0.0.1', 40000), mailfrom='ada@example.org'")
    assert "client.example" in shown
    assert "secret" not in shown


# Mail that email's parser fails on.

HOSTILE = {
    "content type": b"Content-Type: )@;a*\r\n\r\nbody\r\n",
    "content type of brackets": b"Content-Type: " + b"(" * 2000 + b"\r\n\r\nbody\r\n",
    "disposition": b"Content-Disposition: >:<;a*\r\n\r\nbody\r\n",
    "encoded word in an address": b"To: =?utf-8?q?:;;)attachment*\r\n\r\nbody\r\n",
    "address": b'To: <\r\nCc: "\r\nSubject: =?utf-8?b?!?=\r\n\r\nbody\r\n',
    "parts in parts": b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (depth, depth) for depth in range(1500)
    ),
    "mail in mail": b"Content-Type: message/rfc822\r\n\r\n" * 1500,
    "URL and brackets": b"\r\nhttp://a" + b")" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_mail_can_be_looked_at(data: bytes) -> None:
    """Nothing that a client sends makes any attribute of its message raise, nor printing it."""
    message = Message(peer=("127.0.0.1", 40000), mailfrom="ada@example.org", rcpttos=["bob@example.org"], data=data)
    assert isinstance(message.subject, str)
    assert isinstance(message.text + message.html + "".join(message.links), str)
    assert isinstance(message.attachments, list)
    assert message.bcc == ["bob@example.org"]
    assert "ada@example.org" in str(message)
