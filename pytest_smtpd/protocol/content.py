"""Content on the wire: where it ends, and what a dot at the start of a line means (RFC 5321 4.1.1.4, 4.5.2).

Only CRLF "." CRLF ends mail data. A server that takes anything else for the end lets one message smuggle in
another (CVE-2023-51764, -51765, -51766). Chunks of BDAT are counted instead (RFC 3030 2).

Everything is searched and copied in pieces as large as they come, in C, never line by line.
"""

from __future__ import annotations

import functools
import io
import re
import sys
from typing import TYPE_CHECKING, Protocol

from .grammar import declared_body
from .lints import Lint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .grammar import Parameters

_END = b"\r\n.\r\n"
_STUFFED_DOT = b"\r\n."

#: What may be the beginning of an end that the next piece completes, the longest first.
_UNFINISHED = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")

#: RFC 5321 4.5.3.1.6, in octets with CRLF.
MAX_CONTENT_LINE = 1000


class ContentStore:
    """Keeps the content of a message while it comes: at most `limit` octets, 0 for any number.

    Of larger content nothing is kept; it is only counted.
    """

    #: Octets so far, the CRLF of the last line included, stuffed dots not (RFC 1870 3).
    size = 0
    #: Whether more octets came than the limit allows; then there is no data.
    too_large = False
    _whole = b""
    _file: io.BytesIO | None = None

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit

    @property
    def data(self) -> bytes:
        """The octets so far, without a copy; b"" when they are too many."""
        return self._file.getvalue() if self._file else self._whole

    def write(self, part: bytes | memoryview) -> None:
        """Append octets."""
        self.size += len(part)
        self.too_large = 0 < self._limit < self.size
        if self.too_large:
            self._file = None
        elif part:
            if self._file is None:
                self._file = io.BytesIO()
            self._file.write(part)

    def write_whole(self, data: bytes) -> None:
        """Take all that there will be, without a copy."""
        self.size = len(data)
        self.too_large = 0 < self._limit < self.size
        if not self.too_large:
            self._whole = data


class Receiver(Protocol):
    """Takes octets that are no command lines, and knows where they end.

    In pieces of any size through `feed`; or, if there is much, straight out of a socket without a copy:
    receive into `get_buffer(scratch)`, then tell `buffer_updated` how many octets came.
    """

    store: ContentStore
    finished: bool

    def feed(self, piece: bytes) -> bytes:
        """Take a piece and return what follows the end in it: b"" as long as the end has not come."""

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the part of `scratch` into which the next octets may be received."""

    def buffer_updated(self, received: int) -> bytes:
        """Take `received` octets that now stand in the buffer last given out; return as `feed` does."""


class MailData:
    """Receives what follows a 354 up to the end of mail data, and undoes transparency.

    However much there is, it goes on looking for the end, so that the session stays in step
    (RFC 5321 4.5.3.1.9).
    """

    finished = False
    _is_new = True
    # The CRLF of the DATA command line counts as the one before the first line (RFC 5321 4.1.1.4),
    # is carried like any other and skipped when it is written.
    _carry = b"\r\n"
    _skip = 2
    _scratch: bytearray

    def __init__(self, store: ContentStore) -> None:
        self.store = store

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; see `Receiver`."""
        if self._is_new and not piece.startswith(b"."):
            dot = piece.find(_STUFFED_DOT)
            if dot >= 0 and piece.startswith(_END, dot):
                # All of a message that has no dots to remove.
                self.store.write_whole(piece[: dot + 2])
                self.finished = True
                return piece[dot + len(_END) :]
        self._is_new = False
        piece = self._carry + piece
        return self._scan(piece, len(piece))

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return a buffer; see `Receiver`."""
        size = len(self._carry)
        scratch[:size] = self._carry
        self._scratch = scratch
        self._is_new = False
        return memoryview(scratch)[size:]

    def buffer_updated(self, received: int) -> bytes:
        """Take what was received; see `Receiver`."""
        return self._scan(self._scratch, len(self._carry) + received)

    def _scan(self, buffer: bytes | bytearray, end: int) -> bytes:
        """Write what is certainly content in `buffer[:end]`, and carry what may belong to the end."""
        # A search for one octet costs nothing and content such as base64 has no dots at all.
        if buffer.find(b".", 0, end) < 0:
            first_dot = stop = -1
        else:
            # rfind is several times as fast as find; -1 proves that there is no end to be found.
            stop = buffer.find(_END, 0, end) if buffer.rfind(_END, 0, end) >= 0 else -1
            first_dot = buffer.find(_STUFFED_DOT, 0, end)
        if stop >= 0:
            self._write(buffer, stop + 2, first_dot)
            self._carry = b""
            self.finished = True
            return bytes(memoryview(buffer)[stop + len(_END) : end])
        kept = next((tail for tail in _UNFINISHED if buffer.endswith(tail, 0, end)), b"")
        self._write(buffer, end - len(kept), first_dot)
        self._carry = kept
        return b""

    def _write(self, buffer: bytes | bytearray, end: int, first_dot: int) -> None:
        with memoryview(buffer) as view:
            part: bytes | memoryview = view[:end]
            if 0 <= first_dot < end - 2:
                part = bytes(part).replace(_STUFFED_DOT, b"\r\n")
            if self._skip and end:
                part = part[self._skip :]
                self._skip = 0
            self.store.write(part)


class Chunk:
    """Receives a number of octets that was announced (RFC 3030 2)."""

    __slots__ = ("_remaining", "_scratch", "finished", "store")

    def __init__(self, size: int, store: ContentStore) -> None:
        self.store = store
        self.finished = size == 0
        self._remaining = size
        self._scratch = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; see `Receiver`."""
        size = self._remaining
        self._write(memoryview(piece)[:size])
        return piece[size:]

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return a buffer; see `Receiver`."""
        self._scratch = scratch
        return memoryview(scratch)[: self._remaining]

    def buffer_updated(self, received: int) -> bytes:
        """Take what was received; see `Receiver`."""
        with memoryview(self._scratch) as view, view[:received] as part:
            self._write(part)
        return b""

    def _write(self, part: memoryview) -> None:
        self.store.write(part)
        self._remaining -= len(part)
        self.finished = not self._remaining


class Dropped(Chunk):
    """Receives what never ends, and keeps nothing of it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(sys.maxsize, ContentStore())

    def _write(self, part: memoryview) -> None:
        """Keep nothing."""


@functools.cache
def _line_longer_than(limit: int) -> re.Pattern[bytes]:
    # The search begins at line starts only, else its time would grow with the square of the lines' length.
    return re.compile(rb"(?<![^\r\n])[^\r\n]{%d}" % (limit - 1))


def content_lints(data: bytes, parameters: Parameters, line_limit: int = MAX_CONTENT_LINE) -> Iterator[Lint]:
    """Say what in the content a client should not have sent, given the parameters of its MAIL command.

    `line_limit` is how many octets a line may have, CRLF included; 0: any number.
    """
    body = declared_body(parameters)
    if body != "BINARYMIME":
        line_ends = data.count(b"\r\n")
        if data.count(b"\n") != line_ends:
            yield Lint.BARE_LF
        if data.count(b"\r") != line_ends:
            yield Lint.BARE_CR
        if line_limit and _line_longer_than(line_limit).search(data):
            yield Lint.LONG_LINE
    if body not in {"8BITMIME", "BINARYMIME"} and not data.isascii():
        yield Lint.UNDECLARED_8BIT
    size = dict(parameters).get("SIZE") or ""
    if size.isdecimal() and 0 < int(size) < len(data):
        yield Lint.SIZE_EXCEEDED
