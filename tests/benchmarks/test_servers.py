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
    from benchmarks.servers import Server


#: What is done with other servers of a kind, in its own process.
LIVES: dict[str, Callable[[Server, int], float]] = {
    "startstop": inside.start_and_stop,
    "startstop-open": partial(inside.stop_with_clients, clients=5),
}


@pytest.mark.parametrize("name", LIVES)
def test_start_and_stop(race: Race, python_servers: Mapping[str, Callable[[], PythonProcess]], name: str) -> None:
    """A server starts, greets and stops; and it stops with clients that are still connected."""

    def prepare(contestant: Callable[[], PythonProcess]) -> Callable[[], Sequence[float]]:
        process = race.open(contestant)
        return lambda: (process.run(LIVES[name], race.scaled(10)) * 1e3,)

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
