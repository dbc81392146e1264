"""Criteria: which messages match, and why the others don't."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.grammar import canonical_mailbox

from .message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Criteria that are no attributes of a message.
_SPECIAL = {"body", "headers", "attachment"}
_NAMES = (
    _SPECIAL
    | {attribute.name for attribute in dataclasses.fields(Message)}
    | {
        name
        for name, value in vars(Message).items()
        if isinstance(value, (property, cached_property)) and not name.startswith("_")
    }
)


class Criteria:
    """A set of criteria by name, all of which a message must meet.

    A value is compared with `==`; a compiled pattern is searched; a callable is asked. Mailboxes compare as
    RFC 5321 2.4 says. In `rcpttos`, one address must be among the recipients, a list names exactly these in
    any order, a tuple these in this order. `body` is contained in the text or the HTML body, `headers` maps
    names to values, `attachment` is a file name.

    Raises TypeError for a name that is no criterion.
    """

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        for name in criteria:
            if name not in _NAMES:
                close = difflib.get_close_matches(name, _NAMES, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(_NAMES))}"
                msg = f"{name} is no criterion for messages: {hint}"
                raise TypeError(msg)
        self._criteria = list(criteria.items())

    def __str__(self) -> str:
        return ", ".join(f"{name}={_show(expected)}" for name, expected in self._criteria)

    def __bool__(self) -> bool:
        return bool(self._criteria)

    def joined(self, others: Criteria) -> Criteria:
        """Return these criteria and others as well."""
        both = Criteria({})
        both._criteria = [*self._criteria, *others._criteria]
        return both

    def match(self, message: Message) -> bool:
        """Whether the message meets all criteria."""
        return all(not _differences(message, name, expected) for name, expected in self._criteria)

    def explain(self, message: Message) -> list[str]:
        """Return a line for each criterion that the message does not meet."""
        return [difference for name, expected in self._criteria for difference in _differences(message, name, expected)]


def _differences(message: Message, name: str, expected: object) -> list[str]:
    """Return how the message misses this criterion, nothing if it meets it."""
    match name:
        case "headers":
            return _header_differences(message, expected)
        case "body":
            found: list[Any] = [message.text, message.html]
            met = any(_contains(body, expected) for body in found)
        case "attachment":
            found = [attachment.name for attachment in message.attachments]
            met = any(_equals(file_name, expected) for file_name in found)
        case "rcpttos":
            found = message.rcpttos
            met = _has_recipients(found, expected)
        case "mailfrom":
            found = [message.mailfrom]
            met = _same_mailbox(message.mailfrom, expected)
        case _:
            found = [getattr(message, name)]
            met = _equals(found[0], expected)
    if met:
        return []
    shown = found[0] if len(found) == 1 and name != "rcpttos" else found
    return [f"{name}: expected {_show(expected)}, got {_show(shown)}"]


def _header_differences(message: Message, expected: object) -> list[str]:
    if not isinstance(expected, Mapping):
        msg = f"headers= takes a dict of names and values, not {expected!r}"
        raise TypeError(msg)
    differences = []
    for name, value in expected.items():
        found = message.headers.get_all(name)
        if not any(_equals(header, value) for header in found):
            got = ", ".join(_show(header) for header in found) or "no such header"
            differences.append(f"headers[{name!r}]: expected {_show(value)}, got {got}")
    return differences


def _equals(found: object, expected: object) -> bool:
    if isinstance(expected, re.Pattern):
        return _search(expected, found)
    if callable(expected) and not isinstance(expected, type):
        return bool(expected(found))
    return bool(expected == found)


def _search(pattern: re.Pattern[Any], found: object) -> bool:
    if isinstance(pattern.pattern, bytes):
        return isinstance(found, bytes) and pattern.search(found) is not None
    return pattern.search(found if isinstance(found, str) else str(found)) is not None


def _contains(found: str, expected: object) -> bool:
    return expected in found if isinstance(expected, str) else _equals(found, expected)


def _same_mailbox(found: str, expected: object) -> bool:
    if isinstance(expected, str):
        return canonical_mailbox(expected) == canonical_mailbox(found)
    return _equals(found, expected)


def _has_recipients(found: Sequence[str], expected: object) -> bool:
    if isinstance(expected, tuple):
        return len(expected) == len(found) and all(map(_same_mailbox, found, expected))
    if isinstance(expected, list) and all(isinstance(address, str) for address in expected):
        return Counter(map(canonical_mailbox, expected)) == Counter(map(canonical_mailbox, found))
    if isinstance(expected, list):
        return _match_in_any_order(found, expected)
    if isinstance(expected, (str, re.Pattern)):
        return any(_same_mailbox(address, expected) for address in found)
    return _equals(found, expected)


def _match_in_any_order(found: Sequence[str], expected: Sequence[object]) -> bool:
    """Whether each expected value can have a recipient of its own, with nobody left over."""
    holders: dict[int, int] = {}  # which value holds which recipient

    def place(value: int, tried: set[int]) -> bool:
        for recipient, address in enumerate(found):
            if recipient not in tried and _same_mailbox(address, expected[value]):
                tried.add(recipient)
                # Whoever holds it may do with another one.
                if recipient not in holders or place(holders[recipient], tried):
                    holders[recipient] = value
                    return True
        return False

    return len(found) == len(expected) and all(place(value, set()) for value in range(len(expected)))


def _show(value: object) -> str:
    if isinstance(value, re.Pattern):
        return f"/{value.pattern!s}/"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"  # noqa: PLR2004
