"""Comparing: what differs between two messages, texts or lists of mailboxes, for failures to say.

However long the values are, what is shown of them is short, and found in time in proportion to them.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.grammar import canonical_mailbox

from .shown import shorten, show

if TYPE_CHECKING:
    from typing import AnyStr

    from .headers import Headers
    from .message import Message

#: A text that is longer, or has more lines, is not shown as a whole.
_SHORT_TEXT = 80
#: The lines around the first difference into which a diff looks, and how many it shows.
_LINES_BEFORE, _LINES_COMPARED, _LINES_SHOWN = 3, 200, 30
#: How much is shown of a line, and of it before the first difference.
_LINE_SHOWN, _BEFORE = 200, 30
#: How many headers, mailboxes or attachments are named.
_LISTED = 10


def describe_difference(expected: str, found: str) -> list[str]:
    """Say how a text differs from what was expected: [] if it doesn't.

    Short texts are shown as they are, in one line; of long ones a diff around the first difference, or if that
    stands in a long line, what is there.
    """
    if expected == found:
        return []
    one_line = all("\n" not in text.rstrip("\n") for text in (expected, found))
    if one_line and max(len(expected), len(found)) <= _SHORT_TEXT:
        return [f"expected {show(expected, _SHORT_TEXT)}, got {show(found, _SHORT_TEXT)}"]
    place = _first_difference(expected, found)
    start = expected.rfind("\n", 0, place) + 1
    column = place - start
    if one_line or column > _LINE_SHOWN - _BEFORE:
        number = expected.count("\n", 0, place) + 1
        there = [_excerpt(text, start, place) for text in (expected, found)]
        return [f"line {number}, column {column + 1}: expected {there[0]}, got {there[1]}"]
    return _diff(expected, found, start)


def compare_messages(left: Message, right: Message) -> list[str]:
    """Say in which fields two messages differ: [] if they are equal. `right` is what was expected."""
    lines: list[str] = []
    for field in dataclasses.fields(left):
        found, expected = getattr(left, field.name), getattr(right, field.name)
        if not field.compare or found == expected:
            continue
        if field.name == "data":
            lines += _compare_contents(left, right)
        elif field.name == "rcpttos":
            lines += (f"rcpttos: {difference}" for difference in compare_mailboxes(found, expected))
        else:
            lines.append(f"{field.name}: expected {show(expected)}, got {show(found)}")
    return lines


def compare_mailboxes(left: list[str], right: list[str]) -> list[str]:
    """Say how a list of mailboxes differs from another one: [] if they are equal. `right` is what was expected."""
    missing: dict[str, list[str]] = {}
    for mailbox in (Counter(right) - Counter(left)).elements():
        missing.setdefault(canonical_mailbox(mailbox), []).append(mailbox)
    unexpected, respelt = [], []
    for mailbox in (Counter(left) - Counter(right)).elements():
        if same := missing.get(canonical_mailbox(mailbox)):
            respelt.append(
                f"{show(same.pop())} came as {show(mailbox)}: the same mailbox, but == compares the spelling"
            )
        else:
            unexpected.append(mailbox)
    lines = _some(respelt)
    for title, mailboxes in (("missing", [m for some in missing.values() for m in some]), ("unexpected", unexpected)):
        lines += [f"{title}: {', '.join(_some([show(mailbox) for mailbox in mailboxes]))}"] if mailboxes else []
    if left != right and not lines:
        lines.append(f"in another order: expected {show(right)}, got {show(left)}")
    return lines


def _compare_contents(left: Message, right: Message) -> list[str]:
    """Say what differs in what people see of two contents; if that is nothing, in their octets."""
    lines = _compare_headers(left.headers, right.headers)
    for name in ("text", "html"):
        lines += _entitled(name, describe_difference(getattr(right, name), getattr(left, name)))
    if left.attachments != right.attachments:
        lines.append(f"attachments: expected {show(right.attachments)}, got {show(left.attachments)}")
    place = _first_difference(left.data, right.data)
    expected, found = (_excerpt(data, 0, place) for data in (right.data, left.data))
    return lines or [f"data: from octet {place} on: expected {expected}, got {found}"]


def _compare_headers(left: Headers, right: Headers) -> list[str]:
    missing = [name for name in right if name not in left]
    unexpected = [name for name in left if name not in right]
    lines = [
        f"headers {title}: {', '.join(_some([show(name) for name in names]))}"
        for title, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    both = [(name, left.get_all(name), right.get_all(name)) for name in right if name in left]
    different = [each for each in both if each[1] != each[2]]
    for name, found, expected in different[:_LISTED]:
        if len(found) == len(expected) == 1:
            lines += _entitled(f"headers[{show(name)}]", describe_difference(expected[0], found[0]))
        else:
            lines.append(f"headers[{show(name)}]: expected {show(expected)}, got {show(found)}")
    if len(different) > _LISTED:
        lines.append(f"… and {len(different) - _LISTED} more headers")
    return lines


def _entitled(name: str, differences: list[str]) -> list[str]:
    if len(differences) > 1:
        return [f"{name}:", *(f"  {difference}".rstrip() for difference in differences)]
    return [f"{name}: {difference}" for difference in differences]


def _some(shown: list[str]) -> list[str]:
    return shown if len(shown) <= _LISTED else [*shown[:_LISTED], f"… {len(shown) - _LISTED} more"]


def _first_difference(left: AnyStr, right: AnyStr) -> int:
    """Return how long the common beginning is; by halves, as C compares them a thousand times faster."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _excerpt(value: str | bytes, start: int, place: int) -> str:
    begin = max(start, place - _BEFORE)
    shown = show(value[begin : begin + _LINE_SHOWN], 2 * _BEFORE)
    return f"…{shown}" if begin > start else shown


def _diff(expected: str, found: str, start: int) -> list[str]:
    """Return a diff from about here on, - what was expected and + what came."""
    for _ in range(_LINES_BEFORE):
        start = expected.rfind("\n", 0, max(0, start - 1)) + 1
    before, after = (text[start:].split("\n", _LINES_COMPARED)[:_LINES_COMPARED] for text in (expected, found))
    diff = difflib.unified_diff(before, after, n=_LINES_BEFORE, lineterm="")
    # The first three are headings.
    lines = [
        "…" if line.startswith("@@") else f"{line[0]} {_show_line(line[1:])}".rstrip()
        for line in itertools.islice(diff, 3, _LINES_SHOWN + 4)
    ]
    number = expected.count("\n", 0, start) + 1
    more = ["…"] if len(lines) > _LINES_SHOWN else []
    return [f"from line {number} on, - expected, + got:", *lines[:_LINES_SHOWN], *more]


def _show_line(line: str) -> str:
    """Return a line for people to read, with quotes where they would not see its end."""
    return show(line, _LINE_SHOWN) if line[-1:].isspace() else shorten(line, _LINE_SHOWN)
