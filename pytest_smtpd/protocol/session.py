"""The server's side of an SMTP session without I/O: bytes in, events out; replies in, bytes out.

    session = Session(Settings(extensions=extensions.ALL))
    session.receive_data(data)
    while (event := session.next_event()) is not NEED_DATA:
        session.send(event.reply)           # or any other Reply
    connection.write(session.data_to_send())

Events are pulled one at a time, because with PIPELINING the meaning of a command depends on the answer to
the one before.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from .auth import AuthResponse
from .commands import commands_for
from .events import REMEMBERED, BadLine, Command, Connect, Event, Refusal, Unrecognized
from .grammar import ControlCharacterError, GrammarError, parse_command
from .guards import guard
from .lints import Lint
from .mail import Arrival, Content
from .replies import SERVICE_NOT_AVAILABLE, Reply
from .state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .content import Receiver
    from .state import Settings


class _NeedData(Enum):
    NEED_DATA = "NEED_DATA"


#: What `next_event` returns when there is nothing to answer before more data or an answer comes.
NEED_DATA: Final = _NeedData.NEED_DATA

#: How many octets of content are taken at a time, so that no message costs what is behind it.
MAX_PIECE = 16_384

BAD_SYNTAX = Reply(500, "Error: bad syntax", "5.5.2")
LINE_TOO_LONG = Reply(500, "Error: line too long", "5.5.2")
INVALID_CHARACTER = Reply(500, "Error: invalid character", "5.5.2")
NO_CONTROL_CHARACTERS = Reply(501, "Error: no control characters are allowed", "5.5.2")
NOT_SYNCHRONIZED = Reply(554, "Error: SMTP protocol synchronization", "5.5.0")


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


class Session:
    """One client's session (RFC 5321 3): the state machine. It never raises on input; it answers."""

    __slots__ = (
        "_discarding",
        "_input",
        "_line",
        "_line_end",
        "_output",
        "_pending",
        "_position",
        "enhanced",
        "marks",
        "state",
    )

    def __init__(self, settings: Settings) -> None:
        self.state = State(settings)
        #: Whether replies have enhanced status codes.
        self.enhanced = "ENHANCEDSTATUSCODES" in settings.keywords
        #: After how many octets of content `mail.Arrival` is asked, in ascending order.
        self.marks: Sequence[int] = ()
        # What has come, b"" when all of it has been read, and where the rest begins.
        self._input, self._position = b"", 0
        # The command line that was read last, with its end; b"" if it was too long to be kept.
        self._line, self._discarding = b"", False
        self._pending: Event | None = None
        self._output: list[bytes] = []
        # RFC 5321 2.3.8: only CRLF ends a line. Postfix, Exim and many others take LF for it, and so do we.
        self._line_end = b"\r\n" if settings.strict else b"\n"

    # What the driver does.

    def connect(self) -> Event:
        """Return the first event: which greeting? Nothing else comes before its answer."""
        return self._ask(Connect())

    def receive_data(self, data: bytes) -> None:
        """Take octets from the client: any number, cut anywhere."""
        if self._pending is not None and data:
            self._note_haste(self._pending)
        if self._input:
            data = self._input[self._position :] + data
            self._position = 0
        self._input = data

    def next_event(self) -> Event | Literal[_NeedData.NEED_DATA]:
        """Return the next question, or NEED_DATA; also NEED_DATA while a question waits for its answer."""
        state, line = self.state, self._input
        if self._pending is not None or state.closing:
            return NEED_DATA
        if state.receiving is not None:
            return self._receive(*state.receiving)
        if not line:
            return NEED_DATA
        known: Event | None = None
        if not (self._position or self._discarding or state.exchange is not None):
            known = state.known_lines.get(line)  # most clients send one line at a time, and the same few
        if known is not None:
            self._input = b""
        elif not (line := self._read_line()):
            return NEED_DATA
        self._line = line
        state.commands += 1
        if state.commands > state.most_commands:
            state.guarded = True
        event = known or self._event_of(line)
        if known is None and event.carries_octets and event.announce(state):
            return self.next_event()
        return self._ask(event)

    def ask(self, verb: str, argument: str) -> Event:
        """Ask this instead of what is waiting for an answer; return the event with its answer."""
        command = self._make_command(verb, argument)
        if self._pending and Lint.BARE_LF_COMMAND in self._pending.lints:
            command.note(Lint.BARE_LF_COMMAND)
        return self._ask(command)

    def own_event(self) -> Event | None:
        """Return the event that waits, which may be changed: it stands for no equal one any more."""
        if self._pending is not None:
            self._pending = self._pending.own()
        return self._pending

    def send(self, reply: Reply) -> bool:
        """Answer the event that waits, with its own reply or with any other: the state follows this one.

        Return whether there may be another event, without more data.
        """
        event = self._pending
        if event is None:
            msg = "there is no event to answer"
            raise RuntimeError(msg)
        self._pending = None
        self._output.append(reply.wire[self.enhanced and event.enhanced])
        event.take(self.state, reply)
        if reply.is_negative:
            self.state.count_error()
            if reply.code == SERVICE_NOT_AVAILABLE or event.refused_for_haste:
                self.state.closing = True
        if event.lints:
            self.state.note(event.lints)
        receiving = self.state.receiving
        return bool(self._input) or (receiving is not None and receiving[0].finished)

    def octets_of(self, event: Event, reply: Reply) -> bytes:
        """Return the octets of a reply to this event."""
        return reply.wire[self.enhanced and event.enhanced]

    def data_to_send(self) -> bytes:
        """Return the octets of the replies since the last call."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def tls_established(self) -> None:
        """Begin anew: TLS is active from here on. What was sent in the clear is forgotten (RFC 3207 4.2)."""
        self._input, self._position, self._discarding = b"", 0, False
        self.state.secured()

    @property
    def line(self) -> bytes:
        """The line that was read last, as it came, without its end; b"" for one that is too long."""
        line = _without_end(self._line)
        return line if len(line) + 2 <= self.state.settings.longest_line else b""  # however it was cut into segments

    @property
    def waiting(self) -> Event | None:
        """The event that waits for its answer."""
        return self._pending

    def format(self, reply: Reply) -> str:
        """Return a reply as this session sends it to what waits for its answer, without its last line end."""
        enhanced = self.enhanced and (self._pending is None or self._pending.enhanced)
        return reply.to_bytes(enhanced=enhanced).decode().removesuffix("\r\n")

    def end(self, reply: Reply) -> bytes:
        """End the session unasked, with a 421 (RFC 5321 3.8); return what is to be sent for it."""
        self.state.closing = True
        return reply.to_bytes(enhanced=self.enhanced)

    def offer(self, settings: Settings) -> Reply:
        """Go by other settings from here on, for who offers each client what another server does.

        Return the answer to EHLO that tells so.
        """
        self.state.go_by(settings)
        self.enhanced = "ENHANCEDSTATUSCODES" in settings.keywords
        return settings.ehlo_replies[self.state.secure]

    def forget(self) -> None:
        """Keep nothing of what has come: the connection is closed."""
        self.state.transaction = None
        self._pending = self.state.receiving = None
        self._input, self._position = b"", 0

    # Large content goes past the input buffer: see MailData.

    @property
    def wants_buffer(self) -> bool:
        """Whether there is large content, which `get_buffer` and `buffer_updated` take without a copy, past marks."""
        if self.state.receiving is None or self.marks:
            return False
        receiver = self.state.receiving[0]
        return receiver.store.size > 0 and not receiver.finished

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the part of `scratch` into which the client's next octets may be received."""
        return self._receiver.get_buffer(scratch)

    def buffer_updated(self, received: int) -> None:
        """Take `received` octets that now stand in the buffer last given out."""
        self._input = self._receiver.buffer_updated(received)
        self._position = 0

    @property
    def _receiver(self) -> Receiver:
        if self.state.receiving is None:
            msg = "no content is expected: ask wants_buffer first"
            raise RuntimeError(msg)
        return self.state.receiving[0]

    # How events are found.

    def _note_haste(self, pending: Event) -> None:
        """Take notice that a client talks before its greeting has come, if that is what it waits for."""
        if isinstance(pending, Connect):
            pending.note(Lint.EARLY_TALKER)
            if self.state.settings.strict:
                pending.reply = NOT_SYNCHRONIZED
                pending.refused_for_haste = True

    def _event_of(self, line: bytes) -> Event:
        """Return what a line that has come whole is to be answered as."""
        if self.state.exchange is not None or self._discarding:
            return self._read_unusual_line(line)
        return self.state.known_lines.get(line) or self._read_unknown_line(line)

    def _ask(self, event: Event) -> Event:
        state = self.state
        try:
            if state.guarded:
                guard(event.stage, state)
            if self._input and isinstance(event, Command):
                event = self._check_pipelining(event)
            reply = NOT_SYNCHRONIZED if event.refused_for_haste else event.examine(state)
        except Refusal as refusal:
            reply = refusal.reply
        if reply is not event.reply:
            event = event.own()
            event.reply = reply
        self._pending = event
        return event

    def _check_pipelining(self, command: Command) -> Command:
        """Note a client that sends ahead where it must wait (RFC 2920 3.1); return the command in which it is noted."""
        if not self.state.esmtp or "PIPELINING" not in self.state.settings.keywords:
            lint = Lint.NOT_PIPELINING
        elif command.ends_group:
            lint = Lint.PIPELINED_LAST
        else:
            return command
        command = command.own()
        command.note(lint)
        # What stands behind QUIT is ignored anyway (RFC 5321 4.1.1.10).
        command.refused_for_haste = self.state.settings.strict and command.verb != "QUIT"
        return command

    def _receive(self, receiver: Receiver, question: Event) -> Event | Literal[_NeedData.NEED_DATA]:
        if 0 < len(self._input) <= MAX_PIECE and not (self._position or self.marks or receiver.finished):
            self._input = receiver.feed(self._input)  # as most messages come: whole, and alone
        while self._input and not receiver.finished:
            if self.marks and (arrival := self._feed_to_mark(receiver, question)):
                self._pending = arrival
                return arrival
            if not receiver.finished:
                self._feed(receiver, MAX_PIECE)
        if not receiver.finished:
            return NEED_DATA
        self.state.receiving = None
        return self._ask(question)

    def _feed(self, receiver: Receiver, size: int) -> None:
        """Have so many octets of the input received, or as many as there are before their end."""
        start = self._position
        piece = self._input[start : start + size]
        rest = receiver.feed(piece)
        self._go_behind(start + len(piece) - len(rest))

    def _feed_to_mark(self, receiver: Receiver, question: Event) -> Arrival | None:
        """Feed content until it has as many octets as the next mark says; None: they have not come, or it ends."""
        store = receiver.store
        mark: int | None = next((mark for mark in self.marks if mark > store.size), None)
        if mark is None:
            return None
        while (left := mark - store.size) > 0:
            if receiver.finished or not self._input:
                return None
            # What may belong to the end, 4 octets at the most, is not counted before it is known not to.
            self._feed(receiver, max(left - 4, 1))
        return None if receiver.finished and isinstance(question, Content) else Arrival(store, mark)

    def _read_line(self) -> bytes:
        """Take the next line of the input; b"" if it has not come whole."""
        end = self._input.find(self._line_end, self._position)
        if end < 0:
            self._keep_unfinished_line()
            return b""
        end += len(self._line_end)
        line = self._input[self._position : end]
        self._go_behind(end)
        return line

    def _go_behind(self, end: int) -> None:
        """Go on with the input behind this place."""
        if end < len(self._input):
            self._position = end
        else:
            self._input, self._position = b"", 0  # it may be much, and nobody may need it any more

    def _read_unusual_line(self, line: bytes) -> Event:
        """Read what is no command: a response in a SASL exchange, or a line that was too long to be kept."""
        discarded, self._discarding = self._discarding, False
        if discarded:
            self._line = b""
        if self.state.exchange is not None:
            event: Event = AuthResponse(*self.state.exchange, None if discarded else _without_end(line))
        else:
            event = BadLine(LINE_TOO_LONG, b"(a line that is too long)")
        return self._note_line_end(event, line)

    def _read_unknown_line(self, line: bytes) -> Event:
        """Read a command line; remember it, if it means the same wherever it stands."""
        event = self._note_line_end(self._parse_line(_without_end(line)), line)
        if isinstance(event, Command) and event.is_constant and not event.lints and not event.secret:
            known = self.state.known_lines
            if len(known) >= REMEMBERED:
                known.clear()
            event.is_remembered = True
            known[line] = event
        return event

    @staticmethod
    def _note_line_end(event: Event, line: bytes) -> Event:
        if not line.endswith(b"\r\n"):
            event.note(Lint.BARE_LF_COMMAND)
        return event

    def _keep_unfinished_line(self) -> None:
        """Keep what may become a line; of what is too long for one, no more than its possible CR."""
        self._input = self._input[self._position :]
        self._position = 0
        if len(self._input) > self.state.settings.longest_line:
            self._discarding = True
        if self._discarding:
            self._input = self._input[-1:]

    def _parse_line(self, line: bytes) -> Event:
        settings = self.state.settings
        if len(line) + 2 > settings.longest_line:
            # Before it is read: had it come octet by octet, no more of it would be known either.
            return BadLine(LINE_TOO_LONG, line)
        try:
            verb, argument = parse_command(line.decode("utf-8" if settings.utf8_commands else "ascii"))
        except UnicodeDecodeError:
            return BadLine(INVALID_CHARACTER, line)
        except ControlCharacterError:
            return BadLine(NO_CONTROL_CHARACTERS, line)
        except GrammarError:
            return BadLine(BAD_SYNTAX, line)
        limit = settings.line_limit(verb) if self.state.esmtp else settings.command_size_limit
        if len(line) + 2 > limit:
            return BadLine(LINE_TOO_LONG, line)
        return self._make_command(verb, argument)

    def _make_command(self, verb: str, argument: str) -> Command:
        command = commands_for(self.state.settings).get(verb, Unrecognized)
        if command.extension and command.extension not in self.state.settings.keywords:
            command = Unrecognized
        made = command(verb, argument)
        made.judge(self.state)
        return made
