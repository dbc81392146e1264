"""TLS as bytes in, bytes out: it knows no socket and no SMTP. Contexts, and the certificates of the package.

The bundled certificates are for tests. Their private keys are public, that of the CA which signed them exists
no more: to trust it is to trust these certificates and no others. `tests/make_certificates.py` has made them.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: The certificates that a server can show, the good one first, then those that clients have to refuse.
CERTIFICATES = ("localhost", "expired", "not-yet-valid", "wrong-host", "self-signed")

#: The most plaintext that one TLS record carries, in octets (RFC 8446 5.1).
RECORD_SIZE = 16_384

_DIRECTORY = Path(__file__).parent / "certificates"

_VERIFY_MODES = {None: ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What a handshake came to."""

    #: The version of the protocol, such as "TLSv1.3".
    version: str
    #: The cipher suite under the name that OpenSSL gives it, such as "TLS_AES_256_GCM_SHA384".
    cipher: str
    #: The name that the client asked for (SNI, RFC 6066 3), if any; known with contexts of `server_context`.
    server_name: str | None = None
    #: The verified certificate of the client, as `ssl.SSLSocket.getpeercert()` gives it, if it has shown one.
    peer_certificate: dict[str, Any] | None = field(default=None, hash=False)


class TLS:
    """The server's side of one TLS connection: give it what was received, send what it has to send.

    Whatever the calls come to, an exception included, `data_to_send` may have something to send afterwards.
    Not for several threads at once.
    """

    __slots__ = ("_closed", "_incoming", "_outgoing", "_ssl", "ended", "error", "established")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._closed = False
        #: Whether the handshake is done.
        self.established = False
        #: Whether the client has sent a close_notify, and so ended what it has to say (RFC 8446 6.1). A
        #: connection that is closed without was cut off, maybe not by the client.
        self.ended = False
        #: Why the connection has failed, if it has.
        self.error: ssl.SSLError | None = None

    @property
    def info(self) -> TLSInfo:
        """What the handshake came to; raises ValueError as long as it is not done."""
        version, cipher = self._ssl.version(), self._ssl.cipher()
        if not self.established or version is None or cipher is None:
            msg = "the TLS handshake is not done: there is no version, cipher or certificate yet"
            raise ValueError(msg)
        return TLSInfo(version, cipher[0], getattr(self._ssl, "server_name", None), self._ssl.getpeercert())

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext and return the plaintext that it completes, which is never longer.

        Returns b"" while the handshake goes on. Raises ssl.SSLError for what is no TLS, when the handshake
        fails, for a record that was tampered with, and from then on. Plaintext that came in front of such a
        record is returned nevertheless; `error` is set then, and the next call raises it. What comes after
        the client's close_notify is ignored.
        """
        if self.error is not None:
            raise self.error
        if self.ended:
            return b""
        self._incoming.write(data)
        plaintext: list[bytes] = []
        try:
            self._read_into(plaintext)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.error = error
            if not plaintext:
                raise
        return b"".join(plaintext)

    def _read_into(self, plaintext: list[bytes]) -> None:
        """Read until ssl wants more, or to the close_notify."""
        if not self.established:
            self._ssl.do_handshake()
            self.established = True
        while chunk := self._ssl.read(RECORD_SIZE):
            plaintext.append(chunk)
        self.ended = True

    def send(self, data: bytes) -> None:
        """Encrypt plaintext; raises ssl.SSLError before the handshake, after `close`, and after a failure."""
        if self.error is not None:
            raise self.error
        if not self.established or self._closed:
            msg = "TLS can't send: " + ("it is closed" if self._closed else "the handshake is not done")
            raise ssl.SSLError(msg)
        # One write takes no more than one record.
        rest = memoryview(data)
        while rest:
            rest = rest[self._ssl.write(rest) :]

    def close(self) -> None:
        """Have a close_notify sent, where there is a connection to close. The client may still send."""
        if not self.established or self._closed or self.error is not None:
            return
        self._closed = True
        # It waits for the client's close_notify; those who don't care need not wait.
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()

    def data_to_send(self) -> bytes:
        """Return the ciphertext, handshake messages and alerts since the last call."""
        return self._outgoing.read()


def cafile() -> str:
    """Return the path of the bundled CA's certificate, for `ssl.create_default_context(cafile=...)`."""
    return str(_DIRECTORY / "ca.pem")


def certfile(name: str = "localhost") -> str:
    """Return the path of a bundled certificate with its private key, both as PEM.

    It is one of `CERTIFICATES`, or "client", with which clients may identify themselves. Raises ValueError
    for any other name.
    """
    if name not in {*CERTIFICATES, "client"}:
        msg = f"there is no bundled certificate {name!r}; there are {', '.join(CERTIFICATES)} and client"
        raise ValueError(msg)
    return str(_DIRECTORY / f"{name}.pem")


def server_context(
    certificate: str = "localhost",
    *,
    client_certificates: Literal["optional", "required"] | None = None,
    client_cafile: str | None = None,
    maximum_version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """Return the context of a server that shows one of the bundled `CERTIFICATES`.

    `client_certificates` has it ask clients for a certificate, "optional" or "required", that the CA in the
    PEM file `client_cafile` has signed, which is the bundled one (None) or another. `maximum_version` is
    TLSv1_2, or TLSv1_3 as without it. Raises ValueError for other values, OSError when there is no such file,
    and ssl.SSLError when there is no certificate in it.
    """
    if client_certificates not in _VERIFY_MODES:
        msg = f"client_certificates is None, 'optional' or 'required', not {client_certificates!r}"
        raise ValueError(msg)
    if maximum_version not in {None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3}:
        msg = f"maximum_version is TLSVersion.TLSv1_2 or TLSVersion.TLSv1_3, not {maximum_version!r}"
        raise ValueError(msg)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile(certificate))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = maximum_version or ssl.TLSVersion.TLSv1_3
    # Renegotiation is the client's means to make the server calculate; TLS 1.3 has none.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Tickets are sent behind the handshake. A client that is gone by then would reset the connection for them.
    context.num_tickets = 0
    context.sslobject_class = _ServerSide
    context.sni_callback = _note_server_name
    if client_certificates is not None:
        context.load_verify_locations(client_cafile or cafile())
        context.verify_mode = _VERIFY_MODES[client_certificates]
    return context


def client_context() -> ssl.SSLContext:
    """Return the context of a client that trusts the bundled CA and verifies the server's name."""
    return ssl.create_default_context(cafile=cafile())


class _ServerSide(ssl.SSLObject):
    """Remembers what name the client asked for: ssl tells it to the context's callback, and nobody later."""

    server_name: str | None = None


def _note_server_name(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    if isinstance(connection, _ServerSide):
        connection.server_name = name
