"""RecordingChannel: one client's session on a RecordingServer: notes, records, and lets rules apply."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.grammar import Path, format_parameters
from pytest_smtpd.protocol.mail import Content, Mail, Rcpt
from pytest_smtpd.protocol.state import Transaction
from pytest_smtpd.smtpd.channel import SMTPChannel

from .actions import Run
from .dialogue import Dialogue
from .message import Message
from .occasions import Arrival, Handshake, Question

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

    from .faults import Rule
    from .occasions import Occasion
    from .outbox import Generation
    from .recording import RecordingServer


class RecordingChannel(SMTPChannel):
    """Records each message before its 250 is sent; does what the server's rules say instead."""

    smtp_server: RecordingServer
    #: When the transaction began.
    _generation: Generation
    #: What is said on this connection in the present generation, and which that is.
    _dialogue: Dialogue
    _dialogue_generation: Generation | None = None
    #: Whether an answer is being chosen, and `_advance` goes on by itself.
    _choosing = False
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
                self._run(rule, Question(self, event))
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

    def _run(self, rule: Rule, occasion: Occasion) -> None:
        rule.dialogues.append(self.dialogue)
        Run(rule, occasion).resume()

    # What rules may apply to beside questions.

    def _start_tls(self) -> None:
        if rule := self.smtp_server.rules.find("TLS", self.look):
            self._run(rule, Handshake(self))
        else:
            super()._start_tls()

    def start_handshake(self) -> None:
        """Begin TLS after all."""
        super()._start_tls()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, unless a rule interrupts content here."""
        if self.smtp_server.rules.interrupt_content and (rule := self._find_interruption(len(data))):
            self.conn.pause_reading()
            self._run(rule, Arrival(self, data))
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
