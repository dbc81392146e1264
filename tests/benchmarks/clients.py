"""Clients: the loads that servers in other processes are put under."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
from time import perf_counter
from typing import TYPE_CHECKING, Self

from support import RawClient
from tools import find_tool

from benchmarks.inside import MAILFROM, MESSAGE, RCPTTO
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from benchmarks.processes import Process

#: The seconds until a client gives up.
PATIENCE = 120
END = b".\r\n"
CONTENT = MESSAGE.encode()
ENVELOPE = f"MAIL FROM:<{MAILFROM}>\r\nRCPT TO:<{RCPTTO}>\r\nDATA\r\n".encode()


class Client(RawClient):
    """A client that is content with nothing but what it expects. In `with` it has said EHLO."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # it writes twice in a row

    def __enter__(self) -> Self:
        self.expect("220")
        self.command("EHLO client.example")
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(BenchmarkError, OSError):
            self.command("QUIT", "221")
        self.close()

    def close(self) -> None:
        """End the connection without a word."""
        super().__exit__()

    def expect(self, code: str) -> None:
        """Read a reply that must have this code."""
        reply = self.read_reply()
        if not reply.startswith(code):
            raise BenchmarkError(reply or "the connection has ended")

    def command(self, line: str, code: str = "250") -> None:
        """Send a command, the reply to which must have this code."""
        self.send(line.encode() + b"\r\n")
        self.expect(code)

    def begin(self) -> None:
        """Go as far as the content."""
        self.command(f"MAIL FROM:<{MAILFROM}>")
        self.command(f"RCPT TO:<{RCPTTO}>")
        self.command("DATA", "354")

    def end(self) -> None:
        """End the content."""
        self.send(END)
        self.expect("250")


def smtp_source(process: Process, count: int, connections: int, *options: str) -> float:
    """Have Postfix's smtp-source send messages of 1 KiB over so many connections at once; return the seconds.

    Each message has a session of its own, unless "-d" is one of the options.
    """
    host, port = process.address
    numbers = ["-s", str(connections), "-m", str(count), "-l", "1024"]
    command = [find_tool("smtp-source"), *options, *numbers, "-f", MAILFROM, "-t", RCPTTO, f"{host}:{port}"]
    start = perf_counter()
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)  # noqa: S603 - as its manual says
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(error.stderr.decode()) from None
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(str(error)) from None
    return perf_counter() - start


def pipeline(process: Process, count: int) -> float:
    """Send messages over one connection, the commands of the next with the content of each; return the seconds."""
    with Client(process.address) as client:
        start = perf_counter()
        client.send(ENVELOPE)
        _read_lines(client, 3)
        for _ in range(count - 1):
            client.send(CONTENT + END + ENVELOPE)
            _read_lines(client, 4)
        client.send(CONTENT + END)
        client.expect("250")
        return perf_counter() - start


def _read_lines(client: Client, count: int) -> None:
    """Read replies of one line, 250 but for the last; faster than one by one, as the client is not the subject."""
    replies = b""
    while replies.count(b"\n") < count:
        received = client.socket.recv(8192)
        replies += received
        if not received:
            raise BenchmarkError(replies.decode() or "the connection has ended")
    if replies.count(b"250 ") < count - 1 or b"354 " not in replies:
        raise BenchmarkError(replies.decode())


def latency(process: Process, count: int) -> float:
    """Return the median of the seconds from the dot that ends a message to its 250."""
    seconds = []
    with Client(process.address) as client:
        for _ in range(count):
            client.begin()
            client.send(CONTENT)
            start = perf_counter()
            client.end()
            seconds.append(perf_counter() - start)
    return statistics.median(seconds)


def send_large(process: Process, content: bytes) -> float:
    """Send one message; return the seconds that the content took."""
    with Client(process.address) as client:
        client.begin()
        start = perf_counter()
        client.send(content)
        client.end()
        return perf_counter() - start


def connect_many(process: Process, count: int, stack: contextlib.ExitStack) -> float:
    """Connect so many clients at once, and have all of them say EHLO; return the seconds. They stay until `stack` ends."""
    start = perf_counter()
    clients = []
    for _ in range(count):
        clients.append(client := Client(process.address))
        stack.callback(client.close)
    for client in clients:
        client.expect("220")
    for client in clients:
        client.send(b"EHLO client.example\r\n")
    for client in clients:
        client.expect("250")
    seconds = perf_counter() - start
    for client in clients:
        client.command("NOOP")
    return seconds
