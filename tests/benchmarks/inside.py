"""What is done in a server's own process: as in tests, its clients are beside it and share the interpreter."""

from __future__ import annotations

import contextlib
import gc
import smtplib
import socket
import ssl
import statistics
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.servers import PASSWORD, USER

if TYPE_CHECKING:
    from benchmarks.servers import Server

MAILFROM, RCPTTO = "ada@example.org", "bob@example.org"
#: A message of 1 KiB.
MESSAGE = "Subject: benchmark\r\n\r\n" + ("x" * 74 + "\r\n") * 13 + "x" * 14 + "\r\n"


def send_by_smtplib(address: tuple[str, int], count: int, *, reconnect: bool) -> float:
    """Send messages, each in a session of its own or all of them in one; return the seconds that it took."""
    start = perf_counter()
    for size in [1] * count if reconnect else [count]:
        with smtplib.SMTP(*address, local_hostname="client.example") as client:
            for _ in range(size):
                client.sendmail(MAILFROM, RCPTTO, MESSAGE)
    return perf_counter() - start


def send_beside(server: Server, count: int, *, reconnect: bool) -> float:
    """Send messages to the server of this process; return the seconds that it took."""
    return send_by_smtplib(server.address, count, reconnect=reconnect)


def send_securely(server: Server, count: int) -> float:
    """Send messages, each in a session of its own with STARTTLS and AUTH; return the seconds that it took."""
    from pytest_smtpd.network.tls import cafile

    context = ssl.create_default_context(cafile=cafile())
    start = perf_counter()
    for _ in range(count):
        with smtplib.SMTP(*server.address, local_hostname="client.example") as client:
            client.starttls(context=context)
            client.login(USER, PASSWORD)
            client.sendmail(MAILFROM, RCPTTO, MESSAGE)
    return perf_counter() - start


def reset(server: Server) -> None:
    """Forget the messages, and all that they have left behind."""
    server.reset()
    gc.collect()


def start_and_stop(server: Server, times: int) -> float:
    """Return the seconds that another such server takes to greet its first client, and to stop; the median."""
    return statistics.median(_start_and_stop(type(server)()) for _ in range(times))


def _start_and_stop(server: Server) -> float:
    start = perf_counter()
    server.start()
    with _connect(server) as client:
        client.recv(512)  # its greeting
        started = perf_counter() - start
        client.sendall(b"QUIT\r\n")
        while client.recv(512):
            pass
    return started + _stop(server)


def stop_with_clients(server: Server, times: int, clients: int) -> float:
    """Return the seconds that another such server takes to stop while so many clients are connected; the median."""
    return statistics.median(_stop_with_clients(type(server)(), clients) for _ in range(times))


def _stop_with_clients(server: Server, clients: int) -> float:
    server.start()
    with contextlib.ExitStack() as stack:
        for client in [stack.enter_context(_connect(server)) for _ in range(clients)]:
            client.recv(512)  # its greeting
        return _stop(server)


def _stop(server: Server) -> float:
    start = perf_counter()
    server.stop()
    return perf_counter() - start


def _connect(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=10)
