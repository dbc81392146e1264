"""Headers of the PROXY protocol, versions 1 and 2: whole, in pieces, malformed, and from curl."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import struct
import subprocess
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_smtpd.protocol.proxy_protocol import (
    MAX_LENGTH,
    ProxyHeader,
    ProxyProtocol,
    ProxyProtocolError,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

SIGNATURE = bytes.fromhex("0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A")
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UDP6, UNIX_STREAM, UNIX_DGRAM = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32

EHLO = b"EHLO client.example\r\n"


def binary(command: int, kind: int, block: bytes = b"") -> bytes:
    """Build a header of version 2 from the octets behind its length."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    """Build a TLV."""
    return struct.pack("!BH", kind, len(value)) + value


IPV4_BLOCK = bytes([192, 168, 0, 1, 192, 168, 0, 11]) + struct.pack("!HH", 56324, 25)
IPV6_BLOCK = ipaddress.ip_address("2001:db8::1").packed + bytes(15) + b"\1" + struct.pack("!HH", 65535, 0)
UNIX_BLOCK = b"/run/client.sock".ljust(108, b"\0") + b"/run/server.sock".ljust(108, b"\0")
TLVS = (
    tlv(0x01, b"smtp")
    + tlv(0x02, b"mail.example.org")
    + tlv(0x03, b"\r\n\r\n")
    + tlv(0x04, b"")
    + tlv(0x20, b"\7" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"ada"))
)

UNKNOWN_1 = ProxyHeader(1, None, None)
UNKNOWN_2 = ProxyHeader(2, None, None)
IPV4_HEADER = ProxyHeader(2, ("192.168.0.1", 56324), ("192.168.0.11", 25))
IPV6_HEADER = ProxyHeader(2, ("2001:db8::1", 65535), ("::1", 0))
LONGEST_IPV6 = ":".join(["ffff"] * 8)

HEADERS = {
    "1, the example of the specification": (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        ProxyHeader(1, ("192.168.0.1", 56324), ("192.168.0.11", 443)),
    ),
    "1, the longest with IPv4": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ProxyHeader(1, ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "1, zeros": (
        b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
        ProxyHeader(1, ("0.0.0.0", 0), ("0.0.0.0", 0)),  # noqa: S104
    ),
    "1, IPv6": (
        b"PROXY TCP6 2001:db8::1 ::1 56324 25\r\n",
        ProxyHeader(1, ("2001:db8::1", 56324), ("::1", 25)),
    ),
    "1, IPv6 as getpeername() would not write it": (
        b"PROXY TCP6 2001:0DB8:0:0:0:0:0:000A :: 1 2\r\n",
        ProxyHeader(1, ("2001:db8::a", 1), ("::", 2)),
    ),
    "1, IPv4 mapped into IPv6": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c000:202 1 2\r\n",
        ProxyHeader(1, ("::ffff:192.0.2.1", 1), ("::ffff:192.0.2.2", 2)),
    ),
    "1, the longest with IPv6": (
        f"PROXY TCP6 {LONGEST_IPV6} {LONGEST_IPV6} 65535 65535\r\n".encode(),
        ProxyHeader(1, (LONGEST_IPV6, 65535), (LONGEST_IPV6, 65535)),
    ),
    "1, UNKNOWN": (b"PROXY UNKNOWN\r\n", UNKNOWN_1),
    "1, UNKNOWN with a space": (b"PROXY UNKNOWN \r\n", UNKNOWN_1),
    "1, UNKNOWN with addresses": (f"PROXY UNKNOWN {LONGEST_IPV6} {LONGEST_IPV6} 65535 65535\r\n".encode(), UNKNOWN_1),
    "1, UNKNOWN with what is no text": (b"PROXY UNKNOWN \0\xff  TCP4\t\r\n", UNKNOWN_1),
    "2, TCP over IPv4": (binary(PROXY, TCP4, IPV4_BLOCK), IPV4_HEADER),
    "2, UDP over IPv4": (binary(PROXY, UDP4, IPV4_BLOCK), IPV4_HEADER),
    "2, TCP over IPv6": (binary(PROXY, TCP6, IPV6_BLOCK), IPV6_HEADER),
    "2, UDP over IPv6": (binary(PROXY, UDP6, IPV6_BLOCK), IPV6_HEADER),
    "2, IPv4 mapped into IPv6": (
        binary(PROXY, TCP6, 2 * (bytes(10) + b"\xff\xff\xc0\x00\x02\x01") + bytes(4)),
        ProxyHeader(2, ("::ffff:192.0.2.1", 0), ("::ffff:192.0.2.1", 0)),
    ),
    "2, UNIX stream": (binary(PROXY, UNIX_STREAM, UNIX_BLOCK), UNKNOWN_2),
    "2, UNIX datagram": (binary(PROXY, UNIX_DGRAM, UNIX_BLOCK), UNKNOWN_2),
    "2, LOCAL": (binary(LOCAL, UNSPEC), UNKNOWN_2),
    "2, LOCAL with addresses": (binary(LOCAL, TCP4, IPV4_BLOCK), UNKNOWN_2),
    "2, LOCAL with a family and no addresses": (binary(LOCAL, TCP6), UNKNOWN_2),
    "2, LOCAL with a family that does not exist": (binary(LOCAL, 0xFF, b"\r\nx"), UNKNOWN_2),
    "2, unspecified": (binary(PROXY, UNSPEC), UNKNOWN_2),
    "2, unspecified with addresses": (binary(PROXY, UNSPEC, IPV4_BLOCK), UNKNOWN_2),
    "2, unspecified family": (binary(PROXY, 0x01, b"?"), UNKNOWN_2),
    "2, unspecified protocol": (binary(PROXY, 0x10, IPV4_BLOCK), UNKNOWN_2),
    "2, IPv4 with TLVs": (binary(PROXY, TCP4, IPV4_BLOCK + TLVS), IPV4_HEADER),
    "2, IPv6 with TLVs": (binary(PROXY, TCP6, IPV6_BLOCK + TLVS), IPV6_HEADER),
    "2, UNIX with TLVs": (binary(PROXY, UNIX_STREAM, UNIX_BLOCK + TLVS), UNKNOWN_2),
    "2, LOCAL with TLVs": (binary(LOCAL, UNSPEC, TLVS), UNKNOWN_2),
    "2, the longest": (binary(PROXY, TCP4, IPV4_BLOCK + tlv(0x04, bytes(MAX_LENGTH - 12 - 3))), IPV4_HEADER),
}

#: Each ends with the octet after which there can't be a header any more.
MALFORMED = {
    "SMTP": b"E",
    "a TLS handshake": b"\x16",
    "HTTP with a method in P": b"PO",
    "lower case": b"p",
    "no space": b"PROXYT",
    "two spaces": b"PROXY  ",
    "a tab": b"PROXY\t",
    "no keyword": b"PROXY \r",
    "an unknown keyword": b"PROXY TCP5",
    "a keyword in lower case": b"PROXY t",
    "UDP, which version 1 has not": b"PROXY UD",
    "a keyword that goes on": b"PROXY TCP44",
    "UNKNOWN that goes on": b"PROXY UNKNOWN4",
    "half a keyword": b"PROXY TCP ",
    "half a keyword, ended": b"PROXY UNKNOW\r",
    "a keyword alone": b"PROXY TCP4\r",
    "no source": b"PROXY TCP4  ",
    "a host name": b"PROXY TCP4 l",
    "three numbers": b"PROXY TCP4 1.2.3 ",
    "five numbers": b"PROXY TCP4 1.2.3.4.",
    "an empty number": b"PROXY TCP4 1..",
    "a number above 255": b"PROXY TCP4 1.2.256",
    "a leading zero": b"PROXY TCP4 1.2.3.01",
    "a negative number": b"PROXY TCP4 -",
    "IPv6 in TCP4": b"PROXY TCP4 :",
    "IPv6 for the destination in TCP4": b"PROXY TCP4 1.2.3.4 f",
    "IPv4 in TCP6": b"PROXY TCP6 1.",
    "four addresses for one": b"PROXY TCP6 1:2:3:4:5:6:7:8:",
    "too few groups": b"PROXY TCP6 1:2 ",
    "a group of five digits": b"PROXY TCP6 12345",
    "a digit that is none": b"PROXY TCP6 ::g",
    "three colons": b"PROXY TCP6 :::",
    "two double colons": b"PROXY TCP6 1::2::",
    "a double colon for nothing": b"PROXY TCP6 1::2:3:4:5:6:7:",
    "one colon at the start": b"PROXY TCP6 :1",
    "IPv4 not at the end": b"PROXY TCP6 1:2:3:4:5:6:7:1.",
    "IPv4 that is none": b"PROXY TCP6 ::256.",
    "a scope": b"PROXY TCP6 fe80::1%",
    "brackets": b"PROXY TCP6 [",
    "a prefix length": b"PROXY TCP6 ::1/",
    "more than 39 octets": b"PROXY TCP6 0000:0000:0000:0000:0000:ffff:255.25",
    "non-ASCII digits": "PROXY TCP4 \u0661".encode()[:12],
    "a superscript, which str.isdigit() takes": b"PROXY TCP4 1.2.3.4 5.6.7.8 \xb2",
    "no destination": b"PROXY TCP4 1.2.3.4\r",
    "half a destination": b"PROXY TCP4 1.2.3.4 5.6.7\r",
    "no ports": b"PROXY TCP4 1.2.3.4 5.6.7.8\r",
    "no destination port": b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r",
    "an empty destination port": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r",
    "an empty source port": b"PROXY TCP4 1.2.3.4 5.6.7.8  ",
    "a port above 65535": b"PROXY TCP4 1.2.3.4 5.6.7.8 65536",
    "a port of six digits": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 100000",
    "a port with a leading zero": b"PROXY TCP4 1.2.3.4 5.6.7.8 01",
    "a port with a sign": b"PROXY TCP4 1.2.3.4 5.6.7.8 +",
    "a port with an underscore": b"PROXY TCP4 1.2.3.4 5.6.7.8 1_",
    "a port in hexadecimal": b"PROXY TCP4 1.2.3.4 5.6.7.8 0x",
    "a space at the end": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
    "LF alone": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
    "CR alone": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rE",
    "two CRs": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r",
    "LF alone in UNKNOWN": b"PROXY UNKNOWN\n",
    "LF alone behind UNKNOWN": b"PROXY UNKNOWN what\n",
    "CR alone in UNKNOWN": b"PROXY UNKNOWN what\r ",
    "a line without end": b"PROXY UNKNOWN ".ljust(106, b"x"),
    "half a signature": b"\r\n\r\n\r",
    "a signature with an error at its end": SIGNATURE[:-1] + b"\r",
    "version 1 in binary": SIGNATURE + b"\x11",
    "version 3 in binary": SIGNATURE + b"\x31",
    "a command that is not assigned": SIGNATURE + b"\x22",
    "a family that is not specified": SIGNATURE + b"\x21\x41",
    "a protocol that is not specified": SIGNATURE + b"\x21\x13",
    "no family, and a protocol that is not specified": SIGNATURE + b"\x21\x03",
    "a length above the limit": SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_LENGTH + 1),
    "the largest length, known by its first octet": SIGNATURE + b"\x21\x11\xff",
    "a length above the limit in LOCAL": SIGNATURE + b"\x20\x00" + struct.pack("!H", MAX_LENGTH + 1),
    "a length too small for IPv4": SIGNATURE + b"\x21\x11\x00\x0b",
    "a length too small for IPv6": SIGNATURE + b"\x21\x21\x00\x23",
    "a length too small for UNIX": SIGNATURE + b"\x21\x31\x00\xd7",
    "a length of nothing": SIGNATURE + b"\x21\x11\x00\x00",
}

each_header = pytest.mark.parametrize(("octets", "header"), HEADERS.values(), ids=HEADERS)
each_malformed = pytest.mark.parametrize("octets", MALFORMED.values(), ids=MALFORMED)


def read(pieces: Iterable[bytes]) -> tuple[ProxyHeader | None, bytes]:
    """Feed pieces to a new parser; return the header and what follows it."""
    parser = ProxyProtocol()
    rest = b""
    for piece in pieces:
        following = parser.feed(piece)
        assert (following is None) == (parser.header is None)
        rest += following or b""
    return parser.header, rest


def outcome(pieces: Iterable[bytes]) -> tuple[ProxyHeader | None, bytes] | None:
    """Return what `read` returns, and None for malformed octets."""
    try:
        return read(pieces)
    except ProxyProtocolError:
        return None


def split(octets: bytes) -> list[bytes]:
    """Cut octets into single ones."""
    return [bytes([octet]) for octet in octets]


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut octets at these places, which may lie anywhere."""
    edges = [0, *sorted(min(place, len(octets)) for place in places), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


@each_header
def test_a_header_in_one_piece(octets: bytes, header: ProxyHeader) -> None:
    """A header is complete with its last octet, and nothing follows it."""
    assert read([octets]) == (header, b"")


@each_header
def test_a_header_octet_by_octet(octets: bytes, header: ProxyHeader) -> None:
    """Until the last octet of a header more is needed, however small the pieces are."""
    parser = ProxyProtocol()
    *first, last = split(octets)
    assert [parser.feed(octet) for octet in first] == [None] * len(first)
    assert parser.header is None
    assert parser.feed(last) == b""
    assert parser.header == header


@each_header
def test_commands_behind_a_header(octets: bytes, header: ProxyHeader) -> None:
    """SMTP commands in the segment that ends the header are returned as they came, wherever that segment begins."""
    # Of the longest headers not each place is tried.
    for place in range(0, len(octets), 1 + len(octets) // 300):
        assert read([octets[:place], octets[place:] + EHLO]) == (header, EHLO)


def test_octets_after_the_header() -> None:
    """Behind the header every octet is returned, even those of another header."""
    parser = ProxyProtocol()
    octets, header = HEADERS["1, IPv6"]
    assert parser.feed(octets + octets) == octets
    assert parser.feed(b"") == b""
    assert parser.feed(b"PROXY UNKNOWN\r\n") == b"PROXY UNKNOWN\r\n"
    assert parser.header == header


def test_nothing_yet() -> None:
    """Before the first octet, and with empty pieces between others, there is no header and no error."""
    parser = ProxyProtocol()
    assert parser.feed(b"") is None
    assert parser.header is None
    octets, header = HEADERS["2, IPv6 with TLVs"]
    assert read([b"", octets[:20], b"", octets[20:], b""]) == (header, b"")


@each_malformed
def test_malformed_at_the_first_octet_possible(octets: bytes) -> None:
    """An error is raised with the octet that makes it one, and no octet earlier."""
    parser = ProxyProtocol()
    assert [parser.feed(octet) for octet in split(octets[:-1])] == [None] * (len(octets) - 1)
    with pytest.raises(ProxyProtocolError, match=r"^no PROXY header: "):
        parser.feed(octets[-1:])
    assert parser.header is None


@each_malformed
@pytest.mark.parametrize("behind", [b"", b"\r\n", b" 1.2.3.4 5.6.7.8 1 2\r\n", bytes(100_000)], ids=len)
def test_malformed_in_one_piece(octets: bytes, behind: bytes) -> None:
    """What is malformed stays so, whatever comes behind it in the same segment."""
    with pytest.raises(ProxyProtocolError):
        ProxyProtocol().feed(octets + behind)


@each_malformed
def test_malformed_for_good(octets: bytes) -> None:
    """After an error there is nothing but errors, even if a header comes."""
    parser = ProxyProtocol()
    for piece in (octets, b"\r\n", b"PROXY UNKNOWN\r\n"):
        with pytest.raises(ProxyProtocolError):
            parser.feed(piece)
    assert parser.header is None


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO client\r\n", "it begins with 'PROXY ' or with the signature of version 2"),
        (b"PROXY TCP5 ", "PROXY is followed by TCP4, TCP6 or UNKNOWN"),
        (b"PROXY TCP4 1.2.3.4\r\n", "TCP4 is followed by two addresses and two ports"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "'65536' is no port: 0 to 65535, without leading zeros"),
        (b"PROXY TCP4 1.2.3.4 ::1", "'::1' is not the beginning of what TCP4 has there"),
        (b"PROXY TCP6 fe80::1%0 ", "an IPv6 address has 39 octets at most, and no scope"),
        (b"PROXY UNKNOWN\n", "CRLF ends the line, and neither CR nor LF alone is in it"),
        (bytes.fromhex("0D0A0D0A000D0A515549540A 11"), "version and command are 0x20 or 0x21, not 0x11"),
        (binary(PROXY, 0x43), "there is no family and protocol 0x43"),
        (binary(PROXY, TCP6, bytes(12)), "its length is 12, and the addresses of its family have 36 octets"),
        (binary(LOCAL, UNSPEC, bytes(5000)), "this server takes 4096 octets of addresses and TLVs"),
    ],
)
def test_reasons(octets: bytes, reason: str) -> None:
    """An error says what was expected."""
    with pytest.raises(ProxyProtocolError) as error:
        ProxyProtocol().feed(octets)
    assert str(error.value) == f"no PROXY header: {reason}"


@pytest.mark.parametrize("beginning", [b"PROXY UNKNOWN ", binary(PROXY, TCP4, IPV4_BLOCK)[:-1], b"EHLO "])
def test_memory_is_bounded(beginning: bytes) -> None:
    """Whatever is sent and however often, the parser keeps no more than a header can have."""
    megabyte = bytes(1_000_000)
    parsers = [ProxyProtocol() for _ in range(10)]
    tracemalloc.start()
    try:
        for parser in parsers:
            for piece in (beginning, megabyte, megabyte):
                with suppress(ProxyProtocolError):
                    parser.feed(piece)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < len(parsers) * 3 * MAX_LENGTH


# Whatever may come

PLACES = st.lists(st.integers(0, 250))
WORDS = (b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", b" ", b"1", b"25", b"0", b"::", b":", b".", b"1.2.3.4", b"::1", b"f")
BINARY_WORDS = (b"\x20", b"\x21", b"\x11", b"\x21", b"\x31", b"\0\x0c", b"\0\x24", b"\0", IPV4_BLOCK, IPV6_BLOCK, TLVS)
ANYTHING = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([*WORDS, b"\r\n", b"\r"])).map(lambda words: b"PROXY " + b"".join(words)),
    st.lists(st.sampled_from(BINARY_WORDS) | st.binary(max_size=5)).map(lambda words: SIGNATURE + b"".join(words)),
)


@st.composite
def damaged_headers(draw: st.DrawFn) -> bytes:
    """Draw a header with a few octets replaced by others, or by none or more."""
    octets = draw(st.sampled_from([octets for octets, _ in HEADERS.values() if len(octets) < 300]))
    place = draw(st.integers(0, len(octets)))
    return octets[:place] + draw(st.binary(max_size=3)) + octets[place + draw(st.integers(0, 3)) :] + EHLO


@given(octets=ANYTHING | damaged_headers(), places=PLACES)
def test_any_octets_in_any_pieces(octets: bytes, places: list[int]) -> None:
    """Any octets are a header, the beginning of one or a ProxyProtocolError, and how they are cut changes nothing."""
    whole = outcome([octets])
    assert outcome(cut(octets, places)) == whole
    assert outcome(split(octets)) == whole


@settings(deadline=None)
@given(shuffle=st.randoms(use_true_random=True))
def test_waiting_is_never_in_vain(shuffle: random.Random) -> None:
    """As long as the parser waits for more of a line, there are octets with which it becomes a header."""
    octets = b"PROXY "
    alphabet = split(b"TCP46UNKNOWN 0123456789abcdef.:\r\n")
    while outcome([octets]) == (None, b""):
        shuffle.shuffle(alphabet)
        octets = next(octets + octet for octet in alphabet if outcome([octets + octet]) is not None)
    assert octets.endswith(b"\r\n")
    assert len(octets) <= 107


# Headers as proxies write them

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# C libraries don't agree on how to write the obsolete IPv4-compatible addresses of ::/96.
IPV6 = st.ip_addresses(v=6).filter(lambda address: int(address) >> 32)
MAPPED = st.ip_addresses(v=6, network="::ffff:0:0/96")
IPV4 = st.ip_addresses(v=4)
PAIRS = st.one_of(*(st.tuples(addresses, addresses) for addresses in (IPV4, IPV6, MAPPED)))
PORTS = st.tuples(st.integers(0, 65535), st.integers(0, 65535))


def written(address: Address) -> str:
    """Write an address as the C library does."""
    return socket.inet_ntop(socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)


def written_at_length(address: Address) -> str:
    """Write an address with all its digits, in upper case."""
    return written(address) if address.version == 4 else address.packed.hex(":", 2).upper()


def expected(version: int, addresses: tuple[Address, Address], ports: tuple[int, int]) -> ProxyHeader:
    """Return the header with these addresses."""
    source, destination = (written(address) for address in addresses)
    return ProxyHeader(version, (source, ports[0]), (destination, ports[1]))


@given(
    addresses=PAIRS,
    ports=PORTS,
    write=st.sampled_from([written, written_at_length]),
    places=PLACES,
)
def test_round_trip_of_version_1(
    addresses: tuple[Address, Address], ports: tuple[int, int], write: Callable[[Address], str], places: list[int]
) -> None:
    """A line gives back the addresses and ports that are in it, however it is written and cut."""
    source, destination = (write(address) for address in addresses)
    line = f"PROXY TCP{addresses[0].version} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()
    assert read(cut(line + EHLO, places)) == (expected(1, addresses, ports), EHLO)
    assert read(split(line)) == (expected(1, addresses, ports), b"")


@given(
    addresses=PAIRS,
    ports=PORTS,
    protocol=st.sampled_from([1, 2]),
    tlvs=st.lists(st.builds(tlv, st.integers(0, 255), st.binary(max_size=80)), max_size=5).map(b"".join),
    places=PLACES,
)
def test_round_trip_of_version_2(
    addresses: tuple[Address, Address], ports: tuple[int, int], protocol: int, tlvs: bytes, places: list[int]
) -> None:
    """A binary header gives back the addresses and ports that are in it, whatever TLVs follow, however it is cut."""
    kind = (0x10 if addresses[0].version == 4 else 0x20) | protocol
    block = addresses[0].packed + addresses[1].packed + struct.pack("!HH", *ports) + tlvs
    octets = binary(PROXY, kind, block)
    assert read(cut(octets + EHLO, places)) == (expected(2, addresses, ports), EHLO)
    assert read(split(octets)) == (expected(2, addresses, ports), b"")


CURL = shutil.which("curl")


def has_ipv6() -> bool:
    """Whether one can listen on ::1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(CURL is None, reason="there is no curl")
@pytest.mark.parametrize(
    ("family", "host", "url"),
    [
        (socket.AF_INET, "127.0.0.1", "smtp://127.0.0.1:{}"),
        pytest.param(
            socket.AF_INET6,
            "::1",
            "smtp://[::1]:{}",
            marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6"),
        ),
    ],
    ids=["IPv4", "IPv6"],
)
def test_curl(family: socket.AddressFamily, host: str, url: str) -> None:
    """What curl's --haproxy-protocol sends at the start of an SMTP connection are the connection's two ends."""
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(10)
        command = [str(CURL), "--silent", "--max-time", "10", "--haproxy-protocol"]
        command.append(url.format(listener.getsockname()[1]))
        with subprocess.Popen(command) as curl:  # noqa: S603
            connection, client = listener.accept()
            with connection:
                connection.settimeout(10)
                parser = ProxyProtocol()
                while parser.header is None:
                    rest = parser.feed(connection.recv(4096))
                assert parser.header == ProxyHeader(1, client[:2], connection.getsockname()[:2])
                # It is the server's turn to speak.
                assert rest == b""
            curl.wait(10)
