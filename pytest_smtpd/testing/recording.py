"""RecordingServer: an SMTP server that keeps what it receives, for tests to look at."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.content import MAX_CONTENT_LINE
from pytest_smtpd.protocol.directory import EXPN
from pytest_smtpd.protocol.events import Refusal
from pytest_smtpd.protocol.grammar import format_parameters
from pytest_smtpd.protocol.limits import LIMITS
from pytest_smtpd.protocol.mail import Content, Mail
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.state import DATA_SIZE_DEFAULT, MAX_COMMAND_LINE, MAX_RECIPIENTS, Settings, check_limit
from pytest_smtpd.smtpd.channel import SMTPChannel
from pytest_smtpd.smtpd.server import SMTPServer

from .dialogue import Dialogue
from .message import Message
from .outbox import Outbox
from .security import Security

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.sasl import Users

    from .outbox import Messages


#: How many dialogues are kept.
MAX_DIALOGUES = 1000
#: How many lines of a dialogue a failure shows.
MAX_QUOTED_LINES = 40

_NO_PASSWORDS = Reply(454, "Temporary authentication failure", "4.7.0")


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    """A transaction that was begun and not completed: its connection ended before the content did."""

    peer: tuple[Any, ...]
    mailfrom: str
    rcpttos: list[str]

    def __str__(self) -> str:
        return f"from <{self.mailfrom}> to {', '.join(f'<{address}>' for address in self.rcpttos) or 'nobody'}"


@dataclass(frozen=True, slots=True)
class TLSFailure:
    """A TLS connection that failed: what the client did not like, or did wrong."""

    peer: tuple[Any, ...]
    error: OSError

    def __str__(self) -> str:
        return f"from {self.peer[0]}: {self.error}"


class RecordingChannel(SMTPChannel):
    """Records each message before its 250 is sent."""

    smtp_server: RecordingServer
    #: When the transaction began, counted by `Outbox.generation`.
    _generation = 0
    #: What is said on this connection in the present generation, and which that is.
    _dialogue: Dialogue
    _dialogue_generation = -1

    @property
    def dialogue(self) -> Dialogue:
        """What is said on this connection, since it was made or since the server was cleared."""
        generation = self.smtp_server.messages.generation
        if self._dialogue_generation != generation:
            enhanced = "ENHANCEDSTATUSCODES" in self.session.state.settings.keywords
            self._dialogue = Dialogue(self.peer, self.smtp_server.clock(), enhanced=enhanced)
            self._dialogue_generation = self.smtp_server.begin_dialogue(self._dialogue)
        return self._dialogue

    def settle(self, event: Event, reply: Reply) -> None:
        """Note the exchange, record a message, send."""
        self.dialogue.add(self.smtp_server.clock(), event, reply)
        super().settle(event, reply)

    def end(self, reply: Reply) -> None:
        """End the session unasked, and note it."""
        if not self.session.state.closing:
            self.dialogue.add(self.smtp_server.clock(), None, reply)
        super().end(reply)

    def tls_established(self) -> None:
        """Begin anew, encrypted, and note it."""
        self.dialogue.remark(self.smtp_server.clock(), "TLS is active")
        super().tls_established()

    def tls_failed(self, error: OSError) -> None:
        """Note that TLS failed."""
        self.dialogue.remark(self.smtp_server.clock(), f"TLS failed: {error}")
        super().tls_failed(error)

    def answer(self, event: Event) -> Reply | None:
        """Answer as usual; note when a transaction begins."""
        if isinstance(event, Mail) and self.session.state.transaction is None:
            self._generation = self.smtp_server.messages.generation
        return super().answer(event)

    def process(self, content: Content) -> Reply | None:
        """Ask `process_message` only where there is one: it costs a copy of the content."""
        return super().process(content) if self.smtp_server.has_hook else content.reply

    def deliver(self, content: Content) -> None:
        """Record the message."""
        state, transaction = self.session.state, content.transaction
        message = Message(
            peer=self.peer,
            mailfrom=transaction.reverse_path.mailbox,
            rcpttos=[transaction.forward_paths[index].mailbox for index in content.accepted],
            data=content.data,
            mail_options=format_parameters(transaction.parameters),
            rcpt_options=[format_parameters(transaction.forward_parameters[index]) for index in content.accepted],
            helo=state.helo or "",
            esmtp=state.esmtp,
            tls=self.conn.tls.info if self.conn.tls else None,
            auth=state.identity,
            envelope_lints=tuple(transaction.lints),
            dialogue=self.dialogue,
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

    A `host` that begins with a slash is the path of a Unix socket. Options:

    - `hostname` is what it calls itself, `protocol` what it speaks: "smtp" or "lmtp".
    - `hide` has the keywords of extensions not to offer. `strict` refuses whatever clients must not send,
      where it is otherwise accepted and noted in `Message.lints`.
    - `command_size_limit` is how many octets a command line may have, CRLF included; extensions add to it.
    - Limits, 0 for none: `data_size_limit` (octets of a message), `line_size_limit` (octets of a content line
      with CRLF that a strict server takes), `max_recipients` (of a message), `max_messages`, `max_commands`
      and `max_errors` (of a session), `max_connections` (at once), `timeout` (seconds that a client may be
      silent). If they are given, `max_recipients` and `max_messages` are announced (LIMITS, RFC 9422).
    - `proxy_protocol` expects HAProxy's PROXY header in front of each session.
    - `directory` has addresses by name, or lists of them, which VRFY and EXPN then know.
    - Those of TLS and AUTH are the options of `Security`.

    Subclasses may override `process_message` to answer messages; those that it accepts are recorded.

    Raises OSError when the address can't be bound, ValueError for an option's value that makes no sense.
    """

    def __init__(  # noqa: PLR0913
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        hostname: str = "localhost",
        protocol: Literal["smtp", "lmtp"] = "smtp",
        hide: Iterable[str] = (),
        strict: bool = False,
        data_size_limit: int = DATA_SIZE_DEFAULT,
        command_size_limit: int = MAX_COMMAND_LINE,
        line_size_limit: int = MAX_CONTENT_LINE,
        max_recipients: int | None = None,
        max_messages: int | None = None,
        max_commands: int = 1_000_000,
        max_errors: int = 0,
        max_connections: int = 2000,
        timeout: float = 300.0,
        proxy_protocol: bool = False,
        directory: Mapping[str, str | Sequence[str]] | None = None,
        tls: Literal["starttls", "implicit"] | None = None,
        require_tls: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        client_certificates: Literal["optional", "required"] | None = None,
        users: Mapping[str, str] | Users = None,
        require_auth: bool = False,
        auth_mechanisms: Iterable[str] | None = None,
        auth_without_tls: bool | None = None,
        encryption_required: str | None = None,
    ) -> None:
        security = Security(
            tls=tls,
            require_tls=require_tls,
            ssl_context=ssl_context,
            client_certificates=client_certificates,
            users=self._guard_users(users) if callable(users) else users,
            require_auth=require_auth,
            auth_mechanisms=auth_mechanisms,
            auth_without_tls=auth_without_tls,
            encryption_required=encryption_required,
        )
        if protocol not in {"smtp", "lmtp"}:
            msg = f"protocol is 'smtp' or 'lmtp', not {protocol!r}"
            raise ValueError(msg)
        check_limit("max_connections", max_connections)
        check_limit("timeout", timeout)
        configured = [*security.extensions]
        configured += [] if max_recipients is None and max_messages is None else [LIMITS]
        configured += [] if directory is None else [EXPN]
        self._options = Settings(
            hostname=hostname,
            lmtp=protocol == "lmtp",
            strict=strict,
            data_size_limit=data_size_limit,
            command_size_limit=command_size_limit,
            line_size_limit=line_size_limit,
            max_recipients=MAX_RECIPIENTS if max_recipients is None else max_recipients,
            max_messages=max_messages or 0,
            max_commands=max_commands,
            max_errors=max_errors,
            extensions=extensions.without([hide] if isinstance(hide, str) else hide, configured),
            directory=None if directory is None else _read_directory(directory),
            **security.settings,
        )
        self.max_connections = max_connections
        self.timeout = timeout
        self.proxy_protocol = proxy_protocol
        self.ssl_context = security.context
        self.implicit_tls = security.tls == "implicit"
        #: The messages received since the server was made or cleared.
        self.messages = Outbox()
        self._dialogues: deque[Dialogue] = deque(maxlen=MAX_DIALOGUES)
        # Held where what belongs to one generation is looked at and changed: `clear` is the test's thread.
        self._clearing = threading.Lock()
        #: The transactions that were begun and not completed: the client went away or said QUIT, or the server did.
        self.aborted: list[AbortedTransaction] = []
        #: The TLS connections that failed, in the handshake or later.
        self.tls_failures: list[TLSFailure] = []
        super().__init__((host, port), None, data_size_limit, map={})

    channel_class = RecordingChannel

    def _make_settings(self) -> Settings:
        return self._options

    def _guard_users(self, users: Callable[[str], str | None]) -> Callable[[str], str | None]:
        """Have an exception in a function of the test author's reach the test; the client is told to try again."""

        def password_of(user: str) -> str | None:
            try:
                return users(user)
            except Refusal:
                raise
            except Exception as error:
                self.errors.append(error)
                raise Refusal(_NO_PASSWORDS) from error

        return password_of

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
        """The address as a URL: "smtp://127.0.0.1:2525", or "smtps://…" with implicit TLS, "lmtp://…"."""
        scheme = "lmtp" if self.settings.lmtp else "smtps" if self.implicit_tls else "smtp"
        if self.host.startswith("/"):
            return f"{scheme}://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def cafile(self) -> str:
        """The path of the CA certificate that clients may trust to verify the server: a PEM file."""
        from pytest_smtpd.network.tls import cafile

        return cafile()

    @property
    def client_ssl_context(self) -> ssl.SSLContext:
        """A new context for clients, with which they verify the server, its name included."""
        from pytest_smtpd.network.tls import client_context

        return client_context()

    @property
    def has_hook(self) -> bool:
        """Whether a subclass answers messages."""
        return type(self).process_message is not RecordingServer.process_message

    def process_message(self, *args: Any, **kwargs: Any) -> str | Reply | None:
        """Accept every message; see `SMTPServer.process_message`."""

    def clear(self) -> None:
        """Forget all messages, and those whose transaction has begun: they will not show up any more."""
        with self._clearing:
            self.messages.clear()
            self.aborted = []
            self.tls_failures = []
            self._dialogues.clear()

    def note_tls_failure(self, peer: tuple[Any, ...], error: OSError) -> None:
        """Keep a failure of TLS."""
        with self._clearing:
            self.tls_failures.append(TLSFailure(peer, error))

    def note_aborted(self, aborted: AbortedTransaction, generation: int) -> None:
        """Keep a transaction that was begun in this generation of the outbox and not ended."""
        with self._clearing:
            if generation == self.messages.generation:
                self.aborted.append(aborted)

    @property
    def dialogues(self) -> list[Dialogue]:
        """What was said since the server was made or cleared, by connection: the last 1000 connections."""
        return list(self._dialogues)

    def begin_dialogue(self, dialogue: Dialogue) -> int:
        """Keep what a client is going to say; return the generation of the outbox to which it belongs."""
        with self._clearing:
            self._dialogues.append(dialogue)
            return self.messages.generation

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
        given: object = count
        if given is not None and not isinstance(given, int):
            msg = f"count is how many messages are expected, not {given!r}; criteria go by name, such as subject=…"
            raise TypeError(msg)
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
        lines = [chosen.explain(expected)]
        for title, failures in (
            ("Transactions begun and not completed", self.aborted),
            ("TLS connections that failed", self.tls_failures),
        ):
            if failures:
                lines += [f"{title}: {len(failures)}", *(f"  {failure}" for failure in failures)]
        if not self.messages and (dialogues := self.dialogues):
            lines += [
                f"Dialogues: {len(dialogues)}, the last one:",
                *f"{dialogues[-1]}".splitlines()[-MAX_QUOTED_LINES:],
            ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}, {len(self.messages)} messages>"


def _read_directory(directory: Mapping[str, str | Sequence[str]]) -> dict[str, str | tuple[str, ...]]:
    return {name: entry if isinstance(entry, str) else tuple(entry) for name, entry in directory.items()}
