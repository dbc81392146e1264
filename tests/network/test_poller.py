"""What waits for sockets: the same with epoll and where there is none."""

from __future__ import annotations

import select
import smtplib
import socket
from typing import TYPE_CHECKING

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer
from pytest_smtpd.network.poller import READABLE, WRITABLE, SelectorPoller, make_poller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_smtpd.network.poller import Poller


@pytest.fixture(params=[make_poller, SelectorPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    """Return a poller."""
    made: Poller = request.param()
    yield made
    made.close()


def test_pollers_tell_what_has_happened(poller: Poller) -> None:
    """A poller tells which file descriptors may be read or written, whichever was asked for, until it forgets them."""
    one, other = socket.socketpair()
    with one, other:
        poller.register(one.fileno(), READABLE)
        assert poller.poll(0) == []
        other.send(b"x")
        assert [descriptor for descriptor, _ in poller.poll(10)] == [one.fileno()]
        one.recv(1)
        poller.modify(one.fileno(), WRITABLE)
        assert [descriptor for descriptor, _ in poller.poll(1)] == [one.fileno()]
        poller.unregister(one.fileno())
        assert poller.poll(0) == []


def test_a_server_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system has no epoll, clients are served just so, large messages and those who do not read included."""
    monkeypatch.delattr(select, "epoll", raising=False)
    assert isinstance(make_poller(), SelectorPoller)
    content = b"Subject: large\r\n\r\n" + b"x" * 1_000_000
    with RecordingServer() as server, RawClient(server.address) as client:
        client.read_reply()
        client.send(b"HELP\r\n" * 2_000)
        with smtplib.SMTP(*server.address) as smtp:
            smtp.sendmail("ada@example.org", ["bob@example.org"], content)
        replies = [client.read_reply() for _ in range(2_000)]
    assert {reply[:3] for reply in replies} == {"214"}
    assert server.messages.one().size == len(content) + 2
