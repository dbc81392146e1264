"""Deliveries: whether each message reached each of its recipients once, however often it was sent."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_smtpd.protocol.grammar import canonical_mailbox

from .criteria import Criteria
from .shown import MAX_LISTED, shorten, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .message import Message
    from .outbox import Messages, Outbox

#: What tells messages apart: the name of a header, or a function that returns something hashable.
Key: TypeAlias = "str | Callable[[Message], object]"

#: How much of what tells a message apart is shown, as a client may send anything.
_LONGEST_KEY = 200


class Deliveries:
    """What a test says of a sender that tries again: a base class of RecordingServer."""

    messages: Outbox

    def assert_delivered_exactly_once(
        self, by: Key = "Message-ID", expected: Iterable[object] | None = None, **criteria: Any
    ) -> None:
        """Hold that messages came, and none of them twice for the same recipient.

        `by` tells messages apart: the name of a header, or a function that returns something hashable for a
        message. Each of the keys that are `expected` must have come; without them, anything. The criteria are
        those of `assert_received`.

        Raises AssertionError that names what came again, what is missing, and what has no key.
        """
        __tracebackhide__ = True
        _check(by, expected)
        chosen = Criteria(criteria, {"by": "by", "expected": "expected"})
        received = self.messages.where()  # as it is now: another thread may clear the outbox
        messages = received.matching(chosen)
        problems = _find_problems(messages, received, by, expected)
        if problems or not messages:
            name = by if isinstance(by, str) else getattr(by, "__name__", repr(by))
            explanation = messages.explain(f"each message exactly once, told apart by {name}")
            raise AssertionError("\n".join([explanation, *problems]))


def _check(by: object, expected: object) -> None:
    if not isinstance(by, str) and not callable(by):
        msg = f"by is the name of a header, or a function that returns what tells messages apart, not {by!r}"
        raise TypeError(msg)
    if isinstance(expected, (str, bytes)):
        msg = f"expected is a list of what tells messages apart: [{expected!r}]"
        raise TypeError(msg)


def _find_problems(messages: Messages, received: Messages, by: Key, expected: Iterable[object] | None) -> list[str]:
    """Return what is wrong, for people; nothing if all is well. `received` gives messages their numbers."""
    from .explanation import Section

    numbers = {id(message): number for number, message in enumerate(received)}
    nameless = Section(f"Without {by}" if isinstance(by, str) else "For which the function returns None")
    deliveries: dict[tuple[object, str], list[Message]] = {}
    for message in messages:
        key = _key_of(message, by)
        if key is None:
            nameless.add(lambda message: f"[{numbers[id(message)]}] {message}", message)
            continue
        for mailbox in dict.fromkeys(map(canonical_mailbox, message.rcpttos)):
            deliveries.setdefault((key, mailbox), []).append(message)
    keys = {key for key, _ in deliveries}
    missing = [show(key, _LONGEST_KEY) for key in dict.fromkeys(expected or ()) if key not in keys]
    again = {delivery: copies for delivery, copies in deliveries.items() if len(copies) > 1}
    return [
        *(line for delivery, copies in islice(again.items(), MAX_LISTED) for line in _list_copies(*delivery, copies, numbers)),
        *([f"… and {len(again) - MAX_LISTED} more that came again"] if len(again) > MAX_LISTED else []),
        *Section("Never delivered", missing).lines,
        *nameless.lines,
    ]  # fmt: skip


def _key_of(message: Message, by: Key) -> object:
    if isinstance(by, str):
        return message.headers.get(by)
    key = by(message)
    try:
        hash(key)
    except TypeError:
        msg = f"by returns something hashable that tells messages apart, not {key!r}"
        raise TypeError(msg) from None
    return key


def _list_copies(key: object, mailbox: str, copies: list[Message], numbers: dict[int, int]) -> list[str]:
    """Return what a recipient has got more than once, and a line for each copy."""
    from .explanation import Section

    section = Section(f"Delivered again, {show(key, _LONGEST_KEY)} to <{shorten(mailbox, _LONGEST_KEY)}>")
    for copy in copies:
        section.add(_describe_copy, copy, numbers[id(copy)])
    return section.lines


def _describe_copy(message: Message, number: int) -> str:
    from .explanation import format_peer

    when = f"{message.received_at:%H:%M:%S.%f} from {format_peer(message.peer)}"
    return f"[{number}] {when}, in a session that ended with {_last_words(message)}"


def _last_words(message: Message) -> str:
    """Return what the client saw last, but for its QUIT."""
    lines = [line.format().strip() for line in message.dialogue.lines] if message.dialogue else []
    quits = [number for number, line in enumerate(lines) if line.upper() == "C: QUIT"]
    return next(iter(lines[: quits[-1] if quits else None][-1:]), "nothing")
