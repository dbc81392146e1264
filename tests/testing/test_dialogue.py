"""Dialogues: who said what and when, in the notation of RFC 5321 appendix D."""

from __future__ import annotations

import base64
import copy
import itertools
import smtplib
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer
from pytest_smtpd.testing.dialogue import MAX_EXCHANGES, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.testing.dialogue import Dialogue

CONTENT = b"Subject: Hello\r\n\r\nHow are you?\r\n"
#: A password.
SESAME = "open sesame"


@pytest.fixture
def start() -> Iterator[Callable[..., RecordingServer]]:
    """Return a function that starts a server with the options it is given."""
    servers: list[RecordingServer] = []

    def start(**options: Any) -> RecordingServer:
        servers.append(RecordingServer(**options).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start: Callable[..., RecordingServer]) -> RecordingServer:
    """Return a running server."""
    return start()


def connect(server: RecordingServer) -> RawClient:
    """Return a client that has read the greeting."""
    client = RawClient(server.address)
    client.read_reply()
    return client


def deliver(client: RawClient, content: bytes = CONTENT) -> None:
    """Send a message."""
    for command in ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA"):
        assert client.ask(command)[0] in "23"
    client.send(content + b".\r\n")
    assert client.read_reply().startswith("250")


def one(server: RecordingServer) -> Dialogue:
    """Return the only dialogue."""
    (dialogue,) = server.dialogues
    return dialogue


def encode(text: str) -> str:
    """Return a text in base64."""
    return base64.b64encode(text.encode()).decode()


# Notation.


def test_it_reads_like_the_rfc(start: Callable[..., RecordingServer]) -> None:
    """A session is printed as RFC 5321's appendix D prints one: each line of each side, in order."""
    server = start(hostname="mx.example.org", hide=["BINARYMIME", "CHUNKING", "DSN", "HELP", "SMTPUTF8"])
    with connect(server) as client:
        deliver(client)
        client.ask("QUIT")
    assert str(one(server)).splitlines() == [
        "S: 220 mx.example.org ESMTP pytest-smtpd-server",
        "C: EHLO client.example",
        "S: 250-mx.example.org",
        "S: 250-SIZE 33554432",
        "S: 250-8BITMIME",
        "S: 250-PIPELINING",
        "S: 250 ENHANCEDSTATUSCODES",
        "C: MAIL FROM:<ada@example.org>",
        "S: 250 2.1.0 OK",
        "C: RCPT TO:<bob@example.org>",
        "S: 250 2.1.5 OK",
        "C: DATA",
        "S: 354 End data with <CR><LF>.<CR><LF>",
        "C: (32 octets of content)",
        "S: 250 2.0.0 OK",
        "C: QUIT",
        "S: 221 2.0.0 Bye",
    ]


@pytest.mark.parametrize("hide", [(), ["ENHANCEDSTATUSCODES"]], ids=["enhanced", "basic"])
def test_replies_stand_there_as_they_were_sent(start: Callable[..., RecordingServer], hide: list[str]) -> None:
    """What the server says in a dialogue is to the letter what the client has read, status codes included."""
    server = start(hide=hide)
    commands = ("EHLO client.example", "MAIL FROM:<ada@example.org", "NONSENSE", "RSET", "VRFY bob", "HELP", "QUIT")
    with RawClient(server.address) as client:
        replies = [client.read_reply(), *map(client.ask, commands)]
    read = [line for reply in replies for line in reply.splitlines()]
    assert [line.text for line in one(server).lines if line.speaker == "S"] == read


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"noop\r\n", "NOOP"),
        (b"mail FROM:<ada@example.org>\r\n", "MAIL FROM:<ada@example.org>"),
        (b"NOOP \xff\r\n", "NOOP \\\\xff"),
        (b"NOOP \a\r\n", "NOOP \\x07"),
        (b"\r\n", ""),
        ("NOOP Grüße\r\n".encode(), "NOOP Grüße"),
        (b"\x16\x03\x01\x02\x00\n", "(a TLS handshake: this client needs a server with tls='implicit')"),
    ],
    ids=str,
)
def test_commands_are_readable(server: RecordingServer, octets: bytes, text: str) -> None:
    """A command stands there with its verb in upper case; what is no text is escaped, one line for one line."""
    with connect(server) as client:
        client.send(octets)
        client.read_reply()
    said = [line.text for line in one(server).lines if line.speaker == "C"]
    assert said == ([text] if text else [])


def test_lines_that_are_too_long_are_not_kept(server: RecordingServer) -> None:
    """Of a command line that is too long and comes in pieces the dialogue has only that it was so."""
    with connect(server) as client:
        for _ in range(100):
            client.send(b"x" * 1000)
        client.send(b"\r\n")
        assert client.read_reply().startswith("500 ")
    assert [line.text for line in one(server).lines if line.speaker == "C"] == ["(a line that is too long)"]


def test_lines_have_speaker_text_and_time() -> None:
    """`lines` has each line with who said it, what, and how many seconds after the dialogue began."""

    class Server(RecordingServer):
        clock = staticmethod(itertools.count().__next__)

    with Server() as server, connect(server) as client:
        client.ask("NOOP")
        client.ask("QUIT")
        lines = one(server).lines
    assert [(line.speaker, line.text) for line in lines][1:] == [
        ("C", "NOOP"),
        ("S", "250 2.0.0 OK"),
        ("C", "QUIT"),
        ("S", "221 2.0.0 Bye"),
    ]
    seconds = [line.seconds for line in lines]
    assert seconds == sorted(seconds)
    greeted, asked, answered, *_ = seconds
    assert 0 <= greeted < asked == answered
    assert lines[1] == Line(asked, "C", "NOOP")


# Secrets.

PLAIN = encode(f"\0ada\0{SESAME}")
BEARER = encode(f"user=ada\1auth=Bearer {SESAME}\1\1")
MASKED = "C: ****"
SECRETS: list[tuple[str, list[str], list[str]]] = [
    ("PLAIN", [f"AUTH PLAIN {PLAIN}"], ["C: AUTH PLAIN ****"]),
    ("PLAIN", [f"auth plain {PLAIN}"], ["C: AUTH plain ****"]),
    ("PLAIN", ["AUTH PLAIN", PLAIN], ["C: AUTH PLAIN", MASKED]),
    ("LOGIN", ["AUTH LOGIN", encode("ada"), encode(SESAME)], ["C: AUTH LOGIN", MASKED, MASKED]),
    ("LOGIN", [f"AUTH LOGIN {encode('ada')}", encode(SESAME)], ["C: AUTH LOGIN ****", MASKED]),
    ("LOGIN", ["AUTH LOGIN", "*"], ["C: AUTH LOGIN", MASKED]),
    ("XOAUTH2", [f"AUTH XOAUTH2 {BEARER}"], ["C: AUTH XOAUTH2 ****"]),
]


@pytest.mark.parametrize(("mechanism", "said", "masked"), SECRETS, ids=[" / ".join(said) for _, said, _ in SECRETS])
def test_passwords_are_masked(
    start: Callable[..., RecordingServer], mechanism: str, said: list[str], masked: list[str]
) -> None:
    """Whatever AUTH reveals is masked in print, and shown with `secrets=True`, whether or not it was accepted."""
    server = start(auth_mechanisms=[mechanism])
    with connect(server) as client:
        client.ask("EHLO client.example")
        for line in said:
            client.ask(line)
    dialogue = one(server)
    begin = len(dialogue.lines) - 2 * len(said)
    printed = [line.format() for line in dialogue.lines[begin:] if line.speaker == "C"]
    assert printed == masked
    assert dialogue.format().splitlines()[begin:][::2] == masked
    assert str(dialogue) == dialogue.format()
    revealed = dialogue.format(secrets=True).splitlines()[begin:][::2]
    assert revealed == [f"C: {line}".replace("C: auth", "C: AUTH") for line in said]
    secret = {line.text for line in dialogue.lines if line.secret}
    assert secret == {text.removeprefix("C: ") for text, mask in zip(revealed, masked, strict=True) if "*" in mask}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "AUTH PLAIN {}"),
    ({"auth_mechanisms": ["LOGIN"]}, "AUTH PLAIN {}"),
    ({"auth_mechanisms": ["PLAIN"], "tls": "starttls"}, "AUTH PLAIN {}"),
    ({"auth_mechanisms": ["CRAM-MD5"]}, "AUTH CRAM-MD5 {}"),
    ({"auth_mechanisms": ["PLAIN"]}, "AUTH PLAIN {}!"),
    ({"auth_mechanisms": ["PLAIN"]}, "AUTH PLAIN {}\a"),
    ({}, "AUTH PLAIN {}" + "A" * 1000),
]


@pytest.mark.parametrize(
    ("options", "command"),
    REFUSED,
    ids=["no AUTH", "no PLAIN", "no TLS", "no initial response", "no base64", "control character", "too long"],
)
def test_passwords_are_masked_where_auth_is_refused(
    start: Callable[..., RecordingServer], options: dict[str, Any], command: str
) -> None:
    """A password that was sent where AUTH is not offered, or not so, is a password all the same, and masked."""
    server = start(**options)
    with connect(server) as client:
        client.ask("EHLO client.example")
        assert client.ask(command.format(PLAIN))[0] == "5"
    assert PLAIN not in str(one(server))


# Content.


def test_content_stands_there_by_its_size(server: RecordingServer) -> None:
    """Content is not in the dialogue, only how many octets it had, dots removed; nor does the dialogue keep it."""
    with connect(server) as client:
        deliver(client, b"..top secret\r\n")
        deliver(client, b"")
    texts = [line.text for line in one(server).lines if line.speaker == "C"]
    assert [text for text in texts if text.startswith("(")] == ["(13 octets of content)", "(0 octets of content)"]
    assert "top secret" not in one(server).format(secrets=True)


def test_chunks_stand_there_as_commands(server: RecordingServer) -> None:
    """Each BDAT stands there, also the last one, which ends the message (RFC 3030 2)."""
    with connect(server) as client:
        for command in ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>"):
            client.ask(command)
        for chunk in (b"BDAT 5\r\none\r\n", b"BDAT 5 LAST\r\ntwo\r\n"):
            client.send(chunk)
            client.read_reply()
    assert server.messages.one().data == b"one\r\ntwo\r\n"
    said = [line.text for line in one(server).lines if line.speaker == "C"]
    assert [text for text in said if text.startswith("BDAT")] == ["BDAT 5", "BDAT 5 LAST"]


def test_lmtp_content_was_sent_once(start: Callable[..., RecordingServer]) -> None:
    """LMTP's content stands there once, and below it the replies for all recipients (RFC 2033 4.2)."""
    server = start(protocol="lmtp")
    with connect(server) as client:
        recipients = ["RCPT TO:<bob@example.org>", "RCPT TO:<carol@example.org>"]
        for command in ("LHLO client.example", "MAIL FROM:<ada@example.org>", *recipients, "DATA"):
            client.ask(command)
        client.send(CONTENT + b".\r\n")
        assert [client.read_reply()[:3] for _ in recipients] == ["250", "250"]
        client.ask("QUIT")
    lines = one(server).lines
    assert [line.speaker for line in lines][-5:] == ["C", "S", "S", "C", "S"]
    assert lines[-5].text == f"({len(CONTENT)} octets of content)"


# One a connection and test.


def test_each_connection_has_its_own(server: RecordingServer) -> None:
    """Two clients that talk at the same time have two dialogues, in the order in which they came."""
    with connect(server) as first, connect(server) as second:
        second.ask("EHLO second.example")
        first.ask("EHLO first.example")
        peers = [first.socket.getsockname(), second.socket.getsockname()]
    assert [dialogue.peer for dialogue in server.dialogues] == peers
    assert ["first.example" in str(dialogue) for dialogue in server.dialogues] == [True, False]


def test_a_kept_connection_has_one_for_each_test(server: RecordingServer) -> None:
    """On a connection that outlives `clear`, which comes before each test, a new dialogue begins with what follows."""
    with connect(server) as client:
        client.ask("EHLO before.example")
        before = one(server)
        said_before = str(before)
        server.clear()
        assert list(server.dialogues) == []
        client.ask("NOOP")
        assert str(one(server)) == "C: NOOP\nS: 250 2.0.0 OK"
        assert one(server).lines[0].seconds >= 0
        assert str(before) == said_before


def test_a_connection_that_said_nothing_has_one(server: RecordingServer) -> None:
    """A client that only connects has a dialogue: the greeting."""
    with connect(server):
        assert str(one(server)) == "S: 220 localhost ESMTP pytest-smtpd-server"


def test_a_message_knows_its_dialogue(server: RecordingServer) -> None:
    """`Message.dialogue` is the one of its connection; it goes on when the message is already there."""
    with connect(server) as client:
        deliver(client)
        deliver(client)
        client.ask("QUIT")
    first, second = server.messages
    assert first.dialogue is second.dialogue is one(server)
    assert str(first.dialogue).endswith("C: QUIT\nS: 221 2.0.0 Bye")


def test_the_dialogue_is_no_part_of_a_messages_value(server: RecordingServer) -> None:
    """A message's repr does not print the session, and comparing messages does not compare sessions."""
    with connect(server) as client:
        deliver(client)
        deliver(client)
    assert "S: " not in repr(server.messages[0])
    assert server.messages[0].dialogue
    server.clear()
    with connect(server) as client:
        deliver(client)
    assert server.messages[0].dialogue is one(server)


def test_a_copy_has_what_was_said_so_far(server: RecordingServer) -> None:
    """A copy of a dialogue, as `copy.deepcopy` makes one of a message, does not grow with the session."""
    with connect(server) as client:
        deliver(client)
        dialogue, before = one(server), str(one(server))
        twin = copy.deepcopy(server.messages[0]).dialogue
        client.ask("QUIT")
    assert str(twin) == before != str(dialogue)
    assert copy.deepcopy(dialogue).peer == dialogue.peer


# Bounds.


def test_a_dialogue_is_bounded(server: RecordingServer) -> None:
    """Of a session without end the last exchanges are kept."""
    with connect(server) as client:
        for number in range(MAX_EXCHANGES + 10):
            client.send(f"NOOP {number}\r\n".encode())
        for _ in range(MAX_EXCHANGES + 10):
            client.read_reply()
    said = [line.text for line in one(server).lines if line.speaker == "C"]
    assert said == [f"NOOP {number}" for number in range(10, MAX_EXCHANGES + 10)]


def test_the_dialogues_are_bounded(server: RecordingServer) -> None:
    """Of more than a thousand connections the dialogues of the last thousand are kept."""
    for number in range(1003):
        with connect(server) as client:
            client.ask(f"NOOP {number}")
    assert len(server.dialogues) == 1000
    assert "NOOP 3\n" in str(server.dialogues[0])
    assert "NOOP 1002\n" in str(server.dialogues[-1])


# What happens to the connection.


def test_tls_is_remarked(start: Callable[..., RecordingServer]) -> None:
    """Where TLS begins, a remark in brackets says so: nobody has said that line."""
    server = start(tls="starttls")
    with smtplib.SMTP(*server.address, local_hostname="client.example") as client:
        client.starttls(context=server.client_ssl_context)
        client.noop()
    printed = str(one(server))
    assert (
        "C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\n   (TLS is active)\nC: NOOP\nS: 250 2.0.0 OK\nC: QUIT\n"
    ) in printed
    assert [line.text for line in one(server).lines if not line.speaker] == ["TLS is active"]


def test_implicit_tls_is_the_first_remark(start: Callable[..., RecordingServer]) -> None:
    """With implicit TLS, the remark stands in front of the greeting, and nothing is said before it."""
    server = start(tls="implicit")
    with smtplib.SMTP_SSL(*server.address, context=server.client_ssl_context) as client:
        client.noop()
    assert str(one(server)).startswith("   (TLS is active)\nS: 220 ")
    seconds = [line.seconds for line in one(server).lines]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_failure_of_tls_is_remarked(start: Callable[..., RecordingServer], tls: str) -> None:
    """A handshake that fails stands at the end of the dialogue with its reason, also if it is all there is."""
    server = start(tls=tls)
    with RawClient(server.address) as client:
        if tls == "starttls":
            client.read_reply()
            client.ask("EHLO client.example")
            client.ask("STARTTLS")
        client.send(b"this is no TLS\r\n")
        while client.socket.recv(1000):
            pass
    last = one(server).lines[-1]
    assert (last.speaker, last.text) == ("", f"TLS failed: {server.tls_failures[0].error}")
    assert last.format() == f"   (TLS failed: {server.tls_failures[0].error})"


def test_the_end_of_a_session_by_the_server_stands_there(server: RecordingServer) -> None:
    """A 421 that ends a session unasked is the last line of its dialogue (RFC 5321 3.8)."""
    with connect(server) as client:
        server.stop()
        last_words = client.read_reply()
        assert last_words.startswith("421 4.3.2 ")
    assert str(one(server)).splitlines()[-1] == f"S: {last_words}"
