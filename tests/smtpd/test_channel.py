"""SMTPChannel: what subclasses of it, and of SMTPServer, can do to a session with a real client."""

# ruff: noqa: N802, N815 - methods are named after commands, as smtpd named them

from __future__ import annotations

import contextlib
import queue
import re
import smtplib
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from support import RawClient

from pytest_smtpd import smtpd
from pytest_smtpd.protocol.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.network.connection import Address, Connection
    from pytest_smtpd.protocol.mail import Content

LOCAL_ERROR = "451 Error: requested action aborted: local error in processing"
UNRECOGNIZED = '500 Error: command "{}" not recognized'
TRANSACTION = ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>")

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0


class Server(smtpd.SMTPServer):
    """Keeps what process_message is called with, and answers what it is told to."""

    def __init__(self, channel_class: type[smtpd.SMTPChannel] = smtpd.SMTPChannel, **options: Any) -> None:
        self.channel_class = channel_class
        self.channels: queue.Queue[smtpd.SMTPChannel] = queue.Queue()
        self.messages: list[tuple[Address, str, list[str], bytes | str]] = []
        self.status: str | None = None
        super().__init__(("127.0.0.1", 0), None, map={}, **options)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.socket.getsockname()
        return host, port

    def handle_accepted(self, conn: Connection, addr: Address) -> smtpd.SMTPChannel:
        """Keep the channel."""
        channel = super().handle_accepted(conn, addr)
        self.channels.put(channel)
        return channel

    def process_message(
        self, peer: Address, mailfrom: str, rcpttos: list[str], data: bytes | str, **_kwargs: object
    ) -> str | None:
        """Keep the message."""
        self.messages.append((peer, mailfrom, rcpttos, data))
        return self.status


@contextlib.contextmanager
def connected(server: Server) -> Iterator[RawClient]:
    """Serve, and give a client that has read the greeting."""
    with server, RawClient(server.address) as client:
        assert client.read_reply() == "220 localhost ESMTP pytest-smtpd-server"
        yield client


def converse(server: Server, *commands: str) -> list[str]:
    """Send commands, one after the other, and return the replies."""
    with connected(server) as client:
        return [client.ask(command) for command in commands]


def send(server: Server, content: str = "x") -> str:
    """Send a message and return the reply to its content."""
    return converse(server, *TRANSACTION, "DATA", f"{content}\r\n.")[-1]


def in_loop(server: Server, call: Callable[[], None]) -> None:
    """Have something done in the thread that serves."""
    assert server._loop is not None  # noqa: SLF001 - there is no public way into it
    server._loop.call(call)  # noqa: SLF001


# Overriding commands.


class OneReply(smtpd.SMTPChannel):
    """Answers each command with one push."""

    def smtp_EHLO(self, arg: str | None) -> None:
        """Greet by name."""
        self.push(f"250 Hello {arg}")

    def smtp_MAIL(self, arg: str | None) -> None:
        """Refuse."""
        self.push(f"550 Not {arg}")

    def smtp_RCPT(self, arg: str | None) -> None:
        """Refuse for now."""
        self.push(f"450 Not yet {arg}")

    def smtp_DATA(self, arg: str | None) -> None:
        """Refuse for good."""
        self.push(f"554 No data {arg}")

    def smtp_QUIT(self, arg: str | None) -> None:
        """Refuse even that."""
        self.push(f"500 Stay {arg}")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("EHLO client.example", "250 Hello client.example"),
        ("ehlo  a  b ", "250 Hello a  b"),
        ("MAIL FROM:<ada@example.org> SIZE=1", "550 Not FROM:<ada@example.org> SIZE=1"),
        ("RCPT nonsense", "450 Not yet nonsense"),
        ("DATA", "554 No data None"),
        ("QUIT", "500 Stay None"),
        ("NOOP", "250 OK"),
    ],
)
def test_an_override_answers_its_command(command: str, reply: str) -> None:
    """What an override pushes is the reply, whatever the state is; it gets the argument, or None for none."""
    assert converse(Server(OneReply), command, "NOOP") == [reply, "250 OK"]


class AnyMail(smtpd.SMTPChannel):
    """Answers MAIL and DATA as told by the argument."""

    def smtp_MAIL(self, arg: str | None) -> None:
        """Repeat the reply in the argument."""
        self.push(arg or "")

    def smtp_DATA(self, arg: str | None) -> None:
        """Repeat the reply in the argument."""
        self.push(arg or "354 Go on")


@pytest.mark.parametrize(
    ("reply", "next_reply"),
    [
        ("250 Sure", "250 OK"),
        ("251 Sure", "250 OK"),
        ("354 What?", "503 Error: need MAIL command"),
        ("450 No", "503 Error: need MAIL command"),
        ("550 No", "503 Error: need MAIL command"),
    ],
)
def test_only_a_positive_reply_opens_a_transaction(reply: str, next_reply: str) -> None:
    """The state follows the reply that was sent: RCPT is accepted after a MAIL that was answered with 2yz."""
    replies = converse(Server(AnyMail), "EHLO x", f"MAIL {reply}", "RCPT TO:<bob@example.org>")
    assert replies[1:] == [reply, next_reply]


def test_an_override_may_ask_for_data_out_of_order() -> None:
    """After a 354 that an override pushed without a transaction, content is read, and refused with 554."""
    server = Server(AnyMail)
    replies = converse(server, "DATA", "NOOP\r\n.", "NOOP")
    assert replies == ["354 Go on", "554 Error: no valid recipients", "250 OK"]
    assert server.messages == []


class SeveralPushes(smtpd.SMTPChannel):
    """Pushes replies line by line."""

    def smtp_EHLO(self, arg: str | None) -> None:
        """Answer in two lines."""
        self.push("250-a")
        self.push("250 b")

    def smtp_HELO(self, arg: str | None) -> None:
        """Answer in two lines that are pushed at once."""
        self.push("250-a\r\n250-b")
        self.push("250 c")


def test_several_pushes_are_one_reply() -> None:
    """The lines of a reply may be pushed one by one."""
    server = Server(SeveralPushes)
    assert converse(server, "EHLO x", "HELO y", "MAIL FROM:<ada@example.org>") == [
        "250-a\n250 b",
        "250-a\n250-b\n250 c",
        "250 OK",
    ]


class Delegating(smtpd.SMTPChannel):
    """Has the usual answers given, to other questions."""

    def smtp_EHLO(self, arg: str | None) -> None:
        """Pretend that there are no extensions."""
        self.smtp_HELO(arg)

    def smtp_HELO(self, arg: str | None) -> None:
        """Leave it to smtpd."""
        super().smtp_HELO(arg)

    def smtp_MAIL(self, arg: str | None) -> None:
        """Take another sender."""
        super().smtp_MAIL((arg or "").replace("ada", "eve"))

    def smtp_RCPT(self, arg: str | None) -> None:
        """Refuse some recipients, and leave the others to smtpd."""
        if "bob" in (arg or ""):
            self.push("550 No Bob here")
        else:
            super().smtp_RCPT(arg)


def test_super_answers_as_usual() -> None:
    """An override may call what it overrides, with another argument, and the state follows that."""
    server = Server(Delegating)
    commands = ("MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "RCPT TO:<eve@example.org>", "RCPT")
    replies = converse(server, "HELO x", *commands, "DATA", "x\r\n.")
    syntax = "501 Syntax: RCPT TO: <address>"
    accepted = "354 End data with <CR><LF>.<CR><LF>"
    assert replies == ["250 localhost", "250 OK", "550 No Bob here", "250 OK", syntax, accepted, "250 OK"]
    assert [message[1:3] for message in server.messages] == [("eve@example.org", ["eve@example.org"])]


def test_another_command_may_answer() -> None:
    """smtp_EHLO may call smtp_HELO: the client is answered and treated as if it had said HELO."""
    server = Server(Delegating)
    with connected(server) as client:
        channel = server.channels.get(timeout=DEADLINE)
        assert client.ask("EHLO client.example") == "250 localhost"
        assert not channel.extended_smtp
        assert channel.seen_greeting == "client.example"


class Usual(smtpd.SMTPChannel):
    """Overrides everything, and changes nothing."""


def _delegate(verb: str) -> Callable[[smtpd.SMTPChannel, str | None], None]:
    usual = getattr(smtpd.SMTPChannel, f"smtp_{verb}")

    def answer(self: smtpd.SMTPChannel, arg: str | None) -> None:
        usual(self, arg)

    return answer


VERBS = ("EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "HELP", "VRFY", "EXPN")
Overriding = type("Overriding", (Usual,), {f"smtp_{verb}": _delegate(verb) for verb in VERBS})


@pytest.mark.parametrize(
    "commands",
    [
        (*TRANSACTION, "DATA", "x\r\n.", "QUIT"),
        ("EHLO x", "HELO y", *(verb for verb in VERBS if verb != "QUIT"), "QUIT"),
        (*(f"{verb} x" for verb in VERBS if verb not in {"QUIT", "DATA"}), "QUIT"),
        ("EHLO x", "MAIL FROM:<ada@example.org> BODY=8BITMIME", "RSET", "DATA", "MAIL FROM:<> FOO"),
    ],
    ids=["a message", "without arguments", "with arguments", "parameters"],
)
def test_overrides_that_only_delegate_change_nothing(commands: tuple[str, ...]) -> None:
    """A class whose every command calls the one of SMTPChannel says what SMTPChannel says."""
    assert converse(Server(Overriding), *commands) == converse(Server(), *commands)


class WithVerb(smtpd.SMTPChannel):
    """Knows one more verb, and has other attributes whose names begin with smtp_."""

    smtp_TIMEOUT = 30

    def smtp_XFOO(self, arg: str | None) -> None:
        """Answer."""
        self.push(f"250 foo {arg}")

    def smtp_lower(self, arg: str | None) -> None:
        """Never answer."""
        self.push(f"250 {arg}")


class MoreVerbs(WithVerb):
    """Inherits a verb, and has one of a mixture."""

    smtp_XBAR = WithVerb.smtp_XFOO


def test_a_method_makes_a_verb() -> None:
    """A class has a new verb by defining its method, and its subclasses inherit it."""
    assert converse(Server(WithVerb), "xfoo a b", "XFOO", "XBAR") == [
        "250 foo a b",
        "250 foo None",
        UNRECOGNIZED.format("XBAR"),
    ]
    assert converse(Server(MoreVerbs), "XFOO 1", "XBAR 2") == ["250 foo 1", "250 foo 2"]
    assert converse(Server(), "XFOO") == [UNRECOGNIZED.format("XFOO")]


@pytest.mark.parametrize(
    "verb", ["SERVER", "STATE", "server", "state", "LOWER", "lower", "TIMEOUT", "EHLO__", "__INIT__"]
)
@pytest.mark.parametrize("channel_class", [smtpd.SMTPChannel, WithVerb, OneReply])
def test_text_from_the_network_names_no_attribute(channel_class: type[smtpd.SMTPChannel], verb: str) -> None:
    """A verb is looked up among commands alone: what else an object has, such as smtp_server, is none."""
    server = Server(channel_class)
    assert converse(server, verb, f"{verb} x") == [UNRECOGNIZED.format(verb.upper())] * 2


# Answers that come later.


class Later(smtpd.SMTPChannel):
    """Answers XWAIT, and messages, when it is told to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = threading.Event()

    def smtp_XWAIT(self, arg: str | None) -> None:
        """Push nothing."""
        self.asked.set()

    def process(self, content: Content) -> Reply | None:
        """Decide later."""
        self.asked.set()
        return None


def _ask_later(server: Server, client: RawClient, octets: bytes) -> Later:
    """Send what is answered later, with more behind it; return the channel, which waits for the answer."""
    channel = server.channels.get(timeout=DEADLINE)
    assert isinstance(channel, Later)
    client.send(octets)
    assert channel.asked.wait(DEADLINE)
    return channel


def test_an_answer_may_come_later() -> None:
    """A command whose method pushes nothing waits for its answer, and what is behind it isn't answered before."""
    server = Server(Later)
    with connected(server) as client:
        channel = _ask_later(server, client, b"XWAIT\r\nNOOP\r\nXFOO\r\n")
        client.send(b"RSET x\r\n")
        in_loop(server, lambda: channel.push("250-at\r\n250 last"))
        replies = [client.read_reply() for _ in range(4)]
        assert replies == ["250-at\n250 last", "250 OK", UNRECOGNIZED.format("XFOO"), "501 Syntax: RSET"]
        assert client.ask("NOOP") == "250 OK"


def test_a_waiting_session_holds_up_nobody_else() -> None:
    """While an answer is awaited, other clients are served."""
    server = Server(Later)
    with connected(server) as client:
        channel = _ask_later(server, client, b"XWAIT\r\n")
        with RawClient(server.address) as other:
            assert other.read_reply().startswith("220 ")
            assert other.ask("NOOP") == "250 OK"
        in_loop(server, lambda: channel.push("250 last"))
        assert client.read_reply() == "250 last"


def test_a_waiting_session_takes_no_more_than_it_must() -> None:
    """While an answer is awaited, nothing is read: a client that goes on sending is stopped by TCP."""
    server = Server(Later)
    with connected(server) as client:
        channel = _ask_later(server, client, b"XWAIT\r\n")
        client.socket.settimeout(0)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 64 * 1_048_576:
                sent += client.socket.send(b"NOOP\r\n" * 10_000)
        assert sent < 64 * 1_048_576
        in_loop(server, channel.close)


@pytest.mark.parametrize("reply", ["250 Kept", "451 Not now", "550-Not\r\n550 at all"])
def test_the_answer_to_a_message_may_come_later(reply: str) -> None:
    """A message may be answered later, too; then its transaction is over, whatever the reply."""
    server = Server(Later)
    with connected(server) as client:
        for command in (*TRANSACTION, "DATA"):
            client.ask(command)
        channel = _ask_later(server, client, b"x\r\n.\r\nMAIL FROM:<eve@example.org>\r\n")
        in_loop(server, lambda: channel.push(reply))
        assert client.read_reply() == reply.replace("\r\n", "\n")
        assert client.read_reply() == "250 OK"


def test_an_answer_may_come_after_the_last_of_the_client() -> None:
    """A client that has shut down its side is still given the answer that it waits for, and then the end."""
    server = Server(Later)
    with connected(server) as client:
        channel = _ask_later(server, client, b"XWAIT\r\n")
        client.socket.shutdown(1)
        in_loop(server, lambda: channel.push("250 last"))
        assert [client.read_reply(), client.read_reply()] == ["250 last", ""]


def test_an_answer_that_nobody_asked_for_is_an_error() -> None:
    """A push while no answer is awaited is a RuntimeError, which whoever stops the server gets."""
    server = Server()
    with pytest.raises(RuntimeError, match="no command to answer"), connected(server) as client:  # noqa: PT012
        channel = server.channels.get(timeout=DEADLINE)
        in_loop(server, lambda: channel.push("250 What?"))
        assert client.ask("NOOP") == "250 OK"


# Errors.


class Failing(smtpd.SMTPChannel):
    """Fails at some commands."""

    def smtp_NOOP(self, arg: str | None) -> None:
        """Fail."""
        raise KeyError(arg)

    def smtp_RSET(self, arg: str | None) -> None:
        """Fail in the midst of a reply."""
        self.push("250-all")
        msg = "disk full"
        raise OSError(msg)

    def smtp_MAIL(self, arg: str | None) -> None:
        """Push what is no reply."""
        self.push(arg or "")


@pytest.mark.parametrize(
    ("command", "error", "match"),
    [
        ("NOOP x", KeyError, "x"),
        ("RSET", OSError, "disk full"),
        ("MAIL nonsense", ValueError, "'nonsense' is no SMTP reply"),
        ("MAIL", ValueError, "'' is no SMTP reply"),
        ("MAIL 250-unfinished", ValueError, "is no SMTP reply"),
        ("MAIL 650 x", ValueError, "is no SMTP reply"),
    ],
)
def test_what_an_override_raises_reaches_whoever_stops_the_server(
    command: str, error: type[Exception], match: str
) -> None:
    """An exception in an override is answered with 451 and raised by stop; the session goes on."""
    server = Server(Failing).start()
    with RawClient(server.address) as client:
        client.read_reply()
        assert client.ask(command) == LOCAL_ERROR
        assert client.ask("HELO x") == "250 localhost"
    with pytest.raises(error, match=match):
        server.stop()


class Returning(smtpd.SMTPChannel):
    """Returns what it should push."""

    def smtp_NOOP(self, arg: str | None) -> str:  # type: ignore[override]
        """Push nothing."""
        return arg or ""

    def smtp_HELP(self, arg: str | None) -> bool:  # type: ignore[override]
        """Push, and return something that nobody needs, as smtpd allowed it."""
        self.push(f"214 {arg}")
        return True


class ReturningToReader(Returning):
    """Sees all lines, too."""

    def found_terminator(self) -> None:
        """Leave them to smtpd."""
        super().found_terminator()


@pytest.mark.parametrize("channel_class", [Returning, ReturningToReader])
@pytest.mark.parametrize("reply", ["550 no", ""])
def test_a_reply_that_is_returned_is_an_error(channel_class: type[Returning], reply: str) -> None:
    """An override that returns its reply instead of pushing it does not let the client wait: that is a TypeError."""
    server = Server(channel_class).start()
    with RawClient(server.address) as client:
        client.read_reply()
        assert client.ask("HELP me") == "214 me"
        assert client.ask(f"NOOP {reply}") == LOCAL_ERROR
        assert client.ask("HELO x") == "250 localhost"
    told = f'smtp_NOOP pushes its reply, such as self.push("550 No"), and returns None, not {reply!r}'
    with pytest.raises(TypeError, match=re.escape(told)):
        server.stop()


def test_several_errors_are_raised_together() -> None:
    """What several overrides have raised comes as a group, in order."""
    server = Server(Failing).start()
    with RawClient(server.address) as client:
        client.read_reply()
        assert [client.ask("NOOP"), client.ask("RSET")] == [LOCAL_ERROR] * 2
    with pytest.raises(ExceptionGroup, match="several hooks of Server failed") as caught:
        server.stop()
    assert [type(error) for error in caught.value.exceptions] == [KeyError, OSError]


def test_a_failed_command_has_no_effect() -> None:
    """A MAIL whose override failed opens no transaction."""
    server = Server(Failing)
    with pytest.raises(ValueError, match="no SMTP reply"):
        assert converse(server, "EHLO x", "MAIL x", "RCPT TO:<bob@example.org>")[-1] == "503 Error: need MAIL command"


# Closing.


class Closing(smtpd.SMTPChannel):
    """Closes its connection at some commands."""

    def smtp_NOOP(self, arg: str | None) -> None:
        """Say goodbye."""
        self.push("221 That was all")
        self.close_when_done()

    def smtp_RSET(self, arg: str | None) -> None:
        """Go without a word."""
        self.close()

    def smtp_HELO(self, arg: str | None) -> None:
        """Give up service."""
        self.push("421 Going down")


@pytest.mark.parametrize(
    ("command", "reply"),
    [("NOOP", "221 That was all"), ("RSET", ""), ("HELO x", "421 Going down"), ("QUIT", "221 Bye")],
    ids=["close_when_done", "close", "421", "QUIT"],
)
def test_a_channel_can_close_its_connection(command: str, reply: str) -> None:
    """close_when_done closes when the reply is sent, as QUIT and any 421 do; close does at once."""
    with connected(Server(Closing)) as client:
        assert client.ask(command) == reply
        assert client.read_reply() == ""


def test_nothing_is_answered_after_the_end() -> None:
    """Commands that were sent behind the one that closes the connection get no answer."""
    with connected(Server(Closing)) as client:
        client.send(b"NOOP\r\nEHLO x\r\nNOOP\r\n")
        assert client.read_reply() == "221 That was all"
        assert client.read_reply() == ""


def test_a_stopping_server_says_so_once() -> None:
    """Open sessions get a 421 when the server stops, but not those that have had their last reply."""
    server = Server().start()
    with RawClient(server.address) as waiting, RawClient(server.address) as leaving:
        for client in (waiting, leaving):
            client.read_reply()
        assert leaving.ask("QUIT") == "221 Bye"
        server.stop()
        assert waiting.read_reply() == "421 Service not available, closing transmission channel"
        assert [waiting.read_reply(), leaving.read_reply()] == ["", ""]


class Unclosed(smtpd.SMTPChannel):
    """Keeps its connection open after the last reply, until the client has read what is on the way."""

    def smtp_NOOP(self, arg: str | None) -> None:
        """Say the last word, and stop the server before the connection is closed."""
        self.push("221 That was all")
        self.close_when_done()
        self.end(Reply(421, "Going down"))


def test_no_notice_follows_the_last_reply() -> None:
    """A channel that has been told to close gets no 421 when the server stops at that moment."""
    with connected(Server(Unclosed)) as client:
        client.send(b"NOOP\r\n")
        assert "421" not in client.read_reply()
        assert client.read_reply() == ""


# What a channel knows.


def test_attributes_of_smtpd() -> None:
    """A channel has the attributes that smtpd's had, and they follow the session."""
    server = Server(enable_SMTPUTF8=True, data_size_limit=100)
    with connected(server) as client:
        channel = server.channels.get(timeout=DEADLINE)
        known = []

        def ask(command: str) -> None:
            client.ask(command)
            known.append((channel.seen_greeting, channel.extended_smtp, channel.mailfrom, channel.rcpttos))

        for command in ("NOOP", "HELO one.example", *TRANSACTION, "RCPT TO:<eve@example.org>", "RSET"):
            ask(command)
        for command in ("MAIL FROM:<>", "HELO two.example"):
            ask(command)
        ada, bob, eve = "ada@example.org", "bob@example.org", "eve@example.org"
        assert known == [
            ("", False, None, []),
            ("one.example", False, None, []),
            ("client.example", True, None, []),
            ("client.example", True, ada, []),
            ("client.example", True, ada, [bob]),
            ("client.example", True, ada, [bob, eve]),
            ("client.example", True, None, []),
            ("client.example", True, "", []),
            ("two.example", False, None, []),
        ]
        assert channel.peer == channel.addr == client.socket.getsockname()
        assert channel.fqdn == "localhost"
        assert channel.smtp_server is server
        assert (channel.data_size_limit, channel.enable_SMTPUTF8) == (100, True)
        assert channel.conn.peer == channel.peer


class Impolite(smtpd.SMTPChannel):
    """Looks at its own state while it answers."""

    def smtp_RCPT(self, arg: str | None) -> None:
        """Take one recipient of each sender."""
        if self.rcpttos:
            self.push(f"452 {self.mailfrom} writes to {self.rcpttos[0]} already")
        else:
            super().smtp_RCPT(arg)


def test_an_override_sees_the_state_before_its_command() -> None:
    """In an override the attributes tell the state in which the command came."""
    replies = converse(Server(Impolite), *TRANSACTION, "RCPT TO:<eve@example.org>")
    assert replies[-2:] == ["250 OK", "452 ada@example.org writes to bob@example.org already"]


# The server's hooks.


def test_channel_class_chooses_the_channel() -> None:
    """channel_class, of a class or of an instance, is what makes channels."""

    class WithClass(smtpd.SMTPServer):
        channel_class = WithVerb

    with WithClass(("127.0.0.1", 0), None, map={}) as server, RawClient(server.socket.getsockname()) as client:
        client.read_reply()
        assert client.ask("XFOO") == "250 foo None"


def test_handle_accepted_chooses_the_channel() -> None:
    """handle_accepted gets the connection and the client's address, and may choose among channels."""
    addresses = []

    class Choosing(Server):
        def handle_accepted(self, conn: Connection, addr: Address) -> smtpd.SMTPChannel:
            addresses.append(addr)
            return (WithVerb if len(addresses) > 1 else OneReply)(self, conn, addr)

    with connected(Choosing()) as first, RawClient(first.socket.getpeername()) as second:
        second.read_reply()
        assert first.ask("MAIL x") == "550 Not x"
        assert second.ask("XFOO") == "250 foo None"
        assert addresses == [first.socket.getsockname(), second.socket.getsockname()]


def test_handle_accepted_need_not_return_the_channel() -> None:
    """A handle_accepted that makes a channel and returns nothing, as smtpd's did, is enough."""
    made = []

    class Classic(Server):
        def handle_accepted(self, conn: Connection, addr: Address) -> None:  # type: ignore[override] # as smtpd's
            made.append(WithVerb(self, conn, addr, decode_data=False))

    with connected(Classic()) as client:
        assert client.ask("XFOO") == "250 foo None"
        assert len(made) == 1


def test_smtplib_delivers() -> None:
    """A message from smtplib arrives with the client's address, the envelope, and LF for line ends."""
    server = Server().start()
    with smtplib.SMTP(*server.address, timeout=DEADLINE) as client:
        assert client.sock is not None
        address = client.sock.getsockname()
        refused = client.sendmail("ada@example.org", ["bob@example.org", "eve@example.org"], "Subject: x\n\n.\nbye\n")
    server.stop()
    assert refused == {}
    expected = (address, "ada@example.org", ["bob@example.org", "eve@example.org"], b"Subject: x\n\n.\nbye")
    assert server.messages == [expected]


class PageStyle(Server):
    """Has the signature of smtpd's first days."""

    def process_message(  # type: ignore[override] # without **kwargs
        self, peer: Address, mailfrom: str, rcpttos: list[str], data: bytes | str
    ) -> str | None:
        """Answer with what came."""
        return f"250 {mailfrom}"


class OneKeyword(Server):
    """Takes one of the keyword arguments."""

    def process_message(  # type: ignore[override] # without **kwargs
        self, peer: Address, mailfrom: str, rcpttos: list[str], data: bytes | str, mail_options: list[str] | None = None
    ) -> str | None:
        """Answer with what came."""
        return f"250 {mail_options}"


class AllKeywords(Server):
    """Takes all."""

    def process_message(
        self, peer: Address, mailfrom: str, rcpttos: list[str], data: bytes | str, **kwargs: object
    ) -> str | None:
        """Answer with what came."""
        return f"250 {kwargs}"


@pytest.mark.parametrize(
    ("server_class", "options", "reply"),
    [
        (PageStyle, {}, "250 ada@example.org"),
        (PageStyle, {"decode_data": True}, "250 ada@example.org"),
        (OneKeyword, {}, "250 ['SIZE=10', 'BODY=8BITMIME']"),
        (OneKeyword, {"decode_data": True}, "250 None"),
        (AllKeywords, {}, "250 {'mail_options': ['SIZE=10', 'BODY=8BITMIME'], 'rcpt_options': []}"),
        (AllKeywords, {"decode_data": True}, "250 {}"),
    ],
)
def test_process_message_gets_the_keywords_that_it_takes(
    server_class: type[Server], options: dict[str, Any], reply: str
) -> None:
    """The parameters of MAIL and RCPT are passed, in upper case, to methods that have a place for them."""
    mail = TRANSACTION[1] + ("" if options else " size=10 body=8bitmime")
    replies = converse(server_class(**options), "EHLO x", mail, "RCPT TO:<bob@example.org>", "DATA", "x\r\n.")
    assert replies[-1] == reply


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (None, "250 OK"),
        ("", "250 OK"),
        ("250 Thanks", "250 Thanks"),
        ("550 No", "550 No"),
        ("451 Not now", "451 Not now"),
        ("250-a\r\n250 b", "250-a\n250 b"),
        ("554-a\n554 b", "554-a\n554 b"),
    ],
)
def test_process_message_answers(status: str | None, reply: str) -> None:
    """process_message returns the reply to the message, or None for a plain 250."""
    server = Server()
    server.status = status
    assert send(server) == reply


@pytest.mark.parametrize("status", ["nonsense", "25 Thanks", "250-a", "250-a\r\n550 b", "999 x"])
def test_process_message_returns_no_reply(status: str) -> None:
    """What process_message returns and is no reply is answered with 451, and is a ValueError at stop."""
    server = Server()
    server.status = status
    with pytest.raises(ValueError, match="is no SMTP reply"):
        assert send(server) == LOCAL_ERROR


def test_the_default_process_message_is_missing() -> None:
    """SMTPServer itself takes no message: it answers 451, and stop raises NotImplementedError."""

    class Bare(Server):
        process_message = smtpd.SMTPServer.process_message  # type: ignore[assignment] # which may return a Reply

    with pytest.raises(NotImplementedError):
        assert send(Bare()) == LOCAL_ERROR


@pytest.mark.parametrize(
    ("options", "content", "reply", "data"),
    [
        ({}, b"jos\xc3\xa9\r\n\r\n..\r\n", "250 OK", [b"jos\xc3\xa9\n\n."]),
        ({}, b"\xff\r\n", "250 OK", [b"\xff"]),
        ({}, b"bare\nLF and\rCR\r\n\r\n", "250 OK", [b"bare\nLF and\rCR\n"]),
        ({}, b"", "250 OK", [b""]),
        ({}, b"\r\n", "250 OK", [b""]),
        ({"decode_data": True}, b"jos\xc3\xa9\r\n\r\n..\r\n", "250 OK", ["josé\n\n."]),
        ({"decode_data": True}, b"", "250 OK", [""]),
        ({"decode_data": True}, b"\xff\r\n", "554 Error: the content is not UTF-8", []),
    ],
)
def test_data(options: dict[str, Any], content: bytes, reply: str, data: list[bytes | str]) -> None:
    """The data are bytes, or text with decode_data, with LF for line ends, no stuffed dots and no last line end."""
    server = Server(**options)
    with connected(server) as client:
        for command in (*TRANSACTION, "DATA"):
            client.ask(command)
        client.send(content + b".\r\n")
        assert client.read_reply() == reply
        assert client.ask("MAIL FROM:<eve@example.org>") == "250 OK"
    assert [message[3] for message in server.messages] == data


def test_large_data() -> None:
    """A message of megabytes arrives as it is."""
    server = Server().start()
    lines = [f"{number:076}" for number in range(50_000)]
    with smtplib.SMTP(*server.address, timeout=DEADLINE) as client:
        client.sendmail("ada@example.org", ["bob@example.org"], "\r\n".join(lines))
    server.stop()
    assert [message[3] for message in server.messages] == ["\n".join(lines).encode()]


@pytest.mark.parametrize("limit", [0, None])
def test_no_data_size_limit(limit: Any) -> None:
    """A data_size_limit of 0 or None is none: SIZE isn't offered, and any message is taken."""
    server = Server(data_size_limit=limit)
    replies = converse(server, *TRANSACTION, "DATA", "x\r\n.")
    assert replies[0] == "250-localhost\n250-8BITMIME\n250 HELP"
    assert replies[-1] == "250 OK"


def test_too_much_data() -> None:
    """A message over the limit is answered with 552 and not passed on, and the session goes on."""
    server = Server(data_size_limit=10)
    with connected(server) as client:
        for content, reply in (("x" * 9, "552 Error: Too much mail data"), ("x" * 8, "250 OK")):
            for command in (*TRANSACTION, "DATA"):
                client.ask(command)
            assert client.ask(f"{content}\r\n.") == reply
    assert [message[3] for message in server.messages] == [b"x" * 8]


class Delivered(smtpd.SMTPChannel):
    """Remembers the messages whose 250 is about to be sent."""

    delivered: ClassVar[list[bytes]] = []

    def deliver(self, content: Content) -> None:
        """Remember."""
        self.delivered.append(content.data)


def test_deliver_is_called_before_the_positive_reply_alone() -> None:
    """A channel's deliver gets the messages that are accepted, before the client knows, and no others."""
    server = Server(Delivered)
    with connected(server) as client:
        for status in ("250 Yes", "550 No"):
            server.status = status
            for command in (*TRANSACTION, "DATA"):
                client.ask(command)
            assert client.ask(f"{status}\r\n.") == status
            assert Delivered.delivered == [b"250 Yes\r\n"]


def test_text_and_smtputf8_exclude_each_other() -> None:
    """decode_data and enable_SMTPUTF8 together are a ValueError."""
    with pytest.raises(ValueError, match="decode_data and enable_SMTPUTF8"):
        Server(decode_data=True, enable_SMTPUTF8=True)
