"""The next hop: the server to which a proxy hands messages on, and a connection to it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import selectors
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pytest_smtpd.protocol.replies import REPLY_LINE, Reply

from .envelope import Features

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_smtpd.network.connection import Address

    from .relayed import RelayedContent

#: How many seconds a connection may take to be made.
CONNECT_SECONDS = 30.0
#: How many times as long the answer to the content may take as any other (RFC 5321 4.5.3.2.6): who gives up too
#: soon has the message delivered twice.
FINAL_PATIENCE = 2
#: How many octets a reply may have.
MAX_REPLY = 65_536
#: For how many seconds what a server said while it was sent content is waited for when it hung up.
LAST_WORDS_SECONDS = 1.0

#: How many digits the size that it offers may have (RFC 1870 3).
MAX_SIZE_DIGITS = 20
_READY, _OK = 220, 250


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """Where messages are handed on, and how.

    `address` is (host, port), a host with a slash the path of a Unix socket; `timeout` how many seconds a reply
    may take. Raises ValueError for what makes no sense.
    """

    address: Address
    tls: Literal["starttls", "implicit"] | None = None
    ssl_context: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 300.0
    lmtp: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        match self.address:
            case (str(), int(), *_):
                pass
            case _:
                msg = f"the next hop's address is (host, port), such as ('mail.example.org', 25), not {self.address!r}"
                raise ValueError(msg)
        if self.tls not in {None, "starttls", "implicit"}:
            msg = f"upstream_tls is None, 'starttls' or 'implicit', not {self.tls!r}"
            raise ValueError(msg)
        if self.ssl_context is not None and self.tls is None:
            msg = "upstream_ssl_context needs upstream_tls='starttls' or upstream_tls='implicit'"
            raise ValueError(msg)
        if (self.username is None) != (self.password is None):
            msg = "upstream_username and upstream_password need one another"
            raise ValueError(msg)
        if not f"{self.username}{self.password}".isascii():
            msg = "upstream_username and upstream_password are ASCII: smtplib sends nothing else"
            raise ValueError(msg)
        if not self.timeout > 0:  # as NaN is not, either
            msg = f"upstream_timeout is a number of seconds, more than 0, not {self.timeout!r}"
            raise ValueError(msg)


class NoConnectionError(OSError):
    """The next hop can't be reached, or does not serve."""


class Upstream(smtplib.SMTP):
    """A connection to the next hop. Its methods block, and raise OSError when the connection fails.

    `smtplib` greets and authenticates; replies are read here, because it reads any number of lines and waits
    for each of them, and content is sent here, because it makes copies and changes line ends.
    """

    def __init__(self, hop: NextHop) -> None:
        super().__init__(local_hostname="localhost", timeout=hop.timeout)
        self.hop = hop
        self.features = Features()
        #: Whether the server was greeted, and commands may follow.
        self.is_open = False
        #: Whether replies may go to a client that understands more than ASCII.
        self.utf8 = False
        self.command_encoding = "utf-8"
        self.ehlo_msg = "LHLO" if hop.lmtp else "EHLO"
        self._received = b""
        self._aborted = False

    # Opening and closing.

    def open(self) -> None:
        """Connect, greet, encrypt and authenticate, as the next hop demands; raises NoConnectionError."""
        try:
            self._open()
        except OSError as error:
            self.close()
            raise NoConnectionError(_explain(error)) from error
        self.is_open = True

    def _open(self) -> None:
        self._connect()
        if self.hop.tls == "implicit":
            self._encrypt()
        self._expect(_READY, self.getreply())
        self._greet()
        if self.hop.tls == "starttls":
            self._expect(_READY, self.docmd("STARTTLS"))
            self._encrypt()
            self._greet()
        if self.hop.username is not None and self.hop.password is not None:
            self.login(self.hop.username, self.hop.password)

    def _connect(self) -> None:
        seconds = min(self.hop.timeout, CONNECT_SECONDS)
        failure: OSError | None = None
        for family, address in _resolve(self.hop.address):
            # Known before it connects, so that `abort` reaches it.
            self.sock = connecting = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._check_aborted()
                connecting.settimeout(seconds)
                connecting.connect(address)
                if not isinstance(address, str):
                    connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                self.close()
                failure = error
            else:
                return
        raise failure or OSError("its name has no address")

    def _encrypt(self) -> None:
        # What stands behind the 220 in the clear may be an attacker's (CVE-2021-38371 and its like).
        self._received = b""
        context = self.hop.ssl_context or ssl.create_default_context()
        self._socket.settimeout(self.hop.timeout)
        # Known before it begins, so that `abort` reaches it.
        self.sock = encrypted = context.wrap_socket(
            self._socket, server_hostname=self.hop.address[0], do_handshake_on_connect=False
        )
        self._check_aborted()
        encrypted.do_handshake()

    def _greet(self) -> None:
        self.esmtp_features = {}
        name = _address_literal(self._socket)
        code, text = self.ehlo(name)
        if 500 <= code < 600 and not self.hop.lmtp:  # noqa: PLR2004 - RFC 5321 3.2: it knows no extensions
            code, text = self.helo(name)
        self._expect(_OK, (code, text))
        keywords = {keyword.upper(): value for keyword, value in self.esmtp_features.items()}
        size = keywords.get("SIZE", "")
        is_size = size.isdecimal() and len(size) <= MAX_SIZE_DIGITS
        self.features = Features(frozenset(keywords), int(size) if is_size else 0)

    @staticmethod
    def _expect(expected: int, reply: tuple[int, bytes]) -> None:
        if reply[0] != expected:
            raise smtplib.SMTPResponseException(*reply)

    @property
    def _socket(self) -> socket.socket:
        if self.sock is None:
            msg = "the connection is closed"
            raise smtplib.SMTPServerDisconnected(msg)
        return self.sock

    @property
    def is_alive(self) -> bool:
        """Whether it still can be used: who has said or done anything unasked has ended it."""
        if self.sock is None or self._received:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            return not selector.select(0)

    def abort(self) -> None:
        """Have all that blocks fail at once; from any thread."""
        self._aborted = True
        if (connection := self.sock) is not None:
            with contextlib.suppress(OSError):
                # Not as SSLSocket does it, which takes the encryption away from who just reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _check_aborted(self) -> None:
        if self._aborted:
            msg = "the proxy was closed"
            raise ConnectionAbortedError(msg)

    def leave(self) -> None:
        """Say QUIT, wait for nothing, close."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.settimeout(0)
                self.sock.sendall(b"QUIT\r\n")
        self.close()

    # Commands and replies.

    def ask(self, command: str) -> Reply:
        """Send a command line and return the reply, with all its lines."""
        self._socket.settimeout(self.hop.timeout)
        self.putcmd(command)
        return self._reply(self.hop.timeout)

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply as smtplib does, for what of smtplib is used."""
        code, lines = self._read_reply(self.hop.timeout)
        return code, "\n".join(lines).encode()

    def _reply(self, seconds: float, *, intermediate: bool = False) -> Reply:
        code, lines = self._read_reply(seconds)
        reply = Reply(code, "\n".join(lines), utf8=self.utf8)
        if not reply.is_negative and reply.is_intermediate != intermediate:
            msg = f"it answered {code}, which is no answer to that"
            raise smtplib.SMTPServerDisconnected(msg)
        return reply

    def _read_reply(self, seconds: float) -> tuple[int, list[str]]:
        deadline = time.monotonic() + seconds
        lines: list[str] = []
        left = MAX_REPLY
        while True:
            line = self._read_line(deadline, left)
            left -= len(line)
            match = re.fullmatch(REPLY_LINE, line.decode("utf-8", "backslashreplace").removesuffix("\r"))
            if match is None:
                msg = f"it said {line[:80]!r}, which is no reply"
                raise smtplib.SMTPServerDisconnected(msg)
            lines.append(match[3] or "")
            if match[2] != "-":
                return int(match[1]), lines

    def _read_line(self, deadline: float, limit: int) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > limit:
                msg = f"it sent a reply of more than {MAX_REPLY} octets"
                raise smtplib.SMTPServerDisconnected(msg)
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(4096)
            if not data:
                msg = "it closed the connection"
                raise smtplib.SMTPServerDisconnected(msg)
            self._received += data
        line, self._received = self._received[:end], self._received[end + 1 :]
        return line

    # Content.

    def hand_over(self, content: RelayedContent, *, in_a_chunk: bool) -> Reply:
        """Send the content, and return the answer to it: from a positive one on it is the next hop's."""
        pieces: Iterable[bytes]
        if in_a_chunk:
            self.putcmd(f"BDAT {content.size} LAST")
            pieces = content.pieces()
        else:
            self.putcmd("DATA")
            reply = self._reply(self.hop.timeout, intermediate=True)
            if reply.is_negative:
                return reply
            pieces = content.transparent_pieces()
        try:
            for piece in pieces:
                self._socket.settimeout(self.hop.timeout)
                self._socket.sendall(piece)
        except OSError:
            return self._last_words()
        return self._reply(self.hop.timeout * FINAL_PATIENCE)

    def _last_words(self) -> Reply:
        """Return the refusal of a server that did not wait for the end of what it refuses."""
        reply = self._reply(LAST_WORDS_SECONDS)
        if not reply.is_negative:
            msg = f"it answered {reply.code} before it had all"
            raise smtplib.SMTPServerDisconnected(msg)
        return reply


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, Address | str]]:
    host, port = address[:2]
    if host.startswith("/"):
        return [(socket.AF_UNIX, host)]
    return [(found[0], found[4]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _explain(error: OSError) -> str:
    if not isinstance(error, smtplib.SMTPResponseException):
        return str(error)
    text = error.smtp_error
    return (
        f"it answered {error.smtp_code} {text if isinstance(text, str) else text.decode('utf-8', 'backslashreplace')}"
    )


def _address_literal(connection: socket.socket) -> str:
    """Return what a client calls itself that has no better name (RFC 5321 4.1.4), and asks no DNS for one."""
    name = connection.getsockname()
    if not isinstance(name, tuple):
        return "localhost"
    address = ipaddress.ip_address(name[0].partition("%")[0])
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"  # noqa: PLR2004
