"""Message: the envelope, the content as it was sent, and what derives from it when somebody asks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pytest_smtpd.protocol.content import content_lints
from pytest_smtpd.protocol.grammar import canonical_mailbox, parse_parameters

from .shown import format_envelope, show

if TYPE_CHECKING:
    import re
    from email.message import EmailMessage

    from pytest_smtpd.network.tls import TLSInfo
    from pytest_smtpd.protocol.lints import Lint
    from pytest_smtpd.protocol.notifications import NotificationRequest
    from pytest_smtpd.protocol.sasl import Identity
    from pytest_smtpd.protocol.state import RejectedRecipient

    from .attachment import Attachment
    from .dialogue import Dialogue
    from .headers import Headers
    from .links import Link
    from .mime import Content

#: A client's address: (host, port), with IPv6 (host, port, flow info, scope), of a Unix socket (path, 0).
Peer: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

_RECIPIENT_HEADERS = ("to", "cc", "resent-to", "resent-cc")


@dataclass(frozen=True, kw_only=True, repr=False)
class Message:
    """A message that the server took.

    What was said in the session is here as it was said; what derives from the content is computed when it
    is first asked for. Whatever the content is, nothing of it raises, and nothing takes longer than in
    proportion to its size.
    """

    #: The client's address, (host, port, ...).
    peer: Peer
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
    #: The recipients of the transaction that were refused, each with the `address` as given and the `reply`.
    rejected: list[RejectedRecipient] = field(default_factory=list)
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

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return a message with values for all fields: the constructor of a frozen dataclass takes five times as long."""
        message = object.__new__(cls)
        object.__setattr__(message, "__dict__", values)
        return message

    @cached_property
    def email(self) -> EmailMessage:
        """The parsed content, with parts nested up to 32 deep, and up to 10,000 of them."""
        from .mime import parse_email

        return parse_email(self.data)

    @cached_property
    def _content(self) -> Content:
        from .mime import Content

        return Content.read(self.data)

    @cached_property
    def headers(self) -> Headers:
        """The headers, decoded, by name: `message.headers["from"]`; `message.headers.get_all("received")`."""
        from .headers import read_headers

        return read_headers(self.data)

    @property
    def size(self) -> int:
        """How many octets the content has."""
        return len(self.data)

    @property
    def subject(self) -> str:
        """The header Subject, decoded; "" if there is none."""
        return self.headers.get("subject", "")

    @cached_property
    def text(self) -> str:
        """The plain text body, decoded, line ends as LF; "" if there is none."""
        return self._content.body("text/plain")

    @cached_property
    def html(self) -> str:
        """The HTML body, decoded, line ends as LF; "" if there is none."""
        return self._content.body("text/html")

    @cached_property
    def attachments(self) -> list[Attachment]:
        """The parts that are neither a body nor shown by the HTML itself, in order."""
        from .attachment import Attachment

        return [Attachment(part.file_name, part.media_type, part.octets) for part in self._content.attached]

    @cached_property
    def _shown_html(self) -> tuple[str, list[tuple[str, str]]]:
        """The text that the HTML shows, and its links."""
        from .markup import read_html

        return read_html(self.html)

    @cached_property
    def links(self) -> list[Link]:
        """The http and https URLs in the text, and whatever the HTML leads to, each once, in order.

        They are strings; what the HTML shows for a link is its `text`.
        """
        from .links import find_links

        return find_links(self.text, self._shown_html[1])

    def link(self, pattern: str | re.Pattern[str] = "") -> Link:
        """Return the only link that contains a string, or in which a compiled pattern is found.

        Raises AssertionError, which names all links, when there is none or more than one.
        """
        __tracebackhide__ = True
        from .links import choose_link

        return choose_link(self.links, pattern)

    def codes(self, pattern: str | re.Pattern[str] | None = None) -> list[str]:
        """Return the one-time codes in the text, or in what the HTML shows if there is no text, each once, in order.

        Codes are such as "482913", "123 456" and "X7K9-QP2M", alone on their line or in a sentence with a word
        such as code, PIN or password. If yours are others, give a regular expression: its first group is the
        code if it has one, else all that it matches.
        """
        from .codes import find_codes

        return find_codes(self.text if self.text.strip() else self._shown_html[0], pattern)

    @cached_property
    def bcc(self) -> list[str]:
        """The recipients in the envelope that no header of the message names."""
        from .headers import parse_addresses

        values = [value for name in _RECIPIENT_HEADERS for value in self.headers.get_raw(name)]
        named = {canonical_mailbox(address) for value in values for address in parse_addresses(value)}
        return [address for address in self.rcpttos if canonical_mailbox(address) not in named]

    @cached_property
    def dsn(self) -> NotificationRequest:
        """Which delivery status notifications the client asked for (RFC 3461)."""
        from pytest_smtpd.protocol.notifications import read_request

        mail, *recipients = (parse_parameters(" ".join(options)) for options in (self.mail_options, *self.rcpt_options))
        return read_request(mail, recipients)

    @cached_property
    def lints(self) -> tuple[Lint, ...]:
        """What the client did against the rules and this server put up with, such as "bare-lf"."""
        parameters = parse_parameters(" ".join(self.mail_options))
        return (*self.envelope_lints, *content_lints(self.data, parameters))

    def __hash__(self) -> int:
        """Hash what can't be changed: equal messages have equal hashes, so that sets may have them."""
        return hash((self.mailfrom, self.data))

    def __str__(self) -> str:
        """Return one line that tells the message from others."""
        return f"{format_envelope(self.mailfrom, self.rcpttos)}: {show(self.subject)}"

    def __repr__(self) -> str:
        """Return what was said in the session, long values cut, and not the content."""
        fields = [(each.name, getattr(self, each.name)) for each in dataclasses.fields(self) if each.repr]
        return f"Message({', '.join(f'{name}={show(value)}' for name, value in fields)})"
