"""RecordingServer: its address and options, what it records and when, and what it asserts."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import Lint, RecordingServer, Refusal, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONTENT = b"Subject: Hello\r\n\r\nHow are you?\r\n"
BEGIN = ("MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer() as server:
        yield server


def send(server: RecordingServer, subject: str = "Hello", rcptto: str = "bob@example.org") -> None:
    """Send a message as an application does."""
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", rcptto, f"Subject: {subject}\r\n\r\nHow are you?\r\n".encode())


def greeted(server: RecordingServer) -> RawClient:
    """Return a client that has said EHLO."""
    client = RawClient(server.address)
    client.read_reply()
    client.ask("EHLO client.example")
    return client


def ask_all(client: RawClient, *commands: str) -> None:
    """Send commands one after the other; each must be accepted."""
    for command in commands:
        assert client.ask(command)[0] in "23"


def hang_up(client: RawClient, server: RecordingServer) -> None:
    """Close the connection, and wait until the server has taken notice of it."""
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read_reply() == ""
    # The server closed that connection in its only thread, which now answers another one.
    with greeted(server):
        pass


# Where it listens.


def test_the_address_is_a_loopback_address_and_a_free_port(server: RecordingServer) -> None:
    """By default it listens on a free port of 127.0.0.1, and says so as host, port, address and URL."""
    assert (server.host, server.address) == ("127.0.0.1", ("127.0.0.1", server.port))
    assert server.port > 0
    assert server.url == f"smtp://127.0.0.1:{server.port}"
    send(server)


def test_ipv6_addresses_stand_in_brackets_in_the_url() -> None:
    """On ::1 it serves IPv6; the address is a pair nevertheless, and the URL has brackets."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with RecordingServer("::1") as server:
        assert server.address == ("::1", server.port)
        assert server.url == f"smtp://[::1]:{server.port}"
        send(server)
        assert server.messages.one().peer[0] == "::1"


def test_a_given_port_is_taken(server: RecordingServer) -> None:
    """It listens on the port that it is given, or raises OSError in the constructor when that is taken."""
    with pytest.raises(OSError, match="in use"):
        RecordingServer(port=server.port)
    port = server.port
    server.stop()
    with RecordingServer(port=port) as other:
        assert other.port == port


def test_start_and_stop_may_be_repeated() -> None:
    """`start` on a running server and `stop` on a stopped one do nothing; the port and the messages stay."""
    server = RecordingServer()
    server.start()
    port = server.start().port
    send(server)
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        send(server)
    with server:
        assert server.port == port
        send(server)
        assert len(server.messages) == 2


def test_it_works_without_pytest() -> None:
    """A script uses the server without importing pytest."""
    script = """if True:
        import smtplib, sys
        from pytest_smtpd import RecordingServer
        with RecordingServer() as server:
            with smtplib.SMTP(*server.address) as client:
                client.sendmail("ada@example.org", "bob@example.org", b"Subject: Hello\\r\\n\\r\\n")
            print(server.assert_received(subject="Hello"))
        assert "pytest" not in sys.modules and "_pytest" not in sys.modules
    """
    command = [sys.executable, "-W", "error", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the script above
    assert (ran.stdout, ran.stderr) == ("from <ada@example.org> to <bob@example.org>: 'Hello'\n", "")


# Options.


def test_the_options_may_only_be_named() -> None:
    """Beside host and port, arguments have names: a third positional one is a TypeError, as is an unknown name."""
    positional: Any = ("127.0.0.1", 0, "mx.example.org")
    with pytest.raises(TypeError):
        RecordingServer(*positional)
    unknown: Any = {"hostnam": "mx.example.org"}
    with pytest.raises(TypeError, match="hostnam"):
        RecordingServer(**unknown)


def test_hostname_is_what_it_calls_itself() -> None:
    """`hostname` stands in the greeting and in the replies to EHLO and HELO."""
    with RecordingServer(hostname="mx.example.org") as server, RawClient(server.address) as client:
        assert client.read_reply().startswith("220 mx.example.org ESMTP")
        assert client.ask("EHLO client.example").startswith("250-mx.example.org\n")
        assert client.ask("HELO client.example") == "250 mx.example.org"


def test_offers_all_extensions(server: RecordingServer) -> None:
    """By default, all extensions are offered."""
    with smtplib.SMTP(*server.address) as client:
        client.ehlo()
        offered = set(client.esmtp_features)
        assert client.esmtp_features["size"] == "33554432"
    assert offered >= {"size", "8bitmime", "smtputf8", "pipelining", "enhancedstatuscodes", "help"}


@pytest.mark.parametrize(
    ("hide", "hidden"),
    [
        pytest.param(["SIZE", "pipelining"], {"size", "pipelining"}, id="list, any case"),
        pytest.param("SMTPUTF8", {"smtputf8"}, id="text"),
        pytest.param({"8BITMIME"}, {"8bitmime", "smtputf8"}, id="what another needs"),
        pytest.param((), set(), id="nothing"),
    ],
)
def test_hidden_extensions_are_not_offered(server: RecordingServer, hide: Any, hidden: set[str]) -> None:
    """`hide` takes keywords of extensions not to offer; what cannot be offered without them goes as well."""
    offered = []
    with RecordingServer(hide=hide) as hiding:
        for any_server in (server, hiding):
            with smtplib.SMTP(*any_server.address) as client:
                client.ehlo()
                offered.append(set(client.esmtp_features))
    assert offered[0] - offered[1] == hidden


def test_data_size_limit_refuses_larger_content() -> None:
    """Content of `data_size_limit` octets is taken, one octet more is answered with 552 and not recorded."""
    with RecordingServer(data_size_limit=len(CONTENT)) as server, greeted(server) as client:
        for content, reply in ((CONTENT, "250"), (b"x" + CONTENT, "552"), (CONTENT, "250")):
            ask_all(client, *BEGIN)
            client.send(content + b".\r\n")
            assert client.read_reply()[:3] == reply
        assert [message.data for message in server.messages] == [CONTENT, CONTENT]


def test_an_announced_size_is_refused_at_once() -> None:
    """A client that announces more than `data_size_limit` octets is refused before it sends them."""
    with RecordingServer(data_size_limit=10) as server, smtplib.SMTP(*server.address) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            client.sendmail("ada@example.org", "bob@example.org", CONTENT)
        assert caught.value.smtp_code == 552
        assert not server.messages


def test_data_size_limit_0_is_no_limit() -> None:
    """With a `data_size_limit` of 0, SIZE announces no maximum, and large content is taken."""
    data = b"x" * 78 + b"\r\n"
    with RecordingServer(data_size_limit=0) as server, smtplib.SMTP(*server.address) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "0"
        client.sendmail("ada@example.org", "bob@example.org", data * 500_000)
        assert len(server.messages.one().data) == 40_000_000


def test_max_recipients_refuses_more() -> None:
    """The recipient after `max_recipients` is answered with 452; the others get the message."""
    with RecordingServer(max_recipients=2) as server, smtplib.SMTP(*server.address) as client:
        refused = client.sendmail("ada@example.org", ["a@example.org", "b@example.org", "c@example.org"], CONTENT)
        assert {address: code for address, (code, _) in refused.items()} == {"c@example.org": 452}
        assert server.messages.one().rcpttos == ["a@example.org", "b@example.org"]


@pytest.mark.parametrize(("strict", "reply"), [(False, "250"), (True, "550")], ids=["patient", "strict"])
def test_strict_refuses_what_is_otherwise_noted(reply: str, *, strict: bool) -> None:
    """LF without CR in the content is recorded with a lint, or by a strict server refused and not recorded."""
    with RecordingServer(strict=strict) as server, greeted(server) as client:
        ask_all(client, *BEGIN)
        client.send(b"one\ntwo\r\n.\r\n")
        assert client.read_reply()[:3] == reply
        assert [message.lints for message in server.messages] == ([] if strict else [(Lint.BARE_LF,)])


@pytest.mark.parametrize(
    "options",
    [
        {"hide": "NONSENSE"},
        {"hide": ["SIZE", "NONSENSE"]},
        {"data_size_limit": -1},
        {"command_size_limit": 511},
        {"max_recipients": -1},
        {"max_connections": -1},
        {"timeout": -0.5},
        {"hostname": ""},
        {"hostname": "two words"},
        {"hostname": "mx.example.org\r\n250 OK"},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_errors(options: dict[str, Any]) -> None:
    """A value that makes no sense raises ValueError, which names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        RecordingServer(**options).close()


def test_an_unknown_extension_gets_the_list_of_known_ones() -> None:
    """The error for an unknown keyword in `hide` names it and those that there are."""
    with pytest.raises(ValueError, match=r"^hide: no extension is called CHUNK, SIZES; there are .*PIPELINING.*SIZE"):
        RecordingServer(hide=["sizes", "8BITMIME", "chunk"])


@pytest.mark.parametrize(("limit", "code"), [(0, 250), (12, 250), (11, 554)])
def test_line_size_limit_is_for_strict_servers(limit: int, code: int) -> None:
    """A strict server refuses a content line with more than `line_size_limit` octets, CRLF included (row 106)."""
    with RecordingServer(strict=True, line_size_limit=limit) as server, greeted(server) as client:
        ask_all(client, "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")
        client.send(b"\r\n0123456789\r\n.\r\n")
        assert client.read_reply().startswith(str(code))


def test_a_protocol_is_smtp_or_lmtp() -> None:
    """A `protocol` that it does not speak is an error, which names those it does."""
    with pytest.raises(ValueError, match="'smtp' or 'lmtp', not 'imap'"):
        RecordingServer(protocol="imap")  # type: ignore[arg-type] # the point of the test


def test_a_directory_of_addresses_answers_vrfy_and_expn() -> None:
    """`directory` has the addresses of users, and of those on mailing lists, by name (RFC 5321 3.5)."""
    directory = {"ada": "Ada <ada@example.org>", "staff": ["ada@example.org", "bob@example.org"]}
    with RecordingServer(directory=directory) as server, greeted(server) as client:
        assert client.ask("VRFY ada") == "250 2.1.5 Ada <ada@example.org>"
        assert client.ask("EXPN staff") == "250-2.1.5 <ada@example.org>\n250 2.1.5 <bob@example.org>"


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_port_out_of_range_is_an_error(port: int) -> None:
    """A port that there is not is an error, and not some other port."""
    with pytest.raises((ValueError, OverflowError, OSError)):
        RecordingServer(port=port).close()


def test_an_address_of_another_machine_is_an_error() -> None:
    """An address that can't be bound raises OSError in the constructor (192.0.2.0/24 is nobody's, RFC 5737)."""
    with pytest.raises(OSError, match="assign"):
        RecordingServer("192.0.2.1")


# What it records, and when.


def test_a_message_is_recorded_before_its_250_is_sent(server: RecordingServer) -> None:
    """Whoever has read the 250 finds the message at once, every time."""
    with greeted(server) as client:
        for number in range(1, 501):
            ask_all(client, *BEGIN)
            client.send(CONTENT + b".\r\n")
            client.read_reply()
            assert len(server.messages) == number


def test_messages_that_came_in_one_segment_are_all_recorded(server: RecordingServer) -> None:
    """Transactions that a client sent all at once are recorded in their order, before any reply is sent."""
    begin = "\r\n".join([*BEGIN, ""]).encode()
    with greeted(server) as client:
        client.send(b"".join(begin + b"Subject: " + subject + b"\r\n.\r\n" for subject in (b"one", b"two", b"three")))
        client.read_reply()
        assert [message.subject for message in server.messages] == ["one", "two", "three"]


def test_many_clients_lose_nothing(server: RecordingServer) -> None:
    """Ten clients that send at the same time lose no message and mix up none."""

    def work(number: int) -> None:
        sender, content = f"client{number}@example.org", f"Subject: client {number}\r\n\r\n".encode()
        with smtplib.SMTP(*server.address) as client:
            for index in range(20):
                client.sendmail(sender, f"{index}@example.org", content)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))
    assert len(server.messages) == 200
    for number in range(10):
        own = server.assert_received(20, mailfrom=f"client{number}@example.org", subject=f"client {number}")
        assert [message.rcpttos for message in own] == [[f"{index}@example.org"] for index in range(20)]


class Picky(RecordingServer):
    """Refuses messages to bob, and fails on those to eve."""

    def process_message(
        self, peer: tuple[Any, ...], mailfrom: str, rcpttos: list[str], data: bytes | str, **kwargs: Any
    ) -> str | None:
        """Answer a message."""
        match rcpttos:
            case ["bob@example.org"]:
                return "550 5.7.1 Not for bob"
            case ["eve@example.org"]:
                raise LookupError(rcpttos, data)
        return None


def test_a_subclass_may_refuse_messages() -> None:
    """What `process_message` refuses is answered so and not recorded; what it accepts is."""
    with Picky() as server:
        with pytest.raises(smtplib.SMTPDataError) as caught:
            send(server, rcptto="bob@example.org")
        send(server, rcptto="ada@example.org")
        assert (caught.value.smtp_code, caught.value.smtp_error) == (550, b"5.7.1 Not for bob")
        assert server.messages.one().rcpttos == ["ada@example.org"]
        assert server.messages.one().data == CONTENT


def test_what_a_subclass_raises_reaches_the_test() -> None:
    """When `process_message` raises, the answer is 451, nothing is recorded, and `stop` raises the exception."""
    server = Picky().start()
    with pytest.raises(smtplib.SMTPDataError) as caught:
        send(server, rcptto="eve@example.org")
    assert caught.value.smtp_code == 451
    assert not server.messages
    with pytest.raises(LookupError, match=r"eve@example\.org"):
        server.stop()


# Clearing.


@pytest.mark.parametrize("steps", [1, 2, 3, 4], ids=["after MAIL", "after RCPT", "after DATA", "in the content"])
def test_a_transaction_that_began_before_clear_is_never_recorded(server: RecordingServer, steps: int) -> None:
    """A message whose MAIL came before `clear` does not show up though it ends after it; the next one does."""
    with greeted(server) as client:
        ask_all(client, *BEGIN[:steps])
        if steps > len(BEGIN):
            client.send(CONTENT[:20])
        server.clear()
        ask_all(client, *BEGIN[steps:])
        client.send((CONTENT if steps <= len(BEGIN) else CONTENT[20:]) + b".\r\n")
        assert client.read_reply() == "250 2.0.0 OK"
        assert not server.messages
        ask_all(client, *BEGIN)
        client.send(b"Subject: new\r\n.\r\n")
        client.read_reply()
        assert server.messages.one().subject == "new"


def test_a_new_mail_after_rset_is_a_new_transaction(server: RecordingServer) -> None:
    """On a connection that had a transaction open before `clear`, one that begins after it is recorded."""
    with greeted(server) as client:
        ask_all(client, *BEGIN[:2])
        server.clear()
        ask_all(client, "RSET", *BEGIN)
        client.send(CONTENT + b".\r\n")
        client.read_reply()
        assert len(server.messages) == 1


def test_a_refused_mail_begins_nothing(server: RecordingServer) -> None:
    """A second MAIL, which is refused, does not make an old transaction a new one."""
    with greeted(server) as client:
        ask_all(client, *BEGIN[:2])
        server.clear()
        assert client.ask(BEGIN[0]).startswith("503 5.5.1")
        ask_all(client, "DATA")
        client.send(CONTENT + b".\r\n")
        client.read_reply()
        assert not server.messages


def test_clear_forgets_messages_and_aborted_transactions(server: RecordingServer) -> None:
    """After `clear`, the server is as new."""
    send(server)
    with greeted(server) as client:
        ask_all(client, BEGIN[0])
        hang_up(client, server)
    assert (len(server.messages), len(server.aborted)) == (1, 1)
    server.clear()
    assert (len(server.messages), len(server.aborted)) == (0, 0)


# Aborted transactions.


def quit_session(client: RawClient, server: RecordingServer) -> None:
    """End the session, and wait until the server has taken notice of it."""
    assert client.ask("QUIT").startswith("221")
    hang_up(client, server)


@pytest.mark.parametrize("leave", [hang_up, quit_session], ids=["hangs up", "says QUIT"])
@pytest.mark.parametrize(
    ("commands", "aborted"),
    [
        pytest.param(BEGIN[:1], "from <ada@example.org> to nobody", id="after MAIL"),
        pytest.param(BEGIN[:2], "from <ada@example.org> to <bob@example.org>", id="after RCPT"),
        pytest.param(
            ("MAIL FROM:<>", BEGIN[1], "RCPT TO:<eve@example.org>"),
            "from <> to <bob@example.org>, <eve@example.org>",
            id="null reverse-path",
        ),
        pytest.param((), None, id="before MAIL"),
        pytest.param((*BEGIN[:2], "RSET"), None, id="after RSET"),
        pytest.param((*BEGIN[:2], "EHLO client.example"), None, id="after EHLO"),
    ],
)
def test_a_client_that_leaves_aborts_its_transaction(
    server: RecordingServer,
    commands: tuple[str, ...],
    aborted: str | None,
    leave: Callable[[RawClient, RecordingServer], None],
) -> None:
    """An open transaction whose client leaves is noted as aborted, not recorded; one that it has ended is not noted."""
    with greeted(server) as client:
        peer = client.socket.getsockname()
        ask_all(client, *commands)
        leave(client, server)
    assert [str(transaction) for transaction in server.aborted] == ([] if aborted is None else [aborted])
    assert [transaction.peer for transaction in server.aborted] == ([] if aborted is None else [peer])
    assert not server.messages


def test_content_without_its_end_is_aborted(server: RecordingServer) -> None:
    """Content that lacks its end is no message (RFC 5321 4.1.1.4)."""
    with greeted(server) as client:
        ask_all(client, *BEGIN)
        client.send(CONTENT + b".\r")
        hang_up(client, server)
    assert len(server.aborted) == 1
    assert not server.messages


@pytest.mark.parametrize("limit", [10, 0], ids=["refused", "taken"])
def test_content_with_its_end_is_not_aborted(limit: int) -> None:
    """A transaction is over with the end of its content, whether the message was taken or refused."""
    with RecordingServer(data_size_limit=limit) as server, greeted(server) as client:
        ask_all(client, *BEGIN)
        client.send(CONTENT + b".\r\n")
        client.read_reply()
        hang_up(client, server)
        assert not server.aborted


def test_transactions_of_an_earlier_generation_are_not_noted(server: RecordingServer) -> None:
    """A transaction that began before `clear` and is aborted after it does not show up."""
    with greeted(server) as client:
        ask_all(client, *BEGIN[:2])
        server.clear()
        hang_up(client, server)
    assert not server.aborted


# Assertions.


def test_assert_received_returns_the_message(server: RecordingServer) -> None:
    """`assert_received` returns the one message that meets the criteria."""
    send(server, "one")
    send(server, "two")
    assert server.assert_received(subject="two") is server.messages[1]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_assert_received_with_count_returns_a_list(server: RecordingServer, count: int) -> None:
    """With `count`, `assert_received` returns the list of so many messages, be it empty or of one."""
    send(server, "other")
    for _ in range(count):
        send(server, "chosen")
    messages = server.assert_received(count, subject="chosen")
    assert isinstance(messages, list)
    assert messages == server.messages[1:]


def test_assert_not_received_passes_when_none_matches(server: RecordingServer) -> None:
    """`assert_not_received` passes when no message meets the criteria, and without criteria when none came."""
    server.assert_not_received()
    send(server, "one")
    server.assert_not_received(subject="two")


@pytest.mark.parametrize(
    "check", [RecordingServer.assert_received, RecordingServer.assert_not_received], ids=["received", "not received"]
)
def test_a_misspelt_criterion_is_an_error(server: RecordingServer, check: Callable[..., object]) -> None:
    """A misspelt criterion raises TypeError: it neither matches all messages nor none."""
    with pytest.raises(TypeError, match=r"subjekt is no criterion for messages: did you mean subject\?"):
        check(server, subjekt="Hello")


FAILURES: dict[str, tuple[Callable[[RecordingServer], object], str]] = {
    "none": (
        lambda server: server.assert_received(subject="Goodbye", rcpttos=["bob@example.org"]),
        """\
expected exactly one message with subject='Goodbye', rcpttos=['bob@example.org'], found none
Messages received: 2
  [0] from <ada@example.org> to <bob@example.org>: 'Hello'
        subject: expected 'Goodbye', got 'Hello'
  [1] from <ada@example.org> to <eve@example.org>: 'Hello'
        subject: expected 'Goodbye', got 'Hello'
        rcpttos: expected ['bob@example.org'], got ['eve@example.org']""",
    ),
    "too many": (
        lambda server: server.assert_received(subject="Hello"),
        """\
expected exactly one message with subject='Hello', found 2
Messages received: 2
  [0] from <ada@example.org> to <bob@example.org>: 'Hello'
  [1] from <ada@example.org> to <eve@example.org>: 'Hello'""",
    ),
    "other count": (
        lambda server: server.assert_received(count=3),
        """\
expected 3 messages, found 2
Messages received: 2
  [0] from <ada@example.org> to <bob@example.org>: 'Hello'
  [1] from <ada@example.org> to <eve@example.org>: 'Hello'""",
    ),
    "one that should not be": (
        lambda server: server.assert_not_received(rcpttos="bob@example.org"),
        """\
expected no message with rcpttos='bob@example.org', found 1
Messages received: 2
  [0] from <ada@example.org> to <bob@example.org>: 'Hello'  (matches)
  [1] from <ada@example.org> to <eve@example.org>: 'Hello'
        rcpttos: expected 'bob@example.org', got ['eve@example.org']""",
    ),
}


@pytest.mark.parametrize(("check", "text"), FAILURES.values(), ids=FAILURES)
def test_failures_tell_what_happened(
    server: RecordingServer, check: Callable[[RecordingServer], object], text: str
) -> None:
    """A failed assertion says what was expected, what came, and of the nearest messages what differs."""
    send(server, rcptto="bob@example.org")
    send(server, rcptto="eve@example.org")
    with pytest.raises(AssertionError) as caught:
        check(server)
    assert str(caught.value) == text


def test_failures_name_aborted_transactions(server: RecordingServer) -> None:
    """When a client went away in the middle of a transaction, a failed assertion says so: it may be the reason."""
    with greeted(server) as client:
        ask_all(client, *BEGIN)
        hang_up(client, server)
    with pytest.raises(AssertionError) as caught:
        server.assert_received()
    assert "\n  from <ada@example.org> to <bob@example.org>, ended after C: DATA, S: 354 " in str(caught.value)
    assert [str(aborted) for aborted in server.aborted] == ["from <ada@example.org> to <bob@example.org>"]


# What hooks get, and what is kept.


class Listening(RecordingServer):
    """Keeps what `process_message` is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.given: list[tuple[list[str], bytes, list[str]]] = []

    def process_message(self, *args: Any, **kwargs: Any) -> None:
        """Keep recipients, data and the options of RCPT."""
        self.given.append((args[2], args[3], kwargs["rcpt_options"]))


@pytest.mark.parametrize(
    ("body", "content", "data"),
    [
        pytest.param("", b"abcde", b"abcde", id="no last line end"),
        pytest.param("", b"abc\r\n", b"abc", id="a last line end"),
        pytest.param(" BODY=BINARYMIME", b"a\r\n\x00\r\n", b"a\r\n\x00\r\n", id="binary"),
    ],
)
def test_a_hook_loses_nothing_of_chunks(body: str, content: bytes, data: bytes) -> None:
    """`process_message` gets chunks whole: a last line end is left out if there is one, and binary stays binary."""
    with Listening() as server, greeted(server) as client:
        ask_all(client, f"MAIL FROM:<ada@example.org>{body}", "RCPT TO:<bob@example.org>")
        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
        assert client.read_reply().startswith("250")
    assert [given for _, given, _ in server.given] == [data]


def test_a_hook_gets_the_options_of_its_recipient() -> None:
    """In LMTP, where `process_message` is asked for each recipient, it gets that recipient's options."""
    with Listening(protocol="lmtp") as server, RawClient(server.address) as client:
        client.read_reply()
        ask_all(client, "LHLO client.example", "MAIL FROM:<ada@example.org>")
        ask_all(client, "RCPT TO:<bob@example.org> NOTIFY=NEVER", "RCPT TO:<eve@example.org> NOTIFY=DELAY", "DATA")
        client.send(b"x\r\n.\r\n")
        assert [client.read_reply()[:3] for _ in range(2)] == ["250", "250"]
    assert [(rcpttos, options) for rcpttos, _, options in server.given] == [
        (["bob@example.org"], ["NOTIFY=NEVER"]),
        (["eve@example.org"], ["NOTIFY=DELAY"]),
    ]


def test_nothing_is_kept_of_refused_content() -> None:
    """A dialogue, which lives longer than a refused message, does not keep its content."""

    class Refusing(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> str:
            """Refuse."""
            return "554 No"

    size = 4_000_000
    with Refusing() as server, greeted(server) as client:
        ask_all(client, *BEGIN)
        tracemalloc.start()
        client.send((b"x" * 76 + b"\r\n") * (size // 78) + b".\r\n")
        assert client.read_reply().startswith("554")
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < size / 2
        assert len(server.dialogues) == 1


def test_an_answer_that_ends_an_lmtp_session_keeps_what_was_accepted() -> None:
    """A recipient whose 250 was sent has the message, though a later answer closes the connection."""

    class Failing(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> str | None:
            """Go down at the second recipient."""
            return "421 Going down" if args[2] == ["eve@example.org"] else None

    with Failing(protocol="lmtp") as server, RawClient(server.address) as client:
        client.read_reply()
        ask_all(client, "LHLO client.example", "MAIL FROM:<ada@example.org>")
        ask_all(client, "RCPT TO:<bob@example.org>", "RCPT TO:<eve@example.org>", "RCPT TO:<zoe@example.org>", "DATA")
        client.send(b"x\r\n.\r\n")
        assert [client.read_reply()[:3] for _ in range(3)] == ["250", "421", ""]
        assert server.messages.one().rcpttos == ["bob@example.org"]


def test_a_refused_mail_leaves_no_lint() -> None:
    """What was wrong with a MAIL that was refused is not held against the messages that follow."""
    with RecordingServer() as server, greeted(server) as client:
        assert client.ask("MAIL FROM: <ada@example.org> FOO=1").startswith("555")
        ask_all(client, *BEGIN)
        client.send(b"x\r\n.\r\n")
        client.read_reply()
    assert server.messages.one().lints == ()


def test_dialogues_can_be_looked_at_while_clients_come(server: RecordingServer) -> None:
    """`dialogues` is a list of its own, which no client changes."""
    dialogues = server.dialogues
    with greeted(server):
        assert dialogues == []
        assert len(server.dialogues) == 1


class Answering(RecordingServer):
    """Answers every message as it was told to."""

    answer: Any = None

    def process_message(self, *args: Any, **kwargs: Any) -> Any:
        """Return it, or raise it."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, 250),
        ("", 250),
        ("550 5.7.1 No", 550),
        (Reply(550, "No", "5.7.1"), 550),
        (Refusal(Reply(550, "No", "5.7.1")), 550),
    ],
    ids=repr,
)
def test_a_hook_answers_in_several_ways(answer: Any, code: int) -> None:
    """`process_message` returns None or a reply, as text or as a Reply, or raises a Refusal; only 250 is recorded."""
    with Answering() as server, smtplib.SMTP(*server.address) as client:
        server.answer = answer
        assert deliver(client) == code
        assert len(server.messages) == (code == 250)


def deliver(client: smtplib.SMTP) -> int:
    """Send a message, and return the code of the reply to it."""
    try:
        client.sendmail("ada@example.org", "bob@example.org", "Subject: Hi\r\n\r\nHello\r\n")
    except smtplib.SMTPDataError as error:
        return error.smtp_code
    return 250


def test_a_hook_that_returns_nonsense_reaches_the_test() -> None:
    """What is no answer is a TypeError at the end, which says what would be one."""
    server = Answering().start()
    server.answer = True
    with smtplib.SMTP(*server.address) as client:
        assert deliver(client) == 451
    with pytest.raises(TypeError, match='None or a reply such as "550 No", not True'):
        server.stop()


def test_count_is_a_number(server: RecordingServer) -> None:
    """A criterion without a name is an error, not a number of messages."""
    with pytest.raises(TypeError, match="criteria go by name"):
        server.assert_received("Welcome")  # type: ignore[call-overload] # the point of the test


def test_a_server_and_its_dialogues_print_as_what_they_are(server: RecordingServer) -> None:
    """In a traceback a server shows its address, no password, and how many messages it has, a dialogue its client."""
    send(server)
    assert repr(server) == f"<RecordingServer on 127.0.0.1:{server.port}, 1 messages>"
    assert repr(server.dialogues[0]).startswith("<Dialogue with 127.0.0.1: ")
