"""The mail transaction (RFC 5321 3.3): MAIL, RCPT, DATA, and the end of mail data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from . import grammar
from .content import Chunk, ContentStore, MailData, content_lints
from .events import OK, SEND_HELO_FIRST, Command, Event, Refusal
from .grammar import Path
from .lints import Lint
from .replies import SERVICE_NOT_AVAILABLE, SILENCE, Reply
from .state import Transaction

if TYPE_CHECKING:
    from .grammar import Parameters
    from .state import ParameterCheck, Settings, State

MAIL_OK = Reply(250, "OK", "2.1.0")
RCPT_OK = Reply(250, "OK", "2.1.5")
START_MAIL_INPUT = Reply(354, "End data with <CR><LF>.<CR><LF>")
NESTED_MAIL = Reply(503, "Error: nested MAIL command", "5.5.1")
NEED_MAIL = Reply(503, "Error: need MAIL command", "5.5.1")
NEED_RCPT = Reply(503, "Error: need RCPT command", "5.5.1")
NEED_BDAT = Reply(503, "Error: the content comes with BDAT", "5.5.1")
NO_VALID_RECIPIENTS = Reply(554, "Error: no valid recipients", "5.5.1")
TOO_MANY_MESSAGES = Reply(451, "Error: too many messages in one session", "4.5.3")
TOO_MANY_RECIPIENTS = Reply(452, "Error: too many recipients", "4.5.3")
TOO_MUCH_MAIL_DATA = Reply(552, "Error: Too much mail data", "5.3.4")

#: What a strict server answers to content that has one of these.
_STRICT_CONTENT = {
    Lint.BARE_LF: Reply(550, "Error: bare <LF> received", "5.5.2"),
    Lint.BARE_CR: Reply(550, "Error: bare <CR> received", "5.5.2"),
    Lint.LONG_LINE: Reply(554, "Error: a line is too long", "5.6.0"),
    Lint.SIZE_EXCEEDED: Reply(552, "Error: more octets than SIZE has announced", "5.3.4"),
    Lint.UNDECLARED_8BIT: Reply(554, "Error: 8-bit content without BODY=8BITMIME", "5.6.1"),
}


class _Judgement:
    """What is to be said of a MAIL or RCPT line, wherever in a session it stands."""

    #: The answers to a path, and to parameters, that can't be accepted.
    of_path: Reply | None = None
    of_parameters: Reply | None = None
    #: What a patient server puts up with.
    tolerated: tuple[Lint, ...] = ()
    #: Whether the address has more than ASCII.
    is_international = False

    def tolerate_or_refuse(self, lint: Lint, state: State, refusal: Reply) -> None:
        """Keep what a patient server puts up with; a strict one refuses it, and so the Refusal is raised."""
        if state.settings.strict:
            raise Refusal(refusal)
        self.tolerated = (*self.tolerated, lint)


class _PathCommand(Command):
    """What MAIL and RCPT have in common: a path and parameters."""

    keyword: ClassVar[str]
    #: The enhanced status code for an address that cannot be one.
    bad_address: ClassVar[str]
    #: What a strict server answers to a non-ASCII address without SMTPUTF8.
    no_smtputf8: ClassVar[Reply]
    unknown_parameter: ClassVar[Reply]

    #: What it names; None where there is no path in the argument.
    path: Path | None = None
    parameters: Parameters = ()
    #: The enhanced status code for what is wrong with the argument, if it can't be read.
    _flaw = ""
    #: What is to be said of the line; None: nothing.
    _judgement: _Judgement | None = None

    def __init__(self, verb: str, argument: str) -> None:
        super().__init__(verb, argument)
        try:
            self.path, rest = grammar.parse_path_argument(self.keyword, argument)
            if rest:
                self.parameters = grammar.parse_parameters(rest)
        except grammar.PathError:
            self._flaw = self.bad_address
        except grammar.GrammarError:
            self._flaw = "5.5.4"

    @property
    def accepted_path(self) -> Path:
        """What whoever accepts this command gets: the path, or an argument that is none as it stands."""
        return self.path or Path(self.argument)

    @property
    def given_address(self) -> str:
        """The address as the client gave it, also one that can't be read."""
        if self.path is not None:
            return self.path.mailbox
        named = self.argument[: len(self.keyword)].upper() == self.keyword
        return self.argument[len(self.keyword) if named else 0 :].strip(" <>")

    @classmethod
    def full_syntax(cls, state: State) -> str:
        """Return the syntax, with parameters where the client may use any."""
        return f"{cls.syntax} [SP <mail-parameters>]" if state.esmtp else cls.syntax

    def judge(self, state: State) -> None:
        judgement = _Judgement()
        try:
            self._check_path(state, judgement)
        except Refusal as refusal:
            judgement.of_path = refusal.reply
        try:
            if self.parameters and judgement.of_path is None:
                self._check_parameters(state, judgement)
        except Refusal as refusal:
            judgement.of_parameters = refusal.reply
        if judgement.of_path or judgement.of_parameters or judgement.tolerated or judgement.is_international:
            self._judgement = judgement
        self.is_constant = self._judgement is None

    def _check_path(self, state: State, judgement: _Judgement) -> None:
        path = self.path
        if path is None or self._flaw:
            raise Refusal(self._syntax_error(state, self._flaw))
        if self.parameters and not state.esmtp and not state.settings.parameters_after_helo:
            raise Refusal(self._syntax_error(state))
        judgement.is_international = not path.mailbox.isascii()
        for lint in path.lints:
            form = lint in {Lint.SPACE_BEFORE_PATH, Lint.NO_BRACKETS}
            judgement.tolerate_or_refuse(lint, state, self._syntax_error(state, "5.5.4" if form else self.bad_address))

    def _checks(self, settings: Settings) -> dict[str, ParameterCheck]:
        """Return what checks each parameter."""
        raise NotImplementedError

    def _check_parameters(self, state: State, judgement: _Judgement) -> None:
        checks = self._checks(state.settings)
        for keyword, value in self.parameters:
            check = checks.get(keyword)
            if check is None:
                raise Refusal(self.unknown_parameter)
            try:
                refusal = check(value, state)
            except grammar.GrammarError:
                refusal = self._syntax_error(state)
            if refusal is not None:
                raise Refusal(refusal)
        if not state.esmtp:
            judgement.tolerate_or_refuse(Lint.PARAMETER_WITHOUT_EHLO, state, self.unknown_parameter)
        if len(dict(self.parameters)) < len(self.parameters):
            self._check_duplicates(state, judgement)

    def _check_duplicates(self, state: State, judgement: _Judgement) -> None:
        keywords = [keyword for keyword, _ in self.parameters]
        if any(value is not None and keywords.count(keyword) > 1 for keyword, value in self.parameters):
            raise Refusal(self._syntax_error(state))
        # CPython's smtplib sends SMTPUTF8 twice when it is in mail_options, too.
        judgement.tolerate_or_refuse(Lint.DUPLICATE_PARAMETER, state, self._syntax_error(state))

    def _pass_judgement_of_path(self, judgement: _Judgement) -> None:
        """Note what was put up with, and refuse a path that can't be accepted."""
        for lint in judgement.tolerated:
            self.note(lint)
        if judgement.of_path is not None:
            raise Refusal(judgement.of_path)

    def _pass_judgement_of_parameters(self, judgement: _Judgement, parameters: Parameters, state: State) -> None:
        """Refuse what can't be accepted, or what needs others among the parameters of the transaction's MAIL."""
        if judgement.of_parameters is not None:
            raise Refusal(judgement.of_parameters)
        if judgement.is_international and ("SMTPUTF8", None) not in parameters:
            self.note_or_refuse(Lint.RAW_UTF8_ADDRESS, state, self.no_smtputf8)


class Mail(_PathCommand):
    """MAIL (RFC 5321 4.1.1.2): opens a transaction."""

    syntax = "MAIL FROM: <address>"
    reply = MAIL_OK
    keyword = "FROM:"
    bad_address = "5.1.7"
    no_smtputf8 = Reply(550, "Error: the address needs SMTPUTF8", "5.6.7")
    unknown_parameter = Reply(555, "MAIL FROM parameters not recognized or not implemented", "5.5.4")

    def _checks(self, settings: Settings) -> dict[str, ParameterCheck]:
        return settings.mail_parameters

    def examine(self, state: State) -> Reply:
        if state.helo is None:
            return SEND_HELO_FIRST
        judgement = self._judgement
        if judgement is not None:
            self._pass_judgement_of_path(judgement)
        if state.transaction is not None:
            return NESTED_MAIL
        if judgement is not None:
            self._pass_judgement_of_parameters(judgement, self.parameters, state)
        if 0 < state.settings.max_messages <= state.messages:
            return TOO_MANY_MESSAGES
        return MAIL_OK

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_positive:
            state.messages += 1
            state.transaction = Transaction(self.path or self.accepted_path, self.parameters, dict(state.lints))
        elif self.lints:
            self.lints = ()  # they belong to no message


class Rcpt(_PathCommand):
    """RCPT (RFC 5321 4.1.1.3): adds a recipient to the transaction."""

    syntax = "RCPT TO: <address>"
    reply = RCPT_OK
    keyword = "TO:"
    bad_address = "5.1.3"
    no_smtputf8 = Reply(553, "Error: the address needs SMTPUTF8", "5.6.7")
    unknown_parameter = Reply(555, "RCPT TO parameters not recognized or not implemented", "5.5.4")

    def _checks(self, settings: Settings) -> dict[str, ParameterCheck]:
        return settings.rcpt_parameters

    def _check_path(self, state: State, judgement: _Judgement) -> None:
        super()._check_path(state, judgement)
        if not self.accepted_path.mailbox:
            raise Refusal(self._syntax_error(state, self.bad_address))

    def examine(self, state: State) -> Reply:
        if state.helo is None:
            return SEND_HELO_FIRST
        transaction = state.transaction
        if transaction is None:
            return NEED_MAIL
        if transaction.chunks is not None:
            return NEED_BDAT
        judgement = self._judgement
        if judgement is not None:
            self._pass_judgement_of_path(judgement)
            self._pass_judgement_of_parameters(judgement, transaction.parameters, state)
        full = 0 < state.settings.max_recipients <= len(transaction.forward_paths)
        return TOO_MANY_RECIPIENTS if full else RCPT_OK

    def take(self, state: State, reply: Reply) -> None:
        transaction = state.transaction
        if transaction is None:
            return
        if reply.is_positive:
            transaction.forward_paths.append(self.path or self.accepted_path)
            transaction.forward_parameters.append(self.parameters)
        else:
            transaction.reject(self.given_address, reply)


class Data(Command):
    """DATA (RFC 5321 4.1.1.4): its 354 makes all that follows content."""

    syntax = "DATA"
    reply = START_MAIL_INPUT
    ends_group = True
    is_constant = True

    def examine(self, state: State) -> Reply:
        if state.helo is None:
            return SEND_HELO_FIRST
        self._no_argument(state)
        transaction = state.transaction
        if transaction is None or not transaction.forward_paths:
            return NEED_RCPT
        if transaction.needs_chunks:
            return NEED_BDAT
        return START_MAIL_INPUT

    def take(self, state: State, reply: Reply) -> None:
        if reply.is_intermediate:
            store = ContentStore(state.settings.data_size_limit)
            state.receiving = MailData(store), Content.begin(state, store)


#: What stands for content that is done with, and for its envelope.
_FORGOTTEN_CONTENT = ContentStore()
_FORGOTTEN = Transaction(Path(""), (), {})


class Arrival(Event):
    """So many octets of content have come, and more are to: nothing to be answered, but a moment to do something."""

    stage = "CONTENT"
    reply = SILENCE

    def __init__(self, store: ContentStore, mark: int) -> None:
        self.data = store.data
        #: How many octets had to come.
        self.mark = mark

    def forget(self) -> None:
        self.data = b""

    def take(self, state: State, reply: Reply) -> None:  # noqa: ARG002
        self.forget()


class Content(Event):
    """The end of mail data, or of the last chunk. Whether the server takes the message is the question.

    In SMTP there is one such question for all recipients, in LMTP one for each (RFC 2033 4.2).
    """

    stage = "CONTENT"
    concerns_server = True

    #: The command that ends the content; "": a lone dot did.
    command: str = ""
    #: Whether something else has decided about these recipients' message: the answer doesn't.
    decided: bool = False
    #: How many octets it had, once it is forgotten.
    _size: int | None = None
    #: What a strict server answers to the content, once it was looked at: in LMTP that is the same for all recipients.
    _strict_answer: Reply | None = None

    def __init__(
        self, transaction: Transaction, store: ContentStore, about: range, accepted: list[int] | None = None
    ) -> None:
        #: The envelope.
        self.transaction = transaction
        self.store = store
        #: Which of the recipients this question is about.
        self.about = about
        self._is_last = about.stop == len(transaction.forward_paths)
        #: For which of them the message was accepted.
        self.accepted = [] if accepted is None else accepted

    @classmethod
    def begin(cls, state: State, store: ContentStore) -> Self:
        """Return the first question about the content of the open transaction."""
        # A DATA that was answered with 354 although there was no transaction leads here without one.
        transaction = state.transaction or Transaction(Path(""), (), {})
        recipients = len(transaction.forward_paths)
        return cls(transaction, store, range(min(recipients, 1) if state.settings.lmtp else recipients))

    @property
    def said(self) -> str:
        """What stands for the content in a dialogue, once for all questions about it."""
        if self.about.start > 0:
            return ""
        size = self.store.size if self._size is None else self._size
        return self.command or f"({size} octets of content)"

    @property
    def data(self) -> bytes:
        """The content in bytes, CRLF kept and dots removed; b"" if it was too large."""
        return self.store.data

    @property
    def rcpttos(self) -> list[str]:
        """The recipients that this question is about."""
        return [self.transaction.forward_paths[index].mailbox for index in self.about]

    def decide(self, reply: Reply) -> bool:
        """Note an answer that is about to be sent; return whether it completes a message to be stored."""
        if self.decided:
            pass
        elif reply.is_positive:
            self.accepted += self.about
        else:
            for address in self.rcpttos:
                self.transaction.reject(address, reply)
        return bool(self.accepted) and (self._is_last or reply.code == SERVICE_NOT_AVAILABLE)

    def examine(self, state: State) -> Reply:
        if not self.transaction.forward_paths:
            return NO_VALID_RECIPIENTS  # RFC 2920 3.2 (4): a client that pipelined DATA sends its lone dot
        if self.store.too_large:
            return TOO_MUCH_MAIL_DATA
        if not state.settings.strict:
            return OK
        if self._strict_answer is None:
            lints = content_lints(self.data, self.transaction.parameters, state.settings.line_size_limit)
            self._strict_answer = next((_STRICT_CONTENT[lint] for lint in lints), OK)
        return self._strict_answer

    def forget(self) -> None:
        self._size, self.store, self.transaction = self.store.size, _FORGOTTEN_CONTENT, _FORGOTTEN

    def take(self, state: State, reply: Reply) -> None:
        if self._is_last or reply.code == SERVICE_NOT_AVAILABLE:
            state.transaction = None
        else:
            state.receiving = Chunk(0, self.store), self._following()
        self.forget()

    def _following(self) -> Self:
        """Return the question about the next recipient."""
        stop = self.about.stop
        following = type(self)(self.transaction, self.store, range(stop, stop + 1), self.accepted)
        following._strict_answer = self._strict_answer  # noqa: SLF001 - its own kind
        return following
