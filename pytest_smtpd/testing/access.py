"""Access: where a server is, and how clients get there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import smtplib
    import ssl
    from contextlib import AbstractContextManager

    from pytest_smtpd.network.connection import Address
    from pytest_smtpd.protocol.state import Settings

    from .security import Security

#: Where clients get to a server that listens everywhere.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is what a server is reached at that has it
#: What `environ` has names for.
_VARIABLES = ("host", "port", "url", "username", "password", "cafile")


class Access:
    """What clients need to know of a server, and a client that knows it: a base class of RecordingServer."""

    settings: Settings
    ssl_context: ssl.SSLContext | None
    implicit_tls: bool
    proxy_protocol: bool
    _bound_address: Address
    _configuration: Security

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
        """All that a client needs to know, as a URL: "smtp+starttls://ada:secret@127.0.0.1:2525".

        The scheme is smtp or lmtp; with "+starttls" where the server offers STARTTLS, and smtps or lmtps where
        TLS comes first. User and password are the first ones of `users`, percent-encoded, if that is a mapping.
        """
        login = ":".join(quote(word, safe="") for word in self._login or ())
        return self._make_url(f"{login}@" if login else "")

    @property
    def public_url(self) -> str:
        """The URL without user and password, for people to read."""
        return self._make_url("")

    def _make_url(self, login: str) -> str:
        scheme = "lmtp" if self.settings.lmtp else "smtp"
        scheme += "s" if self.implicit_tls else "+starttls" if self._offers("STARTTLS") else ""
        host = f"[{self._client_host}]" if ":" in self.host else self._client_host
        place = host if self._is_path else f"{host}:{self.port}"
        return f"{scheme}://{login}{place}"

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

    def environ(self, prefix: str = "SMTP_", **names: str) -> dict[str, str]:
        """Return environment variables that tell a program about the server: `os.environ | server.environ()`.

        They are SMTP_HOST, SMTP_PORT and SMTP_URL; SMTP_USERNAME and SMTP_PASSWORD, the first ones of `users`,
        where that is a mapping; and where there is TLS with the bundled certificate, SSL_CERT_FILE, which
        has programs that use OpenSSL trust its CA, and no other. `prefix` stands instead of "SMTP_"; `host=`,
        `port=`, `url=`, `username=`, `password=` and `cafile=` rename single variables. Raises TypeError for
        other names.
        """
        if unknown := names.keys() - set(_VARIABLES):
            msg = f"environ() can rename {', '.join(_VARIABLES)}, and not {', '.join(sorted(unknown))}"
            raise TypeError(msg)
        values = {"host": self._client_host, "port": str(self.port), "url": self.url}
        if self._login is not None:
            values |= {"username": self._login[0], "password": self._login[1]}
        if self.ssl_context is not None and self._configuration.ssl_context is None:
            values["cafile"] = self.cafile
        variables = {name: prefix + name.upper() for name in _VARIABLES} | {"cafile": "SSL_CERT_FILE"} | names
        return {variables[name]: value for name, value in values.items()}

    def smtplib_client(
        self,
        *,
        starttls: bool = True,
        login: bool | tuple[str, str] = True,
        context: ssl.SSLContext | None = None,
        local_hostname: str = "localhost",
        timeout: float = 30.0,
    ) -> smtplib.SMTP:
        """Return a client of smtplib's that is connected, for `with server.smtplib_client() as client:`.

        It is an SMTP, SMTP_SSL or LMTP, as the server needs. Where the server offers STARTTLS, it is used unless
        `starttls` is False. The client logs in as the first one of `users`, where that is a mapping; with False
        for `login` it doesn't, and with (user, password) it does so as somebody else.

        TLS is done with `context`, by default one that trusts the bundled CA, verifies the server's name, and
        has a certificate to show if the server wants one. `local_hostname` is what the client calls itself;
        `timeout` is for how many seconds it waits for an answer.

        Raises what smtplib raises, ValueError where smtplib can't speak with such a server, and TypeError for a `login`
        that is none.
        """
        from .client import connect

        _check_login(login)
        starttls = starttls and self._offers("STARTTLS")
        if self.proxy_protocol or (self._is_path and (self.implicit_tls or starttls or not self.settings.lmtp)):
            msg = (
                f"smtplib has no client for {self.public_url}: it can't send the header of the PROXY protocol, "
                "and speaks nothing but LMTP without TLS on Unix sockets"
            )
            raise ValueError(msg)
        return connect(
            self._client_host,
            self.port,
            lmtp=self.settings.lmtp,
            tls="implicit" if self.implicit_tls else "starttls" if starttls else None,
            login=(self._login if login else None) if isinstance(login, bool) else login,
            context=context,
            local_hostname=local_hostname,
            timeout=timeout,
        )

    def redirect(self, host: str, port: int | None = None) -> AbstractContextManager[None]:
        """Have connections of this process to a hard-coded host come to this server, for the time of a `with`.

        `host` is a name or an IP address, compared without case; `port` is the only port, None: any.
        What goes through Python's `socket` is redirected: smtplib, asyncio, trio and nearly all else in Python, in
        all threads; other processes are not, nor uvloop, nor the asyncio of Windows, which have sockets of their
        own. Names are not looked up. Connections to any other host or port are left alone.

        Of several redirects that fit, the last one that was entered counts. The client still thinks that it
        speaks with `host`: where it verifies TLS, it refuses a certificate for localhost.

        Raises ValueError for what is no host or port, and for a server on a Unix socket.
        """
        from .redirect import redirected

        if self._is_path:
            msg = f"redirect() needs a server with an IP address, and this one is on the Unix socket {self.host}"
            raise ValueError(msg)
        return redirected(host, port, (self._client_host, self.port))

    @property
    def _is_path(self) -> bool:
        return self.host.startswith("/")

    @property
    def _client_host(self) -> str:
        return _LOOPBACK.get(self.host, self.host)

    @property
    def _login(self) -> tuple[str, str] | None:
        return self._configuration.login if self._offers("AUTH") else None

    def _offers(self, keyword: str) -> bool:
        return keyword in self.settings.keywords


def _check_login(login: object) -> None:
    match login:
        case bool() | (str(), str()):
            return
    msg = f"login is True, False or (user, password), not {login!r}"
    raise TypeError(msg)
