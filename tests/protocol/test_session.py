"""The session: whoever answers, the reply that is sent moves the state; whatever comes, it answers and stays in step."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support import FULL, STRICT, converse, take

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.auth import AUTH
from pytest_smtpd.protocol.events import Event
from pytest_smtpd.protocol.lints import Lint
from pytest_smtpd.protocol.mail import Content
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EHLO = b"EHLO client.example\r\n"
LHLO = b"LHLO client.example\r\n"
MAIL = b"MAIL FROM:<ada@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.org>\r\n"
DATA = b"DATA\r\n"

YES = Reply(250, "Yes")
NO = Reply(550, "No", "5.7.1")
LATER = Reply(450, "Later", "4.7.1")
GO_AHEAD = Reply(354, "Go ahead")
GOODBYE = Reply(421, "Goodbye", "4.3.2")
#: A session that offers nothing, as after hiding everything.
PLAIN = Settings()


def pump(session: Session, octets: bytes, answers: Mapping[str, Reply] | None = None) -> bytes:
    """Give a session octets, and to these stages these answers, to the others the usual ones; return the replies."""
    session.receive_data(octets)
    while (event := session.next_event()) is not NEED_DATA:
        session.send((answers or {}).get(event.stage, event.reply))
    return session.data_to_send()


def greeted(settings: Settings = FULL, way: Iterable[bytes] = ()) -> Session:
    """Make a session that has sent its greeting and been given these segments."""
    session = Session(settings)
    session.send(session.connect().reply)
    session.data_to_send()
    for segment in way:
        pump(session, segment)
    return session


def in_transaction(settings: Settings = FULL) -> Session:
    """Make a session that has a transaction with one recipient."""
    return greeted(settings, [EHLO, MAIL, RCPT])


def waiting(session: Session, octets: bytes) -> Event:
    """Give a session octets; return the event that then waits for its answer."""
    session.receive_data(octets)
    event = session.next_event()
    assert isinstance(event, Event)
    return event


@dataclass(frozen=True)
class Known:
    """What a session knows of its client."""

    helo: str | None = "client.example"
    esmtp: bool = True
    mailfrom: str | None = "ada@example.org"
    rcpttos: tuple[str, ...] = ("bob@example.org",)
    in_content: bool = False
    closing: bool = False


#: What `in_transaction` makes.
IN_TRANSACTION = Known()


def takes_content(session: Session) -> bool:
    """Give a session an octet, and return whether it takes it for content."""
    session.receive_data(b"x")
    assert session.next_event() is NEED_DATA
    return session.wants_buffer


def known(session: Session) -> Known:
    """Return what a session knows; whether it is in the middle of content, it is asked last."""
    state, transaction = session.state, session.state.transaction
    mailfrom = transaction.reverse_path.mailbox if transaction else None
    rcpttos = tuple(path.mailbox for path in transaction.forward_paths) if transaction else ()
    return Known(state.helo, state.esmtp, mailfrom, rcpttos, takes_content(session), state.closing)


# The one rule: an event carries the usual answer, and only the answer that is sent moves the state.

COMMANDS = [
    pytest.param(line, id=line.decode().split("\r")[0] or "an empty line")
    for line in (
        b"EHLO other.example\r\n",
        b"HELO other.example\r\n",
        b"MAIL FROM:<eve@example.org>\r\n",
        b"RCPT TO:<eve@example.org>\r\n",
        *(DATA, b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"VRFY bob\r\n", b"HELP\r\n", b"EXPN staff\r\n", b"FOO\r\n"),
        b"\r\n",
    )
]


@pytest.mark.parametrize("refusal", [NO, LATER], ids=["550", "450"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_refused_command_changes_nothing(command: bytes, refusal: Reply) -> None:
    """Whatever a command would have done, answered with 4yz or 5yz it has not been."""
    session = in_transaction()
    waiting(session, command)
    session.send(refusal)
    assert known(session) == IN_TRANSACTION
    assert session.data_to_send().startswith(b"%d " % refusal.code)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_event_alone_changes_nothing(command: bytes) -> None:
    """As long as an event is not answered nothing has happened and nothing is sent."""
    session = in_transaction()
    waiting(session, command)
    assert known(session) == IN_TRANSACTION
    assert session.data_to_send() == b""


def test_a_refused_mail_opens_no_transaction() -> None:
    """MAIL answered with 550 is followed by an RCPT that needs MAIL."""
    session = greeted(way=[EHLO])
    assert pump(session, MAIL + RCPT, {"MAIL": NO}).startswith(b"550 5.7.1 No\r\n503 5.5.1 ")


@pytest.mark.parametrize(
    ("way", "command", "answer", "after"),
    [
        ([], b"MAIL FROM:<a@b>\r\n", YES, Known(None, esmtp=False, mailfrom="a@b", rcpttos=())),
        ([EHLO], b"MAIL FROM:<a@b> FOO=1\r\n", YES, Known(mailfrom="a@b", rcpttos=())),
        ([EHLO], b"MAIL gibberish\r\n", YES, Known(mailfrom="gibberish", rcpttos=())),
        ([EHLO, MAIL, RCPT], b"MAIL FROM:<a@b>\r\n", YES, Known(mailfrom="a@b", rcpttos=())),
        ([EHLO, MAIL], b"RCPT TO:<a@b> FOO=1\r\n", YES, Known(rcpttos=("a@b",))),
        ([EHLO, MAIL], b"RCPT TO:<>\r\n", YES, Known(rcpttos=("",))),
        ([EHLO, MAIL], b"RCPT gibberish\r\n", YES, Known(rcpttos=("gibberish",))),
        ([EHLO], RCPT, YES, Known(mailfrom=None, rcpttos=())),
        ([EHLO], DATA, GO_AHEAD, Known(mailfrom=None, rcpttos=(), in_content=True)),
        ([EHLO, MAIL, RCPT], b"DATA x\r\n", GO_AHEAD, Known(in_content=True)),
        ([EHLO, MAIL, RCPT], DATA, YES, Known()),
        ([EHLO, MAIL, RCPT], b"RSET x\r\n", YES, Known(mailfrom=None, rcpttos=())),
        ([EHLO, MAIL, RCPT], b"QUIT x\r\n", Reply(221, "Bye"), Known(closing=True)),
        ([EHLO, MAIL, RCPT], b"EHLO\r\n", YES, Known("", mailfrom=None, rcpttos=())),
        ([EHLO, MAIL, RCPT], b"HELO\r\n", YES, Known("", esmtp=False, mailfrom=None, rcpttos=())),
        ([EHLO, MAIL, RCPT], b"FOO\r\n", YES, Known()),
        ([EHLO, MAIL, RCPT], b"EXPN staff\r\n", YES, Known()),
        ([EHLO, MAIL, RCPT], b"\r\n", YES, Known()),
    ],
    ids=lambda value: value.decode().strip() or "empty" if isinstance(value, bytes) else "",
)
def test_an_accepted_command_has_its_effect(way: list[bytes], command: bytes, answer: Reply, after: Known) -> None:
    """A positive answer has the effect of the command even where a well-behaved server gives another one."""
    session = greeted(way=way)
    assert waiting(session, command).reply.code != answer.code
    session.send(answer)
    assert known(session) == after


@pytest.mark.parametrize("greeting", [YES, NO], ids=["before EHLO", "refused"])
def test_accepted_addresses_are_read_in_any_state(greeting: Reply) -> None:
    """MAIL and RCPT answered with 250 where none is due take the addresses and parameters that were given."""
    session = Session(FULL)
    session.connect()
    session.send(greeting)
    pump(session, b"MAIL FROM:<a@b> SIZE=9\r\nRCPT TO:<c@d>\r\n", {"MAIL": YES, "RCPT": YES})
    assert known(session) == Known(None, esmtp=False, mailfrom="a@b", rcpttos=("c@d",))
    assert session.state.transaction is not None
    assert session.state.transaction.parameters == (("SIZE", "9"),)


def test_a_recipient_above_the_limit_is_added_if_the_answer_says_so() -> None:
    """RCPT answered with 250 where 452 is due adds the recipient."""
    session = in_transaction(replace(FULL, max_recipients=1))
    assert waiting(session, b"RCPT TO:<eve@example.org>\r\n").reply.code == 452
    session.send(YES)
    assert known(session).rcpttos == ("bob@example.org", "eve@example.org")


def test_data_without_a_transaction_leads_to_content_that_is_refused() -> None:
    """DATA answered with 354 although there is no transaction makes content, which is answered with 554."""
    session = greeted(way=[EHLO])
    pump(session, DATA, {"DATA": GO_AHEAD})
    content = waiting(session, b"RSET\r\n.\r\n")
    assert isinstance(content, Content)
    assert (content.data, content.transaction.forward_paths, content.reply.code) == (b"RSET\r\n", [], 554)
    session.send(content.reply)
    session.data_to_send()
    assert pump(session, MAIL) == b"250 2.1.0 OK\r\n"


def test_what_is_kept_of_content_is_its_size() -> None:
    """Of content that is answered no octets are kept; what remains of one that waits leaves it as it is for who reads it."""
    session = in_transaction()
    pump(session, DATA)
    content = waiting(session, b"Hello\r\n.\r\n")
    assert isinstance(content, Content)
    remains = content.remains()
    assert (remains.said, remains.data) == (content.said, b"")
    assert (content.data, content.rcpttos) == (b"Hello\r\n", ["bob@example.org"])
    session.send(content.reply)
    assert (content.said, content.data) == ("(7 octets of content)", b"")


@pytest.mark.parametrize("answer", [YES, NO, LATER, GO_AHEAD], ids=["250", "550", "450", "354"])
def test_content_ends_the_transaction_whatever_the_answer(answer: Reply) -> None:
    """After the answer to content there is neither a transaction nor content."""
    session = in_transaction()
    pump(session, DATA)
    pump(session, b"x\r\n.\r\n", {"CONTENT": answer})
    assert known(session) == Known(mailfrom=None, rcpttos=())


def test_a_refused_connection_is_left_with_quit() -> None:
    """After a greeting of 554 every command is answered with 503, but QUIT closes."""
    session = Session(FULL)
    session.connect()
    session.send(NO)
    assert session.data_to_send() == b"550 No\r\n"
    replies = pump(session, EHLO + MAIL + b"NOOP\r\nFOO\r\n\r\nQUIT\r\n").splitlines()
    assert [reply[:3] for reply in replies] == [b"503"] * 5 + [b"221"]
    assert session.state.closing


@pytest.mark.parametrize("command", [*COMMANDS, pytest.param(b"x" * 9999 + b"\r\n", id="a long line")])
def test_421_closes_whatever_it_answers(command: bytes) -> None:
    """A session that has answered any line with 421 is over, and ignores what comes."""
    session = in_transaction()
    waiting(session, command + b"NOOP\r\n")
    session.send(GOODBYE)
    assert session.state.closing
    assert re.fullmatch(rb"421 (4\.3\.2 )?Goodbye\r\n", session.data_to_send())
    assert pump(session, b"NOOP\r\n") == b""


def test_421_to_content_closes() -> None:
    """A session that has answered content with 421 is over, and its transaction with it."""
    session = in_transaction()
    pump(session, DATA)
    assert pump(session, b"x\r\n.\r\n" + MAIL, {"CONTENT": GOODBYE}) == b"421 4.3.2 Goodbye\r\n"
    assert known(session) == Known(mailfrom=None, rcpttos=(), closing=True)


def test_421_as_a_greeting_closes() -> None:
    """A session greeted with 421 is over."""
    session = Session(FULL)
    session.connect()
    session.send(GOODBYE)
    assert session.data_to_send() == b"421 Goodbye\r\n"
    assert pump(session, EHLO) == b""


# Events come one at a time.


def test_nothing_else_comes_while_an_event_waits() -> None:
    """There is no next event before the last one is answered, though its command is there."""
    session = greeted()
    noop = waiting(session, b"NOOP\r\nRSET\r\n")
    assert session.next_event() is NEED_DATA
    session.receive_data(b"NOOP\r\n")
    assert session.next_event() is NEED_DATA
    waits = [session.waiting]
    session.send(YES)
    assert [*waits, session.waiting] == [noop, None]
    event = session.next_event()
    assert isinstance(event, Event)
    assert event.stage == "RSET"


def test_an_answer_without_a_question_is_a_programming_error() -> None:
    """Sending a reply where no event waits raises RuntimeError, and nothing is sent."""
    session = greeted()
    with pytest.raises(RuntimeError, match="no event to answer"):
        session.send(YES)
    assert session.data_to_send() == b""


def test_replies_to_pipelined_commands_leave_together() -> None:
    """The replies to all that came in a segment are returned at once, in order, and only once."""
    session = greeted(way=[EHLO])
    assert pump(session, MAIL + RCPT + b"FOO\r\n" + DATA).splitlines() == [
        b"250 2.1.0 OK",
        b"250 2.1.5 OK",
        b'500 5.5.1 Error: command "FOO" not recognized',
        b"354 End data with <CR><LF>.<CR><LF>",
    ]
    assert session.data_to_send() == b""


def test_asking_something_else_replaces_the_event_that_waits() -> None:
    """What is asked instead has its own usual answer, and its own effect when it is answered."""
    session = greeted(way=[EHLO, MAIL])
    waiting(session, b"RCPT TO:<bob@example.org>\r\n")
    event = session.ask("RCPT", "TO:<eve@example.org>")
    assert (event.stage, event.reply.code) == ("RCPT", 250)
    session.send(event.reply)
    assert known(session).rcpttos == ("eve@example.org",)
    assert session.waiting is None


@pytest.mark.parametrize(
    ("verb", "argument", "code"),
    [("RSET", "", 250), ("RSET", "x", 501), ("RCPT", "TO:<>", 501), ("FOO", "", 500), ("VRFY", "bob", 252)],
)
def test_whatever_is_asked_is_answered(verb: str, argument: str, code: int) -> None:
    """Any command can be asked instead, also a wrong one."""
    session = in_transaction()
    waiting(session, b"NOOP\r\n")
    assert session.ask(verb, argument).reply.code == code


def test_what_is_asked_instead_has_ended_in_lf_if_the_line_has() -> None:
    """A line that ended in LF is noted with what is asked instead of what it said, and only once."""
    session = greeted(way=[EHLO])
    waiting(session, b"NOOP\n")
    event = session.ask("RSET", "")
    event.note(Lint.BARE_LF_COMMAND)
    assert event.lints == (Lint.BARE_LF_COMMAND,)
    session.send(event.reply)
    waiting(session, b"NOOP\r\n")
    assert session.ask("RSET", "").lints == ()


def test_replies_can_be_formatted_without_sending_them() -> None:
    """A reply is formatted as the session would send it: with a status code where they are offered."""
    assert greeted(FULL).format(NO) == "550 5.7.1 No"
    assert greeted(PLAIN).format(NO) == "550 No"
    assert greeted(FULL).format(Reply(250, "José", utf8=True)) == "250 2.0.0 José"


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        pytest.param(FULL, [["bob@example.org", "eve@example.org"]], id="SMTP: all at once"),
        pytest.param(replace(FULL, lmtp=True), [["bob@example.org"], ["eve@example.org"]], id="LMTP: one by one"),
    ],
)
def test_content_is_a_question_about_recipients(settings: Settings, asked: list[list[str]]) -> None:
    """Each question about content names the recipients that it is about."""
    session = greeted(settings, [LHLO if settings.lmtp else EHLO, MAIL, RCPT, b"RCPT TO:<eve@example.org>\r\n", DATA])
    session.receive_data(b"x\r\n.\r\n")
    questions = []
    while isinstance(event := session.next_event(), Content):
        questions.append(event.rcpttos)
        session.send(event.reply)
    assert questions == asked


@pytest.mark.parametrize(
    ("settings", "sent"), [(FULL, b"421 4.3.2 Goodbye\r\n"), (PLAIN, b"421 Goodbye\r\n")], ids=["full", "plain"]
)
def test_a_session_can_be_ended_unasked(settings: Settings, sent: bytes) -> None:
    """A 421 that nobody asked for is there to be sent in any state; then the session ignores what comes."""
    sessions = [greeted(settings), greeted(settings, [EHLO, MAIL, RCPT, DATA])]
    waiting(sessions[0], b"NOOP\r\n")
    for session in sessions:
        assert session.end(GOODBYE) == sent
        assert session.state.closing
        assert pump(session, b".\r\nNOOP\r\n") == b""


def test_quit_ends_the_session() -> None:
    """What was sent behind QUIT is ignored."""
    assert converse(b"QUIT\r\nNOOP\r\n", b"NOOP\r\n").codes == "221 2.0.0"


# What clients say, and whether others may see it.


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(b"noop  two words \r\n", "NOOP two words", id="a command"),
        pytest.param(b"noop\r\n", "NOOP", id="a verb alone"),
        pytest.param(b"\r\n", "", id="an empty line"),
        pytest.param(b"NO\0OP\r\n", r"NO\x00OP", id="a control character"),
        pytest.param(b"x" * 9999 + b"\r\n", "x" * 512, id="the beginning of a line that is too long"),
    ],
)
def test_an_event_says_what_the_client_said(line: bytes, said: str) -> None:
    """What was said is there for people to read, control characters escaped, and is no secret but in AUTH."""
    event = waiting(greeted(), line)
    assert (event.said, event.secret) == (said, False)


def test_content_is_quoted_by_its_size() -> None:
    """Of content a dialogue tells the size, of a connection nothing: neither is a line to quote."""
    session = Session(FULL)
    connect = session.connect()
    session.send(connect.reply)
    for segment in (EHLO, MAIL, RCPT, DATA):
        pump(session, segment)
    content = waiting(session, b"x\r\n.\r\n")
    assert (connect.said, content.said) == ("", "(3 octets of content)")


def test_of_a_long_line_in_pieces_only_its_length_is_known() -> None:
    """Of a line that was dropped while it came nothing can be quoted."""
    session = greeted()
    session.receive_data(b"x" * 9999)
    assert session.next_event() is NEED_DATA
    assert waiting(session, b"x\r\n").said == "(a line that is too long)"


# Before the greeting, and lines that end in LF.


def test_an_early_talker_is_noted() -> None:
    """A patient server answers what came before its greeting, and its messages say so."""
    session = Session(FULL)
    greeting = session.connect()
    session.receive_data(EHLO + MAIL)
    assert (greeting.reply.code, greeting.lints) == (220, (Lint.EARLY_TALKER,))
    session.send(greeting.reply)
    pump(session, b"")
    assert session.state.transaction is not None
    assert Lint.EARLY_TALKER in session.state.transaction.lints


def test_a_strict_server_sends_an_early_talker_away() -> None:
    """A strict server greets with 554 whoever has not waited for the greeting, and closes."""
    session = Session(STRICT)
    greeting = session.connect()
    session.receive_data(EHLO)
    assert greeting.refused_for_haste
    session.send(greeting.reply)
    assert session.data_to_send() == b"554 Error: SMTP protocol synchronization\r\n"
    assert session.state.closing
    assert session.next_event() is NEED_DATA


@pytest.mark.parametrize(("answer", "closes"), [(YES, False), (NO, True), (LATER, True)], ids=["250", "550", "450"])
def test_haste_that_is_forgiven_does_not_close(answer: Reply, *, closes: bool) -> None:
    """A command that a strict server would refuse for its haste closes unless it is accepted all the same."""
    session = greeted(STRICT, [EHLO])
    event = waiting(session, b"NOOP\r\n" + MAIL)
    assert (event.refused_for_haste, event.reply.code) == (True, 554)
    session.send(answer)
    assert session.state.closing is closes


def test_a_strict_server_waits_for_crlf() -> None:
    """To a strict server LF ends no line: it stands in one, where no control character may."""
    session = greeted(STRICT)
    assert pump(session, b"NOOP\n") == b""
    assert pump(session, b"NOOP\r\n").startswith(b"501 5.5.2 ")
    assert pump(session, b"NOOP\r\n") == b"250 2.0.0 OK\r\n"


def test_a_patient_server_takes_lf_for_crlf() -> None:
    """A command line that ends in LF is answered and noted."""
    dialogue = converse(b"NOOP\n", b"NOOP\r\n")
    assert (dialogue.codes, dialogue.lints) == ("250 2.0.0 250 2.0.0", [Lint.BARE_LF_COMMAND])


# Large content goes past the session's input.


def test_large_content_is_received_into_a_buffer() -> None:
    """As soon as there is content and until its end, more may be received into the session's buffer."""
    session = in_transaction()
    pump(session, DATA)
    wanted = [session.wants_buffer]
    pump(session, b"Subject: x\r\n")
    scratch = bytearray(100)
    for octets in (b"\r\n..", b"dots\r\n.\r", b"\n" + MAIL):
        assert session.next_event() is NEED_DATA
        wanted.append(session.wants_buffer)
        with session.get_buffer(scratch) as buffer:
            buffer[: len(octets)] = octets
        session.buffer_updated(len(octets))
    assert [*wanted, session.wants_buffer] == [False, True, True, True, False]
    content = session.next_event()
    assert isinstance(content, Content)
    assert content.data == b"Subject: x\r\n\r\n.dots\r\n"
    session.send(content.reply)
    assert pump(session, b"") == b"250 2.0.0 OK\r\n250 2.1.0 OK\r\n"


def test_a_large_chunk_is_received_into_a_buffer() -> None:
    """The buffer has room for what is left of a chunk, and what is received into it is the chunk's."""
    session = in_transaction()
    pump(session, b"BDAT 12 LAST\r\nab")
    scratch = bytearray(9)
    for octets in (b"\r\n.\r\nQUI", b"T"):
        assert session.wants_buffer
        # What reads from a socket gives the buffer back before it says how much came.
        with session.get_buffer(scratch) as buffer:
            assert len(buffer) >= len(octets)
            buffer[: len(octets)] = octets
        session.buffer_updated(len(octets))
    assert session.next_event() is NEED_DATA
    with session.get_buffer(scratch) as buffer:
        assert len(buffer) == 1
        buffer[:] = b"!"
    session.buffer_updated(1)
    content = session.next_event()
    assert isinstance(content, Content)
    assert content.data == b"ab\r\n.\r\nQUIT!"
    session.send(content.reply)
    assert pump(session, MAIL) == b"250 2.0.0 OK\r\n250 2.1.0 OK\r\n"


def test_there_is_a_buffer_for_content_only() -> None:
    """Who asks for a buffer where no content is expected has made a mistake, and is told so."""
    session = greeted()
    assert not session.wants_buffer
    with pytest.raises(RuntimeError, match="no content is expected"):
        session.get_buffer(bytearray(10))
    with pytest.raises(RuntimeError, match="no content is expected"):
        session.buffer_updated(1)


# Lines without an end.


def swallow(session: Session, chunk: bytes, times: int) -> tuple[int, int]:
    """Give a session a chunk many times; return how many octets it then keeps, and had at the peak."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            session.receive_data(chunk)
            assert session.next_event() is NEED_DATA
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


@pytest.mark.parametrize("settings", [FULL, STRICT, PLAIN], ids=["default", "strict", "plain"])
@pytest.mark.parametrize(("size", "times"), [(1, 5000), (16_384, 640)])
def test_of_a_line_without_an_end_hardly_anything_is_kept(size: int, times: int, settings: Settings) -> None:
    """Of 10 MB without a line end no more is kept than a command line may have, and its end is answered with 500."""
    chunk = b"x" * size
    swallow(greeted(settings), chunk, times)  # what the interpreter allocates once
    session = greeted(settings)
    kept, peak = swallow(session, chunk, times)
    # The rest is what the interpreter takes for an object and for calls, more so while coverage is measured.
    assert kept <= settings.longest_line + 250
    assert peak <= 2 * (settings.longest_line + size) + 1000
    replies = pump(session, b"\r\nHELO client.example\r\n").splitlines()
    assert [reply[:3] for reply in replies] == [b"500", b"250"]


@pytest.mark.parametrize("length", [509, 510, 511, 512, 513])
def test_a_line_of_512_octets_is_no_longer_than_allowed(length: int) -> None:
    """Command lines have 512 octets with CRLF at the most, however they come."""
    command = b"NOOP ".ljust(length, b"x") + b"\r\n"
    assert converse(command, b"NOOP\r\n").codes == f"{'250 2.0.0' if len(command) <= 512 else '500 5.5.2'} 250 2.0.0"


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("beyond", [0, 1, 1000])
@pytest.mark.parametrize("octet", [b"x", b" ", b"!", b"\0", b"\xff", b"\t"], ids=repr)
def test_a_line_that_is_too_long_is_just_that(octet: bytes, beyond: int, line_end: bytes) -> None:
    """A line longer than any may be is answered as that, whatever is in it and however it comes, and only once."""
    line = octet * (FULL.longest_line - 1 + beyond)
    dialogue = converse(line + line_end, b"NOOP\r\n")
    assert dialogue.replies == ["500 5.5.2 Error: line too long", "250 2.0.0 OK"]


# Whatever comes.

COMMAND_LINES = st.sampled_from(
    [
        *(EHLO, EHLO, MAIL, MAIL, RCPT, RCPT, DATA, DATA, b"HELO x_y\r\n", b"RSET\r\n", b"NOOP\n", b"VRFY bob\r\n"),
        *(b"MAIL FROM:<a@b> SIZE=9 SIZE=8\r\n", b"RCPT TO: bob\r\n", b"HELP\r\n", b"HELP FOO\r\n", b"EHLO\r\n"),
        *(b"RCPT TO:<\xc3\xa9@x>\r\n", b"MAIL FROM:<a@b> SIZE=x\r\n", b"MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8\r\n"),
        *(b"FOO\r\n", b"EXPN x\r\n", b"QUIT x\r\n", b".\r\n", b"\r\n.\r\n", b"\r\n", b"1X\r\n", b"RSET \t\r\n"),
        *(b"BDAT 5\r\n", b"BDAT 3 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT x\r\n", b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n"),
        *(b"AUTH PLAIN\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n", b"AGEAYg==\r\n", b"YQ==\r\n", b"*\r\n"),
    ]
)
PIECES = st.sampled_from(
    [b".", b"\r", b"\n", b"\0", b"..", b"\n.\r\n", b"\r\n.\n", b" ", b"<", b">", b'"', b"@[", b"MAIL FROM:"]
)
LONG = st.sampled_from([b"x" * 505, b"MAIL FROM:<a@b> " + b"y" * 540, b"\0" * 560, b"\xff" * 1100, b"z" * 999])
STREAMS = st.lists(COMMAND_LINES | PIECES | LONG | st.binary(max_size=6), max_size=25).map(b"".join) | st.binary(
    max_size=200
)
WAYS = st.sampled_from(
    [b"", EHLO, EHLO + MAIL, EHLO + MAIL + RCPT + DATA, LHLO + MAIL + RCPT + RCPT + DATA, LHLO + MAIL + RCPT]
)
CUTS = st.lists(st.integers(min_value=0, max_value=1500), max_size=12)
AUTHENTICATING = replace(
    FULL, extensions=(*extensions.ALL, AUTH), auth_mechanisms=("PLAIN", "LOGIN"), users={"a": "b"}.get
)
#: By name, so that Hypothesis's reports are short.
SETTINGS = {
    "full": FULL,
    "plain": PLAIN,
    "small": replace(FULL, data_size_limit=30, max_recipients=2),
    "auth": AUTHENTICATING,
    "guarded": replace(AUTHENTICATING, require_auth=True, max_errors=3, max_commands=12, max_messages=1),
    "lmtp": replace(FULL, lmtp=True),
    "strict": STRICT,
    "plain strict": replace(PLAIN, strict=True),
}
#: To a strict server it matters what comes in one segment: whether the client has waited.
PATIENT = st.sampled_from(["full", "plain", "small", "auth", "guarded", "lmtp"])
ANY_SETTINGS = st.sampled_from(list(SETTINGS))
ANSWERS = st.lists(st.sampled_from([None, None, YES, NO, GO_AHEAD, GOODBYE]), max_size=12)


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at these positions."""
    return [stream[start:end] for start, end in pairwise([0, *sorted(cuts), len(stream)])]


def talk(
    settings: Settings, segments: list[bytes], answers: Iterable[Reply | None] = ()
) -> tuple[list[tuple[str, bytes]], list[tuple[str, list[str], bytes]]]:
    """Play a conversation, with these answers first (None: the usual one).

    Returns the replies with the stages they answer, and the messages.
    """
    session = Session(settings)
    chosen = iter(answers)
    replies, messages = [], []

    def settle(event: Event) -> None:
        reply = next(chosen, None) or event.reply
        if isinstance(event, Content) and event.decide(reply):
            message = take(event)
            messages.append((message.mailfrom, message.rcpttos, message.data))
        session.send(reply)
        replies.append((event.stage, session.data_to_send()))

    settle(session.connect())
    for segment in segments:
        session.receive_data(segment)
        while (event := session.next_event()) is not NEED_DATA:
            settle(event)
    return replies, messages


def assert_well_formed(stage: str, reply: bytes, *, enhanced: bool) -> None:
    """Fail if this is not one reply as RFC 5321 4.2 and RFC 2034 4 want it."""
    assert reply.endswith(b"\r\n")
    lines = reply.removesuffix(b"\r\n").split(b"\r\n")
    code = lines[0][:3]
    for line in lines:
        assert re.fullmatch(rb"[2-5][0-9]{2}[ -][\t -~]*", line)
        assert len(line) + 2 <= 512
        assert line[:3] == code
        assert (line[3:4] == b" ") is (line is lines[-1])
        if stage not in {"CONNECT", "EHLO", "HELO", "LHLO"}:
            has_one = re.match(rb"([245])[0-9]{2}[ -]\1\.[0-9]{1,3}\.[0-9]{1,3}( |$)", line) is not None
            assert has_one is (enhanced and code[:1] != b"3")


@given(name=PATIENT, way=WAYS, stream=STREAMS, cuts=CUTS)
@example(name="full", way=b"", stream=b"\0" * 600 + b"\r\n", cuts=[580])
@example(name="full", way=EHLO + MAIL + RCPT + DATA, stream=b".\r\r\n.\r\nQUIT\r\n", cuts=[1, 2, 4, 6])
@hypothesis_settings(deadline=None, max_examples=300)
def test_what_comes_does_not_depend_on_how_it_is_cut(name: str, way: bytes, stream: bytes, cuts: list[int]) -> None:
    """Any octets in any chunks lead to the replies and the messages that they lead to in one."""
    whole = talk(SETTINGS[name], [way + stream])
    assert talk(SETTINGS[name], chunked(way + stream, cuts)) == whole


@given(name=ANY_SETTINGS, way=WAYS, stream=STREAMS, cuts=CUTS)
@hypothesis_settings(deadline=None, max_examples=300)
def test_every_reply_is_well_formed(name: str, way: bytes, stream: bytes, cuts: list[int]) -> None:
    """Any octets are answered, with replies that follow the grammar and carry status codes where they must."""
    enhanced = "ENHANCEDSTATUSCODES" in SETTINGS[name].keywords
    for stage, reply in talk(SETTINGS[name], chunked(way + stream, cuts))[0]:
        assert_well_formed(stage, reply, enhanced=enhanced)


@given(name=ANY_SETTINGS, way=WAYS, stream=STREAMS, answers=ANSWERS)
@example(
    name="strict",
    way=b"",
    stream=EHLO + b"MAIL FROM:<a@b> SIZE=x\r\n" + RCPT + DATA + b"x\r\n.\r\n",
    answers=[None, None, YES],
)
@hypothesis_settings(deadline=None, max_examples=300)
def test_no_answer_confuses_a_session(name: str, way: bytes, stream: bytes, answers: list[Reply | None]) -> None:
    """Whatever comes and whatever is answered to it, the session goes on, and sends what it was told to."""
    replies, _ = talk(SETTINGS[name], (way + stream).splitlines(keepends=True), answers)
    for number, (stage, reply) in enumerate(replies):
        chosen = answers[number] if number < len(answers) else None
        assert chosen is None or reply.startswith(b"%d" % chosen.code), stage


def test_who_changes_an_event_changes_no_equal_one() -> None:
    """Equal lines are one event, until somebody asks for the one that waits to be his own."""
    settings = replace(FULL)
    session, other = greeted(settings, [EHLO, MAIL]), greeted(settings, [EHLO, MAIL])
    assert session.own_event() is None
    shared = waiting(session, RCPT)
    assert waiting(other, RCPT) is shared
    own = session.own_event()
    assert own is session.own_event() is session.waiting
    assert own is not shared is other.waiting


def test_no_password_is_remembered() -> None:
    """Of the lines that sessions remember as they were read, none has a password, be it in an AUTH or in a mistaken one."""
    settings = replace(FULL)
    session = greeted(
        settings, [EHLO, b"AUTH PLAIN AGFkYQBzZXNhbWU=\r\n", b"AUTHPLAIN AGFkYQBzZXNhbWU=\r\n", b"NOOP\r\n"]
    )
    assert list(session.state.settings.known_lines[False][True]) == [b"NOOP\r\n"]


# Other settings in the midst of a session.


def test_a_session_offers_what_it_is_told_to() -> None:
    """From `offer` on the session goes by other settings: what EHLO says, what parameters it takes, status codes."""
    session = greeted(PLAIN)
    session.receive_data(EHLO)
    session.next_event()
    session.send(session.offer(FULL))
    assert session.data_to_send() == FULL.ehlo_replies[False].to_bytes()
    assert pump(session, b"MAIL FROM:<ada@example.org> SMTPUTF8\r\n") == b"250 2.1.0 OK\r\n"
    session.offer(PLAIN)
    assert pump(session, b"RSET\r\nMAIL FROM:<ada@example.org> SMTPUTF8\r\n").splitlines() == [
        b"250 OK",
        b"555 MAIL FROM parameters not recognized or not implemented",
    ]


def test_an_offer_has_limits_of_its_own() -> None:
    """From `offer` on the commands are counted against the other settings' limit."""
    session = greeted(PLAIN, [b"HELO client.example\r\n"])
    session.offer(replace(FULL, max_commands=2))
    assert pump(session, b"NOOP\r\n").startswith(b"250 ")
    assert pump(session, b"NOOP\r\n").startswith(b"421 ")


def test_an_offer_knows_whether_tls_is_active() -> None:
    """The answer to EHLO that `offer` returns is the one for a session with TLS, where there is TLS."""
    session = greeted(PLAIN)
    session.tls_established()
    settings = replace(
        FULL, extensions=extensions.without([], [AUTH]), auth_mechanisms=("PLAIN",), auth_without_tls=False
    )
    assert session.offer(settings) is settings.ehlo_replies[True]


def test_a_reply_is_formatted_for_what_waits() -> None:
    """`format` writes a reply as it will be sent: to EHLO without status codes (RFC 2034 4), to others with them."""
    session = greeted(FULL)
    assert session.format(YES) == "250 2.0.0 Yes"
    session.receive_data(EHLO)
    session.next_event()
    assert session.format(YES) == "250 Yes"
