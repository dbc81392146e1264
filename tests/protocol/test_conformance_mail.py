"""Recipients, mail data, RSET, pipelining and status codes: the checklist row by row, on the sans-IO session.

The number in each id is that of a row of the conformance checklist. Every dialogue is played whole and octet by octet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from support import FULL, STRICT, Dialogue, Received, converse, split_replies

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.content import content_lints
from pytest_smtpd.protocol.events import Event
from pytest_smtpd.protocol.grammar import parse_parameters
from pytest_smtpd.protocol.lints import Lint
from pytest_smtpd.protocol.mail import Rcpt
from pytest_smtpd.protocol.notifications import NotificationRequest, RecipientNotification, read_request
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import Extension, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<ada@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.org>\r\n"
DATA = b"DATA\r\n"
DOT = b".\r\n"
#: What is answered on the way to the content.
TO_CONTENT = "250 250 2.1.0 250 2.1.5 354"
OK = "250 2.0.0"

#: The states of the checklist: what the client has sent to get there, one segment a command.
STATES = {"C": (), "E": (EHLO,), "M": (EHLO, MAIL), "R": (EHLO, MAIL, RCPT), "D": (EHLO, MAIL, RCPT, DATA)}

MODES = [pytest.param(FULL, id="default"), pytest.param(STRICT, id="strict")]

UNPIPELINED = replace(FULL, extensions=extensions.without(["PIPELINING"]))
UNENHANCED = replace(FULL, extensions=extensions.without(["ENHANCEDSTATUSCODES"]))
SMALL = replace(FULL, data_size_limit=1000)


@dataclass(frozen=True)
class Row:
    """What a client sends in a state, and what comes of it."""

    name: str
    state: str
    client: tuple[bytes, ...]
    codes: str
    messages: tuple[Received, ...] = ()
    answers: Mapping[str, Reply] | None = None


def row(name: str, state: str, *client: bytes, codes: str, messages: tuple[Received, ...] = ()) -> Row:
    """Make a row that holds in both modes."""
    return Row(name, state, client, codes, messages)


def scripted(name: str, state: str, *client: bytes, codes: str, answers: Mapping[str, str], data: bytes = b"") -> Row:
    """Make a row in which the server answers some stages otherwise; `data` is that of the message taken, if any."""
    replies = {stage: Reply.parse(text) for stage, text in answers.items()}
    return Row(name, state, client, codes, (took(data),) if data else (), replies)


def took(data: bytes, *rcpttos: str) -> Received:
    """Make what a session has taken: a message from ada to bob, if not to others."""
    return Received("ada@example.org", list(rcpttos or ("bob@example.org",)), data, [])


def named(rows: Iterable[Row]) -> list[object]:
    """Make parameters of rows, with their names for ids."""
    return [pytest.param(each, id=each.name) for each in rows]


def play_row(each: Row, settings: Settings, *, split: bool = True) -> Dialogue:
    """Play the way to the state and the row; keep the replies to the row's own commands."""
    way = STATES[each.state]
    dialogue = converse(*way, *each.client, settings=settings, answers=each.answers, split=split)
    return replace(dialogue, replies=dialogue.replies[len(way) :])


def greeted(settings: Settings) -> Session:
    """Make a session that has sent its greeting."""
    session = Session(settings)
    session.send(session.connect().reply)
    session.data_to_send()
    return session


def pump(session: Session, segment: bytes) -> list[str]:
    """Give a session a segment and the usual answers; return the replies."""
    session.receive_data(segment)
    while (event := session.next_event()) is not NEED_DATA:
        session.send(event.reply)
    return split_replies(session.data_to_send())


#: Row and the parameters of an RCPT that is refused with 501 5.5.4.
WRONG_NOTIFICATIONS = {
    "row-83 NEVER and more": "NOTIFY=NEVER,SUCCESS",
    "row-83 more and NEVER": "NOTIFY=SUCCESS,NEVER",
    "row-83 what cannot be notified": "NOTIFY=FOO",
    "row-83 an empty item": "NOTIFY=SUCCESS,",
    "row-83 no list": "NOTIFY=",
    "row-83 no value": "NOTIFY",
    "row-83 twice": "NOTIFY=SUCCESS NOTIFY=FAILURE",
    "row-83 twice the same": "NOTIFY=NEVER NOTIFY=NEVER",
    "row-84 bad xtext": "ORCPT=rfc822;a+2bb@x",
    "row-84 an open xtext": "ORCPT=rfc822;a+",
    "row-84 no address type": "ORCPT=;a@x",
    "row-84 no address": "ORCPT=rfc822;",
    "row-84 no semicolon": "ORCPT=a@x",
    "row-84 no value": "ORCPT",
    "row-84 too long": f"ORCPT=rfc822;{'a' * 494}",
    "row-84 twice": "ORCPT=rfc822;a@x ORCPT=rfc822;a@x",
}
#: Row and the parameters of an RCPT that is accepted.
NOTIFICATIONS = {
    "row-83 NEVER": "NOTIFY=NEVER",
    "row-83 all that there is": "NOTIFY=SUCCESS,FAILURE,DELAY",
    "row-83 in any case": "notify=Success,dElay",
    "row-84 an address": "ORCPT=rfc822;a+2Bb@x",
    "row-84 an address of another type": r"ORCPT=utf-8;jos\x{E9}@x",
    "row-84 as long as may be": f"ORCPT=rfc822;{'a' * 493}",
    "row-84 with NOTIFY": "ORCPT=rfc822;a@x NOTIFY=DELAY",
}


def rcpt(parameters: str) -> bytes:
    """Return an RCPT for bob with parameters."""
    return f"RCPT TO:<bob@example.org> {parameters}\r\n".encode()


ROWS = [
    # 4 RCPT
    row("row-74 before MAIL", "E", RCPT, codes="503 5.5.1"),
    row("row-75 a mailbox", "M", RCPT, codes="250 2.1.5"),
    row(
        "row-76 postmaster needs no domain",
        "M",
        b"RCPT TO:<Postmaster>\r\n",
        b"RCPT TO:<postmaster>\r\n",
        DATA,
        DOT,
        codes="250 2.1.5 250 2.1.5 354 250 2.0.0",
        messages=(took(b"", "Postmaster", "postmaster"),),
    ),
    row("row-77 the null path", "M", b"RCPT TO:<>\r\n", RCPT, codes="501 5.1.3 250 2.1.5"),
    row(
        "row-79 the same recipient twice",
        "M",
        RCPT,
        b"RCPT TO:<eve@example.org>\r\n",
        RCPT,
        DATA,
        DOT,
        codes="250 2.1.5 250 2.1.5 250 2.1.5 354 250 2.0.0",
        messages=(took(b"", "bob@example.org", "eve@example.org", "bob@example.org"),),
    ),
    row(
        "row-80 one of three cannot be a mailbox",
        "R",
        b"RCPT TO:<eve@[300.1.1.1]>\r\n",
        b"RCPT TO:<dan@example.org>\r\n",
        DATA,
        DOT,
        codes="501 5.1.3 250 2.1.5 354 250 2.0.0",
        messages=(took(b"", "bob@example.org", "dan@example.org"),),
    ),
    row("row-82 an unknown parameter", "M", b"RCPT TO:<b@x> FOO=1\r\n", DATA, codes="555 5.5.4 503 5.5.1"),
    *(
        row(name, "M", rcpt(parameters), DATA, codes="501 5.5.4 503 5.5.1")
        for name, parameters in WRONG_NOTIFICATIONS.items()
    ),
    *(
        row(name, "M", rcpt(parameters), DATA, DOT, codes="250 2.1.5 354 250 2.0.0", messages=(took(b""),))
        for name, parameters in NOTIFICATIONS.items()
    ),
    row(
        "row-86 a source route",
        "M",
        b"RCPT TO:<@a.example,@b.example:bob@example.org>\r\n",
        DATA,
        DOT,
        codes="250 2.1.5 354 250 2.0.0",
        messages=(took(b""),),
    ),
    # 5 DATA
    row("row-89 DATA before EHLO", "C", DATA, codes="503 5.5.1"),
    row("row-89 DATA without MAIL", "E", DATA, codes="503 5.5.1"),
    row("row-89 DATA without RCPT", "M", DATA, RCPT, codes="503 5.5.1 250 2.1.5"),
    row("row-90 DATA when all RCPT were refused", "M", b"RCPT TO:<>\r\n", DATA, codes="501 5.1.3 503 5.5.1"),
    row("row-91 DATA", "R", DATA, codes="354"),
    row("row-92 the end at once", "D", DOT, codes="250 2.0.0", messages=(took(b""),)),
    row("row-93 two dots", "D", b"..\r\n", DOT, codes="250 2.0.0", messages=(took(b".\r\n"),)),
    row("row-93 dot x", "D", b".x\r\n", DOT, codes="250 2.0.0", messages=(took(b"x\r\n"),)),
    row("row-93 dot dot x", "D", b"..x\r\n", DOT, codes="250 2.0.0", messages=(took(b".x\r\n"),)),
    row("row-93 three dots", "D", b"...\r\n", DOT, codes="250 2.0.0", messages=(took(b"..\r\n"),)),
    row(
        "row-93 dots elsewhere",
        "D",
        b"a.\r\n.b.\r\n\r\n..\r\nc..d\r\n.\r\n",
        codes="250 2.0.0",
        messages=(took(b"a.\r\nb.\r\n\r\n.\r\nc..d\r\n"),),
    ),
    row(
        "row-94 the end in pieces",
        "D",
        *(b"x\r", b"\n", b".", b"\r", b"\n"),
        codes="250 2.0.0",
        messages=(took(b"x\r\n"),),
    ),
    row("row-110 no end", "D", b"x\r\n.\r", codes=""),
    row("row-111 no headers", "D", b"no header\r\n.\r\n", codes="250 2.0.0", messages=(took(b"no header\r\n"),)),
    row(
        "row-111 malformed headers",
        "D",
        b": x\r\nSub ject: y\r\nFrom\r\n\r\n.\r\n",
        codes="250 2.0.0",
        messages=(took(b": x\r\nSub ject: y\r\nFrom\r\n\r\n"),),
    ),
    row(
        "row-112 the transaction ends with 250",
        "D",
        DOT,
        RCPT,
        MAIL,
        codes="250 2.0.0 503 5.5.1 250 2.1.0",
        messages=(took(b""),),
    ),
    # 6 RSET, pipelining
    row("row-115 RSET before EHLO", "C", b"RSET\r\n", EHLO, codes="250 2.0.0 250"),
    row("row-115 RSET after EHLO", "E", b"RSET\r\n", MAIL, codes="250 2.0.0 250 2.1.0"),
    row("row-115 RSET in a transaction", "R", b"RSET\r\n", MAIL, codes="250 2.0.0 250 2.1.0"),
    row("row-116 RSET ends the transaction", "R", b"RSET\r\n", RCPT, DATA, codes="250 2.0.0 503 5.5.1 503 5.5.1"),
    row("row-117 EHLO survives RSET", "R", b"RSET\r\n", b"MAIL FROM:<a@b> SIZE=1\r\n", codes="250 2.0.0 250 2.1.0"),
    row(
        "row-118 a transaction in one segment",
        "E",
        MAIL + RCPT + b"RCPT TO:<eve@example.org>\r\n" + DATA,
        b"hello\r\n.\r\n",
        codes="250 2.1.0 250 2.1.5 250 2.1.5 354 250 2.0.0",
        messages=(took(b"hello\r\n", "bob@example.org", "eve@example.org"),),
    ),
    row(
        "row-120 pipelined RSET",
        "R",
        b"RSET\r\n" + MAIL + b"RCPT TO:<eve@example.org>\r\n" + DATA,
        DOT,
        codes="250 2.0.0 250 2.1.0 250 2.1.5 354 250 2.0.0",
        messages=(took(b"", "eve@example.org"),),
    ),
    row(
        "row-120 errors flush nothing",
        "E",
        b"RSET\r\n" + RCPT + b"FOO\r\n" + MAIL + b"RCPT TO:<>\r\n" + RCPT + b"\r\n" + DATA,
        codes="250 2.0.0 503 5.5.1 500 5.5.1 250 2.1.0 501 5.1.3 250 2.1.5 500 5.5.2 354",
    ),
    row(
        "row-121 content and MAIL in one segment",
        "D",
        b"hello\r\n.\r\n" + MAIL + RCPT,
        codes="250 2.0.0 250 2.1.0 250 2.1.5",
        messages=(took(b"hello\r\n"),),
    ),
]


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("each", named(ROWS))
def test_rows_that_hold_in_both_modes(each: Row, settings: Settings) -> None:
    """What the standard demands, the patient and the strict server do alike, and neither closes."""
    dialogue = play_row(each, settings)
    assert (dialogue.codes, dialogue.messages, dialogue.closed) == (each.codes, list(each.messages), False)
    assert not dialogue.lints


SCRIPTED_ROWS = [
    scripted("row-87 452", "M", RCPT, DATA, codes="452 4.3.1 503 5.5.1", answers={"RCPT": "452 4.3.1 Full"}),
    scripted("row-87 552", "M", RCPT, DATA, codes="552 5.3.4 503 5.5.1", answers={"RCPT": "552 5.3.4 Too large"}),
    scripted(
        "row-88 251",
        "M",
        RCPT,
        DATA,
        b"x\r\n.\r\n",
        codes="251 2.1.5 354 250 2.0.0",
        answers={"RCPT": "251 2.1.5 User not local; will forward"},
        data=b"x\r\n",
    ),
    scripted("row-88 551", "M", RCPT, DATA, codes="551 5.1.6 503 5.5.1", answers={"RCPT": "551 5.1.6 User not local"}),
    *(
        scripted(
            f"row-113 the transaction ends with {code}",
            "D",
            b"x\r\n.\r\n",
            RCPT,
            MAIL,
            codes=f"{code} 503 5.5.1 250 2.1.0",
            answers={"CONTENT": f"{code} No"},
        )
        for code in ("451 4.3.0", "554 5.6.0")
    ),
    scripted("row-114 554", "D", b"Subject: \xc3\xa9\r\n.\r\n", codes="554 5.6.9", answers={"CONTENT": "554 5.6.9 No"}),
    scripted(
        "row-119 354 without recipients",
        "E",
        MAIL + RCPT + RCPT + DATA,
        DOT,
        MAIL,
        codes="250 2.1.0 550 5.1.1 550 5.1.1 354 554 5.5.1 250 2.1.0",
        answers={"RCPT": "550 5.1.1 No such user", "DATA": "354 Go ahead"},
    ),
]


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("each", named(SCRIPTED_ROWS))
def test_rows_in_which_the_server_is_told_what_to_answer(each: Row, settings: Settings) -> None:
    """Whoever chose the answer, the session goes on as it demands: 2yz takes, 4yz and 5yz take nothing."""
    dialogue = play_row(each, settings)
    assert (dialogue.codes, dialogue.messages, dialogue.closed) == (each.codes, list(each.messages), False)


#: Row, what is sent, its lint, what a strict server says to it.
SLOPPY_ROWS = [
    ("row-78 no domain", b"RCPT TO:<bob>\r\n", Lint.NO_DOMAIN, "501 5.1.3"),
    ("row-85 raw UTF-8", "RCPT TO:<josé@example.org>\r\n".encode(), Lint.RAW_UTF8_ADDRESS, "553 5.6.7"),
]


@pytest.mark.parametrize(("name", "sent", "lint", "strict"), [pytest.param(*each, id=each[0]) for each in SLOPPY_ROWS])
def test_recipients_that_clients_must_not_send_are_noted_or_refused(
    name: str, sent: bytes, lint: Lint, strict: str
) -> None:
    """A patient server takes with a lint what a strict one refuses."""
    each = row(name, "M", sent, DATA, codes="250 2.1.5 354")
    patient = play_row(each, FULL)
    assert (patient.codes, patient.lints) == (each.codes, [lint])
    assert play_row(each, STRICT).codes == f"{strict} 503 5.5.1"


def test_row_83_and_84_what_is_asked_is_recorded_raw_and_decoded() -> None:
    """The parameters of each recipient are kept as they were sent, and can be read."""
    session = greeted(FULL)
    pump(session, EHLO + b"MAIL FROM:<ada@example.org> RET=hdrs ENVID=q+2B1\r\n")
    pump(session, rcpt("NOTIFY=success,Delay ORCPT=rfc822;a+2Bb@x") + RCPT + rcpt("NOTIFY=NEVER"))
    transaction = session.state.transaction
    assert transaction is not None
    assert transaction.parameters == (("RET", "hdrs"), ("ENVID", "q+2B1"))
    raw = (("NOTIFY", "success,Delay"), ("ORCPT", "rfc822;a+2Bb@x"))
    assert transaction.forward_parameters == [raw, (), (("NOTIFY", "NEVER"),)]
    assert read_request(transaction.parameters, transaction.forward_parameters) == NotificationRequest(
        "HDRS",
        "q+1",
        (
            RecipientNotification(("SUCCESS", "DELAY"), "rfc822;a+b@x"),
            RecipientNotification(),
            RecipientNotification(("NEVER",)),
        ),
    )


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("parameters", ["NOTIFY=NEVER", "NOTIFY=FOO", "ORCPT=rfc822;a@x"])
def test_row_82_parameters_of_dsn_where_it_is_not_offered(parameters: str, settings: Settings) -> None:
    """A server that hides DSN does not know its parameters."""
    hidden = replace(settings, extensions=extensions.without(["DSN"]))
    assert converse(EHLO, MAIL, rcpt(parameters), DATA, settings=hidden).codes == "250 250 2.1.0 555 5.5.4 503 5.5.1"


@pytest.mark.parametrize("octets", [512 + 500, 512 + 501])
def test_row_84_dsn_lengthens_rcpt(octets: int) -> None:
    """An RCPT line may be longer by the 500 octets that DSN adds, and not by an octet more (RFC 3461 4)."""
    line = rcpt("NOTIFY=NEVER").removesuffix(b"\r\n").ljust(octets - 2) + b"\r\n"
    assert converse(EHLO, MAIL, line).codes == f"250 250 2.1.0 {'250 2.1.5' if octets == 1012 else '500 5.5.2'}"


#: An extension with an RCPT parameter that has no value.
FLAGGING = Extension(keyword="X", rcpt_parameters={"FLAG": lambda _value, _state: None})

#: Row, greeting, RCPT parameters, what a patient server says, its lints, what a strict server says.
RCPT_PARAMETERS = [
    ("row-82 of two extensions", EHLO, "NOTIFY=NEVER FLAG", "250 2.1.5", [], "250 2.1.5"),
    ("row-83 twice without a value", EHLO, "FLAG FLAG", "250 2.1.5", [Lint.DUPLICATE_PARAMETER], "501 5.5.4"),
    ("row-82 after HELO", b"HELO x\r\n", "FLAG", "250 2.1.5", [Lint.PARAMETER_WITHOUT_EHLO], "555 5.5.4"),
]


@pytest.mark.parametrize(
    ("greeting", "parameters", "patient", "lints", "strict"),
    [pytest.param(*columns, id=name) for name, *columns in RCPT_PARAMETERS],
)
def test_recipients_have_the_parameters_that_extensions_bring(
    greeting: bytes, parameters: str, patient: str, lints: list[Lint], strict: str
) -> None:
    """A parameter of an extension that is offered is checked by it, and may be given once, after EHLO."""
    client = (greeting, MAIL, rcpt(parameters))
    offering = replace(FULL, extensions=(*extensions.ALL, FLAGGING))
    dialogue = converse(*client, settings=offering)
    assert (dialogue.codes, dialogue.lints) == (f"250 250 2.1.0 {patient}", lints)
    assert converse(*client, settings=replace(offering, strict=True)).codes == f"250 250 2.1.0 {strict}"


@pytest.mark.parametrize("settings", MODES)
def test_row_85_smtputf8_at_mail_allows_non_ascii_recipients(settings: Settings) -> None:
    """With SMTPUTF8 at MAIL, non-ASCII recipients are nothing to complain about."""
    mail, rcpt = b"MAIL FROM:<a@b> SMTPUTF8\r\n", "RCPT TO:<josé@example.org>\r\n".encode()
    dialogue = converse(EHLO, mail, rcpt, DATA, DOT, settings=settings)
    assert dialogue.codes == "250 250 2.1.0 250 2.1.5 354 250 2.0.0"
    assert dialogue.messages == [Received("a@b", ["josé@example.org"], b"", [])]
    assert not dialogue.lints


def test_lints_of_an_envelope_stay_with_its_message() -> None:
    """A message comes with the lints of its own envelope, not with those of the message before."""
    sloppy_rcpt = b"RCPT TO: <bob>\r\n"
    dialogue = converse(EHLO, MAIL, sloppy_rcpt, DATA, DOT, MAIL, RCPT, DATA, DOT)
    assert [message.lints for message in dialogue.messages] == [[Lint.SPACE_BEFORE_PATH, Lint.NO_DOMAIN], []]


def test_row_80_a_refused_recipient_leaves_the_others() -> None:
    """Of three recipients of which one is refused with 550 5.1.1, the message goes to two."""
    session = greeted(FULL)
    pump(session, EHLO + MAIL)
    session.receive_data(RCPT + b"RCPT TO:<eve@example.org>\r\nRCPT TO:<dan@example.org>\r\n" + DATA)
    while (event := session.next_event()) is not NEED_DATA:
        refused = isinstance(event, Rcpt) and event.accepted_path.mailbox == "eve@example.org"
        session.send(Reply(550, "No such user", "5.1.1") if refused else event.reply)
    assert Dialogue(split_replies(session.data_to_send())).codes == "250 2.1.5 550 5.1.1 250 2.1.5 354"
    assert session.state.transaction is not None
    mailboxes = [path.mailbox for path in session.state.transaction.forward_paths]
    assert mailboxes == ["bob@example.org", "dan@example.org"]


@pytest.mark.parametrize("settings", MODES)
def test_row_81_too_many_recipients_leave_the_earlier_ones(settings: Settings) -> None:
    """Recipients above the limit are deferred with 452 4.5.3, and the message goes to those before."""
    three = [f"RCPT TO:<user{number}@example.org>\r\n".encode() for number in range(3)]
    dialogue = converse(EHLO, MAIL, *three, DATA, DOT, settings=replace(settings, max_recipients=2))
    assert dialogue.codes == "250 250 2.1.0 250 2.1.5 250 2.1.5 452 4.5.3 354 250 2.0.0"
    assert dialogue.messages == [took(b"", "user0@example.org", "user1@example.org")]


def test_row_81_a_hundred_recipients_are_never_too_many() -> None:
    """Unless told otherwise, a server takes the hundred recipients that every server must take."""
    assert converse(EHLO, MAIL, *[RCPT] * 100).replies[2:] == ["250 2.1.5 OK"] * 100


# Rows 95 to 103: what is not the end of mail data. If it were, a second message would be smuggled in.

#: Row, what a client sends in place of CRLF "." CRLF, what of it is content, what a strict server says at the end.
WRONG_ENDS = [
    ("row-95 LF dot LF", b"\n.\n", b"\n.\n", "550 5.5.2"),
    ("row-96 LF dot CRLF", b"\n.\r\n", b"\n.\r\n", "550 5.5.2"),
    ("row-97 CR dot CR", b"\r.\r", b"\r.\r", "550 5.5.2"),
    ("row-98 CR dot CRLF", b"\r.\r\n", b"\r.\r\n", "550 5.5.2"),
    ("row-99 LF dot CR", b"\n.\r", b"\n.\r", "550 5.5.2"),
    ("row-100 CRLF dot LF", b"\r\n.\n", b"\r\n\n", "550 5.5.2"),
    ("row-101 CRLF dot CR x", b"\r\n.\rx", b"\r\n\rx", "550 5.5.2"),
    ("row-102 CRLF NUL dot CRLF", b"\r\n\0.\r\n", b"\r\n\0.\r\n", OK),
    ("row-102 CRLF dot NUL CRLF", b"\r\n.\0\r\n", b"\r\n\0\r\n", OK),
    ("row-103 CRLF dot CR CRLF", b"\r\n.\r\r\n", b"\r\n\r\r\n", "550 5.5.2"),
    ("row-103 CR CRLF dot CR CRLF", b"\r\r\n.\r\r\n", b"\r\r\n\r\r\n", "550 5.5.2"),
]
SECOND_MESSAGE = (
    b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nGotcha\r\n"
)


@pytest.mark.parametrize("before", [b"", b"first", b"first\r\n"], ids=["at once", "in a line", "at a line's start"])
@pytest.mark.parametrize(("sent", "kept", "strict"), [pytest.param(*columns, id=name) for name, *columns in WRONG_ENDS])
def test_nothing_but_crlf_dot_crlf_ends_mail_data(sent: bytes, kept: bytes, strict: str, before: bytes) -> None:
    """Behind a wrong end, a second envelope is text of the only message; a strict server refuses it, in step."""
    segments = (EHLO, MAIL, RCPT, DATA, before + sent + SECOND_MESSAGE + DOT, RCPT)
    whole = took(before + kept + SECOND_MESSAGE)
    patient = converse(*segments)
    assert (patient.codes, patient.messages) == (f"{TO_CONTENT} {OK} 503 5.5.1", [whole])
    strictly = converse(*segments, settings=STRICT)
    assert strictly.codes == f"{TO_CONTENT} {strict} 503 5.5.1"
    assert strictly.messages == ([whole] if strict == OK else [])


# Rows 104 to 109: content that clients should not send.

#: Row, MAIL parameters, content, its lints, what a strict server says to it.
CONTENT_ROWS = [
    ("row-104 bare LF", "", b"a\nb\r\n", [Lint.BARE_LF], "550 5.5.2"),
    ("row-104 bare CR", "", b"a\rb\r\n", [Lint.BARE_CR], "550 5.5.2"),
    ("row-104 both", "", b"a\n\rb\r\n", [Lint.BARE_LF, Lint.BARE_CR], "550 5.5.2"),
    ("row-105 998 octets", "", b"x" * 998 + b"\r\n", [], OK),
    ("row-105 998 octets and a stuffed dot", "", b"." * 998 + b"\r\n", [], OK),
    ("row-106 999 octets", "", b"x" * 999 + b"\r\n", [Lint.LONG_LINE], "554 5.6.0"),
    ("row-106 999 octets and a stuffed dot", "", b"\r\n" + b"." * 999 + b"\r\n\r\n", [Lint.LONG_LINE], "554 5.6.0"),
    ("row-107 8 bits", "", b"\xc3\xa9\r\n", [Lint.UNDECLARED_8BIT], "554 5.6.1"),
    ("row-107 8 bits as 7BIT", " BODY=7BIT", b"\xe9\r\n", [Lint.UNDECLARED_8BIT], "554 5.6.1"),
    ("row-107 8 bits declared", " BODY=8BITMIME", b"\xe9\r\n", [], OK),
    ("row-107 8 bits declared in lower case", " body=8bitmime", b"\xe9\r\n", [], OK),
    ("row-109 more than declared", " SIZE=10", b"x" * 18 + b"\r\n", [Lint.SIZE_EXCEEDED], "552 5.3.4"),
    ("row-109 as declared", " SIZE=20", b"x" * 18 + b"\r\n", [], OK),
    ("row-109 nothing declared", " SIZE=0", b"x" * 18 + b"\r\n", [], OK),
]


@pytest.mark.parametrize(
    ("parameters", "data", "lints", "strict"), [pytest.param(*columns, id=name) for name, *columns in CONTENT_ROWS]
)
def test_content_is_taken_as_it_is_and_noted_or_refused(
    parameters: str, data: bytes, lints: list[Lint], strict: str
) -> None:
    """A patient server keeps the octets and notes; a strict one refuses behind the dot; both stay in step."""
    mail = f"MAIL FROM:<ada@example.org>{parameters}\r\n".encode()
    stuffed = (b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:]
    segments = (EHLO, mail, RCPT, DATA, stuffed + DOT, b"NOOP\r\n")
    patient = converse(*segments)
    assert patient.codes == f"{TO_CONTENT} {OK} {OK}"
    assert patient.messages == [took(data)]
    assert list(content_lints(data, parse_parameters(parameters))) == lints
    strictly = converse(*segments, settings=STRICT)
    assert strictly.codes == f"{TO_CONTENT} {strict} {OK}"
    assert strictly.messages == ([took(data)] if strict == OK else [])


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, strict=True)], ids=["default", "strict"])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"x" * 98 + b"\r\n", OK, id="row-108 a tenth of the limit"),
        pytest.param((b"x" * 98 + b"\r\n") * 10, OK, id="row-108 at the limit"),
        pytest.param((b".." + b"x" * 97 + b"\r\n") * 10, OK, id="row-108 stuffed dots do not count"),
        pytest.param((b"x" * 98 + b"\r\n") * 9 + b"x" * 99 + b"\r\n", "552 5.3.4", id="row-108 one above the limit"),
        pytest.param(b"QUIT\r\nRSET\r\n" * 1000, "552 5.3.4", id="row-108 far above the limit"),
    ],
)
def test_row_108_too_much_content_is_read_to_its_end_and_refused(content: bytes, code: str, settings: Settings) -> None:
    """Content above the limit is refused with 552 5.3.4 at its end; nothing of it is kept or taken for commands."""
    dialogue = converse(EHLO, MAIL, RCPT, DATA, content + DOT, RCPT, MAIL, settings=settings)
    assert dialogue.codes == f"{TO_CONTENT} {code} 503 5.5.1 250 2.1.0"
    kept = content.replace(b"..", b".")
    assert dialogue.messages == ([took(kept)] if code == OK else [])


def test_row_110_content_without_an_end_leaves_its_transaction_open() -> None:
    """Where a client goes away in its content there is no message, and the envelope is there to be reported."""
    session = greeted(FULL)
    replies = pump(session, EHLO + MAIL + RCPT + DATA + b"Subject: never mind\r\n.")
    assert Dialogue(replies).codes == TO_CONTENT
    assert session.state.transaction is not None
    assert session.state.transaction.reverse_path.mailbox == "ada@example.org"


# Rows 122 and 123: clients that send ahead where they must wait.

#: Row, state, what is sent in one segment, the codes, and those of a strict server.
SENT_AHEAD = [
    ("row-122 EHLO", "E", EHLO + MAIL, "250 250 2.1.0", "554"),
    ("row-122 NOOP", "E", b"NOOP\r\n" + MAIL, "250 2.0.0 250 2.1.0", "554 5.5.0"),
    ("row-122 VRFY", "E", b"VRFY bob\r\n" + MAIL, "252 2.0.0 250 2.1.0", "554 5.5.0"),
    ("row-122 EXPN", "E", b"EXPN staff\r\n" + MAIL, "502 5.5.1 250 2.1.0", "554 5.5.0"),
    ("row-122 DATA", "R", DATA + DOT, "354 250 2.0.0", "554 5.5.0"),
    ("row-123 before EHLO", "C", EHLO + MAIL, "250 250 2.1.0", "554"),
    ("row-123 after HELO", "C", b"HELO client.example\r\n" + MAIL, "250 250 2.1.0", "554"),
    ("row-123 not offered", "E", MAIL + RCPT, "250 2.1.0 250 2.1.5", "554 5.5.0"),
    ("row-123 not offered, RSET", "E", b"RSET\r\n" + MAIL, "250 2.0.0 250 2.1.0", "554 5.5.0"),
]


@pytest.mark.parametrize(
    ("name", "state", "group", "codes", "strict"), [pytest.param(*columns, id=columns[0]) for columns in SENT_AHEAD]
)
def test_clients_that_do_not_wait_are_noted_or_sent_away(
    name: str, state: str, group: bytes, codes: str, strict: str
) -> None:
    """A patient server answers all that was sent ahead, with a lint; a strict one says 554 and closes."""
    settings = UNPIPELINED if "not offered" in name else FULL
    lint = Lint.PIPELINED_LAST if name.startswith("row-122") else Lint.NOT_PIPELINING
    sent = row(name, state, group, codes=codes)
    patient = play_row(sent, settings)
    assert (patient.codes, patient.lints) == (codes, [lint])
    strictly = play_row(sent, replace(settings, strict=True), split=False)
    assert (strictly.codes, strictly.closed, strictly.messages) == (strict, True, [])


@pytest.mark.parametrize("settings", MODES)
def test_row_122_what_is_sent_behind_quit_is_noted_and_never_refused(settings: Settings) -> None:
    """QUIT is answered with 221 whatever stands behind it, as that is ignored (row 17)."""
    dialogue = play_row(row("QUIT", "E", b"QUIT\r\n" + MAIL, codes=""), settings, split=False)
    assert (dialogue.codes, dialogue.lints, dialogue.closed) == ("221 2.0.0", [Lint.PIPELINED_LAST], True)


@pytest.mark.parametrize("settings", [UNPIPELINED, replace(UNPIPELINED, strict=True)], ids=["default", "strict"])
def test_row_123_not_even_where_pipelining_is_not_offered(settings: Settings) -> None:
    """QUIT with something behind it is no reason to send a client away, only one to note."""
    dialogue = play_row(row("QUIT", "R", b"QUIT\r\nNOOP\r\n", codes=""), settings, split=False)
    assert (dialogue.codes, dialogue.lints, dialogue.closed) == ("221 2.0.0", [Lint.NOT_PIPELINING], True)


def test_a_strict_server_does_nothing_of_what_it_was_sent_too_early() -> None:
    """A command that a strict server answers with 554 for its haste has no effect."""
    session = greeted(replace(UNPIPELINED, strict=True))
    pump(session, EHLO)
    pump(session, MAIL + RCPT)
    assert session.state.transaction is None


# Rows 174 to 176: status codes and keywords.

#: A client that provokes all kinds of replies: of each class, and with more lines than one.
ALL_KINDS = [
    *(b"MAIL FROM:<a@b>\r\n", b"FOO\r\n", b"\r\n", b"x" * 600 + b"\r\n", b"NO\0OP\r\n", b"EXPN staff\r\n", b"VRFY\r\n"),
    *(b"VRFY bob\r\n", b"HELP\r\n", b"HELP MAIL\r\n", b"HELP FOO\r\n", b"NOOP\r\n", b"RSET x\r\n", b"EHLO\r\n", EHLO),
    *(b"MAIL\r\n", b"MAIL FROM:<a@b> FOO=1\r\n", b"MAIL FROM:<a@b> SIZE=99999999999\r\n", MAIL, MAIL, b"QUIT x\r\n"),
    *(b"RCPT TO:<>\r\n", RCPT, RCPT, DATA, b"y" * 2000 + b"\r\n.\r\n", DATA, b"RSET\r\n", b"F" * 480 + b"\r\n"),
    b"QUIT\r\n",
]
ENHANCED = re.compile(r"([245])[0-9]{2}[ -]\1\.[0-9]{1,3}\.[0-9]{1,3}( .*)?")


def reply_lines(settings: Settings) -> list[tuple[str, str]]:
    """Provoke all kinds of replies; return each line with the stage that it answers."""
    session = Session(settings)
    event: object = session.connect()
    session.receive_data(b"".join(ALL_KINDS))
    lines = []
    while isinstance(event, Event):
        session.send(event.reply)
        lines += [(event.stage, line) for line in session.data_to_send().decode("ascii").splitlines()]
        event = session.next_event()
    return lines


def has_no_status_code(stage: str, line: str) -> bool:
    """Whether no enhanced status code belongs into this line (RFC 2034 4)."""
    return stage in {"CONNECT", "EHLO", "HELO"} or line.startswith("3")


def test_row_174_status_codes_on_every_line_but_those_that_have_none() -> None:
    """Each line of 2yz, 4yz and 5yz has a code of its class; the greeting, replies to HELO and EHLO and 3yz none."""
    lines = reply_lines(replace(SMALL, max_recipients=1))
    assert {line[0] for _, line in lines} == set("2345")
    assert any(line[3] == "-" for stage, line in lines if stage == "F" * 480)
    for stage, line in lines:
        assert bool(ENHANCED.fullmatch(line)) is not has_no_status_code(stage, line), line


def test_row_175_no_status_codes_where_they_are_not_offered() -> None:
    """A server that hides ENHANCEDSTATUSCODES sends the same replies without them."""
    lines = reply_lines(replace(UNENHANCED, data_size_limit=1000, max_recipients=1))
    assert {line[0] for _, line in lines} == set("2345")
    assert not [line for _, line in lines if re.match(r"[0-9]{3}[ -][245]\.[0-9]+\.[0-9]+", line)]


#: A server that offers all that there is.
EVERYTHING = Settings(
    extensions=(*extensions.ALL, *extensions.CONFIGURED),
    auth_mechanisms=("PLAIN",),
    directory={"staff": ("ada@example.org",)},
    max_messages=10,
)

#: What a client may send because of a keyword; nothing where it allows nothing new.
USES = {
    "SIZE": b"MAIL FROM:<a@b> SIZE=1\r\n",
    "8BITMIME": b"MAIL FROM:<a@b> BODY=8BITMIME\r\n",
    "SMTPUTF8": "MAIL FROM:<josé@b> SMTPUTF8\r\n".encode(),
    "PIPELINING": b"RSET\r\nRSET\r\n",
    "ENHANCEDSTATUSCODES": b"",
    "CHUNKING": MAIL + RCPT + b"BDAT 1\r\nxBDAT 1 LAST\r\ny",
    "BINARYMIME": b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n" + RCPT + b"BDAT 1 LAST\r\n\0",
    "DSN": b"MAIL FROM:<a@b> RET=FULL ENVID=1\r\n" + rcpt("NOTIFY=NEVER ORCPT=rfc822;a@b"),
    "HELP": b"HELP\r\n",
    "STARTTLS": b"STARTTLS\r\n",
    "REQUIRETLS": b"MAIL FROM:<a@b> REQUIRETLS\r\n",
    "AUTH": b"AUTH PLAIN AGEAYg==\r\n",
    "LIMITS": b"",
    "EXPN": b"EXPN staff\r\n",
}


def offered(settings: Settings, *, secure: bool) -> tuple[Session, list[str]]:
    """Return a session that has been sent EHLO, with TLS or without, and the keywords that it was told."""
    session = greeted(settings)
    if secure:
        session.tls_established()
    return session, [line[4:].partition(" ")[0] for line in pump(session, EHLO)[0].splitlines()[1:]]


@pytest.mark.parametrize("strict", [False, True], ids=["default", "strict"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("keyword", sorted(EVERYTHING.keywords))
def test_row_176_what_is_offered_is_served(keyword: str, *, secure: bool, strict: bool) -> None:
    """No keyword is offered in vain: what it allows is answered positively, in the strict mode, too."""
    session, keywords = offered(replace(EVERYTHING, strict=strict), secure=secure)
    served = {reply[0] for reply in pump(session, USES[keyword])} <= {"2"}
    assert served is (keyword in keywords)


def test_row_176_what_only_tls_allows_and_what_it_rules_out() -> None:
    """All that there is is offered, REQUIRETLS only where TLS is active, STARTTLS only where it is not."""
    plain, secure = (offered(EVERYTHING, secure=secure)[1] for secure in (False, True))
    assert set(plain) == set(EVERYTHING.keywords) - {"REQUIRETLS"}
    assert set(secure) == set(EVERYTHING.keywords) - {"STARTTLS"}
    assert len(plain) == len(secure) == len(EVERYTHING.keywords) - 1


def test_row_182_two_sessions_have_nothing_in_common() -> None:
    """Two interleaved sessions of one server come to what each would come to alone."""
    clients = [
        [EHLO, MAIL, RCPT, DATA, b"one\r\n.\r\n", b"NOOP\n", RCPT],
        [b"HELO x_y\r\n", b"MAIL FROM:<eve@example.org>\r\n", RCPT, b"RCPT TO:<dan@x>\r\n", DATA, DOT, b"QUIT\r\n"],
    ]
    sessions = [greeted(FULL), greeted(FULL)]
    replies: list[list[str]] = [[], []]
    for turn in zip(*clients, strict=True):
        for session, told, segment in zip(sessions, replies, turn, strict=True):
            told.extend(pump(session, segment))
    for session, told, client in zip(sessions, replies, clients, strict=True):
        alone = converse(*client)
        assert (told, session.state.closing) == (alone.replies, alone.closed)
        assert list(session.state.lints) == alone.lints
