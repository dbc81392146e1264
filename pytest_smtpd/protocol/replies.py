"""Replies as values: a three-digit code, lines of text, an enhanced status code (RFC 5321 4.2, RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

#: RFC 5321 4.5.3.1.5: a reply line, code and CRLF included, has 512 octets at most.
MAX_REPLY_LINE = 512

#: From this code on replies ask for more, and from that one on they are negative: 4yz transiently, 5yz permanently
#: (RFC 5321 4.2.1).
INTERMEDIATE, NEGATIVE = 300, 400

#: The code that closes the connection, whatever it answers (RFC 5321 3.8).
SERVICE_NOT_AVAILABLE = 421

#: The code of a SASL challenge, and the octets that it may have (RFC 4954 4).
CHALLENGE, MAX_CHALLENGE = 334, 12_288 - 6

#: From this code on negative replies are permanent, 5yz.
PERMANENT = 500

#: What is left of a line beside "250-", "5.123.123 " and CRLF.
_MAX_TEXT = MAX_REPLY_LINE - 4 - 10 - 2

#: A line of a reply: code, mark, text.
REPLY_LINE = r"(?s)([2-5][0-9]{2})(?:([ -])(.*))?"
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |\Z)")


@dataclass(frozen=True)
class Reply:
    """An SMTP reply.

    `code` is from 200 to 599; `text` may have several lines, parted by a line feed; `enhanced` is an
    enhanced status code of RFC 3463 such as "5.1.1", sent only where ENHANCEDSTATUSCODES is offered; `utf8`
    allows more than ASCII, to a client that has asked for it (RFC 6531 3.7.4.2).
    """

    code: int
    text: str = ""
    enhanced: str = ""
    utf8: bool = False
    #: Whether it is a positive completion reply, 2yz (RFC 5321 4.2.1).
    is_positive: bool = field(init=False, repr=False, compare=False)
    #: Whether it is a positive intermediate reply, 3yz: the server waits for more.
    is_intermediate: bool = field(init=False, repr=False, compare=False)
    #: Whether it is a transient or permanent negative reply, 4yz or 5yz.
    is_negative: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check, and derive what is asked with each command."""
        if not 200 <= self.code <= 599:  # noqa: PLR2004
            msg = f"an SMTP reply code is from 200 to 599, not {self.code}"
            raise ValueError(msg)
        if self.enhanced and not _ENHANCED.fullmatch(self.enhanced):
            msg = f"an enhanced status code looks like 5.1.1, not {self.enhanced!r} (RFC 3463 2)"
            raise ValueError(msg)
        if self.enhanced and self.enhanced[0] != str(self.code)[0]:
            msg = f"the enhanced status code {self.enhanced} contradicts the reply code {self.code} (RFC 2034 4)"
            raise ValueError(msg)
        if self.utf8:
            self.text.encode()  # now, where it was written, and not when it is sent
        vars(self).update(
            is_positive=self.code < INTERMEDIATE,
            is_intermediate=INTERMEDIATE <= self.code < NEGATIVE,
            is_negative=self.code >= NEGATIVE,
        )

    @cached_property
    def wire(self) -> tuple[bytes, bytes]:
        """The octets on the wire, without and with enhanced status codes; see `to_bytes`."""
        # Made when it is first sent, as most replies never are. A challenge is one line, which may be longer than
        # others (RFC 4954 4).
        width = MAX_CHALLENGE if self.code == CHALLENGE else _MAX_TEXT
        lines = _fold(self.text, width, utf8=self.utf8)
        return _format(self.code, lines), _format(self.code, self._preface(lines))

    def _preface(self, lines: list[str]) -> list[str]:
        """Put the enhanced status code before each line that has none of its own (RFC 2034 4)."""
        if self.is_intermediate:
            return lines
        own = _ENHANCED.match(lines[0])
        enhanced = own[0] if own else self.enhanced or f"{self.code // 100}.0.0"
        return [line if _ENHANCED.match(line) else f"{enhanced} {line}".rstrip() for line in lines]

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Read a reply as it is sent: "550 No such user", or "250-one\r\n250 two".

        Raises ValueError when it is none: no code, or lines whose codes differ.
        """
        matches = [re.fullmatch(REPLY_LINE, line) for line in text.splitlines() or [""]]
        codes = {match[1] for match in matches if match}
        well_formed = [match for match in matches if match and (match[2] == "-" or match is matches[-1])]
        if len(codes) != 1 or len(well_formed) != len(matches) or matches[-1] is None or matches[-1][2] == "-":
            msg = f"{text!r} is no SMTP reply: it must look like '550 No such user' (RFC 5321 4.2)"
            raise ValueError(msg)
        return cls(int(codes.pop()), "\n".join(match[3] or "" for match in well_formed))

    def to_bytes(self, *, enhanced: bool = False) -> bytes:
        """Return the octets on the wire; with `enhanced`, each line of a 2yz, 4yz or 5yz has a status code."""
        return self.wire[enhanced]

    @property
    def is_permanent(self) -> bool:
        """Whether it is a permanent negative reply, 5yz."""
        return self.code >= PERMANENT

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


class RawReply(Reply):
    """Any octets for a reply; its code is what the session goes by."""

    def __init__(self, code: int, octets: bytes = b"") -> None:
        super().__init__(code)
        vars(self)["wire"] = octets, octets

    def __eq__(self, other: object) -> bool:
        """Compare with any other."""
        return isinstance(other, RawReply) and (self.code, self.wire) == (other.code, other.wire)

    def __hash__(self) -> int:
        """Hash as equal ones do."""
        return hash((self.code, self.wire))


def _fold(text: str, width: int, *, utf8: bool) -> list[str]:
    """Cut a text into lines that fit: a reply that is too long becomes a reply of more lines."""
    allowed = text if utf8 else text.encode("ascii", "backslashreplace").decode("ascii")
    width //= 4 if utf8 else 1  # a character has up to four octets in UTF-8
    return [
        line[start : start + width]
        for line in allowed.splitlines() or [""]
        for start in range(0, len(line) or 1, width)
    ]


def _format(code: int, lines: list[str]) -> bytes:
    marks = ["-"] * (len(lines) - 1) + [" "]
    return "".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode()


#: The answer to what calls for none.
SILENCE = RawReply(250)
