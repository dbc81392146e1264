"""SMTPServer: listens, makes a channel for each client, and is served by a thread or by `smtpd.loop`."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any, Self

from pytest_smtpd.network.loop import Loop, listen
from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.grammar import format_parameters
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.state import Settings

from .channel import DATA_SIZE_DEFAULT, SMTPChannel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

    from pytest_smtpd.network.loop import Address, Connection
    from pytest_smtpd.protocol.grammar import Parameters
    from pytest_smtpd.protocol.mail import Content

#: The servers that `smtpd.loop` serves, by file descriptor, as asyncore.socket_map was.
socket_map: dict[int, SMTPServer] = {}

_UNDECODABLE = Reply(554, "Error: the content is not UTF-8", "5.6.1")


class SMTPServer:
    """An SMTP server that calls `process_message` for each message it receives.

    It binds and listens at once, on `localaddr`, (host, port); port 0 takes any free one. `remoteaddr` is
    for proxies. `data_size_limit` is in octets, 0 for none. With `decode_data`, `process_message` gets
    text instead of bytes. Raises OSError when it can't bind.
    """

    channel_class: type[SMTPChannel] = SMTPChannel

    def __init__(
        self,
        localaddr: Address,
        remoteaddr: Address | None,
        data_size_limit: int = DATA_SIZE_DEFAULT,
        map: dict[int, SMTPServer] | None = None,
        enable_SMTPUTF8: bool = False,
        decode_data: bool = False,
    ) -> None:
        if enable_SMTPUTF8 and decode_data:
            msg = "decode_data and enable_SMTPUTF8 cannot be set to True at the same time"
            raise ValueError(msg)
        self._localaddr = localaddr
        self._remoteaddr = remoteaddr
        self.data_size_limit = data_size_limit
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data
        self.settings = self._make_settings()
        self._map = socket_map if map is None else map
        self._keywords = _keywords_of(self.process_message)
        #: What hooks have raised, in order; `stop` raises it.
        self.errors: list[Exception] = []
        self._channels: set[SMTPChannel] = set()
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._listen(localaddr)

    def _listen(self, address: Address) -> None:
        self.socket: socket.socket = listen(address)
        self._bound_address: Address = self.socket.getsockname()
        self._map[self.socket.fileno()] = self

    def _make_settings(self) -> Settings:
        """Offer what smtpd offered."""
        hidden = {"PIPELINING", "ENHANCEDSTATUSCODES"}
        hidden |= set() if self.data_size_limit else {"SIZE"}
        hidden |= {"8BITMIME"} if self._decode_data else set()
        hidden |= set() if self.enable_SMTPUTF8 else {"SMTPUTF8"}
        # Like smtpd, take non-ASCII addresses whatever was announced: many clients send them raw.
        return Settings(data_size_limit=self.data_size_limit, utf8_commands=True, extensions=extensions.without(hidden))

    # Hooks.

    def process_message(
        self, peer: Address, mailfrom: str, rcpttos: list[str], data: bytes | str, **kwargs: Any
    ) -> str | None:
        """Take a message; override this. Return None to accept it, or a reply such as "550 No" to refuse it.

        `peer` is the client's address, (host, port, ...); `mailfrom` the reverse-path, "" for the null one;
        `rcpttos` the recipients in order; `data` the content, bytes (text with `decode_data`) whose lines
        end in LF, without the last line end. Without `decode_data`, `kwargs` has the upper-case lists of
        parameters `mail_options` and (of the last RCPT) `rcpt_options`; a method that doesn't take them
        is called without.

        An exception is answered with 451, and raised in the thread that stops the server.
        """
        raise NotImplementedError

    def handle_accepted(self, conn: Connection, addr: Address) -> SMTPChannel:
        """Return the channel for a new connection."""
        return self.channel_class(
            self, conn, addr, self.data_size_limit, self._map, self.enable_SMTPUTF8, self._decode_data
        )

    def receive(self, peer: Address, content: Content) -> Reply:
        """Translate a message for `process_message`, and its result into a reply."""
        transaction = content.transaction
        # Classic data has LF for line ends and none at the end.
        octets = content.data[:-2].replace(b"\r\n", b"\n")
        data: bytes | str = octets
        keywords = {}
        if self._decode_data:
            try:
                data = octets.decode()
            except UnicodeDecodeError:
                return _UNDECODABLE
        else:
            keywords = {
                "mail_options": _upper(transaction.parameters),
                "rcpt_options": _upper(transaction.forward_parameters[-1]),
            }
        if self._keywords is not None:
            keywords = {name: keywords[name] for name in self._keywords & keywords.keys()}
        rcpttos = [path.mailbox for path in transaction.forward_paths]
        status = self.process_message(peer, transaction.reverse_path.mailbox, rcpttos, data, **keywords)
        return Reply.parse(status) if status else content.reply

    def forget(self, channel: SMTPChannel) -> None:
        """Take notice that the channel's connection is closed."""
        self._channels.discard(channel)

    # Running.

    def start(self) -> Self:
        """Serve in a thread of the server's own until `stop`; if it does already, nothing happens."""
        if self._thread is None:
            loop = Loop()
            self._attach(loop)
            self._map.pop(self.socket.fileno())
            name = f"{type(self).__name__} on {self._bound_address[:2]}"
            self._thread = threading.Thread(target=loop.run, name=name, daemon=True)
            self._thread.start()
        return self

    def serve_forever(self) -> None:
        """Serve in this thread, until `close` or `stop` is called in another one or in a hook."""
        loop = Loop()
        self._attach(loop)
        self._map.pop(self.socket.fileno())
        loop.run()

    def stop(self) -> None:
        """Close the server, and raise what hooks have raised: the exception, or an ExceptionGroup of several."""
        self.close()
        errors, self.errors = self.errors, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            msg = f"several hooks of {type(self).__name__} failed"
            raise ExceptionGroup(msg, errors)

    def close(self) -> None:
        """Stop serving: tell open sessions so with 421, close everything, join the thread.

        A closed server stays closed, and can be started again, on the same port.
        """
        self._map.pop(self.socket.fileno(), None)
        loop, self._loop = self._loop, None
        if loop is None:
            self.socket.close()
        else:
            loop.call(lambda: self._detach(loop))
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
            return
        # What the body raised may be the consequence: don't replace it, tell the cause.
        self.close()
        for cause in self.errors:
            error.add_note(f"The server had this exception, and answered 451: {cause!r}")

    def _attach(self, loop: Loop) -> None:
        """Have a loop serve."""
        if self.socket.fileno() < 0:
            self._listen(self._bound_address)
        self._loop = loop
        loop.accept_from(self.socket, self._accept)

    def _detach(self, loop: Loop) -> None:
        """Have it serve no longer; in the loop's thread."""
        for channel in list(self._channels):
            channel.shut_down()
        loop.stop_listening(self.socket)
        self.errors += loop.errors
        loop.errors.clear()

    def _accept(self, connection: Connection) -> SMTPChannel:
        channel = self.handle_accepted(connection, connection.peer)
        self._channels.add(channel)
        return channel


def _upper(parameters: Parameters) -> list[str]:
    """Return parameters as smtpd gave them: "BODY=8BITMIME", all in upper case."""
    return [parameter.upper() for parameter in format_parameters(parameters)]


def _keywords_of(process_message: Callable[..., object]) -> frozenset[str] | None:
    """Return which keyword arguments a `process_message` takes; None: all."""
    parameters = inspect.signature(process_message).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)
