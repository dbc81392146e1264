"""RecordingServer: an SMTP server that keeps what it receives, for tests to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.grammar import format_parameters
from pytest_smtpd.protocol.mail import Content, Mail
from pytest_smtpd.protocol.state import Settings
from pytest_smtpd.smtpd.channel import DATA_SIZE_DEFAULT, SMTPChannel
from pytest_smtpd.smtpd.server import SMTPServer

from .message import Message
from .outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

    from .outbox import Messages


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    """A transaction that was begun and not ended: its client went away before the end of the content."""

    peer: tuple[Any, ...]
    mailfrom: str
    rcpttos: list[str]

    def __str__(self) -> str:
        return f"from <{self.mailfrom}> to {', '.join(f'<{address}>' for address in self.rcpttos) or 'nobody'}"


class RecordingChannel(SMTPChannel):
    """Records each message before its 250 is sent."""

    smtp_server: RecordingServer
    #: When the transaction began, counted by `Outbox.generation`.
    _generation = 0

    def answer(self, event: Event) -> Reply | None:
        """Answer as usual; note when a transaction begins."""
        if isinstance(event, Mail) and self.session.state.transaction is None:
            self._generation = self.smtp_server.messages.generation
        return super().answer(event)

    def process(self, content: Content) -> Reply:
        """Ask `process_message` only where there is one: it costs a copy of the content."""
        return super().process(content) if self.smtp_server.has_hook else content.reply

    def deliver(self, content: Content) -> None:
        """Record the message."""
        state, transaction = self.session.state, content.transaction
        message = Message(
            peer=self.peer,
            mailfrom=transaction.reverse_path.mailbox,
            rcpttos=[path.mailbox for path in transaction.forward_paths],
            data=content.data,
            mail_options=format_parameters(transaction.parameters),
            rcpt_options=[format_parameters(parameters) for parameters in transaction.forward_parameters],
            helo=state.helo or "",
            esmtp=state.esmtp,
            envelope_lints=tuple(transaction.lints),
        )
        self.smtp_server.messages.add(message, self._generation)

    def connection_lost(self) -> None:
        """Record the transaction that this ends, if there is one."""
        if self.session.state.transaction is not None:
            self.smtp_server.note_aborted(
                AbortedTransaction(self.peer, self.mailfrom or "", self.rcpttos), self._generation
            )
        super().connection_lost()


class RecordingServer(SMTPServer):
    """An SMTP server on (host, port), port 0 for any free one, that records messages.

        with RecordingServer() as server:
            send_mail(host=server.host, port=server.port)
            message = server.assert_received(subject="Welcome")

    Options: `hostname` is what it calls itself; `data_size_limit` in octets, 0 for none; `max_recipients`
    of one message; `hide` has the keywords of extensions not to offer; `strict` refuses whatever clients
    must not send, where it is otherwise accepted and noted in `Message.lints`. Subclasses may override
    `process_message` to answer messages; those that it accepts are recorded.

    Raises OSError when the address can't be bound, ValueError for an option's value that makes no sense.
    """

    def __init__(  # noqa: PLR0913
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        hostname: str = "localhost",
        data_size_limit: int = DATA_SIZE_DEFAULT,
        max_recipients: int = 1000,
        hide: Iterable[str] = (),
        strict: bool = False,
    ) -> None:
        self._options = Settings(
            hostname=hostname,
            data_size_limit=data_size_limit,
            max_recipients=max_recipients,
            strict=strict,
            extensions=extensions.without([hide] if isinstance(hide, str) else hide),
        )
        #: The messages received since the server was made or cleared.
        self.messages = Outbox()
        #: The transactions that were begun and never ended: the client went away.
        self.aborted: list[AbortedTransaction] = []
        super().__init__((host, port), None, data_size_limit, map={})

    channel_class = RecordingChannel

    def _make_settings(self) -> Settings:
        return self._options

    @property
    def host(self) -> str:
        """The address it listens on, such as "127.0.0.1"."""
        return str(self.address[0])

    @property
    def port(self) -> int:
        """The port it listens on; the same for as long as the server lives."""
        return int(self.address[1])

    @property
    def address(self) -> tuple[str, int]:
        """(host, port), as `smtplib.SMTP(*server.address)` takes it."""
        return self._bound_address[:2]

    @property
    def url(self) -> str:
        """The address as a URL: "smtp://127.0.0.1:2525"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"smtp://{host}:{self.port}"

    @property
    def has_hook(self) -> bool:
        """Whether a subclass answers messages."""
        return type(self).process_message is not RecordingServer.process_message

    def process_message(self, *args: Any, **kwargs: Any) -> str | None:
        """Accept every message; see `SMTPServer.process_message`."""

    def clear(self) -> None:
        """Forget all messages, and those whose transaction has begun: they will not show up any more."""
        self.messages.clear()
        self.aborted = []

    def note_aborted(self, aborted: AbortedTransaction, generation: int) -> None:
        """Keep a transaction that was begun in this generation of the outbox and not ended."""
        if generation == self.messages.generation:
            self.aborted.append(aborted)

    @overload
    def assert_received(self, count: None = None, **criteria: Any) -> Message: ...
    @overload
    def assert_received(self, count: int, **criteria: Any) -> list[Message]: ...
    def assert_received(self, count: int | None = None, **criteria: Any) -> Message | list[Message]:
        """Return the only message that meets the criteria, or with `count` the list of so many.

        Raises AssertionError when there are more or fewer, and says of the nearest messages what differs;
        TypeError for a name that is no criterion. See `Criteria` for what values mean.
        """
        __tracebackhide__ = True
        chosen = self.messages.where(**criteria)
        if len(chosen) != (1 if count is None else count):
            raise AssertionError(self._explain(chosen, "exactly one message" if count is None else f"{count} messages"))
        return chosen[0] if count is None else list(chosen)

    def assert_not_received(self, **criteria: Any) -> None:
        """Raise AssertionError when there is a message that meets the criteria."""
        __tracebackhide__ = True
        chosen = self.messages.where(**criteria)
        if chosen:
            raise AssertionError(self._explain(chosen, "no message"))

    def _explain(self, chosen: Messages, expected: str) -> str:
        aborted = [f"Transactions aborted by the client: {len(self.aborted)}"] if self.aborted else []
        return "\n".join([chosen.explain(expected), *aborted, *(f"  {transaction}" for transaction in self.aborted)])
