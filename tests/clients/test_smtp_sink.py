"""smtp-sink, Postfix's test server, as the upstream of a proxy: each failure it can show."""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from support import RawClient
from tools import find_tool

from pytest_smtpd import smtpd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADA, BOB, CAROL = "ada@example.org", "bob@example.org", "carol@example.org"
CONTENT = "Subject: hello\r\n\r\n..world\r\n."
COMMANDS = ("EHLO client.example", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA", CONTENT)


class Sink:
    """A running smtp-sink, which keeps each message in a file."""

    def __init__(self, directory: Path, *options: str) -> None:
        # It says nowhere which port it has: this one was free just now.
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.address: tuple[str, int] = reserved.getsockname()
        self._directory = directory
        directory.mkdir(exist_ok=True)
        directory.chmod(0o777)
        # As root it wants a user to become.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        dump = ["-R", str(directory), "-d", "%M."] if os.geteuid() == 0 else ["-d", f"{directory}/%M."]
        host, port = self.address
        self.process = subprocess.Popen(  # noqa: S603 - as its manual says
            [find_tool("smtp-sink"), *user, *dump, *options, f"{host}:{port}", "100"], stderr=subprocess.PIPE
        )
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(self.address):
                break
            assert self.process.poll() is None, self.process.communicate()[1]

    def messages(self) -> list[bytes]:
        """Return what has arrived: lines about the envelope, and the message, with line feeds for line ends."""
        return [path.read_bytes() for path in self._directory.iterdir()]

    def stop(self) -> None:
        """Stop."""
        self.process.terminate()
        self.process.communicate()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Callable[..., Sink]]:
    """Return a function that starts smtp-sink with these options."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o011)  # so that who is not root finds the way
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> Sink:
            running = Sink(tmp_path / "sink", *options)
            stack.callback(running.stop)
            return running

        yield start


@contextlib.contextmanager
def proxied(sink: Sink, timeout: float = 20.0) -> Iterator[RawClient]:
    """Return a client of a proxy before the sink."""
    with (
        smtpd.PureProxy(("127.0.0.1", 0), sink.address, map={}, upstream_timeout=timeout) as proxy,
        RawClient(proxy.socket.getsockname()) as client,
    ):
        assert client.read_reply().startswith("220 ")
        yield client


def converse(client: RawClient) -> list[str]:
    """Send a message, as far as that goes; return the replies."""
    replies: list[str] = []
    for command in COMMANDS:
        replies.append(client.ask(command))
        if replies[-1][0] not in "23":
            break
    return replies


def test_a_message_arrives(sink: Callable[..., Sink]) -> None:
    """What is relayed arrives with its envelope, once, and without the dot that was doubled."""
    running = sink()
    with proxied(running) as client:
        assert [reply[:3] for reply in converse(client)] == ["250", "250", "250", "354", "250"]
    [message] = running.messages()
    assert f"X-Mail-Args: <{ADA}>\n".encode() in message
    assert f"X-Rcpt-Args: <{BOB}>\n".encode() in message
    assert message.endswith(b"Subject: hello\nX-Peer: 127.0.0.1\n\n.world\n\n")  # the last line is its own


FAILURES = [
    *((("-f", verb), count, "500 5.3.0 ") for verb, count in (("MAIL", 2), ("RCPT", 3), ("DATA", 5), (".", 5))),
    *((("-r", verb), count, "450 4.3.0 ") for verb, count in (("MAIL", 2), ("RCPT", 3), ("DATA", 5), (".", 5))),
    *((("-q", verb), count, "451 4.4.2 ") for verb, count in (("MAIL", 2), ("RCPT", 3), ("DATA", 5), (".", 5))),
    *((("-Q", verb), count, "451 4.") for verb, count in (("MAIL", 2), ("RCPT", 3), ("DATA", 5), (".", 5))),
    (("-r", "CONNECT"), 2, "451 4.4.1 "),
    (("-q", "CONNECT"), 2, "451 4.4.1 "),
    (("-q", "EHLO"), 2, "451 4.4.1 "),
    (("-r", "EHLO"), 2, "451 4.4.1 "),
    (("-f", "RCPT", "-B", "551 5.7.1 Not here"), 3, "551 5.7.1 Not here"),
    (("-r", ".", "-b", "421 4.3.2 Leaving"), 5, "451 4.3.2 Leaving"),
]


@pytest.mark.parametrize(("options", "count", "reply"), FAILURES, ids=str)
def test_failures(sink: Callable[..., Sink], options: tuple[str, ...], count: int, reply: str) -> None:
    """What smtp-sink refuses is refused, and what it drops is 451; the session goes on."""
    with proxied(sink(*options)) as client:
        replies = converse(client)
        assert len(replies) == count
        assert replies[-1].startswith(reply)
        assert client.ask("RSET").startswith("250 ")


@pytest.mark.parametrize("options", [("-w", "3"), ("-W", "RCPT:3"), ("-W", ".:5")], ids=str)
def test_a_slow_upstream(sink: Callable[..., Sink], options: tuple[str, ...]) -> None:
    """An upstream that is slower than it may be is 451."""
    with proxied(sink(*options), timeout=1) as client:
        assert converse(client)[-1].startswith("451 4.4.")


def test_the_answer_to_the_content_may_take_longer(sink: Callable[..., Sink]) -> None:
    """For its answer to the content an upstream has twice the time: who gives up too soon sends it twice."""
    with proxied(sink("-W", ".:3"), timeout=2) as client:
        assert converse(client)[-1].startswith("250 ")


def test_a_refusal_amid_the_content(sink: Callable[..., Sink]) -> None:
    """An upstream that gives up in the midst of the content is 451 or what it said, and nothing was accepted."""
    running = sink("-A", "0")
    with proxied(running) as client:
        reply = converse(client)[-1]
        assert reply[:3] in {"451", "550"}
    assert not any(running.messages())  # a moment later smtp-sink removes the file, too, which is empty


def test_an_upstream_that_knows_helo_alone(sink: Callable[..., Sink]) -> None:
    """An upstream without EHLO is relayed to, and no extension of its is offered."""
    running = sink("-e")
    with proxied(running) as client:
        assert [reply[:3] for reply in converse(client)] == ["250", "250", "250", "354", "250"]
        assert "8BITMIME" not in client.ask("EHLO client.example")
    assert len(running.messages()) == 1


@pytest.mark.parametrize(("option", "keyword"), [("-8", "8BITMIME"), ("-E", "ENHANCEDSTATUSCODES")])
def test_extensions_that_are_left_out(sink: Callable[..., Sink], option: str, keyword: str) -> None:
    """What the upstream does not offer the proxy doesn't, either."""
    with proxied(sink()) as client:
        assert keyword in client.ask("EHLO client.example")
    with proxied(sink(option)) as client:
        assert keyword not in client.ask("EHLO client.example")


def test_many_messages(sink: Callable[..., Sink]) -> None:
    """Each of many messages from several sessions arrives, and none twice."""
    running = sink()
    with smtpd.PureProxy(("127.0.0.1", 0), running.address, map={}) as proxy:
        clients = [smtplib.SMTP(*proxy.socket.getsockname()) for _ in range(5)]
        for number in range(50):
            clients[number % 5].sendmail(ADA, [BOB, CAROL], f"Subject: {number}\r\n\r\n")
        for client in clients:
            client.quit()
    subjects = sorted(int(message.partition(b"Subject: ")[2].split()[0]) for message in running.messages())
    assert subjects == list(range(50))


def test_memory(sink: Callable[..., Sink]) -> None:
    """A message is held in memory once, and its copies are no larger than a piece."""
    size, piece = 32_000_000, b"x" * 998 + b"\r\n"
    piece *= 64
    running = sink()
    with proxied(running) as client:
        for command in COMMANDS[:4]:
            client.ask(command)
        tracemalloc.start()
        try:
            for _ in range(size // len(piece)):
                client.send(piece)
            assert client.ask(".").startswith("250 ")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size < peak < 1.5 * size
