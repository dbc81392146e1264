"""Matching: whether what a message has is what a test's author expects of it."""

from __future__ import annotations

import re
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.grammar import canonical_mailbox

if TYPE_CHECKING:
    from collections.abc import Sequence


def equals(found: object, expected: object) -> bool:
    """Whether a value is the expected one; a compiled pattern is searched in it, a function is asked."""
    if isinstance(expected, re.Pattern):
        return _search(expected, found)
    if callable(expected) and not isinstance(expected, type):
        return bool(expected(found))
    # In this order: what somebody made to be compared with decides, such as an object of dirty-equals.
    return bool(expected == found)


def contains(found: str, expected: object) -> bool:
    """Whether a text has the expected string in it, or is what else is expected."""
    return expected in found if isinstance(expected, str) else equals(found, expected)


def same_mailbox(found: str, expected: object) -> bool:
    """Whether a mailbox is the expected one (RFC 5321 2.4): domains have no case, and quotes no meaning."""
    if isinstance(expected, str):
        return canonical_mailbox(expected) == canonical_mailbox(found)
    return equals(found, expected)


def has_recipients(found: Sequence[str], expected: object) -> bool:
    """Whether the recipients are the expected ones.

    One of them must be the expected address, or have a pattern in it; a list names exactly these in any order,
    a tuple these in this order.
    """
    match expected:
        case list() | tuple() if len(expected) != len(found):
            return False
        case tuple():
            return all(map(same_mailbox, found, expected))
        case list() if all(isinstance(address, str) for address in expected):
            return Counter(map(canonical_mailbox, expected)) == Counter(map(canonical_mailbox, found))
        case list():
            return _match_in_any_order(found, expected)
        case str() | re.Pattern():
            return any(same_mailbox(address, expected) for address in found)
        case _:
            return equals(found, expected)


def _search(pattern: re.Pattern[Any], found: object) -> bool:
    if isinstance(pattern.pattern, bytes):
        return isinstance(found, bytes) and pattern.search(found) is not None
    return pattern.search(found if isinstance(found, str) else str(found)) is not None


def _match_in_any_order(found: Sequence[str], expected: Sequence[object]) -> bool:
    """Whether each expected value can have a recipient of its own, with nobody left over.

    Addresses are looked up: only for patterns and the like is each value compared with each recipient left.
    """
    wanted = Counter(canonical_mailbox(value) for value in expected if isinstance(value, str))
    if wanted - Counter(map(canonical_mailbox, found)):
        return False
    spellings: dict[str, list[str]] = {}
    for address in found:
        spellings.setdefault(canonical_mailbox(address), []).append(address)
    left: list[str] = []
    values = [value for value in expected if not isinstance(value, str)]
    for mailbox, addresses in spellings.items():
        count = wanted[mailbox]
        if count == len(addresses) or len(set(addresses)) == 1:
            left += addresses[count:]  # it makes no difference which of them are taken
        else:
            left += addresses
            values += [mailbox] * count
    fitting = [[index for index, address in enumerate(left) if same_mailbox(address, value)] for value in values]
    holders: dict[int, int] = {}  # which value holds which recipient
    return all(_place(value, fitting, holders) for value in range(len(values)))


def _place(value: int, fitting: Sequence[Sequence[int]], holders: dict[int, int]) -> bool:
    """Find a recipient for one more value; whoever holds it may do with another one (an augmenting path)."""
    wanted_by: dict[int, int] = {}  # which value would take which recipient
    looking = deque([value])
    while looking:
        looker = looking.popleft()
        for recipient in fitting[looker]:
            if recipient in wanted_by:
                continue
            wanted_by[recipient] = looker
            if recipient not in holders:
                _pass_on(recipient, wanted_by, holders)
                return True
            looking.append(holders[recipient])
    return False


def _pass_on(free: int, wanted_by: dict[int, int], holders: dict[int, int]) -> None:
    held = {value: recipient for recipient, value in holders.items()}
    recipient: int | None = free
    while recipient is not None:
        taker = wanted_by[recipient]
        holders[recipient] = taker
        recipient = held.get(taker)
