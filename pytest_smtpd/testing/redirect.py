"""Redirects: connections of this process to a hard-coded host go to a server of the test's instead.

While there is a redirect, and no longer, the functions of `socket` that resolve names and connect are replaced.
A name that is redirected resolves to a placeholder, an address that nobody has; connecting to it, or to the name,
leads to the server. So it doesn't matter who resolves and who connects, and DNS is never asked.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

#: What placeholders are counted from: addresses that no network routes, as they are reserved (RFC 1112 4) or for
#: what is to be discarded (RFC 6666), and that nobody uses as an example.
_PLACEHOLDERS = {
    socket.AF_INET: ipaddress.ip_address("240.83.77.0"),
    socket.AF_INET6: ipaddress.ip_address("100::5370:0"),
}
#: Who listens asks for its own address; who says that the host is an address wants nothing looked up.
_NO_LOOKUP = socket.AI_PASSIVE | socket.AI_NUMERICHOST
_MAX_PORT = 65_535
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@dataclass(frozen=True, eq=False)
class Redirect:
    """Where connections to a host go instead: those to one port, or to any (None). `host` is normalized."""

    host: str
    port: int | None
    target: tuple[str, int]

    def is_for(self, host: str, port: int | None) -> bool:
        """Whether it is for this port of the host; None: for whichever port it will be."""
        return host == self.host and (port is None or self.port in {None, port})

    @property
    def family(self) -> socket.AddressFamily:
        """What the target's address belongs to."""
        return socket.AF_INET6 if ":" in self.target[0] else socket.AF_INET

    def address_for(self, family: int) -> tuple[str, int]:
        """Return the address with which a socket of this family gets to the target."""
        host, port = self.target
        if family == self.family:
            return host, port
        if self.family == socket.AF_INET:
            return f"::ffff:{host}", port  # RFC 4291 2.5.5.2
        msg = f"{self.host} is redirected to {host}, which can't be reached by IPv4"
        raise socket.gaierror(socket.EAI_NONAME, msg)


class Redirects:
    """The redirects of this process that are active, and what they need of `socket`."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        # The last one entered comes first. Replaced as a whole, so that who looks needs no lock.
        self._active: tuple[Redirect, ...] = ()
        self._patches: list[_Patch] = []
        # The placeholders of each host, and the host of each placeholder; kept, as clients may keep them, too.
        self._placeholders: dict[str, dict[socket.AddressFamily, str]] = {}
        self._hosts: dict[str, str] = {}

    @contextlib.contextmanager
    def entered(self, redirect: Redirect) -> Iterator[None]:
        """Have a redirect active for the time of a `with`."""
        self._add(redirect)
        try:
            yield
        finally:
            self._remove(redirect)

    def _add(self, redirect: Redirect) -> None:
        with self._changing:
            if redirect.host not in self._placeholders:
                number = len(self._placeholders) + 1
                placeholders = {family: str(base + number) for family, base in _PLACEHOLDERS.items()}
                self._placeholders[redirect.host] = placeholders
                self._hosts.update(dict.fromkeys(placeholders.values(), redirect.host))
            if not self._active:
                self._patches = self._patch()
            self._active = (redirect, *self._active)

    def _remove(self, redirect: Redirect) -> None:
        """End a redirect, and with the last one, have `socket` as it was before the first."""
        with self._changing:
            self._active = tuple(other for other in self._active if other is not redirect)
            if self._active:
                return
            patches, self._patches = self._patches, []
            if left := [patch.name for patch in patches if not patch.undo()]:
                msg = (
                    f"somebody has replaced {', '.join(left)} of socket while redirect() was active, and must take "
                    "that back before redirect() ends: its replacement stays, and redirects nothing any more"
                )
                raise RuntimeError(msg)

    def _patch(self) -> list[_Patch]:
        # The class from which all sockets descend: a plugin may have put a subclass in its place; or gevent, a
        # class that is none.
        descent = socket.socket.__mro__
        sockets = next((cls for cls in descent if socket.SocketType in cls.__bases__), socket.socket)
        return [
            _Patch(sockets, "connect", self._connect),
            _Patch(sockets, "connect_ex", self._connect),
            _Patch(socket, "getaddrinfo", self._getaddrinfo),
            _Patch(socket, "gethostbyname", self._gethostbyname),
            _Patch(socket, "gethostbyname_ex", self._gethostbyname_ex),
        ]

    def _find(self, host: object, port: int | None = None) -> Redirect | None:
        """Return the redirect for this port of a host; None: for whichever port it will be."""
        name = _name_of(host)
        name = self._hosts.get(name, name)
        return next((redirect for redirect in self._active if redirect.is_for(name, port)), None)

    # What stands for functions of `socket`. Each gets the original first.

    def _connect(self, original: Callable[..., Any], sock: socket.socket, address: Any, /) -> Any:
        if sock.family in _PLACEHOLDERS and isinstance(address, tuple) and len(address) > 1:
            address = self._route(sock, address)
        return original(sock, address)

    def _route(self, sock: socket.socket, address: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the address to which a socket has to connect instead of this one."""
        host, port, *rest = address
        if sock.type == socket.SOCK_STREAM and (redirect := self._find(host, port)):
            return redirect.address_for(sock.family)
        # The placeholder of a host, of which this port is not redirected, is no address.
        name = self._hosts.get(_name_of(host))
        return address if name is None else (name, port, *rest)

    def _getaddrinfo(  # noqa: PLR0913, PLR0917 - socket's signature
        self,
        original: Callable[..., Any],
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - socket's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        is_stream = type in {0, socket.SOCK_STREAM} and proto in {0, socket.IPPROTO_TCP}
        if self._find(host) is None or _parse_ip(_name_of(host)) or not is_stream or flags & _NO_LOOKUP:
            return original(host, port, family, type, proto, flags)
        number = _port_number(port)
        redirect = self._find(host, number or None)
        if redirect is None or number is None:
            return original(host, port, family, type, proto, flags)
        chosen = socket.AddressFamily(family) if family else redirect.family
        placeholder = self._placeholder(redirect, chosen)
        address = (placeholder, number) if chosen == socket.AF_INET else (placeholder, number, 0, 0)
        name = redirect.host if flags & socket.AI_CANONNAME else ""
        return [(chosen, socket.SOCK_STREAM, socket.IPPROTO_TCP, name, address)]

    def _gethostbyname(self, original: Callable[..., Any], host: Any, /) -> Any:
        redirect = self._find(host)
        if redirect is None or _parse_ip(_name_of(host)):
            return original(host)
        return self._placeholder(redirect, socket.AF_INET)

    def _gethostbyname_ex(self, original: Callable[..., Any], host: Any, /) -> Any:
        redirect = self._find(host)
        if redirect is None or _parse_ip(_name_of(host)):
            return original(host)
        return redirect.host, [], [self._placeholder(redirect, socket.AF_INET)]

    def _placeholder(self, redirect: Redirect, family: socket.AddressFamily) -> str:
        redirect.address_for(family)  # which tells who can't get there
        return self._placeholders[redirect.host][family]


class _Patch:
    """A replacement of an attribute, which is given what it replaces as its first argument."""

    def __init__(self, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
        self.name = name
        self._owner = owner
        self._inherited = name not in vars(owner)
        self._original = original = getattr(owner, name)

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            # Who keeps this for longer than there are redirects has the original in effect.
            return replacement(original, *args, **kwargs)

        self._replaced = replaced
        setattr(owner, name, replaced)

    def undo(self) -> bool:
        """Restore the original, and return True; False when something else stands in its place."""
        if vars(self._owner).get(self.name) is not self._replaced:
            return False
        if self._inherited:
            delattr(self._owner, self.name)
        else:
            setattr(self._owner, self.name, self._original)
        return True


#: `socket` is one for the process, and so are these.
_REDIRECTS = Redirects()


def redirected(host: str, port: int | None, target: tuple[str, int]) -> AbstractContextManager[None]:
    """Have connections of this process to a host, at one port or (None) at any, go to `target`, an IP address.

    Raises ValueError for what is no host or port, RuntimeError at the end of the `with` when somebody else has
    replaced functions of `socket` meanwhile.
    """
    return _REDIRECTS.entered(Redirect(_check_host(host), _check_port(port), target))


def _name_of(host: object) -> str:
    """Return a host in lower case and ASCII, without the last dot, an address in its usual form; "" if it is none."""
    if not isinstance(host, (str, bytes, bytearray)):
        return ""
    text = host if isinstance(host, str) else host.decode("ascii", "replace")
    if address := _parse_ip(text):
        return str(address)
    with contextlib.suppress(UnicodeError):
        text = text.encode("idna").decode("ascii")
    return text.lower().removesuffix(".")


def _parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _port_number(port: Any) -> int | None:
    """Return the number of a port as getaddrinfo takes it, maybe as the name of a service; None: there is none."""
    if port is None or isinstance(port, int):
        return port or 0
    text = port.decode("ascii", "replace") if isinstance(port, bytes) else str(port)
    if text.isdecimal():
        return int(text)
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        return None


def _check_host(host: Any) -> str:
    name = _name_of(host) if isinstance(host, str) else ""
    if not (_parse_ip(name) or _NAME.fullmatch(name)):
        msg = f"host is the name or the IP address of a host, without a port or brackets, not {host!r}"
        raise ValueError(msg)
    return name


def _check_port(port: Any) -> int | None:
    if port is not None and not (isinstance(port, int) and 0 < port <= _MAX_PORT):
        msg = f"port is from 1 to {_MAX_PORT}, or None for any port, not {port!r}"
        raise ValueError(msg)
    return port
