"""Waiting for what the server's thread tells: in a thread, or in a task of asyncio or trio.

Neither polls, and neither asyncio nor trio is imported unless the caller has done so.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._when = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """How many seconds are left; 0.0 if none are."""
        return min(max(0.0, self._when - time.monotonic()), threading.TIMEOUT_MAX)


class Signal(Protocol):
    """What a task waits for and another thread sets; it may be set again."""

    def set(self) -> None:
        """End the wait; from any thread."""

    async def wait(self, seconds: float) -> None:
        """Wait until it is set, at most so many seconds, and take it back."""


def wait_until(
    look: Callable[[], T | None], is_over: Callable[[], bool], signal: threading.Event, seconds: float
) -> T | None:
    """Look each time that the signal is set, until there is a result; None if there is none in time, or it is over."""
    deadline = Deadline(seconds)
    while True:
        is_last = is_over() or not deadline.remaining  # first: what came just before the end counts
        if (result := look()) is not None or is_last:
            return result
        signal.wait(deadline.remaining)
        signal.clear()


async def wait_until_async(
    look: Callable[[], T | None], is_over: Callable[[], bool], signal: Signal, seconds: float
) -> T | None:
    """Look as `wait_until` does, without blocking the event loop."""
    deadline = Deadline(seconds)
    while True:
        is_last = is_over() or not deadline.remaining
        if (result := look()) is not None or is_last:
            return result
        await signal.wait(deadline.remaining)


def async_signal() -> Signal:
    """Return a signal for the asynchronous library in whose task this is called."""
    if _is_trio_task():
        return _TrioSignal()
    import asyncio  # takes longer to import than all of this package

    return _AsyncioSignal(asyncio.get_running_loop(), asyncio.Event())


def blocks_event_loop() -> bool:
    """Whether this is a task of an event loop, which does nothing while the task's thread waits."""
    asyncio = sys.modules.get("asyncio")
    try:
        # Not any code in a thread whose loop runs: Playwright's has tests run in one that can't await.
        return _is_trio_task() or (asyncio is not None and asyncio.current_task() is not None)
    except RuntimeError:
        return False


def _is_trio_task() -> bool:
    # First, as trio may run in a loop of asyncio's; and not by sniffio, which tells what somebody has set once.
    trio = sys.modules.get("trio")
    try:
        return trio is not None and trio.lowlevel.current_task() is not None
    except RuntimeError:
        return False


class _AsyncioSignal:
    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self._loop = loop
        self._event = event

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        from asyncio import timeout

        with contextlib.suppress(TimeoutError):
            async with timeout(seconds):
                await self._event.wait()
        self._event.clear()


class _TrioSignal:
    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def set(self) -> None:
        with contextlib.suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._set)

    def _set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        with self._trio.move_on_after(seconds):
            await self._event.wait()
        self._event = self._trio.Event()
