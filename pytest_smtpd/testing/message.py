"""Message: the envelope, the content as it was sent, and what derives from it when somebody asks."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import BaseHeader, HeaderRegistry
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from email.policy import default as default_policy
from email.utils import getaddresses
from functools import cached_property
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_smtpd.protocol.content import content_lints
from pytest_smtpd.protocol.dsn import NotificationRequest, read_request
from pytest_smtpd.protocol.grammar import canonical_mailbox, parse_parameters

if TYPE_CHECKING:
    from pytest_smtpd.network.tls import TLSInfo
    from pytest_smtpd.protocol.lints import Lint
    from pytest_smtpd.protocol.sasl import Identity

    from .dialogue import Dialogue

_URL = re.compile(r"https?://[^\s<>\"'\[\]{}]+")
_RECIPIENT_HEADERS = ("to", "cc", "resent-to", "resent-cc")
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a message: its name ("" if it has none), media type such as "image/png", and content."""

    name: str
    type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message that the server took.

    What was said in the session is here as it was said; what derives from the content is computed when it
    is first asked for.
    """

    #: The client's address, (host, port, ...).
    peer: tuple[Any, ...]
    #: The reverse-path of MAIL, "" for the null one. Not the header From.
    mailfrom: str
    #: The forward-paths of all accepted RCPT commands in order, as often as they came. Not the header To.
    rcpttos: list[str]
    #: The content exactly as it was sent: CRLF kept, stuffed dots removed.
    data: bytes = field(repr=False)
    #: The parameters of MAIL, such as "BODY=8BITMIME", keywords in upper case.
    mail_options: list[str] = field(default_factory=list)
    #: The parameters of each RCPT, in the order of `rcpttos`.
    rcpt_options: list[list[str]] = field(default_factory=list)
    #: What the client called itself in HELO or EHLO.
    helo: str = ""
    #: Whether it said EHLO.
    esmtp: bool = True
    #: How the connection was encrypted: `version`, `cipher`, `peer_certificate` …; None: it was not.
    tls: TLSInfo | None = None
    #: As what the client had authenticated: `mechanism`, `user`, `authzid`, `password`; None: it had not.
    auth: Identity | None = None
    #: When the end of the content came.
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)
    #: What was said in the session; prints in RFC notation.
    dialogue: Dialogue | None = field(default=None, compare=False, repr=False)
    #: What the client did against the rules before the content; see `lints`.
    envelope_lints: tuple[Lint, ...] = field(default=(), repr=False)

    @cached_property
    def email(self) -> EmailMessage:
        """The parsed content."""
        try:
            return BytesParser(EmailMessage, policy=_POLICY).parsebytes(self.data)
        except RecursionError:  # parts in parts in parts: what can be read are the headers
            header_section = self.data.partition(b"\r\n\r\n")[0]
            message = BytesParser(EmailMessage, policy=_POLICY).parsebytes(header_section, headersonly=True)
            del message["Content-Type"]
            return message

    @property
    def subject(self) -> str:
        """The header Subject, decoded; "" if there is none."""
        return next(iter(self.get_headers("subject")), "")

    @cached_property
    def text(self) -> str:
        """The plain text body, decoded, line ends as LF; "" if there is none."""
        return self._body("plain")

    @cached_property
    def html(self) -> str:
        """The HTML body, decoded, line ends as LF; "" if there is none."""
        return self._body("html")

    @cached_property
    def attachments(self) -> list[Attachment]:
        """The attached files in order."""
        lone = not self.email.is_multipart() and self.email.get_content_maintype() != "text"
        parts = [self.email] if lone else self.email.iter_attachments()
        return [Attachment(part.get_filename() or "", part.get_content_type(), _octets(part)) for part in parts]

    @cached_property
    def links(self) -> list[str]:
        """The URLs in the text, and those that the HTML body links to, each once, in order."""
        finder = _LinkFinder()
        with contextlib.suppress(AssertionError):  # html.parser's way to say that it can't go on
            finder.feed(self.html)
        in_text = [_trim_url(url) for url in _URL.findall(self.text)]
        return list(dict.fromkeys([*in_text, *finder.links]))

    def get_headers(self, name: str) -> list[str]:
        """Return the decoded values of all headers of this name, in order; [] if there is none."""
        return [str(value) for value in self.email.get_all(name, [])]

    @cached_property
    def bcc(self) -> list[str]:
        """The recipients in the envelope that no header of the message names."""
        headers = [value for name in _RECIPIENT_HEADERS for value in self.get_headers(name)]
        named = {canonical_mailbox(address) for _, address in getaddresses(headers)}
        return [address for address in self.rcpttos if canonical_mailbox(address) not in named]

    @cached_property
    def dsn(self) -> NotificationRequest:
        """Which delivery status notifications the client asked for (RFC 3461)."""
        mail, *recipients = (parse_parameters(" ".join(options)) for options in (self.mail_options, *self.rcpt_options))
        return read_request(mail, recipients)

    @cached_property
    def lints(self) -> tuple[Lint, ...]:
        """What the client did against the rules and this server put up with, such as "bare-lf"."""
        parameters = parse_parameters(" ".join(self.mail_options))
        return (*self.envelope_lints, *content_lints(self.data, parameters))

    def __str__(self) -> str:
        """Return one line that tells the message from others."""
        subject = self.subject
        if len(subject) > _LONGEST_SHOWN:
            subject = f"{subject[:_LONGEST_SHOWN]}…"
        return f"from <{self.mailfrom}> to {', '.join(f'<{address}>' for address in self.rcpttos)}: {subject!r}"

    def _body(self, kind: str) -> str:
        part = self.email.get_body((kind,))
        if part is None:
            return ""
        try:
            return str(part.get_content()).replace("\r\n", "\n")
        except (LookupError, ValueError):  # a charset that nobody knows, or that decodes nothing
            return _octets(part).decode("ascii", "backslashreplace")


def _trim_url(url: str) -> str:
    """Cut off what ends the sentence, not the URL."""
    unopened = url.count(")") - url.count("(")
    end = len(url)
    while end and (url[end - 1] in ".,;:!?" or (url[end - 1] == ")" and unopened > 0)):
        unopened -= url[end - 1] == ")"
        end -= 1
    return url[:end]


def _octets(part: MIMEPart) -> bytes:
    """Return the content of a part with its transfer encoding undone; b"" for a multipart."""
    if part.get_content_type() == "message/rfc822" and part.is_multipart():
        return bytes(part.get_content())
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


class _PatientHeaders(HeaderRegistry):
    """Reads headers as email does, and those that it fails on as far as they can be read."""

    #: What stands for a header without which a message can't be looked into.
    _HARMLESS: ClassVar[dict[str, str]] = {"content-type": "text/plain", "content-disposition": "attachment"}

    def __call__(self, name: str, value: str) -> BaseHeader:
        """Return the header object."""
        harmless = self._HARMLESS.get(name.lower())
        for attempt in (value, value.partition(";")[0], harmless):
            # It raises whatever comes: IndexError, AttributeError, RecursionError …
            with contextlib.suppress(Exception):
                if attempt is not None:
                    return super().__call__(name, attempt)
        return HeaderRegistry(use_default_map=False)(name, value)


_POLICY = default_policy.clone(header_factory=_PatientHeaders())


class _LinkFinder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]
