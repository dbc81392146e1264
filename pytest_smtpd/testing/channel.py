"""RecordingChannel: one client's session on a RecordingServer: notes, records, and lets rules apply."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pytest_smtpd.protocol.events import OK
from pytest_smtpd.protocol.grammar import Path, format_parameters
from pytest_smtpd.protocol.mail import Content, Mail, Rcpt
from pytest_smtpd.protocol.state import Transaction
from pytest_smtpd.smtpd.channel import Server, SMTPChannel

from .actions import Run
from .dialogue import Dialogue
from .message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_smtpd.network.connection import Address
    from pytest_smtpd.network.loop import Loop
    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

    from .actions import Occasion
    from .faults import Rule, Rules
    from .outbox import Generation, Outbox


class Recorder(Server, Protocol):
    """What a channel needs of its server to record."""

    messages: Outbox
    rules: Rules

    @property
    def loop(self) -> Loop | None:
        """What serves."""

    @property
    def has_hook(self) -> bool:
        """Whether a subclass answers messages."""

    def begin_dialogue(self, dialogue: Dialogue) -> Generation:
        """Keep what a client is going to say; return the generation to which it belongs."""

    def record(self, message: Message, generation: Generation) -> None:
        """Keep a message whose transaction began in this generation."""

    def note_aborted(self, peer: Address, mailfrom: str, rcpttos: list[str], generation: Generation) -> None:
        """Keep a transaction that was begun in this generation and not ended."""


class RecordingChannel(SMTPChannel):
    """Records each message before its 250 is sent; does what the server's rules say instead."""

    smtp_server: Recorder
    #: When the transaction began.
    _generation: Generation
    #: What is said on this connection in the present generation, and which that is.
    _dialogue: Dialogue
    _dialogue_generation: Generation | None = None
    #: Whether an answer is being chosen, and `_advance` goes on by itself.
    _choosing = False
    #: What a rule does here, or has done last.
    _run: Run | None = None
    #: The content that a rule has interrupted; once is enough.
    _interrupted: object = None

    @property
    def dialogue(self) -> Dialogue:
        """What is said on this connection, since it was made or since the server was cleared."""
        generation = self.smtp_server.messages.generation
        if self._dialogue_generation is not generation:
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
        """Answer as usual, unless a rule applies; note when a transaction begins."""
        if isinstance(event, Mail) and self.session.state.transaction is None:
            self._generation = self.smtp_server.messages.generation
        if self.smtp_server.rules and (rule := self.smtp_server.rules.find(event.stage, lambda: self.look(event))):
            self._choosing = True
            try:
                self._apply(rule, _Question(self, event))
            finally:
                self._choosing = False
            return None
        return super().answer(event)

    def usual_answer(self, event: Event) -> Reply | None:
        """Return what is answered where no rule applies."""
        return super().answer(event)

    def complete(self, event: Event, reply: Reply, sent: Reply) -> None:
        """Answer the event that waits with `sent`, which is `reply` or the rest of it."""
        if event is not self.session.waiting:
            return  # the session has ended meanwhile
        self.dialogue.add(self.smtp_server.clock(), event, reply)
        super().settle(event, sent)
        if not self._choosing:
            self.idle_since = self.smtp_server.clock()
            self.conn.resume_reading()
            self._advance()

    def store(self, content: Content, reply: Reply) -> None:
        """Record a message now, as if this were its answer."""
        if content.decide(reply):
            self.deliver(content)
        content.stored = True

    def flush(self) -> None:
        """Send the answers so far."""
        if data := self.session.data_to_send():
            self.conn.write(data)

    def hang_up(self, remark: str, *, abort: bool = False) -> None:
        """Close the connection behind the answers so far, without a word."""
        self.flush()
        self.dialogue.remark(self.smtp_server.clock(), remark)
        self.session.state.closing = True
        if abort:
            self.conn.abort()
        else:
            self.conn.close()

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have this called in so many seconds, in the serving thread."""
        if (loop := self.smtp_server.loop) is not None:
            loop.call_later(seconds, call)

    @property
    def waits_for_rule(self) -> bool:
        """Whether a rule lets the client wait."""
        return self._run is not None and self._run.waits

    def _apply(self, rule: Rule, occasion: Occasion) -> None:
        rule.dialogues.append(self.dialogue)
        self._run = Run(rule.script, occasion)
        self._run.resume()

    # What rules may apply to beside questions.

    def _start_tls(self) -> None:
        if rule := self.smtp_server.rules.find("TLS", self.look):
            self._apply(rule, _Handshake(self))
        else:
            super()._start_tls()

    def start_handshake(self) -> None:
        """Begin TLS after all."""
        super()._start_tls()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, unless a rule interrupts content here."""
        if self.smtp_server.rules.interrupt_content and (rule := self._find_interruption(len(data))):
            self.conn.pause_reading()
            self._apply(rule, _Arrival(self, data))
        else:
            self.take(data)

    def take(self, data: bytes) -> None:
        """Take what the client sent."""
        super().data_received(data)
        if self.smtp_server.rules.interrupt_content:
            self.conn.reads_large = False  # so that it all comes here

    def _find_interruption(self, octets: int) -> Rule | None:
        content = self.session.receiving
        if content is None or content is self._interrupted:
            return None
        rule = self.smtp_server.rules.find("CONTENT", self.look, content.store.size + octets)
        if rule is not None:
            self._interrupted = content
        return rule

    # What is recorded.

    def look(self, event: Event | None = None) -> Message:
        """Return what is known of the message so far, as an event's command would make it."""
        if isinstance(event, Content):
            return self._make_message(event.transaction, range(len(event.transaction.forward_paths)), event.data)
        transaction = self.session.state.transaction or Transaction(Path(""), (), {})
        if isinstance(event, Mail):
            transaction = Transaction(event.accepted_path, event.parameters, {})
        elif isinstance(event, Rcpt):
            # The one that is asked for, not those before.
            transaction = replace(
                transaction, forward_paths=[event.accepted_path], forward_parameters=[event.parameters]
            )
        return self._make_message(transaction, range(len(transaction.forward_paths)), b"")

    def process(self, content: Content) -> Reply:
        """Ask `process_message` only where there is one: it costs a copy of the content."""
        return super().process(content) if self.smtp_server.has_hook else content.reply

    def deliver(self, content: Content) -> None:
        """Record the message."""
        self.smtp_server.record(
            self._make_message(content.transaction, content.accepted, content.data), self._generation
        )

    def _make_message(self, transaction: Transaction, accepted: Iterable[int], data: bytes) -> Message:
        state = self.session.state
        return Message(
            peer=self.peer,
            mailfrom=transaction.reverse_path.mailbox,
            rcpttos=[transaction.forward_paths[index].mailbox for index in accepted],
            data=data,
            mail_options=format_parameters(transaction.parameters),
            rcpt_options=[format_parameters(transaction.forward_parameters[index]) for index in accepted],
            rejected=list(transaction.rejected),
            helo=state.helo or "",
            esmtp=state.esmtp,
            tls=self.conn.tls.info if self.conn.tls else None,
            auth=state.identity,
            envelope_lints=tuple(transaction.lints),
            dialogue=self.dialogue,
        )

    def connection_lost(self) -> None:
        """Tell the server of the transaction that this ends, if there is one."""
        if self._dialogue_generation is not None:
            self._dialogue.ended = True
        if self.session.state.transaction is not None:
            self.smtp_server.note_aborted(self.peer, self.mailfrom or "", self.rcpttos, self._generation)
        super().connection_lost()


class _Occasion:
    """What a rule's script acts on; by itself there is nothing to answer, and things go on as they would."""

    def __init__(self, channel: RecordingChannel) -> None:
        self.channel = channel

    def store(self) -> None:
        """Record the message now."""

    def drop(self) -> None:
        """See to it that the message is not recorded."""

    def usual_reply(self) -> Reply | None:
        """Return what is answered where no rule applies; None: nothing, or it comes later."""
        return None

    def octets_of(self, reply: Reply) -> bytes:
        """Return a reply as it is sent."""
        return reply.to_bytes()

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Answer with `sent`, which is `reply` or the rest of it; None: go on."""
        raise NotImplementedError


class _Question(_Occasion):
    """An event of the session."""

    def __init__(self, channel: RecordingChannel, event: Event) -> None:
        super().__init__(channel)
        self._event = event

    def store(self) -> None:
        """Record the message now."""
        if isinstance(self._event, Content):
            self.channel.store(self._event, OK)

    def drop(self) -> None:
        """See to it that the message is not recorded."""
        if isinstance(self._event, Content):
            self._event.stored = True

    def usual_reply(self) -> Reply | None:
        """Return what a subclass or the session answers."""
        return self.channel.usual_answer(self._event)

    def octets_of(self, reply: Reply) -> bytes:
        """Return a reply as the session sends it, with its enhanced status code where that is offered."""
        return self.channel.session.octets_of(self._event, reply)

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Answer."""
        if reply is not None and sent is not None:
            self.channel.complete(self._event, reply, sent)


class _Handshake(_Occasion):
    """The beginning of TLS. An answer to it is one in plain text."""

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:  # noqa: ARG002 - an _Occasion's
        """Begin TLS, or send something else and close."""
        if sent is None:
            self.channel.start_handshake()
        else:
            self.channel.conn.write(sent.to_bytes())
            self.channel.hang_up("the server has answered the handshake in plain text")


class _Arrival(_Occasion):
    """Octets of content, of which more are to come."""

    def __init__(self, channel: RecordingChannel, data: bytes) -> None:
        super().__init__(channel)
        self._data = data

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Go on, having answered too early if there is an answer."""
        channel = self.channel
        if reply is not None and sent is not None:
            channel.dialogue.add(channel.smtp_server.clock(), None, reply)
            channel.conn.write(sent.to_bytes())
        channel.conn.resume_reading()
        channel.take(self._data)
