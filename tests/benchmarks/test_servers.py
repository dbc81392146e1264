"""Servers: starting and stopping them, and what idle clients cost."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import pytest

from benchmarks import inside
from benchmarks.clients import CONTENT, connect_many, send_large
from benchmarks.race import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.processes import Process, PythonProcess
    from benchmarks.race import Race


@pytest.mark.parametrize(("name", "clients"), [("startstop", 0), ("startstop-open", 5)])
def test_start_and_stop(
    race: Race, python_servers: Mapping[str, Callable[[], PythonProcess]], name: str, clients: int
) -> None:
    """A server starts, greets and stops, with clients that are still connected or without."""

    def prepare(contestant: Callable[[], PythonProcess]) -> Callable[[], Sequence[float]]:
        process = race.open(contestant)
        return lambda: (process.run(inside.start_and_stop, race.scaled(10), clients) * 1e3,)

    race.run([Figure(name, "ms", "less", 1, "best")], python_servers, prepare)


def _measure_idle(contestant: Callable[[], Process], count: int) -> Sequence[float]:
    """Return the connections a second, the KiB of each, and the threads that there are."""
    with contestant() as process, contextlib.ExitStack() as stack:
        send_large(process, CONTENT)
        process.reset()
        before = process.status("VmRSS")
        seconds = connect_many(process, count, stack)
        return count / seconds, (process.status("VmRSS") - before) / count, process.status("Threads")


def test_idle_clients(race: Race, servers: Mapping[str, Callable[[], Process]]) -> None:
    """A thousand clients connect at once, say EHLO, and then nothing."""
    figures = [
        Figure("idle-1000-connect", "connections/s", "more", 1, "smtp-sink"),
        Figure("idle-1000-memory", "KiB each", "less", 3, None, absolute=True),
        Figure("idle-1000-threads", "threads", "less", 4, None, absolute=True),
    ]
    count = race.scaled(1000, 10)
    race.run(figures, servers, lambda contestant: partial(_measure_idle, contestant, count), rounds=5)
