"""Access: where a server is, and how clients get there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from pytest_smtpd.network.connection import Address
    from pytest_smtpd.protocol.state import Settings


class Access:
    """What clients need to know of a server: a base class of RecordingServer."""

    settings: Settings
    implicit_tls: bool
    _bound_address: Address

    @property
    def host(self) -> str:
        """The address it listens on, such as "127.0.0.1"."""
        return str(self.address[0])

    @property
    def port(self) -> int:
        """The port it listens on; the same for as long as the server lives."""
        return int(self.address[1])

    @property
    def address(self) -> tuple[str, int]:
        """(host, port), as `smtplib.SMTP(*server.address)` takes it."""
        host, port = self._bound_address[:2]
        return host, port

    @property
    def url(self) -> str:
        """The address as a URL: "smtp://127.0.0.1:2525", or "smtps://…" with implicit TLS, "lmtp://…"."""
        scheme = "lmtp" if self.settings.lmtp else "smtps" if self.implicit_tls else "smtp"
        if self.host.startswith("/"):
            return f"{scheme}://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def cafile(self) -> str:
        """The path of the CA certificate that clients may trust to verify the server: a PEM file."""
        from pytest_smtpd.network.tls import cafile

        return cafile()

    @property
    def client_ssl_context(self) -> ssl.SSLContext:
        """A new context for clients, with which they verify the server, its name included."""
        from pytest_smtpd.network.tls import client_context

        return client_context()
