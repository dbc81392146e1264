"""Criteria: which messages match, and why the others don't."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeGuard

from pytest_smtpd.protocol.grammar import canonical_mailbox

from .expectations import check_expected, show_expected
from .matching import contains, equals, has_recipients, same_mailbox
from .message import Message
from .shown import show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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

#: What is meant by names that people use elsewhere.
_OTHER_NAMES = {
    **dict.fromkeys(("sender", "from_addr", "envelope_from", "return_path"), "mailfrom"),
    **dict.fromkeys(("recipient", "recipients", "to_addrs", "envelope_to"), "rcpttos"),
    "from_": "mailfrom, or headers={'From': …}",
    "to": "rcpttos, or headers={'To': …}",
    "cc": "rcpttos, or headers={'Cc': …}",
    "reply_to": "headers={'Reply-To': …}",
    "message_id": "headers={'Message-ID': …}",
    "content": "body, or data",
    "payload": "body, or data",
    "message": "body, or data",
    "user": "auth",
}

#: How much is shown of a value, and how many recipients can be looked over.
_SHOWN, _FEW = 200, 6


class Criteria:
    """A set of criteria by name, all of which a message must meet.

    A value is compared with `==`; a compiled pattern is searched; a callable is asked. Mailboxes compare as
    RFC 5321 2.4 says. In `rcpttos`, one address must be among the recipients, a list names exactly these in
    any order, a tuple these in this order. `body` is contained in the text or the HTML body, `headers` maps
    names to values, `attachment` is a file name.

    Raises TypeError for a name that is no criterion and for a value of a type that no message can have,
    ValueError for what is no address. `keywords` are parameters that may be meant instead, by what people write.
    """

    def __init__(self, criteria: Mapping[str, Any], keywords: Mapping[str, str] = MappingProxyType({})) -> None:
        __tracebackhide__ = True
        for name, expected in criteria.items():
            _check_name(name, keywords)
            check_expected(name, expected)
        self._criteria = [_Criterion(name, expected) for name, expected in criteria.items()]

    def __str__(self) -> str:
        return ", ".join(f"{criterion.name}={criterion.shown}" for criterion in self._criteria)

    def __bool__(self) -> bool:
        return bool(self._criteria)

    def joined(self, others: Criteria) -> Criteria:
        """Return these criteria and others as well."""
        both = Criteria({})
        both._criteria = [*self._criteria, *others._criteria]
        return both

    def match(self, message: Message) -> bool:
        """Whether the message meets all criteria."""
        return all(criterion.is_met(message) for criterion in self._criteria)

    def count_missed(self, message: Message) -> int:
        """Return how many criteria the message does not meet."""
        return sum(not criterion.is_met(message) for criterion in self._criteria)

    def explain(self, message: Message) -> list[str]:
        """Return for each criterion that the message does not meet what differs; what belongs to it is indented."""
        missed = (criterion for criterion in self._criteria if not criterion.is_met(message))
        return [line for criterion in missed for line in criterion.explain(message)]


def _check_name(name: str, keywords: Mapping[str, str]) -> None:
    __tracebackhide__ = True
    if name not in _NAMES:
        import difflib

        close = difflib.get_close_matches(name, {*_NAMES, *keywords}, n=1)
        meant = _OTHER_NAMES.get(name) or (keywords.get(close[0], close[0]) if close else "")
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(sorted(_NAMES))}"
        msg = f"{name} is no criterion for messages: {hint}"
        raise TypeError(msg)


class _Criterion:
    """What is expected of one attribute, and how that prints."""

    def __init__(self, name: str, expected: Any) -> None:
        self.name = name
        self.expected = expected
        # Now, as some objects print differently once they were compared.
        self.shown = show_expected(expected)

    def is_met(self, message: Message) -> bool:
        """Whether the message meets it; notes the criterion on what a function raises."""
        try:
            return self._is_met(message)
        except Exception as error:
            error.add_note(f"raised by the criterion {self.name}={self.shown}, for the message {message}")
            raise

    def _is_met(self, message: Message) -> bool:
        expected = self.expected
        match self.name:
            case "headers":
                return not any(_missed_headers(message, expected))
            case "body":
                return any(contains(body, expected) for body in (message.text, message.html))
            case "attachment":
                return any(equals(attachment.name, expected) for attachment in message.attachments)
            case "rcpttos":
                return has_recipients(message.rcpttos, expected)
            case "mailfrom":
                return same_mailbox(message.mailfrom, expected)
            case name:
                return equals(getattr(message, name), expected)

    def explain(self, message: Message) -> list[str]:
        """Say how the message misses it."""
        name, expected = self.name, self.expected
        if name == "headers":
            return [
                f"headers[{show(header)}]: expected {show_expected(value)}, got {_list(message.headers.get_all(header))}"
                for header, value in _missed_headers(message, expected)
            ]
        if name == "body":
            bodies = {"text": message.text, "HTML": message.html}
            got = ", ".join(f"{kind} {show(body, _SHOWN)}" for kind, body in bodies.items() if body)
            return [f"body: expected {self.shown} in it, got {got or 'none'}"]
        if name == "attachment":
            got = _list([attachment.name for attachment in message.attachments])
            return [f"attachment: expected {self.shown}, got {got}"]
        return _entitle(name, self._differences(getattr(message, name)))

    def _differences(self, found: Any) -> list[str]:
        from .comparing import compare_mailboxes, describe_difference

        expected, lines = self.expected, []
        if isinstance(found, str) and isinstance(expected, str):
            lines = describe_difference(expected, found)
        elif self.name == "rcpttos" and _are_addresses(expected) and len(found) + len(expected) > _FEW:
            # As mailboxes: here another spelling is no difference.
            lines = compare_mailboxes(*([canonical_mailbox(each) for each in them] for them in (found, expected)))
        return lines or [f"expected {self.shown}, got {show(found, _SHOWN)}"]


def _are_addresses(expected: object) -> TypeGuard[list[str] | tuple[str, ...]]:
    return isinstance(expected, (list, tuple)) and all(isinstance(address, str) for address in expected)


def _missed_headers(message: Message, expected: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in expected.items():
        if not any(equals(header, value) for header in message.headers.get_all(name)):
            yield name, value


def _list(found: list[str]) -> str:
    return show(found, _SHOWN) if found else "none"


def _entitle(name: str, lines: list[str]) -> list[str]:
    return [f"{name}: {lines[0]}", *(f"  {line}" for line in lines[1:] if line)]
