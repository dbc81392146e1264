"""AUTH (RFC 4954): SASL exchanges in a session; the mechanisms are imported when a client wants one."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from .events import SEND_EHLO_FIRST, Command, Event, Refusal
from .grammar import GrammarError, decode_xtext
from .lints import Lint
from .replies import Reply
from .state import MAX_COMMAND_LINE, Extension

if TYPE_CHECKING:
    from .sasl import Exchange, Identity, Mechanism
    from .state import Settings, State

#: RFC 4954 4: a line of an exchange has 12288 octets at most, CRLF included.
MAX_LINE = 12_288

#: The mechanisms that there are, in the order in which servers should list them; `sasl.MECHANISMS` has them.
MECHANISM_NAMES = ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")

_BASE64 = rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

_SUCCESSFUL = Reply(235, "Authentication successful", "2.7.0")
_INVALID = Reply(535, "Authentication credentials invalid", "5.7.8")
_ALREADY = Reply(503, "Error: already authenticated", "5.5.1")
_IN_TRANSACTION = Reply(503, "Error: AUTH is not allowed in a mail transaction", "5.5.1")
_UNKNOWN_MECHANISM = Reply(504, "Error: unrecognized authentication mechanism", "5.5.4")
_NO_INITIAL_RESPONSE = Reply(501, "Error: this mechanism takes no initial response", "5.7.0")
_CANCELLED = Reply(501, "Error: authentication cancelled", "5.7.0")
_MALFORMED = Reply(501, "Error: malformed authentication response", "5.5.2")
_TOO_LONG = Reply(500, "Error: authentication line too long", "5.5.6")
_BAD_AUTH_PARAMETER = Reply(501, "Error: AUTH takes a mailbox in xtext, or <>", "5.5.4")


def _usable(settings: Settings, secure: bool) -> str | None:  # noqa: FBT001
    """List the mechanisms that may be used now; None: there are none, so AUTH is not offered."""
    from .sasl import MECHANISMS

    names = [name for name in settings.auth_mechanisms if _is_safe(MECHANISMS[name], settings, secure=secure)]
    return " ".join(names) or None


def _is_safe(mechanism: Mechanism, settings: Settings, *, secure: bool) -> bool:
    return secure or settings.auth_without_tls or not mechanism.plaintext


def _check_auth(value: str | None, _state: State) -> Reply | None:
    """RFC 4954 5: whatever identity is claimed is accepted, and believed by nobody."""
    try:
        return None if value and (value == "<>" or decode_xtext(value)) else _BAD_AUTH_PARAMETER
    except GrammarError:
        return _BAD_AUTH_PARAMETER


AUTH = Extension(
    keyword="AUTH",
    parameter=_usable,
    mail_parameters={"AUTH": _check_auth},
    longer_lines={"MAIL": 500, "AUTH": MAX_LINE - MAX_COMMAND_LINE},  # RFC 4954 3 (6), 4
)


class _ExchangeEvent(Event):
    """What both ends of an exchange have in common: a challenge or an outcome for an answer."""

    #: The exchange that goes on if the answer is a challenge.
    exchange: Exchange | None = None
    #: What the client claims to be, as far as it is known by now.
    identity: Identity

    def _respond(self, exchange: Exchange, response: bytes | None) -> Reply:
        """Hand the exchange a response, None to begin; return its next challenge or its outcome as a reply."""
        from .sasl import MalformedResponse

        try:
            challenge = next(exchange) if response is None else exchange.send(response)
        except StopIteration as stop:
            self.identity = stop.value.identity
            return _SUCCESSFUL if stop.value.accepted else _INVALID
        except MalformedResponse:
            return _MALFORMED
        self.exchange = exchange
        return Reply(334, base64.b64encode(challenge).decode())

    def take(self, state: State, reply: Reply) -> None:
        # Whoever answers with a challenge where there is none left gets a response that leads nowhere.
        state.exchange = (self.exchange or _dead_end(self.identity), self.identity) if reply.is_intermediate else None
        if reply.is_positive:
            state.identity = self.identity


class Auth(Command, _ExchangeEvent):
    """AUTH (RFC 4954 4)."""

    extension = "AUTH"
    syntax = "AUTH mechanism [initial-response]"
    ends_group = True

    def __init__(self, verb: str, argument: str) -> None:
        from .sasl import Identity

        super().__init__(verb, argument)
        name, _, self._initial = argument.partition(" ")
        self._name = name.upper() if name.isascii() else name
        self.identity = Identity(self._name, "")

    def examine(self, state: State) -> Reply:
        if not state.esmtp:
            return SEND_EHLO_FIRST
        if state.identity is not None:
            return _ALREADY
        if state.transaction is not None:
            return _IN_TRANSACTION
        if not self._name:
            return self._syntax_error(state)
        mechanism = self._mechanism(state)
        if self._initial and not mechanism.client_first:
            return _NO_INITIAL_RESPONSE
        if len(self.argument) > MAX_COMMAND_LINE - len("AUTH \r\n"):
            self.note_or_refuse(Lint.LONG_INITIAL_RESPONSE, state, _TOO_LONG)
        return self._respond(mechanism.exchange(state.settings.users, self._initial_response()), None)

    def _mechanism(self, state: State) -> Mechanism:
        from .sasl import MECHANISMS

        if self._name not in state.settings.auth_mechanisms:
            raise Refusal(_UNKNOWN_MECHANISM)
        mechanism = MECHANISMS[self._name]
        if not _is_safe(mechanism, state.settings, secure=state.secure):
            raise Refusal(state.settings.encryption_required)
        return mechanism

    def _initial_response(self) -> bytes | None:
        """Decode the initial response; "=" is an empty one, nothing is none (RFC 4954 4)."""
        if not self._initial:
            return None
        return b"" if self._initial == "=" else _decode(self._initial.encode())


class AuthResponse(_ExchangeEvent):
    """A line in an exchange, which is no command; None: one that is too long."""

    stage = "AUTH"
    secret = True

    def __init__(self, exchange: Exchange, identity: Identity, line: bytes | None) -> None:
        self._exchange = exchange
        self.identity = identity
        self._line = line if line is None or len(line) + 2 <= MAX_LINE else None

    @property
    def said(self) -> str:
        return "(a line that is too long)" if self._line is None else self._line.decode("ascii", "backslashreplace")

    def examine(self, state: State) -> Reply:  # noqa: ARG002
        if self._line is None:
            return _TOO_LONG
        if self._line == b"*":
            return _CANCELLED
        return self._respond(self._exchange, _decode(self._line))


def _dead_end(identity: Identity) -> Exchange:
    """Return an exchange that waits for a response, and refuses any."""
    from .sasl import Outcome

    def refuse() -> Exchange:
        yield b""
        return Outcome(identity, accepted=False)

    exchange = refuse()
    next(exchange)
    return exchange


def _decode(line: bytes) -> bytes:
    """Decode base64 and nothing else: Python's decoders differ in what more they take (RFC 4954 4)."""
    if not re.fullmatch(_BASE64, line):
        raise Refusal(_MALFORMED)
    return base64.b64decode(line)
