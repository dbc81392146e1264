"""Messages of 1 KiB: how many a second, and how long each one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

import pytest

from benchmarks import inside
from benchmarks.clients import latency, pipeline, smtp_source
from benchmarks.processes import Process, PythonProcess
from benchmarks.race import Figure
from benchmarks.servers import SECURE, is_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.race import Race

#: The most seconds that a turn of a slow server is to take: it gets fewer messages then.
TURN = 1.0


@dataclass(frozen=True)
class Load:
    """What sends messages and returns the seconds, `count` of them at scale 1, and never less than `least`."""

    name: str
    send: Callable[[PythonProcess, int], float]
    count: int
    required: float
    reference: Literal["smtp-sink", "aiosmtpd", "best"]
    least: int = 1

    def run(self, race: Race, servers: Mapping[str, Callable[[], Process]]) -> None:
        """Put servers under this load."""
        figure = Figure(self.name, "messages/s", "more", self.required, self.reference)
        race.run([figure], servers, partial(self._prepare, race))

    def _prepare(self, race: Race, contestant: Callable[[], Process]) -> Callable[[], Sequence[float]]:
        process = race.open(contestant)
        trial = race.scaled(100, self.least)
        possible = int(trial / self.send(process, trial) * TURN)
        count = max(self.least, min(race.scaled(self.count), possible))
        return partial(self._measure, process, count)

    def _measure(self, process: PythonProcess, count: int) -> Sequence[float]:
        process.reset()
        rate = count / self.send(process, count)
        process.expect(count)
        return (rate,)


def _source(connections: int, *options: str) -> Callable[[Process, int], float]:
    return lambda process, count: smtp_source(process, count, connections, *options)


def _smtplib(process: Process, count: int) -> float:
    return inside.send_by_smtplib(process.address, count, reconnect=True)


def _beside(*, reconnect: bool) -> Callable[[PythonProcess, int], float]:
    return lambda process, count: float(process.run(inside.send_beside, count, reconnect=reconnect))


def _securely(process: PythonProcess, count: int) -> float:
    return float(process.run(inside.send_securely, count))


ONE_CLIENT = [
    Load("throughput-1conn", _source(1, "-d"), 5000, required=0.6, reference="smtp-sink"),
    Load("connpermsg-1", _source(1), 2000, required=0.7, reference="smtp-sink"),
    Load("pipelined-1conn", pipeline, 5000, required=0.4, reference="smtp-sink"),
    Load("smtplib-connpermsg", _smtplib, 500, required=4, reference="best"),
]
MANY_CLIENTS = [
    Load("throughput-10conn", _source(10, "-d"), 10000, required=0.6, reference="smtp-sink", least=10),
    Load("throughput-100conn", _source(100, "-d"), 10000, required=0.6, reference="smtp-sink", least=100),
    Load("connpermsg-10", _source(10), 3000, required=0.7, reference="smtp-sink", least=10),
]
BESIDE = [
    Load("inproc-1conn", _beside(reconnect=False), 1000, required=2.5, reference="best"),
    Load("inproc-connpermsg", _beside(reconnect=True), 500, required=3.5, reference="best"),
]
SECURELY = Load("inproc-tls-auth", _securely, 100, required=3, reference="aiosmtpd")


@pytest.mark.parametrize("load", ONE_CLIENT, ids=attrgetter("name"))
def test_one_client(race: Race, servers: Mapping[str, Callable[[], Process]], load: Load) -> None:
    """A client and a server in processes of their own take turns."""
    race.pin()
    load.run(race, servers)


@pytest.mark.parametrize("load", MANY_CLIENTS, ids=attrgetter("name"))
def test_many_clients(race: Race, servers: Mapping[str, Callable[[], Process]], load: Load) -> None:
    """Clients send at the same time."""
    load.run(race, servers)


@pytest.mark.parametrize("load", BESIDE, ids=attrgetter("name"))
def test_client_beside_the_server(
    race: Race, python_servers: Mapping[str, Callable[[], PythonProcess]], load: Load
) -> None:
    """The client is smtplib in the process of the server, as in tests."""
    race.pin()
    load.run(race, python_servers)


def test_client_beside_the_server_with_tls(race: Race) -> None:
    """As above, with STARTTLS and AUTH in each session."""
    race.pin()
    servers = {name: partial(PythonProcess, server) for name, server in SECURE.items() if is_installed(server)}
    SECURELY.run(race, servers)


def test_latency(race: Race, servers: Mapping[str, Callable[[], Process]]) -> None:
    """The client waits for its 250 from the dot that ends a message on."""

    def prepare(contestant: Callable[[], Process]) -> Callable[[], Sequence[float]]:
        process = race.open(contestant)
        latency(process, race.scaled(100))
        return partial(measure, process, race.scaled(1000))

    def measure(process: Process, count: int) -> Sequence[float]:
        process.reset()
        seconds = latency(process, count)
        process.expect(count)
        return (seconds * 1e6,)

    race.pin()
    figure = Figure("latency", "µs to 250, median", "less", required=1.6, reference="smtp-sink")
    race.run([figure], servers, prepare)
