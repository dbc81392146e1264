"""Mail data on the wire: where it ends, and what a dot at the start of a line means (RFC 5321 4.1.1.4, 4.5.2).

Only CRLF "." CRLF ends mail data. A server that takes anything else for the end lets one message smuggle in
another (CVE-2023-51764, -51765, -51766).

Everything is searched and copied in chunks as large as they come, in C, never line by line.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from .lints import Lint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .grammar import Parameters

_END = b"\r\n.\r\n"
_STUFFED_DOT = b"\r\n."

#: What may be the beginning of an end that the next chunk completes, the longest first.
_UNFINISHED = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")

_TOO_LONG_LINE = re.compile(rb"[^\r\n]{999}")


class MailData:
    """Collects the octets behind a 354 up to the end of mail data, with transparency undone.

    Takes chunks of any size through `feed`, or, for large content, straight out of a socket without a copy:
    receive into `get_buffer(scratch)`, then tell `buffer_updated` how many octets came. Whatever arrives,
    it stores no more than `limit` octets (0: any number); of larger content it keeps nothing and goes on
    looking for the end, so that the session stays in step (RFC 5321 4.5.3.1.9).
    """

    __slots__ = ("_carry", "_limit", "_scratch", "_sink", "_skip", "_whole", "finished", "size")

    def __init__(self, limit: int = 0) -> None:
        self.finished = False
        #: Octets so far, the final CRLF of the last line included, stuffed dots not (RFC 1870 3).
        self.size = 0
        self._limit = limit
        self._whole: bytes | None = None
        self._sink: io.BytesIO | None = None
        # The CRLF of the DATA command line counts as the one before the first line (RFC 5321 4.1.1.4),
        # is carried like any other and skipped when it is written.
        self._carry = b"\r\n"
        self._skip = 2
        self._scratch = bytearray()

    @property
    def too_large(self) -> bool:
        """Whether more octets came than the limit allows; then there is no data."""
        return 0 < self._limit < self.size

    @property
    def data(self) -> bytes:
        """The content; b"" while it is unfinished, or when it is too large."""
        if self._whole is not None:
            return self._whole
        return self._sink.getvalue() if self.finished and self._sink else b""

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk and return what follows the end in it: b"" as long as the end has not come."""
        if self._skip and self._is_whole(chunk):
            self._finish_whole(chunk[:-3])
            return b""
        chunk = self._carry + chunk
        return self._scan(chunk, len(chunk))

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the part of `scratch` into which the next octets may be received."""
        size = len(self._carry)
        scratch[:size] = self._carry
        self._scratch = scratch
        return memoryview(scratch)[size:]

    def buffer_updated(self, received: int) -> bytes:
        """Take `received` octets that now stand in the buffer last given out; return as `feed` does."""
        return self._scan(self._scratch, len(self._carry) + received)

    def _is_whole(self, chunk: bytes) -> bool:
        """Whether this is the first chunk, and all of a message that has no dots to remove."""
        return (
            self._carry == b"\r\n"
            and chunk.endswith(_END)
            and chunk.find(_STUFFED_DOT) == len(chunk) - len(_END)
            and not chunk.startswith(b".")
        )

    def _finish_whole(self, data: bytes) -> None:
        self.size = len(data)
        self.finished = True
        if not self.too_large:
            self._whole = data

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
            self.size += len(part)
            if self.too_large:
                self._sink = None
            elif part:
                if self._sink is None:
                    self._sink = io.BytesIO()
                self._sink.write(part)


def content_lints(data: bytes, parameters: Parameters) -> Iterator[Lint]:
    """Say what in the content a client should not have sent, given the parameters of its MAIL command."""
    declared = dict(parameters)
    line_ends = data.count(b"\r\n")
    if data.count(b"\n") != line_ends:
        yield Lint.BARE_LF
    if data.count(b"\r") != line_ends:
        yield Lint.BARE_CR
    if _TOO_LONG_LINE.search(data):
        yield Lint.LONG_LINE
    if (declared.get("BODY") or "").upper() != "8BITMIME" and not data.isascii():
        yield Lint.UNDECLARED_8BIT
    if 0 < int(declared.get("SIZE") or 0) < len(data):
        yield Lint.SIZE_EXCEEDED
