"""RecordingServer: an SMTP server that keeps what it receives, for tests to look at."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.smtpd.server import SMTPServer

from .access import Access
from .assertions import Assertions
from .channel import RecordingChannel
from .deliveries import Deliveries
from .dialogue import MAX_DIALOGUES, Dialogue
from .options import Configuration, check_address, configure, read_options
from .outbox import Generation, Outbox
from .presets import Presets
from .rules import Rules

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from typing import Unpack

    from pytest_smtpd.network.connection import Address
    from pytest_smtpd.protocol.state import Settings

    from .keywords import Options
    from .message import Message
    from .mishaps import AbortedTransaction, LateMessage, TLSFailure

_OPTIONS_CHANGED = Reply(421, "Service not available, its options have changed", "4.3.2")


class LateMailWarning(UserWarning):
    """Mail came that an earlier test has begun to send; it is in no mailbox."""


class RecordingServer(Access, SMTPServer, Assertions, Deliveries, Presets):
    """An SMTP server on (host, port), port 0 for any free one, that records messages.

        with RecordingServer() as server:
            send_mail(host=server.host, port=server.port)
            message = server.assert_received(subject="Welcome")

    A `host` that begins with a slash is the path of a Unix socket. The options are those of `Configuration`.

    Subclasses may override `process_message` to answer messages; those that it accepts are recorded.

    Raises OSError when the address can't be bound, TypeError for a name that no option has and for a value of
    a wrong type, ValueError for one that makes no sense.
    """

    channel_class = RecordingChannel

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **options: Unpack[Options]) -> None:
        __tracebackhide__ = True
        self.messages = Outbox(self._circumstances)
        self._dialogues: deque[Dialogue] = deque(maxlen=MAX_DIALOGUES)
        # Held where what belongs to one generation is looked at and changed: `clear` is the test's thread.
        self._clearing = threading.Lock()
        #: The transactions that were begun and not completed: the client went away or said QUIT, or the server did.
        self.aborted: list[AbortedTransaction] = []
        #: The TLS connections that failed, in the handshake or later.
        self.tls_failures: list[TLSFailure] = []
        #: The messages that came for an owner before the present one; see `clear`.
        self.late: list[LateMessage] = []
        #: What `on` has added.
        self.rules = Rules(self.call)
        check_address(host, port)
        self._initial: Mapping[str, Any] = read_options(options)
        # Those of the present owner, and those of blocks that have not ended, the innermost last.
        self._own: Mapping[str, Any] = {}
        self._blocks: list[Mapping[str, Any]] = []
        self._given: Mapping[str, Any] = self._initial
        self._configuration = self._configure(self._given)
        self._apply(self._configuration, self._configuration.context)
        super().__init__((host, port), None, self.data_size_limit, map={})

    # Options.

    def _configure(self, options: Mapping[str, Any]) -> Configuration:
        __tracebackhide__ = True
        users = options.get("users")
        if callable(users):
            from .users import GuardedUsers

            options = {**options, "users": GuardedUsers(users, self._note_error)}
        return configure(options)

    def _note_error(self, error: BaseException) -> None:
        self.errors.append(error)

    def _apply(self, configuration: Configuration, context: ssl.SSLContext | None) -> None:
        self.settings = configuration.settings
        self.data_size_limit = configuration.data_size_limit
        self.max_connections = configuration.max_connections
        self.timeout = configuration.timeout
        self.wait_timeout = configuration.wait_timeout
        self.proxy_protocol = configuration.proxy_protocol
        self.allow_unused_rules = configuration.allow_unused_rules
        self.ssl_context = context
        self.implicit_tls = configuration.tls == "implicit"

    def _use(
        self, own: Mapping[str, Any], blocks: list[Mapping[str, Any]], end: Callable[[], None] = lambda: None
    ) -> None:
        """Change the options, all at once, for the connections that are made from now on; `end` the others."""
        __tracebackhide__ = True
        options: dict[str, Any] = {}
        for source in (self._initial, own, *blocks):
            options |= source
        # Users may come and go in their dict: one that is equal now is another one nevertheless.
        if options == self._given and options.get("users") is self._given.get("users"):
            return
        configuration = self._configure(options)  # what it raises is for the caller, before anything has changed
        context = configuration.context

        def apply() -> None:
            has_changed = configuration != self._configuration
            # Here, where one thread comes behind the other: what is noted is what is applied.
            self._given, self._configuration = options, configuration
            self._apply(configuration, context)
            self.watch_idleness()
            if has_changed:
                end()

        self.call(apply)

    def _make_settings(self) -> Settings:
        return self.settings

    def settings_for(self, *_arguments: object) -> Settings:
        """Return the server's settings, whatever a channel was made with."""
        return self.settings

    @contextlib.contextmanager
    def options(self, **options: Unpack[Options]) -> Iterator[None]:
        """Change options for the connections that clients make inside a block; `max_connections` counts them all.

        Raises TypeError and ValueError as the constructor does.
        """
        __tracebackhide__ = True
        block = read_options(options)
        self._use(self._own, [*self._blocks, block])
        self._blocks.append(block)
        try:
            yield
        finally:
            # Itself, and not an equal one further out.
            self._blocks = [other for other in self._blocks if other is not block]
            self._use(self._own, self._blocks)

    def reset(self, owner: str = "", **options: Unpack[Options]) -> None:
        """Be as new, for this owner, with the options of the constructor, these, and those of blocks that go on.

        Where that changes options, sessions that are open are ended with 421: they would go on with others.
        Raises TypeError and ValueError as the constructor does.
        """
        self.end_rules()
        try:
            own = read_options(options)
            self._use(own, self._blocks, partial(self.end_sessions, _OPTIONS_CHANGED))
            self._own = own
        finally:
            self.clear(owner)  # last: what is said to sessions that end is none of this owner's

    @property
    def has_hook(self) -> bool:
        """Whether a subclass answers messages."""
        return type(self).process_message is not RecordingServer.process_message

    def process_message(self, *args: Any, **kwargs: Any) -> str | Reply | None:
        """Accept every message; see `SMTPServer.process_message`."""

    def clear(self, owner: str | None = None) -> None:
        """Forget all messages, and those whose transaction has begun: they will not show up any more.

        What comes next is for this owner, such as a test; for the present one if it is None. Messages that
        another one's clients send late are in `late`.
        """
        with self._clearing:
            self.messages.clear(owner)
            self.aborted = []
            self.tls_failures = []
            self._dialogues.clear()

    def note_tls_failure(self, peer: tuple[Any, ...], error: OSError) -> None:
        """Keep a failure of TLS."""
        from .mishaps import TLSFailure

        with self._clearing:
            self.tls_failures.append(TLSFailure(peer, error))

    def note_late(self, message: Message, generation: Generation) -> None:
        """Keep a message whose transaction began in this generation, which is over, if it was another owner's."""
        if generation.owner != self.messages.generation.owner:
            from .mishaps import LateMessage

            self.late.append(LateMessage(message, generation.owner))

    def note_aborted(self, peer: Address, mailfrom: str, rcpttos: list[str], generation: Generation) -> None:
        """Keep a transaction that was begun in this generation and not ended."""
        from .mishaps import AbortedTransaction

        with self._clearing:
            if generation is self.messages.generation:
                # A list of its own: the channel's would keep the channel, and what came of the content with it.
                self.aborted.append(AbortedTransaction(peer, mailfrom, list(rcpttos)))

    @property
    def dialogues(self) -> list[Dialogue]:
        """What was said since the server was made or cleared, by connection: the last 1000 connections."""
        return list(self._dialogues)

    def begin_dialogue(self, dialogue: Dialogue) -> Generation:
        """Keep what a client is going to say; return the generation to which it belongs."""
        with self._clearing:
            self._dialogues.append(dialogue)
            return self.messages.generation

    def take_late(self) -> list[LateMessage]:
        """Return the late messages, and forget them."""
        late, self.late = self.late, []
        return late

    def stopped(self) -> None:
        """Tell those who wait for messages that none can come."""
        self.messages.wake()

    def _circumstances(self) -> list[str]:
        """Say what happened beside the messages, for a test that misses one."""
        from .explanation import Incidents, Section, format_peer

        dialogues = self.dialogues
        silent = [format_peer(channel.peer) for channel in self._recording_channels if channel.is_silent]
        stopped = "" if self.loop else " The server is down." if self.is_down else " The server is not running."
        return [
            *Section("Exceptions in the server", map(repr, self.errors)).lines,
            *([] if dialogues or silent else [f"No client has connected to {self.public_url}.{stopped}"]),
            *Incidents(dialogues).lines,
            *Section("Clients connected that have said nothing", silent).lines,
            *Section("Rules", [rule.summary for rule in self.rules]).lines,
        ]

    def explain_idle(self, ending: str) -> str:
        """Say which clients are connected, and how the wait for them to go has ended."""
        from .explanation import Section

        clients = Section("Clients connected", list(self._channels))
        return "\n".join([f"expected no client to be connected{ending}", *clients.lines])

    @property
    def is_used(self) -> bool:
        """Whether anything has happened since the server was made or cleared."""
        return bool(self.messages or self._dialogues or self.tls_failures or self.errors)

    def report(self) -> str:
        """Return what happened since the server was made or cleared, for a test that has failed.

        It has the messages, what did not become one, and what was said, with passwords masked.
        """
        from .explanation import format_dialogues, format_errors

        return "\n".join(
            [
                self.messages.summary,
                *self._circumstances(),
                *format_errors(self.errors),
                *format_dialogues(self.dialogues),
            ]
        )

    def __repr__(self) -> str:
        from .explanation import format_peer

        return f"<{type(self).__name__} on {format_peer(self.address)}, {len(self.messages)} messages>"
