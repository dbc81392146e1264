"""A client's connection: what is read goes to its protocol, decrypted where TLS is active."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Protocol as Interface

from .poller import READABLE, WRITABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tls import TLS

#: How many octets are read at once. Larger buffers are not served from malloc's heap and cost far more.
READ_SIZE = 16_384
#: How many octets that nobody wants any more are read at the end of a connection.
MAX_UNREAD = 4_194_304
Address: TypeAlias = tuple[Any, ...]


class Protocol(Interface):
    """What is done with a connection's data."""

    def connection_made(self) -> None:
        """Begin: the connection is open."""

    def data_received(self, data: bytes) -> None:
        """Take what was read."""

    def get_buffer(self, scratch: bytearray) -> memoryview:
        """Return the part of `scratch` to read into; asked for while `Connection.reads_large` is set."""

    def buffer_updated(self, received: int) -> None:
        """Take `received` octets, which stand in the buffer last given out."""

    def tls_established(self) -> None:
        """Go on: the handshake that `Connection.start_tls` began is done."""

    def tls_failed(self, error: OSError) -> None:
        """Take notice that TLS has failed; the connection is being closed."""

    def eof_received(self) -> None:
        """End: the client sends no more. Who wants the connection closed has to close it."""

    def connection_lost(self) -> None:
        """Forget the connection: it is closed, whoever closed it. Called once."""


class Watcher(Interface):
    """What a connection needs of its loop."""

    def watch(self, connection: Connection) -> None:
        """Wait for what the connection is interested in now."""

    def forget(self, connection: Connection) -> None:
        """Close a connection and tell its protocol."""

    def read_large(self, connection: Connection) -> None:
        """Read what the client has sent, through the protocol's `get_buffer`."""

    def call(self, call: Callable[[], None]) -> None:
        """Have this called in the loop's thread; from any thread."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Have this called after so many seconds."""


class Timer:
    """A call to come; `cancel` takes it back."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Don't call any more."""
        self.call = None


class Connection:
    """A client's connection, for the loop's thread alone; other threads go through `call`."""

    __slots__ = (
        "_closing",
        "_handshake_timer",
        "_loop",
        "_outgoing",
        "_paused",
        "peer",
        "protocol",
        "reads_large",
        "socket",
        "tls",
    )

    protocol: Protocol

    def __init__(self, loop: Watcher, accepted: socket.socket, peer: Address) -> None:
        self.socket = accepted
        self.peer = peer
        self._loop = loop
        self._outgoing = b""
        self._closing = False
        self._paused = False
        #: Whether to read large chunks, through the protocol's `get_buffer` instead of its `data_received`.
        self.reads_large = False
        #: What encrypts, once `start_tls` was called.
        self.tls: TLS | None = None
        self._handshake_timer: Timer | None = None

    def start_tls(self, tls: TLS, seconds: float) -> None:
        """Encrypt all that follows. The handshake has so many seconds; then the protocol hears of its failure."""
        self.tls = tls
        self.reads_large = False

        def give_up() -> None:
            self._fail(TimeoutError(f"the client did not finish the TLS handshake within {seconds:g} s"))

        self._handshake_timer = self._loop.call_later(seconds, give_up)

    def serve(self) -> None:
        """Read or write, whatever is waited for."""
        if self._outgoing:
            self.flush()
            return
        if self.reads_large:
            self._loop.read_large(self)
            return
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:  # the client has reset it
            self.receive_error(error)
            return
        if not data:
            self.receive_eof()
        elif self.tls is None:
            self.protocol.data_received(data)
        else:
            self._decrypt(self.tls, data)

    def receive(self, data: bytes) -> None:
        """Give what was read to the protocol, decrypted where TLS is active."""
        if self.tls is None:
            self.protocol.data_received(data)
        else:
            self._decrypt(self.tls, data)

    def _decrypt(self, tls: TLS, data: bytes) -> None:
        handshaking = not tls.established
        try:
            plaintext = tls.receive(data)
        except OSError as error:  # ssl.SSLError is one
            self._fail(error)
            return
        self.write(tls.data_to_send(), raw=True)
        if handshaking and tls.established:
            self._end_handshake()
            self._acknowledge()
            self.protocol.tls_established()
        if plaintext:
            self.protocol.data_received(plaintext)
        if tls.error is not None:
            self._fail(tls.error)
        elif tls.ended:
            self.receive_eof()

    def _acknowledge(self) -> None:
        """Acknowledge what has come, although there is nothing to be sent.

        A client that leaves it to Nagle when to send, as smtplib does, says nothing behind its last words in the
        handshake before that: 40 ms, as long as an acknowledgement may be delayed.
        """
        with contextlib.suppress(OSError, AttributeError):  # Linux has it, and not for every kind of socket
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def receive_eof(self) -> None:
        """Tell the protocol that the client sends no more."""
        # A socket at its end stays readable: nobody may wait for that.
        self.pause_reading()
        if self.tls is not None and not self.tls.established:
            self._fail(ConnectionError("the client closed the connection during the TLS handshake"))
        else:
            self.protocol.eof_received()

    def receive_error(self, error: OSError) -> None:
        """Close, as nothing more can be received; tell the protocol if that was the end of a handshake."""
        if self.tls is not None and not self.tls.established:
            self.protocol.tls_failed(error)
        self.abort()

    def _fail(self, error: OSError) -> None:
        self.protocol.tls_failed(error)
        self.close()

    def write(self, data: bytes, *, raw: bool = False) -> None:
        """Send, at once as far as the client takes it; nothing is read before the rest is gone.

        Where TLS is active it is encrypted, unless it is `raw`.
        """
        if self.tls is not None and not raw:
            # What can't be encrypted, before or after TLS, is not sent at all.
            with contextlib.suppress(OSError):
                self.tls.send(data)
            data = self.tls.data_to_send()
        if not self._outgoing:
            if not data:
                return
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._outgoing += data
        self._loop.watch(self)

    def flush(self) -> None:
        """Send more of what waits: the client takes data again."""
        data, self._outgoing = self._outgoing, b""
        self.write(data, raw=True)
        if self._closing and not self._outgoing:
            self._end()
        else:
            self._loop.watch(self)

    def call(self, call: Callable[[], None]) -> None:
        """Have this called in the loop's thread; from any thread."""
        self._loop.call(call)

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        self._paused = True
        self._loop.watch(self)

    def resume_reading(self) -> None:
        """Read again."""
        self._paused = False
        self._loop.watch(self)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Have this called after so many seconds; return what can cancel it."""
        return self._loop.call_later(seconds, call)

    def close(self) -> None:
        """Close as soon as all is sent."""
        if self.tls is not None:
            self.tls.close()
            self.write(self.tls.data_to_send(), raw=True)
        self._closing = True
        if self._outgoing:
            self._loop.watch(self)
        else:
            self._end()

    def _end(self) -> None:
        # Whoever closes a socket that has unread data resets the connection, which may cost the client the
        # last reply.
        unread = MAX_UNREAD
        try:
            while unread > 0 and (data := self.socket.recv(READ_SIZE)):
                unread -= len(data)
        except OSError:
            pass
        self.abort()

    def _end_handshake(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    def abort(self) -> None:
        """Close now, whatever has not been sent."""
        self._closing = True
        self._end_handshake()
        self._loop.forget(self)

    @property
    def is_closing(self) -> bool:
        """Whether it was closed, or will be as soon as all is sent."""
        return self._closing

    @property
    def is_closed(self) -> bool:
        """Whether there is no socket any more."""
        return self.socket.fileno() < 0

    @property
    def interest(self) -> int:
        """What the loop is to wait for: writing before reading, so that no client makes replies pile up."""
        if self._outgoing:
            return WRITABLE
        return 0 if self._paused or self._closing else READABLE
