"""Guards: what a session in its present state answers to any command, whatever the command is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import Refusal
from .replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import State

_NO_SERVICE = Reply(503, "Error: no service, only QUIT is possible", "5.5.1")
_TOO_MANY_COMMANDS = Reply(421, "Error: too many commands", "4.7.0")
_TOO_MANY_ERRORS = Reply(421, "Error: too many errors", "4.7.0")
_STARTTLS_FIRST = Reply(530, "Must issue a STARTTLS command first", "5.7.0")
_AUTHENTICATION_REQUIRED = Reply(530, "Authentication required", "5.7.0")

#: What may be said before TLS where it is required (RFC 3207 4), and before AUTH where that is (RFC 4954 6).
_WITHOUT_TLS = frozenset({"CONNECT", "NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT"})
_WITHOUT_AUTH = _WITHOUT_TLS | {"AUTH", "HELO", "RSET"}

#: When a guard lets nothing pass, and its answer: the first that applies.
_GUARDS: tuple[tuple[Callable[[str, State], bool], Reply], ...] = (
    # RFC 5321 3.1: behind a 554 greeting the server waits for QUIT.
    (lambda stage, state: state.refused and stage != "QUIT", _NO_SERVICE),
    (lambda _stage, state: state.has_too_many_commands, _TOO_MANY_COMMANDS),
    (lambda _stage, state: state.has_too_many_errors, _TOO_MANY_ERRORS),
    (
        lambda stage, state: state.settings.require_tls and not state.secure and stage not in _WITHOUT_TLS,
        _STARTTLS_FIRST,
    ),
    (
        lambda stage, state: state.settings.require_auth and not state.identity and stage not in _WITHOUT_AUTH,
        _AUTHENTICATION_REQUIRED,
    ),
)


def guard(stage: str, state: State) -> None:
    """Raise the Refusal of the first guard that does not let an event of this stage pass.

    To be asked where `State.guarded` is set: most sessions need no guards most of the time.
    """
    for refuses, reply in _GUARDS:
        if refuses(stage, state):
            raise Refusal(reply)
