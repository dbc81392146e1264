"""Relay: what goes wrong between a proxy and its upstream, and what the client hears of it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scripted import ScriptedServer
from support import RawClient

from pytest_smtpd import RecordingServer, Reply, smtpd
from pytest_smtpd.protocol.grammar import parse_parameters
from pytest_smtpd.smtpd.envelope import EVERYTHING, Envelope, Recipient
from pytest_smtpd.smtpd.next_hop import NextHop, Upstream
from pytest_smtpd.smtpd.relay import MAX_IDLE, Pool, Relay
from pytest_smtpd.smtpd.relayed import RelayedContent

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVELOPE = Envelope("ada@example.org", (), (Recipient("bob@example.org"), Recipient("carol@example.org")))
CONTENT = RelayedContent(b"Subject: x\r\n\r\nHello\r\n", b"X-Peer: 192.0.2.1")
SENT = b"Subject: x\r\nX-Peer: 192.0.2.1\r\n\r\nHello\r\n.\r\n"

NOTHING_OFFERED = b"250 scripted\r\n"


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@contextlib.contextmanager
def relaying(server: Any, **options: Any) -> Iterator[Relay]:
    """Return what relays to this server."""
    pool = Pool(NextHop(address=server.address, **options))
    relay = Relay(pool)
    yield relay
    relay.abort()
    pool.close()


@contextlib.contextmanager
def proxied(server: Any, **options: Any) -> Iterator[RawClient]:
    """Return a client of a proxy before this server, which has read the greeting."""
    with (
        smtpd.PureProxy(("127.0.0.1", 0), server.address, map={}, **options) as proxy,
        RawClient(proxy.socket.getsockname()) as client,
    ):
        assert client.read_reply().startswith("220 ")
        yield client


# A transaction.

COMMANDS = (
    "EHLO client.example",
    "MAIL FROM:<ada@example.org>",
    "RCPT TO:<bob@example.org>",
    "DATA",
    "Subject: x\r\n\r\nHello\r\n.",
)


def converse(client: RawClient, *commands: str) -> list[str]:
    """Send commands and return the replies."""
    return [client.ask(command) for command in commands]


def test_a_transaction() -> None:
    """What the client says is said to the upstream, whose answers are the answers, and the content comes once."""
    with ScriptedServer(MAIL=b"250 mail\r\n", RCPT=b"251-one\r\n251 two\r\n") as server, proxied(server) as client:
        server.script["."] = b"250-2.0.0 Queued\r\n250 2.0.0 as 4711\r\n"
        replies = converse(client, *COMMANDS)
        assert replies[1:3] == ["250 mail", "251-one\n251 two"]
        assert replies[4] == "250-2.0.0 Queued\n250 2.0.0 as 4711"
        assert server.said == [["EHLO [127.0.0.1]", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA"]]
        assert server.contents == [b"Subject: x\r\nX-Peer: 127.0.0.1\r\n\r\nHello\r\n.\r\n"]


REFUSALS = [
    pytest.param(b"550 No\r\n", "550 No", id="a line"),
    pytest.param(b"450 4.2.0 Not yet\r\n", "450 4.2.0 Not yet", id="transient"),
    pytest.param(b"550-5.1.1 No\r\n550 5.1.1 such\r\n", "550-5.1.1 No\n550 5.1.1 such", id="lines"),
    pytest.param(b"554\r\n", "554 ", id="no text"),
    pytest.param(b"550 caf\xe9\r\n", "550 caf\\xe9", id="not ASCII"),
    pytest.param(b"421 4.3.2 Leaving\r\n", "451 4.3.2 Leaving", id="it leaves"),
]


@pytest.mark.parametrize(("refusal", "reply"), REFUSALS)
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_refusals(verb: str, refusal: bytes, reply: str) -> None:
    """What the upstream refuses is refused, with all it says; a 421 is its own business, and transient for the client.

    The session goes on, and so does the next transaction.
    """
    place = {"MAIL": 1, "RCPT": 2, "DATA": 4, ".": 4}[verb]
    with ScriptedServer(**{verb: refusal}) as server, proxied(server) as client:
        assert converse(client, *COMMANDS[: place + 1])[-1] == reply
        del server.script[verb]
        assert client.ask("RSET") == "250 OK"
        assert converse(client, *COMMANDS)[-1] == "250 OK"
        assert len(server.contents) == (2 if verb == "." else 1)
        # A connection that was in use before may end at MAIL for reasons of its own: it was tried on two.
        assert len(server.said) == (1 if not refusal.startswith(b"421") else 3 if verb == "MAIL" else 2)


FAILURES = [
    pytest.param(None, id="hangs up"),
    pytest.param(b"", id="is silent"),
    pytest.param(b"What?\r\n", id="talks nonsense"),
    pytest.param(b"199 What?\r\n", id="has a code that is none"),
    pytest.param(b"250-and\r\n250-so" + b" on" * 30_000, id="finds no end"),
    pytest.param(b"250-and so on\r\n" * 6_000, id="finds no end of lines"),
    pytest.param(b"334 And?\r\n", id="wants more"),
]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_failures(verb: str, failure: bytes | None) -> None:
    """An upstream that hangs up, is silent or talks nonsense is 451, and the next transaction has a new connection."""
    if failure == b"334 And?\r\n" and verb == "DATA":
        failure = b"250 OK\r\n"  # what accepts DATA instead of asking for content has accepted nothing
    place = {"MAIL": 1, "RCPT": 2, "DATA": 4, ".": 4}[verb]
    with ScriptedServer(**{verb: failure}) as server, proxied(server, upstream_timeout=0.5) as client:
        reply = converse(client, *COMMANDS[: place + 1])[-1]
        assert reply.startswith("451 Error: the connection to the next hop: ")
        del server.script[verb]
        assert client.ask("RSET") == "250 OK"
        assert converse(client, *COMMANDS)[-1] == "250 OK"
        # At MAIL, it was tried on two: the first one, used before, might have been left alone for too long.
        assert len(server.said) == (3 if verb == "MAIL" and failure != b"" else 2)


def test_a_lost_answer() -> None:
    """When the connection ends behind the content nobody knows: it is 451, and it is the client who sends it again."""
    with ScriptedServer(**{".": None}) as server, proxied(server) as client:
        assert converse(client, *COMMANDS)[-1].startswith("451 ")
        assert len(server.contents) == 1
        assert len(server.said) == 1


@pytest.mark.parametrize("script", [{"CONNECT": None}, {"CONNECT": b"554 No\r\n"}, {"EHLO": b"450 No\r\n"}])
def test_an_upstream_that_does_not_serve(script: dict[str, bytes | None]) -> None:
    """An upstream that can't be used is no reason to offer less, or to refuse for good: MAIL is answered with 451."""
    with ScriptedServer(**script) as server, proxied(server) as client:
        offered = client.ask("EHLO client.example").splitlines()
        assert {line[4:].split()[0] for line in offered[1:]} == EVERYTHING.keywords | {"SIZE", "PIPELINING", "HELP"}
        assert client.ask("MAIL FROM:<ada@example.org>").startswith("451 4.4.1 Error: no connection to the next hop: ")
        server.script.clear()
        assert converse(client, *COMMANDS)[-1] == "250 OK"


def test_what_an_upstream_offered_last_counts() -> None:
    """While the upstream is away it is offered what it offered before."""
    with ScriptedServer() as server, proxied(server) as client:
        before = client.ask("EHLO client.example")
        assert before.splitlines() == ["250-localhost", "250-SIZE 920", "250-8BITMIME", "250-PIPELINING", "250 HELP"]
        server.script["CONNECT"] = None
        server.hang_up()
        assert client.ask("EHLO client.example") == before


def test_an_upstream_without_extensions() -> None:
    """An upstream that knows HELO alone is talked to so, and nothing is offered but what needs no upstream."""
    with ScriptedServer(EHLO=b"502 What?\r\n") as server, proxied(server, data_size_limit=0) as client:
        replies = converse(client, *COMMANDS)
        assert replies[0] == "250-localhost\n250-PIPELINING\n250 HELP"
        assert replies[-1] == "250 OK"
        assert server.verbs() == ["EHLO", "HELO", "MAIL", "RCPT", "DATA"]


def test_an_upstream_that_answers_too_soon() -> None:
    """An upstream that refuses content before it has all, and goes, is understood."""
    with (
        ScriptedServer(EHLO=NOTHING_OFFERED, DATA=b"354 Go on\r\n552 5.3.4 Enough\r\n") as server,
        proxied(server) as client,
    ):
        converse(client, *COMMANDS[:4])
        assert client.ask("x" * 1000 + "\r\n.") == "552 5.3.4 Enough"


# What the upstream can't take.


def test_extensions_that_are_gone() -> None:
    """An upstream that offers less than at EHLO gets nothing that it can't understand: RFC 6531 3.5, RFC 6152 3."""
    everything = (
        b"250-x\r\n" + b"".join(b"250-%s\r\n" % word.encode() for word in EVERYTHING.keywords) + b"250 HELP\r\n"
    )
    with ScriptedServer(EHLO=everything) as server, proxied(server) as client:
        assert set(client.ask("EHLO client.example").split()) >= {"250-SMTPUTF8", "250-8BITMIME", "250-DSN"}
        server.script["EHLO"] = NOTHING_OFFERED
        server.hang_up()
        for parameters, reply in (("BODY=8BITMIME", "554 5.6.3"), ("SMTPUTF8", "550 5.6.7"), ("RET=FULL", "555 5.5.4")):
            assert client.ask(f"MAIL FROM:<ada@example.org> {parameters}").startswith(reply)
        assert converse(client, *COMMANDS[1:])[-1] == "250 2.0.0 OK"
        assert len(server.contents) == 1


FALSE_END = RelayedContent(b"Subject: x\r\n\r\na\n.\nMAIL FROM:<eve@example.org>\r\n", b"X-Peer: 192.0.2.1")
NO_LINE_END = RelayedContent(b"Subject: x\r\n\r\na", b"X-Peer: 192.0.2.1")


def test_what_could_be_taken_for_an_end() -> None:
    """Content with a lone dot between bare line ends goes in a chunk, or not at all: it would smuggle a message in."""
    with RecordingServer() as server, relaying(server) as relay:
        assert relay.deliver(ENVELOPE, FALSE_END).is_positive
        assert server.messages.one().data == b"".join(FALSE_END.pieces())
    with RecordingServer(hide=["CHUNKING"]) as server, relaying(server) as relay:
        assert str(relay.deliver(ENVELOPE, FALSE_END)).startswith("554 5.6.0 ")
        assert relay.deliver(ENVELOPE, CONTENT).is_positive
        assert len(server.messages) == 1


def test_content_without_a_last_line_end() -> None:
    """Content that does not end with a line goes in a chunk as it is, and with DATA its last line is ended."""
    data = b"".join(NO_LINE_END.pieces())
    for hide, received in ((["PIPELINING"], data), (["CHUNKING"], data + b"\r\n")):
        with RecordingServer(hide=hide) as server, relaying(server) as relay:
            assert relay.deliver(ENVELOPE, NO_LINE_END).is_positive
            assert server.messages.one().data == received


# Connections.


def test_a_connection_is_used_again() -> None:
    """One connection serves the transactions of one session after the other, reset between them."""
    with ScriptedServer() as server, proxied(server) as client:
        converse(client, *COMMANDS, *COMMANDS[1:], *COMMANDS[1:3], "RSET", *COMMANDS[1:2], "EHLO client.example")
        transaction = ["MAIL", "RCPT", "DATA"]
        assert server.verbs() == ["EHLO", *transaction, *transaction, "MAIL", "RCPT", "RSET", "MAIL", "RSET"]
        assert len(server.said) == 1
        assert client.ask("RSET") == "250 OK"
        assert server.verbs()[-1] == "RSET"


@pytest.mark.parametrize("verb", ["HELO", "EHLO", "RSET"])
def test_a_connection_that_can_not_be_reset(verb: str) -> None:
    """Where the upstream does not take a RSET, the next transaction has another connection."""
    with ScriptedServer(RSET=b"500 What?\r\n") as server, proxied(server) as client:
        assert converse(client, *COMMANDS[:2], f"{verb} x".removesuffix("RSET x") or "RSET")[-1].startswith("250")
        assert converse(client, *COMMANDS)[-1] == "250 OK"
        assert len(server.said) == 2


def test_a_connection_that_has_ended() -> None:
    """A connection that the upstream has closed meanwhile is replaced, and no client hears of it."""
    with ScriptedServer() as server, proxied(server) as client:
        for _ in range(3):
            assert converse(client, *COMMANDS)[-1] == "250 OK"
            server.hang_up()
        assert len(server.contents) == 3


@pytest.mark.parametrize("end", [None, b"421 Too long\r\n"])
def test_a_connection_that_ends_at_mail(end: bytes | None) -> None:
    """A connection that was in use before and ends when it is needed is replaced at once."""
    with ScriptedServer() as server, relaying(server) as relay:
        assert relay.deliver(ENVELOPE, CONTENT).is_positive
        server.once["MAIL"] = end
        assert relay.deliver(ENVELOPE, CONTENT).is_positive
        assert len(server.contents) == len(server.said) == 2


def test_a_connection_that_ends_between_recipients_and_content() -> None:
    """A connection that ends before the content is sent is replaced, and the transaction is repeated there."""
    with ScriptedServer() as server, proxied(server) as client:
        converse(client, *COMMANDS[:4])
        server.hang_up()
        assert client.ask(COMMANDS[4]) == "250 OK"
        assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA"]
        assert len(server.contents) == 1


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ({"RCPT": b"550 No\r\n"}, "550 No"),
        ({"MAIL": b"450 No\r\n"}, "450 No"),
        ({"RCPT": b"421 No\r\n"}, "451 No"),
        ({"CONNECT": b"554 No\r\n"}, "451 4.4.1 Error: no connection to the next hop: it answered 554 No"),
    ],
)
def test_a_transaction_that_can_not_be_repeated(script: dict[str, bytes | None], reply: str) -> None:
    """If the upstream has changed its mind when a transaction has to be repeated, that is the answer to the content."""
    with ScriptedServer() as server, proxied(server) as client:
        converse(client, *COMMANDS[:4])
        server.script.update(script)
        server.hang_up()
        answer = client.ask(COMMANDS[4])
        assert answer == reply.replace(" 4.4.1", "") or answer == reply
        assert not server.contents


def test_a_recipient_behind_a_lost_connection() -> None:
    """When the connection ends among recipients, those that follow are 451 until the transaction begins anew."""
    with ScriptedServer(RCPT=None) as server, proxied(server) as client:
        converse(client, *COMMANDS[:2])
        assert client.ask("RCPT TO:<bob@example.org>").startswith("451 ")
        server.script.clear()
        assert client.ask("RCPT TO:<bob@example.org>") == "451 Error: the connection to the next hop was lost"
        assert client.ask("DATA").startswith("503 ")


def test_idle_connections_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was not used for long is left, politely, and another one made."""
    monkeypatch.setattr("pytest_smtpd.smtpd.relay.IDLE_SECONDS", 0.0)
    with ScriptedServer() as server, relaying(server) as relay:
        assert relay.deliver(ENVELOPE, CONTENT).is_positive
        assert relay.deliver(ENVELOPE, CONTENT).is_positive
        assert len(server.said) == 2
    assert server.verbs(0)[-1] == "QUIT"


def test_not_all_idle_connections_are_kept() -> None:
    """Of many connections that are not used any more, some are kept, and the others left."""
    with ScriptedServer() as server:
        pool = Pool(NextHop(address=server.address))
        relays = [Relay(pool) for _ in range(MAX_IDLE + 2)]
        for relay in relays:
            assert relay.begin(ENVELOPE).is_positive
        for relay in relays:
            relay.reset()
        pool.close()
    assert [verbs[-1] for verbs in server.said] == ["QUIT"] * (MAX_IDLE + 2)


def test_a_pool_that_is_closed_keeps_nothing() -> None:
    """A connection that is given back to a pool that is closed is left."""
    with ScriptedServer() as server:
        pool = Pool(NextHop(address=server.address))
        relay = Relay(pool)
        assert relay.begin(ENVELOPE).is_positive
        pool.close()
        relay.reset()
    assert server.verbs() == ["EHLO", "MAIL", "RSET", "QUIT"]


def test_a_relay_that_was_aborted() -> None:
    """Nothing is sent for a client that has gone, nor kept open."""
    with ScriptedServer() as server, relaying(server) as relay:
        assert relay.begin(ENVELOPE).is_positive
        relay.abort()
        assert not relay.in_transaction
        assert str(relay.begin(ENVELOPE)) == "451 4.4.1 Error: no connection to the next hop: the client has gone"
        relay.abort()
    assert server.verbs(0) == ["EHLO", "MAIL"]


def test_an_answer_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that is aborted just when its answer has come keeps no connection either."""
    with ScriptedServer() as server, relaying(server) as relay:

        def ask(upstream: Upstream, command: str) -> Reply:
            reply = usual(upstream, command)
            relay.abort()
            return reply

        usual = Upstream.ask
        monkeypatch.setattr(Upstream, "ask", ask)
        assert relay.begin(ENVELOPE).is_positive
        assert not relay.in_transaction


def test_what_goes_wrong_here() -> None:
    """An error that is not the connection's leaves no connection open, and reaches who stops the proxy."""
    hop = NextHop(address=("x" * 64 + ".example", 25))  # a label may have 63 octets
    relay = Relay(Pool(hop))
    with pytest.raises(UnicodeError):
        relay.begin(ENVELOPE)
    assert not relay.in_transaction
    with pytest.raises(UnicodeError), smtpd.PureProxy(("127.0.0.1", 0), hop.address, map={}) as proxy:  # noqa: PT012
        with RawClient(proxy.socket.getsockname()) as client:
            client.read_reply()
            assert client.ask("EHLO x").startswith("451 ")
        proxy.stop()


@pytest.mark.parametrize(
    ("verb", "options"),
    [*((verb, {}) for verb in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")), ("CONNECT", {"tls": "implicit"})],
)
def test_what_blocks_is_aborted(verb: str, options: dict[str, Any]) -> None:
    """Whatever the upstream does not answer, the beginning of TLS among it, aborting ends the wait at once."""
    with ScriptedServer(**{verb: b""}) as server, relaying(server, **options) as relay:
        replies: list[str] = []
        thread = threading.Thread(target=lambda: replies.append(str(relay.deliver(ENVELOPE, CONTENT))))
        thread.start()
        server.await_answer(verb)
        relay.abort()
        thread.join(10)
        assert [reply[:3] for reply in replies] == ["451"]
        assert not relay.in_transaction


# Parameters.


def test_parameters_are_passed_on() -> None:
    """The parameters of SIZE, 8BITMIME, SMTPUTF8 and DSN arrive; SIZE with room for the header."""
    with RecordingServer() as server, proxied(server) as client:
        commands = list(COMMANDS)
        commands[1] = "MAIL FROM:<adá@example.org> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2By"
        commands[2] = "RCPT TO:<bób@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.org"
        assert converse(client, *commands)[-1] == "250 2.0.0 OK"
        message = server.messages.one()
        assert (message.mailfrom, message.rcpttos) == ("adá@example.org", ["bób@example.org"])
        assert message.mail_options == ["SIZE=180", *commands[1].split()[3:]]
        assert message.rcpt_options == [commands[2].split()[2:]]


def test_addresses_without_smtputf8() -> None:
    """An address beyond ASCII is refused where the client has not declared it, as no relay may pass it on."""
    with RecordingServer() as server, proxied(server) as client:
        replies = converse(client, COMMANDS[0], "MAIL FROM:<adá@example.org>", COMMANDS[1], "RCPT TO:<bób@example.org>")
        assert [reply[:9] for reply in replies[1:]] == ["553 5.6.7", "250 2.1.0", "553 5.6.7"]


def test_replies_beyond_ascii() -> None:
    """Replies beyond ASCII reach a client that has declared SMTPUTF8 as they are (RFC 6531 3.7.4.2)."""
    offered = b"250-x\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
    with ScriptedServer(EHLO=offered, RCPT="550 Bób? Who's that?\r\n".encode()) as server, relaying(server) as relay:
        for parameters, text in (("SMTPUTF8", "550 Bób? Who's that?"), ("", "550 B\\xf3b? Who's that?")):
            relay.begin(Envelope("", parse_parameters(parameters)))
            assert relay.add(Recipient("bob@example.org")).to_bytes().decode() == f"{text}\r\n"


@pytest.mark.parametrize("option", ["BODY=BINARYMIME", "BODY=7BIT"])
def test_chunks(option: str) -> None:
    """A client may send in chunks where the upstream takes them, and binary content goes through as it is."""
    content = b"Subject: x\r\n\r\n\0\n.\n\r.\r\xff"
    with RecordingServer() as server, proxied(server) as client:
        converse(client, COMMANDS[0], f"MAIL FROM:<ada@example.org> {option}", COMMANDS[2])
        client.send(b"BDAT 5\r\n" + content[:5])
        assert client.read_reply() == "250 2.0.0 OK"
        client.send(b"BDAT %d LAST\r\n" % len(content[5:]) + content[5:])
        assert client.read_reply() == "250 2.0.0 OK"
        assert server.messages.one().data == content.replace(b"\r\n\r\n", b"\r\nX-Peer: 127.0.0.1\r\n\r\n")
