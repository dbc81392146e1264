"""Assertions: what a test says of the messages that a server received, and how it waits for them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, overload

from pytest_smtpd.smtpd.service import Service

from .criteria import Criteria
from .shown import show
from .waiting import async_signal, blocks_event_loop, wait_until, wait_until_async

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .message import Message
    from .outbox import Messages, Outbox

#: What is meant by names that are no criteria, where messages are to come, and where they are not.
_COMING = {"count": "count", "timeout": "timeout", "within": "timeout"}
_NOT_COMING = {"within": "within", "timeout": "within"}


class Assertions(Service):
    """What a test says of a server's messages: a base class of RecordingServer.

    All of them take criteria by name, see `Criteria`; a name that is no criterion is a TypeError. What they
    raise, AssertionError, tells the messages that came, what differs in the nearest ones, and what else
    happened. Times are in seconds.
    """

    #: The messages received since the server was made or cleared.
    messages: Outbox
    #: For how long the methods that wait do so where nothing else is said.
    wait_timeout: float

    def explain_idle(self, ending: str) -> str:
        """Say which clients are connected, and how the wait for them to go has ended."""
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
        wanted, seconds = _check_count(count), _check_seconds("timeout", timeout)
        chosen = Criteria(criteria, _COMING)
        self._wait(wanted, seconds, chosen)
        found = self.messages.matching(chosen)
        if len(found) != wanted:
            ending = self._ending(seconds) if len(found) < wanted else ""
            raise AssertionError(found.explain("exactly one message" if count is None else _amount(wanted), ending))
        return found[0] if count is None else list(found)

    def assert_not_received(self, within: float = 0, **criteria: Any) -> None:
        """Raise AssertionError when a message meets the criteria, or does so `within` this time from now.

        Raises RuntimeError where it would block an event loop: there `await asyncio.sleep(…)`, and assert then.
        """
        __tracebackhide__ = True
        seconds, unwanted = _check_seconds("within", within), Criteria(criteria, _NOT_COMING)
        if seconds and blocks_event_loop():  # of what that is to send, nothing could come
            msg = (
                f"within={within} would block the event loop of this thread, so that it sends nothing: "
                "await asyncio.sleep(…) or trio.sleep(…) instead, and then assert it without `within`"
            )
            raise RuntimeError(msg)
        self._wait(1, seconds, unwanted)
        if found := self.messages.matching(unwanted):
            raise AssertionError(found.explain("no message"))

    def assert_nothing_received(self, within: float = 0) -> None:
        """Raise AssertionError when a message has come, or does so `within` this time from now."""
        __tracebackhide__ = True
        self.assert_not_received(within)

    def wait_for(self, count: int = 1, timeout: float | None = None, **criteria: Any) -> list[Message]:
        """Wait until there are `count` messages that meet the criteria; return these, the first ones.

        `timeout` is the server's `wait_timeout` where it is None.
        """
        __tracebackhide__ = True
        wanted, seconds, chosen = _check_count(count), self._seconds(timeout), Criteria(criteria, _COMING)
        found = self._wait(wanted, seconds, chosen)
        if found is None:
            raise AssertionError(self.messages.matching(chosen).explain(_amount(wanted), self._ending(seconds)))
        return found

    async def wait_for_async(self, count: int = 1, timeout: float | None = None, **criteria: Any) -> list[Message]:  # noqa: ASYNC109 - the same as wait_for's
        """Wait as `wait_for` does, in a task of asyncio or trio, without blocking the event loop."""
        __tracebackhide__ = True
        wanted, seconds, chosen = _check_count(count), self._seconds(timeout), Criteria(criteria, _COMING)
        search, signal = self.messages.search(wanted, chosen), async_signal()
        with self.messages.watched(signal.set):
            found = await wait_until_async(search.look, self._is_over, signal, seconds)
        if found is None:
            ending = self._ending(seconds, blocked=False)
            raise AssertionError(self.messages.matching(chosen).explain(_amount(wanted), ending))
        return found

    def wait_until_idle(self, timeout: float | None = None) -> None:
        """Wait until no client is connected, not even one that the server has not noticed yet.

        `timeout` is the server's `wait_timeout` where it is None.
        """
        __tracebackhide__ = True
        self._check_thread()
        seconds = self._seconds(timeout)
        idle = threading.Event()
        with self.when_idle(idle.set):
            is_idle = idle.wait(min(seconds, threading.TIMEOUT_MAX))
        if not is_idle:
            raise AssertionError(self.explain_idle(self._ending(seconds)))

    def capture(self) -> AbstractContextManager[Messages]:
        """Collect what arrives inside a block: `with server.capture() as messages: …`."""
        return self.messages.capture()

    def _wait(self, count: int, seconds: float, criteria: Criteria) -> list[Message] | None:
        search = self.messages.search(count, criteria)
        if not seconds:
            return search.look()
        self._check_thread()
        signal = threading.Event()
        with self.messages.watched(signal.set):
            return wait_until(search.look, self._is_over, signal, seconds)

    def _seconds(self, timeout: float | None) -> float:
        return self.wait_timeout if timeout is None else _check_seconds("timeout", timeout)

    def _is_over(self) -> bool:
        return self.is_closed

    def _ending(self, seconds: float, *, blocked: bool = True) -> str:
        """Say how a wait has ended in vain; `blocked` if it was the thread that waited."""
        if not seconds:
            return ""
        if self.is_closed:
            return "; nothing can come any more, the server is stopped"
        within = f" within {seconds:g} s"
        if blocked and blocks_event_loop():
            return f"{within}, while the event loop of this thread was blocked: await wait_for_async(…) instead"
        return within

    def _check_thread(self) -> None:
        loop = self.loop
        if loop is not None and loop.runs_here:
            msg = "this is the server's own thread: nothing can arrive while it waits"
            raise RuntimeError(msg)


def _check_count(count: object) -> int:
    if count is None:
        return 1
    if not isinstance(count, int) or isinstance(count, bool):
        msg = f"count is a number of messages, not {show(count)}; criteria go by name, such as subject=…"
        raise TypeError(msg)
    if count < 0:
        msg = f"count is 0 or more, not {count}"
        raise ValueError(msg)
    return count


def _check_seconds(name: str, seconds: object) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        msg = f"{name} is a number of seconds, not {show(seconds)}; criteria go by name, such as subject=…"
        raise TypeError(msg)
    if not seconds >= 0:  # as NaN is not, either
        msg = f"{name} is 0 seconds or more, not {seconds}"
        raise ValueError(msg)
    return seconds


def _amount(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
