"""RelayedContent: a header more, and else every octet as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd.protocol.content import ContentStore, MailData
from pytest_smtpd.smtpd import relayed
from pytest_smtpd.smtpd.relayed import RelayedContent, x_peer

PEER = b"X-Peer: 192.0.2.1"


def whole(data: bytes) -> bytes:
    """Return the content with the header in it."""
    content = RelayedContent(data, PEER)
    pieces = list(content.pieces())
    assert content.size == sum(map(len, pieces))
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"A: b\r\n\r\nc\r\n", b"A: b\r\nX-Peer: 192.0.2.1\r\n\r\nc\r\n", id="usual"),
        pytest.param(b"A: b\r\n c\r\nD: e\r\n\r\n", b"A: b\r\n c\r\nD: e\r\nX-Peer: 192.0.2.1\r\n\r\n", id="no body"),
        pytest.param(b"A: b\r\n", b"A: b\r\nX-Peer: 192.0.2.1\r\n", id="no empty line"),
        pytest.param(b"A: b", b"A: b\r\nX-Peer: 192.0.2.1\r\n", id="no line end"),
        pytest.param(b"", b"X-Peer: 192.0.2.1\r\n", id="nothing"),
        pytest.param(b"\r\nbody\r\n", b"X-Peer: 192.0.2.1\r\n\r\nbody\r\n", id="no headers"),
        pytest.param(b"\nbody\r\n", b"X-Peer: 192.0.2.1\n\nbody\r\n", id="no headers, bare LF"),
        pytest.param(b"\r\n", b"X-Peer: 192.0.2.1\r\n\r\n", id="an empty line"),
        pytest.param(b"A: b\n\nc\r\n\r\nd\r\n", b"A: b\nX-Peer: 192.0.2.1\n\nc\r\n\r\nd\r\n", id="bare LF"),
        pytest.param(b"A: b\r\n\r\nc\n\nd\n", b"A: b\r\nX-Peer: 192.0.2.1\r\n\r\nc\n\nd\n", id="bare LF in the body"),
        pytest.param(b"A: b\n\r\nc\r\n", b"A: b\nX-Peer: 192.0.2.1\r\n\r\nc\r\n", id="mixed"),
        pytest.param(
            b"A: \0\xff\r\n\r\n\0\x80\r\n", b"A: \0\xff\r\nX-Peer: 192.0.2.1\r\n\r\n\0\x80\r\n", id="any octets"
        ),
        pytest.param(b"no header\r\n.\r\n", b"no header\r\n.\r\nX-Peer: 192.0.2.1\r\n", id="a dot"),
    ],
)
def test_the_header_comes_last_of_the_headers(data: bytes, expected: bytes) -> None:
    """X-Peer comes behind the last header, with the line end that the empty line has; all else stays."""
    assert whole(data) == expected


@given(
    parts=st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"\0", b"\xe9", b": "]), max_size=30),
    size=st.integers(1, 7),
)
def test_what_is_received_is_what_was_sent(parts: list[bytes], size: int) -> None:
    """Whatever the content is and however it is cut, a server gets it octet by octet, and one end only."""
    content = RelayedContent(b"".join(parts), PEER)
    before, relayed.PIECE_SIZE = relayed.PIECE_SIZE, size
    try:
        expected, sent = b"".join(content.pieces()), b"".join(content.transparent_pieces())
    finally:
        relayed.PIECE_SIZE = before
    receiver = MailData(ContentStore())
    assert receiver.feed(sent) == b""
    assert receiver.finished
    assert receiver.store.data == expected + (b"" if expected.endswith(b"\r\n") else b"\r\n")
    assert content.lacks_line_end == (not expected.endswith(b"\r\n"))


@pytest.mark.parametrize(
    "data",
    [
        b"a\n.\nb\r\n",
        b"a\n.\r\nb\r\n",
        b"a\r.\rb\r\n",
        b"a\r.\r\nb\r\n",
        b"a\n.\rb\r\n",
        b"a\n.",
        b"a\r.",
        b"a\r\n.b\r\nc\n.\n\r\n",
    ],
)
def test_false_ends(data: bytes) -> None:
    """A dot between line ends of which the first is a bare one is what some servers take for the end."""
    assert RelayedContent(data, PEER).has_false_end


@pytest.mark.parametrize(
    "data", [b"", b".\r\n", b"a\r\n.\r\nb\r\n", b"a\n.b\n..\n\r\n", b"a\r.b\r..\r\r\n", b"a\r\n.\n\r\n", b"\r\n.\r\r\n"]
)
def test_no_false_ends(data: bytes) -> None:
    """Where transparency doubles the dot there is no false end, nor where the dot is not alone."""
    assert not RelayedContent(data, PEER).has_false_end


@pytest.mark.parametrize(
    ("data", "hops"),
    [
        (b"", 0),
        (b"Received: a\r\n", 1),
        (b"RECEIVED : a\r\nreceived: b\r\n\r\nReceived: c\r\n", 2),
        (b"A: b\r\nX-Peer: a\nx-peer:b\n\nX-Peer: c\r\n", 2),
        (b"Received-SPF: a\r\nX-Received: b\r\nA: Received: c\r\n\r\n", 0),
        (b"\r\nReceived: a\r\n", 0),
        (b"Received: a\r\n\tReceived: b\r\n" * 50, 50),
    ],
)
def test_hops_are_counted(data: bytes, hops: int) -> None:
    """Received and X-Peer in the header section tell how many relays a message has passed."""
    assert RelayedContent(data, PEER).hops == hops


@pytest.mark.parametrize(
    ("peer", "header"),
    [
        (("192.0.2.1", 25), b"X-Peer: 192.0.2.1"),
        (("2001:db8::1", 25, 0, 0), b"X-Peer: 2001:db8::1"),
        (("", 0), b"X-Peer: unix"),
        (("/run/client\r\nSubject: hi", 0), b"X-Peer: unix"),
        ((b"\0abstract", 0), b"X-Peer: unix"),
        (("/run/\xe9", 0), b"X-Peer: unix"),
    ],
)
def test_the_header_names_the_client(peer: tuple[object, ...], header: bytes) -> None:
    """X-Peer has the client's address; a name that could be more than a name is none."""
    assert x_peer(peer) == header
