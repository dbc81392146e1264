"""RelayedContent: a message's content on its way to the next hop, with a header added and without a copy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many octets of content are sent at once.
PIECE_SIZE = 262_144

#: A header of those that say that the message has passed a relay; X-Peer is what this one adds.
_TRACE = re.compile(rb"\n(?:received|x-peer)[ \t]*:", re.IGNORECASE)

#: What some servers take for the end of mail data though it is not CRLF "." CRLF (CVE-2023-51764 and others), and
#: transparency does not protect. Who sends this on as it is smuggles whatever stands behind it.
_FALSE_END = re.compile(rb"(?:(?<!\r)\n|\r)\.(?:[\r\n]|\Z)")


def x_peer(peer: tuple[Any, ...]) -> bytes:
    """Return the header line that tells from which client a message has come, without its line end."""
    host = peer[0]
    # The name of a Unix socket, if it has one, may hold anything.
    is_plain = isinstance(host, str) and host and host.isascii() and host.isprintable()
    return f"X-Peer: {host if is_plain else 'unix'}".encode()


class RelayedContent:
    """The content of a message and one header line more, which comes last in the header section.

    Nothing else is changed, whatever the content looks like; the new line ends as the empty line behind it does.
    """

    def __init__(self, data: bytes, header: bytes) -> None:
        self.data = data
        self._place = _end_of_headers(data)
        before = b"" if data.endswith(b"\n", 0, self._place) or not self._place else b"\r\n"
        self._header = before + header + (b"\n" if data.startswith(b"\n", self._place) else b"\r\n")

    @property
    def size(self) -> int:
        """How many octets there are in all."""
        return len(self.data) + len(self._header)

    @property
    def lacks_line_end(self) -> bool:
        """Whether DATA would add a line end to it."""
        return self._place < len(self.data) and not self.data.endswith(b"\r\n")

    @property
    def has_false_end(self) -> bool:
        """Whether there is something in it that some server takes for the end of mail data."""
        data = self.data
        # Searches for constants are many times as fast as the pattern, and nearly always enough.
        suspicious = b"\r." in data or data.count(b"\n.") != data.count(b"\r\n.")
        return suspicious and _FALSE_END.search(data) is not None

    @property
    def hops(self) -> int:
        """How many relays the message has passed, as far as its headers tell (RFC 5321 6.3)."""
        first = _TRACE.match(b"\n" + self.data[:16]) is not None
        return first + sum(1 for _ in _TRACE.finditer(self.data, 0, self._place))

    def pieces(self) -> Iterator[bytes]:
        """Return the octets in pieces."""
        yield from self._cut(0, self._place)
        yield self._header
        yield from self._cut(self._place, len(self.data))

    def _cut(self, start: int, end: int) -> Iterator[bytes]:
        for position in range(start, end, PIECE_SIZE):
            yield self.data[position : min(position + PIECE_SIZE, end)]

    def transparent_pieces(self) -> Iterator[bytes]:
        """Return the octets in pieces as they follow a 354, with dots doubled and the end (RFC 5321 4.5.2)."""
        last = b"\r\n"
        for piece in self.pieces():
            # Two octets of the piece before may be the line end in front of a dot.
            stuffed = (last + piece).replace(b"\r\n.", b"\r\n..")
            yield stuffed[len(last) :]
            last = (last + piece[-2:])[-2:]
        yield b".\r\n" if last == b"\r\n" else b"\r\n.\r\n"


def _end_of_headers(data: bytes) -> int:
    """Return where the empty line begins that ends the header section; where the data ends if there is none."""
    if data.startswith((b"\r\n", b"\n")):
        return 0
    crlf = data.find(b"\n\r\n")
    lf = data.find(b"\n\n", 0, crlf if crlf >= 0 else len(data))
    return min((place + 1 for place in (lf, crlf) if place >= 0), default=len(data))
