"""What a client does that a server may put up with and the standard does not allow."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Lint(StrEnum):
    """A client-conformance note: accepted and noted by default, refused by a strict server.

    Each is a string, its name; `explanation` says what the client did and which rule forbids it.
    """

    explanation: str

    def __new__(cls, name: str, explanation: str) -> Self:
        """Make a member that is its name and carries its explanation."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.explanation = explanation
        return member

    EARLY_TALKER = "early-talker", "sent before it had read the greeting (RFC 5321 4.3.1)"
    BARE_LF_COMMAND = "bare-lf-command", "ended a command line with LF instead of CRLF (RFC 5321 2.3.8)"
    HELO_NAME = "helo-name", "introduced itself with something that is no domain or address literal (RFC 5321 4.1.2)"
    NOT_PIPELINING = "pipelining-not-offered", "sent commands ahead although PIPELINING was not offered (RFC 2920 3.1)"
    PIPELINED_LAST = (
        "pipelined-behind-last",
        "sent more behind a command that must be the last of a group (RFC 2920 3.1)",
    )
    PARAMETER_WITHOUT_EHLO = "parameter-without-ehlo", "used an ESMTP parameter after HELO (RFC 5321 2.2.1)"
    DUPLICATE_PARAMETER = "duplicate-parameter", "gave the same parameter twice (RFC 5321 4.1.1.11)"
    SPACE_BEFORE_PATH = "space-before-path", "put a space behind FROM: or TO: (RFC 5321 3.3)"
    NO_BRACKETS = "no-brackets", "gave an address without angle brackets (RFC 5321 4.1.2)"
    LOCAL_PART = "local-part", "gave a local part that is no dot-string: dots in the wrong place (RFC 5321 4.1.2)"
    DOMAIN = "domain", "gave a domain with characters or dots that domains do not have (RFC 5321 4.1.2)"
    NO_DOMAIN = "no-domain", "gave an address without a domain (RFC 5321 2.3.5)"
    TOO_LONG_PATH = "path-too-long", "gave a path that is longer than servers must take (RFC 5321 4.5.3.1)"
    RAW_UTF8_ADDRESS = "raw-utf8-address", "gave a non-ASCII address without the SMTPUTF8 parameter (RFC 6531 3.5)"
    LONG_INITIAL_RESPONSE = (
        "long-initial-response",
        "sent an initial response that is too long for the AUTH command line (RFC 4954 4)",
    )
    BARE_LF = (
        "bare-lf",
        "sent LF without CR in the content: use policy=email.policy.SMTP, or send_message() (RFC 5321 2.3.8)",
    )
    BARE_CR = "bare-cr", "sent CR without LF in the content (RFC 5321 2.3.8)"
    LONG_LINE = "long-line", "sent a content line of more than 998 octets and CRLF (RFC 5321 4.5.3.1.6)"
    UNDECLARED_8BIT = "undeclared-8bit", "sent octets above 127 without BODY=8BITMIME (RFC 6152 3)"
    SIZE_EXCEEDED = "size-exceeded", "sent more octets than its SIZE parameter had announced (RFC 1870 6.3)"
