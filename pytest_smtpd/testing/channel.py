"""RecordingChannel: one client's session on a RecordingServer: notes, records, and lets rules apply."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.events import Command
from pytest_smtpd.protocol.grammar import Path, format_parameters
from pytest_smtpd.protocol.mail import Arrival, Content, Mail, Rcpt
from pytest_smtpd.protocol.replies import SILENCE
from pytest_smtpd.protocol.state import Transaction
from pytest_smtpd.smtpd.channel import SMTPChannel

from .dialogue import Dialogue, Remark
from .message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

    from .actions import Occasion, Run
    from .faults import Rule
    from .interface import Recorder
    from .outbox import Generation


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

    @property
    def dialogue(self) -> Dialogue:
        """What is said on this connection, since it was made or since the server was cleared."""
        if self.is_silent:
            self._begin_dialogue()
        return self._dialogue

    @property
    def is_silent(self) -> bool:
        """Whether nothing was said on this connection yet, not even a greeting, or not since the server was cleared."""
        return self._dialogue_generation is not self.smtp_server.messages.generation

    def _begin_dialogue(self) -> None:
        self._dialogue = Dialogue(self.peer, self.idle_since, enhanced=self.session.enhanced)
        self._dialogue_generation = self.smtp_server.begin_dialogue(self._dialogue)

    def __str__(self) -> str:
        from .explanation import describe_session, format_peer

        if self._dialogue_generation is None:
            return f"{format_peer(self.peer)}: the client said nothing"
        return describe_session(self._dialogue)

    def note(self, event: Event, reply: Reply) -> None:
        """Keep the exchange in the dialogue."""
        if self._dialogue_generation is not self.smtp_server.messages.generation:
            self._begin_dialogue()
        self._dialogue.add((self.idle_since, event, reply))

    def tls_established(self) -> None:
        """Begin anew, encrypted, and note it."""
        self.dialogue.remark(self.clock(), "TLS is active")
        super().tls_established()

    def tls_failed(self, error: OSError) -> None:
        """Note that TLS failed."""
        self.dialogue.remark(self.clock(), f"TLS failed: {error}", is_failure=True)
        super().tls_failed(error)

    def connection_made(self) -> None:
        """Begin, with the rules that there are."""
        if self.smtp_server.rules.given:
            self.set_marks(self.smtp_server.rules.marks)
        super().connection_made()

    def end(self, reply: Reply) -> None:
        """End the session unasked, and note it with what the client had asked."""
        if not self.session.state.closing:
            event = self.session.waiting
            self.dialogue.add((self.clock(), event.remains() if event else Remark(""), reply))
            if event is not None:
                self._leave_unanswered(event)
        if self._run is not None and self._run.is_amid_answer:
            self.conn.abort()  # there is no room for a reply
        else:
            super().end(reply)

    # How rules apply.

    def answer(self, event: Event) -> Reply | None:
        """Answer as usual, unless a rule applies; note when a transaction begins."""
        server = self.smtp_server
        if self.session.state.transaction is None:
            self._generation = server.messages.generation
        if server.rules.given:
            return self._guard(self._answer_by_rules, event)
        if self._has_overrides or event.concerns_server:
            return super().answer(event)
        return event.reply

    def _answer_by_rules(self, event: Event) -> Reply | None:
        if (rule := self._find_rule(event)) is None:
            return self.usual_answer(event)
        self._choosing = True
        try:
            self._apply(rule, _Completion(self, event) if isinstance(event, Content) else _Question(self, event))
        finally:
            self._choosing = False
        return None

    def _find_rule(self, event: Event) -> Rule | None:
        if isinstance(event, Arrival):
            return self._find_quietly("CONTENT", event)
        return self.smtp_server.rules.find(event.stage, lambda: self.look(event))

    def _find_quietly(self, stage: str, event: Arrival | None) -> Rule | None:
        """Find a rule for what no answer is due to, so that a `match` that fails is not answered, either."""
        try:
            return self.smtp_server.rules.find(stage, lambda: self.look(event), event.mark if event else None)
        except BaseException as error:  # noqa: BLE001 - it reaches whoever stops the server
            self.smtp_server.errors.append(error)
            return None

    def _apply(self, rule: Rule, occasion: Occasion) -> None:
        from .actions import Run

        rule.note(self.dialogue)
        self.dialogue.remark(self.clock(), str(rule))
        self._run = Run(rule.script, occasion)
        self._run.resume()

    def usual_answer(self, event: Event) -> Reply | None:
        """Return what is answered where no rule applies."""
        return super().answer(event)

    def complete(self, event: Event, reply: Reply, sent: Reply) -> None:
        """Answer the event that waits with `sent`, which is `reply` or the rest of it."""
        self.idle_since = self.clock()
        self.settle(event, reply, sent)
        if not self._choosing:
            self._go_on()

    def _take_answer(self, event: Event | None, reply: Reply) -> None:
        """Take an answer that comes later: where a rule waits for it, it is sent as the rule says."""
        run = self._run
        if run is not None and run.awaits_answer and event is not None and event is self.session.waiting:
            run.send(reply)
        else:
            super()._take_answer(event, reply)

    def set_marks(self, marks: Sequence[int]) -> None:
        """Have rules apply when so many octets of content have come."""
        self.session.marks = marks
        self.conn.reads_large = self.conn.reads_large and not marks

    def _start_tls(self) -> None:
        if self.smtp_server.rules.given and (rule := self._find_quietly("TLS", None)):
            self.conn.pause_reading()  # what the client sends by now is for the handshake
            self._apply(rule, _Handshake(self))
        else:
            super()._start_tls()

    def start_handshake(self) -> None:
        """Begin TLS after all."""
        self.idle_since = self.clock()
        super()._start_tls()
        self.conn.resume_reading()

    # What rules do.

    def store(self, content: Content) -> None:
        """Record a message now for the recipients that it is about, whatever will be answered."""
        if content.about:
            self._record(content, content.about)
        content.decided = True

    def flush(self) -> None:
        """Send the answers so far."""
        self.conn.write(self.session.data_to_send())

    def hang_up(self, remark: str, *, abort: bool = False) -> None:
        """Close the connection behind the answers so far, without a word."""
        if self.conn.is_closed:
            return
        if (event := self.session.waiting) is not None:
            # Whoever has stored it has taken it, without a word.
            reply = SILENCE if isinstance(event, Content) and event.decided else None
            self.dialogue.add((self.clock(), event.remains(), reply))
            self._leave_unanswered(event)
        self.flush()
        self.dialogue.remark(self.clock(), remark)
        self.session.state.closing = True
        if abort:
            self.conn.abort()
        else:
            self.conn.close()

    def _leave_unanswered(self, event: Event) -> None:
        """Record what has been accepted before: in LMTP each recipient has an answer (RFC 2033 4.2)."""
        if isinstance(event, Content):
            answered = [index for index in event.accepted if index < event.about.start]
            if answered:
                self._record(event, answered)
            if answered or event.decided:
                self.session.state.transaction = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is to be sent any more."""
        return self.session.state.closing or self.conn.is_closed

    @property
    def waits_for_rule(self) -> bool:
        """Whether a rule lets the client wait."""
        return self._run is not None and self._run.waits

    @property
    def owes_answer(self) -> bool:
        """Whether the client waits for the server, and so is not idle."""
        return super().owes_answer or self.waits_for_rule

    # What is recorded.

    def look(self, event: Event | None = None) -> Message:
        """Return what is known of the message so far, as an event's command would make it."""
        if isinstance(event, Content):
            return self._make_message(event.transaction, event.about, event.data)
        if isinstance(event, Command) and event.stage in {"EHLO", "HELO", "LHLO"}:
            return replace(self.look(), helo=event.argument, esmtp=event.stage != "HELO")
        transaction = self.session.state.transaction or Transaction(Path(""), (), {})
        if isinstance(event, Mail):
            transaction = Transaction(event.accepted_path, event.parameters, {})
        elif isinstance(event, Rcpt):
            transaction = transaction.to(event.accepted_path, event.parameters)  # and not to those before
        data = event.data if isinstance(event, Arrival) else b""
        return self._make_message(transaction, range(len(transaction.forward_paths)), data)

    def process(self, content: Content) -> Reply | None:
        """Ask `process_message` only where there is one: it costs a copy of the content."""
        return super().process(content) if self.smtp_server.has_hook else content.reply

    def deliver(self, content: Content) -> None:
        """Record the message."""
        self._record(content, content.accepted)

    def _record(self, content: Content, recipients: Sequence[int]) -> None:
        message = self._make_message(content.transaction, recipients, content.data)
        if not self.smtp_server.messages.add(message, self._generation):
            self.smtp_server.note_late(message, self._generation)

    def _make_message(self, transaction: Transaction, accepted: Sequence[int], data: bytes) -> Message:
        state = self.session.state
        paths, parameters = transaction.forward_paths, transaction.forward_parameters
        return Message.of(
            {
                "peer": self.peer,
                "mailfrom": transaction.reverse_path.mailbox,
                "rcpttos": [paths[index].mailbox for index in accepted],
                "data": data,
                "mail_options": format_parameters(transaction.parameters),
                "rcpt_options": [format_parameters(parameters[index]) for index in accepted],
                "rejected": list(transaction.rejected),
                "helo": state.helo or "",
                "esmtp": state.esmtp,
                "tls": self.conn.tls.info if self.conn.tls else None,
                "auth": state.identity,
                "received_at": datetime.now(UTC),
                "dialogue": self.dialogue,
                "envelope_lints": tuple(transaction.lints),
            }
        )

    def connection_lost(self) -> None:
        """Tell the server of the transaction that this ends, if there is one."""
        if self._dialogue_generation is not None:
            self._dialogue.ended = True
        if self.session.state.transaction is not None:
            self.smtp_server.note_aborted(self.peer, self.mailfrom or "", self.rcpttos, self._generation)
        if self._run is not None:
            self._run.cancel()
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

    def acceptance(self) -> Reply | None:
        """Return the answer of who accepts whatever comes; None: there is none, things go on."""
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

    def usual_reply(self) -> Reply | None:
        """Return what a subclass or the session answers."""
        return self.channel.usual_answer(self._event)

    def acceptance(self) -> Reply:
        """Return the session's answer if that accepts, too."""
        from .actions import acceptance

        usual = self._event.reply
        return acceptance(self._event.stage) if usual.is_negative else usual

    def octets_of(self, reply: Reply) -> bytes:
        """Return a reply as the session sends it, with its enhanced status code where that is offered."""
        return self.channel.session.octets_of(self._event, reply)

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Answer."""
        if reply is not None and sent is not None:
            self.channel.complete(self._event, reply, sent)


class _Completion(_Question):
    """The end of content."""

    def __init__(self, channel: RecordingChannel, content: Content) -> None:
        super().__init__(channel, content)
        self._content = content

    def store(self) -> None:
        """Record the message now."""
        self.channel.store(self._content)

    def drop(self) -> None:
        """See to it that the message is not recorded."""
        self._content.decided = True


class _Handshake(_Occasion):
    """The beginning of TLS. An answer to it is one in plain text."""

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Begin TLS, or send something else and close."""
        channel = self.channel
        if reply is None or sent is None:
            channel.start_handshake()
        else:
            channel.dialogue.add((channel.smtp_server.clock(), Remark(""), reply))
            channel.conn.write(sent.to_bytes())
            channel.hang_up("the server has closed the connection")
