"""SMTPChannel: drives one client's session on its connection."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec

from pytest_smtpd.protocol.events import Command, Connect, Refusal
from pytest_smtpd.protocol.mail import Arrival, Content
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import DATA_SIZE_DEFAULT, State

from .answers import UsualAnswers
from .attributes import ClassicAttributes
from .debug import DEVNULL, package, trace
from .overrides import NEVER_CALLED_OF_CHANNELS, ChannelType, refuse_overrides, refuse_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd.network.connection import Address, Connection
    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.proxy_protocol import ProxyProtocol

    from .interface import Server

P = ParamSpec("P")

#: How long a TLS handshake may take, in seconds.
HANDSHAKE_SECONDS = 30.0

_TOO_MANY_CONNECTIONS = Reply(421, "Error: too many connections", "4.7.0")
_LOCAL_ERROR = Reply(451, "Error: requested action aborted: local error in processing", "4.3.0")


class SMTPChannel(ClassicAttributes, UsualAnswers, metaclass=ChannelType):
    """One client's session: answers each event, by default as a well-behaved server does.

    To answer a command otherwise, override `smtp_VERB(arg)` and call `push(reply)` in it; a new verb comes
    by defining such a method. `arg` is what stood behind the verb, or None. Only a positive answer has the
    effect of the command: a MAIL that is answered with 550 opens no transaction.
    """

    # See ChannelType.
    _has_overrides: ClassVar[bool]
    _answering: ClassVar[dict[str, Callable[[Any, str | None], object]]]
    _sees_replies: ClassVar[bool]
    _sees_lines: ClassVar[bool]

    # Whether the line that is answered may be a password, which a subclass reads itself.
    _secret = False
    _greeted = False
    # Whether the client sends no more.
    _ended = False
    # What the client had sent behind the proxy's header, for TLS.
    _ahead = b""
    # What reads the proxy's header. None once it was read, or if none is to come. As the class has no default, it is
    # read in a quarter of the time.
    _proxy: ProxyProtocol | None

    def __init__(
        self,
        server: Server,
        conn: Connection,
        addr: Address,
        data_size_limit: int = DATA_SIZE_DEFAULT,
        map: dict[int, Any] | None = None,  # noqa: ARG002
        enable_SMTPUTF8: bool = False,
        decode_data: bool = False,
    ) -> None:
        self.smtp_server = server
        self.conn = conn
        conn.protocol = self
        self.addr = self.peer = addr
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data
        self.session = Session(server.settings_for(data_size_limit, enable_SMTPUTF8, decode_data))
        # What it has begun with it goes on with, whatever the server's options become.
        self._ssl_context = server.ssl_context
        self._implicit_tls = server.implicit_tls
        self.timeout = server.timeout
        #: Tells the seconds by which the server goes.
        self.clock = server.clock
        #: When the client said something last, or had an answer that came later.
        self.idle_since = server.clock()

    def __init_subclass__(cls) -> None:
        """Look up what the class overrides, and refuse what would never be called."""
        super().__init_subclass__()
        refuse_overrides(cls, NEVER_CALLED_OF_CHANNELS)
        cls.look_up()

    # How a session is driven.

    def connection_made(self) -> None:
        """Greet the client; behind the proxy's header and the handshake, if there are any."""
        self._proxy = None
        if self.smtp_server.proxy_protocol:
            from pytest_smtpd.protocol.proxy_protocol import ProxyProtocol

            self._proxy = ProxyProtocol()
        else:
            self._begin()

    def _begin(self) -> None:
        if self._implicit_tls:
            self._start_tls()
        else:
            self._greet()

    def _read_proxy_header(self, proxy: ProxyProtocol, data: bytes) -> None:
        """Read who the client is that comes through a proxy; a broken header ends the connection."""
        try:
            rest = proxy.feed(data)
        except proxy.Error:
            self.conn.abort()
            return
        if proxy.header is None or rest is None:
            return
        self._proxy = None
        self.peer = self.addr = proxy.header.source or self.peer
        self._ahead = rest if self._implicit_tls else b""
        self._begin()
        if rest and not self._implicit_tls:
            self.conn.receive(rest)

    def _greet(self) -> None:
        self._greeted = True
        self.idle_since = self.clock()  # what came before was a handshake
        self._advance(self.session.connect())

    def _start_tls(self) -> None:
        # Imported where it is needed: ssl takes longer to import than all of this package.
        from pytest_smtpd.network.tls import TLS

        if self._ssl_context is None:
            msg = "a server that offers TLS needs an ssl_context"
            raise RuntimeError(msg)
        self.conn.start_tls(TLS(self._ssl_context), HANDSHAKE_SECONDS)
        ahead, self._ahead = self._ahead, b""
        if ahead:
            self.conn.receive(ahead)

    def tls_established(self) -> None:
        """Begin anew, encrypted."""
        self.session.tls_established()
        if not self._greeted:
            self._greet()

    def tls_failed(self, error: OSError) -> None:
        """Tell the server that a handshake failed, or a record was broken."""
        self.smtp_server.note_tls_failure(self.peer, error)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self.idle_since = self.clock()
        if self._proxy is not None:
            self._read_proxy_header(self._proxy, data)
            return
        self.session.receive_data(data)
        self._advance()

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the buffer for more of large content."""
        return self.session.get_buffer(scratch)

    def buffer_updated(self, received: int) -> None:
        """Take more of large content."""
        self.idle_since = self.clock()
        self.session.buffer_updated(received)
        self._advance()
        self.conn.reads_large = self.session.wants_buffer

    def eof_received(self) -> None:
        """Close, as the client sends no more; but first give it the answer it waits for."""
        self._ended = True
        self._advance()
        self._close_if_ended()

    def _close_if_ended(self) -> None:
        if self._ended and self.session.waiting is None:
            self.conn.close()

    @property
    def owes_answer(self) -> bool:
        """Whether the client waits for the server, and so is not idle."""
        return self.session.waiting is not None

    def connection_lost(self) -> None:
        """Leave the server: the connection is closed."""
        self.session.forget()
        self.smtp_server.forget(self)

    def _advance(self, first: Event | None = None) -> None:
        """Answer this and all that the client asked, until an answer is to come later; send the answers in one write."""
        session = self.session
        event = first or session.next_event()
        while event is not NEED_DATA:
            reply = self.answer(event)
            if reply is not None:
                if not self.settle(event, reply):
                    break
            elif session.waiting is not None:
                self.conn.pause_reading()
            event = session.next_event()
        self.conn.write(session.data_to_send())
        state = session.state
        if state.closing or state.starting_tls or (state.receiving is not None and state.receiving[0].store.size):
            self._go_over(state)

    def _go_over(self, state: State) -> None:
        """Go over to what comes now instead of commands: large content, a handshake, the end."""
        if state.starting_tls:
            self._start_tls()
        self.conn.reads_large = self.session.wants_buffer and self.conn.tls is None
        if state.closing:
            self.conn.close()

    def settle(self, event: Event, reply: Reply, sent: Reply | None = None) -> bool:
        """Record, then send the answer that was decided: who has read it may look for the message.

        `sent` is what of the reply is left to be sent, if it isn't all of it. Return whether there may be another
        event, without more data.
        """
        self.note(event, reply)
        if sent is None:
            sent = reply
        if isinstance(event, Content) and event.decide(sent):
            self.deliver(event)
        if package.DEBUGSTREAM is not DEVNULL:
            trace(self.session, self.peer, event, sent, secret=self._secret)
        return self.session.send(sent)

    def note(self, event: Event, reply: Reply) -> None:
        """Take notice of an answer that is about to be sent."""

    def answer(self, event: Event) -> Reply | None:
        """Choose the answer to an event; None: it comes later, by `push`, and nothing is read before.

        `event.reply` is what a well-behaved server answers.
        """
        try:
            if self._has_overrides:
                return self._ask_subclass(event)
            return self._answer_as_usual(event) if event.concerns_server else event.reply
        except BaseException as error:  # noqa: BLE001 - as _guard does, which takes a call more for each event
            return self._answer_to(error)

    def _guard(self, choose: Callable[P, Reply | None], *arguments: P.args, **keywords: P.kwargs) -> Reply | None:
        """Choose an answer by what may be a hook."""
        try:
            return choose(*arguments, **keywords)
        except BaseException as error:  # noqa: BLE001 - also pytest.fail(): it reaches whoever stops the server
            return self._answer_to(error)

    def _answer_to(self, error: BaseException) -> Reply:
        """Answer 451 where a hook fails, and keep its exception."""
        if isinstance(error, Refusal):
            return error.reply
        if isinstance(error, KeyboardInterrupt) and not self.smtp_server.workers.runs_here:
            raise error  # it ends who serves
        self.smtp_server.errors.append(error)
        return _LOCAL_ERROR

    def _ask_subclass(self, event: Event) -> Reply | None:
        if isinstance(event, Arrival):
            return event.reply  # nobody is asked
        if self._sees_lines and not isinstance(event, Connect):
            return self._call(self._answer_line, event)
        if isinstance(event, Command) and (method := self._answering.get(event.verb)):
            return self._call(self._answer_by, method, event)
        reply = self._answer_as_usual(event)
        return self._call(self._push_lines, reply) if self._sees_replies and reply else reply

    def _answer_as_usual(self, event: Event) -> Reply | None:
        if isinstance(event, Content):
            return self.process(event)
        if isinstance(event, Connect) and self.smtp_server.is_full:
            return _TOO_MANY_CONNECTIONS
        return event.reply

    def answer_later(self, choose: Callable[[], Reply | None]) -> Reply | None:
        """Have a function that may block answer the event that waits: a worker calls it. Return None, for `answer`."""
        event = self.session.waiting

        def work() -> None:
            reply = self._guard(choose) or _LOCAL_ERROR
            self.conn.call(lambda: self._take_answer(event, self._show(reply)))

        self.smtp_server.workers.submit(work)
        return None

    def _show(self, reply: Reply) -> Reply:
        """Show a reply to a subclass that wants to see them all, and which may change it."""
        if not self._sees_replies:
            return reply
        return self._guard(self._call, self._push_lines, reply) or reply

    def _take_answer(self, event: Event | None, reply: Reply) -> None:
        """Settle with the answer that has come at last; a client that has gone meanwhile asks no more."""
        if event is None or event is not self.session.waiting or self.session.state.closing or self.conn.is_closed:
            return
        self.idle_since = self.clock()
        self.settle(event, reply)
        self._go_on()

    def _go_on(self) -> None:
        """Go on with a client that has waited for an answer, which is given."""
        self.conn.resume_reading()
        self._advance()
        self._close_if_ended()

    def _answer_line(self, event: Event) -> None:
        """Show a line, or content, to a subclass that wants to see them all."""
        self._secret = self._own_state is not None
        octets = event.data if isinstance(event, Content) else self.session.line
        self.received_lines = [octets.decode("utf-8", "backslashreplace") if self._decode_data else octets]
        self.found_terminator()

    def found_terminator(self) -> None:
        """Answer the command line or content that came, which an override finds in `received_lines`.

        An override may set `smtp_state` to a value of its own, and answer the lines that follow itself, as the
        steps of AUTH want it.
        """
        event = self.session.waiting
        if self._own_state is not None:
            self.push("451 Internal confusion")
        elif isinstance(event, Command) and (method := self._answering.get(event.verb)):
            self._answer_by(method, event)
        elif event is not None and (reply := self._answer_as_usual(event)):
            self._push_lines(reply)

    def _answer_by(self, method: Callable[[Any, str | None], object], event: Command) -> None:
        """Have a subclass's method answer a command."""
        refuse_result(event.verb, method(self, event.argument or None), self._pushed)

    def _push_lines(self, reply: Reply) -> None:
        for line in self.session.format(reply).splitlines():
            self.push(line)

    def deliver(self, content: Content) -> None:
        """Store the message, whose 250 is about to be sent."""

    def process(self, content: Content) -> Reply | None:
        """Give the message to the server, unless it can't be accepted anyway; None: the answer comes later."""
        if not content.reply.is_positive:
            return content.reply
        receive = partial(self.smtp_server.receive, self.peer, content, decode_data=self._decode_data)
        return self.answer_later(receive) if self.smtp_server.blocking else receive()

    def _call(self, method: Callable[..., None], *arguments: object) -> Reply | None:
        """Have a subclass answer, and read the reply from what it pushes."""
        self._pushed = []
        try:
            method(*arguments)
            return Reply.parse("\r\n".join(self._pushed)) if self._pushed else None
        finally:
            self._pushed = None

    def push(self, msg: str) -> None:
        """Reply: to the command that is being answered, or to the one whose answer was to come later.

        A reply of several lines may be pushed line by line, "250-one", "250 two". In the serving thread.
        """
        if self._pushed is not None:
            self._pushed.append(msg)
            return
        event = self.session.waiting
        if event is None:
            msg = f"there is no command to answer with {msg!r}"
            raise RuntimeError(msg)
        self._take_answer(event, Reply.parse(msg))

    def close_when_done(self) -> None:
        """Close the connection as soon as the replies so far are sent."""
        self.session.state.closing = True

    def close(self) -> None:
        """Close the connection now."""
        self.conn.abort()

    def end(self, reply: Reply) -> None:
        """End the session unasked: send a 421, and close (RFC 5321 3.8)."""
        tls = self.conn.tls
        if tls is not None and not tls.established:
            self.tls_failed(ConnectionAbortedError(f"there was no handshake before the end: {reply.text}"))
            self.conn.abort()
        elif not self._greeted or self.session.state.starting_tls:
            self.conn.abort()  # before a greeting there is no session to end, and instead of a handshake no reply fits
        elif not self.session.state.closing:
            if package.DEBUGSTREAM is not DEVNULL:
                trace(self.session, self.peer, None, reply)
            self.conn.write(self.session.end(reply))
            self.conn.close()


SMTPChannel.remember_usual()
