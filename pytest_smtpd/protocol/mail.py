"""The mail transaction (RFC 5321 3.3): MAIL, RCPT, DATA, and the end of mail data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from . import grammar
from .content import MailData, content_lints
from .events import OK, SEND_HELO_FIRST, Command, Event, Refusal
from .lints import Lint
from .replies import Reply
from .state import Transaction

if TYPE_CHECKING:
    from .grammar import Parameters
    from .state import ParameterCheck, State

MAIL_OK = Reply(250, "OK", "2.1.0")
RCPT_OK = Reply(250, "OK", "2.1.5")
START_MAIL_INPUT = Reply(354, "End data with <CR><LF>.<CR><LF>")
NESTED_MAIL = Reply(503, "Error: nested MAIL command", "5.5.1")
NEED_MAIL = Reply(503, "Error: need MAIL command", "5.5.1")
NEED_RCPT = Reply(503, "Error: need RCPT command", "5.5.1")
NO_VALID_RECIPIENTS = Reply(554, "Error: no valid recipients", "5.5.1")
TOO_MANY_RECIPIENTS = Reply(452, "Error: too many recipients", "4.5.3")
TOO_MUCH_MAIL_DATA = Reply(552, "Error: Too much mail data", "5.3.4")

#: What a strict server answers to content that has one of these.
_STRICT_CONTENT = {
    Lint.BARE_LF: Reply(550, "Error: bare <LF> received", "5.5.2"),
    Lint.BARE_CR: Reply(550, "Error: bare <CR> received", "5.5.2"),
    Lint.LONG_LINE: Reply(554, "Error: a line is longer than 998 octets", "5.6.0"),
    Lint.UNDECLARED_8BIT: Reply(554, "Error: 8-bit content without BODY=8BITMIME", "5.6.1"),
}


class _PathCommand(Command):
    """What MAIL and RCPT have in common: a path and parameters."""

    __slots__ = ("parameters", "path")

    keyword: ClassVar[str]
    #: The enhanced status code for an address that cannot be one.
    bad_address: ClassVar[str]
    #: What a strict server answers to a non-ASCII address without SMTPUTF8.
    no_smtputf8: ClassVar[Reply]
    unknown_parameter: ClassVar[Reply]

    def __init__(self, verb: str, argument: str) -> None:
        super().__init__(verb, argument)
        #: What it names. Whoever accepts an argument that has no path in it gets the argument.
        self.path = grammar.Path(argument)
        self.parameters: Parameters = []

    def _full_syntax(self, state: State) -> str:
        return f"{self.syntax} [SP <mail-parameters>]" if state.esmtp else self.syntax

    def _read_argument(self, state: State) -> None:
        try:
            self.path, rest = grammar.parse_path_argument(self.keyword, self.argument)
            self.parameters = grammar.parse_parameters(rest) if rest else []
        except grammar.PathError:
            raise Refusal(self._syntax_error(state, self.bad_address)) from None
        except grammar.GrammarError:
            raise Refusal(self._syntax_error(state)) from None
        for lint in self.path.lints:
            form = lint in {Lint.SPACE_BEFORE_PATH, Lint.NO_BRACKETS}
            self._sloppy(lint, state, self._syntax_error(state, "5.5.4" if form else self.bad_address))

    def _check_parameters(self, state: State, checks: dict[str, ParameterCheck]) -> None:
        seen: set[str] = set()
        for keyword, value in self.parameters:
            check = checks.get(keyword)
            if check is None:
                raise Refusal(self.unknown_parameter)
            if keyword in seen and value is not None:
                raise Refusal(self._syntax_error(state))
            if keyword in seen:
                # CPython's smtplib sends SMTPUTF8 twice when it is in mail_options, too.
                self._sloppy(Lint.DUPLICATE_PARAMETER, state, self._syntax_error(state))
            seen.add(keyword)
            if refusal := check(value, state.settings):
                raise Refusal(refusal)
        if self.parameters and not state.esmtp:
            self._sloppy(Lint.PARAMETER_WITHOUT_EHLO, state, self.unknown_parameter)

    def _check_ascii(self, state: State, parameters: Parameters) -> None:
        if not self.path.mailbox.isascii() and ("SMTPUTF8", None) not in parameters:
            self._sloppy(Lint.RAW_UTF8_ADDRESS, state, self.no_smtputf8)


class Mail(_PathCommand):
    """MAIL (RFC 5321 4.1.1.2): opens a transaction."""

    __slots__ = ()
    syntax = "MAIL FROM: <address>"
    keyword = "FROM:"
    bad_address = "5.1.7"
    no_smtputf8 = Reply(550, "Error: the address needs SMTPUTF8", "5.6.7")
    unknown_parameter = Reply(555, "MAIL FROM parameters not recognized or not implemented", "5.5.4")

    def examine(self, state: State) -> Reply:
        if state.helo is None:
            return SEND_HELO_FIRST
        self._read_argument(state)
        if state.transaction is not None:
            return NESTED_MAIL
        self._check_parameters(state, state.settings.mail_parameters)
        self._check_ascii(state, self.parameters)
        return MAIL_OK

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.transaction = Transaction(self.path, self.parameters, dict(state.lints))


class Rcpt(_PathCommand):
    """RCPT (RFC 5321 4.1.1.3): adds a recipient to the transaction."""

    __slots__ = ()
    syntax = "RCPT TO: <address>"
    keyword = "TO:"
    bad_address = "5.1.3"
    no_smtputf8 = Reply(553, "Error: the address needs SMTPUTF8", "5.6.7")
    unknown_parameter = Reply(555, "RCPT TO parameters not recognized or not implemented", "5.5.4")

    def examine(self, state: State) -> Reply:
        if state.helo is None:
            return SEND_HELO_FIRST
        transaction = state.transaction
        if transaction is None:
            return NEED_MAIL
        self._read_argument(state)
        if not self.path.mailbox:
            raise Refusal(self._syntax_error(state, self.bad_address))
        self._check_parameters(state, state.settings.rcpt_parameters)
        self._check_ascii(state, transaction.parameters)
        full = len(transaction.forward_paths) >= state.settings.max_recipients
        return TOO_MANY_RECIPIENTS if full else RCPT_OK

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive and state.transaction is not None:
            state.transaction.forward_paths.append(self.path)
            state.transaction.forward_parameters.append(self.parameters)


class Data(Command):
    """DATA (RFC 5321 4.1.1.4): its 354 makes all that follows content."""

    __slots__ = ()
    syntax = "DATA"
    ends_group = True

    def examine(self, state: State) -> Reply:
        self._no_argument(state)
        if state.helo is None:
            return SEND_HELO_FIRST
        if state.transaction is None or not state.transaction.forward_paths:
            return NEED_RCPT
        return START_MAIL_INPUT

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_intermediate:
            state.mail_data = MailData(state.settings.data_size_limit)


class Content(Event):
    """The end of mail data. Whether the server takes the message is the question.

    `transaction` is the envelope; `data` the content in bytes, CRLF kept and dots removed.
    """

    __slots__ = ("mail_data", "transaction")
    stage = "CONTENT"

    def __init__(self, transaction: Transaction | None, mail_data: MailData) -> None:
        super().__init__()
        # A DATA that was answered with 354 although there was no transaction leads here without one.
        self.transaction = transaction or Transaction(grammar.Path(""), [], {})
        self.mail_data = mail_data

    @property
    def data(self) -> bytes:
        """The content, b"" if it was too large."""
        return self.mail_data.data

    def examine(self, state: State) -> Reply:
        if not self.transaction.forward_paths:
            return NO_VALID_RECIPIENTS  # RFC 2920 3.2 (4): a client that pipelined DATA sends its lone dot
        if self.mail_data.too_large:
            return TOO_MUCH_MAIL_DATA
        if state.settings.strict:
            for lint in content_lints(self.data, self.transaction.parameters):
                if refusal := _STRICT_CONTENT.get(lint):
                    return refusal
        return OK

    def take(self, state: State, reply: Reply) -> None:  # noqa: ARG002 - whatever it was, it is over
        state.transaction = None
        state.mail_data = None
