"""SMTPServer: makes a channel for each client, and calls `process_message` for each message."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.events import Refusal
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.state import DATA_SIZE_DEFAULT, Settings

from .attributes import upper
from .channel import SMTPChannel
from .overrides import NEVER_CALLED_OF_SERVERS, refuse_overrides
from .service import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from pytest_smtpd.network.connection import Address, Connection
    from pytest_smtpd.protocol.mail import Content

#: The servers that `smtpd.loop` serves, by file descriptor, as asyncore.socket_map was.
socket_map: dict[int, SMTPServer] = {}

_UNDECODABLE = Reply(554, "Error: the content is not UTF-8", "5.6.1")


class SMTPServer(Service):
    """An SMTP server that calls `process_message` for each message it receives.

    It binds and listens at once, on `localaddr`, (host, port); port 0 takes any free one. `remoteaddr` is
    for proxies. `data_size_limit` is in octets, 0 or None for none. With `decode_data`, `process_message` gets
    text instead of bytes. Raises OSError when it can't bind.
    """

    channel_class: type[SMTPChannel] = SMTPChannel
    #: What TLS is done with; None: there is none.
    ssl_context: ssl.SSLContext | None = None
    #: Whether TLS comes before the greeting (RFC 8314 3.3).
    implicit_tls = False
    #: Whether clients come through a proxy that tells their address first (HAProxy's PROXY protocol).
    proxy_protocol = False

    def __init__(
        self,
        localaddr: Address,
        remoteaddr: Address | None,
        data_size_limit: int | None = DATA_SIZE_DEFAULT,
        map: dict[int, SMTPServer] | None = None,
        enable_SMTPUTF8: bool = False,
        decode_data: bool = False,
    ) -> None:
        self._localaddr = localaddr
        self._remoteaddr = remoteaddr
        self.data_size_limit = data_size_limit or 0
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data
        self.settings = self._make_settings()
        super().__init__(localaddr, socket_map if map is None else map)

    def __init_subclass__(cls) -> None:
        """Tell who overrides what asyncore called."""
        super().__init_subclass__()
        refuse_overrides(cls, NEVER_CALLED_OF_SERVERS)

    @cached_property
    def _keywords(self) -> frozenset[str] | None:
        return _keywords_of(self.process_message)

    def _make_settings(self) -> Settings:
        return _classic_settings(self.data_size_limit, self.enable_SMTPUTF8, self._decode_data)

    def settings_for(self, data_size_limit: int | None, enable_SMTPUTF8: bool, decode_data: bool) -> Settings:
        """Return the settings of a session whose channel was made with these arguments, the server's or others."""
        own = (self.data_size_limit, self.enable_SMTPUTF8, self._decode_data)
        given = (data_size_limit or 0, enable_SMTPUTF8, decode_data)
        return self.settings if given == own else _classic_settings(*given)

    # Hooks.

    def process_message(
        self, peer: Address, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any
    ) -> str | Reply | None:
        """Take a message; override this. Return None to accept it, or a reply such as "550 No" to refuse it.

        To raise `Refusal` is as good as returning its reply.

        `peer` is the client's address, (host, port, ...); `mailfrom` the reverse-path, "" for the null one;
        `rcpttos` the recipients in order; `data` the content, bytes (text with `decode_data`) whose lines
        end in LF, without the last line end. Without `decode_data`, `kwargs` has the upper-case lists of
        parameters `mail_options` and (of the last RCPT) `rcpt_options`; a method that doesn't take them
        is called without.

        An exception is answered with 451, and raised in the thread that stops the server.
        """
        raise NotImplementedError

    def handle_accepted(self, conn: Connection, addr: Address) -> SMTPChannel:
        """Make the channel for a new connection."""
        return self.channel_class(
            self, conn, addr, self.data_size_limit, self._map, self.enable_SMTPUTF8, self._decode_data
        )

    def receive(self, peer: Address, content: Content, *, decode_data: bool | None = None) -> Reply:
        """Translate a message for `process_message`, and its result into a reply.

        `decode_data` is the channel's; None: the server's.
        """
        decode_data = self._decode_data if decode_data is None else decode_data
        transaction = content.transaction
        octets = classic_data(content)
        data: bytes | str = octets
        keywords = {}
        if decode_data:
            try:
                data = octets.decode()
            except UnicodeDecodeError:
                return _UNDECODABLE
        else:
            keywords = {
                "mail_options": upper(transaction.parameters),
                "rcpt_options": upper(transaction.forward_parameters[content.about[-1]]),
            }
        if self._keywords is not None:
            keywords = {name: keywords[name] for name in self._keywords & keywords.keys()}
        mailfrom = transaction.reverse_path.mailbox
        try:
            status = self.process_message(peer, mailfrom, content.rcpttos, data, **keywords)
        except Refusal as refusal:
            return refusal.reply
        return _read_status(status) or content.reply

    def note_tls_failure(self, peer: Address, error: OSError) -> None:
        """Take notice that TLS failed on a client's connection, which ends."""


def _classic_settings(data_size_limit: int, enable_SMTPUTF8: bool, decode_data: bool) -> Settings:
    """Offer what smtpd offered."""
    if enable_SMTPUTF8 and decode_data:
        msg = "decode_data and enable_SMTPUTF8 cannot be set to True at the same time"
        raise ValueError(msg)
    hidden = {"PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN"}
    hidden |= set() if data_size_limit else {"SIZE"}
    hidden |= {"8BITMIME"} if decode_data else set()
    hidden |= set() if enable_SMTPUTF8 else {"SMTPUTF8"}
    # Like smtpd, take non-ASCII addresses whatever was announced: many clients send them raw.
    return Settings(
        data_size_limit=data_size_limit,
        utf8_commands=True,
        parameters_after_helo=False,
        extensions=extensions.without(hidden),
    )


def classic_data(content: Content) -> bytes:
    """Return what `process_message` gets of a message: LF for line ends, and none at the end."""
    if content.transaction.is_binary:
        return content.data
    return content.data.removesuffix(b"\r\n").replace(b"\r\n", b"\n")


def _read_status(status: object) -> Reply | None:
    """Read what `process_message` has returned."""
    match status:
        case None | "":
            return None
        case Reply():
            return status
        case str():
            return Reply.parse(status)
    msg = f'process_message returns None or a reply such as "550 No", not {status!r}'
    raise TypeError(msg)


def _keywords_of(process_message: Callable[..., object]) -> frozenset[str] | None:
    """Return which keyword arguments a `process_message` takes; None: all."""
    parameters = inspect.signature(process_message).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)
