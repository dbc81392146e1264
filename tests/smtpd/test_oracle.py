"""The real smtpd as an oracle: random dialogues are answered as it answers them, but for one table of differences."""

from __future__ import annotations

import importlib
import re
import select
import socket
import warnings
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import smtpd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

with warnings.catch_warnings():
    # It says that it is deprecated; from Python 3.12 it comes from PyPI.
    warnings.simplefilter("ignore", DeprecationWarning)
    classic: Any = importlib.import_module("smtpd")

DIALOGUES = 400
"""How many dialogues are played with each configuration."""

LIMIT = 100
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "decode_data": {"decode_data": True},
    "SMTPUTF8": {"enable_SMTPUTF8": True},
    "small": {"data_size_limit": LIMIT},
    "unlimited": {"data_size_limit": 0},
}

# What clients say. Each pool has what comes often and what comes rarely.

GOOD_PATHS = ("<ada@example.org>", "<ada@example.org>", "<Bob+tag@Example.ORG>", "<eve@mail.example.com>")
ODD_PATHS = (
    *("<>", "<postmaster>", "eve@example.org", " <ada@example.org>", "<ada@[127.0.0.1]>", "<ada@[IPv6:::1]>"),
    *('<"ada b"@example.org>', '"ada b"@example.org', '<"a>b"@example.org>', '<"ada"@example.org>'),
    *('<"a\\ b"@example.org>', "<a..b@example.org>", "<.a@example.org>", "<ada>", "<ada@under_score>"),
    *("<@relay:ada@example.org>", "<@one,@two:ada@example.org>", "<josé@example.org>", "<ada@exämple>"),
    *(f"<{'a' * 70}@example.org>", f"<ada@{'b' * 300}>", "ada@example.org>", "Ada <ada@example.org>"),
    *("<a,b@c>", "<a;b@c>", "<a@b;c>", "<a@b:25>", "<a]@c>", "<ada@example.org>,<bob@example.org>"),
)
#: Addresses of messages, or none at all, which smtpd takes: it has the parser of the email package read them.
PATHS_OF_RFC_5322 = (
    *("<ada b@example.org>", "< ada@example.org >", "<ada @example.org>", "<ada@ example.org>"),
    *("<ada(comment)@example.org>", "<ada@example.org (comment)>", "<ada@(comment)example.org>"),
    *('<"a"b@example.org>', '<a."b"@example.org>', "<a\\b@example.org>", "<ada@exam!ple>", "<ada@[300.0.0.1]>"),
    *("<ada@[1.2.3]>", "<ada@[]>", "<ada@example.org", "ada example.org"),
)
#: What this parser fails at, with an exception that nobody catches.
FATAL_PATHS = (
    *("<<ada@example.org>>", "(comment)<ada@example.org>", "<@example.org>", "<ada@>", "@", "<a@b@c>"),
    *("<ada@[1.2.3.4>", "<ada@one..two>", "<ada@example.org.>", "<ada@.example>", "<@relay:>", "<(@c>"),
)
PARAMETERS = (
    *("SIZE=10", "size=10", "SIZE=0", "SIZE=9999999999", "SIZE=abc", "SIZE=", "SIZE", "SIZE=123456789012345678901"),
    *("BODY=8BITMIME", "body=7bit", "BODY=x", "BODY", "SMTPUTF8", "SMTPUTF8=1", "FOO", "FOO=1", "FOO-BAR=1"),
    *("FOO=a=b", "=1", "é=1", "SIZE=10 SIZE=20", "BODY=7BIT BODY=8BITMIME", "SMTPUTF8 SMTPUTF8", "SIZE=10 BODY=x"),
    *("FOO=1 BODY=x", "BODY=8BITMIME SIZE=10"),
)
OTHER_COMMANDS = (
    *("EHLO client.example", "HELO client.example", "EHLO", "HELO", "helo [127.0.0.1]", "ehlo a b"),
    *("RSET", "RSET", "RSET now", "NOOP", "noop", "NOOP now", "QUIT", "quit now", "DATA now"),
    *("HELP", "HELP mail", "help RCPT", "HELP EHLO", "HELP HELP", "HELP EXPN", "HELP me please"),
    *("VRFY", "VRFY ada", "VRFY <ada@example.org>", "VRFY Ada Lovelace", "VRFY <", "VRFY @", "VRFY josé"),
    *("EXPN", "EXPN staff", "TURN", "SEND FROM:<ada@example.org>", "SOML", "SAML", "FOO", "foo bar", "SERVER"),
    *("STATE", "UNKNOWN_CMD", "__class__", "X-FOO", "1", "@", "", "  ", " NOOP", "ÉHLO x", "NOOP  ", "RSET\t"),
    *("MAIL", "MAIL FROM", "MAIL FROM:", "MAIL TO:<ada@example.org>", "mail  from:<ada@example.org>"),
    *("MAIL FROM:<", "MAIL FROM :<ada@example.org>", "RCPT", "RCPT TO:", "RCPT FROM:<ada@example.org>"),
    *("NO\tOP", "NOOP\0", "NOOP\rNOOP", "RCPT TO:<ada@exa\tmple>", "NOOP\nNOOP", b"NOOP \xff", b"\xff"),
)
LONG_LINES = tuple("".ljust(length, "A") for length in (509, 510, 511, 512, 513, 3000)) + tuple(
    "HELP ".ljust(length, "x") for length in (510, 511, 512, 513)
)
LONG_MAIL_LENGTHS = (510, 511, 512, 513, 536, 537, 538, 539, 546, 548, 553, 554, 563, 564)
CONTENT_LINES = (
    *(b"", b"", b"..", b".x", b"...", b"Subject: hello", b"hello", b"jos\xc3\xa9", b"\xff", b"bare\nLF", b"bare\rCR"),
    *(b"\n.", b".\n", b".\r", b"\0", b"refuse", b"at length", b"x" * 1200, *(b"x" * n for n in range(96, 103))),
)


def _any(*texts: str) -> str:
    return "|".join(map(re.escape, texts))


def _choose_path(random: Random) -> str:
    pool = random.choices((GOOD_PATHS, ODD_PATHS, PATHS_OF_RFC_5322, FATAL_PATHS), (20, 5, 1, 1))[0]
    return random.choice(pool)


def _choose_parameters(random: Random, probability: float) -> str:
    return f" {random.choice(PARAMETERS)}" if random.random() < probability else ""


def _choose_mail(random: Random) -> str:
    if random.random() < 0.05:
        length = random.choice(LONG_MAIL_LENGTHS)
        return f"MAIL FROM:<{'a' * (length - 23)}@example.org>"
    keyword = random.choice(("MAIL FROM:", "mail FROM:"))
    return f"{keyword}{_choose_path(random)}{_choose_parameters(random, 0.25)}"


def _choose_rcpt(random: Random) -> str:
    keyword = random.choice(("RCPT TO:", "rcpt to:"))
    return f"{keyword}{_choose_path(random)}{_choose_parameters(random, 0.1)}"


def _choose_other(random: Random) -> str | bytes:
    return random.choice(OTHER_COMMANDS if random.random() < 0.9 else LONG_LINES)


def _choose_command(random: Random, step: int) -> bytes:
    """Make up a command: more often than not the one that a client sends at this step of a transaction."""
    steps = (_choose_mail, _choose_rcpt, lambda _: "DATA")
    choices = (steps[step], _choose_rcpt if step else _choose_mail, random.choice(steps), _choose_other)
    line = random.choices(choices, (6, 2, 1, 2))[0](random)
    return line if isinstance(line, bytes) else line.encode()


def _choose_content(random: Random) -> bytes:
    if random.random() < 0.1:
        # Around the limit.
        return random.choice((b"..\r\n" * 26, b"x" * (LIMIT - 2) + b"\r\n", b"x" * (LIMIT - 1) + b"\r\n"))
    return b"".join(random.choice(CONTENT_LINES) + b"\r\n" for _ in range(random.randrange(6)))


# Who answers.

Message = list[tuple[str, str]]
"""What process_message was called with, but for the peer: each argument's name and value."""


class Hook:
    """A process_message that keeps what it was called with, and refuses some messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def process_message(
        self, peer: Any, mailfrom: str, rcpttos: list[str], data: bytes | str, **kwargs: object
    ) -> str | None:
        """Keep the message."""
        addresses = [("(mailfrom)", mailfrom), *(("(rcptto)", address) for address in rcpttos)]
        others = sorted((f"({name})", repr(value)) for name, value in kwargs.items())
        self.messages.append([*addresses, ("(data)", repr(data)), *others])
        octets = data.encode() if isinstance(data, str) else data
        if b"refuse" in octets:
            return "550 No, thanks"
        return "250-Thanks\r\n250 a lot" if b"at length" in octets else None


class Server(Hook, smtpd.SMTPServer):
    """Our server with the hook."""

    def __init__(self, options: dict[str, Any]) -> None:
        Hook.__init__(self)
        smtpd.SMTPServer.__init__(self, ("127.0.0.1", 0), None, map={}, **options)

    def serve_until_answered(self, client: RawClient) -> None:
        """Serve in this thread until there is something for the client to read."""
        while not select.select([client.socket], [], [], 0)[0]:
            smtpd.loop(map={0: self}, count=1)


class Oracle:
    """The real smtpd with the hook, and a connection of it whose both ends are served in turn."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.hook = Hook()
        self._map: dict[int, Any] = {}
        self._server = classic.SMTPServer(("127.0.0.1", 0), None, map=self._map, **options)
        self._server.process_message = self.hook.process_message

    def close(self) -> None:
        """Close the server."""
        self._server.close()

    def connect(self) -> None:
        """Open a connection, instead of the one before."""
        self._client, accepted = socket.socketpair()
        self._client.settimeout(0)
        self._server.handle_accepted(accepted, ("127.0.0.1", 1))
        self._channel = self._map[accepted.fileno()]

    def disconnect(self) -> None:
        """Close the connection."""
        self._channel.close()
        self._client.close()

    def read_reply(self) -> str:
        """Return all that it has to say."""
        if self._channel.writable():
            self._channel.handle_write()
        try:
            octets = self._client.recv(65_536)
        except BlockingIOError:
            return "(silence)"
        return octets.decode().removesuffix("\r\n").replace("\r\n", "\n") or "(closed)"

    def ask(self, octets: bytes) -> str:
        """Send octets and return what is answered."""
        self._client.sendall(octets)
        try:
            self._channel.handle_read()
        except Exception:  # noqa: BLE001 - whatever it is, asyncore closes the connection
            return "(dropped)"
        return self.read_reply()


# The intended differences.


@dataclass(frozen=True)
class Exchange:
    """What a client sent, and what the real smtpd and ours answered to it.

    Or the name of an argument of process_message, and its values.
    """

    configuration: str
    line: str
    theirs: str
    ours: str
    extended: bool
    their_last: str


@dataclass(frozen=True)
class Difference:
    """An intended difference: `line`, `theirs` and `ours` are patterns that match the whole of each."""

    name: str
    reason: str
    line: str
    theirs: str
    ours: str
    when: Callable[[Exchange], bool] = field(default=lambda _: True)

    def explains(self, exchange: Exchange) -> bool:
        """Whether this is the difference."""
        patterns = ((self.line, exchange.line), (self.theirs, exchange.theirs), (self.ours, exchange.ours))
        return self.when(exchange) and all(re.fullmatch(pattern, text, re.DOTALL) for pattern, text in patterns)


_SYNTAX = r"501 Syntax: (MAIL FROM|RCPT TO): <address>( \[SP <mail-parameters>\])?"
_ANY_CASE_PATH = r"(?i:MAIL FROM|RCPT TO):"
_NO_PARAMETER = r"555 (MAIL FROM|RCPT TO) parameters not recognized or not implemented"
_NO_REPLY = re.escape("(dropped)")

DIFFERENCES = (
    Difference(
        "a second EHLO or HELO",
        "RFC 5321 4.1.4: it is an implicit RSET",
        line=r"(?i:EHLO|HELO) .+",
        theirs="503 Duplicate HELO/EHLO",
        ours="250[ -].*",
    ),
    Difference(
        "HELP",
        "RFC 5321 4.2.2: 214 is the code of a help message",
        line="(?i:HELP)( .*)?",
        theirs="250 (S.*)",
        ours="214 (S.*)",
        when=lambda exchange: exchange.theirs[3:] == exchange.ours[3:],
    ),
    Difference("NOOP with an argument", "RFC 5321 4.1.1.9", line="NOOP .+", theirs="501 Syntax: NOOP", ours="250 OK"),
    Difference(
        "QUIT with an argument",
        "RFC 5321 4.1.1: parameters that no extension defines are refused",
        line="(?i:QUIT) .+",
        theirs="221 Bye",
        ours="501 Syntax: QUIT",
    ),
    Difference(
        "DATA with an argument, and no recipients",
        "RFC 5321 4.3.2: DATA has no argument, whatever came before it",
        line="(?i:DATA) .+",
        theirs="503 Error: need RCPT command",
        ours="501 Syntax: DATA",
    ),
    Difference(
        "obsolete verbs",
        "RFC 5321 4.2.4: 502 for a verb that is known and not implemented",
        line="(TURN|SEND|SOML|SAML)( .*)?",
        theirs='500 Error: command ".*" not recognized',
        ours=r"502 \w+ not implemented",
    ),
    Difference(
        "a space in place of a verb",
        "RFC 5321 4.1.1: a command begins with its verb; without one there is none to name",
        line=" .*",
        theirs='500 Error: command "" not recognized',
        ours="500 Error: bad syntax",
    ),
    Difference(
        "a verb that is not ASCII",
        "RFC 5321 4.2: each command has a reply, and a reply is ASCII (RFC 6531 3.7.4.2)",
        line="ÉHLO x",
        theirs=rf'{_NO_REPLY}|500 Error: command "ÉHLO" not recognized',
        ours="500 Error: bad syntax",
    ),
    Difference(
        "octets that are not UTF-8",
        "RFC 5321 4.2: each command has a reply",
        line=r".*\\xff",
        theirs=_NO_REPLY,
        ours="500 Error: invalid character",
    ),
    Difference(
        "control characters",
        "RFC 5321 4.1.2: no command may have any",
        line=r"[^\t]*[\t\r\0][^\t]+|NOOP\0",
        theirs=rf'500 Error: command ".*" not recognized|250 OK|503 Error: .*|{_SYNTAX}',
        ours="501 Error: no control characters are allowed",
    ),
    Difference(
        "blanks at the end of a line",
        "RFC 5321 4.1.1: trailing white space is tolerated",
        line="RSET\t",
        theirs='500 Error: command "RSET\t" not recognized',
        ours="250 OK",
    ),
    Difference(
        "LF for a line end",
        "RFC 5321 2.3.8 has only clients in mind: Postfix and Exim take it, too",
        line="NOOP\nNOOP",
        theirs='500 Error: command "NOOP\nNOOP" not recognized',
        ours="250 OK\n250 OK",
    ),
    Difference(
        "CRLF counts for the length of a line",
        "RFC 5321 4.5.3.1.4",
        line="(?!MAIL).{511,512}|MAIL.{507,508}|MAIL.{533,534}",
        theirs="[25].*",
        ours="500 Error: line too long",
        when=lambda exchange: len(exchange.line) < 513 or exchange.extended,
    ),
    Difference(
        "BODY lengthens MAIL",
        "RFC 6152 2 (5): by 17 octets; smtpd has no more than SIZE and SMTPUTF8 lengthen it",
        line="MAIL.{509,559}",
        theirs="500 Error: line too long",
        ours="250 OK|503 Error: nested MAIL command",
        when=lambda exchange: exchange.extended,
    ),
    Difference(
        "a reply that is too long for a line",
        "RFC 5321 4.5.3.1.5",
        line="A{509,510}",
        theirs='500 Error: command "A+" not recognized',
        ours='500-Error: command "A+\n500 A+" not recognized',
        when=lambda exchange: exchange.ours.replace("\n500 ", "").replace("-", " ") == exchange.theirs,
    ),
    Difference(
        "VRFY of what is no address",
        "RFC 5321 4.2: each command has a reply",
        line="VRFY [@<]",
        theirs=_NO_REPLY,
        ours="252 Cannot VRFY user, .*",
    ),
    Difference(
        "paths that smtpd fails at",
        "RFC 5321 4.2: each command has a reply",
        line=rf"{_ANY_CASE_PATH}(({_any(*FATAL_PATHS)})( .*)?|<)",
        theirs=_NO_REPLY,
        ours=rf"250 OK|503 Error: nested MAIL command|552 .*|501 Error: .*|{_SYNTAX}|{_NO_PARAMETER}",
    ),
    Difference(
        "paths of RFC 5322",
        "RFC 5321 4.1.2: a path has a mailbox without comments, folding white space and obsolete forms",
        line=rf"{_ANY_CASE_PATH}({_any(*PATHS_OF_RFC_5322)})( .*)?",
        theirs=rf"250 OK|503 Error: nested MAIL command|50[12] .*|552 .*|{_NO_PARAMETER}|{_NO_REPLY}",
        ours=rf"{_SYNTAX}|{_NO_PARAMETER}|503 Error: nested MAIL command",
    ),
    Difference(
        "the null path as a recipient",
        "RFC 5321 4.1.1.3: a forward-path has a mailbox",
        line="(?i:RCPT TO):<>( .*)?",
        theirs=rf"250 OK|{_NO_PARAMETER}",
        ours=_SYNTAX,
    ),
    Difference(
        "SIZE without a value",
        "RFC 5321 4.2: each command has a reply",
        line=r"(?i:MAIL FROM):.* SIZE",
        theirs=_NO_REPLY,
        ours=rf"{_SYNTAX}|{_NO_PARAMETER}",
    ),
    Difference(
        "SIZE of more than 20 digits",
        "RFC 1870 3",
        line=r"(?i:MAIL FROM):.* SIZE=\d{21,}",
        theirs="552 Error: message size exceeds fixed maximum message size",
        ours=_SYNTAX,
    ),
    Difference(
        "SIZE that was not offered",
        "RFC 5321 4.1.1.11: without a limit there is no SIZE in the answer to EHLO",
        line=r"(?i:MAIL FROM):.* (?i:SIZE)(=\S*)?( .*)?",
        theirs=rf"250 OK|501 .*|{_NO_REPLY}",
        ours=_NO_PARAMETER,
        when=lambda exchange: exchange.configuration == "unlimited",
    ),
    Difference(
        "a parameter twice",
        "RFC 5321 4.1.1.11 and RFC 1870 6: which value holds?",
        line=r"(?i:MAIL FROM):.* (SIZE=\S+ SIZE=\S+|BODY=\S+ BODY=\S+)",
        theirs="250 OK",
        ours=_SYNTAX,
    ),
    Difference(
        "a hyphen in a parameter",
        "RFC 5321 4.1.2: esmtp-keyword",
        line=rf"{_ANY_CASE_PATH}.* FOO-BAR=1",
        theirs=_SYNTAX,
        ours=_NO_PARAMETER,
    ),
    Difference(
        "what no parameter has",
        "RFC 5321 4.1.2: esmtp-keyword and esmtp-value have no non-ASCII letters and no =",
        line=rf"{_ANY_CASE_PATH}.* (FOO=a=b|é=1)",
        theirs=_NO_PARAMETER,
        ours=_SYNTAX,
    ),
    Difference(
        "several faulty parameters",
        "RFC 5321 4.1.1.11 gives each its code and no order: here the first is named",
        line=r"(?i:MAIL FROM):.* \S+=\S+ \S+=\S+",
        theirs=r"501 .*|555 .*",
        ours=r"501 .*|555 .*",
    ),
    Difference(
        "a nested MAIL that is malformed",
        "RFC 5321 4.3.2 gives each its code and no order: here syntax comes before sequence",
        line=rf"(?i:MAIL FROM):(?!({_any(*GOOD_PATHS)})$).*",
        theirs="503 Error: nested MAIL command",
        ours=_SYNTAX,
    ),
    Difference(
        "empty content",
        "RFC 5321 4.1.1.4: the CRLF of DATA is the one before the dot",
        line=re.escape("(content)"),
        theirs=re.escape("(silence)"),
        ours="250 OK",
    ),
    Difference(
        "after too much data",
        "RFC 5321 4.1.1.4: the end of mail data ends the transaction, whatever the reply",
        line=".*",
        theirs=re.escape("(silence)"),
        ours=r"\d{3}.*",
        when=lambda exchange: exchange.their_last == "552 Error: Too much mail data",
    ),
    Difference(
        "the last CRLF counts for the size",
        "RFC 1870 3",
        line=rf"\(content\).{{{LIMIT + 1},{LIMIT + 2}}}",
        theirs=r"250[ -].*|550 .*",
        ours="552 Error: Too much mail data",
    ),
    Difference(
        "stuffed dots do not count for the size",
        "RFC 1870 3",
        line=rf"\(content\)(?=.{{{LIMIT + 3},}})(.*\r\n)?\.\..*",
        theirs="552 Error: Too much mail data",
        ours=r"250[ -].*|550 .*",
    ),
    Difference(
        "content that can't be decoded",
        "RFC 5321 4.2: each command has a reply",
        line=r"\(content\).*\xff.*",
        theirs=_NO_REPLY,
        ours="554 Error: the content is not UTF-8",
        when=lambda exchange: exchange.configuration == "decode_data",
    ),
    Difference(
        "the null reverse-path",
        "RFC 5321 4.5.5: the brackets are punctuation, not the address",
        line=re.escape("(mailfrom)"),
        theirs="<>",
        ours="",
    ),
    Difference(
        "quoting that an address does not need",
        "RFC 5321 2.3.11: only the domain's own host may interpret a local part, so it stays as it was sent",
        line=r"\((mailfrom|rcptto)\)",
        theirs='"?[^"]+"?@example.org',
        ours='"[^"]+"@example.org',
        when=lambda exchange: _unquote(exchange.theirs) == _unquote(exchange.ours),
    ),
    Difference(
        "parameters of a RCPT that was refused",
        "RFC 5321 4.1.1.11: with a 555 they are no parameters of any recipient",
        line=re.escape("(rcpt_options)"),
        theirs=r"\['.+'\]",
        ours=r"\[\]",
    ),
)


def _unquote(mailbox: str) -> str:
    return re.sub(r'\\(.)|"', r"\1", mailbox)


# The run.


@dataclass
class Outcome:
    """What came of all dialogues with a configuration."""

    met: set[str] = field(default_factory=set)
    unexplained: dict[tuple[str, str], str] = field(default_factory=dict)
    messages: int = 0
    exchanges: int = 0


class Comparison:
    """Plays dialogues with both servers of a configuration, and compares what they say."""

    def __init__(self, configuration: str, oracle: Oracle, server: Server) -> None:
        self.outcome = Outcome()
        self._configuration = configuration
        self._oracle = oracle
        self._server = server

    def play(self, random: Random) -> None:
        """Play a dialogue until it ends, or until the servers' states differ."""
        self._transcript: list[str] = []
        self._extended = False
        self._their_last = ""
        self._step = 0
        self._oracle.connect()
        with RawClient(self._server.socket.getsockname()) as self._client:
            self._server.serve_until_answered(self._client)
            greetings = [self._oracle.read_reply(), self._client.read_reply()]
            assert [greeting.split()[:2] for greeting in greetings] == [["220", "localhost"]] * 2
            hello = random.choice((b"EHLO client.example", b"EHLO client.example", b"HELO client.example", b"NOOP"))
            going_on = self._ask(hello, random)
            for _ in range(random.randrange(3, 16)):
                going_on = going_on and self._ask(_choose_command(random, self._step), random)
        self._oracle.disconnect()

    def _ask(self, command: bytes, random: Random) -> bool:
        """Send a command, and the content if it is asked for; return whether to go on."""
        line = command.decode(errors="backslashreplace")
        theirs, ours = self._exchange(line, command + b"\r\n", command.count(b"\n") + 1)
        if theirs == ours == "354 End data with <CR><LF>.<CR><LF>":
            content = _choose_content(random)
            line = "(content)" + content.decode("latin-1")
            theirs, ours = self._exchange(line, content + b".\r\n", 1)
            self._compare_messages()
            self._step = 0
        if theirs == ours == "221 Bye":
            self._server.serve_until_answered(self._client)
            assert (self._oracle.read_reply(), self._client.read_reply()) == ("(closed)", "")
            return False
        if theirs.startswith("250"):
            verb = line[:4].upper()
            self._step = {"MAIL": 1, "RCPT": 2, "RSET": 0}.get(verb, self._step)
            self._extended |= verb == "EHLO"
        return theirs[0] == ours[0]

    def _exchange(self, line: str, octets: bytes, replies: int) -> tuple[str, str]:
        theirs = self._oracle.ask(octets)
        self._client.send(octets)
        self._server.serve_until_answered(self._client)
        ours = "\n".join(self._client.read_reply() for _ in range(replies))
        self._compare(line, theirs, ours)
        self._their_last = theirs
        self.outcome.exchanges += 1
        return theirs, ours

    def _compare(self, line: str, theirs: str, ours: str) -> None:
        self._transcript += [f"C: {line!r}", f"S: {ours!r}"]
        if theirs == ours:
            return
        exchange = Exchange(self._configuration, line, theirs, ours, self._extended, self._their_last)
        explanations = {difference.name for difference in DIFFERENCES if difference.explains(exchange)}
        self.outcome.met |= explanations
        if not explanations:
            dialogue = "\n".join(self._transcript)
            self.outcome.unexplained.setdefault((theirs, ours), f"{dialogue}\nsmtpd: {theirs!r}")

    def _compare_messages(self) -> None:
        both = (self._oracle.hook.messages, self._server.messages)
        if len(both[0]) == len(both[1]) == 1:
            theirs, ours = both[0][0], both[1][0]
            assert [name for name, _ in theirs] == [name for name, _ in ours]
            for (name, value), (_, our_value) in zip(theirs, ours, strict=True):
                self._compare(name, value, our_value)
            self.outcome.messages += 1
        for messages in both:
            messages.clear()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """All dialogues of all configurations, played once."""
    outcomes = {}
    with pytest.MonkeyPatch.context() as patch:
        # smtpd asks for it at each connection, which may take seconds.
        patch.setattr(socket, "getfqdn", lambda: "localhost")
        for configuration, options in CONFIGURATIONS.items():
            oracle = Oracle(options)
            random = Random(configuration)  # noqa: S311 - the same dialogues in each run
            server = Server(options)
            comparison = Comparison(configuration, oracle, server)
            for _ in range(DIALOGUES):
                comparison.play(random)
            server.stop()
            oracle.close()
            outcomes[configuration] = comparison.outcome
    return outcomes


def _show(texts: Iterable[str]) -> str:
    return "\n\n".join(texts)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_replies_and_messages_are_those_of_smtpd(outcomes: dict[str, Outcome], configuration: str) -> None:
    """Random dialogues get the replies that smtpd gives, and pass the same messages on, but for the table."""
    outcome = outcomes[configuration]
    assert not outcome.unexplained, _show(outcome.unexplained.values())


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_dialogues_reach_the_end_of_transactions(outcomes: dict[str, Outcome], configuration: str) -> None:
    """The random dialogues are not all refusals: hundreds of them pass on a message."""
    outcome = outcomes[configuration]
    assert outcome.messages > DIALOGUES // 20
    assert outcome.exchanges > DIALOGUES * 4


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_each_intended_difference_exists(outcomes: dict[str, Outcome], difference: Difference) -> None:
    """Each row of the table is met by one of the dialogues, so that none is stale."""
    assert any(difference.name in outcome.met for outcome in outcomes.values())


def test_reasons_stand_in_an_rfc() -> None:
    """Each row of the table is backed by a section of an RFC, and has a name of its own."""
    assert all(re.search(r"RFC \d{4} \d", difference.reason) for difference in DIFFERENCES)
    assert len({difference.name for difference in DIFFERENCES}) == len(DIFFERENCES)
