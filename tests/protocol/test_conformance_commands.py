"""The conformance checklist, row by row: greeting and session (1 to 18), command lines (19 to 39), MAIL (40 to 73).

A row's name begins with its number. Each is played to a patient server and to a strict one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import FULL, STRICT, Dialogue, converse, split_replies

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.auth import AUTH
from pytest_smtpd.protocol.directory import EXPN
from pytest_smtpd.protocol.events import Event
from pytest_smtpd.protocol.lints import Lint
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.starttls import REQUIRETLS, STARTTLS
from pytest_smtpd.protocol.state import Settings, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_smtpd.protocol.state import Extension

EHLO = "EHLO client.example"
MAIL = "MAIL FROM:<a@b.example>"
RCPT = "RCPT TO:<c@d.example>"

#: What a client says to come into each state: C just connected, H after HELO, E after EHLO, M after MAIL, R after RCPT.
STATES = {"C": (), "H": ("HELO client.example",), "E": (EHLO,), "M": (EHLO, MAIL), "R": (EHLO, MAIL, RCPT)}

#: The extensions that every server can offer, in the order in which EHLO lists them.
KEYWORDS = (
    *("SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES"),
    *("CHUNKING", "BINARYMIME", "DSN", "HELP"),
)
#: What RFC 5321 and the extensions that are as old as it are about.
BASIC = ("SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "HELP")

ENHANCED = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}( |\r)")


def offering(*keywords: str, strict: bool = False, data_size_limit: int = 33_554_432) -> Settings:
    """Return the settings of a server that offers these extensions and no others."""
    known = (*extensions.ALL, *extensions.CONFIGURED)
    offered = tuple(extension for extension in known if extension.keyword in keywords)
    return Settings(hostname="mail.example", extensions=offered, strict=strict, data_size_limit=data_size_limit)


#: Servers that offer what has to be configured, or demand it.
WITH_AUTH = replace(FULL, extensions=(*extensions.ALL, AUTH), auth_mechanisms=("PLAIN",))
WITH_TLS = replace(FULL, extensions=(*extensions.ALL, STARTTLS, REQUIRETLS))
AUTH_REQUIRED = replace(WITH_AUTH, require_auth=True)
TLS_REQUIRED = replace(WITH_TLS, require_tls=True)
BOTH_REQUIRED = replace(
    AUTH_REQUIRED, extensions=(*extensions.ALL, STARTTLS, AUTH), require_tls=True, auth_without_tls=False
)
#: A server that knows users, one of whom has an address beyond ASCII, and mailing lists.
WITH_DIRECTORY = replace(
    FULL,
    extensions=(*extensions.ALL, EXPN),
    directory={
        "bob": "bob@example.org",
        "jos\u00e9": "jos\u00e9@example.org",
        "pepe": "jos\u00e9@example.org",
        "staff": ("bob@example.org", "jos\u00e9@example.org"),
    },
)


def but(*hidden: str, strict: bool = False) -> Settings:
    """Return the settings of a server that hides these extensions."""
    return offering(*(extension.keyword for extension in extensions.without(hidden)), strict=strict)


def line(command: str | bytes) -> bytes:
    """Return a command as it is sent; octets are sent as they are."""
    return command if isinstance(command, bytes) else command.encode() + b"\r\n"


def say(
    state: str, *commands: str | bytes, settings: Settings = FULL, answers: Mapping[str, Reply] | None = None
) -> Dialogue:
    """Say these commands, one segment each, in that state; return the dialogue without what led there."""
    prefix = STATES[state]
    dialogue = converse(*map(line, (*prefix, *commands)), settings=settings, answers=answers)
    assert all(reply.startswith("250") for reply in dialogue.replies[: len(prefix)])
    del dialogue.replies[: len(prefix)]
    return dialogue


def serve(session: Session, *segments: bytes) -> list[Event]:
    """Give a session these segments and answer its events as it suggests; return the events."""
    events: list[Event] = []
    for segment in segments:
        session.receive_data(segment)
        while (event := session.next_event()) is not NEED_DATA:
            session.send(event.reply)
            events.append(event)
    return events


def greeted(settings: Settings = FULL) -> Session:
    """Return a session whose client has been sent the greeting."""
    session = Session(settings)
    session.send(session.connect().reply)
    session.data_to_send()
    return session


def mail_line(octets: int, command: str = MAIL) -> str:
    """Return a command that is padded with trailing spaces to so many octets, CRLF included."""
    return command.ljust(octets - 2)


@dataclass(frozen=True)
class Row:
    """A row of the checklist: what is said in which state, and what comes of it.

    `codes` are the replies of a patient server and `lints` what it notes; `strict` the replies of a strict
    server where they differ. `settings` are those of a server that has what the row is about.
    """

    name: str
    state: str
    commands: Sequence[str | bytes]
    codes: str
    lints: Sequence[str] = ()
    strict: str | None = None
    answers: Mapping[str, Reply] = field(default_factory=dict)
    closes: bool = False
    settings: Settings = FULL


NO_SERVICE = {"CONNECT": Reply(554, "No SMTP service here")}
NO_MAIL = {"CONNECT": Reply(521, "mail.example does not accept mail")}

GREETING_AND_SESSION = [
    Row(
        "row-02 no service: 503 to all but QUIT",
        "C",
        [EHLO, "NOOP", MAIL, "FOO", "QUIT"],
        "503 503 5.5.1 503 5.5.1 503 5.5.1 221 2.0.0",
        answers=NO_SERVICE,
        closes=True,
    ),
    Row("row-02 no service: stays until QUIT", "C", ["NOOP"], "503 5.5.1", answers=NO_SERVICE),
    Row("row-03 no mail here", "C", [MAIL, "QUIT"], "503 5.5.1 221 2.0.0", answers=NO_MAIL, closes=True),
    Row("row-06 EHLO", "C", [EHLO], "250"),
    Row("row-07 EHLO without a name", "C", ["EHLO", MAIL], "501 503 5.5.1"),
    Row("row-07 HELO without a name", "C", ["HELO", MAIL], "501 503 5.5.1"),
    Row("row-08 HELO", "C", ["HELO client.example", MAIL], "250 250 2.1.0"),
    Row("row-09 EHLO with an IPv4 literal", "C", ["EHLO [127.0.0.1]"], "250"),
    Row("row-09 EHLO with an IPv6 literal", "C", ["EHLO [IPv6:::1]"], "250"),
    Row(
        "row-10 verbs and keywords in any case",
        "C",
        ["eHlO x", "mAiL fRoM:<a@b>", "rCpT tO:<a@b>"],
        "250 250 2.1.0 250 2.1.5",
    ),
    Row("row-11 trailing blanks behind a name", "C", ["EHLO x   "], "250"),
    Row("row-11 trailing blanks behind a path", "E", ["MAIL FROM:<a@b>   "], "250 2.1.0"),
    Row("row-11 trailing blanks behind a verb", "R", ["RSET  "], "250 2.0.0"),
    Row("row-11 a trailing tab behind a name", "C", ["EHLO x\t"], "250"),
    Row("row-11 trailing blanks and tabs behind a path", "E", ["MAIL FROM:<a@b> \t \t"], "250 2.1.0"),
    Row("row-11 trailing tabs behind a verb", "R", ["RSET\t\t"], "250 2.0.0"),
    Row("row-11 a tab is a trailing blank at the end alone", "E", ["MAIL FROM:<a@b>\tX", RCPT], "501 5.5.2 503 5.5.1"),
    Row("row-12 a second EHLO clears the transaction", "R", [EHLO, RCPT], "250 503 5.5.1"),
    Row("row-12 a second HELO clears the transaction", "R", ["HELO x", RCPT], "250 503 5.5.1"),
    Row("row-13 a failed EHLO changes nothing", "M", ["EHLO", RCPT], "501 250 2.1.5"),
    Row("row-14 MAIL before EHLO", "C", ["MAIL FROM:<a@b>"], "503 5.5.1"),
    Row("row-14 RCPT before EHLO", "C", [RCPT], "503 5.5.1"),
    Row("row-14 DATA before EHLO", "C", ["DATA"], "503 5.5.1"),
    Row("row-15 NOOP before EHLO", "C", ["NOOP"], "250 2.0.0"),
    Row("row-15 RSET before EHLO", "C", ["RSET"], "250 2.0.0"),
    Row("row-15 VRFY before EHLO", "C", ["VRFY bob"], "252 2.0.0"),
    Row("row-15 HELP before EHLO", "C", ["HELP"], "214 2.0.0"),
    Row("row-15 EXPN before EHLO", "C", ["EXPN staff"], "502 5.5.1"),
    Row("row-16 QUIT at once", "C", ["QUIT"], "221 2.0.0", closes=True),
    Row("row-16 QUIT in a transaction", "R", ["QUIT"], "221 2.0.0", closes=True),
    Row("row-17 commands after QUIT", "E", ["QUIT", "NOOP", MAIL], "221 2.0.0", closes=True),
    Row("row-17 anything after QUIT", "E", ["QUIT", b"\0\xff\n", "x" * 5000], "221 2.0.0", closes=True),
    Row(
        "row-18 a parameter after HELO",
        "H",
        ["MAIL FROM:<a@b> SIZE=1"],
        "250 2.1.0",
        lints=["parameter-without-ehlo"],
        strict="555 5.5.4",
    ),
]

UNKNOWN_AND_MALFORMED_COMMANDS = [
    Row(
        "row-19 a verb that begins with a digit",
        "M",
        ["1X", "1x a b", "421", RCPT],
        "500 5.5.1 500 5.5.1 500 5.5.1 250 2.1.5",
    ),
    Row("row-19 an unknown verb changes nothing", "M", ["FOO", "FOO BAR", RCPT], "500 5.5.1 500 5.5.1 250 2.1.5"),
    *(
        Row(f"row-20 {verb} is known and not implemented", "E", [f"{verb} FROM:<a@b>", "NOOP"], "502 5.5.1 250 2.0.0")
        for verb in ("TURN", "SEND", "SOML", "SAML", "EXPN")
    ),
    Row("row-21 an empty line", "E", ["", "NOOP"], "500 5.5.2 250 2.0.0"),
    Row("row-21 a line of spaces", "E", ["   ", "NOOP"], "500 5.5.2 250 2.0.0"),
    Row("row-21 a line without a verb", "E", ["<a@b>", "NOOP"], "500 5.5.1 250 2.0.0"),
    Row("row-31 DATA with an argument", "R", ["DATA x", "DATA"], "501 5.5.4 354"),
    Row("row-31 RSET with an argument", "R", ["RSET x", "DATA"], "501 5.5.4 354"),
    Row("row-31 QUIT with an argument", "R", ["QUIT x", "DATA"], "501 5.5.4 354"),
]

TOO_LONG_LINES: dict[str, str | bytes] = {
    "a line of 513 octets": "NOOP " + "x" * 506,
    "a line of 20,000 octets": "NOOP " + "x" * 20_000,
    "a long line without a verb": "<" * 5000,
    "a long line of spaces": " " * 5000,
    "a long line with control characters": "NOOP " + "\0" * 5000,
    "a long line that is not UTF-8": b"NOOP " + b"\xff" * 5000 + b"\r\n",
    "a long line full of CRs": "NOOP " + "\r" * 5000,
}

LINE_LENGTHS_AND_ENDS = [
    Row("row-22 a line of 512 octets", "E", [mail_line(512, "NOOP x")], "250 2.0.0"),
    Row("row-22 an argument that fills 512 octets", "E", ["NOOP " + "x" * 505], "250 2.0.0"),
    *(Row(f"row-23 {name}", "E", [command, "NOOP"], "500 5.5.2 250 2.0.0") for name, command in TOO_LONG_LINES.items()),
    Row("row-23 a long MAIL opens no transaction", "E", ["MAIL FROM:<a@b> " + "x" * 5000, RCPT], "500 5.5.2 503 5.5.1"),
    Row("row-25 a bare LF", "E", [b"NOOP\n"], "250 2.0.0", lints=["bare-lf-command"], strict=""),
    Row(
        "row-25 a bare LF that ends no line ends up inside of one",
        "E",
        [b"NOOP\n", "NOOP"],
        "250 2.0.0 250 2.0.0",
        lints=["bare-lf-command"],
        strict="501 5.5.2",
    ),
    Row("row-26 LF comes after CR", "E", [b"NOOP\r", b"\n"], "250 2.0.0"),
    Row("row-27 a line in three segments", "E", [b"NO", b"OP\r", b"\n"], "250 2.0.0"),
]

CHARACTERS_IN_COMMANDS = [
    *(
        Row(f"row-28 {name} in {where}", state, [command.format(octet), proof], codes)
        for name, octet in {"NUL": "\0", "BEL": "\a", "DEL": "\x7f"}.items()
        for where, state, command, proof, codes in [
            ("an EHLO name", "C", "EHLO x{}y", MAIL, "501 5.5.2 503 5.5.1"),
            ("a reverse-path", "E", "MAIL FROM:<a{}@b>", RCPT, "501 5.5.2 503 5.5.1"),
            ("a forward-path", "M", "RCPT TO:<a{}@b>", "DATA", "501 5.5.2 503 5.5.1"),
        ]
    ),
    Row(
        "row-30 an underscore in the name",
        "E",
        ["EHLO foo_bar", MAIL],
        "250 250 2.1.0",
        lints=["helo-name"],
        strict="501 250 2.1.0",
    ),
    Row("row-30 words behind the name", "E", ["HELO foo bar"], "250", lints=["helo-name"], strict="501"),
    Row("row-30 a broken literal for a name", "E", ["EHLO [127.1]"], "250", lints=["helo-name"], strict="501"),
]

COMMANDS_WITHOUT_EFFECT = [
    Row("row-32 NOOP with any text", "E", ["NOOP any text"], "250 2.0.0"),
    Row("row-33 NOOP in a transaction", "M", ["NOOP", RCPT], "250 2.0.0 250 2.1.5"),
    Row("row-33 VRFY in a transaction", "M", ["VRFY bob", RCPT], "252 2.0.0 250 2.1.5"),
    Row("row-33 HELP in a transaction", "M", ["HELP", RCPT], "214 2.0.0 250 2.1.5"),
    Row("row-33 EXPN in a transaction", "M", ["EXPN staff", RCPT], "502 5.5.1 250 2.1.5"),
    Row("row-34 HELP", "E", ["HELP"], "214 2.0.0"),
    Row("row-34 HELP MAIL", "E", ["HELP MAIL"], "214 2.0.0"),
    Row("row-34 HELP in any case", "E", ["help rset"], "214 2.0.0"),
    Row("row-34 HELP on what is no command", "E", ["HELP ME"], "501 5.5.4"),
    Row("row-34 HELP on what is not implemented", "E", ["HELP EXPN"], "501 5.5.4"),
    Row("row-35 VRFY", "E", ["VRFY bob"], "252 2.0.0"),
    Row("row-36 VRFY without an argument", "E", ["VRFY"], "501 5.5.4"),
    Row("row-37 EXPN", "E", ["EXPN staff"], "502 5.5.1"),
    *(
        Row(name, "E", [command, "NOOP"], f"{code} 250 2.0.0", settings=WITH_DIRECTORY)
        for name, command, code in [
            ("row-35 VRFY of a user", "VRFY bob", "250 2.1.5"),
            ("row-35 VRFY of nobody", "VRFY eve", "550 5.1.1"),
            ("row-37 EXPN of a list", "EXPN staff SMTPUTF8", "250 2.1.5"),
            ("row-38 VRFY with SMTPUTF8", "VRFY jos\u00e9 SMTPUTF8", "250 2.1.5"),
            ("row-38 VRFY without SMTPUTF8", "VRFY jos\u00e9", "252 2.6.8"),
            ("row-38 VRFY in ASCII of what is not", "VRFY pepe", "252 2.6.8"),
            ("row-38 VRFY in ASCII with SMTPUTF8", "VRFY bob SMTPUTF8", "250 2.1.5"),
            ("row-38 VRFY of nobody with SMTPUTF8", "VRFY \u00e9ve SMTPUTF8", "550 5.1.1"),
            ("row-38 EXPN without SMTPUTF8", "EXPN staff", "252 2.6.8"),
        ]
    ),
    Row("row-38 VRFY with SMTPUTF8 where nobody is known", "E", ["VRFY jos\u00e9 SMTPUTF8"], "252 2.0.0"),
]

OPENING_A_TRANSACTION = [
    Row("row-40 MAIL", "E", ["MAIL FROM:<a@b>", RCPT], "250 2.1.0 250 2.1.5"),
    Row("row-41 the null reverse-path", "E", ["MAIL FROM:<>", RCPT], "250 2.1.0 250 2.1.5"),
    Row(
        "row-42 a space before the path",
        "E",
        ["MAIL FROM: <a@b>"],
        "250 2.1.0",
        lints=["space-before-path"],
        strict="501 5.5.4",
    ),
    Row("row-43 no brackets", "E", ["MAIL FROM:a@b"], "250 2.1.0", lints=["no-brackets"], strict="501 5.5.4"),
    *(
        Row(f"row-44 {name}", "E", [command, RCPT, MAIL], "501 5.5.4 503 5.5.1 250 2.1.0")
        for name, command in {
            "MAIL alone": "MAIL",
            "no colon": "MAIL FROM",
            "no path": "MAIL FROM:",
            "a space and no path": "MAIL FROM: ",
            "the keyword of RCPT": "MAIL TO:<a@b>",
            "no closing bracket": "MAIL FROM:<a@b",
            "no space before the parameter": "MAIL FROM:<a@b>SIZE=1",
        }.items()
    ),
    Row("row-45 a second MAIL", "M", ["MAIL FROM:<x@y>", RCPT], "503 5.5.1 250 2.1.5"),
    Row("row-46 an unknown parameter", "E", ["MAIL FROM:<a@b> FOO=1", RCPT], "555 5.5.4 503 5.5.1"),
    Row("row-46 an unknown parameter without a value", "E", ["MAIL FROM:<a@b> FOO", RCPT], "555 5.5.4 503 5.5.1"),
    Row(
        "row-47 a parameter that is impossible now",
        "E",
        ["MAIL FROM:<a@b> SIZE=1", RCPT],
        "455 4.5.1 503 5.5.1",
        answers={"MAIL": Reply(455, "Server unable to accommodate parameters", "4.5.1")},
    ),
    Row(
        "row-51 no space now",
        "E",
        ["MAIL FROM:<a@b> SIZE=1", RCPT],
        "452 4.3.1 503 5.5.1",
        answers={"MAIL": Reply(452, "Insufficient system storage", "4.3.1")},
    ),
]

MAIL_PARAMETERS = [
    *(
        Row(f"row-48 {name}", "E", [f"MAIL FROM:<a@b> {parameter}", RCPT], "501 5.5.4 503 5.5.1")
        for name, parameter in {
            "SIZE= without a number": "SIZE=",
            "SIZE without a value": "SIZE",
            "SIZE with letters": "SIZE=abc",
            "SIZE with 21 digits": "SIZE=" + "0" * 20 + "1",
            "a negative SIZE": "SIZE=-1",
            "SIZE with other than ASCII digits": "SIZE=\u0661",
        }.items()
    ),
    Row("row-48 SIZE with 20 digits", "E", ["MAIL FROM:<a@b> SIZE=" + "0" * 19 + "1"], "250 2.1.0"),
    Row("row-49 two SIZEs", "E", ["MAIL FROM:<a@b> SIZE=1 SIZE=2", RCPT], "501 5.5.4 503 5.5.1"),
    Row("row-49 one SIZE twice", "E", ["MAIL FROM:<a@b> SIZE=1 SIZE=1", RCPT], "501 5.5.4 503 5.5.1"),
    Row(
        "row-49 SMTPUTF8 twice",
        "E",
        ["MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8 BODY=8BITMIME"],
        "250 2.1.0",
        lints=["duplicate-parameter"],
        strict="501 5.5.4",
    ),
    Row("row-50 SIZE above the limit", "E", ["MAIL FROM:<a@b> SIZE=33554433", RCPT], "552 5.3.4 503 5.5.1"),
    Row("row-50 SIZE at the limit", "E", ["MAIL FROM:<a@b> SIZE=33554432"], "250 2.1.0"),
    Row("row-52 SIZE=0", "E", ["MAIL FROM:<a@b> SIZE=0"], "250 2.1.0"),
    Row("row-53 parameters in lower case", "E", ["MAIL FROM:<a@b> size=12 body=8bitmime smtputf8"], "250 2.1.0"),
    Row("row-54 BODY=7BIT", "E", ["MAIL FROM:<a@b> BODY=7BIT"], "250 2.1.0"),
    Row("row-54 BODY=8BITMIME", "E", ["MAIL FROM:<a@b> BODY=8BITMIME"], "250 2.1.0"),
    Row("row-55 BODY=FOO", "E", ["MAIL FROM:<a@b> BODY=FOO", RCPT], "501 5.5.4 503 5.5.1"),
    Row("row-55 BODY without a value", "E", ["MAIL FROM:<a@b> BODY", RCPT], "501 5.5.4 503 5.5.1"),
    Row("row-55 BODY with a dotless i", "E", ["MAIL FROM:<a@b> BODY=8B\u0131TMIME", RCPT], "501 5.5.4 503 5.5.1"),
    Row("row-56 SMTPUTF8", "E", ["MAIL FROM:<a@b> SMTPUTF8"], "250 2.1.0"),
    Row("row-56 SMTPUTF8 with a value", "E", ["MAIL FROM:<a@b> SMTPUTF8=1", RCPT], "501 5.5.4 503 5.5.1"),
    Row(
        "row-57 a non-ASCII address without SMTPUTF8",
        "E",
        ["MAIL FROM:<jos\u00e9@x>"],
        "250 2.1.0",
        lints=["raw-utf8-address"],
        strict="550 5.6.7",
    ),
    Row("row-57 a non-ASCII address with SMTPUTF8", "E", ["MAIL FROM:<jos\u00e9@x> SMTPUTF8"], "250 2.1.0"),
    Row(
        "row-58 an address that is not UTF-8",
        "E",
        [b"MAIL FROM:<jos\xe9@x> SMTPUTF8\r\n", RCPT],
        "500 5.5.2 503 5.5.1",
    ),
]

NOT_REFUSED = "250 2.1.0 250 2.1.5"
REFUSED = "501 5.5.4 503 5.5.1"

PARAMETERS_OF_OTHER_EXTENSIONS = [
    *(
        Row(f"row-60 {name}", "E", [f"MAIL FROM:<a@b> {parameter}", RCPT], NOT_REFUSED, settings=WITH_AUTH)
        for name, parameter in {
            "AUTH of nobody": "AUTH=<>",
            "AUTH with an address": "AUTH=e+3Dmc2@x",
            "AUTH in lower case": "auth=a@b.example",
        }.items()
    ),
    *(
        Row(f"row-61 {name}", "E", [f"MAIL FROM:<a@b> {parameter}", RCPT], REFUSED, settings=WITH_AUTH)
        for name, parameter in {
            "AUTH with bad xtext": "AUTH=a+zz",
            "AUTH with xtext in lower case": "AUTH=a+2b",
            "AUTH with an open xtext": "AUTH=a+",
            "AUTH= without an address": "AUTH=",
            "AUTH without a value": "AUTH",
            "AUTH twice": "AUTH=<> AUTH=<>",
        }.items()
    ),
    *(
        Row(f"row-62 {name}", "E", [f"MAIL FROM:<a@b> {parameters}", RCPT], NOT_REFUSED)
        for name, parameters in {
            "RET and ENVID": "RET=FULL ENVID=x+2B",
            "RET for headers alone": "RET=HDRS",
            "RET in lower case": "ret=full",
            "ENVID of 100 characters": f"ENVID={'x' * 100}",
        }.items()
    ),
    *(
        Row(f"row-62 {name}", "E", [f"MAIL FROM:<a@b> {parameters}", RCPT], REFUSED)
        for name, parameters in {
            "a bad RET": "RET=FOO",
            "RET without a value": "RET",
            "ENVID of 101 characters": f"ENVID={'x' * 101}",
            "ENVID of 101 characters as they are sent": f"ENVID={'x' * 98}+2B",
            "ENVID with bad xtext": "ENVID=x+2b",
            "ENVID without a value": "ENVID",
            "RET twice": "RET=FULL RET=HDRS",
            "RET twice the same": "RET=FULL RET=FULL",
            "ENVID twice": "ENVID=x ENVID=x",
        }.items()
    ),
    Row(
        "row-63 REQUIRETLS without TLS",
        "E",
        ["MAIL FROM:<a@b> REQUIRETLS", RCPT],
        "530 5.7.10 503 5.5.1",
        settings=WITH_TLS,
    ),
    Row("row-63 REQUIRETLS with a value", "E", ["MAIL FROM:<a@b> REQUIRETLS=1", RCPT], REFUSED, settings=WITH_TLS),
    *(
        Row(f"row-64 {parameter}", "E", [f"MAIL FROM:<a@b> {parameter}", RCPT, "DATA"], f"{NOT_REFUSED} 503 5.5.1")
        for parameter in ("BODY=BINARYMIME", "body=binarymime", "BODY=BinaryMIME")
    ),
    Row(
        "row-64 behind the DATA that is refused",
        "E",
        ["MAIL FROM:<a@b> BODY=BINARYMIME", RCPT, "DATA", b"BDAT 1 LAST\r\n\0"],
        f"{NOT_REFUSED} 503 5.5.1 250 2.0.0",
    ),
]

WHAT_IS_REQUIRED_FIRST = [
    *(
        Row(
            f"row-72 {command or 'an empty line'} without AUTH",
            "E",
            [command, "NOOP"],
            "530 5.7.0 250 2.0.0",
            settings=AUTH_REQUIRED,
        )
        for command in (MAIL, "MAIL", RCPT, "DATA", "VRFY bob", "EXPN staff", "HELP", "FOO", "", "TURN", "STARTLS")
    ),
    Row(
        "row-72 BDAT without AUTH, in step",
        "E",
        [b"BDAT 6\r\nQUIT\r\n", "NOOP"],
        "530 5.7.0 250 2.0.0",
        settings=AUTH_REQUIRED,
    ),
    Row(
        "row-72 what may be said without AUTH",
        "C",
        [EHLO, "NOOP", "RSET", "HELO x", "EHLO x", "AUTH PLAIN AGEAYg==", MAIL],
        "250 250 2.0.0 250 2.0.0 250 250 235 2.7.0 250 2.1.0",
        settings=AUTH_REQUIRED,
    ),
    Row("row-72 QUIT without AUTH", "E", ["QUIT"], "221 2.0.0", settings=AUTH_REQUIRED, closes=True),
    Row(
        "row-72 AUTH that fails",
        "E",
        ["AUTH FOO", "AUTH PLAIN", "*", MAIL],
        "504 5.5.4 334 501 5.7.0 530 5.7.0",
        settings=AUTH_REQUIRED,
    ),
    *(
        Row(
            f"row-73 {command or 'an empty line'} without TLS",
            "E",
            [command, "NOOP"],
            "530 5.7.0 250 2.0.0",
            settings=TLS_REQUIRED,
        )
        for command in (MAIL, RCPT, "DATA", "RSET", "VRFY bob", "EXPN staff", "HELP", "FOO", "", "AUTH PLAIN")
    ),
    Row(
        "row-73 what may be said without TLS",
        "C",
        [EHLO, "NOOP", "STARTTLS"],
        "250 250 2.0.0 220 2.0.0",
        settings=TLS_REQUIRED,
    ),
    # RFC 2034 4: whatever it is, a reply to HELO has no enhanced status code.
    Row("row-73 HELO without TLS", "C", ["HELO x", MAIL], "530 530 5.7.0", settings=TLS_REQUIRED),
    Row("row-73 QUIT without TLS", "E", ["QUIT"], "221 2.0.0", settings=TLS_REQUIRED, closes=True),
    Row(
        "row-73 AUTH needs TLS where both are required",
        "E",
        ["AUTH PLAIN AGEAYg==", MAIL],
        "530 5.7.0 530 5.7.0",
        settings=BOTH_REQUIRED,
    ),
]

MAILBOXES = [
    Row("row-65 a source route", "E", ["MAIL FROM:<@a.example,@b.example:u@c.example>"], "250 2.1.0"),
    Row("row-66 a quoted space", "E", ['MAIL FROM:<"a b"@x>'], "250 2.1.0"),
    Row("row-66 a quoted at sign", "E", ['MAIL FROM:<"a@b"@x>'], "250 2.1.0"),
    Row("row-66 a quoted quote", "E", [r'MAIL FROM:<"a\"b"@x>'], "250 2.1.0"),
    Row("row-66 a quoted bracket", "E", ['MAIL FROM:<"a>b"@x> SIZE=1'], "250 2.1.0"),
    *(
        Row(f"row-67 {name}", "E", [f"MAIL FROM:<{mailbox}>"], "250 2.1.0", lints=["local-part"], strict="501 5.1.7")
        for name, mailbox in {"two dots": "a..b@x", "a dot first": ".a@x", "a dot last": "a.@x"}.items()
    ),
    Row("row-68 an IPv4 literal", "E", ["MAIL FROM:<u@[127.0.0.1]>"], "250 2.1.0"),
    Row("row-68 an IPv6 literal", "E", ["MAIL FROM:<u@[IPv6:2001:db8::1]>"], "250 2.1.0"),
    *(
        Row(f"row-69 {name} in {verb}", state, [f"{verb}:<u@{literal}>", proof], codes)
        for name, literal in {
            "no IPv4 address": "[300.1.1.1]",
            "no IPv6 address": "[IPv6:zz]",
            "an open literal": "[1.2.3",
        }.items()
        for verb, state, proof, codes in [
            ("MAIL FROM", "E", RCPT, "501 5.1.7 503 5.5.1"),
            ("RCPT TO", "M", "DATA", "501 5.1.3 503 5.5.1"),
        ]
    ),
]

LONGEST_DOMAIN = ".".join(["d" * 63] * 4)

LENGTHS_OF_PATHS = [
    Row("row-70 a local part of 64 octets", "E", [f"MAIL FROM:<{'l' * 64}@x>"], "250 2.1.0"),
    Row(
        "row-70 a local part of 65 octets",
        "E",
        [f"MAIL FROM:<{'l' * 65}@x>"],
        "250 2.1.0",
        lints=["path-too-long"],
        strict="501 5.1.7",
    ),
    Row("row-71 a path of 256 octets", "E", [f"MAIL FROM:<aa@{LONGEST_DOMAIN[4:]}>"], "250 2.1.0"),
    *(
        Row(
            f"row-71 {name}",
            "E",
            [f"MAIL FROM:<{path}>", RCPT],
            "250 2.1.0 250 2.1.5",
            lints=["path-too-long"],
            strict="501 5.1.7 503 5.5.1",
        )
        for name, path in {
            "a path of 257 octets": f"aaa@{LONGEST_DOMAIN[4:]}",
            "a domain of 256 octets": f"a@{LONGEST_DOMAIN}d",
            "a source route that makes it 257 octets": f"@{'r' * 50}.example:a@{'d' * 193}",
        }.items()
    ),
]

ROWS = [
    *GREETING_AND_SESSION,
    *UNKNOWN_AND_MALFORMED_COMMANDS,
    *LINE_LENGTHS_AND_ENDS,
    *CHARACTERS_IN_COMMANDS,
    *COMMANDS_WITHOUT_EFFECT,
    *OPENING_A_TRANSACTION,
    *MAIL_PARAMETERS,
    *PARAMETERS_OF_OTHER_EXTENSIONS,
    *WHAT_IS_REQUIRED_FIRST,
    *MAILBOXES,
    *LENGTHS_OF_PATHS,
]
each_row = pytest.mark.parametrize("row", ROWS, ids=attrgetter("name"))


@each_row
def test_a_patient_server_answers_and_notes_as_the_row_says(row: Row) -> None:
    """By default a session answers as the row says, and notes what the row calls a lint."""
    dialogue = say(row.state, *row.commands, settings=row.settings, answers=row.answers)
    assert (dialogue.codes, list(dialogue.lints), dialogue.closed) == (row.codes, list(row.lints), row.closes)


@each_row
def test_a_strict_server_refuses_what_a_patient_one_notes(row: Row) -> None:
    """A strict session refuses what the row calls a lint, and answers all else like a patient one."""
    dialogue = say(row.state, *row.commands, settings=replace(row.settings, strict=True), answers=row.answers)
    expected = row.codes if row.strict is None else row.strict
    assert (dialogue.codes, dialogue.lints, dialogue.closed) == (expected, [], row.closes)


def replies_to(*segments: bytes, settings: Settings = FULL) -> bytes:
    """Return all that a server sends in a session, from the greeting on."""
    session = Session(settings)
    session.send(session.connect().reply)
    serve(session, *segments)
    return session.data_to_send()


def check_reply_lines(octets: bytes, *, utf8: bool = False) -> None:
    """Check that these octets are replies and nothing else (RFC 5321 4.2.1)."""
    lines = octets.split(b"\r\n")
    assert lines.pop() == b""
    assert [line for line in lines if len(line) > 510] == []
    text = rb"[\t -~\x80-\xff]*" if utf8 else rb"[\t -~]*"
    assert [line for line in lines if not re.fullmatch(rb"[2-5][0-5][0-9][ -]" + text, line)] == []
    for reply in split_replies(octets):
        assert len({line[:3] for line in reply.splitlines()}) == 1
        assert [line[3] for line in reply.splitlines()][-1] == " "


@each_row
@pytest.mark.parametrize("strict", [False, True], ids=["patient", "strict"])
def test_row_39_each_reply_line_is_well_formed(row: Row, *, strict: bool) -> None:
    """Every reply line is a code, a space or hyphen, text and CRLF, in 512 octets, one code a reply.

    The text is ASCII unless the client allows UTF-8.
    """
    octets = replies_to(*map(line, (*STATES[row.state], *row.commands)), settings=replace(row.settings, strict=strict))
    check_reply_lines(octets, utf8=any(re.match("(VRFY|EXPN).* SMTPUTF8", str(command)) for command in row.commands))


@given(st.lists(st.sampled_from([b"EHLO x", b"MAIL FROM:<", b"> SIZE=", b"\r\n", b"\n", b"HELP "]) | st.binary()))
@example([b"VRFY jos\xc3\xa9 SMTPUTF8\r\n"])
@example([b"F" * 500 + b"\r\n"])
def test_row_39_whatever_is_sent_the_replies_are_well_formed(segments: list[bytes]) -> None:
    """Whatever octets come, the session raises nothing and sends nothing but well-formed replies."""
    check_reply_lines(replies_to(*segments))


# Rows that ask for more than codes.


def test_row_01_the_greeting() -> None:
    """The greeting is 220, the server's domain and ESMTP, and has no enhanced status code."""
    greeting = replies_to(settings=offering(*KEYWORDS))
    assert re.fullmatch(rb"220 mail\.example ESMTP [^\r\n]*\r\n", greeting)
    assert not ENHANCED.search(greeting)


def test_row_01_a_greeting_of_several_lines() -> None:
    """A greeting may have several lines, and still has no enhanced status codes."""
    session = Session(FULL)
    session.connect()
    session.send(Reply(220, "mail.example ESMTP\nwelcome"))
    assert session.data_to_send() == b"220-mail.example ESMTP\r\n220 welcome\r\n"
    assert say("E", "NOOP", answers={"CONNECT": Reply(220, "a\nb")}).codes == "250 2.0.0"


def test_row_05_an_early_talker_is_served_and_noted() -> None:
    """Who talks before the greeting is served, and the lint is with its message."""
    session = Session(FULL)
    greeting = session.connect()
    session.receive_data(line(EHLO))
    assert session.next_event() is NEED_DATA
    session.send(greeting.reply)
    serve(session, b"", line(MAIL), line(RCPT))
    assert session.state.transaction is not None
    assert list(session.state.transaction.lints) == [Lint.EARLY_TALKER]
    assert split_replies(session.data_to_send())[0].startswith("220 ")


def test_row_05_a_strict_server_refuses_an_early_talker() -> None:
    """A strict session answers who talks before the greeting with 554, and closes."""
    session = Session(STRICT)
    greeting = session.connect()
    session.receive_data(line(EHLO))
    session.send(greeting.reply)
    assert serve(session, b"", b"NOOP\r\n") == []
    # The row has an enhanced code, row 174 none in any greeting: both are taken.
    assert re.fullmatch(rb"554 (5\.5\.0 )?[^\r\n]*SMTP protocol synchronization\r\n", session.data_to_send())
    assert session.state.closing


def test_row_06_the_reply_to_ehlo() -> None:
    """EHLO is answered with the server's domain and a line for each extension that it offers."""
    reply = say("C", EHLO, settings=offering(*BASIC)).replies[0]
    assert reply.splitlines() == [
        "250-mail.example",
        "250-SIZE 33554432",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-PIPELINING",
        "250-ENHANCEDSTATUSCODES",
        "250 HELP",
    ]


def test_row_06_without_extensions() -> None:
    """A server that offers nothing answers EHLO with its domain alone."""
    assert say("C", EHLO, settings=Settings(hostname="mail.example")).replies == ["250 mail.example"]


def test_row_08_the_reply_to_helo() -> None:
    """HELO is answered with one line, the server's domain."""
    assert say("C", "HELO client.example", settings=offering(*KEYWORDS)).replies == ["250 mail.example"]


def test_row_08_no_extension_is_active_after_helo() -> None:
    """After HELO nobody may pipeline, not even who said EHLO before."""
    session = greeted()
    *_, first, _second = serve(session, line(EHLO), b"HELO x\r\n", b"RSET\r\nRSET\r\n")
    assert first.lints == (Lint.NOT_PIPELINING,)
    assert not session.state.esmtp


@pytest.mark.parametrize("state", STATES)
def test_row_17_what_is_pipelined_behind_quit_is_ignored(state: str) -> None:
    """In any state, nothing that comes in one segment with QUIT is answered after it."""
    dialogue = say(state, f"QUIT\r\nNOOP\r\n{MAIL}\r\nQUIT")
    assert dialogue.codes == "221 2.0.0"
    assert dialogue.closed


@pytest.mark.parametrize(
    ("keywords", "limit"),
    [
        pytest.param((), 512, id="row-24 no extension"),
        pytest.param(("SIZE",), 512 + 26, id="row-24 SIZE"),
        pytest.param(("8BITMIME",), 512 + 17, id="row-24 8BITMIME"),
        pytest.param(("8BITMIME", "SMTPUTF8"), 512 + 17 + 10, id="row-24 SMTPUTF8"),
        pytest.param(("DSN",), 512 + 107, id="row-24 DSN"),
        pytest.param(("AUTH",), 512 + 500, id="row-24 AUTH"),
        pytest.param(("REQUIRETLS",), 512 + 11, id="row-24 REQUIRETLS"),
        pytest.param(("CHUNKING", "PIPELINING", "HELP"), 512, id="row-24 those that add nothing"),
        pytest.param((*KEYWORDS, "AUTH"), 512 + 26 + 17 + 10 + 107 + 500, id="row-24 all of them"),
    ],
)
def test_row_24_extensions_lengthen_mail(keywords: Sequence[str], limit: int) -> None:
    """A MAIL line may be longer by what the offered extensions add, and not by an octet more."""
    settings = offering(*keywords)
    assert say("E", mail_line(limit), settings=settings).codes[:3] == "250"
    assert say("E", mail_line(limit + 1), "NOOP", settings=settings).replies[0].startswith("500 ")


@pytest.mark.parametrize(
    ("state", "command", "codes"),
    [
        pytest.param("M", RCPT, "250 2.1.5", id="row-24 RCPT"),
        pytest.param("C", EHLO, "250", id="row-24 EHLO"),
        pytest.param("R", "RSET", "250 2.0.0", id="row-24 RSET"),
    ],
)
def test_row_24_other_lines_stay_at_512_octets(state: str, command: str, codes: str) -> None:
    """What lengthens MAIL lengthens no other command line."""
    settings = offering(*BASIC, "REQUIRETLS")
    assert say(state, mail_line(512, command), settings=settings).codes == codes
    assert say(state, mail_line(513, command), settings=settings).codes == "500 5.5.2"


@pytest.mark.parametrize(
    ("state", "command"),
    [
        pytest.param("E", "J\u00d6RG", id="row-29 in a verb"),
        pytest.param("E", "NOOP J\u00f6rg", id="row-29 in an argument"),
        pytest.param("C", "EHLO j\u00f6rg.example", id="row-29 in a name"),
        pytest.param("E", "MAIL FROM:<j\u00f6rg@b>", id="row-29 in a reverse-path"),
        pytest.param("M", "RCPT TO:<j\u00f6rg@b>", id="row-29 in a forward-path"),
        pytest.param("E", b"NOOP \xff\r\n", id="row-29 not even UTF-8"),
    ],
)
def test_row_29_octets_above_127_without_smtputf8(state: str, command: str | bytes) -> None:
    """Where SMTPUTF8 is not offered, a command line with octets above 127 is refused, and the session goes on."""
    dialogue = say(state, command, "NOOP", settings=but("SMTPUTF8"))
    assert dialogue.codes == "500 5.5.2 250 2.0.0"


@pytest.mark.parametrize(
    ("utf8_commands", "offered", "codes"),
    [
        pytest.param(True, (), "250", id="row-29 read although SMTPUTF8 is not offered"),
        pytest.param(False, extensions.ALL, "500 5.5.2", id="row-29 not read although SMTPUTF8 is offered"),
    ],
)
def test_row_29_a_server_may_choose(*, utf8_commands: bool, offered: tuple[Extension, ...], codes: str) -> None:
    """Settings can say whether command lines beyond ASCII are read, whatever is offered."""
    settings = Settings(extensions=offered, utf8_commands=utf8_commands)
    assert say("E", "NOOP J\u00f6rg", settings=settings).codes == codes


def test_row_29_a_verb_is_ascii_even_with_smtputf8() -> None:
    """SMTPUTF8 lets addresses be more than ASCII, and no verb."""
    assert say("E", "J\u00d6RG", "NOOP J\u00f6rg").codes == "500 5.5.2 250 2.0.0"


def test_row_34_help_names_the_commands() -> None:
    """HELP lists every command that has a syntax, and none that is not implemented."""
    reply = say("E", "HELP", settings=offering(*BASIC)).replies[0]
    assert reply.endswith("Supported commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY")


@pytest.mark.parametrize(("keyword", "verb"), [("CHUNKING", "BDAT"), ("STARTTLS", "STARTTLS"), ("AUTH", "AUTH")])
def test_row_34_help_names_what_an_extension_brings(keyword: str, verb: str) -> None:
    """HELP lists the command of an extension where it is offered, and shows its syntax; otherwise it does not."""
    listed, syntax = say("E", "HELP", f"HELP {verb}", settings=offering(*BASIC, keyword)).replies
    assert verb in listed.split()
    assert syntax.startswith(f"214 2.0.0 Syntax: {verb}")
    listed, syntax = say("E", "HELP", f"HELP {verb}", settings=offering(*BASIC)).replies
    assert verb not in listed.split()
    assert syntax.startswith("501 5.5.4 ")


@pytest.mark.parametrize(
    ("state", "syntax"),
    [
        pytest.param("H", "MAIL FROM: <address>", id="row-34 after HELO"),
        pytest.param("E", "MAIL FROM: <address> [SP <mail-parameters>]", id="row-34 after EHLO"),
    ],
)
def test_row_34_help_shows_the_syntax(state: str, syntax: str) -> None:
    """HELP MAIL shows how MAIL is written, with parameters where the client may use them."""
    assert say(state, "HELP MAIL").replies == [f"214 2.0.0 Syntax: {syntax}"]


def test_row_37_expn_is_in_ehlo_where_it_is_served() -> None:
    """EHLO lists EXPN if it is served, and it is not served if EHLO does not list it."""
    assert "EXPN" not in say("C", EHLO).replies[0]
    assert "EXPN" in say("C", EHLO, settings=WITH_DIRECTORY).replies[0]
    hidden = replace(WITH_DIRECTORY, extensions=extensions.ALL)
    assert say("E", "EXPN staff SMTPUTF8", settings=hidden).codes == "502 5.5.1"


def test_row_38_a_reply_in_utf8() -> None:
    """A client that says SMTPUTF8 behind VRFY or EXPN is told addresses beyond ASCII, and any other is not."""
    commands = ["VRFY pepe SMTPUTF8", "EXPN staff SMTPUTF8", "VRFY pepe", "EXPN staff"]
    vrfy, expn, *others = say("E", *commands, settings=WITH_DIRECTORY).replies
    assert vrfy == "250 2.1.5 <jos\u00e9@example.org>"
    assert expn == "250-2.1.5 <bob@example.org>\n250 2.1.5 <jos\u00e9@example.org>"
    assert [reply[:9] for reply in others] == ["252 2.6.8"] * 2
    assert all(reply.isascii() for reply in others)


@pytest.mark.parametrize("command", ["VRFY pepe SMTPUTF8", "EXPN staff SMTPUTF8"])
def test_row_38_no_utf8_where_smtputf8_is_not_offered(command: str) -> None:
    """A server that does not offer SMTPUTF8 sends nothing but ASCII, whatever the client says."""
    offered = tuple(extension for extension in WITH_DIRECTORY.extensions if extension.keyword != "SMTPUTF8")
    assert say("E", command, settings=replace(WITH_DIRECTORY, extensions=offered)).replies[0].isascii()


@pytest.mark.parametrize(
    ("command", "mailfrom"),
    [
        pytest.param("MAIL FROM:<a@b>", "a@b", id="row-40 as it was given"),
        pytest.param("MAIL FROM:<>", "", id="row-41 the null reverse-path is an empty string"),
        pytest.param("MAIL FROM: A@B", "A@B", id="row-43 without what is around it"),
        pytest.param("MAIL FROM:<@a.example,@b.example:u@c.example>", "u@c.example", id="row-65 without its route"),
        pytest.param('MAIL FROM:<"a b"@x>', '"a b"@x', id="row-66 a quoted space"),
        pytest.param('MAIL FROM:<"a@b"@x>', '"a@b"@x', id="row-66 a quoted at sign"),
        pytest.param(r'MAIL FROM:<"a\"b"@x>', r'"a\"b"@x', id="row-66 a quoted quote"),
        pytest.param('MAIL FROM:<"abc"@x>', '"abc"@x', id="row-66 needless quotes"),
        pytest.param(f"MAIL FROM:<{'l' * 64}@x>", "l" * 64 + "@x", id="row-70 the longest local part"),
        pytest.param(f"MAIL FROM:<a@{LONGEST_DOMAIN}>", f"a@{LONGEST_DOMAIN}", id="row-70 the longest domain"),
    ],
)
def test_the_reverse_path_is_recorded_as_it_was_given(command: str, mailfrom: str) -> None:
    """A message has the reverse-path of its MAIL in its raw form, with neither brackets nor route."""
    dialogue = say("E", command, RCPT, "DATA", b"hello\r\n.\r\n")
    assert [message.mailfrom for message in dialogue.messages] == [mailfrom]


def test_row_45_the_first_mail_counts() -> None:
    """After a second MAIL, which is refused, the first transaction is still good for a message."""
    dialogue = say("M", "MAIL FROM:<x@y>", RCPT, "DATA", b".\r\n")
    assert dialogue.codes == "503 5.5.1 250 2.1.5 354 250 2.0.0"
    assert [message.mailfrom for message in dialogue.messages] == ["a@b.example"]


def test_row_52_no_fixed_limit() -> None:
    """A server without a limit says SIZE 0, and takes any declared size."""
    settings = offering(*KEYWORDS, data_size_limit=0)
    assert "250-SIZE 0" in say("C", EHLO, settings=settings).replies[0].splitlines()
    assert say("E", "MAIL FROM:<a@b> SIZE=" + "9" * 20, settings=settings).codes == "250 2.1.0"


@pytest.mark.parametrize("value", ["<>", "e+3Dmc2@x"])
def test_row_60_who_submitted_is_recorded_and_not_believed(value: str) -> None:
    """The value of AUTH is kept with the transaction as it was sent, and authenticates nobody."""
    session = greeted(WITH_AUTH)
    serve(session, line(EHLO), f"MAIL FROM:<a@b> AUTH={value}\r\n".encode())
    assert session.state.transaction is not None
    assert session.state.transaction.parameters == (("AUTH", value),)
    assert session.state.identity is None


def secured(settings: Settings, *segments: bytes) -> list[str]:
    """Begin a session with TLS, give it these segments and return the replies."""
    session = greeted(settings)
    session.tls_established()
    serve(session, *segments)
    return split_replies(session.data_to_send())


def test_row_63_requiretls_with_tls() -> None:
    """Where TLS is active REQUIRETLS is offered and accepted; where it is not, it is not even offered."""
    ehlo, mail = secured(WITH_TLS, line(EHLO), b"MAIL FROM:<a@b> REQUIRETLS\r\n")
    assert "250-REQUIRETLS" in ehlo.replace("250 ", "250-")
    assert mail == "250 2.1.0 OK"
    assert "REQUIRETLS" not in say("C", EHLO, settings=WITH_TLS).replies[0]


def test_row_73_with_tls_everything_may_be_said() -> None:
    """What is refused before TLS is accepted behind the handshake, and a new EHLO."""
    codes = [reply[:3] for reply in secured(TLS_REQUIRED, line(MAIL), line(EHLO), line(MAIL), line(RCPT), b"DATA\r\n")]
    assert codes == ["503", "250", "250", "250", "354"]


def test_row_73_behind_tls_authentication_is_required() -> None:
    """Where both are required, TLS leads to AUTH and AUTH to mail."""
    replies = secured(BOTH_REQUIRED, line(EHLO), line(MAIL), b"AUTH PLAIN AGEAYg==\r\n", line(MAIL))
    assert Dialogue(replies).codes == "250 530 5.7.0 235 2.7.0 250 2.1.0"


def test_row_65_the_route_is_kept_aside() -> None:
    """A source route is kept with the path, domain by domain."""
    session = greeted()
    serve(session, line(EHLO), b"MAIL FROM:<@a.example,@b.example:u@c.example>\r\n")
    assert session.state.transaction is not None
    assert session.state.transaction.reverse_path.route == ("a.example", "b.example")


# Extensions that are switched off, or are none of those that are offered, leave no trace.

UNOFFERED = [
    pytest.param("AUTH=<>", id="row-60 AUTH"),
    pytest.param("AUTH=e+3Dmc2@x", id="row-60 AUTH with an address"),
    pytest.param("AUTH=a+zz", id="row-61 AUTH with bad xtext"),
    pytest.param("RET=FULL", id="row-62 RET"),
    pytest.param("ENVID=x+2B", id="row-62 ENVID"),
    pytest.param("RET=FOO", id="row-62 a bad RET"),
    pytest.param("REQUIRETLS", id="row-63 REQUIRETLS"),
]


@pytest.mark.parametrize("parameter", UNOFFERED)
def test_parameters_of_extensions_that_are_not_offered(parameter: str) -> None:
    """A MAIL parameter that no offered extension brings is refused with 555 and opens no transaction."""
    dialogue = say("E", f"MAIL FROM:<a@b> {parameter}", RCPT, settings=offering(*BASIC))
    assert dialogue.codes == "555 5.5.4 503 5.5.1"


def test_row_64_binarymime_that_is_not_offered() -> None:
    """Without BINARYMIME, BODY=BINARYMIME is a wrong value of 8BITMIME's parameter."""
    dialogue = say("E", "MAIL FROM:<a@b> BODY=BINARYMIME", RCPT, settings=offering(*BASIC))
    assert dialogue.codes == "501 5.5.4 503 5.5.1"


@pytest.mark.parametrize("command", ["AUTH PLAIN AGEAYg==", "STARTTLS", "BDAT 0 LAST", "HELP"])
def test_verbs_of_extensions_that_are_not_offered(command: str) -> None:
    """A verb that no offered extension brings is answered with 500 or 502, in step, and leaves the transaction."""
    settings = offering("ENHANCEDSTATUSCODES")
    dialogue = say("M", command, RCPT, settings=settings)
    assert dialogue.codes in {"500 5.5.1 250 2.1.5", "502 5.5.1 250 2.1.5"}
    assert command.split(maxsplit=1)[0] not in say("C", EHLO, settings=settings).replies[0]


@pytest.mark.parametrize(
    ("hidden", "gone"),
    [(keyword, {keyword}) for keyword in KEYWORDS if keyword not in {"8BITMIME", "CHUNKING"}]
    # RFC 6531 3.1 (8): SMTPUTF8 may not be offered alone.
    + [pytest.param("8BITMIME", {"8BITMIME", "SMTPUTF8"}, id="row-59 8BITMIME")]
    # RFC 3030 3: nor may BINARYMIME.
    + [pytest.param("CHUNKING", {"CHUNKING", "BINARYMIME"}, id="row-64 CHUNKING")],
)
def test_an_extension_switched_off_is_not_in_ehlo(hidden: str, gone: set[str]) -> None:
    """EHLO lists no extension that is switched off, and none that needs it."""
    reply = say("C", EHLO, settings=Settings(extensions=extensions.without([hidden]))).replies[0]
    listed = {line[4:].split()[0] for line in reply.splitlines()}
    assert set(KEYWORDS) - listed == gone


def test_row_59_smtputf8_comes_with_8bitmime() -> None:
    """EHLO lists SMTPUTF8 and, because of it, 8BITMIME."""
    reply = say("C", EHLO).replies[0]
    assert "250-SMTPUTF8" in reply
    assert "250-8BITMIME" in reply


@pytest.mark.parametrize(
    ("hidden", "parameter"),
    [
        pytest.param("SIZE", "SIZE=1", id="SIZE"),
        pytest.param("SIZE", "SIZE=abc", id="SIZE, even if it is wrong"),
        pytest.param("8BITMIME", "BODY=8BITMIME", id="8BITMIME"),
        pytest.param("8BITMIME", "BODY=7BIT", id="8BITMIME, 7BIT"),
        pytest.param("8BITMIME", "BODY=FOO", id="row-55 BODY=FOO"),
        pytest.param("8BITMIME", "SMTPUTF8", id="SMTPUTF8 without 8BITMIME"),
        pytest.param("DSN", "RET=FULL", id="row-62 RET"),
        pytest.param("DSN", "ENVID=x+2B", id="row-62 ENVID"),
        pytest.param("DSN", "RET=FOO", id="row-62 a bad RET"),
        pytest.param("SMTPUTF8", "SMTPUTF8", id="row-56 SMTPUTF8"),
        pytest.param("SMTPUTF8", "SMTPUTF8=1", id="row-56 SMTPUTF8 with a value"),
    ],
)
@pytest.mark.parametrize("strict", [False, True], ids=["patient", "strict"])
def test_a_parameter_of_an_extension_switched_off_is_unknown(hidden: str, parameter: str, *, strict: bool) -> None:
    """The parameters of an extension that is switched off are answered with 555 and open no transaction."""
    dialogue = say("E", f"MAIL FROM:<a@b> {parameter}", RCPT, settings=but(hidden, strict=strict))
    assert dialogue.codes == "555 5.5.4 503 5.5.1"


@each_row
def test_without_enhancedstatuscodes_no_reply_has_one(row: Row) -> None:
    """With ENHANCEDSTATUSCODES switched off each row has the same reply codes, and no reply line an enhanced one."""
    kept = tuple(offered for offered in row.settings.extensions if offered.keyword != "ENHANCEDSTATUSCODES")
    settings = replace(row.settings, extensions=kept)
    plain = " ".join(code for code in row.codes.split() if "." not in code)
    assert say(row.state, *row.commands, settings=settings, answers=row.answers).codes == plain
    octets = replies_to(*map(line, (*STATES[row.state], *row.commands)), settings=settings)
    assert [line for line in octets.splitlines(keepends=True) if ENHANCED.match(line, 4)] == []


def test_pipelining_switched_off_is_noted() -> None:
    """Where PIPELINING is switched off, commands sent ahead are served, and each is noted."""
    segments = [line(EHLO), b"RSET\r\nRSET\r\nRSET\r\n"]
    offered = converse(*segments)
    hidden = converse(*segments, settings=but("PIPELINING"))
    assert offered.codes == hidden.codes == "250 250 2.0.0 250 2.0.0 250 2.0.0"
    assert (offered.lints, hidden.lints) == ([], [Lint.NOT_PIPELINING] * 2)


def test_pipelining_switched_off_is_refused_by_a_strict_server() -> None:
    """Where PIPELINING is switched off, a strict server answers commands sent ahead with 554, and closes."""
    segments = [line(EHLO), b"RSET\r\nRSET\r\n"]
    offered = converse(*segments, settings=but(strict=True), split=False)
    hidden = converse(*segments, settings=but("PIPELINING", strict=True), split=False)
    assert (offered.codes, offered.closed) == ("250 250 2.0.0 250 2.0.0", False)
    assert (hidden.codes, hidden.closed) == ("250 554 5.5.0", True)


def test_help_switched_off_is_an_unknown_verb() -> None:
    """Where HELP is switched off, it is answered as any unknown verb is."""
    replies = say("E", "HELP", "HELP MAIL", "FOO", settings=but("HELP")).replies
    assert len({reply.replace("HELP", "FOO") for reply in replies}) == 1


def test_extensions_are_switched_off_in_any_case() -> None:
    """Keywords have no case, and to hide nothing is to offer all."""
    assert extensions.without(["size"]) == extensions.ALL[1:]
    assert extensions.without([]) == extensions.ALL
    assert extensions.without(["auth"], [STARTTLS, AUTH]) == (*extensions.ALL, STARTTLS)


@pytest.mark.parametrize("keyword", [extension.keyword for extension in extensions.CONFIGURED])
def test_what_has_to_be_configured_is_not_offered_by_default(keyword: str) -> None:
    """To hide what is not offered anyway is no error, and changes nothing."""
    assert keyword not in FULL.keywords
    assert extensions.without([keyword]) == extensions.ALL


def test_an_extension_that_there_is_not_cannot_be_switched_off() -> None:
    """To hide an unknown extension is an error that names it and all that there are."""
    with pytest.raises(ValueError, match=r"hide: no extension is called FOO; there are .*SIZE"):
        extensions.without(["SIZE", "foo"])


# What holds for lints and events as such.


@pytest.mark.parametrize("lint", Lint)
def test_a_lint_is_its_name_and_cites_its_rule(lint: Lint) -> None:
    """Each lint is a string of small letters, digits and hyphens, and explains which rule was broken."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", lint)
    assert re.search(r"\(RFC \d+ [\d.]+( \(\d+\))?\)$", lint.explanation)


def test_an_event_needs_an_examination() -> None:
    """An event that does not say how it is examined has no answer."""
    with pytest.raises(NotImplementedError):
        Event().examine(State(FULL))
