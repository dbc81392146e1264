"""What a failure shows: long values cut, and nothing that a terminal takes for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many characters of a value are shown, and how many things of a kind a failure lists.
MAX_SHOWN, MAX_LISTED = 60, 20
#: How many recipients an envelope shows, and how much of an address: as much as servers must take (RFC 5321 4.5.3.1.3).
_LISTED_RECIPIENTS, LONGEST_ADDRESS = 5, 256


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Return a text of any origin for people to read: cut at the limit, unprintable characters escaped."""
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in shown)
    return shown if len(text) <= limit else f"{shown}…"


def show(value: object, limit: int = MAX_SHOWN) -> str:
    """Return the repr of a value, of which no more than about `limit` characters, octets or items are looked at."""
    if isinstance(value, (str, bytes)):
        shown = repr(value[:limit])
        return shown if len(value) <= limit else f"{shown[:-1]}…{shown[-1]}"
    if isinstance(value, (list, tuple)):
        items = [show(item, limit) for item in value[:_MAX_ITEMS]]
        items += [f"… {len(value) - _MAX_ITEMS} more"] if len(value) > _MAX_ITEMS else []
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        left, right = "[]" if isinstance(value, list) else "()"
        return f"{left}{', '.join(items)}{comma}{right}"
    return repr(value)


_MAX_ITEMS = 5


def format_envelope(mailfrom: str, rcpttos: Sequence[str]) -> str:
    """Return an envelope in one line; of many recipients the first ones."""
    listed = [f"<{shorten(address, LONGEST_ADDRESS)}>" for address in rcpttos[:_LISTED_RECIPIENTS]]
    listed += [f"{len(rcpttos) - _LISTED_RECIPIENTS} more"] if len(rcpttos) > _LISTED_RECIPIENTS else []
    return f"from <{shorten(mailfrom, LONGEST_ADDRESS)}> to {', '.join(listed) or 'nobody'}"
