"""RecordingChannel: rules in pipelines, in LMTP, amid content, in TLS and AUTH, and beside hooks of subclasses."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient, split_replies

from pytest_smtpd import RecordingServer, Reply
from pytest_smtpd.testing.channel import RecordingChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.testing.faults import Rule

BEGIN = ("MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")
CONTENT = b"Subject: Hello\r\n\r\nHow are you?\r\n"
LARGE = b"Subject: Large\r\n\r\n" + b"..0123456789abcdef\r\n" * 250_000


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer(allow_unused_rules=True) as server:
        yield server


def greeted(server: RecordingServer, hello: str = "EHLO") -> RawClient:
    """Return a client that has said EHLO, or LHLO."""
    client = RawClient(server.address)
    client.read_reply()
    client.ask(f"{hello} client.example")
    return client


def send(server: RecordingServer, content: bytes = CONTENT) -> None:
    """Send a message as an application does."""
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", "bob@example.org", content)


def play(server: RecordingServer, octets: bytes) -> list[str]:
    """Send octets all at once; return the codes of all replies until the server closes the connection."""
    with socket.create_connection(server.address, timeout=10) as client:
        client.sendall(octets)
        received = b""
        while data := client.recv(65_536):
            received += data
    return [reply[:3] for reply in split_replies(received)]


# Pipelines.


@pytest.mark.parametrize(
    "wait",
    [
        lambda rule: rule,
        lambda rule: rule.delay(0.01),
        lambda rule: rule.fragment(3),
        lambda rule: rule.delay(0.01).fragment(3).delay(0.01),
    ],
    ids=["at once", "delay", "fragment", "both"],
)
def test_pipelined_commands_are_answered_in_order(server: RecordingServer, wait: Callable[[Rule], Rule]) -> None:
    """Whatever a rule does with one command, those behind it wait, and are answered by what came of it."""
    wait(server.on("RCPT", nth=2)).defer()
    wait(server.on("MAIL", nth=2)).reject()
    wait(server.on("QUIT")).delay(0.001)
    transaction = "MAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<eve@example.org>\r\n"
    octets = f"EHLO client.example\r\n{transaction}RSET\r\n{transaction}QUIT\r\n".encode()
    assert play(server, octets) == ["220", "250", "250", "250", "450", "250", "550", "503", "503", "221"]


def test_chunks_are_questions_of_their_own(server: RecordingServer) -> None:
    """A chunk is BDAT, the last one CONTENT, with what was pipelined behind a refused one."""
    chunk = server.on("BDAT", nth=2).delay(0.01).defer()
    content = server.on("CONTENT", mailfrom="eve@example.org", size=10).delay(0.01).reject()
    begin = "EHLO client.example\r\nMAIL FROM:<{}@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
    octets = begin.format("ada") + "BDAT 5\r\n12345BDAT 5\r\n67890BDAT 0 LAST\r\n"
    octets += begin.format("eve") + "BDAT 5\r\n12345BDAT 5 LAST\r\n67890QUIT\r\n"
    assert play(server, octets.encode()) == [
        *("220", "250", "250", "250", "250", "451", "503", "250", "250", "250", "250", "554", "221")
    ]
    assert (chunk.hits, content.hits) == (1, 1)


# LMTP.


@pytest.fixture
def lmtp() -> Iterator[RecordingServer]:
    """Return a running LMTP server."""
    with RecordingServer(protocol="lmtp") as server:
        yield server


def deliver(server: RecordingServer, *rcpttos: str) -> list[str]:
    """Deliver a message by LMTP; return the code for each recipient, "" where the connection ended before."""
    with greeted(server, "LHLO") as client:
        client.ask("MAIL FROM:<ada@example.org>")
        for rcptto in rcpttos:
            assert client.ask(f"RCPT TO:<{rcptto}@example.org>")[:3] == "250"
        client.ask("DATA")
        client.send(CONTENT + b".\r\n")
        return [client.read_reply()[:3] for _ in rcpttos]


def recipients(server: RecordingServer) -> list[list[str]]:
    """Return the recipients of each message that is there."""
    return [[rcptto.partition("@")[0] for rcptto in message.rcpttos] for message in server.messages]


def test_in_lmtp_each_recipient_is_a_question(lmtp: RecordingServer) -> None:
    """At CONTENT, `rcpttos` is the recipient whose turn it is."""
    lmtp.on("CONTENT", rcpttos="bob@example.org").delay(0.001).reject()
    assert deliver(lmtp, "ada", "bob", "eve") == ["250", "554", "250"]
    assert recipients(lmtp) == [["ada", "eve"]]


def test_in_lmtp_each_recipient_may_be_discarded(lmtp: RecordingServer) -> None:
    """Who is discarded is no recipient of the message, which the others have, whoever is last."""
    lmtp.on("CONTENT", rcpttos="eve@example.org").discard()
    assert deliver(lmtp, "ada", "eve") == deliver(lmtp, "eve", "bob") == ["250", "250"]
    assert recipients(lmtp) == [["ada"], ["bob"]]


@pytest.mark.parametrize(
    ("rule", "codes", "stored"),
    [
        (lambda rule: rule.disconnect(), ["250", "", ""], [["ada"]]),
        (lambda rule: rule.store().disconnect(), ["250", "", ""], [["bob"], ["ada"]]),
        (lambda rule: rule.store().reject(), ["250", "554", "250"], [["bob"], ["ada", "eve"]]),
        (lambda rule: rule.defer("421 4.3.2 Bye"), ["250", "421", ""], [["ada"]]),
    ],
)
def test_in_lmtp_each_250_holds(
    lmtp: RecordingServer, rule: Callable[[Rule], Rule], codes: list[str], stored: list[list[str]]
) -> None:
    """Whose recipient has a 250 has the message, however the connection ends; `store` is for one recipient."""
    rule(lmtp.on("CONTENT", nth=2))
    assert deliver(lmtp, "ada", "bob", "eve") == codes
    assert recipients(lmtp) == stored
    assert lmtp.aborted == []


# Amid content.


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_content_is_cut_off_in_the_middle(server: RecordingServer, content: bytes) -> None:
    """With `after_bytes` the connection ends when so many octets of content have come."""
    rule = server.on("CONTENT", after_bytes=len(content) // 2).reset()
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(server, content)
    server.call(lambda: None)  # so that it has taken notice
    assert rule.hits == 1
    server.assert_not_received()
    assert server.aborted[0].rcpttos == ["bob@example.org"]


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_content_that_is_interrupted_comes_whole(server: RecordingServer, content: bytes) -> None:
    """A delay in the middle of content loses no octet of it, and nothing that is pipelined behind."""
    rules = [server.on("CONTENT", after_bytes=len(content) // part).delay(0.01) for part in (4, 3, 2)]
    send(server, content)
    assert server.messages.one().data == content
    assert [rule.hits for rule in rules] == [1, 1, 1]
    with greeted(server) as client:
        for command in BEGIN:
            client.ask(command)
        client.send(CONTENT + b".\r\nNOOP\r\nQUIT\r\n")
        assert [client.read_reply()[:3] for _ in range(4)] == ["250", "250", "221", ""]


def test_chunks_may_be_cut_off_as_well(server: RecordingServer) -> None:
    """What comes with BDAT is content, too, counted from the first chunk on."""
    rule = server.on("CONTENT", after_bytes=8).disconnect()
    begin = b"EHLO client.example\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
    assert play(server, begin + b"BDAT 5\r\n12345BDAT 5 LAST\r\n67890NOOP\r\n") == ["220", "250", "250", "250", "250"]
    assert rule.hits == 1


def test_content_that_is_shorter_is_not_interrupted(server: RecordingServer) -> None:
    """The end of content is not the middle of it."""
    rule = server.on("CONTENT", after_bytes=len(CONTENT)).disconnect()
    send(server)
    assert (rule.hits, len(server.messages)) == (0, 1)


def test_what_has_come_by_then_is_known(server: RecordingServer) -> None:
    """Criteria see as much of the content as has come, and the envelope."""
    rule = server.on("CONTENT", after_bytes=20, subject="Hello", rcpttos=["bob@example.org"], size=20).delay(0.001)
    send(server)
    assert rule.hits == 1


def test_an_answer_amid_content_does_not_end_it(server: RecordingServer) -> None:
    """A server that answers too early is one that a client has to survive: the end is answered again."""
    server.on("CONTENT", after_bytes=5).reject("5.3.0 Enough")
    with greeted(server) as client:
        for command in BEGIN:
            client.ask(command)
        client.send(CONTENT[:10])
        assert client.read_reply() == "554 5.3.0 Enough"
        client.send(CONTENT[10:] + b".\r\n")
        assert client.read_reply() == "250 2.0.0 OK"


def test_a_rule_is_obeyed_by_content_that_comes_already(server: RecordingServer) -> None:
    """A rule that is added while large content comes applies to the rest of it."""
    with greeted(server) as client:
        for command in BEGIN:
            client.ask(command)
        client.send(LARGE[:100_000])
        [channel] = server._channels  # noqa: SLF001 - to know when it reads without looking
        while not channel.conn.reads_large:
            server.call(lambda: None)
        rule = server.on("CONTENT", after_bytes=2_000_000).defer("421 4.3.2 Enough")
        client.send(LARGE[:3_000_000])
        assert client.read_reply() == "421 4.3.2 Enough"
    assert rule.hits == 1


def test_all_content_is_interrupted_in_tls() -> None:
    """Interruptions count what was decrypted."""
    with RecordingServer(tls="starttls") as server:
        rule = server.on("CONTENT", after_bytes=1_000_000).delay(0.01)
        with smtplib.SMTP("localhost", server.port) as client:
            client.starttls(context=server.client_ssl_context)
            client.sendmail("ada@example.org", "bob@example.org", LARGE)
        assert (server.messages.one().data, rule.hits) == (LARGE, 1)


# TLS.


@pytest.fixture(params=["starttls", "implicit"])
def tls(request: pytest.FixtureRequest) -> Iterator[RecordingServer]:
    """Return a server with TLS, of either kind."""
    with RecordingServer(tls=request.param) as server:
        yield server


def encrypt(server: RecordingServer) -> smtplib.SMTP:
    """Return a client whose connection is encrypted."""
    if server.implicit_tls:
        return smtplib.SMTP_SSL("localhost", server.port, timeout=10, context=server.client_ssl_context)
    client = smtplib.SMTP("localhost", server.port, timeout=10)
    try:
        client.starttls(context=server.client_ssl_context)
    except BaseException:
        client.close()
        raise
    return client


@pytest.mark.parametrize(
    "act",
    [
        lambda rule: rule.disconnect(),
        lambda rule: rule.delay(0.01).reset(),
        lambda rule: rule.reject("What is TLS?"),
        lambda rule: rule.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda rule: rule.fragment(3).reject("What is TLS?"),
        lambda rule: rule.reject("What is TLS?").disconnect(),
    ],
    ids=["disconnect", "reset", "plain text", "raw", "fragments", "both"],
)
def test_a_handshake_fails(tls: RecordingServer, act: Callable[[Rule], Rule]) -> None:
    """At TLS the connection may end, or an answer come in plain text: no client gets any further."""
    rule = act(tls.on("TLS"))
    with pytest.raises((ssl.SSLError, OSError)):
        encrypt(tls)
    assert rule.hits == 1
    assert "TLS is active" not in str(tls.dialogues[0])


def test_a_handshake_may_come_late(tls: RecordingServer) -> None:
    """What the client has sent meanwhile is not lost: the handshake succeeds."""
    tls.on("TLS").delay(0.05).accept()
    with encrypt(tls) as client:
        assert client.noop()[0] == 250
    assert "TLS is active" in str(tls.dialogues[0])


def test_a_handshake_that_hangs_ends_with_the_test(tls: RecordingServer) -> None:
    """Instead of a handshake there is no room for a reply: the connection is closed."""
    rule = tls.on("TLS").hold()
    with ThreadPoolExecutor() as pool:
        encrypting = pool.submit(encrypt, tls)
        assert rule.reached.wait(10)
        tls.reset()
        with pytest.raises(OSError, match=r"EOF|closed|reset"):
            encrypting.result()


def test_a_function_that_fails_leaves_the_handshake_alone() -> None:
    """What a function raises at TLS reaches the test, and the client is served."""

    def fail(_message: Any) -> bool:
        raise ZeroDivisionError

    server = RecordingServer(tls="implicit").start()
    server.on("TLS", fail).disconnect()
    encrypt(server).quit()
    with pytest.raises(ZeroDivisionError):
        server.stop()


def test_what_is_injected_behind_starttls_comes_in_plain_text() -> None:
    """A raw 220 may have more lines behind it; a client that does not drop them believes an attacker."""
    with RecordingServer(tls="starttls") as server:
        server.on("STARTTLS").raw(b"220 Ready\r\n250-injected\r\n250 AUTH PLAIN\r\n")
        with greeted(server) as client:
            assert client.ask("STARTTLS") == "220 Ready"
            assert client.read_reply() == "250-injected\n250 AUTH PLAIN"


def test_starttls_that_is_refused_leaves_the_session_as_it_is() -> None:
    """STARTTLS can be refused as any command."""
    with RecordingServer(tls="starttls") as server:
        server.on("STARTTLS").defer()
        with greeted(server) as client:
            assert client.ask("STARTTLS") == "454 4.7.0 TLS not available due to temporary reason"
            assert client.ask("NOOP")[:3] == "250"


# AUTH.


@pytest.mark.parametrize(
    ("act", "code"), [(lambda rule: rule.reject(), 535), (lambda rule: rule.defer(), 454)], ids=["refused", "later"]
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_authentication_is_refused(mechanism: str, act: Callable[[Rule], Rule], code: int) -> None:
    """AUTH can be refused for good and for now, with every mechanism, and then succeeds."""
    with RecordingServer(users={"ada": "secret"}, auth_mechanisms=[mechanism]) as server:
        act(server.on("AUTH", times=1))
        with smtplib.SMTP(*server.address) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError) as raised:
                client.login("ada", "secret")
            assert raised.value.smtp_code == code
            client.login("ada", "secret")


def test_each_line_of_an_exchange_is_a_question() -> None:
    """The responses to challenges have the stage AUTH as well: the second one answers the user name."""
    with RecordingServer(users={"ada": "secret"}, auth_mechanisms=["LOGIN"]) as server:
        rule = server.on("AUTH", nth=3).delay(0.001).defer()
        with greeted(server) as client:
            assert [client.ask(line)[:3] for line in ("AUTH LOGIN", "YWRh", "c2VjcmV0", "NOOP")] == [
                *("334", "334", "454", "250")
            ]
        assert rule.hits == 1


def test_a_challenge_may_be_broken() -> None:
    """A challenge that is no base64 goes out as it is, and the response to it is refused, or accepted."""
    with RecordingServer(users={"ada": "secret"}, auth_mechanisms=["CRAM-MD5"]) as server:
        server.on("AUTH", nth=1).raw(b"334 !!!\r\n")
        server.on("AUTH", nth=2).reply(334, "again")
        with greeted(server) as client:
            lines = ("AUTH CRAM-MD5", "YWRh", "YWRh", "NOOP")
            assert [client.ask(line) for line in lines][:2] == ["334 !!!", "334 again"]
        server.rules.clear()
        server.on("AUTH").accept()
        with greeted(server) as client:
            assert [client.ask(line)[:3] for line in ("AUTH CRAM-MD5", "YWRh", "MAIL FROM:<a@b.c>")] == [
                *("334", "235", "250")
            ]


# Hooks.


class ChoosyChannel(RecordingChannel):
    """Knows one user."""

    def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - smtpd's name
        """Refuse all but bob, and fail for eve."""
        if "eve" in (arg or ""):
            raise ZeroDivisionError
        if "bob" in (arg or ""):
            super().smtp_RCPT(arg)
        else:
            self.push("551 5.1.6 Not here")


class Choosy(RecordingServer):
    """Answers RCPT and messages by itself."""

    channel_class = ChoosyChannel

    def process_message(self, *args: Any, **kwargs: Any) -> str:
        """Answer with something of its own."""
        return "250 2.6.0 Queued"


@pytest.mark.parametrize(
    "wait", [lambda rule: rule.delay(0.01), lambda rule: rule.fragment(4)], ids=["delay", "fragment"]
)
def test_the_usual_answer_is_the_subclass_s(wait: Callable[[Rule], Rule]) -> None:
    """A rule that only waits leaves the answer to the hooks."""
    with Choosy() as server:
        wait(server.on("ANY"))
        with greeted(server) as client:
            client.ask(BEGIN[0])
            assert client.ask("RCPT TO:<ada@example.org>") == "551 5.1.6 Not here"
            assert client.ask(BEGIN[1]) == "250 2.1.5 OK"
            client.ask(BEGIN[2])
            assert client.ask("Subject: Hello\r\n\r\n.") == "250 2.6.0 Queued"
        assert server.messages.one().subject == "Hello"


def test_a_rule_goes_before_the_subclass() -> None:
    """A rule that answers asks no hook."""
    with Choosy() as server:
        server.on("RCPT").accept()
        with greeted(server) as client:
            client.ask(BEGIN[0])
            assert client.ask("RCPT TO:<eve@example.org>") == "250 2.1.5 OK"


@pytest.mark.parametrize("delayed", [False, True])
def test_a_hook_that_fails_behind_a_rule_is_answered(delayed: bool) -> None:  # noqa: FBT001 - parametrized
    """What a hook raises is answered with 451 and reaches the test, at once or behind a delay."""
    server = Choosy().start()
    if delayed:
        server.on("RCPT").delay(0.01)
    else:
        server.on("RCPT").fragment(3)
    with greeted(server) as client:
        client.ask(BEGIN[0])
        assert client.ask("RCPT TO:<eve@example.org>")[:3] == "451"
    with pytest.raises(ZeroDivisionError):
        server.stop()


class LaterChannel(RecordingChannel):
    """Answers NOOP when somebody says so."""

    def smtp_NOOP(self, arg: str | None) -> None:  # noqa: N802 - smtpd's name
        """Don't answer yet."""


class Later(RecordingServer):
    """Has such a channel."""

    channel_class = LaterChannel


def test_an_answer_that_comes_later_comes_behind_a_rule() -> None:
    """A hook that answers later may do so where a rule has waited before."""
    with Later() as server:
        rule = server.on("NOOP").delay(0.01).hold()
        with greeted(server) as client:
            client.send(b"NOOP\r\nRSET\r\n")
            assert rule.reached.wait(10)
            rule.release()
            [channel] = server._channels  # noqa: SLF001 - a hook knows its channel
            server.call(lambda: channel.push("250 2.0.0 At last"))
            assert [client.read_reply() for _ in range(2)] == ["250 2.0.0 At last", "250 2.0.0 OK"]


class Blocking(RecordingServer):
    """Answers messages in a worker."""

    blocking = True

    def process_message(self, *args: Any, **kwargs: Any) -> str:
        """Answer with something of its own."""
        return "250 2.6.0 Queued"


def test_a_hook_that_blocks_is_asked_behind_a_rule() -> None:
    """What a worker answers is sent and recorded as without the rule, and what was pipelined comes behind."""
    with Blocking() as server:
        server.on("CONTENT").delay(0.01)
        with greeted(server) as client:
            for command in BEGIN:
                client.ask(command)
            client.send(CONTENT + b".\r\nNOOP\r\n")
            assert [client.read_reply() for _ in range(2)] == ["250 2.6.0 Queued", "250 2.0.0 OK"]
        assert server.messages.one().data == CONTENT


def test_a_session_ends_once(server: RecordingServer) -> None:
    """Who is told of the end twice has said so once, also in the dialogue."""
    with greeted(server) as client:
        [channel] = server._channels  # noqa: SLF001 - what ends it
        for _ in range(2):
            server.call(lambda: channel.end(Reply(421, "Bye")))
        assert [client.read_reply()[:3] for _ in range(2)] == ["421", ""]
    assert str(server.dialogues[0]).count("421") == 1


# Time-outs.


@pytest.mark.parametrize("stage", ["NOOP", "CONTENT", "TLS"])
def test_who_waits_for_a_rule_is_not_idle(stage: str) -> None:
    """The server's time-out is for silent clients, not for those that it lets wait."""
    with RecordingServer(timeout=0.05, tls="implicit" if stage == "TLS" else None) as server:
        rule = server.on(stage, after_bytes=5 if stage == "CONTENT" else None).hold()
        silent = RawClient(server.address)
        with silent, ThreadPoolExecutor() as pool:
            work: Callable[[], object] = {
                "TLS": lambda: encrypt(server).quit(),
                "CONTENT": lambda: send(server),
                "NOOP": lambda: play(server, b"NOOP\r\nQUIT\r\n"),
            }[stage]
            working = pool.submit(work)
            assert rule.reached.wait(10)
            if stage == "TLS":
                threading.Event().wait(0.15)
            else:
                assert [silent.read_reply()[:3] for _ in range(3)] == ["220", "421", ""]
            rule.release()
            working.result()
