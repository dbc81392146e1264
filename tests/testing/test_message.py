"""Message: the envelope and the content as they were sent, and what derives from them."""

from __future__ import annotations

import dataclasses
import email.policy
import re
import smtplib
import subprocess
import sys
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import Attachment, Lint, Message, RecordingServer, RejectedRecipient, Reply
from pytest_smtpd.testing.channel import RecordingChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = b"Subject: Hello\r\n\r\nHow are you?\r\n"
DERIVED = ("email", "headers", "subject", "text", "html", "attachments", "links", "bcc", "lints")


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


def test_headers_are_decoded() -> None:
    """`headers` is a mapping of what people read, whatever the case of a name."""
    message = make_message(bytes(make_newsletter()))
    assert message.headers["SUBJECT"] == "Grüße aus Köln"
    assert message.headers["to"] == "Bob <bob@example.org>"
    assert message.headers.get_all("received") == []
    assert list(message.headers)[:2] == ["Subject", "To"]


def test_link_is_the_one_that_matches() -> None:
    """`link` returns the only link that matches, with what the HTML shows for it, and fails when it isn't one."""
    message = make_message(bytes(make_newsletter()))
    link = message.link("/html")
    assert (link, link.text) == ("https://example.org/html", "us")
    assert message.link(re.compile("text$")) == "https://example.org/text"
    with pytest.raises(AssertionError, match=r"^expected one link with 'example', found 2\n.*\n.*/text'\n.*/html'"):
        message.link("example")
    with pytest.raises(AssertionError, match="found 2"):
        message.link()


@pytest.mark.parametrize("subtype", ["plain", "html"])
def test_codes_are_found_in_the_body(subtype: str) -> None:
    """`codes` are found in the text, and in what the HTML shows if there is no text."""
    message = make_text("<p>Your code is 123 456.</p>", subtype)
    assert message.codes() == ["123 456"]
    assert message.codes(r"\d+$|is (\d+)") == ["123"]


def test_codes_in_markup_are_none() -> None:
    """What the HTML does not show is no code, and where there is a text the HTML is not asked."""
    html = "<style>#code { color: 123456 }</style><p data-code='123456'>Code 4829</p>"
    assert make_text(html, "html").codes() == ["4829"]
    content = EmailMessage(policy=email.policy.SMTP)
    content.set_content("Your code is 1111\n")
    content.add_alternative("<p>Your code is 2222</p>", subtype="html")
    assert make_message(bytes(content)).codes() == ["1111"]


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


@pytest.mark.parametrize(("options", "names"), [({}, ["logo.png"]), ({"disposition": "inline"}, [])], ids=str)
def test_what_is_marked_as_attachment_is_one(options: dict[str, Any], names: list[str]) -> None:
    """An image with a file name, which Python marks so where nothing else is said, is an attachment, though HTML shows it."""
    content = EmailMessage(policy=email.policy.SMTP)
    content.set_content("<img src='cid:logo'>", subtype="html")
    content.add_related(b"PNG", "image", "png", cid="<logo>", filename="logo.png", **options)
    assert [attachment.name for attachment in make_message(bytes(content)).attachments] == names


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
        pytest.param(
            make_message(b"Subject: a\x1b[1m\0\xff\r\n\r\n", mailfrom="\x9b1m@x", rcpttos=["\u202e@x"]),
            r"from <\x9b1m@x> to <\u202e@x>: 'a\x1b[1m\x00�'",
            id="control characters",
        ),
        pytest.param(
            make_message(rcpttos=[f"{number}@x" for number in range(1000)], mailfrom="x" * 300),
            f"from <{'x' * 256}…> to <0@x>, <1@x>, <2@x>, <3@x>, <4@x>, 995 more: 'Hello'",
            id="many recipients",
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


def test_repr_is_short() -> None:
    """Whatever the envelope and the attachments are, their repr is short and without control characters."""
    many = [f"{number}@{'x' * 1000}\x9b" for number in range(1000)]
    message = make_message(
        b"Content-Type: a/b\r\n\r\n" + b"\0" * 10_000, rcpttos=many, mailfrom="x" * 10_000, helo="\x1b"
    )
    assert len(repr(message)) < 1500
    assert len(repr(message.attachments)) < 400
    assert "(10000 octets)" in repr(message.attachments)
    assert (repr(message) + repr(message.attachments)).isprintable()


def test_messages_can_be_in_sets() -> None:
    """Equal messages have equal hashes, so that sets and dictionaries can have them."""
    assert {make_message(), make_message()} == {make_message()}
    assert len({make_message(), make_message(mailfrom="eve@example.org"), make_message(b"")}) == 3


def test_what_is_not_looked_at_costs_nothing() -> None:
    """The recording server is imported without `email` and `html`, which only looking into a message needs."""
    code = (
        "import sys; before = set(sys.modules); import pytest_smtpd.testing.recording;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} & {'email', 'html', 'quopri'})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert ran.stdout.split() == []


# Refused recipients.


def test_rejected_recipients_are_kept_with_the_replies(client: smtplib.SMTP, server: RecordingServer) -> None:
    """`rejected` has who was refused, as the client wrote it, and with what; for a message without, it is empty."""
    client.ehlo()
    client.mail("ada@example.org")
    for arguments in ("TO:<ada@[nowhere]>", "to: x@", "TO:<bob@example.org>", "TO:<>", "who"):
        client.docmd("RCPT", arguments)
    client.data(PLAIN)
    client.sendmail("ada@example.org", ["bob@example.org"], PLAIN)
    first, second = server.messages
    assert [(each.address, each.reply.code) for each in first.rejected] == [
        *(("ada@[nowhere]", 501), ("x@", 501), ("", 501), ("who", 501))
    ]
    assert second.rejected == []
    assert first != dataclasses.replace(first, rejected=[])


def test_recipients_that_lmtp_refuses_are_rejected() -> None:
    """In LMTP, a recipient whom the reply after the content refuses is rejected, as one whom RCPT refuses."""

    class Mailboxes(RecordingServer):
        def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> str | None:
            return "452 4.2.2 Mailbox full" if rcpttos == ["full@x"] else None

    with Mailboxes(protocol="lmtp") as server, RawClient(server.address) as raw:
        raw.read_reply()
        for command in (
            "LHLO x",
            "MAIL FROM:<a@x>",
            "RCPT TO:<a@x>",
            "RCPT TO:<full@x>",
            "RCPT TO:<>",
            "RCPT TO:<b@x>",
        ):
            raw.ask(command)
        raw.ask("DATA")
        raw.send(PLAIN + b".\r\n")
        assert [raw.read_reply()[:3] for _ in range(3)] == ["250", "452", "250"]
        message = server.messages.one()
    assert message.rcpttos == ["a@x", "b@x"]
    assert [(each.address, str(each.reply)) for each in message.rejected] == [
        ("", "501 5.1.3 Syntax: RCPT TO: <address> [SP <mail-parameters>]"),
        ("full@x", "452 4.2.2 Mailbox full"),
    ]


def test_recipients_that_a_subclass_refuses_are_rejected() -> None:
    """Whoever answers RCPT with a refusal, the recipient is among the rejected ones; with a retry, among both."""

    class Greylisting(RecordingServer):
        class channel_class(RecordingChannel):  # noqa: N801 - smtpd's name
            seen = False

            def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - smtpd's name
                if self.seen:
                    super().smtp_RCPT(arg)
                else:
                    self.push("450 4.7.1 Greylisted")
                self.seen = True

    with Greylisting() as server, RawClient(server.address) as raw:
        raw.read_reply()
        for command in ("EHLO x", "MAIL FROM:<a@x>", "RCPT TO:<b@x>", "RCPT TO:<b@x>", "DATA"):
            raw.ask(command)
        raw.send(PLAIN + b".\r\n")
        raw.read_reply()
        message = server.messages.one()
    assert message.rcpttos == ["b@x"]
    assert message.rejected == [RejectedRecipient("b@x", Reply(450, "4.7.1 Greylisted"))]


def test_of_very_many_rejected_recipients_some_are_kept() -> None:
    """No client fills the memory with recipients that are refused."""
    with RecordingServer() as server, RawClient(server.address) as raw:
        raw.read_reply()
        for command in ("EHLO x", "MAIL FROM:<a@x>", "RCPT TO:<b@x>"):
            raw.ask(command)
        raw.send(b"RCPT TO:<>\r\n" * 1100)
        assert {raw.read_reply()[:3] for _ in range(1100)} == {"501"}
        raw.ask("DATA")
        raw.send(PLAIN + b".\r\n")
        raw.read_reply()
        assert len(server.messages.one().rejected) == 1000


def test_recipients_above_the_limit_are_rejected() -> None:
    """Recipients beyond `max_recipients` are among the rejected ones, with the 452."""
    with RecordingServer(max_recipients=1) as server, smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", ["a@x", "b@x", "c@x"], PLAIN)
        message = server.messages.one()
    assert message.rcpttos == ["a@x"]
    assert [(each.address, each.reply.code, each.reply.enhanced) for each in message.rejected] == [
        ("b@x", 452, "4.5.3"),
        ("c@x", 452, "4.5.3"),
    ]


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
