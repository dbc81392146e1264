"""Assertions: what a test says of the messages that a server received, and how it waits for them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, overload

from .waiting import async_signal, wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pytest_smtpd.network.loop import Loop

    from .message import Message
    from .outbox import Messages, Outbox


class Assertions:
    """What a test says of a server's messages: a base class of RecordingServer.

    All of them take criteria by name, see `Criteria`; a name that is no criterion is a TypeError. What they
    raise, AssertionError, tells the messages that came, what differs in the nearest ones, and what else
    happened. Times are in seconds.
    """

    #: The messages received since the server was made or cleared.
    messages: Outbox
    #: For how long the methods that wait do so where nothing else is said.
    wait_timeout: float

    @property
    def loop(self) -> Loop | None:
        """What serves, if anything does."""
        raise NotImplementedError

    def when_idle(self, call: Callable[[], object]) -> None:
        """Have this called as soon as no client is connected."""
        raise NotImplementedError

    def explain_idle(self) -> str:
        """Say which clients are connected."""
        raise NotImplementedError

    @overload
    def assert_received(self, count: None = None, timeout: float = 0, **criteria: Any) -> Message: ...
    @overload
    def assert_received(self, count: int, timeout: float = 0, **criteria: Any) -> list[Message]: ...
    def assert_received(self, count: int | None = None, timeout: float = 0, **criteria: Any) -> Message | list[Message]:
        """Return the only message that meets the criteria, or with `count` the list of exactly so many.

        Waits up to `timeout` for them to come.
        """
        __tracebackhide__ = True
        wanted = 1 if count is None else _check_count(count)
        self._wait(wanted, _check_seconds("timeout", timeout), criteria)
        chosen = self.messages.where(**criteria)
        if len(chosen) != wanted:
            expected = "exactly one message" if count is None else _amount(wanted)
            raise AssertionError(chosen.explain(expected) + _waited(timeout if len(chosen) < wanted else 0))
        return chosen[0] if count is None else list(chosen)

    def assert_not_received(self, within: float = 0, **criteria: Any) -> None:
        """Raise AssertionError when a message meets the criteria, or does so `within` this time from now."""
        __tracebackhide__ = True
        self._wait(1, _check_seconds("within", within), criteria)
        if chosen := self.messages.where(**criteria):
            raise AssertionError(chosen.explain("no message"))

    def assert_nothing_received(self, within: float = 0) -> None:
        """Raise AssertionError when a message has come, or does so `within` this time from now."""
        __tracebackhide__ = True
        self.assert_not_received(within)

    def wait_for(self, count: int = 1, timeout: float | None = None, **criteria: Any) -> list[Message]:
        """Wait until there are `count` messages that meet the criteria; return these, the first ones.

        `timeout` is the server's `wait_timeout` where it is None.
        """
        __tracebackhide__ = True
        seconds = self._seconds(timeout)
        found = self._wait(_check_count(count), seconds, criteria)
        if found is None:
            raise AssertionError(self.messages.where(**criteria).explain(_amount(count)) + _waited(seconds))
        return found

    async def wait_for_async(self, count: int = 1, timeout: float | None = None, **criteria: Any) -> list[Message]:  # noqa: ASYNC109 - the same as wait_for's
        """Wait as `wait_for` does, in a task of asyncio or trio, without blocking the event loop."""
        __tracebackhide__ = True
        seconds = self._seconds(timeout)
        search = self.messages.search(_check_count(count), **criteria)
        signal = async_signal()
        with self.messages.watched(lambda _message: signal.set()):
            found = await wait_until_async(search.look, signal, seconds)
        if found is None:
            raise AssertionError(self.messages.where(**criteria).explain(_amount(count)) + _waited(seconds))
        return found

    def wait_until_idle(self, timeout: float | None = None) -> None:
        """Wait until no client is connected, not even one that the server has not noticed yet.

        `timeout` is the server's `wait_timeout` where it is None.
        """
        __tracebackhide__ = True
        self._check_thread()
        seconds = min(self._seconds(timeout), threading.TIMEOUT_MAX)
        idle = threading.Event()
        self.when_idle(idle.set)
        if not idle.wait(seconds):
            raise AssertionError(self.explain_idle() + _waited(seconds))

    def capture(self) -> AbstractContextManager[Messages]:
        """Collect what arrives inside a block: `with server.capture() as messages: …`."""
        return self.messages.capture()

    def _wait(self, count: int, seconds: float, criteria: dict[str, Any]) -> list[Message] | None:
        search = self.messages.search(count, **criteria)
        if not seconds:
            return search.look()
        self._check_thread()
        signal = threading.Event()
        with self.messages.watched(lambda _message: signal.set()):
            return wait_until(search.look, signal, seconds)

    def _seconds(self, timeout: float | None) -> float:
        return self.wait_timeout if timeout is None else _check_seconds("timeout", timeout)

    def _check_thread(self) -> None:
        if self.loop is not None and self.loop.runs_here:
            msg = "this is the server's own thread: nothing can arrive while it waits"
            raise RuntimeError(msg)


def _check_count(count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        msg = f"count is how many messages are expected, not {count!r}; criteria go by name, such as subject=…"
        raise TypeError(msg)
    return count


def _check_seconds(name: str, seconds: object) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        msg = f"{name} is a number of seconds, not {seconds!r}; criteria go by name, such as subject=…"
        raise TypeError(msg)
    return seconds


def _amount(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _waited(seconds: float) -> str:
    return f"\nWaited for {seconds:g} s." if seconds else ""
