"""The envelope of a message that is handed on, and what of it the next hop can take."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.events import Refusal
from pytest_smtpd.protocol.grammar import declared_body, format_parameters, parse_mailbox
from pytest_smtpd.protocol.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_smtpd.protocol.grammar import Parameters
    from pytest_smtpd.protocol.mail import Content
    from pytest_smtpd.protocol.state import Settings

#: What a relay offers only where the next hop does, as it is the next hop that does it.
PASSED_ON = frozenset({"8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES"})

# RFC 6531 3.5; RFC 6152 3 (a relay that converts nothing treats it as a permanent error); RFC 3030 3.
NO_SMTPUTF8 = Reply(550, "Error: the next hop does not offer SMTPUTF8", "5.6.7")
NO_8BITMIME = Reply(554, "Error: the next hop does not offer 8BITMIME, and nothing is converted", "5.6.3")
NO_BINARYMIME = Reply(554, "Error: the next hop does not offer BINARYMIME, and nothing is converted", "5.6.3")
NO_DSN = Reply(555, "Error: the next hop does not offer DSN", "5.5.4")
UNDECLARED_UTF8 = Reply(553, "Error: the address needs SMTPUTF8", "5.6.7")

#: The parameters that DSN brings (RFC 3461 4).
DSN_PARAMETERS = frozenset({"RET", "ENVID", "NOTIFY", "ORCPT"})


@dataclass(frozen=True, slots=True)
class Features:
    """What a server offers: the keywords of its extensions, and the octets a message may have, 0 for any number."""

    keywords: frozenset[str] = frozenset()
    size: int = 0


#: While nobody knows what the next hop offers: nothing must be converted or returned for want of an extension.
EVERYTHING = Features(PASSED_ON)


def offer(settings: Settings, features: Features, growth: int) -> Settings:
    """Return the settings of a session whose messages go to a server with these features, and grow by so much."""
    limits = [settings.data_size_limit, max(features.size - growth, 1) if features.size else 0]
    limit = min(filter(None, limits), default=0)
    hidden = PASSED_ON - features.keywords
    hidden |= set() if limit else {"SIZE"}
    return replace(settings, data_size_limit=limit, extensions=extensions.without(hidden))


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward-path and its parameters."""

    mailbox: str
    parameters: Parameters = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """From whom a message is, and for whom, with parameters as the client gave them."""

    mailfrom: str
    parameters: Parameters = ()
    recipients: tuple[Recipient, ...] = field(default=())

    @classmethod
    def of(cls, content: Content) -> Self:
        """Return the envelope of a message that was received."""
        transaction = content.transaction
        paths = zip(transaction.forward_paths, transaction.forward_parameters, strict=True)
        recipients = tuple(Recipient(path.mailbox, parameters) for path, parameters in paths)
        return cls(transaction.reverse_path.mailbox, transaction.parameters, recipients)

    def to(self, recipients: Iterable[Recipient]) -> Self:
        """Return the envelope with other recipients."""
        return replace(self, recipients=tuple(recipients))

    def addressed(self, mailfrom: str, rcpttos: Iterable[str]) -> Self:
        """Return the envelope as somebody has changed it; recipients that were there keep their parameters.

        Raises ValueError for an address that is none.
        """
        rcpttos = [rcpttos] if isinstance(rcpttos, str) else list(rcpttos)
        if mailfrom == self.mailfrom and rcpttos == [recipient.mailbox for recipient in self.recipients]:
            return self
        known = {recipient.mailbox: recipient for recipient in self.recipients}
        recipients = (known.get(mailbox) or Recipient(parse_mailbox(mailbox).mailbox) for mailbox in rcpttos)
        return replace(self, mailfrom=parse_mailbox(mailfrom).mailbox, recipients=tuple(recipients))

    def without(self, *keywords: str) -> Self:
        """Return the envelope without these parameters."""
        recipients = (replace(each, parameters=_drop(each.parameters, keywords)) for each in self.recipients)
        return replace(self, parameters=_drop(self.parameters, keywords), recipients=tuple(recipients))

    def mail_command(self, features: Features, growth: int) -> str:
        """Return the MAIL command for a server with these features; raises Refusal where it has not enough.

        A declared SIZE grows by so many octets.
        """
        declared = dict(self.parameters)
        if "SMTPUTF8" in declared and "SMTPUTF8" not in features.keywords:
            raise Refusal(NO_SMTPUTF8)
        body = declared_body(self.parameters)
        if body == "8BITMIME" and "8BITMIME" not in features.keywords:
            raise Refusal(NO_8BITMIME)
        if body == "BINARYMIME" and not {"BINARYMIME", "CHUNKING"} <= features.keywords:
            raise Refusal(NO_BINARYMIME)
        self._check_ascii(self.mailfrom)
        passed_on: list[tuple[str, str | None]] = []
        for keyword, value in self.parameters:
            if keyword == "SIZE" and value is not None:
                passed_on += [(keyword, str(int(value) + growth))] if "SIZE" in features.keywords else []
            elif keyword != "BODY" or "8BITMIME" in features.keywords:  # without, 7BIT goes without saying
                passed_on.append((keyword, value))
        return _command(f"MAIL FROM:<{self.mailfrom}>", tuple(passed_on), features)

    def rcpt_command(self, recipient: Recipient, features: Features) -> str:
        """Return the RCPT command for a server with these features; raises Refusal where it has not enough."""
        self._check_ascii(recipient.mailbox)
        return _command(f"RCPT TO:<{recipient.mailbox}>", recipient.parameters, features)

    def _check_ascii(self, mailbox: str) -> None:
        """Refuse what many clients send raw, and no relay may pass on (RFC 6531 3.5)."""
        if not mailbox.isascii() and "SMTPUTF8" not in dict(self.parameters):
            raise Refusal(UNDECLARED_UTF8)


def _drop(parameters: Parameters, keywords: tuple[str, ...]) -> Parameters:
    return tuple((keyword, value) for keyword, value in parameters if keyword not in keywords)


def _command(command: str, parameters: Parameters, features: Features) -> str:
    if "DSN" not in features.keywords and DSN_PARAMETERS & dict(parameters).keys():
        # What asks for a report when the message is relayed can't be dropped in silence (RFC 3461 5.2.2).
        raise Refusal(NO_DSN)
    # Once each: smtplib sends SMTPUTF8 twice when it is in mail_options, too.
    return " ".join([command, *format_parameters(tuple(dict.fromkeys(parameters)))])
