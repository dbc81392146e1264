"""What a failure shows: long values cut, and nothing that a terminal takes for a command."""

from __future__ import annotations

#: How many characters of a value are shown.
MAX_SHOWN = 60


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
