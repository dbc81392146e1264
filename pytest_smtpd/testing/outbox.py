"""Outbox: the received messages as a sequence to look into, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from .criteria import Criteria

if TYPE_CHECKING:
    from .message import Message

#: For how many messages a failure shows what differs.
_NEAREST = 3
#: How many messages a failure lists.
_LISTED = 20


class Messages(Sequence["Message"]):
    """Messages in the order in which they were received: a read-only sequence."""

    def __init__(self, messages: list[Message], criteria: Criteria, received: Messages | None = None) -> None:
        self._messages = messages
        self._criteria = criteria
        #: All messages among which the criteria chose.
        self._received = self if received is None else received

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        """Return the message at this place, or those of a slice."""
        return self._messages[index]

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self._messages)

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of messages."""
        if isinstance(other, Sequence):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} messages>"

    def where(self, **criteria: Any) -> Messages:
        """Return the messages that meet all criteria; see `Criteria`."""
        chosen = Criteria(criteria)
        present = list(self._messages)
        received = Messages(present, Criteria({})) if self._received is self else self._received
        return Messages([m for m in present if chosen.match(m)], self._criteria.joined(chosen), received)

    def one(self) -> Message:
        """Return the only message; raises AssertionError, with a summary, when there are more or fewer."""
        __tracebackhide__ = True
        messages = self[:]  # once: another thread may clear the outbox
        if len(messages) != 1:
            raise AssertionError(self.explain("exactly one message"))
        return messages[0]

    def first(self) -> Message:
        """Return the first message; raises AssertionError, with a summary, when there is none."""
        __tracebackhide__ = True
        messages = self[:]
        if not messages:
            raise AssertionError(self.explain("a message"))
        return messages[0]

    def last(self) -> Message:
        """Return the last message; raises AssertionError, with a summary, when there is none."""
        __tracebackhide__ = True
        messages = self[:]
        if not messages:
            raise AssertionError(self.explain("a message"))
        return messages[-1]

    def explain(self, expected: str) -> str:
        """Say what was expected, what came, and for the nearest messages what differs."""
        that = f" with {self._criteria}" if self._criteria else ""
        found = f"expected {expected}{that}, found {len(self) or 'none'}"
        return "\n".join([found, *_listing(list(self._received), self._criteria)])


class Outbox(Messages):
    """The messages that a server received, as they come: indexed, counted, and searched from any thread."""

    def __init__(self) -> None:
        super().__init__([], Criteria({}))
        self._lock = threading.Lock()
        #: How often the outbox was cleared.
        self.generation = 0

    def add(self, message: Message, generation: int) -> None:
        """Add a message whose transaction began in this generation, if that is still the present one."""
        with self._lock:
            if generation == self.generation:
                self._messages.append(message)

    def clear(self) -> None:
        """Forget all messages, and those whose transaction has begun."""
        with self._lock:
            self.generation += 1
            self._messages = []


def _listing(received: list[Message], criteria: Criteria) -> list[str]:
    """List messages, the nearest with what differs."""
    if not received:
        return ["The server has received no message."]
    explained = [(criteria.explain(message), index) for index, message in enumerate(received)]
    nearest = {index for differences, index in sorted(explained, key=lambda e: (len(e[0]), e[1]))[:_NEAREST]}
    lines = [f"Messages received: {len(received)}"]
    for differences, index in explained[:_LISTED]:
        lines.append(f"  [{index}] {received[index]}")
        if index in nearest:
            lines += [f"        {difference}" for difference in differences]
    if len(received) > _LISTED:
        lines.append(f"  … and {len(received) - _LISTED} more")
    return lines
