"""The commands around mail transactions, and the table of all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import grammar
from .events import OK, Command, NotImplementedHere, Refusal, Unrecognized
from .mail import Data, Mail, Rcpt
from .replies import Reply

if TYPE_CHECKING:
    from .state import Settings, State

BYE = Reply(221, "Bye", "2.0.0")
CANNOT_VERIFY = Reply(252, "Cannot VRFY user, but will accept message and attempt delivery", "2.5.2")


class Helo(Command):
    """HELO (RFC 5321 4.1.1.1); also a second one, which is an implicit RSET (4.1.4)."""

    __slots__ = ()
    syntax = "HELO hostname"
    enhanced = False

    def examine(self, state: State) -> Reply:
        if not self.argument:
            raise Refusal(self._syntax_error(state))
        for lint in grammar.helo_lints(self.argument):
            self._sloppy(lint, state, self._syntax_error(state))
        return self._welcome(state.settings)

    def _welcome(self, settings: Settings) -> Reply:
        return settings.helo_reply

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.helo = self.argument
            state.esmtp = False
            state.transaction = None


class Ehlo(Helo):
    """EHLO (RFC 5321 4.1.1.1)."""

    __slots__ = ()
    syntax = "EHLO hostname"
    ends_group = True

    def _welcome(self, settings: Settings) -> Reply:
        return settings.ehlo_reply

    def take(self, state: State, reply: Reply) -> None:
        super().take(state, reply)
        if reply.is_positive:
            state.esmtp = True


class Rset(Command):
    """RSET (RFC 5321 4.1.1.5)."""

    __slots__ = ()
    syntax = "RSET"

    def examine(self, state: State) -> Reply:
        self._no_argument(state)
        return OK

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.transaction = None


class Noop(Command):
    """NOOP (RFC 5321 4.1.1.9), with or without an argument."""

    __slots__ = ()
    syntax = "NOOP"
    ends_group = True

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return OK


class Vrfy(Command):
    """VRFY (RFC 5321 3.5.3): answered, and never with a 250 that nothing has verified."""

    __slots__ = ()
    syntax = "VRFY <address>"
    ends_group = True

    def examine(self, state: State) -> Reply:
        if not self.argument:
            return self._syntax_error(state)
        return CANNOT_VERIFY


class Help(Command):
    """HELP (RFC 5321 4.1.1.8)."""

    __slots__ = ()

    def examine(self, state: State) -> Reply:
        if "HELP" not in state.settings.keywords:
            return Unrecognized(self.verb, self.argument).examine(state)
        supported = f"Supported commands: {' '.join(verb for verb, command in COMMANDS.items() if command.syntax)}"
        if not self.argument:
            return Reply(214, supported, "2.0.0")
        topic = COMMANDS.get(self.argument.upper(), Help)
        if not topic.syntax:
            return Reply(501, supported, "5.5.4")
        return Reply(214, f"Syntax: {topic(self.argument, '')._full_syntax(state)}", "2.0.0")  # noqa: SLF001


class Quit(Command):
    """QUIT (RFC 5321 4.1.1.10)."""

    __slots__ = ()
    syntax = "QUIT"
    ends_group = True

    def examine(self, state: State) -> Reply:
        self._no_argument(state)
        return BYE

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.closing = True


#: Every verb that the session knows, in the order in which HELP lists them.
COMMANDS: dict[str, type[Command]] = {
    "EHLO": Ehlo,
    "HELO": Helo,
    "MAIL": Mail,
    "RCPT": Rcpt,
    "DATA": Data,
    "RSET": Rset,
    "NOOP": Noop,
    "QUIT": Quit,
    "VRFY": Vrfy,
    "HELP": Help,
    **dict.fromkeys(("EXPN", "TURN", "SEND", "SOML", "SAML"), NotImplementedHere),
}
