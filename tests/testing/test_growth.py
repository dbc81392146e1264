"""Growth: what a server and its mailbox cost in steps grows with what was sent, and no faster."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient, assert_proportional, steps

from pytest_smtpd import Message, RecordingServer
from pytest_smtpd.network import connection, loop
from pytest_smtpd.protocol.mail import Mail, Rcpt
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.testing.dialogue import Dialogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LONG = 30.0
MAIL, RCPT = b"MAIL FROM:<ada@example.org>\r\n", b"RCPT TO:<bob@example.org>\r\n"
CONTENT = b"Subject: x\r\n\r\nHello\r\n.\r\n"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server without limits."""
    with RecordingServer(data_size_limit=0, max_recipients=0) as server:
        yield server


def make_message(rcpttos: Sequence[str] = ("bob@example.org",), headers: int = 1, helo: str = "") -> Message:
    """Return a message for these recipients, with so many headers."""
    data = b"".join(b"X-%d: x\r\n" % number for number in range(headers)) + b"\r\nHello\r\n"
    return Message(peer=("127.0.0.1", 1), mailfrom="ada@example.org", rcpttos=list(rcpttos), data=data, helo=helo)


def filled(*messages: Message) -> RecordingServer:
    """Return a server that has these messages, and does not run."""
    server = RecordingServer()
    server.stop()
    for message in messages:
        server.messages.add(message, server.messages.generation)
    return server


def numbered(count: int) -> list[str]:
    """Return so many addresses."""
    return [f"{number}@example.org" for number in range(count)]


def fail(assertion: Callable[[], object]) -> str:
    """Return what an assertion that fails says."""
    with pytest.raises(AssertionError) as failure:
        assertion()
    return str(failure.value)


# What a server does for what is sent to it.


class Client(RawClient):
    """A client that has said EHLO, and sends ahead."""

    def __init__(self, server: RecordingServer) -> None:
        super().__init__(server.address)
        self.read_reply()
        self.ask("EHLO x")

    def exchange(self, *commands: bytes) -> set[str]:
        """Send commands, a hundred at a time; return the codes of the replies, one for each command."""
        codes = set()
        for some in [commands[start : start + 100] for start in range(0, len(commands), 100)]:
            self.send(b"".join(some))
            codes |= {self.read_reply()[:3] for _ in some}
        return codes


def send_in_one_session(server: RecordingServer, count: int) -> None:
    """Send so many messages in one session."""
    with Client(server) as client:
        assert client.exchange(*[MAIL, RCPT, b"DATA\r\n", CONTENT] * count) == {"250", "354"}


def send_in_sessions(server: RecordingServer, count: int) -> None:
    """Send so many messages, each in a session of its own."""
    for _ in range(count):
        send_in_one_session(server, 1)


def send_to_many(server: RecordingServer, count: int) -> None:
    """Send a message to so many recipients."""
    with Client(server) as client:
        recipients = (b"RCPT TO:<%s>\r\n" % address.encode() for address in numbered(count))
        assert client.exchange(MAIL, *recipients, b"DATA\r\n", CONTENT) == {"250", "354"}


def refuse_many(server: RecordingServer, count: int) -> None:
    """Send a message of which so many recipients are refused."""
    with Client(server) as client:
        assert client.exchange(MAIL, *[b"RCPT TO:<>\r\n"] * count, RCPT, b"DATA\r\n", CONTENT) == {"250", "354", "501"}


def command(server: RecordingServer, count: int) -> None:
    """Send so many commands."""
    with Client(server) as client:
        assert client.exchange(*[b"NOOP\r\n"] * count) == {"250"}


@pytest.mark.parametrize("send", [send_in_one_session, send_in_sessions, send_to_many, refuse_many, command])
def test_a_server_takes_as_many_steps_as_there_is_to_do(
    server: RecordingServer, send: Callable[[RecordingServer, int], None]
) -> None:
    """Ten times the messages, sessions, recipients or commands cost the server ten times the steps."""
    assert_proportional(lambda size: steps(lambda: send(server, size), server.call), 50)


@pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT %d LAST\r\n"], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("line", [b"x\r\n", b"..\r\n", b"\r\n", b"x"], ids=["short", "dots", "empty", "no lines"])
def test_packets_of_one_octet(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch, command: bytes, line: bytes
) -> None:
    """A server that reads one octet at a time from its socket takes ten times the steps for ten times the content."""
    monkeypatch.setattr(connection, "READ_SIZE", 1)
    monkeypatch.setattr(loop, "SCRATCH_SIZE", 5)  # the end of mail data

    def send(size: int) -> None:
        content = line * (size // len(line)) + b"\r\n"
        end, command_line = (b"", command % len(content)) if b"%" in command else (b".\r\n", command)
        with Client(server) as client:
            client.exchange(MAIL, RCPT)
            client.send(command_line + content + end)
            assert {client.read_reply()[:3] for _ in range(1 + (command == b"DATA\r\n"))} <= {"250", "354"}

    assert_proportional(lambda size: steps(lambda: send(size), server.call), 300)


def test_the_ten_thousandth_message_costs_what_the_first_one_does(server: RecordingServer) -> None:
    """A mailbox of 10,000 messages, and a thousand dialogues, make no message more costly."""
    send_in_one_session(server, 1)
    first = steps(lambda: send_in_one_session(server, 10), server.call)
    for number in range(10_000):
        server.messages.add(make_message(helo=str(number)), server.messages.generation)
    for _ in range(1000):
        server.begin_dialogue(Dialogue(("127.0.0.1", 1), 0.0, enhanced=True))
    assert steps(lambda: send_in_one_session(server, 10), server.call) < 1.1 * first
    assert len(server.messages) == 10_021


def test_ten_thousand_commands_at_once(server: RecordingServer) -> None:
    """A client may send 10,000 commands before it reads a reply, and has 10,000 replies."""
    with Client(server) as client:
        client.send(b"NOOP\r\n" * 10_000)
        assert [client.read_reply() for _ in range(10_000)] == ["250 2.0.0 OK"] * 10_000


def test_a_hundred_thousand_recipients(server: RecordingServer) -> None:
    """A message for 100,000 recipients is taken, recorded, found, and explained in a few lines."""
    send_to_many(server, 100_000)
    addresses = numbered(100_000)
    message = server.assert_received(rcpttos="99999@EXAMPLE.org", bcc=addresses)
    assert message.rcpttos == addresses
    said = fail(lambda: server.assert_received(rcpttos=[*addresses[:-1], "eve@example.org"]))
    assert "missing: 'eve@example.org'" in said
    assert max(map(len, (said, str(message), repr(message), server.report()))) < 5000


# What the recipients and the headers of a message cost whoever looks for it.

LOOKING: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "the last one": lambda addresses: {"rcpttos": addresses[-1]},
    "nobody": lambda _: {"rcpttos": "eve@example.org"},
    "a pattern": lambda _: {"rcpttos": re.compile("eve")},
    "in any order": lambda addresses: {"rcpttos": addresses[::-1]},
    "in this order": lambda addresses: {"rcpttos": tuple(addresses)},
    "with a pattern first": lambda addresses: {"rcpttos": [re.compile("."), *addresses[1:]]},
    "with a pattern last": lambda addresses: {"rcpttos": [*addresses[1:], re.compile(".")]},
    "with a function": lambda addresses: {"rcpttos": [*addresses[::-1][:-1], str.isprintable]},
    "another one in between": lambda addresses: {"rcpttos": [*addresses[1:], "eve@example.org"]},
    "others": lambda addresses: {"rcpttos": [f"x{address}" for address in addresses]},
    "bcc": lambda addresses: {"bcc": addresses},
    "options": lambda addresses: {"rcpt_options": [[]] * len(addresses)},
}


@pytest.mark.parametrize("criteria", [pytest.param(criteria, id=name) for name, criteria in LOOKING.items()])
def test_looking_for_a_message_costs_as_much_as_it_has_recipients(
    criteria: Callable[[list[str]], dict[str, Any]],
) -> None:
    """Ten times the recipients cost a search, or what its failure says, ten times the steps at the most."""

    def cost(size: int) -> int:
        addresses = numbered(size)
        server = filled(make_message(addresses))
        wanted = criteria(addresses)
        return steps(lambda: fail(lambda: server.messages.where(**wanted, helo="no").one()))

    assert_proportional(cost, 100)


def test_the_same_recipient_over_and_over() -> None:
    """Where all recipients are the same one, a search for as many of them costs no more than for others."""

    def cost(size: int) -> int:
        server = filled(make_message(["bob@example.org"] * size))
        wanted = [*["bob@example.org"] * (size - 1), re.compile("bob")]
        return steps(lambda: server.messages.where(rcpttos=wanted).one())

    assert_proportional(cost, 100)


def test_headers_cost_as_much_as_there_are() -> None:
    """Ten times the headers, each looked up by its name, cost ten times the steps."""

    def look(message: Message) -> None:
        names = list(message.headers)
        assert {message.headers[name] for name in names} == {"x"}
        assert [message.headers.get_all(name) for name in names] == [["x"]] * len(names)
        filled(message).assert_received(headers=dict.fromkeys(names, "x"))

    assert_proportional(lambda size: steps(lambda: look(make_message(headers=size))), 50)


# What the messages in a mailbox cost whoever looks for one of them.


@pytest.fixture(scope="module")
def mailbox() -> RecordingServer:
    """Return a server that has 10,000 messages."""
    return filled(*(make_message(helo=str(number)) for number in range(10_000)))


@pytest.mark.parametrize(
    ("look", "times"),
    [
        pytest.param(lambda server, is_it: server.messages.where(helo=is_it).one(), 1, id="where"),
        pytest.param(lambda server, is_it: server.wait_for(helo=is_it), 1, id="wait_for"),
        pytest.param(lambda server, is_it: server.assert_received(helo=is_it), 2, id="assert_received"),
        pytest.param(lambda server, is_it: server.assert_received(helo=is_it, timeout=9), 2, id="with a timeout"),
        pytest.param(lambda server, is_it: server.assert_not_received(mailfrom="", helo=is_it), 0, id="nothing"),
        pytest.param(lambda server, is_it: fail(lambda: server.assert_not_received(helo=is_it)), 5, id="one too many"),
        pytest.param(lambda server, is_it: fail(server.messages.where(helo=is_it, mailfrom="").one), 3, id="none"),
    ],
)
def test_each_message_is_looked_at(
    mailbox: RecordingServer, look: Callable[[RecordingServer, Callable[[str], bool]], object], times: int
) -> None:
    """Among 10,000 messages a search asks about each of them once; where it is explained, a few times."""
    asked = 0

    def is_last(helo: str) -> bool:
        nonlocal asked
        asked += 1
        return helo == "9999"

    look(mailbox, is_last)
    assert asked <= times * 10_000 + 10


def test_a_task_looks_at_each_message_once() -> None:
    """A task that waits for 10,000 messages, while they come one by one, looks at each of them once."""
    asked: list[str] = []
    server = RecordingServer()

    def is_any(helo: str) -> bool:
        asked.append(helo)
        return True

    def receive() -> None:
        for number in range(10_000):
            server.messages.add(make_message(helo=str(number)), server.messages.generation)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(receive)
        messages = asyncio.run(server.wait_for_async(10_000, LONG, helo=is_any))
    assert [message.helo for message in messages] == asked == [str(number) for number in range(10_000)]
    server.stop()


LOOKS: dict[str, Callable[[RecordingServer], object]] = {
    "where": lambda server: server.messages.where(subject="x"),
    "where where": lambda server: server.messages.where(mailfrom="ada@example.org").where(helo="7"),
    "one": lambda server: fail(server.messages.one),
    "assert_received": lambda server: fail(lambda: server.assert_received(mailfrom="eve@example.org", helo="7")),
    "assert_received all": lambda server: server.assert_received(len(server.messages)),
    "assert_not_received": lambda server: server.assert_not_received(mailfrom="eve@example.org"),
    "assert_not_received one": lambda server: fail(lambda: server.assert_not_received(helo="1")),
    "wait_for": lambda server: fail(lambda: server.wait_for(len(server.messages) + 1)),
    "iteration": lambda server: [message.helo for message in server.messages],
    "index": lambda server: [server.messages[index] for index in range(len(server.messages))],
    "exactly once": lambda server: server.assert_delivered_exactly_once(lambda message: message.helo),
    "not exactly once": lambda server: fail(lambda: server.assert_delivered_exactly_once(lambda _: "x")),
    "report": lambda server: server.report(),
    "comparison": lambda server: server.messages == list(server.messages),
}


@pytest.mark.parametrize("look", [pytest.param(look, id=name) for name, look in LOOKS.items()])
def test_looking_costs_as_much_as_there_are_messages(look: Callable[[RecordingServer], object]) -> None:
    """Ten times the messages cost a search, or what its failure says, ten times the steps at the most."""

    def cost(size: int) -> int:
        server = filled(*(make_message(helo=str(number)) for number in range(size)))
        return steps(lambda: look(server))

    assert_proportional(cost, 40)


def test_explaining_costs_as_much_as_there_are_dialogues() -> None:
    """Ten times the dialogues, each with a refused recipient, cost a failure ten times the steps at the most."""

    def cost(size: int) -> int:
        server = filled()
        for _ in range(size):
            dialogue = Dialogue(("127.0.0.1", 1), 0.0, enhanced=True)
            dialogue.add((0.0, Mail("MAIL", "FROM:<ada@example.org>"), Reply(250)))
            dialogue.add((0.0, Rcpt("RCPT", "TO:<bob@example.org>"), Reply(550)))
            server.begin_dialogue(dialogue)
        return steps(lambda: fail(server.assert_received))

    assert_proportional(cost, 100)
