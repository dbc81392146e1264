"""The PROXY protocol: where a connection came from, as a proxy in front of the server tells it.

The source is "The PROXY protocol, versions 1 & 2" by Willy Tarreau (HAProxy, doc/proxy-protocol.txt), called
"PROXY" here: its section 2.1 has version 1, a line of text; its section 2.2 has version 2, which is binary.

A server either expects a header on each connection or on none, and never guesses; and it greets
nobody before the header is complete (PROXY 2).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Any, NoReturn, TypeAlias

#: PROXY 2.1: a line of version 1 has 107 octets at most, CRLF included.
MAX_LINE = 107
#: How many octets may follow the fixed part of version 2: the addresses (216 at most) and TLVs. The field
#: could say 65535, but senders are to fit the whole header into 536 (PROXY 2); this leaves room for certificates.
MAX_LENGTH = 4096

_TEXT = b"PROXY "
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
#: The signature; version and command; family and protocol; the length, in network order (PROXY 2.2).
_FIXED = Struct("!12sBBH")
_MAX_HEADER = _FIXED.size + MAX_LENGTH

#: Version in the upper four bits, command in the lower.
_LOCAL, _PROXY = 0x20, 0x21
#: The addresses of each family in version 2: AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX.
_ADDRESSES = (Struct("!"), Struct("!4s4sHH"), Struct("!16s16sHH"), Struct("!108s108s"))
#: UNSPEC, STREAM and DGRAM; what is more is invalid.
_PROTOCOLS = 3

#: PROXY 2.1: "ffff:f...f:ffff". So a line with addresses is never too long.
_MAX_IPV6 = 39
_PORT = r"0|[1-9][0-9]{0,4}"
_MAX_PORT = 65_535

#: What makes a whole address or port of any beginning of one, if it is the beginning of one.
_COMPLETIONS = ("", "1", ".1", "1.1", ".1.1", "1.1.1", ".1.1.1", "1.1.1.1", ":", "::")

#: Returns what a field of version 1 says; raises ValueError.
_Reader: TypeAlias = Callable[[str], Any]


class ProxyProtocolError(ValueError):
    """What came is no PROXY header, and can't become one: the connection has to be closed (PROXY 2.1, 2.2)."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of the connection that it passes on.

    `version` is 1 or 2. `source` is the client's address, `destination` the one to which it connected: each
    a host, written as RFC 5952 says, and a port. Both are None where the connection's own addresses
    stand: UNKNOWN in version 1; in version 2 LOCAL, an unspecified family or protocol, and AF_UNIX,
    whose paths are no hosts.
    """

    version: int
    source: tuple[str, int] | None
    destination: tuple[str, int] | None


class ProxyProtocol:
    """Reads the header at the start of a connection, in pieces of any size; keeps 4112 octets at most."""

    #: What `feed` raises.
    Error = ProxyProtocolError

    __slots__ = ("_octets", "header")

    def __init__(self) -> None:
        #: The header, once it is complete.
        self.header: ProxyHeader | None = None
        self._octets = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take octets; return None while the header is unfinished, then those that follow it, b"" for none.

        Raises ProxyProtocolError with the first octet after which there can't be a header any more, and from then on.
        Behind the header all octets are returned as they come. TLVs are skipped, not looked into (PROXY 2.2).
        """
        if self.header is not None:
            return data
        known = len(self._octets)
        self._octets += data[: _MAX_HEADER - known]
        parsed = _parse(self._octets)
        if parsed is None:
            return None
        self.header, size = parsed
        self._octets = b""
        return data[size - known :]


def _refuse(reason: str) -> NoReturn:
    msg = f"no PROXY header: {reason}"
    raise ProxyProtocolError(msg)


def _parse(octets: bytes) -> tuple[ProxyHeader, int] | None:
    """Return the header at the start of the octets with its size; None: it is unfinished."""
    for beginning, parse in ((_TEXT, _parse_text), (_SIGNATURE, _parse_binary)):
        if octets.startswith(beginning):
            return parse(octets)
        if beginning.startswith(octets):
            return None
    _refuse("it begins with 'PROXY ' or with the signature of version 2")


# Version 1 (PROXY 2.1)


def _parse_text(octets: bytes) -> tuple[ProxyHeader, int] | None:
    line, cr, rest = octets.partition(b"\r")
    if len(line) > MAX_LINE - len("\r\n"):
        _refuse(f"a line has {MAX_LINE} octets at most, CRLF included")
    if b"\n" in line or (rest and not rest.startswith(b"\n")):
        _refuse("CRLF ends the line, and neither CR nor LF alone is in it")
    # Latin-1 reads anything, and the readers of the fields take nothing but ASCII.
    keyword, *fields = line[len(_TEXT) :].decode("latin-1").split(" ")
    if not cr:
        _check_beginning(keyword, fields)
        return None
    header = _read_line(keyword, fields)
    return (header, len(line) + len("\r\n")) if rest else None


def _read_line(keyword: str, fields: list[str]) -> ProxyHeader:
    """Read a line that is complete but for its LF."""
    if keyword == "UNKNOWN":
        # "the receiver must ignore anything presented before the CRLF"
        return ProxyHeader(1, None, None)
    readers = _readers(keyword)
    if len(fields) != len(readers):
        _refuse(f"{keyword} is followed by two addresses and two ports")
    values = [_read(reader, field) for reader, field in zip(readers, fields, strict=True)]
    source, destination, source_port, destination_port = values
    return ProxyHeader(1, (source, source_port), (destination, destination_port))


def _check_beginning(keyword: str, fields: list[str]) -> None:
    """Raise ProxyProtocolError if there is no line that begins so; all fields but the last are complete.

    A proxy is to learn of a mistake as soon as possible; values are taken from complete lines only.
    """
    if not fields:
        if not any(known.startswith(keyword) for known in ("UNKNOWN", *_KEYWORDS)):
            _refuse("PROXY is followed by TCP4, TCP6 or UNKNOWN")
        return
    if keyword == "UNKNOWN":
        return
    readers = _readers(keyword)
    if len(fields) > len(readers):
        _refuse("nothing follows the second port")
    for reader, field in zip(readers, fields[:-1], strict=False):
        _read(reader, field)
    reader = readers[len(fields) - 1]
    if not any(_is_readable(reader, fields[-1] + completion) for completion in _COMPLETIONS):
        _refuse(f"{fields[-1]!r} is not the beginning of what {keyword} has there")


def _readers(keyword: str) -> tuple[_Reader, ...]:
    """Return what reads the fields behind a keyword."""
    if keyword not in _KEYWORDS:
        _refuse("PROXY is followed by TCP4, TCP6 or UNKNOWN")
    read_address = _KEYWORDS[keyword]
    return read_address, read_address, _read_port, _read_port


def _read(reader: _Reader, field: str) -> Any:
    try:
        return reader(field)
    except ValueError as error:
        _refuse(str(error))


def _is_readable(reader: _Reader, field: str) -> bool:
    try:
        reader(field)
    except ValueError:
        return False
    return True


def _read_ipv4(text: str) -> str:
    return _host(IPv4Address(text))


def _read_ipv6(text: str) -> str:
    address = IPv6Address(text)
    if address.scope_id is not None or len(text) > _MAX_IPV6:
        msg = f"an IPv6 address has {_MAX_IPV6} octets at most, and no scope"
        raise ValueError(msg)
    return _host(address)


def _read_port(text: str) -> int:
    if not re.fullmatch(_PORT, text) or int(text) > _MAX_PORT:
        msg = f"{text!r} is no port: 0 to {_MAX_PORT}, without leading zeros"
        raise ValueError(msg)
    return int(text)


#: What each keyword has for addresses.
_KEYWORDS: dict[str, _Reader] = {"TCP4": _read_ipv4, "TCP6": _read_ipv6}


def _host(address: IPv4Address | IPv6Address) -> str:
    # RFC 5952 5; inet_ntop() writes mapped addresses so, and str() from Python 3.13 on.
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return f"::ffff:{address.ipv4_mapped}"
    return str(address)


# Version 2 (PROXY 2.2)


def _parse_binary(octets: bytes) -> tuple[ProxyHeader, int] | None:
    _check_fixed(octets[len(_SIGNATURE) :])
    if len(octets) < _FIXED.size:
        return None
    _, command, kind, length = _FIXED.unpack_from(octets)
    addresses = _addresses(command, kind)
    if length < addresses.size:
        _refuse(f"its length is {length}, and the addresses of its family have {addresses.size} octets")
    if len(octets) < _FIXED.size + length:
        return None
    return _read_addresses(addresses, octets), _FIXED.size + length


def _check_fixed(fixed: bytes) -> None:
    """Check what is there of the four octets behind the signature."""
    if fixed and fixed[0] not in {_LOCAL, _PROXY}:
        _refuse(f"version and command are 0x{_LOCAL:x} or 0x{_PROXY:x}, not 0x{fixed[0]:x}")
    # Of LOCAL connections the family is ignored.
    if fixed[:1] == bytes([_PROXY]) and len(fixed) > 1:
        family, protocol = divmod(fixed[1], 16)
        if family >= len(_ADDRESSES) or protocol >= _PROTOCOLS:
            _refuse(f"there is no family and protocol 0x{fixed[1]:x}")
    # The first octet of the length can say enough.
    if int.from_bytes(fixed[2:4].ljust(2, b"\0"), "big") > MAX_LENGTH:
        _refuse(f"this server takes {MAX_LENGTH} octets of addresses and TLVs")


def _addresses(command: int, kind: int) -> Struct:
    """Return the form of the addresses that a header has; without a protocol they are as good as unspecified."""
    family, protocol = divmod(kind, 16)
    return _ADDRESSES[family if command == _PROXY and protocol else 0]


def _read_addresses(addresses: Struct, octets: bytes) -> ProxyHeader:
    match addresses.unpack_from(octets, _FIXED.size):
        case source, destination, source_port, destination_port:
            source, destination = (_host(ip_address(packed)) for packed in (source, destination))
            return ProxyHeader(2, (source, source_port), (destination, destination_port))
        case _:
            return ProxyHeader(2, None, None)
