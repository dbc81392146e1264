"""Events: questions from the client, each with the answer that a well-behaved server gives.

`examine` finds that answer and changes nothing; `take` moves the state as the reply demands that was sent
in the end, whoever chose it. So a MAIL that is answered with 550 opens no transaction, and the reasons
for a 550 need not be known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .replies import Reply

if TYPE_CHECKING:
    from .lints import Lint
    from .state import State

# The texts of all replies are those of the classic smtpd, against which many suites were written.
OK = Reply(250, "OK", "2.0.0")
SEND_HELO_FIRST = Reply(503, "Error: send HELO first", "5.5.1")


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """Ends an examination with the reply that refuses the command."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class Event:
    """A question from the client, with the answer that a well-behaved server gives in `reply`."""

    __slots__ = ("lints", "reply")

    #: What a rule calls this event: a verb, or "CONNECT" or "CONTENT".
    stage: ClassVar[str]
    #: Whether its replies carry enhanced status codes: greeting and EHLO have none (RFC 2034 4).
    enhanced: ClassVar[bool] = True

    def __init__(self) -> None:
        self.reply = OK
        #: What the client did against the rules with this event.
        self.lints: tuple[Lint, ...] = ()

    def examine(self, state: State) -> Reply:
        """Return the answer of a well-behaved server; raises `Refusal` as well."""
        raise NotImplementedError

    def take(self, state: State, reply: Reply) -> None:
        """Move the state: this reply was sent."""

    def note(self, lint: Lint) -> None:
        """Remember what the client did against the rules."""
        self.lints = (*self.lints, lint)

    def _sloppy(self, lint: Lint, state: State, refusal: Reply) -> None:
        """Note what a patient server accepts; a strict one refuses it."""
        if state.settings.strict:
            raise Refusal(refusal)
        self.note(lint)


class Connect(Event):
    """A client has connected (RFC 5321 3.1)."""

    __slots__ = ()
    stage = "CONNECT"
    enhanced = False

    def examine(self, state: State) -> Reply:
        return state.settings.greeting

    def take(self, state: State, reply: Reply) -> None:
        state.refused = not reply.is_positive


class BadLine(Event):
    """What was sent as a command line and is none: empty, too long, or with octets that have no place in it."""

    __slots__ = ()
    stage = ""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return self.reply


class Command(Event):
    """A command line: its verb in upper case, and its argument as it was sent, "" for none."""

    __slots__ = ("argument", "verb")

    #: How it is written, for HELP and for syntax errors; "": nothing to show.
    syntax: ClassVar[str] = ""
    #: Whether it must be the last command of a group (RFC 2920 3.1).
    ends_group: ClassVar[bool] = False

    def __init__(self, verb: str, argument: str) -> None:
        super().__init__()
        self.verb = verb
        self.argument = argument

    @property
    def stage(self) -> str:  # type: ignore[override]
        """The verb: any client may make up a new one."""
        return self.verb

    def _syntax_error(self, state: State, enhanced: str = "5.5.4") -> Reply:
        return Reply(501, f"Syntax: {self._full_syntax(state)}", enhanced)

    def _full_syntax(self, state: State) -> str:  # noqa: ARG002
        return self.syntax

    def _no_argument(self, state: State) -> None:
        if self.argument:
            raise Refusal(self._syntax_error(state))


class Unrecognized(Command):
    """A verb that no command has."""

    __slots__ = ()

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return Reply(500, f'Error: command "{self.verb}" not recognized', "5.5.1")


class NotImplementedHere(Command):
    """A verb that the standards know and this server does not serve (RFC 5321 4.2.4)."""

    __slots__ = ()
    ends_group = True

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return Reply(502, f"{self.verb} not implemented", "5.5.1")
