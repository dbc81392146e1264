"""Attachment: a file in a message."""

from __future__ import annotations

from dataclasses import dataclass

from .shown import MAX_SHOWN, show


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a message: its name ("" if it has none), media type such as "image/png", and content."""

    name: str
    type: str
    content: bytes

    def __repr__(self) -> str:
        size = f" ({len(self.content)} octets)" if len(self.content) > MAX_SHOWN else ""
        return f"Attachment(name={show(self.name)}, type={show(self.type)}, content={show(self.content)}{size})"
