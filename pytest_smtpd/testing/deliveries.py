"""Deliveries: whether each message reached each of its recipients once, however often it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_smtpd.protocol.grammar import canonical_mailbox

from .explanation import format_peer, list_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .message import Message
    from .outbox import Messages, Outbox

#: What tells messages apart: the name of a header, or a function that returns something hashable.
Key: TypeAlias = "str | Callable[[Message], object]"


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
        messages = self.messages.where(**criteria)
        problems = _find_problems(messages, self.messages[:], by, expected)
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


def _find_problems(
    messages: Messages, received: list[Message], by: Key, expected: Iterable[object] | None
) -> list[str]:
    """Return what is wrong, for people; nothing if all is well. `received` gives messages their numbers."""
    numbers = {id(message): number for number, message in enumerate(received)}
    nameless = []
    deliveries: dict[object, list[Message]] = {}
    for message in messages:
        key = _key_of(message, by)
        if key is None:
            nameless.append(f"[{numbers.get(id(message), '?')}] {message}")
        else:
            deliveries.setdefault(key, []).append(message)
    again = [line for key, copies in deliveries.items() for line in _describe_again(key, copies, numbers)]
    missing = [repr(key) for key in dict.fromkeys(expected or ()) if key not in deliveries]
    return [
        *list_section("Delivered again", again),
        *list_section("Never delivered", missing),
        *list_section(f"Without {by}" if isinstance(by, str) else "For which the function returns None", nameless),
    ]


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


def _describe_again(key: object, copies: list[Message], numbers: dict[int, int]) -> list[str]:
    """Return a line for each recipient who has got this more than once, and what became of each copy."""
    recipients: dict[str, list[Message]] = {}
    for message in copies:
        for mailbox in dict.fromkeys(map(canonical_mailbox, message.rcpttos)):
            recipients.setdefault(mailbox, []).append(message)
    return [
        f"{key!r} to <{mailbox}>, {len(got)} times:{''.join(_describe_copy(copy, numbers) for copy in got)}"
        for mailbox, got in recipients.items()
        if len(got) > 1
    ]


def _describe_copy(message: Message, numbers: dict[int, int]) -> str:
    when = f"{message.received_at:%H:%M:%S.%f} from {format_peer(message.peer)}"
    return f"\n    [{numbers.get(id(message), '?')}] {when}, a session that ended so: {_last_words(message)}"


def _last_words(message: Message) -> str:
    """Return what the client saw last, but for its QUIT."""
    lines = [line.format().strip() for line in message.dialogue.lines] if message.dialogue else []
    quits = [number for number, line in enumerate(lines) if line.upper() == "C: QUIT"]
    return next(iter(lines[: quits[-1] if quits else None][-1:]), "nobody knows")
