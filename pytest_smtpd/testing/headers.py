"""Headers: names and decoded values; and what stands in those that have a structure.

All of it in time in proportion to the header: `email` takes minutes for an address list of some 100 KB.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from email.feedparser import BytesFeedParser
from email.message import Message as Email
from typing import TYPE_CHECKING

from .charsets import decode_header, decode_octets, restore_octets
from .shown import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable


class Headers(Mapping[str, str]):
    """The headers of a message, decoded, in order: `message.headers["subject"]`. Names have no case.

    Of a header that comes several times this is the first one; `get_all` returns all of them. Values are
    decoded when they are asked for. Raises KeyError for a header that is not there.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        #: The name as it was first spelt, and the undecoded values, by the name in lower case.
        self._fields: dict[str, tuple[str, list[str]]] = {}
        for name, raw in fields:
            self._fields.setdefault(name.lower(), (name, []))[1].append(raw)

    def __getitem__(self, name: str) -> str:
        """Return the decoded value of the first header of this name."""
        return decode_header(self._fields[name.lower()][1][0])

    def __iter__(self) -> Iterator[str]:
        """Return the names in order, each once, as it was first spelt."""
        return (name for name, _ in self._fields.values())

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        """Whether there is a header of this name."""
        return isinstance(name, str) and name.lower() in self._fields

    def get_all(self, name: str) -> list[str]:
        """Return the decoded values of all headers of this name, in order; [] if there is none."""
        return [decode_header(raw) for raw in self.get_raw(name)]

    def get_raw(self, name: str) -> list[str]:
        """Return the values of all headers of this name as `email` has them, undecoded."""
        return self._fields.get(name.lower(), ("", []))[1]

    def __repr__(self) -> str:
        return f"<Headers: {shorten(', '.join(self))}>"


class _Head(Email):
    """An e-mail whose content is not taken apart."""

    def get_content_type(self) -> str:
        """Return the type that has no parts."""
        return "text/plain"


#: What the header section is in front of (RFC 5322 2.1), whatever ends the lines.
_EMPTY_LINE = rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)"


def read_headers(data: bytes) -> Headers:
    """Read the headers of a content, as `email` does, which reads no more of it here."""
    end = re.search(_EMPTY_LINE, data)
    parser = BytesFeedParser(_Head)
    parser.feed(data[: end.end()] if end else data)
    return Headers(parser.close().raw_items())


# RFC 5322 3.4: what an address list is made of. A comment's brackets come one by one, as they can be nested.
_ADDRESS_PIECE = r'(?s)"(?:[^"\\]|\\.)*+"?|[()]|\\.|<[^<>]*+>|[<,;:]|[^"()\\<,;:]++|\\'


def parse_addresses(raw: str) -> list[str]:
    """Return the addresses in the value of an address header such as To, names and comments left aside.

    What cannot be read as an address comes out as something that is none, and harms no other.
    """
    addresses: list[str] = []
    words: list[str] = []
    route = ""
    depth = 0
    tokens = (match[0] for match in re.finditer(_ADDRESS_PIECE, restore_octets(raw)))
    for part in itertools.chain(tokens, [""]):
        if part in {"(", ")"}:
            depth = max(0, depth + (1 if part == "(" else -1))
        elif depth and part:
            continue
        elif part in {",", ";", ""}:
            addresses.append(route or "".join(words))
            words, route = [], ""
        elif part in {":", "<"}:
            words = []  # the name of a group, or of whom an unfinished address belongs to
        elif part.startswith("<"):
            route = part[1:-1].rpartition(":")[2].strip() or route
        else:
            words.append(part if part.startswith('"') else "".join(part.split()))
    return [address for address in addresses if address]


# RFC 2045 5.1, and leniently: what has no place in a token is found in the field all the same.
_MEDIA_TYPE = r"(?a)\s*+([\w!#$&^.+-]++/[\w!#$&^.+-]++)"
_FIRST_WORD = r"(?a)\s*+([\w!#$&^.+-]++)"
_PARAMETER = r'(?s);\s*+([^\s=;"]++)\s*+=\s*+("(?:[^"\\]|\\.)*+"?|[^;]*+)'
_SECTION = r"([^*]++)(?:\*(\d{1,6}))?(\*)?"
_QUOTED_PAIR = r"(?s)\\(.)"
_PERCENT = rb"%([0-9A-Fa-f]{2})"


def parse_media_type(raw: str) -> str:
    """Return the media type in a Content-Type, in lower case; "" if it can't be read."""
    match = re.match(_MEDIA_TYPE, raw)
    return match[1].lower() if match else ""


def parse_token(raw: str) -> str:
    """Return the token at the start of a Content-Disposition or Content-Transfer-Encoding, in lower case; or ""."""
    match = re.match(_FIRST_WORD, raw)
    return match[1].lower() if match else ""


def parse_parameters(raw: str) -> dict[str, str]:
    """Return the decoded parameters of a MIME header by name in lower case (RFC 2045 5.1, RFC 2231)."""
    sections: dict[str, dict[int, tuple[bool, str]]] = {}
    for match in re.finditer(_PARAMETER, restore_octets(raw)):
        if section := re.fullmatch(_SECTION, match[1].lower()):
            number = -1 if section[2] is None else int(section[2])
            found = sections.setdefault(section[1], {})
            found.setdefault(number, (bool(section[3]), _unquote(match[2])))
    return {name: _join_sections(found) for name, found in sections.items()}


def _unquote(value: str) -> str:
    value = value.strip()
    if not value.startswith('"'):
        return value
    return re.sub(_QUOTED_PAIR, r"\1", value[1:].removesuffix('"'))


def _join_sections(found: dict[int, tuple[bool, str]]) -> str:
    """Join a value that was sent in sections or with a charset (RFC 2231 3 and 4)."""
    ordered = [found[number] for number in sorted(found) if number >= 0] or [found[-1]]
    if not any(encoded for encoded, _ in ordered):
        return decode_header("".join(value for _, value in ordered))  # which it should not need, but many do
    charset = ""
    if ordered[0][0]:
        charset, quote, rest = ordered[0][1].partition("'")
        ordered[0] = (True, rest.partition("'")[2] if quote else charset)
        charset = charset if quote else ""
    octets = b"".join(_undo_percent(value) if encoded else value.encode() for encoded, value in ordered)
    return decode_octets(octets, charset)


def _undo_percent(value: str) -> bytes:
    return re.sub(_PERCENT, lambda match: bytes.fromhex(match[1].decode()), value.encode())
