"""Actions: what clients see of each of them, on real sockets."""

from __future__ import annotations

import re
import smtplib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.testing.faults import Rule

BEGIN = ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")
CONTENT = "Subject: Hello\r\n\r\nHow are you?\r\n."


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer(allow_unused_rules=True) as server:
        yield server


def converse(server: RecordingServer, *commands: str) -> list[str]:
    """Return the last lines of the greeting and of the replies to these commands, "" where the connection ended."""
    with RawClient(server.address) as client:
        replies = [client.read_reply()]
        for command in commands:
            if replies[-1]:
                replies.append(client.ask(command))
    return [reply.rpartition("\n")[2] for reply in replies]


def send(server: RecordingServer, content: str = "Subject: Hello\r\n\r\nHow are you?\r\n") -> None:
    """Send a message as an application does."""
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", "bob@example.org", content)


# Answers.


@pytest.mark.parametrize(
    ("stage", "action", "reply"),
    [
        ("CONNECT", lambda rule: rule.reject(), "554 No SMTP service here"),
        ("CONNECT", lambda rule: rule.defer(), "421 Service not available, try again later"),
        ("CONNECT", lambda rule: rule.reply(220, "Welcome"), "220 Welcome"),
        ("EHLO", lambda rule: rule.reject("Go away"), "550 Go away"),
        ("MAIL", lambda rule: rule.reject(), "550 5.0.0 Requested action not taken"),
        ("MAIL", lambda rule: rule.defer(), "451 4.3.0 Requested action aborted, try again later"),
        ("RCPT", lambda rule: rule.reject(), "550 5.1.1 No such user here"),
        ("RCPT", lambda rule: rule.reject("No"), "550 5.0.0 No"),
        ("RCPT", lambda rule: rule.reject("5.7.1 No"), "550 5.7.1 No"),
        ("RCPT", lambda rule: rule.reject("553 5.1.3 No"), "553 5.1.3 No"),
        ("RCPT", lambda rule: rule.reject("553"), "553 5.0.0"),
        ("RCPT", lambda rule: rule.defer("452 4.2.2 Full"), "452 4.2.2 Full"),
        ("RCPT", lambda rule: rule.reply(251, "2.1.5 Will forward"), "251 2.1.5 Will forward"),
        ("DATA", lambda rule: rule.defer("421 4.3.2 Bye"), "421 4.3.2 Bye"),
        ("DATA", lambda rule: rule.reply(250, raw=True), "250 2.0.0"),
        ("MAIL", lambda rule: rule.reply(354, "Go on", raw=True), "354 Go on"),
    ],
)
def test_an_answer_is_sent_instead_of_the_usual_one(
    server: RecordingServer, stage: str, action: Callable[[Rule], Rule], reply: str
) -> None:
    """`reject`, `defer` and `reply` answer, each stage in its own words where no text is given."""
    action(server.on(stage))
    commands = BEGIN[: ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"].index(stage)]
    assert converse(server, *commands)[-1] == reply


def test_only_the_answer_moves_the_session(server: RecordingServer) -> None:
    """A MAIL that a rule refuses opens no transaction, a RCPT adds no recipient, and the session goes on."""
    server.on("MAIL", nth=1).defer()
    server.on("RCPT", nth=2).reject()
    replies = converse(server, *BEGIN[:3], *BEGIN[1:3], *BEGIN[2:4], CONTENT)
    assert [reply[:3] for reply in replies] == ["220", "250", "451", "503", "250", "550", "250", "354", "250"]
    assert server.messages.one().rcpttos == ["bob@example.org"]


@pytest.mark.parametrize(
    ("stage", "code", "fitting"),
    [
        ("DATA", 250, "where 354 and 400 to 599 fit"),
        ("MAIL", 354, "where 250 and 400 to 599 fit"),
        ("CONTENT", 354, "where 250 and 400 to 599 fit"),
        ("CONNECT", 250, "where 220 and 400 to 599 fit"),
        ("AUTH", 250, "where 235, 334 and 400 to 599 fit"),
        ("RCPT", 252, "where 250, 251 and 400 to 599 fit"),
        ("XYZZY", 354, "where 200 to 299 and 400 to 599 fit"),
        ("ANY", 250, "where 400 to 599 fit"),
    ],
)
def test_an_answer_that_contradicts_smtp_is_refused(
    server: RecordingServer, stage: str, code: int, fitting: str
) -> None:
    """A code that no client can make sense of is a ValueError, which says what fits and how to send it anyway."""
    with pytest.raises(ValueError, match=f"{code} contradicts SMTP as an answer to {stage}, {fitting}; raw=True"):
        server.on(stage).reply(code)
    server.on(stage).reply(code, raw=True)
    server.on("XYZZY").reply(299)


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda rule: rule.reject("450 Busy"), "'450 Busy' has the code 450, where one from 500 to 599 is meant"),
        (lambda rule: rule.defer("550 No"), "'550 No' has the code 550, where one from 400 to 499 is meant"),
        (lambda rule: rule.defer("5.1.1 No"), r"the enhanced status code 5.1.1 contradicts the reply code 450"),
        (lambda rule: rule.reply(600), "from 200 to 599, not 600"),
        (lambda rule: rule.delay(0), r"delay takes a number above 0, not 0"),
        (lambda rule: rule.delay("1"), r"delay takes a number above 0, not '1'"),
        (lambda rule: rule.delay(float("nan")), r"delay takes a number above 0, not nan"),
        (lambda rule: rule.throttle(-1), r"throttle takes a number above 0, not -1"),
        (lambda rule: rule.fragment(), r"fragment\(\) takes sizes in octets, from 1 on, not \(\)"),
        (lambda rule: rule.fragment(3, 0), r"fragment\(\) takes sizes in octets, from 1 on, not \(3, 0\)"),
        (lambda rule: rule.fragment(3, pause=-1), "pause takes a number above 0, not -1"),
        (lambda rule: rule.store(), r"on\('CONTENT'\).store\(\), not on\('RCPT'\).store\(\)"),
        (lambda rule: rule.discard(), r"on\('CONTENT'\).discard\(\), not on\('RCPT'\).discard\(\)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    server: RecordingServer, action: Callable[[Rule], Rule], error: str
) -> None:
    """The ValueError says what the action takes; the rule is as it was."""
    rule = server.on("RCPT")
    with pytest.raises(ValueError, match=error):
        action(rule)
    assert rule.script == ()


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda rule: rule.reply("550 No"), "reply(code, text) takes the code as a number, not '550 No'; reject"),
        (lambda rule: rule.reply("550", "No"), "not '550'; reject() and defer() take it in the text"),
        (lambda rule: rule.reply(code=True), "reply(code, text) takes the code as a number, not True"),
        (lambda rule: rule.reply(550, 5), "reply(code, text) takes a string for the text, not 5"),
        (lambda rule: rule.reject(550), "a string, which may begin with a code, such as '550 No', not 550"),
        (lambda rule: rule.defer(450), "a string, which may begin with a code, such as '450 No', not 450"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(
    server: RecordingServer, action: Callable[[Rule], Rule], error: str
) -> None:
    """The TypeError says what the action takes; the rule is as it was."""
    rule = server.on("RCPT")
    with pytest.raises(TypeError, match=re.escape(error)):
        action(rule)
    assert rule.script == ()


def test_a_message_that_is_not_there_is_not_stored(server: RecordingServer) -> None:
    """In the middle of content there is nothing to store or to discard yet."""
    with pytest.raises(ValueError, match=r"store\(\) is for a message that is there"):
        server.on("CONTENT", after_bytes=5).store()


def test_raw_takes_octets(server: RecordingServer) -> None:
    """Text is a TypeError: nobody else shall choose the octets."""
    with pytest.raises(TypeError, match="raw\\(\\) takes the octets that are sent, bytes, not '250 OK'"):
        server.on("RCPT").raw("250 OK")  # type: ignore[arg-type]  # a typing error is what this is about


def test_accept_takes_what_the_server_would_refuse() -> None:
    """`accept` has a positive answer for everything, and the session follows it as far as it can."""
    with RecordingServer(require_auth=True, max_recipients=1) as server:
        server.on("ANY").accept()
        commands = ("EHLO", "MAIL FROM:<ada", "RCPT TO:<bob@example.org>", "RCPT TO:<eve@example.org>", "DATA")
        codes = [reply[:3] for reply in converse(server, *commands, CONTENT, "XYZZY", "QUIT")]
    assert codes == ["220", "250", "250", "250", "250", "354", "250", "250", "221"]
    message = server.messages.one()
    assert (message.mailfrom, message.rcpttos) == ("FROM:<ada", ["bob@example.org", "eve@example.org"])


def test_accept_gives_the_usual_answer_where_that_accepts(server: RecordingServer) -> None:
    """EHLO that is accepted still lists the extensions."""
    server.on("EHLO").accept()
    with smtplib.SMTP(*server.address) as client:
        client.ehlo()
        assert client.has_extn("SIZE")


def test_commands_out_of_order_may_be_accepted(server: RecordingServer) -> None:
    """RCPT and DATA without MAIL can be accepted; what comes of it is no message, and no exception."""
    server.on("RCPT").accept()
    server.on("DATA").accept()
    server.on("CONTENT").store().accept()
    codes = [reply[:3] for reply in converse(server, BEGIN[0], *BEGIN[2:], CONTENT, "QUIT")]
    assert codes == ["220", "250", "250", "354", "250", "221"]
    server.assert_not_received()


def test_discard_accepts_and_does_not_record(server: RecordingServer) -> None:
    """A message that is discarded has its 250, and is not in the mailbox."""
    server.on("CONTENT", times=1).discard()
    send(server, "Subject: Lost\r\n\r\n")
    send(server, "Subject: Kept\r\n\r\n")
    assert server.messages.one().subject == "Kept"


@pytest.mark.parametrize("action", ["reject", "defer"])
def test_store_records_what_is_refused(server: RecordingServer, action: str) -> None:
    """A message that is stored and refused is in the mailbox, once, though the client believes that it failed."""
    getattr(server.on("CONTENT").store(), action)()
    with pytest.raises(smtplib.SMTPDataError):
        send(server)
    assert server.messages.one().subject == "Hello"
    assert server.aborted == []


def test_store_and_the_usual_answer_record_once(server: RecordingServer) -> None:
    """A message that is stored before its 250 is in the mailbox once, and there while the client waits."""
    rule = server.on("CONTENT").store().hold()
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(send, server)
        assert rule.reached.wait(10)
        server.assert_received(subject="Hello")
        rule.release()
        sending.result()
    assert len(server.messages) == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"250 OK\n",
        b"250-one\r\n250 two\r\n250 twice\r\n",
        b"250 " + b"x" * 5000 + b"\r\n",
        b"\xff\xfe\x00\r\n",
        b"250 caf\xe9\r\n",
        b"",
    ],
)
def test_raw_octets_arrive_as_they_are(server: RecordingServer, octets: bytes) -> None:
    """Whatever a broken server would send is sent to the octet."""
    server.on("NOOP").raw(octets).disconnect()
    with socket.create_connection(server.address, timeout=10) as client:
        file = client.makefile("rb")
        file.readline()
        client.sendall(b"NOOP\r\n")
        assert file.read() == octets
        file.close()


def test_the_session_goes_by_the_code_of_raw_octets(server: RecordingServer) -> None:
    """Raw octets that begin with a positive code accept, those with another one or with none refuse."""
    server.on("MAIL", nth=1).raw(b"garbage\r\n")
    server.on("MAIL", nth=2).raw(b"550 No\r\n")
    server.on("MAIL").raw(b"250\r\n")
    replies = converse(server, BEGIN[0], *(BEGIN[1], "RCPT TO:<bob@example.org>") * 3)
    assert [reply[:3] for reply in replies[2:]] == ["gar", "503", "550", "503", "250", "250"]


# Time.


def test_a_delay_is_at_least_so_long(server: RecordingServer) -> None:
    """Delays add up; by the dialogue's clock the answer comes no earlier."""
    server.on("RCPT").delay(0.03).delay(0.02).defer()
    converse(server, *BEGIN[:3])
    times = {line.text[:4]: line.seconds for line in server.dialogues[0].lines}
    assert times["450 "] - times["MAIL"] >= 0.05


def test_who_hangs_is_let_go_when_the_test_ends(server: RecordingServer) -> None:
    """`hang` never answers: `reset`, which ends a test, ends the session with 421 at once."""
    server.on("DATA").hang()
    with RawClient(server.address) as client:
        client.read_reply()
        for command in BEGIN[:3]:
            client.ask(command)
        client.send(b"DATA\r\n")
        other = RawClient(server.address)
        with other:
            other.read_reply()
            other.ask("EHLO client.example")
            server.reset()
            assert client.read_reply() == "421 4.3.2 Service not available, the test has ended"
            assert client.read_reply() == ""
            assert other.ask("NOOP")[:3] == "250"


@pytest.mark.parametrize("wait", [lambda rule: rule.hang(), lambda rule: rule.delay(60), lambda rule: rule.hold()])
@pytest.mark.parametrize("stage", ["CONNECT", "RCPT", "CONTENT"])
def test_stopping_the_server_lets_all_go(stage: str, wait: Callable[[Rule], Rule]) -> None:
    """Whatever a client waits for, a server that stops tells it so and closes the connection."""
    server = RecordingServer().start()
    rule = wait(server.on(stage))
    with RawClient(server.address) as client, ThreadPoolExecutor() as pool:
        commands = [*BEGIN, CONTENT][: {"CONNECT": 0, "RCPT": 3, "CONTENT": 5}[stage]]
        if commands:
            client.read_reply()
            assert all(client.ask(command)[0] in "23" for command in commands[:-1])
            client.send(commands[-1].encode() + b"\r\n")
        while not rule.hits:
            server.call(lambda: None)
        pool.submit(server.stop).result()
        assert client.read_reply()[:3] == "421"
        assert client.read_reply() == ""
    rule.release()  # there is nobody any more, and what was not answered is not recorded
    assert len(server.messages) == 0


def test_hold_waits_until_it_is_released(server: RecordingServer) -> None:
    """`reached` tells that a client waits, `release` lets it go on, and all who come later."""
    rule = server.on("RCPT").hold()
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(send, server)
        assert rule.reached.wait(10)
        assert not sending.done()
        server.assert_not_received()
        rule.release()
        sending.result()
    send(server)
    assert (len(server.messages), rule.hits) == (2, 2)


def test_waits_follow_one_another(server: RecordingServer) -> None:
    """A script may wait several times, and answers at its end."""
    rule = server.on("RCPT").delay(0.01).hold().delay(0.01).defer("4.2.1 At last")
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(converse, server, *BEGIN[:3])
        assert rule.reached.wait(10)
        rule.release()
        assert asking.result()[-1] == "450 4.2.1 At last"


def test_who_has_gone_is_not_answered(server: RecordingServer) -> None:
    """A client that went away while it was held costs nothing when the gate is opened."""
    rule = server.on("MAIL").hold().accept()
    with RawClient(server.address) as client:
        client.read_reply()
        client.ask(BEGIN[0])
        client.send(b"MAIL FROM:<ada@example.org>\r\n")
        assert rule.reached.wait(10)
    rule.release()
    send(server)
    server.when_idle(lambda: None)
    assert len(server.messages) == 1


def received_pieces(server: RecordingServer, command: bytes) -> list[bytes]:
    """Return what came at once, as far as the kernel keeps it apart, in answer to a command, until QUIT's 221."""
    with socket.create_connection(server.address, timeout=10) as client:
        client.recv(1000)
        client.sendall(command)
        pieces = []
        while piece := client.recv(10_000):
            pieces.append(piece)
    return pieces


def test_a_reply_in_fragments_is_whole_in_the_end(server: RecordingServer) -> None:
    """`fragment` cuts a reply into pieces of these sizes, and what was pipelined is answered behind it."""
    server.on("NOOP", nth=2).fragment(1, 5, pause=0.02)
    pieces = received_pieces(server, b"NOOP\r\nNOOP\r\nNOOP\r\nQUIT\r\n")
    assert b"".join(pieces) == b"250 2.0.0 OK\r\n" * 3 + b"221 2.0.0 Bye\r\n"
    assert len(pieces) >= 3


def test_a_throttled_reply_comes_octet_by_octet(server: RecordingServer) -> None:
    """`throttle` sends so many octets a second."""
    server.on("NOOP").throttle(200)
    pieces = received_pieces(server, b"NOOP\r\nQUIT\r\n")
    assert b"".join(pieces) == b"250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    assert len(pieces) >= 5


@pytest.mark.parametrize("action", ["reply", "raw", "accept"])
def test_any_answer_may_come_in_pieces(server: RecordingServer, action: str) -> None:
    """What is sent in pieces may be chosen before or behind `fragment`."""
    arguments: dict[str, tuple[Any, ...]] = {"reply": (250, "2.0.0 OK"), "raw": (b"250 2.0.0 OK\r\n",), "accept": ()}
    getattr(server.on("NOOP", nth=1).fragment(3), action)(*arguments[action])
    getattr(server.on("NOOP"), action)(*arguments[action]).fragment(3)
    assert converse(server, "NOOP", "NOOP", "QUIT")[1:] == ["250 2.0.0 OK", "250 2.0.0 OK", "221 2.0.0 Bye"]


def test_nothing_can_be_cut_into_nothing(server: RecordingServer) -> None:
    """An answer without octets has no pieces, and the session goes on."""
    server.on("NOOP").raw(b"").fragment(1)
    server.on("RSET").reply(250).fragment(1).disconnect()
    with RawClient(server.address) as client:
        client.read_reply()
        assert client.ask("NOOP\r\nRSET") == "250 2.0.0"
        assert client.read_reply() == ""


@pytest.mark.parametrize("end", ["reset", "gone"])
def test_a_reply_that_is_cut_off_is_not_continued(server: RecordingServer, end: str) -> None:
    """Amid a reply there is no room for a 421, and a client that has gone gets no more of it."""
    rule = server.on("NOOP").fragment(2, pause=30)
    with socket.create_connection(server.address, timeout=10) as client:
        file = client.makefile("rb")
        file.readline()
        client.sendall(b"NOOP\r\n")
        assert file.read(2) == b"25"
        if end == "reset":
            server.reset()
            assert file.read() == b""
        file.close()
    assert rule.hits == 1


def test_pieces_end_with_the_connection(server: RecordingServer) -> None:
    """Where the client has reset the connection, sending pieces stops."""
    server.on("NOOP").throttle(1000)
    client = RawClient(server.address)
    with client:
        client.read_reply()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.send(b"NOOP\r\n" * 3)
        assert client.socket.recv(1) == b"2"
    send(server)
    assert len(server.messages) == 1
    # Until the next piece would have been due.
    is_over = threading.Event()
    assert server.loop is not None
    server.call(partial(server.loop.call_later, 0.1, is_over.set))
    assert is_over.wait(10)
    assert server.dialogues[0].ended


# The connection.


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "DATA", "CONTENT", "QUIT"])
def test_disconnect_ends_the_connection_in_order(server: RecordingServer, stage: str) -> None:
    """`disconnect` closes without an answer; the dialogue has the command, and says so."""
    server.on(stage).disconnect()
    replies = converse(server, *BEGIN, CONTENT, "QUIT")
    assert replies.index("") == len(replies) - 1 == {"CONNECT": 0, "EHLO": 1, "DATA": 4, "CONTENT": 5, "QUIT": 6}[stage]
    lines = str(server.dialogues[0]).splitlines()
    assert lines[-1] == "   (the server has closed the connection)"
    if stage != "CONNECT":
        assert lines[-2][:4] == {"EHLO": "C: E", "DATA": "C: D", "CONTENT": "C: (", "QUIT": "C: Q"}[stage]
    assert len(server.messages) == (stage == "QUIT")


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "CONTENT"])
def test_reset_resets_the_connection(server: RecordingServer, stage: str) -> None:
    """`reset` sends RST instead of FIN."""
    server.on(stage).reset()
    with pytest.raises(ConnectionResetError):
        converse(server, *BEGIN, CONTENT)
    assert str(server.dialogues[0]).endswith("(the server has reset the connection)")


def test_a_client_that_has_gone_needs_no_reset(server: RecordingServer) -> None:
    """A connection that the client has closed meanwhile is reset without an error."""
    rule = server.on("NOOP").hold().reset()
    with RawClient(server.address) as client:
        client.read_reply()
        client.send(b"NOOP\r\n")
        assert rule.reached.wait(10)
    rule.release()
    send(server)


@pytest.mark.parametrize("action", ["disconnect", "reset"])
def test_the_connection_ends_behind_the_answer(server: RecordingServer, action: str) -> None:
    """Where there is an answer, the client gets it first, with those to what it had pipelined before."""
    getattr(server.on("RSET").reject("5.0.0 No"), action)()
    with RawClient(server.address) as client:
        client.read_reply()
        client.send(b"NOOP\r\nRSET\r\nNOOP\r\n")
        assert [client.read_reply() for _ in range(2)] == ["250 2.0.0 OK", "550 5.0.0 No"]
        if action == "reset":
            with pytest.raises(ConnectionResetError):
                client.read_reply()
        else:
            assert client.read_reply() == ""


@pytest.mark.parametrize("action", ["disconnect", "reset"])
@pytest.mark.parametrize("stored", [False, True])
def test_the_connection_may_end_before_or_behind_storing(
    server: RecordingServer,
    action: str,
    stored: bool,  # noqa: FBT001 - parametrized
) -> None:
    """The ambiguous delivery: the client can't tell whether the message was stored, and the server can."""
    rule = server.on("CONTENT")
    getattr(rule.store() if stored else rule, action)()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(server)
    server.call(lambda: None)
    assert len(server.messages) == stored
    assert len(server.aborted) == (not stored)
