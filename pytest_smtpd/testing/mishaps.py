"""Mishaps: what became no message, or one that came too late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .shown import format_envelope

if TYPE_CHECKING:
    from .message import Message


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    """A transaction that was begun and not completed: its connection ended before the content did."""

    peer: tuple[Any, ...]
    mailfrom: str
    rcpttos: list[str]

    def __str__(self) -> str:
        return format_envelope(self.mailfrom, self.rcpttos)


@dataclass(frozen=True, slots=True)
class TLSFailure:
    """A TLS connection that failed: what the client did not like, or did wrong."""

    peer: tuple[Any, ...]
    error: OSError

    def __str__(self) -> str:
        return f"from {self.peer[0]}: {self.error}"


@dataclass(frozen=True, slots=True)
class LateMessage:
    """A message whose transaction began before the server was cleared, and who owned the server then."""

    message: Message
    owner: str

    def __str__(self) -> str:
        return f"{self.message}, begun in {self.owner}"
