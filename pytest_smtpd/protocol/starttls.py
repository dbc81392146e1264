"""STARTTLS (RFC 3207) and REQUIRETLS (RFC 8689)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .content import Dropped
from .events import SEND_EHLO_FIRST, Command
from .replies import Reply
from .state import Extension

if TYPE_CHECKING:
    from .state import State

_READY = Reply(220, "Ready to start TLS", "2.0.0")
_ALREADY_ACTIVE = Reply(503, "Error: TLS is already active", "5.5.1")
_NEEDS_TLS = Reply(530, "Error: REQUIRETLS needs TLS", "5.7.10")
_BAD_REQUIRETLS = Reply(501, "Error: REQUIRETLS takes no arguments", "5.5.4")


def _check_requiretls(value: str | None, state: State) -> Reply | None:
    if value is not None:
        return _BAD_REQUIRETLS
    return None if state.secure else _NEEDS_TLS


#: Not offered again where TLS is active (RFC 3207 4.2).
STARTTLS = Extension(keyword="STARTTLS", parameter=lambda _settings, secure: None if secure else "")
#: Offered only where TLS is active (RFC 8689 2).
REQUIRETLS = Extension(
    keyword="REQUIRETLS",
    parameter=lambda _settings, secure: "" if secure else None,
    mail_parameters={"REQUIRETLS": _check_requiretls},
    longer_lines={"MAIL": 11},  # RFC 8689 2
)


class StartTls(Command):
    """STARTTLS (RFC 3207 4): behind its 220 the handshake begins, and the session starts anew."""

    extension = "STARTTLS"
    syntax = "STARTTLS"
    ends_group = True

    def examine(self, state: State) -> Reply:
        self._no_argument(state)
        if state.secure:
            return _ALREADY_ACTIVE
        return _READY if state.esmtp else SEND_EHLO_FIRST

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.starting_tls = True
            # What comes in the clear by now may be an attacker's (CVE-2011-0411).
            state.receiving = Dropped(), self
