"""What subclasses of smtpd's channel read and set: views of the session, under smtpd's names."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.grammar import (
    GrammarError,
    Parameters,
    Path,
    format_parameters,
    parse_parameters,
    parse_path_argument,
)
from pytest_smtpd.protocol.mail import Content, Mail, Rcpt
from pytest_smtpd.protocol.state import MAX_COMMAND_LINE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pytest_smtpd.network.connection import Connection
    from pytest_smtpd.protocol.session import Session


def upper(parameters: Parameters) -> list[str]:
    """Return parameters as smtpd gave them: "BODY=8BITMIME", all in upper case."""
    return [parameter.upper() for parameter in format_parameters(parameters)]


class _Recipients(list[str]):
    """The forward-paths of a transaction; `append` in an override of RCPT says which one its 250 adds."""

    def __init__(self, addresses: list[str], add: Callable[[str], None]) -> None:
        super().__init__(addresses)
        self._add = add

    def append(self, address: str) -> None:
        """Add a recipient."""
        self._add(address)
        super().append(address)


class ClassicAttributes:
    """The attributes of smtpd's channel.

    What is set in an override counts for the session at once, but for an address: that one counts when the
    command is answered with 250, as every command does.
    """

    #: The values of `smtp_state`; subclasses add others of their own.
    COMMAND, DATA = 0, 1
    #: How many octets a command line may have; extensions add to it.
    command_size_limit = MAX_COMMAND_LINE

    session: Session
    conn: Connection
    _decode_data: bool
    #: What the override that answers just now has pushed; None: none does.
    _pushed: list[str] | None = None
    _own_state: Any = None

    @cached_property
    def received_lines(self) -> list[Any]:
        """The line, or the content, that `found_terminator` is to answer; only where that is overridden."""
        return []

    @cached_property
    def command_size_limits(self) -> defaultdict[str, int]:
        """For code that lengthens lines for an extension; the session knows by itself how much they all add."""
        return defaultdict(lambda: self.command_size_limit)

    @property
    def _emptystring(self) -> Any:
        return "" if self._decode_data else b""

    # The session.

    @property
    def socket(self) -> socket.socket:
        """The client's socket."""
        return self.conn.socket

    @property
    def fqdn(self) -> str:
        """The server's name in its replies."""
        return self.session.state.settings.hostname

    @fqdn.setter
    def fqdn(self, name: str) -> None:
        self._configure(hostname=name)

    @property
    def data_size_limit(self) -> int:
        """How many octets a message may have; 0: any number."""
        return self.session.state.settings.data_size_limit

    @data_size_limit.setter
    def data_size_limit(self, limit: int | None) -> None:
        self._configure(data_size_limit=limit or 0)

    def _configure(self, **settings: Any) -> None:
        """Change settings of this session alone."""
        state = self.session.state
        state.go_by(dataclasses.replace(state.settings, **settings))

    @property
    def seen_greeting(self) -> str:
        """What the client called itself in HELO or EHLO; "" before."""
        return self.session.state.helo or ""

    @seen_greeting.setter
    def seen_greeting(self, name: str | None) -> None:
        self.session.state.helo = name or None

    @property
    def extended_smtp(self) -> bool:
        """Whether the client said EHLO."""
        return self.session.state.esmtp

    @extended_smtp.setter
    def extended_smtp(self, esmtp: bool) -> None:
        self.session.state.speak(esmtp=esmtp)

    @property
    def smtp_state(self) -> Any:
        """DATA while content is answered, else COMMAND; or what a subclass has set, until it sets one of these."""
        if self._own_state is not None:
            return self._own_state
        return self.DATA if isinstance(self.session.waiting, Content) else self.COMMAND

    @smtp_state.setter
    def smtp_state(self, state: Any) -> None:
        self._own_state = None if state in {self.COMMAND, self.DATA} else state

    def set_terminator(self, term: bytes) -> None:
        """Do nothing, as the session knows what ends a line and what ends content (RFC 5321 4.1.1.4)."""
        if term not in {b"\r\n", b"\r\n.\r\n"}:
            msg = f"a line ends with CRLF and content with CRLF.CRLF, not with {term!r}"
            raise ValueError(msg)

    # The transaction.

    @property
    def mailfrom(self) -> str | None:
        """The reverse-path of the open transaction, "" for the null one; None when none is open."""
        transaction = self.session.state.transaction
        return transaction.reverse_path.mailbox if transaction else None

    @mailfrom.setter
    def mailfrom(self, address: str | None) -> None:
        state = self.session.state
        if isinstance(event := self.session.own_event(), Mail):
            event.path = Path(address or "")
        elif address is None:
            state.transaction = None
        elif state.transaction is not None:
            state.transaction.reverse_path = Path(address)

    @property
    def rcpttos(self) -> list[str]:
        """The forward-paths of the open transaction."""
        transaction = self.session.state.transaction
        return _Recipients([path.mailbox for path in transaction.forward_paths] if transaction else [], self._add)

    @rcpttos.setter
    def rcpttos(self, addresses: list[str]) -> None:
        transaction = self.session.state.transaction
        if transaction is not None:
            transaction.forward_paths[:] = [Path(address) for address in addresses]
            transaction.forward_parameters[:] = [()] * len(addresses)

    def _add(self, address: str) -> None:
        """Have the RCPT that is being answered add this one; or add it at once, if there is none or it is answered."""
        event, transaction = self.session.own_event(), self.session.state.transaction
        if isinstance(event, Rcpt) and not self._pushed:
            event.path = Path(address)
        elif transaction is not None:
            transaction.forward_paths.append(Path(address))
            transaction.forward_parameters.append(())

    @property
    def mail_options(self) -> list[str]:
        """The parameters of MAIL in upper case."""
        transaction = self.session.state.transaction
        return upper(transaction.parameters) if transaction else []

    @mail_options.setter
    def mail_options(self, options: list[str]) -> None:
        self._set_parameters(options)

    @property
    def rcpt_options(self) -> list[str]:
        """The parameters of the last RCPT in upper case."""
        transaction = self.session.state.transaction
        return upper(transaction.forward_parameters[-1]) if transaction and transaction.forward_parameters else []

    @rcpt_options.setter
    def rcpt_options(self, options: list[str]) -> None:
        self._set_parameters(options)

    def _set_parameters(self, options: list[str]) -> None:
        event = self.session.own_event()
        if isinstance(event, Mail | Rcpt):
            event.parameters = parse_parameters(" ".join(options)) if options else ()

    @property
    def require_SMTPUTF8(self) -> bool:
        """Whether MAIL had the parameter SMTPUTF8."""
        return "SMTPUTF8" in self.mail_options

    def _set_rset_state(self) -> None:
        """End the transaction, as RSET does."""
        self.session.state.transaction = None

    # What overrides of MAIL and RCPT that don't call `super()` read their argument with.

    def _strip_command_keyword(self, keyword: str, arg: str) -> str:
        return arg[len(keyword) :].strip() if arg.upper().startswith(keyword) else ""

    def _getaddr(self, arg: str) -> tuple[str, str]:
        """Split what follows "FROM:" or "TO:" into the address and the parameters; ("", "") if there is none."""
        try:
            path, rest = parse_path_argument("", arg)
        except GrammarError:
            return "", ""
        return path.mailbox, rest.strip()
