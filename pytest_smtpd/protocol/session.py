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

from .commands import COMMANDS
from .events import BadLine, Command, Connect, Event, Refusal, Unrecognized
from .grammar import ControlCharacterError, GrammarError, parse_command
from .lints import Lint
from .mail import Content
from .replies import Reply
from .state import State

if TYPE_CHECKING:
    from .content import MailData
    from .state import Settings


class _NeedData(Enum):
    NEED_DATA = "NEED_DATA"


#: What `next_event` returns when there is nothing to answer before more data or an answer comes.
NEED_DATA: Final = _NeedData.NEED_DATA

BAD_SYNTAX = Reply(500, "Error: bad syntax", "5.5.2")
LINE_TOO_LONG = Reply(500, "Error: line too long", "5.5.2")
INVALID_CHARACTER = Reply(500, "Error: invalid character", "5.5.2")
NO_CONTROL_CHARACTERS = Reply(501, "Error: no control characters are allowed", "5.5.2")
NO_SERVICE = Reply(503, "Error: no service, only QUIT is possible", "5.5.1")
NOT_SYNCHRONIZED = Reply(554, "Error: SMTP protocol synchronization", "5.5.0")
SHUTTING_DOWN = Reply(421, "Service not available, closing transmission channel", "4.3.2")

#: The code that closes the connection, whatever it answers (RFC 5321 3.8).
_SERVICE_NOT_AVAILABLE = 421


class Session:
    """One client's session (RFC 5321 3): the state machine. It never raises on input; it answers."""

    __slots__ = ("_discarding", "_enhanced", "_input", "_output", "_pending", "_position", "_strict", "state")

    def __init__(self, settings: Settings) -> None:
        self.state = State(settings)
        self._input = b""
        self._position = 0
        self._output: list[bytes] = []
        self._pending: Event | None = None
        self._discarding = False
        self._enhanced = "ENHANCEDSTATUSCODES" in settings.keywords
        self._strict = settings.strict

    # What the driver does.

    def connect(self) -> Event:
        """Return the first event: which greeting? Nothing else comes before its answer."""
        return self._ask(Connect())

    def receive_data(self, data: bytes) -> None:
        """Take octets from the client: any number, cut anywhere."""
        if isinstance(self._pending, Connect):
            self._pending.note(Lint.EARLY_TALKER)
            if self._strict:
                self._pending.reply = NOT_SYNCHRONIZED
        self._input = self._input[self._position :] + data if self._input else data
        self._position = 0

    def next_event(self) -> Event | Literal[_NeedData.NEED_DATA]:
        """Return the next question, or NEED_DATA; also NEED_DATA while a question waits for its answer."""
        if self._pending is not None or self.state.closing:
            return NEED_DATA
        mail_data = self.state.mail_data
        return self._next_command() if mail_data is None else self._next_content(mail_data)

    def ask(self, verb: str, argument: str) -> Event:
        """Ask this instead of what is waiting for an answer; return the event with its answer."""
        return self._ask(COMMANDS.get(verb, Unrecognized)(verb, argument))

    def send(self, reply: Reply) -> None:
        """Answer the event that waits, with its own reply or with any other: the state follows this one."""
        event = self._pending
        if event is None:
            msg = "there is no event to answer"
            raise RuntimeError(msg)
        self._pending = None
        state = self.state
        self._output.append(reply.to_bytes(enhanced=self._enhanced and event.enhanced))
        event.take(state, reply)
        if reply.code == _SERVICE_NOT_AVAILABLE or reply is NOT_SYNCHRONIZED:
            state.closing = True
        if event.lints:
            state.note(event.lints)

    def data_to_send(self) -> bytes:
        """Return the octets of the replies since the last call."""
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    @property
    def is_waiting(self) -> bool:
        """Whether an event waits for its answer."""
        return self._pending is not None

    def format(self, reply: Reply) -> str:
        """Return a reply as this session sends it, without its last line end."""
        return reply.to_bytes(enhanced=self._enhanced).decode("ascii").removesuffix("\r\n")

    def shutdown_notice(self) -> bytes:
        """Return what is sent unasked when the server goes down; the session is over (RFC 5321 3.8)."""
        self.state.closing = True
        return SHUTTING_DOWN.to_bytes(enhanced=self._enhanced)

    # Large content goes past the input buffer: see MailData.

    @property
    def wants_buffer(self) -> bool:
        """Whether there is large content, which `get_buffer` and `buffer_updated` take without a copy."""
        mail_data = self.state.mail_data
        return mail_data is not None and mail_data.size > 0 and not mail_data.finished

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the part of `scratch` into which the client's next octets may be received."""
        assert self.state.mail_data is not None  # noqa: S101
        return self.state.mail_data.get_buffer(scratch)

    def buffer_updated(self, received: int) -> None:
        """Take `received` octets that now stand in the buffer last given out."""
        assert self.state.mail_data is not None  # noqa: S101
        self._input = self.state.mail_data.buffer_updated(received)
        self._position = 0

    # How events are found.

    def _ask(self, event: Event) -> Event:
        self._pending = event
        try:
            event.reply = self._gate(event) or event.examine(self.state)
        except Refusal as refusal:
            event.reply = refusal.reply
        return event

    def _gate(self, event: Event) -> Reply | None:
        """Return the answer that the session's state gives to any command, if it does."""
        if self.state.refused and event.stage != "QUIT":
            return NO_SERVICE
        if self._position < len(self._input) and isinstance(event, Command):
            return self._check_pipelining(event)
        return None

    def _check_pipelining(self, command: Command) -> Reply | None:
        """Note a client that sends ahead where it must wait (RFC 2920 3.1)."""
        if not self.state.esmtp or "PIPELINING" not in self.state.settings.keywords:
            command.note(Lint.NOT_PIPELINING)
        elif command.ends_group:
            command.note(Lint.PIPELINED_LAST)
        else:
            return None
        return NOT_SYNCHRONIZED if self._strict else None

    def _next_content(self, mail_data: MailData) -> Event | Literal[_NeedData.NEED_DATA]:
        if not mail_data.finished and self._position < len(self._input):
            self._input = mail_data.feed(self._input[self._position :])
            self._position = 0
        if not mail_data.finished:
            return NEED_DATA
        return self._ask(Content(self.state.transaction, mail_data))

    def _next_command(self) -> Event | Literal[_NeedData.NEED_DATA]:
        # RFC 5321 2.3.8: only CRLF ends a line. Postfix, Exim and many others take LF for it, and so do we.
        line_end = b"\r\n" if self._strict else b"\n"
        start = self._position
        end = self._input.find(line_end, start)
        if end < 0:
            self._keep_unfinished_line()
            return NEED_DATA
        self._position = end + len(line_end)
        if self._discarding:
            self._discarding = False
            return self._ask(BadLine(LINE_TOO_LONG))
        line = self._input[start:end]
        bare = not self._strict and not line.endswith(b"\r")
        event = self._read_line(line.removesuffix(b"\r"))
        if bare:
            event.note(Lint.BARE_LF_COMMAND)
        return self._ask(event)

    def _keep_unfinished_line(self) -> None:
        """Keep what may become a line; of what is too long for one, no more than its possible CR."""
        self._input = self._input[self._position :]
        self._position = 0
        if len(self._input) > self.state.settings.longest_line:
            self._discarding = True
        if self._discarding:
            self._input = self._input[-1:]

    def _read_line(self, line: bytes) -> Event:
        settings = self.state.settings
        try:
            verb, argument = parse_command(line.decode("utf-8" if settings.utf8_commands else "ascii"))
        except UnicodeDecodeError:
            return BadLine(INVALID_CHARACTER)
        except ControlCharacterError:
            return BadLine(NO_CONTROL_CHARACTERS)
        except GrammarError:
            return BadLine(BAD_SYNTAX)
        if len(line) + 2 > settings.line_limit(verb):
            return BadLine(LINE_TOO_LONG)
        return COMMANDS.get(verb, Unrecognized)(verb, argument)
