"""Events: questions from the client, each with the answer that a well-behaved server gives.

`examine` finds that answer, and changes at most the event; `take` moves the state as the reply demands that was
sent in the end, whoever chose it. So a MAIL that is answered with 550 opens no transaction, and the reasons
for a 550 need not be known here.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, ClassVar, Self

from .replies import Reply

if TYPE_CHECKING:
    from .lints import Lint
    from .state import State

#: How many octets of a line that is none a dialogue shows.
MAX_QUOTED = 512

#: How a TLS handshake begins (RFC 8446 5.1).
_TLS_HANDSHAKE = b"\x16\x03"

#: How many lines are remembered as they were read: clients under test send the same few over and over.
REMEMBERED = 128

# The texts of all replies are those of the classic smtpd, against which many suites were written.
OK = Reply(250, "OK", "2.0.0")
SEND_HELO_FIRST = Reply(503, "Error: send HELO first", "5.5.1")
SEND_EHLO_FIRST = Reply(503, "Error: send EHLO first", "5.5.1")


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """Ends an examination with the reply that refuses the command: `raise Refusal(Reply(454, "Later", "4.7.0"))`."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class Event:
    """A question from the client, with the answer that a well-behaved server gives in `reply`."""

    #: What a rule calls this event: a verb, or "CONNECT" or "CONTENT".
    stage: str
    reply: Reply = OK
    #: What the client did against the rules with this event.
    lints: tuple[Lint, ...] = ()
    #: Whether octets follow the command line, and the answer comes only behind them.
    carries_octets: ClassVar[bool] = False
    #: Whether the answer is not the session's alone: the server takes the client, or the message, or does not.
    concerns_server: ClassVar[bool] = False
    #: Whether its replies carry enhanced status codes: greeting and EHLO have none (RFC 2034 4).
    enhanced: ClassVar[bool] = True

    #: Whether neither `examine` nor `take` changes anything of it.
    is_constant: bool = False
    #: Whether the usual answer refuses a client that did not wait, and so ends the session.
    refused_for_haste: bool = False
    #: Whether what the client said reveals a password or token.
    secret: bool = False

    @property
    def said(self) -> str:
        """What the client said, for people to read; "" if it said nothing."""
        return ""

    def announce(self, state: State) -> bool:
        """Set `state.receiving` if octets follow this very command line, as `carries_octets` says they may; say if so."""
        raise NotImplementedError

    def examine(self, state: State) -> Reply:
        """Return the answer of a well-behaved server; raises `Refusal` as well."""
        raise NotImplementedError

    def take(self, state: State, reply: Reply) -> None:
        """Move the state: this reply was sent."""

    def forget(self) -> None:
        """Keep nothing that is large: who keeps the event once it is answered, as a dialogue does, needs none of it."""

    def own(self) -> Self:
        """Return the event itself, or what may be changed in its place if it stands for others, too."""
        return self

    def remains(self) -> Self:
        """Return what may be kept of an event that is not answered, and that somebody may be looking at still."""
        remains = copy(self)
        remains.forget()
        return remains

    def note(self, lint: Lint) -> None:
        """Remember what the client did against the rules."""
        if lint not in self.lints:
            self.lints = (*self.lints, lint)

    def note_or_refuse(self, lint: Lint, state: State, refusal: Reply) -> None:
        """Note what a patient server accepts; a strict one refuses it."""
        if state.settings.strict:
            raise Refusal(refusal)
        self.note(lint)


class Connect(Event):
    """A client has connected (RFC 5321 3.1)."""

    stage = "CONNECT"
    concerns_server = True
    enhanced = False

    def examine(self, state: State) -> Reply:
        return state.settings.greeting

    def take(self, state: State, reply: Reply) -> None:
        if not reply.is_positive:
            state.refuse_service()


class BadLine(Event):
    """What was sent as a command line and is none: empty, too long, or with octets that have no place in it."""

    stage = ""

    def __init__(self, reply: Reply, line: bytes) -> None:
        self.reply = reply
        self._line = line[:MAX_QUOTED]
        self.secret = line[:MAX_QUOTED].lstrip()[:4].upper() == b"AUTH"

    @property
    def said(self) -> str:
        if self._line.startswith(_TLS_HANDSHAKE):
            return "(a TLS handshake: this client needs a server with tls='implicit')"
        return ascii(self._line.decode("ascii", "backslashreplace"))[1:-1]

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return self.reply


class Command(Event):
    """A command line: its verb in upper case, and its argument as it was sent, "" for none."""

    #: The keyword of the extension without which there is no such command.
    extension: ClassVar[str] = ""
    #: How it is written, for HELP and for syntax errors; "": nothing to show.
    syntax: ClassVar[str] = ""
    #: Whether it must be the last command of a group (RFC 2920 3.1).
    ends_group: ClassVar[bool] = False

    #: Whether it stands for all lines that are equal, in any session: nobody may change it but in its `own` copy.
    is_remembered = False

    def __init__(self, verb: str, argument: str) -> None:
        self.stage = self.verb = verb
        self.argument = argument

    def again(self) -> Self:
        """Return the same command anew, as it was when it was read."""
        command = object.__new__(type(self))
        vars(command).update(vars(self), is_remembered=False)  # a fifth of the time of `copy`
        return command

    def own(self) -> Self:
        return self.again() if self.is_remembered else self

    def judge(self, state: State) -> None:
        """Find out what is to be said of the line wherever in a session it stands: asked once for equal lines.

        Of the state it may go by the settings, `esmtp` and `secure`.
        """

    @property
    def secret(self) -> bool:  # type: ignore[override]  # asked when a dialogue is looked at
        """Whether it reveals a password: also where there is no AUTH, or a space is missing."""
        return self.verb.startswith("AUTH") and (self.verb != "AUTH" or " " in self.argument)

    @property
    def said(self) -> str:
        return f"{self.verb} {self.argument}".rstrip()

    def _syntax_error(self, state: State, enhanced: str = "5.5.4") -> Reply:
        return Reply(501, f"Syntax: {self.full_syntax(state)}", enhanced)

    @classmethod
    def full_syntax(cls, state: State) -> str:  # noqa: ARG003
        """Return how the command is written in a session like this."""
        return cls.syntax

    def _no_argument(self, state: State) -> None:
        if self.argument:
            raise Refusal(self._syntax_error(state))


class Unrecognized(Command):
    """A verb that no command has."""

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return Reply(500, f'Error: command "{self.verb}" not recognized', "5.5.1")


class NotImplementedHere(Command):
    """A verb that the standards know and this server does not serve (RFC 5321 4.2.4)."""

    ends_group = True

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return Reply(502, f"{self.verb} not implemented", "5.5.1")
