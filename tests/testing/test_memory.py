"""Memory: a message is held once, and of what did not become one nothing is kept."""

from __future__ import annotations

import contextlib
import gc
import select
import smtplib
import socket
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support import UNMEASURED, RawClient, peak

from pytest_smtpd import RecordingServer, Reply
from pytest_smtpd.network.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1_048_576

# At the peak.

#: Tells a port, and for each line then how many octets of memory were in use at the most so far.
SERVER = """
import resource, sys
from pytest_smtpd import RecordingServer
with RecordingServer(data_size_limit=0, tls="starttls") as server:
    print(server.port, flush=True)
    for _ in sys.stdin:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024), flush=True)
    assert server.messages.one().size == 100 * 1_048_576
"""


@contextlib.contextmanager
def other_process() -> Iterator[tuple[int, Callable[[], int]]]:
    """Run a server in a process of its own; return its port, and what tells the peak of its memory."""
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", SERVER], env=UNMEASURED, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def peak_memory() -> int:
            stdin.write("\n")
            stdin.flush()
            return int(stdout.readline())

        yield int(stdout.readline()), peak_memory
        stdin.close()
        assert process.wait(10) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no resource.getrusage")
@pytest.mark.parametrize(
    ("command", "tls"),
    [("DATA", False), ("DATA", True), (f"BDAT {100 * MIB} LAST", False)],
    ids=["DATA", "TLS", "BDAT"],
)
def test_a_large_message_is_held_once(command: str, tls: bool) -> None:  # noqa: FBT001 - parametrized
    """A message of 100 MiB takes less than 1.1 times as much of a server's memory."""
    line = b"." + b"x" * 61 + b"\r\n"
    block = (b"." * (command == "DATA") + line) * 1024
    with other_process() as (port, peak_memory), smtplib.SMTP("localhost", port) as client:
        if tls:
            client.starttls(context=client_context())
        client.ehlo()
        client.mail("ada@example.org")
        client.rcpt("bob@example.org")
        assert client.sock is not None
        client.putcmd(command)
        if command == "DATA":
            assert client.getreply()[0] == 354
        before = peak_memory()
        for _ in range(100 * MIB // len(line * 1024)):
            client.sock.sendall(block)
        client.send(b".\r\n" if command == "DATA" else b"")
        assert client.getreply()[0] == 250
        assert peak_memory() - before < 1.1 * 100 * MIB


def test_a_client_that_reads_no_replies_fills_no_memory() -> None:
    """Of a client that sends commands and reads no replies, the server takes no more than fits in a few buffers."""
    with RecordingServer(advertise=["X" * 400]) as server, RawClient(server.address) as client:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            client.socket.setsockopt(socket.SOL_SOCKET, option, 4096)
        client.socket.settimeout(0)
        commands = (b"EHLO " + b"x" * 400 + b"\r\n") * 100

        def send() -> None:
            for _ in range(1000):
                if not select.select([], [client.socket], [], 0.5)[1]:
                    break  # the server takes no more
                client.socket.send(commands)
            server.call(lambda: None)

        assert peak(send) < 2 * MIB


# What is kept.

SIZE = 2 * MIB
CONTENT = (b"x" * 62 + b"\r\n") * (SIZE // 64)
BEGIN = (b"MAIL FROM:<ada@example.org>\r\n", b"RCPT TO:<bob@example.org>\r\n")
MAIL_DATA = (*BEGIN, b"DATA\r\n", CONTENT + b".\r\n")
CHUNK = (*BEGIN, b"BDAT %d\r\n" % SIZE + CONTENT)
LAST_CHUNK = (*BEGIN, b"BDAT %d LAST\r\n" % SIZE + CONTENT)


class Hook(RecordingServer):
    """A server whose hook refuses all messages."""

    def process_message(self, *args: Any, **kwargs: Any) -> str | Reply | None:
        """Refuse."""
        return Reply(554, "No")


class Failing(RecordingServer):
    """A server whose hook fails."""

    def process_message(self, *args: Any, **kwargs: Any) -> str | Reply | None:
        """Fail."""
        raise ValueError


@dataclass(frozen=True)
class Story:
    """What a client sends, each with a reply to be read; and how the server comes to discard it."""

    said: tuple[bytes, ...]
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[RecordingServer], object] = lambda _: None
    server: type[RecordingServer] = RecordingServer
    #: What is sent at last, without a reply.
    rest: bytes = b""


#: Half the content has come.
AMID: dict[str, Any] = {"stage": "CONTENT", "after_bytes": SIZE // 2}
REFUSED = {
    "too large, by DATA": Story(MAIL_DATA, {"data_size_limit": SIZE // 2}),
    "too large, by BDAT": Story(LAST_CHUNK, {"data_size_limit": SIZE // 2}),
    "a chunk too large": Story(CHUNK, {"data_size_limit": SIZE // 2}),
    "strict": Story((*BEGIN, b"DATA\r\n", b"\n" + CONTENT + b".\r\n"), {"strict": True}),
    "refused by a hook": Story(MAIL_DATA, server=Hook),
    "refused by a hook, by BDAT": Story(LAST_CHUNK, server=Hook),
    "refused by a hook, in LMTP": Story(MAIL_DATA, {"protocol": "lmtp"}, server=Hook),
    "failed in a hook": Story(MAIL_DATA, server=Failing),
    "refused by a rule": Story(MAIL_DATA, prepare=lambda server: server.on("CONTENT").reject()),
    "refused by a rule, by BDAT": Story(LAST_CHUNK, prepare=lambda server: server.on("CONTENT").reject()),
    "discarded by a rule": Story(MAIL_DATA, prepare=lambda server: server.on("CONTENT").discard()),
    "ended with 421": Story(MAIL_DATA, prepare=lambda server: server.on("CONTENT").defer("421 4.3.2 No")),
    "disconnected": Story(MAIL_DATA, prepare=lambda server: server.on("CONTENT").disconnect()),
    "a refused chunk": Story(CHUNK, prepare=lambda server: server.on("BDAT").reject()),
    "disconnected behind a chunk": Story(
        CHUNK,
        prepare=lambda server: server.on("BDAT").disconnect(),
    ),
    "a delay amid content": Story(MAIL_DATA, prepare=lambda server: server.on(**AMID).delay(0.001), server=Hook),
    "refused amid content": Story(MAIL_DATA, prepare=lambda server: server.on(**AMID).defer("421 4.3.2 No")),
    "disconnected amid content": Story(MAIL_DATA, prepare=lambda server: server.on(**AMID).disconnect()),
    "RSET behind a chunk": Story((*CHUNK, b"RSET\r\n")),
}
ABORTED = {
    "amid DATA": Story((*BEGIN, b"DATA\r\n"), rest=CONTENT),
    "amid a chunk": Story(BEGIN, rest=b"BDAT %d LAST\r\n" % (2 * SIZE) + CONTENT),
    "behind a chunk": Story(CHUNK),
    "QUIT behind a chunk": Story((*CHUNK, b"QUIT\r\n")),
}


@contextlib.contextmanager
def told(story: Story) -> Iterator[tuple[RecordingServer, RawClient]]:
    """Have a client tell a server a story, without the garbage collector; begin to count memory before."""
    with story.server(**story.options) as server, RawClient(server.address) as client:
        story.prepare(server)
        client.read_reply()
        client.ask("LHLO x" if story.options.get("protocol") == "lmtp" else "EHLO x")
        gc.disable()
        tracemalloc.start()
        try:
            with contextlib.suppress(ConnectionError):
                for octets in story.said:
                    client.send(octets)
                    client.read_reply()
                client.send(story.rest)
            yield server, client
        finally:
            tracemalloc.stop()
            gc.enable()
            server.errors.clear()


def kept(server: RecordingServer) -> int:
    """Return how much memory is in use since the beginning, once the server is done and its errors are noticed."""
    for _ in range(2):
        server.call(lambda: None)
    server.take_errors()  # their tracebacks have the locals of hooks, for who looks at them
    return tracemalloc.get_traced_memory()[0]


def leave(server: RecordingServer, client: RawClient) -> None:
    """Have the client go, and the server take notice."""
    client.socket.shutdown(socket.SHUT_RDWR)
    server.wait_until_idle()


@pytest.mark.parametrize("story", REFUSED.values(), ids=REFUSED)
def test_of_a_refused_message_nothing_is_kept(story: Story) -> None:
    """Of a message that the server does not take nothing is in memory behind the answer, while the client is there."""
    with told(story) as (server, _):
        assert kept(server) < SIZE / 4
        assert not server.messages


@pytest.mark.parametrize("story", (REFUSED | ABORTED).values(), ids=REFUSED | ABORTED)
def test_of_a_discarded_message_nothing_is_kept(story: Story) -> None:
    """Of a message that came to nothing nothing is in memory any more when the client has gone."""
    with told(story) as (server, client):
        with contextlib.suppress(OSError):
            leave(server, client)
        assert kept(server) < SIZE / 4
        assert not server.messages


@pytest.mark.parametrize("story", ABORTED.values(), ids=ABORTED)
def test_of_an_aborted_transaction_the_envelope_is_kept(story: Story) -> None:
    """What a server tells of an aborted transaction is the envelope, which keeps none of its content."""
    with told(story) as (server, client):
        with contextlib.suppress(OSError):
            leave(server, client)
        gc.collect()
        assert kept(server) < SIZE / 4
        assert [str(aborted) for aborted in server.aborted] == ["from <ada@example.org> to <bob@example.org>"]
