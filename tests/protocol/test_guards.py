"""Guards and limits: what a session answers because of what it has been through, and what it says beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support import FULL, Dialogue, converse

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.auth import AUTH
from pytest_smtpd.protocol.events import Event, Refusal
from pytest_smtpd.protocol.guards import guard
from pytest_smtpd.protocol.limits import LIMITS
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import Settings, State

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<ada@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.org>\r\n"
DATA = b"DATA\r\n"
DOT = b".\r\n"
NOOP = b"NOOP\r\n"
FOO = b"FOO\r\n"

OK = "250 2.0.0"
TOO_MUCH = "421 4.7.0"

#: Every stage that an event may have, the one of a line that is no command included.
STAGES = (
    *("", "CONNECT", "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "CONTENT", "RSET", "NOOP", "QUIT"),
    *("VRFY", "EXPN", "HELP", "STARTTLS", "AUTH", "TURN", "FOO"),
)


def refused(state: State) -> dict[str, int]:
    """Return the stages that the guards let not pass in this state, with the codes of their refusals."""
    codes = {}
    for stage in STAGES:
        try:
            guard(stage, state)
        except Refusal as refusal:
            codes[stage] = refusal.reply.code
    return codes


# The table.


@pytest.mark.parametrize(
    ("settings", "commands", "errors", "guarded"),
    [
        pytest.param(Settings(), 99, 99, False, id="nothing is limited or required"),
        pytest.param(Settings(max_recipients=1, max_messages=1, data_size_limit=1), 9, 9, False, id="limits of mail"),
        pytest.param(Settings(max_commands=2), 2, 9, False, id="as many commands as allowed"),
        pytest.param(Settings(max_commands=2), 3, 0, True, id="more commands"),
        pytest.param(Settings(max_errors=2), 9, 1, False, id="fewer errors than allowed"),
        pytest.param(Settings(max_errors=2), 9, 2, True, id="as many errors"),
        pytest.param(Settings(require_tls=True), 0, 0, True, id="TLS"),
        pytest.param(Settings(require_auth=True), 0, 0, True, id="AUTH"),
    ],
)
def test_guards_stand_where_something_is_refused(
    settings: Settings, commands: int, errors: int, *, guarded: bool
) -> None:
    """A session that would refuse nothing has no guards, and one that would has them."""
    session = Session(settings)
    state = session.state
    for _ in range(commands):
        session.receive_data(b"NOOP\r\n")
        session.next_event()
        session.send(Reply(250))
    for _ in range(errors):
        state.count_error()
    assert state.guarded is guarded
    assert bool(refused(state)) is guarded


def test_behind_a_greeting_without_service_only_quit_passes() -> None:
    """A session whose greeting was negative refuses all stages but QUIT with 503 (RFC 5321 3.1)."""
    state = State(Settings())
    state.refuse_service()
    assert state.guarded
    assert refused(state) == dict.fromkeys(set(STAGES) - {"QUIT"}, 503)


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        pytest.param(
            Settings(require_tls=True), {"CONNECT", "NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT"}, id="TLS: RFC 3207 4"
        ),
        pytest.param(
            Settings(require_auth=True),
            {"CONNECT", "NOOP", "EHLO", "LHLO", "HELO", "STARTTLS", "AUTH", "RSET", "QUIT"},
            id="AUTH: RFC 4954 6",
        ),
        pytest.param(
            Settings(require_auth=True, require_tls=True),
            {"CONNECT", "NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT"},
            id="both: TLS comes first",
        ),
    ],
)
def test_what_passes_before_what_is_required(settings: Settings, allowed: set[str]) -> None:
    """Before TLS or AUTH, where they are required, only what leads there and what harms nobody passes."""
    assert refused(State(settings)) == dict.fromkeys(set(STAGES) - allowed, 530)


def test_the_first_guard_answers() -> None:
    """Where several guards refuse, the session says what is most final: no service, limits, TLS, AUTH."""
    state = State(Settings(require_auth=True, require_tls=True, max_commands=1, max_errors=1))
    state.refuse_service()
    state.commands, state.errors = 2, 1
    told = []
    for change in ({"refused": False}, {"commands": 1}, {"errors": 0}, {"secure": True}, {}):
        with pytest.raises(Refusal) as refusal:
            guard("MAIL", state)
        told.append(str(refusal.value.reply))
        for name, value in change.items():
            setattr(state, name, value)
    assert told == [
        "503 5.5.1 Error: no service, only QUIT is possible",
        "421 4.7.0 Error: too many commands",
        "421 4.7.0 Error: too many errors",
        "530 5.7.0 Must issue a STARTTLS command first",
        "530 5.7.0 Authentication required",
    ]


# Row 179 and its kin: sessions that have had enough.


def test_too_many_errors_end_a_session() -> None:
    """After as many refused commands as a session may have, the next command is answered with 421 4.7.0."""
    limited = replace(FULL, max_errors=3)
    dialogue = converse(EHLO, FOO, NOOP, RCPT, b"\r\n", NOOP, NOOP, settings=limited)
    assert dialogue.codes == f"250 500 5.5.1 {OK} 503 5.5.1 500 5.5.2 {TOO_MUCH}"
    assert dialogue.closed
    assert dialogue.replies[-1] == "421 4.7.0 Error: too many errors"


def test_as_many_errors_as_allowed_do_not() -> None:
    """A session with one error less than the limit goes on and on."""
    dialogue = converse(EHLO, FOO, FOO, *[NOOP] * 50, settings=replace(FULL, max_errors=3))
    assert dialogue.codes == " ".join(["250 500 5.5.1 500 5.5.1", *[OK] * 50])


def test_what_is_answered_counts_as_an_error_not_what_would_be() -> None:
    """An error is what was sent, whoever chose it."""
    settings = replace(FULL, max_errors=1)
    forgiving = converse(EHLO, FOO, FOO, NOOP, settings=settings, answers={"FOO": Reply(250, "Fine")})
    assert forgiving.codes == "250 250 2.0.0 250 2.0.0 250 2.0.0"
    strict = converse(EHLO, NOOP, FOO, settings=settings, answers={"NOOP": Reply(450, "No")})
    assert strict.codes == f"250 450 4.0.0 {TOO_MUCH}"


def test_content_is_refused_behind_too_many_errors() -> None:
    """A message whose session has had too many errors by its end is not taken."""
    answers = {"DATA": Reply(354, "Go ahead")}
    dialogue = converse(EHLO, MAIL, FOO, RCPT, DATA, DOT, settings=replace(FULL, max_errors=1), answers=answers)
    assert (dialogue.messages, dialogue.closed) == ([], True)


def test_too_many_commands_end_a_session() -> None:
    """One command more than a session may have is answered with 421 4.7.0, whatever it is."""
    limited = replace(FULL, max_commands=3)
    for last in (NOOP, MAIL, FOO, EHLO, b"VRFY\r\n"):
        dialogue = converse(EHLO, NOOP, NOOP, last, NOOP, settings=limited)
        assert [reply[:3] for reply in dialogue.replies] == ["250", "250", "250", "421"]
        assert dialogue.closed


def test_content_is_no_command() -> None:
    """A transaction may take all the commands that there are: its content is none."""
    dialogue = converse(EHLO, MAIL, RCPT, DATA, b"x\r\n.\r\n", NOOP, settings=replace(FULL, max_commands=4))
    assert dialogue.codes == f"250 250 2.1.0 250 2.1.5 354 {OK} {TOO_MUCH}"
    assert len(dialogue.messages) == 1


@pytest.mark.parametrize("settings", [FULL, replace(FULL, max_commands=0, max_errors=0, max_messages=0)])
def test_by_default_nothing_is_counted(settings: Settings) -> None:
    """Without limits, and with limits of 0, neither commands nor errors nor messages end a session."""
    dialogue = converse(EHLO, *[FOO, MAIL, b"RSET\r\n"] * 100, settings=settings)
    assert dialogue.codes == " ".join(["250", *["500 5.5.1 250 2.1.0 250 2.0.0"] * 100])


@pytest.mark.parametrize(
    "name", ["data_size_limit", "line_size_limit", "max_recipients", "max_messages", "max_commands", "max_errors"]
)
def test_a_limit_is_a_number_from_0(name: str) -> None:
    """A limit below 0 is a ValueError that names it and says what 0 means."""
    below: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match=rf"^{name} is 0 \(for no limit\) or more, not -1$"):
        Settings(**below)


@pytest.mark.parametrize("hostname", ["", "two words", "caf\u00e9.example", "a\r\nb", "tab\t"])
def test_a_hostname_is_printable_ascii(hostname: str) -> None:
    """What cannot stand in a greeting as a domain or address literal is a ValueError that shows it."""
    with pytest.raises(ValueError, match="hostname is a domain or an address literal, not "):
        Settings(hostname=hostname)


# Guards and the session.


def test_a_guard_changes_nothing_but_the_usual_answer() -> None:
    """A command that a guard refuses has its effect all the same if it is accepted in the end."""
    settings = replace(FULL, extensions=(*extensions.ALL, AUTH), auth_mechanisms=("PLAIN",), require_auth=True)
    segments = (EHLO, MAIL, RCPT, DATA, b"x\r\n.\r\n")
    yes = Reply(250, "Yes")
    accepting = {"MAIL": yes, "RCPT": yes, "DATA": Reply(354, "Go ahead"), "CONTENT": yes}
    assert converse(*segments, settings=settings, answers=accepting).messages[0].data == b"x\r\n"
    refusing = converse(*segments, settings=settings)
    assert refusing.codes == "250 530 5.7.0 530 5.7.0 530 5.7.0 530 5.7.0 530 5.7.0"


def test_a_line_of_a_refused_exchange_is_a_command_again() -> None:
    """Where a guard ends the session in the middle of AUTH, the exchange is over."""
    settings = replace(FULL, extensions=(*extensions.ALL, AUTH), auth_mechanisms=("LOGIN",), max_errors=1)
    session = Session(settings)
    session.send(session.connect().reply)
    session.receive_data(EHLO + b"AUTH LOGIN\r\n")
    while isinstance(event := session.next_event(), Event):
        session.send(event.reply)
    state = session.state
    assert state.exchange is not None
    state.count_error()
    session.receive_data(b"YQ==\r\n")
    event = session.next_event()
    assert event is not NEED_DATA
    session.send(event.reply)
    assert event.reply.code == 421
    assert session.state.exchange is None
    assert session.state.closing


# LIMITS (RFC 9422).


def ehlo_lines(settings: Settings) -> list[str]:
    """Return what EHLO is answered, line by line, without codes."""
    return [line[4:] for line in converse(EHLO, settings=settings).replies[0].splitlines()]


@pytest.mark.parametrize(
    ("max_messages", "max_recipients", "line"),
    [
        pytest.param(0, 100, "LIMITS RCPTMAX=100", id="recipients"),
        pytest.param(5, 0, "LIMITS MAILMAX=5", id="messages"),
        pytest.param(5, 100, "LIMITS MAILMAX=5 RCPTMAX=100", id="both"),
    ],
)
def test_limits_are_told_beforehand(max_messages: int, max_recipients: int, line: str) -> None:
    """EHLO tells how many messages a session and how many recipients a message may have, where that is limited."""
    limits = replace(FULL, extensions=(LIMITS,), max_messages=max_messages, max_recipients=max_recipients)
    assert ehlo_lines(limits)[1:] == [line]


def test_no_limits_are_not_told() -> None:
    """Where nothing is limited LIMITS is not offered: it has at least one limit for a parameter (RFC 9422 3)."""
    assert ehlo_lines(replace(FULL, extensions=(LIMITS,), max_messages=0, max_recipients=0)) == ["localhost"]


def test_row_185_messages_above_the_limit_are_deferred() -> None:
    """A MAIL above MAILMAX is answered with 451 4.5.3, and the session goes on."""
    limited = replace(FULL, extensions=(*extensions.ALL, LIMITS), max_messages=2)
    dialogue = converse(
        *(EHLO, MAIL, RCPT, DATA, DOT, MAIL, b"RSET\r\n", MAIL, RCPT, NOOP, b"QUIT\r\n"), settings=limited
    )
    first = f"250 250 2.1.0 250 2.1.5 354 {OK}"
    assert dialogue.codes == f"{first} 250 2.1.0 {OK} 451 4.5.3 503 5.5.1 {OK} 221 2.0.0"


def test_row_185_recipients_above_the_limit_are_deferred() -> None:
    """An RCPT above RCPTMAX is answered with 452 4.5.3, and the transaction goes on without it."""
    limited = replace(FULL, extensions=(*extensions.ALL, LIMITS), max_recipients=1)
    dialogue = converse(EHLO, MAIL, RCPT, RCPT, DATA, DOT, settings=limited)
    assert dialogue.codes == f"250 250 2.1.0 250 2.1.5 452 4.5.3 354 {OK}"
    assert dialogue.messages[0].rcpttos == ["bob@example.org"]


def test_a_mail_that_is_refused_does_not_count() -> None:
    """Only transactions that were opened count, so that a client can correct what it said."""
    limited = replace(FULL, max_messages=1)
    dialogue = converse(EHLO, b"MAIL FROM:<a@b> FOO=1\r\n", b"MAIL FROM:<a\r\n", MAIL, settings=limited)
    assert dialogue.codes == "250 555 5.5.4 501 5.5.4 250 2.1.0"


def test_each_session_has_limits_of_its_own() -> None:
    """What one session has used up is there for the next."""
    limited = replace(FULL, max_messages=1, max_commands=2)
    dialogues: list[Dialogue] = [converse(EHLO, MAIL, settings=limited) for _ in range(2)]
    assert [dialogue.codes for dialogue in dialogues] == ["250 250 2.1.0"] * 2


@pytest.mark.parametrize("line", [b"\r\n", b"\xff\r\n", b"x" * 9999 + b"\r\n", b"FOO\r\n"], ids=repr)
def test_lines_that_are_no_commands_count_as_well(line: bytes) -> None:
    """`max_commands` counts every line, whether there is a command in it or not."""
    dialogue = converse(*[line] * 3, b"NOOP\r\n", settings=replace(FULL, max_commands=3))
    assert dialogue.codes.endswith("421 4.7.0")
    assert dialogue.closed
