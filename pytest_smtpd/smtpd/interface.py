"""What a channel needs of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from pytest_smtpd.network.connection import Address
    from pytest_smtpd.protocol.mail import Content
    from pytest_smtpd.protocol.replies import Reply
    from pytest_smtpd.protocol.state import Settings

    from .workers import Workers


class Server(Protocol):
    """A server, as its channels see it."""

    settings: Settings
    errors: list[BaseException]
    #: What TLS is done with; None: there is none.
    ssl_context: ssl.SSLContext | None
    #: Whether TLS comes before the greeting, without STARTTLS (RFC 8314 3.3).
    implicit_tls: bool
    #: Whether clients come through a proxy that tells their address first.
    proxy_protocol: bool
    #: How many seconds a client may be silent; 0: for ever.
    timeout: float
    #: Tells the seconds by which the server goes.
    clock: Callable[[], float]
    #: Whether `receive` may block.
    blocking: bool
    #: Where calls are made that may block.
    workers: Workers

    @property
    def is_full(self) -> bool:
        """Whether there are more clients than there may be."""

    def settings_for(self, data_size_limit: int, enable_SMTPUTF8: bool, decode_data: bool) -> Settings:
        """Return the settings of a session whose channel was made with these arguments."""

    def receive(self, peer: Address, content: Content, *, decode_data: bool | None = None) -> Reply:
        """Return the answer to a message."""

    def note_tls_failure(self, peer: Address, error: OSError) -> None:
        """Take notice that TLS failed on a connection, which ends."""

    def forget(self, channel: Any) -> None:
        """Take notice that the channel's connection is closed."""
