"""Outbox: the received messages as a sequence to look into, and to wait for, from any thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from .criteria import Criteria
from .shown import MAX_LISTED

if TYPE_CHECKING:
    from .message import Message

#: Every message meets them.
_NO_CRITERIA = Criteria({})

#: What a failure says where there are no messages, and before those that there are.
_RECEIVED = "The server has received no message.", "Messages received"
_CAPTURED = "No message was captured.", "Messages captured"

#: For how many messages a failure shows what differs.
_NEAREST = 3


class Messages(Sequence["Message"]):
    """Messages in the order in which they were received: a read-only sequence."""

    def __init__(
        self,
        messages: list[Message],
        criteria: Criteria = _NO_CRITERIA,
        received: Messages | None = None,
        circumstances: Callable[[], list[str]] = list,
        titles: tuple[str, str] = _RECEIVED,
    ) -> None:
        self._messages = messages
        self._criteria = criteria
        #: All messages among which the criteria chose.
        self._received = self if received is None else received
        #: Tells what else has happened, for those who look for a message that is not there.
        self._circumstances = circumstances
        self._titles = titles

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
        __tracebackhide__ = True
        return self.matching(Criteria(criteria))

    def matching(self, chosen: Criteria) -> Messages:
        """Return the messages that meet these criteria as well."""
        present = list(self._messages)
        received = Messages(present) if self._received is self else self._received
        matching = [message for message in present if chosen.match(message)]
        return Messages(matching, self._criteria.joined(chosen), received, self._circumstances, self._titles)

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

    @property
    def summary(self) -> str:
        """The messages, a line each."""
        return "\n".join(_listing(list(self), _NO_CRITERIA, self._titles))

    def explain(self, expected: str, ending: str = "") -> str:
        """Say what was expected, what came, for the nearest messages what differs, and what else has happened.

        `ending` says how a wait for it has ended.
        """
        that = f" with {self._criteria}" if self._criteria else ""
        found = f"expected {expected}{that}, found {len(self) or 'none'}{ending}"
        listing = _listing(list(self._received), self._criteria, self._titles)
        return "\n".join([found, *listing, *self._circumstances()])


class Generation:
    """The time from one `clear` to the next: a test, where the plugin clears."""

    __slots__ = ("owner",)

    def __init__(self, owner: str = "") -> None:
        #: Whose messages these are, such as the node ID of a test.
        self.owner = owner


class Outbox(Messages):
    """The messages that a server received, as they come: indexed, counted, and searched from any thread."""

    def __init__(self, circumstances: Callable[[], list[str]] = list) -> None:
        super().__init__([], circumstances=circumstances)
        # Again by the thread that holds it: the garbage collector may come at any time, and end a `capture`.
        self._lock = threading.RLock()
        self._watchers: list[Callable[[], object]] = []
        #: What is captured just now, by identity: equal lists are not the same.
        self._captured: dict[int, list[Message]] = {}
        #: Messages begun in another one are not for this outbox any more.
        self.generation = Generation()

    def add(self, message: Message, generation: Generation) -> bool:
        """Add a message whose transaction began in this generation, if that is still the present one."""
        with self._lock:
            if generation is not self.generation:
                return False
            self._messages.append(message)
            if self._captured or self._watchers:
                self._tell(message)
            return True

    def _tell(self, message: Message) -> None:
        for captured in list(self._captured.values()):
            captured.append(message)
        self._wake()

    def wake(self) -> None:
        """Call all watchers, though nothing came."""
        with self._lock:
            self._wake()

    def _wake(self) -> None:
        for watcher in list(self._watchers):
            watcher()

    def clear(self, owner: str | None = None) -> None:
        """Forget all messages, and those whose transaction has begun; what comes next is this owner's.

        None stands for the present owner.
        """
        with self._lock:
            self.generation = Generation(self.generation.owner if owner is None else owner)
            self._messages = []

    @contextlib.contextmanager
    def watched(self, watcher: Callable[[], object]) -> Iterator[None]:
        """Have this called whenever a message has come; it must neither wait nor look into the outbox."""
        with self._lock:
            self._watchers.append(watcher)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(watcher)

    @contextlib.contextmanager
    def capture(self) -> Iterator[Messages]:
        """Collect what arrives inside the block, whoever clears the outbox meanwhile."""
        captured: list[Message] = []
        with self._lock:
            self._captured[id(captured)] = captured
        try:
            yield Messages(captured, circumstances=self._circumstances, titles=_CAPTURED)
        finally:
            with self._lock:
                del self._captured[id(captured)]

    def search(self, count: int, criteria: Criteria) -> Search:
        """Return a search for so many messages that meet these criteria."""
        __tracebackhide__ = True
        return Search(self, criteria, count)

    def since(self, generation: Generation | None, index: int) -> tuple[Generation, list[Message]]:
        """Return the messages from this index on; all if the outbox was cleared since; and what generation it is."""
        with self._lock:
            return self.generation, self._messages[index if generation is self.generation else 0 :]


class News:
    """What is new in an outbox each time that somebody looks: each message once."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._generation: Generation | None = None
        self._seen = 0

    def look(self) -> tuple[bool, list[Message]]:
        """Return whether the outbox was cleared since the last time, and what has come since then or since that."""
        generation, new = self._outbox.since(self._generation, self._seen)
        is_cleared = generation is not self._generation
        if is_cleared:
            self._generation, self._seen = generation, 0
        self._seen += len(new)
        return is_cleared, new


class Search:
    """Looks for messages in an outbox as they come."""

    def __init__(self, outbox: Outbox, criteria: Criteria, count: int) -> None:
        self._news = News(outbox)
        self._criteria = criteria
        self._count = count
        self._found: list[Message] = []

    def look(self) -> list[Message] | None:
        """Look at what is new; return the first `count` messages that match, None before there are so many."""
        is_cleared, new = self._news.look()
        if is_cleared:
            self._found = []
        self._found += [message for message in new if self._criteria.match(message)]
        return self._found[: self._count] if len(self._found) >= self._count else None


def _listing(received: list[Message], criteria: Criteria, titles: tuple[str, str]) -> list[str]:
    """List messages, the first ones and the nearest, these with what differs."""
    none, some = titles
    if not received:
        return [none]
    missed = [criteria.count_missed(message) for message in received]
    near = sorted((count, index) for index, count in enumerate(missed) if count)[:_NEAREST]
    nearest = {index for _, index in near}
    lines = [f"{some}: {len(received)}"]
    listed = sorted({*range(len(received))[:MAX_LISTED], *nearest})
    for index in listed:
        matches = "  (matches)" if any(missed) and not missed[index] else ""
        lines.append(f"  [{index}] {received[index]}{matches}")
        if index in nearest:
            lines += [f"        {difference}" for difference in criteria.explain(received[index])]
    return [*lines, f"  … and {len(received) - len(listed)} more"] if len(received) > len(listed) else lines
