"""VRFY and EXPN (RFC 5321 3.5), answered from a directory of addresses where the server has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import Command, NotImplementedHere
from .grammar import canonical_mailbox
from .replies import Reply
from .state import Extension

if TYPE_CHECKING:
    from .state import Directory, State

#: Who offers EXPN says so (RFC 5321 4.1.1.7).
EXPN = Extension(keyword="EXPN")

_CANNOT_VERIFY = Reply(252, "Cannot VRFY user, but will accept message and attempt delivery", "2.0.0")
_NO_SUCH_USER = Reply(550, "Error: no such user", "5.1.1")
_NO_SUCH_LIST = Reply(550, "Error: no such mailing list", "5.1.1")
_A_MAILING_LIST = Reply(252, "That is a mailing list", "2.0.0")
_A_USER = Reply(550, "That is a user name, not a mailing list", "5.1.1")
_NEEDS_UTF8 = Reply(252, "The address needs SMTPUTF8 to be shown", "2.6.8")


class _DirectoryCommand(Command):
    """What VRFY and EXPN have in common: a string to look up, and RFC 6531 3.7.4.2's parameter."""

    ends_group = True

    def __init__(self, verb: str, argument: str) -> None:
        super().__init__(verb, argument)
        string, _, parameter = argument.rpartition(" ")
        self._utf8 = parameter.upper() == "SMTPUTF8" and bool(string)
        self._string = (string if self._utf8 else argument).strip()

    def _show(self, addresses: list[str], state: State) -> Reply:
        lines = [address if "<" in address else f"<{address}>" for address in addresses]
        utf8 = self._utf8 and "SMTPUTF8" in state.settings.keywords
        if not utf8 and not all(line.isascii() for line in lines):
            return _NEEDS_UTF8
        return Reply(250, "\n".join(lines), "2.1.5", utf8=utf8)


class Vrfy(_DirectoryCommand):
    """VRFY (RFC 5321 3.5.3): never a 250 for what nothing has verified."""

    syntax = "VRFY <address>"

    def examine(self, state: State) -> Reply:
        if not self._string:
            return self._syntax_error(state)
        if state.settings.directory is None:
            return _CANNOT_VERIFY
        entry = _look_up(state.settings.directory, self._string)
        if entry is None:
            return _NO_SUCH_USER
        return self._show([entry], state) if isinstance(entry, str) else _A_MAILING_LIST


class Expn(_DirectoryCommand):
    """EXPN (RFC 5321 3.5.2): who is on a mailing list."""

    def examine(self, state: State) -> Reply:
        if state.settings.directory is None or "EXPN" not in state.settings.keywords:
            return NotImplementedHere(self.verb, self.argument).examine(state)
        if not self._string:
            return Reply(501, "Syntax: EXPN <list>", "5.5.4")
        entry = _look_up(state.settings.directory, self._string)
        if entry is None:
            return _NO_SUCH_LIST
        return _A_USER if isinstance(entry, str) else self._show(list(entry), state)


def _look_up(directory: Directory, string: str) -> str | tuple[str, ...] | None:
    """Find a name without regard to case, or the user whose address this is."""
    wanted = string.removeprefix("<").removesuffix(">")
    for name, entry in directory.items():
        if name.casefold() == wanted.casefold() or canonical_mailbox(name) == canonical_mailbox(wanted):
            return entry
        if isinstance(entry, str) and _mailbox(entry) == canonical_mailbox(wanted):
            return entry
    return None


def _mailbox(address: str) -> str:
    """Return the mailbox in "Ada <ada@example.org>", or the whole."""
    return canonical_mailbox(address.rpartition("<")[2].removesuffix(">"))
