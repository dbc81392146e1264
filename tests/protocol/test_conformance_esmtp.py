"""STARTTLS, AUTH, CHUNKING, LMTP, limits: rows 124 to 186 of the checklist, on the sans-IO session.

The number in each id is that of a row of the conformance checklist. Every dialogue is played whole and octet by
octet. A handshake is what the driver does between STARTTLS and `tls_established`: here it takes no octets. Rows that
only exist with sockets (135, 136, 177, 180, 181, 183) are tested where there are some.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support import FULL, Dialogue, Received, converse, split_replies

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.events import Event
from pytest_smtpd.protocol.lints import Lint
from pytest_smtpd.protocol.mail import Content
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.sasl import MECHANISMS, Identity
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

EHLO = b"EHLO client.example\r\n"
LHLO = b"LHLO client.example\r\n"
MAIL = b"MAIL FROM:<ada@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.org>\r\n"
DATA = b"DATA\r\n"
DOT = b".\r\n"
STARTTLS = b"STARTTLS\r\n"
NOOP = b"NOOP\r\n"
OK = "250 2.0.0"

PASSWORDS = {"tim": "tanstaaf", "jos\u00e9": "p\u00e4ssw\u00f6rd"}


def b64(octets: bytes) -> bytes:
    """Encode what a client says in an exchange."""
    return base64.b64encode(octets)


RIGHT = b64(b"\0tim\0tanstaaf")
WRONG = b64(b"\0tim\0guess")
AUTH = b"AUTH PLAIN %s\r\n" % RIGHT

#: A server that offers all there is.
EVERYTHING = Settings(
    extensions=extensions.without([], extensions.CONFIGURED),
    auth_mechanisms=tuple(MECHANISMS),
    users=PASSWORDS.get,
    directory={"ada": "Ada <ada@example.org>", "staff": ("ada@example.org", "bob@example.org")},
)
STRICT_EVERYTHING = replace(EVERYTHING, strict=True)
LMTP = replace(EVERYTHING, lmtp=True)
UNENHANCED = extensions.without(["ENHANCEDSTATUSCODES"], extensions.CONFIGURED)

MODES = [pytest.param(False, id="default"), pytest.param(True, id="strict")]

#: The states of the checklist: what the client has sent to get there, one segment a command.
STATES = {
    "C": (),
    "H": (b"HELO client.example\r\n",),
    "E": (EHLO,),
    "M": (EHLO, MAIL),
    "R": (EHLO, MAIL, RCPT),
    "L": (LHLO, MAIL),
}


def took(data: bytes, *rcpttos: str) -> Received:
    """Make what a session has taken: a message from ada to bob, if not to others."""
    return Received("ada@example.org", list(rcpttos or ("bob@example.org",)), data, [])


@dataclass(frozen=True)
class Row:
    """What a client sends in a state, and what comes of it: in both modes, unless `strict` says otherwise."""

    name: str
    state: str
    client: Sequence[bytes]
    codes: str
    settings: Settings = EVERYTHING
    messages: Sequence[Received] = ()
    strict: str | None = None
    lints: Sequence[Lint] = ()
    answers: Mapping[str, Reply] = field(default_factory=dict)
    closes: bool = False


def named(rows: Iterable[Row]) -> list[object]:
    """Make parameters of rows, with their names for ids."""
    return [pytest.param(each, id=each.name) for each in rows]


def check(each: Row, *, strict: bool) -> None:
    """Play the way to a row's state and the row; compare what came of the row's own commands."""
    way = STATES[each.state]
    settings = replace(each.settings, strict=strict)
    dialogue = converse(*way, *each.client, settings=settings, answers=each.answers)
    codes = each.strict if strict and each.strict is not None else each.codes
    assert Dialogue(dialogue.replies[len(way) :]).codes == codes
    assert dialogue.messages == list(each.messages)
    assert dialogue.closed is each.closes
    assert dialogue.lints == ([] if strict else list(each.lints))


def greeted(settings: Settings = EVERYTHING) -> Session:
    """Make a session that has sent its greeting."""
    session = Session(settings)
    session.send(session.connect().reply)
    session.data_to_send()
    return session


def pump(session: Session, segment: bytes, answers: Mapping[str, Reply] | None = None) -> list[str]:
    """Give a session a segment, and these answers or the usual ones; return the replies."""
    session.receive_data(segment)
    while (event := session.next_event()) is not NEED_DATA:
        session.send((answers or {}).get(event.stage, event.reply))
    return split_replies(session.data_to_send())


def pump_all(session: Session, segments: Iterable[bytes], answers: Mapping[str, Reply] | None = None) -> list[str]:
    """Give a session segments one after the other; return the replies to all."""
    return [reply for segment in segments for reply in pump(session, segment, answers)]


def codes(replies: list[str]) -> str:
    """Return the codes of replies, parted by a space."""
    return Dialogue(replies).codes


def octets(segments: Sequence[bytes]) -> list[bytes]:
    """Cut segments into their octets."""
    return [bytes([octet]) for octet in b"".join(segments)]


def converse_tls(
    clear: Sequence[bytes],
    secured: Sequence[bytes],
    settings: Settings = EVERYTHING,
    answers: Mapping[str, Reply] | None = None,
) -> tuple[list[str], list[str]]:
    """Play what is said up to STARTTLS and, behind the handshake, what is said then; whole and octet by octet."""

    def play(before: Sequence[bytes], behind: Sequence[bytes]) -> tuple[list[str], list[str]]:
        session = greeted(settings)
        replies = pump_all(session, before)
        assert session.state.starting_tls
        session.tls_established()
        assert session.state.secure
        return replies, pump_all(session, behind, answers)

    whole = play(clear, secured)
    assert play(octets(clear), octets(secured)) == whole
    return whole


# 7 STARTTLS

HIDDEN_TLS = replace(EVERYTHING, extensions=extensions.without(["STARTTLS"], extensions.CONFIGURED))
NO_TLS_NOW = {"STARTTLS": Reply(454, "TLS not available due to temporary reason", "4.7.0")}

TLS_ROWS = [
    # 502 would be as good, but the command of an extension that is not offered is as unknown as any other.
    Row("row-124 not offered", "E", [STARTTLS, NOOP], f"500 5.5.1 {OK}", HIDDEN_TLS),
    Row("row-125 with an argument", "E", [b"STARTTLS x\r\n", NOOP], f"501 5.5.4 {OK}"),
    Row("row-126 STARTTLS", "E", [STARTTLS], "220 2.0.0"),
    Row("row-126 before EHLO", "C", [STARTTLS, EHLO], "503 5.5.1 250"),
    Row("row-126 after HELO", "H", [STARTTLS, EHLO], "503 5.5.1 250"),
    Row("row-127 not now", "E", [STARTTLS, MAIL], "454 4.7.0 250 2.1.0", answers=NO_TLS_NOW),
    Row("row-127 not now, in a transaction", "M", [STARTTLS, RCPT], "454 4.7.0 250 2.1.5", answers=NO_TLS_NOW),
]


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize("each", named(TLS_ROWS))
def test_starttls_is_answered_as_rfc_3207_demands(each: Row, *, strict: bool) -> None:
    """Only 220 leads to a handshake; whatever else is answered, the session goes on in the clear."""
    check(each, strict=strict)


def test_row_128_what_is_pipelined_behind_starttls_gets_no_answer() -> None:
    """Behind STARTTLS there is 220 and then silence; the first reply under TLS belongs to what is said there."""
    replies, secured = converse_tls([EHLO, STARTTLS + NOOP + b"MAIL FROM:<evil@example.org>\r\n"], [EHLO])
    assert codes(replies) == "250 220 2.0.0"
    assert [reply[:3] for reply in secured] == ["250"]
    assert secured[0].startswith("250-localhost\n")


def test_row_128_a_patient_server_notes_what_is_pipelined_behind_starttls() -> None:
    """STARTTLS is the last command of a group; who sends more behind it is noted."""
    session = greeted()
    pump(session, EHLO)
    session.receive_data(STARTTLS + NOOP)
    event = session.next_event()
    assert isinstance(event, Event)
    assert event.lints == (Lint.PIPELINED_LAST,)


def test_row_128_a_strict_server_begins_no_handshake_with_who_does_not_wait() -> None:
    """A strict server answers STARTTLS with more behind it by 554, and closes."""
    session = greeted(STRICT_EVERYTHING)
    assert codes(pump_all(session, [EHLO, STARTTLS + NOOP])) == "250 554 5.5.0"
    assert (session.state.starting_tls, session.state.closing) == (False, True)


@pytest.mark.parametrize(
    "injected",
    [b"RS", b"RSET\r", b"RSET\r\nMAIL FROM:<ev", b"x" * 30_000, b"AUTH PLAIN", b"BDAT 100\r\nabc"],
    ids=["half a line", "no LF", "a line and a half", "a line too long", "AUTH", "a chunk"],
)
def test_row_129_a_fragment_injected_before_the_handshake_is_forgotten(injected: bytes) -> None:
    """What stood behind STARTTLS begins no line of what is said under TLS."""
    assert codes(converse_tls([EHLO, STARTTLS + injected], [b"ET\r\n", EHLO])[1]) == "500 5.5.1 250"


def test_row_129_nothing_is_kept_of_what_comes_before_the_handshake() -> None:
    """Octets given to a session between 220 and the handshake are no input, however they come."""
    session = greeted()
    pump_all(session, [EHLO, STARTTLS])
    assert pump_all(session, [NOOP, b"RS"]) == []
    session.tls_established()
    assert codes(pump(session, b"ET\r\n")) == "500 5.5.1"


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize(
    ("clear", "secured", "expected"),
    [
        pytest.param([EHLO], [MAIL, EHLO, MAIL], "503 5.5.1 250 250 2.1.0", id="row-130 MAIL before EHLO"),
        pytest.param([EHLO], [AUTH, EHLO, AUTH], "503 5.5.1 250 235 2.7.0", id="row-130 AUTH before EHLO"),
        pytest.param([EHLO], [b"STARTTLS\r\n", EHLO, STARTTLS], "503 5.5.1 250 503 5.5.1", id="row-132 again"),
        pytest.param([EHLO, MAIL, RCPT], [RCPT, EHLO, RCPT], "503 5.5.1 250 503 5.5.1", id="row-133 a transaction"),
        pytest.param(
            [EHLO, MAIL, RCPT, b"BDAT 3\r\nabc"],
            [EHLO, b"BDAT 0 LAST\r\n", MAIL],
            "250 503 5.5.1 250 2.1.0",
            id="row-133 chunks",
        ),
        pytest.param([EHLO, AUTH], [EHLO, AUTH], "250 235 2.7.0", id="row-133 AUTH"),
        pytest.param([EHLO], [EHLO, b"MAIL FROM:<a@b> REQUIRETLS\r\n"], "250 250 2.1.0", id="REQUIRETLS"),
    ],
)
def test_a_session_begins_anew_under_tls(
    clear: list[bytes], secured: list[bytes], expected: str, *, strict: bool
) -> None:
    """What was said in the clear is forgotten: EHLO, the transaction, the identity."""
    settings = replace(EVERYTHING, strict=strict)
    assert codes(converse_tls([*clear, STARTTLS], secured, settings)[1]) == expected


def keywords(reply: str) -> dict[str, str]:
    """Read the reply to EHLO: each keyword with what follows it."""
    words = (line[4:].partition(" ") for line in reply.split("\n")[1:])
    return {keyword: parameter for keyword, _, parameter in words}


def test_row_131_starttls_is_not_offered_under_tls() -> None:
    """Behind the handshake EHLO lists no STARTTLS, but what only TLS allows."""
    settings = replace(EVERYTHING, auth_without_tls=False)
    replies, secured = converse_tls([EHLO, STARTTLS], [EHLO], settings)
    clear, secure = keywords(replies[0]), keywords(secured[0])
    assert ("STARTTLS" in clear, "STARTTLS" in secure) == (True, False)
    assert ("REQUIRETLS" in clear, "REQUIRETLS" in secure) == (False, True)
    assert clear["AUTH"] == "SCRAM-SHA-256 CRAM-MD5"
    assert secure["AUTH"] == "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN OAUTHBEARER XOAUTH2"


def test_row_134_a_server_may_find_the_handshake_too_weak() -> None:
    """Told to answer all but QUIT with 554, it does, and QUIT closes the session."""
    weak = Reply(554, "The cipher is too weak", "5.7.4")
    answers = dict.fromkeys(["EHLO", "MAIL", "NOOP", "AUTH"], weak)
    secured = converse_tls([EHLO, STARTTLS], [EHLO, MAIL, NOOP, AUTH, b"QUIT\r\n"], answers=answers)[1]
    assert codes(secured) == "554 554 5.7.4 554 5.7.4 554 5.7.4 221 2.0.0"


@pytest.mark.parametrize("strict", MODES)
def test_row_73_required_tls_lets_few_commands_pass(*, strict: bool) -> None:
    """Where TLS is required, in the clear all but EHLO, NOOP, QUIT and STARTTLS are answered with 530."""
    settings = replace(EVERYTHING, strict=strict, require_tls=True)
    refused = [MAIL, RCPT, AUTH, b"HELP\r\n", b"BDAT 4\r\nabcd", b"RSET\r\n", b"FOO\r\n", b"HELO x\r\n"]
    replies, secured = converse_tls([EHLO, *refused, NOOP, STARTTLS], [EHLO, MAIL], settings)
    # Replies to HELO have no status codes (RFC 2034 4).
    assert codes(replies) == f"250 {'530 5.7.0 ' * (len(refused) - 1)}530 {OK} 220 2.0.0"
    assert replies[1] == "530 5.7.0 Must issue a STARTTLS command first"
    assert codes(secured) == "250 250 2.1.0"


# 8 AUTH

#: What is no base64 (RFC 4954 4, RFC 4648 3).
NOT_BASE64 = [
    *(b"=AAA", b"AAA=BBB", b"A", b"AA", b"AAA", b"AA=", b"AA=A", b"AA==AA==", b"AAAA=", b"AAAA====", b"===="),
    *(b"AA-_", b"AA*A", b"AA A", b"AA.A", "AA\u00e9A".encode()),
]
PLAINTEXT_NEEDS_TLS = replace(EVERYTHING, auth_without_tls=False)
ANYBODY = replace(EVERYTHING, users=None)
#: An initial response that is base64 and that no mechanism takes, with which AUTH PLAIN has 513 octets.
LONG = b"A" * 500


def refusals(*answers: str) -> list[Row]:
    """Make rows in which AUTH is answered otherwise: the exchange is over, and nobody has authenticated."""
    return [
        Row(
            f"row-156 {answer[:9]}",
            "E",
            [AUTH, MAIL],
            f"{answer[:9]} 530 5.7.0",
            replace(EVERYTHING, require_auth=True),
            answers={"AUTH": Reply(int(answer[:3]), answer[10:], answer[4:9])},
        )
        for answer in answers
    ]


AUTH_ROWS = [
    Row("row-137 PLAIN", "E", [AUTH], "235 2.7.0"),
    Row("row-137 a wrong password", "E", [b"AUTH PLAIN %s\r\n" % WRONG, AUTH], "535 5.7.8 235 2.7.0"),
    Row("row-137 an unknown user", "E", [b"AUTH PLAIN %s\r\n" % b64(b"\0eve\0tanstaaf")], "535 5.7.8"),
    Row("row-137 anybody", "E", [b"AUTH PLAIN %s\r\n" % WRONG], "235 2.7.0", ANYBODY),
    Row("row-137 in lower case", "E", [b"auth plain %s\r\n" % RIGHT], "235 2.7.0"),
    Row("row-138 PLAIN, asked", "E", [b"AUTH PLAIN\r\n", RIGHT + b"\r\n", NOOP], f"334 235 2.7.0 {OK}"),
    Row("row-138 PLAIN, asked, wrong", "E", [b"AUTH PLAIN\r\n", WRONG + b"\r\n", NOOP], f"334 535 5.7.8 {OK}"),
    Row(
        "row-139 LOGIN",
        "E",
        [b"AUTH LOGIN\r\n", b64(b"tim") + b"\r\n", b64(b"tanstaaf") + b"\r\n"],
        "334 334 235 2.7.0",
    ),
    Row(
        "row-139 LOGIN, wrong",
        "E",
        [b"AUTH LOGIN\r\n", b64(b"tim") + b"\r\n", b64(b"x") + b"\r\n"],
        "334 334 535 5.7.8",
    ),
    Row("row-140 LOGIN", "E", [b"AUTH LOGIN %s\r\n" % b64(b"tim"), b64(b"tanstaaf") + b"\r\n"], "334 235 2.7.0"),
    Row("row-140 LOGIN, wrong", "E", [b"AUTH LOGIN %s\r\n" % b64(b"tim"), b64(b"x") + b"\r\n"], "334 535 5.7.8"),
    Row("row-142 CRAM-MD5 with a response", "E", [b"AUTH CRAM-MD5 dGlt\r\n", NOOP], f"501 5.7.0 {OK}"),
    Row("row-142 CRAM-MD5 with an empty one", "E", [b"AUTH CRAM-MD5 =\r\n", NOOP], f"501 5.7.0 {OK}"),
    Row("row-144 unknown", "E", [b"AUTH GSSAPI\r\n", b"AUTH KERBEROS_V4 AAAA\r\n"], "504 5.5.4 504 5.5.4"),
    Row("row-144 not offered", "E", [AUTH], "504 5.5.4", replace(EVERYTHING, auth_mechanisms=("LOGIN",))),
    Row("row-144 no AUTH at all", "E", [AUTH, NOOP], f"500 5.5.1 {OK}", FULL),
    Row("row-145 no mechanism", "E", [b"AUTH\r\n", b"AUTH \r\n"], "501 5.5.4 501 5.5.4"),
    Row("row-146 cancelled", "E", [b"AUTH PLAIN\r\n", b"*\r\n", AUTH], "334 501 5.7.0 235 2.7.0"),
    Row("row-146 cancelled later", "E", [b"AUTH LOGIN dGlt\r\n", b"*\r\n", MAIL], "334 501 5.7.0 250 2.1.0"),
    *(Row(f"row-147 {bad!r}", "E", [b"AUTH PLAIN %s\r\n" % bad, NOOP], f"501 5.5.2 {OK}") for bad in NOT_BASE64),
    *(
        Row(f"row-147 {bad!r}, asked", "E", [b"AUTH PLAIN\r\n", bad + b"\r\n", NOOP], f"334 501 5.5.2 {OK}")
        for bad in [*NOT_BASE64, b"=", b"\0", b"\xff", b"NOOP"]
    ),
    *(
        Row(f"row-147 {bad!r} for tim", "E", [b"AUTH LOGIN %s\r\n" % bad, NOOP], f"501 5.5.2 {OK}")
        for bad in (b"dGlt=", b"dGlt==", b"dGlt====", b"=dGlt", b"dGk=dGlt", b"dGk", b"dGl t", b"dGlt*")
    ),
    Row("row-148 an empty response", "E", [b"AUTH PLAIN =\r\n", NOOP], f"501 5.5.2 {OK}"),
    Row("row-148 an empty response, asked", "E", [b"AUTH PLAIN\r\n", b"\r\n", NOOP], f"334 501 5.5.2 {OK}"),
    Row("row-149 one NUL", "E", [b"AUTH PLAIN %s\r\n" % b64(b"tim\0tanstaaf")], "501 5.5.2"),
    Row("row-149 three NULs", "E", [b"AUTH PLAIN %s\r\n" % b64(b"\0tim\0tanstaaf\0")], "501 5.5.2"),
    Row("row-150 a second time", "E", [AUTH, AUTH, MAIL], "235 2.7.0 503 5.5.1 250 2.1.0"),
    Row("row-150 after another EHLO", "E", [AUTH, EHLO, AUTH], "235 2.7.0 250 503 5.5.1"),
    Row("row-150 after RSET", "E", [AUTH, b"RSET\r\n", AUTH], f"235 2.7.0 {OK} 503 5.5.1"),
    Row("row-151 in a transaction", "M", [AUTH, RCPT], "503 5.5.1 250 2.1.5"),
    Row("row-152 before EHLO", "C", [AUTH, EHLO], "503 5.5.1 250"),
    Row("row-152 after HELO", "H", [AUTH, MAIL], "503 5.5.1 250 2.1.0"),
    Row("row-153 PLAIN", "E", [AUTH, NOOP], f"504 5.5.4 {OK}", PLAINTEXT_NEEDS_TLS),
    Row("row-153 LOGIN", "E", [b"AUTH LOGIN\r\n", NOOP], f"504 5.5.4 {OK}", PLAINTEXT_NEEDS_TLS),
    Row("row-153 XOAUTH2", "E", [b"AUTH XOAUTH2\r\n"], "504 5.5.4", PLAINTEXT_NEEDS_TLS),
    Row("row-153 OAUTHBEARER", "E", [b"AUTH OAUTHBEARER\r\n"], "504 5.5.4", PLAINTEXT_NEEDS_TLS),
    # A line of 12,288 octets has no base64 in it: 12,286 is no multiple of 4.
    Row(
        "row-154 12288 octets",
        "E",
        [b"AUTH PLAIN\r\n", b"A" * 12_286 + b"\r\n", AUTH],
        "334 501 5.5.2 235 2.7.0",
    ),
    Row("row-154 12289 octets", "E", [b"AUTH PLAIN\r\n", b"A" * 12_287 + b"\r\n", AUTH], "334 500 5.5.6 235 2.7.0"),
    Row("row-154 much more", "E", [b"AUTH PLAIN\r\n", b"A" * 50_000 + b"\r\n", AUTH], "334 500 5.5.6 235 2.7.0"),
    Row("row-155 512 octets", "E", [b"AUTH PLAIN %s\r\n" % LONG[1:], NOOP], f"501 5.5.2 {OK}"),
    Row(
        "row-155 513 octets",
        "E",
        [b"AUTH PLAIN %s\r\n" % LONG, NOOP],
        f"501 5.5.2 {OK}",
        strict=f"500 5.5.6 {OK}",
        lints=[Lint.LONG_INITIAL_RESPONSE],
    ),
    Row(
        "row-155 a long token",
        "E",
        [b"AUTH XOAUTH2 %s\r\n" % b64(b"user=tim\x01auth=Bearer " + b"t" * 3000 + b"\x01\x01")],
        "235 2.7.0",
        ANYBODY,
        strict="500 5.5.6",
        lints=[Lint.LONG_INITIAL_RESPONSE],
    ),
    *refusals("454 4.7.0 Later", "534 5.7.9 Too weak", "432 4.7.12 Transition"),
    Row(
        "row-157 failures",
        "E",
        [*[b"AUTH PLAIN %s\r\n" % WRONG] * 3, AUTH],
        "535 5.7.8 535 5.7.8 535 5.7.8 235 2.7.0",
    ),
    Row(
        "row-157 too many failures",
        "E",
        [*[b"AUTH PLAIN %s\r\n" % WRONG] * 3, AUTH, AUTH],
        "535 5.7.8 535 5.7.8 535 5.7.8 421 4.7.0",
        replace(EVERYTHING, max_errors=3),
        closes=True,
    ),
    Row(
        "row-72 AUTH is required",
        "E",
        [MAIL, RCPT, DATA, b"HELP\r\n", b"VRFY bob\r\n", b"BDAT 4\r\nabcd", NOOP, b"RSET\r\n", AUTH, MAIL],
        f"{'530 5.7.0 ' * 6}{OK} {OK} 235 2.7.0 250 2.1.0",
        replace(EVERYTHING, require_auth=True),
    ),
]


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize("each", named(AUTH_ROWS))
def test_auth_is_answered_as_rfc_4954_demands(each: Row, *, strict: bool) -> None:
    """Each exchange ends with the reply that says why, and the session goes on."""
    check(each, strict=strict)


@pytest.mark.parametrize(
    ("client", "challenges"),
    [
        pytest.param([b"AUTH PLAIN\r\n"], ["334 "], id="row-138"),
        pytest.param([b"AUTH LOGIN\r\n", b"dGlt\r\n"], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"], id="row-139"),
        pytest.param([b"AUTH LOGIN dGlt\r\n"], ["334 UGFzc3dvcmQ6"], id="row-140"),
        pytest.param([b"AUTH XOAUTH2\r\n"], ["334 "], id="row-138 XOAUTH2"),
    ],
)
def test_challenges_are_sent_to_the_letter(client: list[bytes], challenges: list[str]) -> None:
    """Clients compare these: an empty challenge keeps its space, and none has a status code."""
    assert converse(EHLO, *client, settings=EVERYTHING).replies[1:] == challenges


def test_row_141_the_challenge_of_cram_md5_is_a_message_id() -> None:
    """CRAM-MD5 begins with a challenge in angle brackets, another one for each exchange."""
    session = greeted()
    pump(session, EHLO)
    first, cancelled, second = pump_all(session, [b"AUTH CRAM-MD5\r\n", b"*\r\n", b"AUTH CRAM-MD5\r\n"])
    assert codes([cancelled]) == "501 5.7.0"
    for challenge in (first, second):
        assert re.fullmatch(rb"<[^<>@ ]+@[^<>@ ]+>", base64.b64decode(challenge.removeprefix("334 "), validate=True))
    assert first != second


@pytest.mark.parametrize("name", ["CRAM-MD5", "SCRAM-SHA-256"])
def test_row_153_mechanisms_that_reveal_no_password_need_no_tls(name: str) -> None:
    """What a listener learns nothing from is begun in the clear."""
    session = greeted(PLAINTEXT_NEEDS_TLS)
    assert codes(pump_all(session, [EHLO, f"AUTH {name}\r\n".encode(), b"*\r\n", NOOP])) == f"250 334 501 5.7.0 {OK}"


@pytest.mark.parametrize("strict", MODES)
def test_row_143_a_wrong_token_is_explained_before_it_is_refused(*, strict: bool) -> None:
    """XOAUTH2 answers a wrong token by a challenge in JSON, and the client's empty line by 535."""
    token = b64(b"user=tim\x01auth=Bearer stale\x01\x01")
    client = (EHLO, b"AUTH XOAUTH2 %s\r\n" % token, b"\r\n", NOOP)
    dialogue = converse(*client, settings=replace(EVERYTHING, strict=strict))
    assert dialogue.codes == f"250 334 535 5.7.8 {OK}"
    assert json.loads(base64.b64decode(dialogue.replies[1].removeprefix("334 ")))["status"] == "401"


def test_row_153_mechanisms_that_may_not_be_used_are_not_listed() -> None:
    """Without any that may be used there is no AUTH in the reply to EHLO; under TLS there is."""
    settings = replace(PLAINTEXT_NEEDS_TLS, auth_mechanisms=("PLAIN", "LOGIN"))
    replies, secured = converse_tls([EHLO, AUTH, STARTTLS], [EHLO, AUTH], settings)
    assert ("AUTH" in keywords(replies[0]), keywords(secured[0])["AUTH"]) == (False, "PLAIN LOGIN")
    assert (codes(replies[1:]), codes(secured[1:])) == ("504 5.5.4 220 2.0.0", "235 2.7.0")


def test_row_158_identities_in_utf_8_are_known_decoded() -> None:
    """Who has authenticated is known with all names decoded, and what was said as it was sent."""
    response = b64("\u00e1d\0jos\u00e9\0p\u00e4ssw\u00f6rd".encode())
    session = greeted()
    pump(session, EHLO)
    session.receive_data(b"AUTH PLAIN %s\r\n" % response)
    event = session.next_event()
    assert isinstance(event, Event)
    assert event.said == f"AUTH PLAIN {response.decode()}"
    session.send(event.reply)
    assert session.state.identity == Identity("PLAIN", "jos\u00e9", "\u00e1d", "p\u00e4ssw\u00f6rd")


# 9 CHUNKING

SMALL = replace(EVERYTHING, data_size_limit=10)
NO_CHUNKS = replace(EVERYTHING, extensions=extensions.without(["CHUNKING"], extensions.CONFIGURED))
#: What would do harm if it were read as commands.
HARM = b"QUIT\r\nRSET\r\n.\r\n"
CHUNK_OF_HARM = b"BDAT %d\r\n%s" % (len(HARM), HARM)


def two(first: bytes, last: bytes) -> list[bytes]:
    """Make a message in two chunks."""
    return [b"BDAT %d\r\n%s" % (len(first), first), b"BDAT %d LAST\r\n%s" % (len(last), last)]


CHUNK_ROWS = [
    Row("row-159 one chunk", "R", [b"BDAT 5 LAST\r\nabcde"], OK, messages=[took(b"abcde")]),
    Row("row-159 in lower case", "R", [b"bdat 5 last\r\nabcde"], OK, messages=[took(b"abcde")]),
    Row("row-160 two chunks", "R", [b"BDAT 3\r\nabc", b"BDAT 2 LAST\r\nde"], f"{OK} {OK}", messages=[took(b"abcde")]),
    Row("row-160 in one segment", "R", [b"BDAT 3\r\nabcBDAT 2 LAST\r\nde"], f"{OK} {OK}", messages=[took(b"abcde")]),
    Row(
        "row-161 an empty last chunk",
        "R",
        [b"BDAT 3\r\nabc", b"BDAT 0 LAST\r\n"],
        f"{OK} {OK}",
        messages=[took(b"abc")],
    ),
    Row("row-161 nothing at all", "R", [b"BDAT 0 LAST\r\n", NOOP], f"{OK} {OK}", messages=[took(b"")]),
    Row("row-161 an empty chunk", "R", [b"BDAT 0\r\n", b"BDAT 1 LAST\r\nx"], f"{OK} {OK}", messages=[took(b"x")]),
    Row("row-162 dots stay", "R", two(b".\r\n..x\r\n", b".\r\n"), f"{OK} {OK}", messages=[took(b".\r\n..x\r\n.\r\n")]),
    Row(
        "row-162 no end",
        "R",
        two(b"a\r\n.\r\nQUIT\r\n", b"b\r\n"),
        f"{OK} {OK}",
        messages=[took(b"a\r\n.\r\nQUIT\r\nb\r\n")],
    ),
    Row("row-163 before EHLO", "C", [CHUNK_OF_HARM, EHLO], "503 5.5.1 250"),
    Row("row-163 before MAIL", "E", [CHUNK_OF_HARM, MAIL], "503 5.5.1 250 2.1.0"),
    Row("row-163 before RCPT", "M", [CHUNK_OF_HARM, NOOP], f"503 5.5.1 {OK}"),
    Row("row-163 the last chunk before RCPT", "M", [b"BDAT 6 LAST\r\nQUIT\r\n", NOOP], f"503 5.5.1 {OK}"),
    Row("row-163 an empty chunk before MAIL", "E", [b"BDAT 0 LAST\r\n", NOOP], f"503 5.5.1 {OK}"),
    *(
        Row(
            f"row-164 {command[:4].decode()} between chunks",
            "R",
            [b"BDAT 2\r\nab", command, b"BDAT 1 LAST\r\nc"],
            f"{OK} 503 5.5.1 {OK}",
            messages=[took(b"abc")],
        )
        for command in (DATA, MAIL, RCPT)
    ),
    Row(
        "row-165 after the last",
        "R",
        [b"BDAT 1 LAST\r\na", CHUNK_OF_HARM, MAIL],
        f"{OK} 503 5.5.1 250 2.1.0",
        messages=[took(b"a")],
    ),
    Row(
        "row-166 RSET between chunks",
        "R",
        [b"BDAT 3\r\nabc", b"RSET\r\n", MAIL, RCPT, b"BDAT 1 LAST\r\nx"],
        f"{OK} {OK} 250 2.1.0 250 2.1.5 {OK}",
        messages=[took(b"x")],
    ),
    Row(
        "row-166 EHLO between chunks",
        "R",
        [b"BDAT 3\r\nabc", EHLO, b"BDAT 1 LAST\r\nx"],
        f"{OK} 250 503 5.5.1",
    ),
    Row(
        "row-167 all refused",
        "R",
        [b"BDAT 3\r\nabc" + CHUNK_OF_HARM + b"BDAT 6 LAST\r\nQUIT\r\n" + NOOP],
        f"451 4.3.0 451 4.3.0 451 4.3.0 {OK}",
        answers={"BDAT": Reply(451, "Not now", "4.3.0")},
    ),
    *(
        Row(f"row-168 {argument.decode() or 'nothing'}", "R", [b"BDAT %s\r\n" % argument, NOOP], f"501 5.5.4 {OK}")
        for argument in (
            *(b"", b"x", b"-1", b"+1", b"3 FOO", b"LAST", b"3 LAST x", b"3LAST", b"0x3", b"1.0", b"1_0", b"9" * 21),
            "\u0663".encode(),
            "3 LA\u017fT".encode(),
        )
    ),
    Row("row-169 at the limit", "R", two(b"x" * 6, b"y" * 4), f"{OK} {OK}", SMALL, messages=[took(b"xxxxxxyyyy")]),
    Row("row-169 in one chunk", "R", [b"BDAT 18 LAST\r\nRSET\r\nRSET\r\nQUIT\r\n", NOOP], f"552 5.3.4 {OK}", SMALL),
    Row("row-169 in the last chunk", "R", [*two(b"x" * 6, b"QUIT\r\n"), NOOP], f"{OK} 552 5.3.4 {OK}", SMALL),
    Row(
        "row-169 before the last chunk",
        "R",
        [b"BDAT 18\r\nRSET\r\nRSET\r\nQUIT\r\n", b"BDAT 6 LAST\r\nQUIT\r\n", MAIL],
        "552 5.3.4 503 5.5.1 250 2.1.0",
        SMALL,
    ),
    Row(
        "row-170 in segments",
        "R",
        [b"BDAT 5", b" LAST\r", b"\nab", b"", b"cd", b"e"],
        OK,
        messages=[took(b"abcde")],
    ),
    Row("row-170 no end", "R", [b"BDAT 5 LAST\r\nabcd"], ""),
    Row("not offered", "R", [b"BDAT 5 LAST\r\n", NOOP], f"500 5.5.1 {OK}", NO_CHUNKS),
]


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize("each", named(CHUNK_ROWS))
def test_chunks_are_answered_as_rfc_3030_demands(each: Row, *, strict: bool) -> None:
    """Chunks are counted and never searched, and those that can't be taken are consumed all the same."""
    check(each, strict=strict)


def test_row_167_behind_a_refused_chunk_nothing_is_taken() -> None:
    """Of three pipelined chunks the second is refused: the first was taken, and no message comes of it."""
    session = greeted()
    pump_all(session, [EHLO, MAIL, RCPT])
    session.receive_data(b"BDAT 3\r\nabcBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nRSET\r\n" + MAIL)
    answers = iter([None, Reply(452, "Full", "4.3.1")])
    stages = []
    while (event := session.next_event()) is not NEED_DATA:
        stages.append((event.stage, event.reply.code))
        session.send(next(answers, None) or event.reply)
    assert codes(split_replies(session.data_to_send())) == f"{OK} 452 4.3.1 503 5.5.1 250 2.1.0"
    assert [stage for stage, _ in stages if stage == "CONTENT"] == []


# 10 LMTP


def deliver(
    settings: Settings, segments: Iterable[bytes], answers: Iterable[str | None] = ()
) -> tuple[list[str], list[tuple[list[str], bytes]]]:
    """Play segments, with these answers to content (None: the usual); return replies and what is stored for whom."""
    session = greeted(settings)
    chosen = iter(answers)
    replies: list[str] = []
    stored = []
    for segment in segments:
        session.receive_data(segment)
        while (event := session.next_event()) is not NEED_DATA:
            reply = event.reply
            if isinstance(event, Content):
                text = next(chosen, None)
                reply = Reply.parse(text) if text else reply
                if event.decide(reply):
                    paths = event.transaction.forward_paths
                    stored.append(([paths[index].mailbox for index in event.accepted], event.data))
            session.send(reply)
        replies += split_replies(session.data_to_send())
    return replies, stored


def recipients(*names: str) -> list[bytes]:
    """Make an RCPT for each."""
    return [f"RCPT TO:<{name}@example.org>\r\n".encode() for name in names]


LMTP_ROWS = [
    Row("row-171 EHLO", "C", [EHLO, LHLO], "500 5.5.1 250", LMTP),
    Row("row-171 HELO", "C", [b"HELO x\r\n", LHLO], "500 5.5.1 250", LMTP),
    Row("row-171 LHLO in SMTP", "C", [LHLO, EHLO], "500 5.5.1 250"),
    Row("row-171 LHLO without a name", "C", [b"LHLO\r\n", MAIL], "501 503 5.5.1", LMTP),
    Row("row-171 a second LHLO", "L", [RCPT, LHLO, RCPT], "250 2.1.5 250 503 5.5.1", LMTP),
    Row("row-173 no recipient", "L", [DATA, RCPT, DATA], "503 5.5.1 250 2.1.5 354", LMTP),
    Row("row-173 only refused ones", "L", [b"RCPT TO:<>\r\n", DATA], "501 5.1.3 503 5.5.1", LMTP),
    Row("row-173 no recipient of chunks", "L", [b"BDAT 6 LAST\r\nQUIT\r\n", NOOP], f"503 5.5.1 {OK}", LMTP),
]


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize("each", named(LMTP_ROWS))
def test_lmtp_has_its_own_commands(each: Row, *, strict: bool) -> None:
    """LHLO takes the place of HELO and EHLO, and nothing else."""
    check(each, strict=strict)


@pytest.mark.parametrize("strict", MODES)
def test_row_171_lmtp_offers_what_it_must(*, strict: bool) -> None:
    """PIPELINING and ENHANCEDSTATUSCODES are offered to LHLO, and the greeting says what is spoken."""
    session = Session(replace(LMTP, strict=strict))
    session.send(session.connect().reply)
    assert " LMTP " in session.data_to_send().decode()
    (reply,) = pump(session, LHLO)
    assert {"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"} <= set(keywords(reply))


def test_help_in_lmtp_names_what_there_is() -> None:
    """HELP lists LHLO, and neither HELO nor EHLO, which are answered with 500."""
    (reply,) = converse(b"HELP\r\n", settings=LMTP).replies
    words = set(reply.split())
    assert ("LHLO" in words, words & {"HELO", "EHLO"}) == (True, set())
    assert codes(converse(b"HELP LHLO\r\n", b"HELP EHLO\r\n", settings=LMTP).replies) == "214 2.0.0 501 5.5.4"


#: Ways to send "x" CRLF.
ENDS = [
    pytest.param([DATA, b"x\r\n.\r\n"], 1, id="DATA"),
    pytest.param([b"BDAT 3 LAST\r\nx\r\n"], 0, id="BDAT"),
    pytest.param([b"BDAT 3\r\nx\r\n", b"BDAT 0 LAST\r\n"], 1, id="BDAT, twice"),
]


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize(("content", "before"), ENDS)
@pytest.mark.parametrize("cut", [list, octets], ids=["whole", "octets"])
def test_row_172_each_accepted_recipient_has_a_reply(
    content: list[bytes], before: int, cut: Callable[[Sequence[bytes]], list[bytes]], *, strict: bool
) -> None:
    """Content is answered once for each RCPT that was accepted, in order; then the transaction is over."""
    client = [LHLO, MAIL, *recipients("bob", "eve", "bob"), b"RCPT TO:<>\r\n", *content, RCPT, MAIL]
    answers = ["250 2.1.5 bob", "452 4.2.2 eve", "250 2.1.5 bob again"]
    replies, stored = deliver(replace(LMTP, strict=strict), cut(client), answers)
    assert replies[6 + before : -2] == answers
    assert codes(replies[-2:]) == "503 5.5.1 250 2.1.0"
    assert stored == [(["bob@example.org", "bob@example.org"], b"x\r\n")]


@pytest.mark.parametrize(
    ("answers", "stored"),
    [
        pytest.param(["250 a", "250 b"], ["ada@example.org", "bob@example.org"], id="both"),
        pytest.param(["250 a", "550 b"], ["ada@example.org"], id="the first"),
        pytest.param(["550 a", "250 b"], ["bob@example.org"], id="the second"),
        pytest.param(["550 a", "450 b"], None, id="none"),
    ],
)
def test_row_172_a_message_is_stored_for_who_was_accepted(answers: list[str], stored: list[str] | None) -> None:
    """The last reply completes the message, if there was a positive one for anybody."""
    client = [LHLO, MAIL, *recipients("ada", "bob"), DATA, b"x\r\n.\r\n"]
    assert deliver(LMTP, client, answers)[1] == ([] if stored is None else [(stored, b"x\r\n")])


def test_row_172_too_much_content_is_refused_to_each_recipient() -> None:
    """Content above the limit has a 552 for each recipient, and the next command is in step."""
    client = [LHLO, MAIL, *recipients("ada", "bob"), DATA, b"QUIT\r\n" * 9 + DOT, NOOP]
    replies, stored = deliver(replace(LMTP, data_size_limit=10), client)
    assert (codes(replies[5:]), stored) == (f"552 5.3.4 552 5.3.4 {OK}", [])


def test_row_172_a_421_to_one_recipient_ends_the_session() -> None:
    """Behind a 421 no other recipient is answered, and nothing is stored."""
    client = [LHLO, MAIL, *recipients("ada", "bob"), DATA, b"x\r\n.\r\n", NOOP]
    replies, stored = deliver(LMTP, client, ["421 4.3.2 Goodbye"])
    assert (replies[5:], stored) == (["421 4.3.2 Goodbye"], [])


def test_in_smtp_content_has_one_reply() -> None:
    """Without LMTP, two recipients share the answer to their message."""
    client = [EHLO, MAIL, *recipients("ada", "bob"), DATA, b"x\r\n.\r\n"]
    replies, stored = deliver(EVERYTHING, client)
    assert codes(replies[5:]) == OK
    assert stored == [(["ada@example.org", "bob@example.org"], b"x\r\n")]


# Status codes and keywords.

ENHANCED = re.compile(r"([245])[0-9]{2}[ -]\1\.[0-9]{1,3}\.[0-9]{1,3}( .*)?")

#: A client that provokes all kinds of replies that rows 124 to 185 know.
ALL_KINDS = [
    *(b"STARTTLS x\r\n", AUTH, EHLO, b"AUTH\r\n", b"AUTH FOO\r\n", b"AUTH PLAIN\r\n", b"*\r\n", b"AUTH PLAIN\r\n"),
    *(b"A\r\n", b"AUTH LOGIN dGlt\r\n", b"x" * 13_000 + b"\r\n", b"AUTH CRAM-MD5 A\r\n", b"AUTH PLAIN %s\r\n" % WRONG),
    *(AUTH, AUTH, b"BDAT x\r\n", b"BDAT 1\r\nx", MAIL, b"MAIL FROM:<a@b> REQUIRETLS\r\n", RCPT, RCPT, b"BDAT 1\r\nx"),
    *(DATA, b"BDAT 1 LAST\r\nx", MAIL, RCPT, b"BDAT 3000 LAST\r\n" + b"x" * 3000, MAIL, b"VRFY ada\r\n", b"VRFY x\r\n"),
    *(b"EXPN staff\r\n", b"EXPN x\r\n", b"HELP\r\n", b"HELP AUTH\r\n", b"RSET\r\n", b"MAIL FROM:<a@b> RET=X\r\n"),
    *(b"MAIL FROM:<a@b> RET=FULL\r\n", b"RCPT TO:<c@d> NOTIFY=X\r\n", b"RCPT TO:<c@d> ORCPT=X\r\n", STARTTLS),
]


def reply_lines(settings: Settings) -> list[tuple[str, str]]:
    """Provoke all kinds of replies; return each line with the stage that it answers."""
    session = greeted(settings)
    session.receive_data(b"".join(ALL_KINDS))
    lines = []
    while (event := session.next_event()) is not NEED_DATA:
        session.send(event.reply)
        lines += [(event.stage, line) for line in session.data_to_send().decode("ascii").splitlines()]
    return lines


LIMITED = replace(EVERYTHING, data_size_limit=1000, max_recipients=1, max_messages=3)


def test_row_174_status_codes_on_every_line_but_those_that_have_none() -> None:
    """Each line of 2yz, 4yz and 5yz has a code of its class; replies to EHLO and challenges have none."""
    lines = reply_lines(LIMITED)
    assert {line[:3] for _, line in lines} >= {
        "220",
        "235",
        "334",
        "452",
        "451",
        "500",
        "501",
        "503",
        "504",
        "535",
        "552",
    }
    for stage, line in lines:
        assert bool(ENHANCED.fullmatch(line)) is not (stage == "EHLO" or line.startswith("3")), line


def test_row_175_no_status_codes_where_they_are_not_offered() -> None:
    """A server that hides ENHANCEDSTATUSCODES sends the same replies without them."""
    bare = [line for _, line in reply_lines(replace(LIMITED, extensions=UNENHANCED))]
    assert not [line for line in bare if ENHANCED.fullmatch(line)]
    whole = [line for stage, line in reply_lines(LIMITED) if stage != "EHLO"]
    stripped = [re.sub(r"(?<=^[245]..[ -])[245]\.[0-9]+\.[0-9]+ ", "", line) for line in whole]
    assert [line for line in bare if line not in stripped and not line.startswith("250")] == []


#: What a client may send because of a keyword; nothing where it allows nothing new.
USES = {
    "CHUNKING": b"BDAT 0\r\n",
    "BINARYMIME": b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n",
    "DSN": b"MAIL FROM:<a@b> RET=HDRS ENVID=x+2B\r\n",
    "STARTTLS": STARTTLS,
    "AUTH": b"AUTH PLAIN\r\n",
    "LIMITS": MAIL,
    "EXPN": b"EXPN staff\r\n",
    "REQUIRETLS": b"MAIL FROM:<a@b> REQUIRETLS\r\n",
    "HELP": b"HELP\r\n",
    "SIZE": b"MAIL FROM:<a@b> SIZE=1\r\n",
    "8BITMIME": b"MAIL FROM:<a@b> BODY=8BITMIME\r\n",
    "SMTPUTF8": "MAIL FROM:<jos\u00e9@b> SMTPUTF8\r\n".encode(),
    "PIPELINING": MAIL + RCPT,
    "ENHANCEDSTATUSCODES": NOOP,
}


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize("keyword", sorted(EVERYTHING.keywords))
def test_row_176_what_is_offered_is_served(keyword: str, *, strict: bool) -> None:
    """Where a keyword is listed, with or without TLS, what it allows is never unknown or not implemented."""
    settings = replace(EVERYTHING, strict=strict)
    replies, secured = converse_tls([EHLO, STARTTLS], [EHLO], settings)
    listings = [keywords(replies[0]), keywords(secured[0])]
    assert any(keyword in listed for listed in listings)
    for secure, listed in enumerate(listings):
        if keyword in listed:
            session = greeted(settings)
            if secure:
                session.tls_established()
            pump(session, EHLO)
            answered = pump(session, USES[keyword])
            assert answered
            assert {reply[:1] for reply in answered} <= {"2", "3"} or codes(answered) == "503 5.5.1"


def test_row_178_a_session_that_is_ended_takes_nothing_more() -> None:
    """A server that goes down says 421, also in the middle of content, of which nothing comes then."""
    session = greeted()
    pump_all(session, [EHLO, MAIL, RCPT, DATA, b"half a mess"])
    octets_sent = session.end(Reply(421, "Going down", "4.3.2"))
    assert (octets_sent, session.state.closing) == (b"421 4.3.2 Going down\r\n", True)
    assert pump(session, b"age\r\n.\r\nNOOP\r\n") == []


LIMIT_ROWS = [
    Row("row-179 off", "E", [b"FOO\r\n"] * 30, " ".join(["500 5.5.1"] * 30)),
    Row(
        "row-179 too many errors",
        "E",
        [b"FOO\r\n", NOOP, b"\r\n", RCPT, NOOP, NOOP],
        f"500 5.5.1 {OK} 500 5.5.2 503 5.5.1 421 4.7.0",
        replace(EVERYTHING, max_errors=3),
        closes=True,
    ),
    Row(
        "row-179 QUIT after too many errors",
        "E",
        [b"FOO\r\n", b"QUIT\r\n"],
        "500 5.5.1 421 4.7.0",
        replace(EVERYTHING, max_errors=1),
        closes=True,
    ),
    Row(
        "row-179 too many commands",
        "E",
        [NOOP, NOOP, NOOP, NOOP],
        f"{OK} {OK} 421 4.7.0",
        replace(EVERYTHING, max_commands=3),
        closes=True,
    ),
    Row("row-184 XCLIENT", "E", [b"XCLIENT ADDR=1.2.3.4 NAME=x\r\n", NOOP], f"500 5.5.1 {OK}"),
    Row("row-184 XCLIENT first", "C", [b"XCLIENT ADDR=1.2.3.4\r\n", EHLO], "500 5.5.1 250"),
    Row(
        "row-185 RCPTMAX",
        "M",
        [*recipients("ada", "bob", "eve"), DATA, DOT],
        f"250 2.1.5 250 2.1.5 452 4.5.3 354 {OK}",
        replace(EVERYTHING, max_recipients=2),
        messages=[took(b"", "ada@example.org", "bob@example.org")],
    ),
    Row(
        "row-185 MAILMAX",
        "R",
        [DATA, DOT, MAIL, b"RSET\r\n", MAIL, NOOP],
        f"354 {OK} 250 2.1.0 {OK} 451 4.5.3 {OK}",
        replace(EVERYTHING, max_messages=2),
        messages=[took(b"")],
    ),
    Row("row-186 no trace line is added", "R", [DATA, b"a: b\r\n.\r\n"], f"354 {OK}", messages=[took(b"a: b\r\n")]),
]


@pytest.mark.parametrize("strict", MODES)
@pytest.mark.parametrize("each", named(LIMIT_ROWS))
def test_limits_are_enforced(each: Row, *, strict: bool) -> None:
    """What is limited is answered with 4yz; without limits nothing is."""
    check(each, strict=strict)


@pytest.mark.parametrize(
    ("messages", "recipients_", "listed"),
    [(2, 3, "MAILMAX=2 RCPTMAX=3"), (0, 3, "RCPTMAX=3"), (2, 0, "MAILMAX=2")],
)
def test_row_185_limits_are_advertised(messages: int, recipients_: int, listed: str) -> None:
    """EHLO tells the limits that there are."""
    (reply,) = pump(greeted(replace(EVERYTHING, max_messages=messages, max_recipients=recipients_)), EHLO)
    assert keywords(reply)["LIMITS"] == listed


def test_row_182_two_sessions_have_nothing_in_common() -> None:
    """Interleaved sessions with AUTH, chunks and TLS come to what each would come to alone."""
    clients = [
        [EHLO, b"AUTH LOGIN\r\n", b"dGlt\r\n", b"eA==\r\n", MAIL, RCPT, b"BDAT 4\r\nab", b"cd", b"BDAT 0 LAST\r\n"],
        [EHLO, MAIL, RCPT, b"BDAT 2 LAST\r\n..", AUTH, MAIL, b"FOO\r\n", b"BDAT 1\r\nx", b"QUIT\r\n"],
    ]
    sessions = [greeted(), greeted()]
    replies: list[list[str]] = [[], []]
    for turn in zip(*clients, strict=True):
        for session, told, segment in zip(sessions, replies, turn, strict=True):
            told.extend(pump(session, segment))
    assert replies == [converse(*client, settings=EVERYTHING).replies for client in clients]


# Whatever comes, to a server that has all there is.

MAILS = st.sampled_from(
    [
        *(MAIL, MAIL, MAIL, b"MAIL FROM:<>\r\n", b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n"),
        *(b"MAIL FROM:<a@b> REQUIRETLS AUTH=<>\r\n", b"MAIL FROM:<a@b> RET=FULL ENVID=a+2Bb\r\n"),
        *(b"MAIL FROM:<a@b> AUTH=+\r\n", b"MAIL FROM:<a@b> ENVID=+zz RET\r\n", b"MAIL FROM:<a@b> SIZE=3\r\n"),
    ]
)
RCPTS = st.sampled_from(
    [
        *(RCPT, RCPT, RCPT, b"RCPT TO:<a@b> NOTIFY=NEVER\r\n", b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY\r\n"),
        *(b"RCPT TO:<a@b> ORCPT=rfc822;a+40b\r\n", b"RCPT TO:<a@b> ORCPT=;\r\n", b"RCPT TO:<>\r\n"),
    ]
)
OTHERS = st.sampled_from(
    [
        *(EHLO, EHLO, LHLO, LHLO, b"HELO x\r\n", DATA, DOT, b"x\r\n.\r\n", b"RSET\r\n", NOOP, b"NOOP\n", b"QUIT\r\n"),
        *(b"VRFY ada\r\n", b"VRFY \xc3\xa9 SMTPUTF8\r\n", b"EXPN staff\r\n", b"HELP\r\n", b"HELP AUTH\r\n", b"\r\n"),
        *(b"XCLIENT ADDR=x\r\n", b"FOO\r\n", b"STARTTLS x\r\n", b"x" * 600 + b"\r\n", b"\xff\r\n", b"\0\r\n"),
    ]
)
RESPONSES = st.sampled_from(
    [
        *(b"=", b"*", b"", b64(b"tim"), b64(b"tanstaaf"), RIGHT, WRONG, b64(b"n,,n=tim,r=abc"), b64(b"p=x,,n=a,r=b")),
        *(b64(b"user=tim\x01auth=Bearer x\x01\x01"), b64(b"n,a=tim,\x01auth=Bearer x\x01\x01"), b64(b"\x01"), b"A"),
        *(b64(b"c=biws,r=abc,p=AAAA"), b64(b"tim " + b"0" * 32), b"A" * 600, b"A" * 12_290, b"\xff", "\u0131".encode()),
    ]
) | st.binary(max_size=12).map(b64)
NAMES = st.sampled_from([name.encode() for name in MECHANISMS] + [b"plain", b"FOO", b"", b"PLA\xc4\xb1N"])


@st.composite
def auths(draw: st.DrawFn) -> bytes:
    """Draw an AUTH and what may be said in its exchange."""
    lines = [b"AUTH " + draw(NAMES) + draw(st.sampled_from([b"", b" "])) + draw(st.just(b"") | RESPONSES)]
    return b"".join(line + b"\r\n" for line in lines + draw(st.lists(RESPONSES, max_size=3)))


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """Draw a BDAT and octets behind it: mostly as many as it says."""
    data = draw(st.binary(max_size=12) | st.sampled_from([b"a\r\n.\r\n", b".\r\n", b"QUIT\r\n", b"x" * 40]))
    said = draw(st.sampled_from([len(data)] * 6 + [0, 1, 70, 10**20 - 1]))
    return b"BDAT %d%s\r\n%s" % (said, draw(st.sampled_from([b"", b" LAST", b" last", b" FOO", b"\xc2\xb9"])), data)


TRANSACTIONS = st.tuples(MAILS, RCPTS, RCPTS, chunks() | st.sampled_from([DATA + b"..\r\n.\r\n", DATA + DOT])).map(
    b"".join
)
PIECES = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"AUTH ", b"BDAT 3", b"*", b"\0"]) | st.binary(max_size=6)
WORDS = MAILS | RCPTS | OTHERS | auths() | chunks() | TRANSACTIONS | PIECES
CLEAR_STREAMS = st.lists(WORDS, max_size=20).map(b"".join)
STREAMS = st.lists(WORDS | st.just(STARTTLS), max_size=20).map(b"".join)
WAYS = st.sampled_from([b"", EHLO, LHLO, EHLO + AUTH, EHLO + MAIL + RCPT, LHLO + MAIL + RCPT + RCPT])
CUTS = st.lists(st.integers(min_value=0, max_value=1500), max_size=12)
#: The size of the buffer for large content, which is larger than what may be the beginning of an end; 0: none.
SCRATCH = st.sampled_from([0, 5, 6, 9, 100])
#: By name, so that Hypothesis's reports are short.
PATIENT_SETTINGS = {
    "everything": EVERYTHING,
    "LMTP": LMTP,
    "anybody": ANYBODY,
    "secure": replace(PLAINTEXT_NEEDS_TLS, require_tls=True, require_auth=True),
    "limited": replace(EVERYTHING, max_errors=4, max_commands=12, max_messages=1, max_recipients=1, data_size_limit=20),
    "limited LMTP": replace(LMTP, max_recipients=1, data_size_limit=20, require_auth=True),
    "UNENHANCED": replace(EVERYTHING, extensions=UNENHANCED),
}
#: To a strict server it matters what comes in one segment: whether the client has waited.
ALL_SETTINGS = PATIENT_SETTINGS | {
    f"strict {name}": replace(settings, strict=True) for name, settings in PATIENT_SETTINGS.items()
}
ANSWERS = st.lists(
    st.sampled_from([None, None, *(Reply(code, "Because") for code in (220, 235, 250, 334, 354, 421, 450, 550))]),
    max_size=15,
)


@dataclass
class Driver:
    """Drives a session as a server does, with these answers first (None: the usual one)."""

    settings: Settings
    answers: Iterable[Reply | None] = ()
    #: The size of the buffer for large content; 0: there is none.
    scratch: int = 0
    replies: list[tuple[str, bytes]] = field(default_factory=list)
    messages: list[tuple[str, list[str], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Greet."""
        self.session = Session(self.settings)
        self._chosen = iter(self.answers)
        self._settle(self.session.connect())

    def _settle(self, event: Event) -> None:
        reply = next(self._chosen, None) or event.reply
        assert event.said is not None
        if isinstance(event, Content) and event.decide(reply):
            paths = event.transaction.forward_paths
            accepted = [paths[index].mailbox for index in event.accepted]
            self.messages.append((event.transaction.reverse_path.mailbox, accepted, event.data))
        self.session.send(reply)
        self.replies.append((event.stage, self.session.data_to_send()))

    def _advance(self) -> None:
        session = self.session
        while (event := session.next_event()) is not NEED_DATA:
            self._settle(event)
        if session.state.starting_tls:
            session.tls_established()

    def take(self, segment: bytes) -> None:
        """Give the session a segment: into its buffer, wherever it wants one."""
        while self.scratch and segment and self.session.wants_buffer:
            with self.session.get_buffer(bytearray(self.scratch)) as buffer:
                size = min(len(buffer), len(segment))
                assert size
                buffer[:size] = segment[:size]
            self.session.buffer_updated(size)
            segment = segment[size:]
            self._advance()
        self.session.receive_data(segment)
        self._advance()

    def take_all(self, segments: Iterable[bytes]) -> Driver:
        """Give the session segments one after the other."""
        for segment in segments:
            self.take(segment)
        return self

    @property
    def outcome(self) -> tuple[list[tuple[str, bytes]], list[tuple[str, list[str], bytes]]]:
        """What came of it, but for the nonces in challenges."""
        replies = [(stage, b"334" if reply.startswith(b"334") else reply) for stage, reply in self.replies]
        return replies, self.messages


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at these positions."""
    return [stream[start:end] for start, end in pairwise([0, *sorted(cuts), len(stream)])]


def assert_well_formed(stage: str, reply: bytes, *, enhanced: bool) -> None:
    """Fail if this is not one reply as RFC 5321 4.2, RFC 2034 4 and RFC 4954 4 want it."""
    assert reply.endswith(b"\r\n")
    lines = reply.removesuffix(b"\r\n").split(b"\r\n")
    code = lines[0][:3]
    if code == b"334":
        assert len(lines) == 1
        assert base64.b64encode(base64.b64decode(reply[4:-2], validate=True)) == reply[4:-2]
        return
    for line in lines:
        assert re.fullmatch(rb"[2-5][0-9]{2}[ -][\t -~]*", line)
        assert len(line) + 2 <= 512
        assert line[:3] == code
        assert (line[3:4] == b" ") is (line is lines[-1])
        if stage not in {"CONNECT", "EHLO", "HELO", "LHLO"}:
            has_one = re.match(rb"([245])[0-9]{2}[ -]\1\.[0-9]{1,3}\.[0-9]{1,3}( |$)", line) is not None
            assert has_one is (enhanced and code[:1] != b"3")


@given(name=st.sampled_from(list(ALL_SETTINGS)), way=WAYS, stream=STREAMS, cuts=CUTS)
@hypothesis_settings(deadline=None, max_examples=300)
def test_every_reply_is_well_formed(name: str, way: bytes, stream: bytes, cuts: list[int]) -> None:
    """Any octets are answered, with replies that follow the grammar and carry status codes where they must."""
    # A session does not know its EHLO for LHLO: what LMTP answers to EHLO is an unknown command.
    settings = ALL_SETTINGS[name]
    enhanced = "ENHANCEDSTATUSCODES" in settings.keywords
    unknown = {"EHLO", "HELO"} if settings.lmtp else {"LHLO"}
    for stage, reply in Driver(settings).take_all(chunked(way + stream, cuts)).replies:
        assert_well_formed("FOO" if stage in unknown else stage, reply, enhanced=enhanced)


@given(name=st.sampled_from(list(PATIENT_SETTINGS)), way=WAYS, stream=CLEAR_STREAMS, cuts=CUTS, scratch=SCRATCH)
@hypothesis_settings(deadline=None, max_examples=300)
def test_what_comes_does_not_depend_on_how_it_is_cut(
    name: str, way: bytes, stream: bytes, cuts: list[int], scratch: int
) -> None:
    """In any pieces, past the input or not, octets lead to the replies and messages that they lead to in one."""
    assume(b"STARTTLS\r" not in stream.upper())  # what stands behind it counts in the next segment only
    settings = PATIENT_SETTINGS[name]
    whole = Driver(settings).take_all([way + stream]).outcome
    assert Driver(settings, scratch=scratch).take_all(chunked(way + stream, cuts)).outcome == whole


@given(name=st.sampled_from(list(ALL_SETTINGS)), way=WAYS, stream=STREAMS, answers=ANSWERS, scratch=SCRATCH)
@hypothesis_settings(deadline=None, max_examples=300)
def test_no_answer_confuses_a_session(
    name: str, way: bytes, stream: bytes, answers: list[Reply | None], scratch: int
) -> None:
    """Whatever comes and whatever is answered to it, the session goes on, and sends what it was told to."""
    driver = Driver(ALL_SETTINGS[name], answers, scratch)
    driver.take_all((way + stream).splitlines(keepends=True))
    for (stage, reply), chosen in zip(driver.replies, answers, strict=False):
        assert chosen is None or reply.startswith(b"%d" % chosen.code), stage
