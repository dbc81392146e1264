"""The commands around mail transactions, and the table of all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from . import grammar
from .auth import Auth
from .chunking import Bdat
from .directory import Expn, Vrfy
from .events import OK, Command, NotImplementedHere, Refusal
from .mail import Data, Mail, Rcpt
from .replies import Reply
from .starttls import StartTls

if TYPE_CHECKING:
    from .state import Settings, State

BYE = Reply(221, "Bye", "2.0.0")


class Helo(Command):
    """HELO (RFC 5321 4.1.1.1); also a second one, which is an implicit RSET (4.1.4)."""

    syntax = "HELO hostname"
    enhanced = False

    #: Whether service extensions follow.
    is_extended: ClassVar[bool] = False

    def judge(self, state: State) -> None:
        self.reply = self._welcome(state)
        self.is_constant = bool(self.argument) and not grammar.helo_lints(self.argument)

    def examine(self, state: State) -> Reply:
        if not self.argument:
            raise Refusal(self._syntax_error(state))
        for lint in grammar.helo_lints(self.argument):
            self.note_or_refuse(lint, state, self._syntax_error(state))
        return self.reply

    def _welcome(self, state: State) -> Reply:
        return state.settings.helo_reply

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.helo = self.argument
            state.transaction = None
            state.speak(esmtp=self.is_extended)


class Ehlo(Helo):
    """EHLO (RFC 5321 4.1.1.1)."""

    syntax = "EHLO hostname"
    ends_group = True
    is_extended = True

    def _welcome(self, state: State) -> Reply:
        return state.settings.ehlo_replies[state.secure]


class Lhlo(Ehlo):
    """LHLO (RFC 2033 4.1): LMTP's EHLO."""

    syntax = "LHLO hostname"


class Rset(Command):
    """RSET (RFC 5321 4.1.1.5)."""

    syntax = "RSET"
    is_constant = True

    def examine(self, state: State) -> Reply:
        self._no_argument(state)
        return OK

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.transaction = None


class Noop(Command):
    """NOOP (RFC 5321 4.1.1.9), with or without an argument."""

    syntax = "NOOP"
    ends_group = True
    is_constant = True

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        return OK


class Help(Command):
    """HELP (RFC 5321 4.1.1.8)."""

    extension = "HELP"

    def examine(self, state: State) -> Reply:
        keywords = {"", *state.settings.keywords}
        commands = commands_for(state.settings).items()
        topics = {verb: topic for verb, topic in commands if topic.syntax and topic.extension in keywords}
        supported = f"Supported commands: {' '.join(topics)}"
        if not self.argument:
            return Reply(214, supported, "2.0.0")
        topic = topics.get(self.argument.upper())
        if topic is None:
            return Reply(501, supported, "5.5.4")
        return Reply(214, f"Syntax: {topic.full_syntax(state)}", "2.0.0")


class Quit(Command):
    """QUIT (RFC 5321 4.1.1.10)."""

    syntax = "QUIT"
    reply = BYE
    ends_group = True
    is_constant = True

    def examine(self, state: State) -> Reply:
        self._no_argument(state)
        return BYE

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.closing = True


_COMMANDS: dict[str, type[Command]] = {
    "MAIL": Mail,
    "RCPT": Rcpt,
    "DATA": Data,
    "RSET": Rset,
    "NOOP": Noop,
    "QUIT": Quit,
    "VRFY": Vrfy,
    "BDAT": Bdat,
    "STARTTLS": StartTls,
    "AUTH": Auth,
    "HELP": Help,
    "EXPN": Expn,
    **dict.fromkeys(("TURN", "SEND", "SOML", "SAML"), NotImplementedHere),
}
_SMTP_COMMANDS: dict[str, type[Command]] = {"EHLO": Ehlo, "HELO": Helo, **_COMMANDS}
_LMTP_COMMANDS: dict[str, type[Command]] = {"LHLO": Lhlo, **_COMMANDS}


def commands_for(settings: Settings) -> dict[str, type[Command]]:
    """Return every verb that a session with these settings knows, in the order in which HELP lists them."""
    return _LMTP_COMMANDS if settings.lmtp else _SMTP_COMMANDS
