"""Waiting: in threads, in tasks of asyncio and trio, until something comes, time is up, or it is over."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from pytest_smtpd.testing.waiting import (
    Deadline,
    async_signal,
    blocks_event_loop,
    wait_until,
    wait_until_async,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd.testing.waiting import Signal

#: Seconds until a test that fails gives up; no other one waits for so long.
LONG = 30.0


def never() -> bool:
    """Say that it is not over."""
    return False


def after(looks: int, then: Callable[[], object]) -> Callable[[], str | None]:
    """Return what finds "it" after so many looks in vain, each of which does something."""
    left = looks

    def look() -> str | None:
        nonlocal left
        if not left:
            return "it"
        left -= 1
        then()
        return None

    return look


def test_what_is_there_is_found_at_once() -> None:
    """Where there is a result, nothing is waited for, not even if there is no time or it is over."""
    for is_over, seconds in ((never, LONG), (never, 0), (lambda: True, LONG)):
        assert wait_until(after(0, never), is_over, threading.Event(), seconds) == "it"


def test_a_signal_has_it_look_again() -> None:
    """After each signal it looks again, also if that came while it was looking."""
    signal = threading.Event()
    assert wait_until(after(3, signal.set), never, signal, LONG) == "it"


def test_time_is_up() -> None:
    """Without a signal it ends when its time is up, having looked once more."""
    looks: list[None] = []
    assert wait_until(lambda: looks.append(None), never, threading.Event(), 0.01) is None
    assert len(looks) == 2


def test_what_comes_just_before_the_end_is_found() -> None:
    """When it is over it looks a last time: what came before counts."""
    come: list[str] = []

    def is_over() -> bool:
        come.append("it")
        return True

    assert wait_until(lambda: come[0] if come else None, is_over, threading.Event(), LONG) == "it"
    assert wait_until(never_found, is_over, threading.Event(), LONG) is None


def never_found() -> str | None:
    """Find nothing."""
    return None


def test_there_is_an_end_of_time() -> None:
    """A wait without end is one as long as the system knows; one of no time has none left."""
    assert Deadline(math.inf).remaining == threading.TIMEOUT_MAX
    assert Deadline(0).remaining == 0.0


# In tasks.


@pytest.mark.anyio
async def test_a_task_looks_again_after_a_signal() -> None:
    """In a task of asyncio or trio, each signal has it look again, from whichever thread it comes."""
    signal = async_signal()
    with ThreadPoolExecutor(1) as pool:
        found = await wait_until_async(after(3, lambda: pool.submit(signal.set)), never, signal, LONG)
    assert found == "it"


@pytest.mark.anyio
async def test_a_task_ends_in_time() -> None:
    """In a task, too, it ends when time is up or it is over; a signal that came before does not count."""
    assert await wait_until_async(never_found, never, async_signal(), 0.01) is None
    assert await wait_until_async(never_found, lambda: True, async_signal(), LONG) is None
    assert await wait_until_async(never_found, never, async_signal(), 0) is None


@pytest.mark.anyio
async def test_other_tasks_go_on() -> None:
    """While a task waits, another one runs: it is what makes the wait end."""
    signal = async_signal()
    steps: list[int] = []

    async def walk() -> None:
        for step in range(100):
            await checkpoint()
            steps.append(step)
        signal.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(walk)
        look = lambda: steps if len(steps) == 100 else None  # noqa: E731 - it has the type that is asked for
        assert await wait_until_async(look, never, signal, LONG) == list(range(100))


@pytest.mark.anyio
async def test_a_wait_can_be_cancelled() -> None:
    """A task that waits can be cancelled, as any other."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await wait_until_async(never_found, never, async_signal(), LONG)
    assert scope.cancelled_caught


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_a_signal_for_an_event_loop_that_is_gone_is_lost(run: Callable[..., Signal]) -> None:
    """A message may come when nobody waits any more, not even the event loop."""

    async def make() -> Signal:
        return async_signal()

    signal = run(make) if run is trio.run else run(make())
    signal.set()


def test_outside_of_an_event_loop_there_is_no_signal() -> None:
    """Without an event loop there is nothing to wait in: the error is asyncio's."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        async_signal()


def test_an_event_loop_is_noticed() -> None:
    """A task that blocks the thread of its event loop can be told so."""

    async def look() -> bool:
        return blocks_event_loop()

    assert asyncio.run(look())
    assert trio.run(look)
    assert not blocks_event_loop()


def test_who_is_no_task_blocks_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of tasks nobody is told to await, be it in a thread whose loop runs, or without either library."""
    found: list[bool] = []
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: found.append(blocks_event_loop()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert found == [False]
    monkeypatch.delitem(sys.modules, "trio")
    monkeypatch.delitem(sys.modules, "asyncio")
    assert not blocks_event_loop()


def test_trio_is_found_in_a_loop_of_asyncio() -> None:
    """A task of trio waits by trio, also where trio runs as a guest in asyncio's event loop, and others as they do."""

    async def in_trio() -> str:
        return type(async_signal()).__name__

    async def main() -> tuple[str, str]:
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            in_trio,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=lambda outcome: done.set_result(outcome.unwrap()),
        )
        return await done, type(async_signal()).__name__

    assert asyncio.run(main()) == ("_TrioSignal", "_AsyncioSignal")
