"""What real subclasses of smtpd's channel do: they set its attributes, copy its methods, and read lines themselves."""

# ruff: noqa: N802 - methods are named after commands, and subclasses use smtpd's private names, as they did

from __future__ import annotations

import base64
import contextlib
import io
import queue
import smtplib
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer, smtpd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_smtpd.network.connection import Address, Connection
    from pytest_smtpd.protocol.mail import Content
    from pytest_smtpd.protocol.replies import Reply

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0


class Server(smtpd.SMTPServer):
    """Keeps its channels, and what process_message is called with."""

    def __init__(self, channel_class: type[smtpd.SMTPChannel] = smtpd.SMTPChannel, **options: Any) -> None:
        self.channel_class = channel_class
        self.channels: queue.Queue[smtpd.SMTPChannel] = queue.Queue()
        self.messages: list[tuple[Any, ...]] = []
        super().__init__(("127.0.0.1", 0), None, map={}, **options)
        self.address: tuple[str, int] = self.socket.getsockname()

    def handle_accepted(self, conn: Connection, addr: Address) -> smtpd.SMTPChannel:
        """Keep the channel."""
        channel = super().handle_accepted(conn, addr)
        self.channels.put(channel)
        return channel

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> None:
        """Keep the message."""
        self.messages.append((mailfrom, rcpttos, data, kwargs))


@contextlib.contextmanager
def connected(server: smtpd.SMTPServer) -> Iterator[RawClient]:
    """Serve, and give a client that has read the greeting."""
    with server, RawClient(server.socket.getsockname()) as client:
        assert client.read_reply().startswith("220 ")
        yield client


def converse(server: smtpd.SMTPServer, *commands: str) -> list[str]:
    """Send commands, one after the other, and return the replies."""
    with connected(server) as client:
        return [client.ask(command) for command in commands]


TRANSACTION = ("EHLO x", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA", "hello\r\n.")


# Settings of a session.


class Renamed(smtpd.SMTPChannel):
    """Has a name and limits of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fqdn = "mx.example.org"
        self.data_size_limit = 10


def test_a_channel_may_change_its_name_and_limit() -> None:
    """What a channel sets `fqdn` and `data_size_limit` to is in its replies, and holds for its session alone."""
    server = Server(Renamed)
    replies = converse(server, "EHLO x", *TRANSACTION[1:4], "more than ten\r\n.")
    assert replies[0].splitlines()[:2] == ["250-mx.example.org", "250-SIZE 10"]
    assert replies[-1] == "552 Error: Too much mail data"
    assert server.settings.hostname == "localhost"


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        pytest.param({}, ["SIZE 33554432", "8BITMIME", "HELP"], id="none"),
        pytest.param({"data_size_limit": 77}, ["SIZE 77", "8BITMIME", "HELP"], id="data_size_limit"),
        pytest.param({"data_size_limit": None}, ["8BITMIME", "HELP"], id="no data_size_limit"),
        pytest.param({"decode_data": True}, ["SIZE 33554432", "HELP"], id="decode_data"),
        pytest.param({"enable_SMTPUTF8": True}, ["SIZE 33554432", "8BITMIME", "SMTPUTF8", "HELP"], id="SMTPUTF8"),
    ],
)
def test_the_arguments_of_a_channel_count(options: dict[str, Any], keywords: list[str]) -> None:
    """A channel offers what its own arguments say, whatever its server's are, and `decode_data` decodes for it."""

    class Accepting(Server):
        def handle_accepted(self, conn: Connection, addr: Address) -> smtpd.SMTPChannel:
            return smtpd.SMTPChannel(self, conn, addr, **options)

    server = Accepting(data_size_limit=12345)
    assert converse(server, *TRANSACTION)[0].replace("250-", "250 ").split("\n250 ")[1:] == keywords
    [(_, _, data, _)] = server.messages
    assert data == ("hello" if options.get("decode_data") else b"hello")


def test_a_channels_arguments_may_contradict_each_other() -> None:
    """decode_data with enable_SMTPUTF8 is a ValueError for a channel, too."""

    class Accepting(Server):
        def handle_accepted(self, conn: Connection, addr: Address) -> smtpd.SMTPChannel:
            return smtpd.SMTPChannel(self, conn, addr, enable_SMTPUTF8=True, decode_data=True)

    server = Accepting()
    with pytest.raises(ValueError, match="decode_data"), server, RawClient(server.socket.getsockname()) as client:
        assert client.read_reply() == ""


def test_a_recording_server_has_its_own_options() -> None:
    """The options of RecordingServer hold, whatever arguments its channels are made with."""

    class Accepting(RecordingServer):
        def handle_accepted(self, conn: Connection, addr: Address) -> smtpd.SMTPChannel:
            return self.channel_class(self, conn, addr)

    reply = converse(Accepting(data_size_limit=77, hide=["HELP"]), "EHLO x")[0]
    assert "250-SIZE 77" in reply
    assert "HELP" not in reply


# Methods that were copied from smtpd and changed.


class Copied(smtpd.SMTPChannel):
    """Does what smtpd's methods did, line by line, with something added."""

    def smtp_EHLO(self, arg: str | None) -> None:
        """Offer one extension more."""
        if not arg:
            self.push("501 Syntax: EHLO hostname")
            return
        if self.seen_greeting:
            self.push("503 Duplicate HELO/EHLO")
            return
        self._set_rset_state()
        self.seen_greeting = arg
        self.extended_smtp = True
        self.push(f"250-{self.fqdn}")
        if self.data_size_limit:
            self.push(f"250-SIZE {self.data_size_limit}")
            self.command_size_limits["MAIL"] += 26
        if not self._decode_data:
            self.push("250-8BITMIME")
        self.push("250 XTRA")

    def smtp_MAIL(self, arg: str | None) -> None:
        """Take senders in lower case."""
        assert (self.mailfrom, self.mail_options, self.require_SMTPUTF8) == (None, [], False)
        address, parameters = self._getaddr(self._strip_command_keyword("FROM:", arg or ""))
        if not address:
            self.push("501 No sender")
            return
        self.mailfrom = address.lower()
        self.mail_options = parameters.upper().split()
        self.push("250 OK")

    def smtp_RCPT(self, arg: str | None) -> None:
        """Take recipients in lower case, and one more."""
        address, parameters = self._getaddr(self._strip_command_keyword("TO:", arg or ""))
        self.rcpttos.append(address.lower())
        self.rcpt_options = parameters.upper().split()
        self.push("250 OK")
        if "copy" in address:
            self.rcpttos.append("archive@example.org")

    def smtp_DATA(self, arg: str | None) -> None:
        """Ask for content."""
        self.smtp_state = self.DATA
        self.set_terminator(b"\r\n.\r\n")
        self.push("354 Go on")


def test_copies_of_smtpds_methods_work() -> None:
    """Methods that set the state as smtpd's did have the effect that they had."""
    server = Server(Copied)
    with connected(server) as client:
        commands = (
            "EHLO",
            "EHLO x",
            "EHLO y",
            "MAIL <>",
            "MAIL FROM:nonsense<",
            "MAIL FROM:<ADA@example.org> BODY=8bitmime",
        )
        replies = [client.ask(command) for command in commands]
        assert replies == [
            "501 Syntax: EHLO hostname",
            "250-localhost\n250-SIZE 33554432\n250-8BITMIME\n250 XTRA",
            "503 Duplicate HELO/EHLO",
            "501 No sender",
            "501 No sender",
            "250 OK",
        ]
        assert client.ask("RCPT TO:<BOB@example.org>") == "250 OK"
        assert client.ask("RCPT TO:<copy@example.org>") == "250 OK"
        channel = server.channels.get(timeout=DEADLINE)
        assert (channel.mail_options, channel.rcpt_options) == (["BODY=8BITMIME"], [])
        assert channel.socket.getpeername() == channel.peer
        assert client.ask("DATA") == "354 Go on"
        assert client.ask("hello\r\n.") == "250 OK"
        assert (channel.rcpttos, channel.rcpt_options, channel.mail_options) == ([], [], [])
    sender, recipients, _, options = server.messages[0]
    assert (sender, options) == ("ada@example.org", {"mail_options": ["BODY=8BITMIME"], "rcpt_options": []})
    assert sorted(recipients) == ["archive@example.org", "bob@example.org", "copy@example.org"]


class Renaming(smtpd.SMTPChannel):
    """Has the first transaction come from someone else, and answers its MAIL later."""

    renames = True

    def smtp_MAIL(self, arg: str | None) -> None:
        """Change it, and answer in a moment; later ones as usual."""
        if not self.renames:
            super().smtp_MAIL(arg)
            return
        self.renames = False
        self.mailfrom = "eve@example.org"
        self.mail_options = ["BODY=7BIT"]
        self.conn.call_later(0, lambda: self.push("250 In a moment"))


def test_what_is_made_of_a_command_holds_for_it_alone() -> None:
    """What an override makes of a command changes neither equal ones of that session nor those of others."""
    server = Server(Renaming)
    replies = converse(server, *TRANSACTION, *TRANSACTION[1:], "QUIT")
    assert replies[1] == "250 In a moment"
    assert [message[0] for message in server.messages] == ["eve@example.org", "ada@example.org"]
    assert [message[3]["mail_options"] for message in server.messages] == [["BODY=7BIT"], []]


class Changing(smtpd.SMTPChannel):
    """Changes an open transaction."""

    def smtp_NOOP(self, arg: str | None) -> None:
        """Have it come from someone else, to others."""
        self.mailfrom = "eve@example.org"
        self.rcpttos = ["one@example.org"]
        self.rcpttos.append("two@example.org")
        self.mail_options = ["NOTHING=TO_ADD"]
        self.push(f"250 {self.mailfrom} {self.rcpttos}")

    def smtp_XEND(self, arg: str | None) -> None:
        """End it."""
        self.mailfrom = None
        self.push(f"250 {self.mailfrom} {self.rcpttos}")


def test_an_open_transaction_can_be_changed() -> None:
    """What is set outside of MAIL and RCPT changes the open transaction; where there is none, nothing."""
    server = Server(Changing)
    changed = "250 eve@example.org ['one@example.org', 'two@example.org']"
    replies = converse(
        server, "NOOP", *TRANSACTION[:3], "NOOP", "DATA", "x\r\n.", TRANSACTION[1], "XEND", TRANSACTION[1]
    )
    assert [replies[0], replies[4]] == ["250 None []", changed]
    assert replies[-2:] == ["250 None []", "250 OK"]
    assert server.messages[0][:2] == ("eve@example.org", ["one@example.org", "two@example.org"])


def test_a_terminator_of_ones_own_is_an_error() -> None:
    """What ends lines and content can't be chosen: set_terminator takes what smtpd set, and nothing else."""

    class Odd(smtpd.SMTPChannel):
        def smtp_XODD(self, arg: str | None) -> None:
            self.set_terminator(b"\r\n")
            self.set_terminator(b"|")

    server = Server(Odd)
    with pytest.raises(ValueError, match=r"not with b'\|'"), connected(server) as client:
        assert client.ask("XODD").startswith("451 ")


# Lines.


class Login(smtpd.SMTPChannel):
    """Authenticates in steps, as CPython's own test server for smtplib does."""

    AUTH = 99

    def smtp_EHLO(self, arg: str | None) -> None:
        """Offer AUTH."""
        self.push("250-localhost\r\n250 AUTH LOGIN")
        self.seen_greeting = arg or ""
        self.extended_smtp = True

    def smtp_AUTH(self, arg: str | None) -> None:
        """Ask for the password, as smtplib sends the name at once."""
        mechanism, _, name = (arg or "").partition(" ")
        assert mechanism == "LOGIN"
        self.said = [base64.b64decode(name).decode()]
        self.smtp_state = self.AUTH
        self.push("334 UGFzc3dvcmQ6")

    def found_terminator(self) -> None:
        """Take passwords, and leave everything else to smtpd."""
        if self.smtp_state != self.AUTH:
            super().found_terminator()
            return
        line = self._emptystring.join(self.received_lines)
        self.received_lines = []
        self.said.append(base64.b64decode(line).decode())
        self.smtp_state = self.COMMAND
        self.push("235 OK" if self.said == ["ada", "secret"] else "535 No")


@pytest.mark.parametrize("decode_data", [True, False])
def test_found_terminator_takes_lines(decode_data: bool) -> None:  # noqa: FBT001 - parametrized
    """A channel whose found_terminator reads lines itself can authenticate smtplib, and receive its mail."""
    server = Server(Login, decode_data=decode_data)
    with server, smtplib.SMTP(*server.address, timeout=DEADLINE) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ada", "wrong")
        assert client.login("ada", "secret") == (235, b"OK")
        client.sendmail("ada@example.org", "bob@example.org", "hello")
    assert server.messages[0][2] == ("hello" if decode_data else b"hello")


def test_a_state_that_nobody_knows_is_confusing() -> None:
    """Where smtp_state is a subclass's own, and its found_terminator asks smtpd, the answer is 451."""

    class Confused(Login):
        def found_terminator(self) -> None:
            smtpd.SMTPChannel.found_terminator(self)

    assert converse(Server(Confused), "EHLO x", "AUTH LOGIN eA==", "eA==")[-1] == "451 Internal confusion"


def test_no_line_has_been_received_before_the_first() -> None:
    """`received_lines` is an empty list in a new channel, as in smtpd."""
    server = Server()
    with connected(server):
        assert server.channels.get(timeout=DEADLINE).received_lines == []


class Listening(smtpd.SMTPChannel):
    """Notes all lines, and has content of its own."""

    seen: list[tuple[int, bytes]]

    def found_terminator(self) -> None:
        """Note, and answer content that is urgent."""
        [line] = self.received_lines
        server = self.smtp_server
        assert isinstance(server, Server)
        server.messages.append((self.smtp_state, line))
        if self.smtp_state == self.DATA and line.startswith(b"urgent"):
            self.push("421 closing")
        else:
            super().found_terminator()


def test_found_terminator_sees_every_line_and_content() -> None:
    """found_terminator gets each line as it came, and content with smtp_state DATA; its push is the answer."""
    server = Server(Listening)
    long = "A" * 600
    lines = ("ehlo  x ", "noop\t", "", long, "\u00e9", *TRANSACTION[1:4], "slow\r\n.")
    urgent = (*TRANSACTION[1:4], "urgent\r\n.")
    replies = converse(server, *lines, *urgent)
    assert replies[2:5] == ["500 Error: bad syntax", "500 Error: line too long", "500 Error: bad syntax"]
    assert replies[-5:] == ["250 OK", "250 OK", "250 OK", "354 End data with <CR><LF>.<CR><LF>", "421 closing"]
    sent = [*((0, line.encode()) for line in lines[:-1]), (1, b"slow\r\n"), *((0, x.encode()) for x in urgent[:3])]
    sent[3] = (0, b"")
    delivered: tuple[Any, ...] = (
        "ada@example.org",
        ["bob@example.org"],
        b"slow",
        {"mail_options": [], "rcpt_options": []},
    )
    assert [entry for entry in server.messages if entry != delivered] == [*sent, (1, b"urgent\r\n")]
    assert delivered in server.messages


class Hesitant(smtpd.SMTPChannel):
    """Lets messages wait for their answer."""

    def found_terminator(self) -> None:
        """Leave it to smtpd."""
        super().found_terminator()

    def process(self, content: Content) -> Reply | None:
        """Decide later, when everything else is done."""
        server = self.smtp_server
        assert isinstance(server, Server)
        assert server.loop is not None
        server.loop.call_later(0, lambda: self.push("250 After all"))
        return None


def test_found_terminator_may_leave_the_answer_for_later() -> None:
    """Where found_terminator pushes nothing, the answer comes with a later push."""
    assert converse(Server(Hesitant), *TRANSACTION)[-1] == "250 After all"


# Replies.


class Overheard(smtpd.SMTPChannel):
    """Notes all that it says, and says it in lower case."""

    def push(self, msg: str) -> None:
        """Note, and change it."""
        server = self.smtp_server
        assert isinstance(server, Server)
        server.messages.append((msg,))
        super().push(msg.lower())

    def smtp_XFOO(self, arg: str | None) -> None:
        """Say something, too."""
        self.push("250 FOO")


def test_push_sees_every_reply() -> None:
    """All replies, the greeting included, go through an override of push line by line, which may change them."""
    server = Server(Overheard, data_size_limit=0)
    assert converse(server, "EHLO x", "XFOO", "QUIT") == ["250-localhost\n250-8bitmime\n250 help", "250 foo", "221 bye"]
    said = [message for (message,) in server.messages]
    greeting, ehlo = "220 localhost ESMTP pytest-smtpd-server", ["250-localhost", "250-8BITMIME", "250 HELP"]
    assert said == [greeting, *ehlo, "250 FOO", "221 Bye"]


# Methods that are replaced afterwards.


class Inheriting(smtpd.SMTPChannel):
    """Has no methods of its own."""


@pytest.mark.parametrize("patched", [smtpd.SMTPChannel, Inheriting])
def test_methods_can_be_replaced_in_a_class(monkeypatch: pytest.MonkeyPatch, patched: type[smtpd.SMTPChannel]) -> None:
    """What a test patches into a class of channels, or into its base, counts until it is undone."""

    def refuse(channel: smtpd.SMTPChannel, arg: str | None) -> None:
        channel.push(f"550 Not {arg}")

    def push(channel: smtpd.SMTPChannel, msg: str) -> None:
        usual(channel, msg.upper())

    usual = smtpd.SMTPChannel.push
    commands = ("XFOO 1", "NOOP", "NOOP 2")
    with monkeypatch.context() as patch:
        patch.setattr(patched, "smtp_XFOO", refuse, raising=False)
        patch.setattr(patched, "smtp_NOOP", refuse)
        patch.setattr(patched, "push", push)
        replies = ["550 NOT 1", "550 NOT NONE", "550 NOT 2"]
        with Server(Inheriting) as server, RawClient(server.address) as client:
            assert client.read_reply() == "220 LOCALHOST ESMTP PYTEST-SMTPD-SERVER"
            assert [client.ask(command) for command in commands] == replies
    assert converse(Server(Inheriting), *commands) == [
        '500 Error: command "XFOO" not recognized',
        "250 OK",
        "250 OK",
    ]


def test_other_attributes_of_a_class_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes that are no methods for commands can be patched and removed like those of any class."""
    with monkeypatch.context() as patch:
        patch.setattr(Inheriting, "other", 1, raising=False)
        assert getattr(Inheriting, "other") == 1  # noqa: B009 - mypy knows no such attribute
    assert not hasattr(Inheriting, "other")


# What can't be.


@pytest.mark.parametrize(
    ("base", "name", "instead"),
    [
        (smtpd.SMTPServer, "handle_accept", "handle_accepted"),
        (smtpd.SMTPServer, "handle_read", "process_message"),
        (smtpd.SMTPServer, "handle_close", "close"),
        (smtpd.SMTPChannel, "collect_incoming_data", "data_size_limit"),
        (smtpd.SMTPChannel, "handle_read", "found_terminator"),
        (smtpd.SMTPChannel, "handle_write", "push"),
        (smtpd.SMTPChannel, "handle_close", "connection_lost"),
        (RecordingServer, "handle_accept", "handle_accepted"),
    ],
)
def test_what_asyncore_called_is_an_error(base: type, name: str, instead: str) -> None:
    """A class with a method that only asyncore called is a TypeError that says what to override instead."""
    with pytest.raises(TypeError, match=rf"Mine\.{name} would never be called.*`{instead}"):
        type("Mine", (base,), {name: lambda _self: None})


# The module.


def test_the_module_has_smtpds_names() -> None:
    """The constants of smtpd are there, and the tuple of what `import *` brings."""
    assert (smtpd.NEWLINE, smtpd.EMPTYSTRING, smtpd.COMMASPACE) == ("\n", "", ", ")
    assert smtpd.DATA_SIZE_DEFAULT == 33_554_432
    assert (smtpd.SMTPChannel.COMMAND, smtpd.SMTPChannel.DATA, smtpd.SMTPChannel.command_size_limit) == (0, 1, 512)
    assert {"SMTPServer", "SMTPChannel", "DebuggingServer", "loop", "close_all"} <= set(smtpd.__all__)
    assert all(hasattr(smtpd, name) for name in smtpd.__all__)


@pytest.mark.parametrize(("name", "hint"), [("asyncore", "smtpd.loop()"), ("asynchat", "smtpd.loop()"), ("Foo", "Foo")])
def test_what_the_module_has_not_is_an_attribute_error(name: str, hint: str) -> None:
    """`smtpd.asyncore` is an AttributeError that says what replaces it; other names are plain ones."""
    with pytest.raises(AttributeError) as caught:
        getattr(smtpd, name)
    assert hint in str(caught.value)


class Failing(Server):
    """Fails at every message."""

    def process_message(self, *args: Any, **kwargs: Any) -> None:
        """Fail."""
        msg = "from the hook"
        raise LookupError(msg)


def _fail(servers: list[Failing], servers_map: dict[int, smtpd.SMTPServer]) -> None:
    """Have each of these servers fail, in this thread."""
    for server in servers:
        with RawClient(server.socket.getsockname()) as client:
            client.send(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n")
            while not server.errors:
                smtpd.loop(timeout=DEADLINE, map=servers_map, count=1)


def _make_failing(number: int) -> tuple[list[Failing], dict[int, smtpd.SMTPServer]]:
    servers = [Failing() for _ in range(number)]
    return servers, {server.socket.fileno(): server for server in servers}


@pytest.mark.parametrize(("number", "error"), [(1, LookupError), (2, ExceptionGroup)])
def test_close_all_closes_all_and_raises(number: int, error: type[Exception]) -> None:
    """close_all closes all servers of a map, and raises what their hooks have raised, once."""
    servers, servers_map = _make_failing(number)
    _fail(servers, servers_map)
    with pytest.raises(error):
        smtpd.close_all(servers_map)
    assert [server.socket.fileno() for server in servers] == [-1] * number
    for server in servers:
        server.stop()


def test_close_all_may_ignore_errors() -> None:
    """close_all with ignore_all raises nothing, and empties the map of servers that were made without one."""
    server = smtpd.DebuggingServer(("127.0.0.1", 0), None)
    smtpd.close_all()
    assert server.socket.fileno() == -1
    servers, servers_map = _make_failing(1)
    _fail(servers, servers_map)
    smtpd.close_all(servers_map, ignore_all=True)


# The trace.


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Have the trace written into memory."""
    stream = io.StringIO()
    monkeypatch.setattr(smtpd, "DEBUGSTREAM", stream)
    return stream


def lines_of(trace: io.StringIO) -> list[str]:
    """Return the lines without the client's address, which all of them have."""
    whose, lines = zip(*(line.split(" ", 1) for line in trace.getvalue().splitlines()), strict=True)
    assert len(set(whose)) == 1
    assert whose[0].startswith("127.0.0.1:")
    return list(lines)


def test_the_trace_has_the_dialogue(trace: io.StringIO) -> None:
    """What is said is written to DEBUGSTREAM, content by its size, other than ASCII escaped; 421 is there, too."""
    server = Server(data_size_limit=0)
    with connected(server) as client:
        for command in ("EHLO x", "MAIL FROM:<jos\u00e9@example.org>", "RCPT TO:<b@c>", "DATA", "hello\r\n.", ""):
            client.ask(command)
        server.close()
    assert lines_of(trace) == [
        "S: 220 localhost ESMTP pytest-smtpd-server",
        *("C: EHLO x", "S: 250-localhost", "S: 250-8BITMIME", "S: 250 HELP"),
        *(r"C: MAIL FROM:<jos\xe9@example.org>", "S: 250 OK", "C: RCPT TO:<b@c>", "S: 250 OK"),
        *("C: DATA", "S: 354 End data with <CR><LF>.<CR><LF>", "C: (7 octets of content)", "S: 250 OK"),
        "S: 500 Error: bad syntax",
        "S: 421 Service not available, closing transmission channel",
    ]


def test_the_trace_masks_passwords(trace: io.StringIO) -> None:
    """Passwords are not in the trace, neither those of AUTH nor those that a subclass reads itself."""
    with RecordingServer(users={"ada": "secret"}) as server, smtplib.SMTP(*server.address) as client:
        client.login("ada", "secret")
    plain = base64.b64encode(b"\0ada\0secret").decode()
    assert plain not in trace.getvalue()
    assert "C: AUTH ****" in lines_of(trace)
    assert "S: 235 2.7.0 Authentication successful" in lines_of(trace)
    trace.truncate(0)
    trace.seek(0)
    server_with_login = Server(Login)
    with server_with_login, smtplib.SMTP(*server_with_login.address, timeout=DEADLINE) as client:
        client.login("ada", "secret")
    assert base64.b64encode(b"secret").decode() not in trace.getvalue()
    assert lines_of(trace).count("C: ****") == 1


def test_nothing_is_traced_by_default() -> None:
    """DEBUGSTREAM is a Devnull at first, which drops what is written to it."""
    assert isinstance(smtpd.DEBUGSTREAM, smtpd.Devnull)
    smtpd.DEBUGSTREAM.write("nothing")
    smtpd.DEBUGSTREAM.flush()
