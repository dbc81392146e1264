"""Redirects: what reaches the server instead of a hard-coded host, and what is left alone."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import smtplib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tools import find_module

from pytest_smtpd import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: A name that nobody has (RFC 6761 6.4): whatever resolves it, it is not DNS.
HOST = "mail.example.invalid"
#: An address that nobody has (RFC 5737), and one of IPv6 (RFC 3849).
IPV4, IPV6 = "203.0.113.25", "2001:db8::25"

FUNCTIONS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection")


def patched() -> dict[str, object]:
    """Return what stands for the functions of `socket` at the moment."""
    methods = {name: vars(socket.socket).get(name) for name in ("connect", "connect_ex")}
    return methods | {name: vars(socket)[name] for name in FUNCTIONS}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Hold for every test that `socket` is afterwards what it was before."""
    before = patched()
    yield
    assert patched() == before


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a server whose greeting names it."""
    with RecordingServer(hostname="redirected.example") as server:
        yield server


@pytest.fixture
def other() -> Iterator[RecordingServer]:
    """Return another server."""
    with RecordingServer(hostname="other.example") as server:
        yield server


def read_greeting(sock: socket.socket) -> str:
    """Return the name in the greeting that comes on a connection, which is closed."""
    with sock:
        sock.settimeout(10)
        return sock.makefile("rb").readline().split()[1].decode()


def connected(address: Any, family: int = socket.AF_INET) -> socket.socket:
    """Return a socket that has connected to this address."""
    sock = socket.socket(family)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def greeting(host: str, port: int) -> str:
    """Return the name in the greeting of whoever answers there."""
    return read_greeting(socket.create_connection((host, port), timeout=10))


def by_connect(host: Any, port: int) -> str:
    """Connect a socket to the host by its name."""
    return read_greeting(connected((host, port)))


def by_connect_ex(host: str, port: int) -> str:
    """Connect a socket with connect_ex."""
    sock = socket.socket()
    assert sock.connect_ex((host, port)) == 0
    return read_greeting(sock)


def by_getaddrinfo(host: str, port: int) -> str:
    """Connect to each address that getaddrinfo returns."""
    [(family, kind, protocol, name, address)] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    assert (kind, protocol, name) == (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    return read_greeting(connected(address, family))


def by_getaddrinfo_without_port(host: str, port: int) -> str:
    """Look the address up, and add the port later."""
    [(family, *_, name, address)] = socket.getaddrinfo(host=host, port=None, flags=socket.AI_CANONNAME)
    assert (name, address[1]) == (host, 0)
    return read_greeting(connected((address[0], port), family))


def by_address_only(host: str, port: int) -> str:
    """Look the address up with the port, take nothing but the address, as anyio does."""
    return by_connect(socket.getaddrinfo(host, port, 0, 0, socket.IPPROTO_TCP)[0][4][0], port)


def by_gethostbyname(host: str, port: int) -> str:
    """Look the address up in the oldest way."""
    return by_connect(socket.gethostbyname(host), port)


def by_gethostbyname_ex(host: str, port: int) -> str:
    """Look all addresses up in the oldest way."""
    name, aliases, [address] = socket.gethostbyname_ex(host)
    assert (name, aliases) == (host, [])
    return by_connect(address, port)


def by_smtplib(host: str, port: int) -> str:
    """Use smtplib."""
    with smtplib.SMTP(host, port, "localhost", timeout=10) as client:
        return client.ehlo()[1].decode().splitlines()[0]


def by_open_connection(host: str, port: int) -> str:
    """Use asyncio's streams."""

    async def connect() -> str:
        reader, writer = await asyncio.open_connection(host, port)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line.split()[1].decode()

    return asyncio.run(connect())


def by_sock_connect(host: str, port: int) -> str:
    """Use asyncio with a socket of one's own."""

    async def connect(sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - socket's signature
        await asyncio.get_running_loop().sock_connect(sock, (host, port))

    sock = socket.socket()
    asyncio.run(connect(sock))
    return read_greeting(sock)


def by_aiosmtplib(host: str, port: int) -> str:
    """Use aiosmtplib."""
    aiosmtplib = find_module("aiosmtplib")

    async def connect() -> str:
        async with aiosmtplib.SMTP(hostname=host, port=port, local_hostname="localhost", timeout=10) as client:
            return str((await client.ehlo()).message.splitlines()[0])

    return asyncio.run(connect())


def by_trio(host: str, port: int) -> str:
    """Use trio's streams."""
    trio = find_module("trio")

    async def connect() -> str:
        async with await trio.open_tcp_stream(host, port) as stream:
            return str((await stream.receive_some()).split()[1].decode())

    return str(trio.run(connect))


def by_anyio(host: str, port: int) -> str:
    """Use anyio's streams."""
    anyio = find_module("anyio")

    async def connect() -> str:
        async with await anyio.connect_tcp(host, port) as stream:
            return str((await stream.receive()).split()[1].decode())

    return str(anyio.run(connect))


WAYS = [
    greeting,
    by_connect,
    by_connect_ex,
    by_getaddrinfo,
    by_getaddrinfo_without_port,
    by_address_only,
    by_gethostbyname,
    by_gethostbyname_ex,
    by_smtplib,
    by_open_connection,
    by_sock_connect,
    by_aiosmtplib,
    by_trio,
    by_anyio,
]
#: Those that can do with an address, too.
WAYS_TO_ADDRESSES = [greeting, by_connect, by_connect_ex, by_getaddrinfo, by_smtplib, by_open_connection, by_trio]


@pytest.mark.parametrize("port", [25, None])
@pytest.mark.parametrize("way", WAYS)
def test_names_are_redirected(server: RecordingServer, way: Callable[[str, int], str], port: int | None) -> None:
    """However a client resolves a name and connects, it gets to the server, and DNS is not asked."""
    with server.redirect(HOST, port):
        assert way(HOST, 25) == "redirected.example"


@pytest.mark.parametrize("way", WAYS_TO_ADDRESSES)
def test_addresses_are_redirected(server: RecordingServer, way: Callable[[str, int], str]) -> None:
    """An IP address is redirected as a name is."""
    with server.redirect(IPV4, 587):
        assert way(IPV4, 587) == "redirected.example"
        assert socket.gethostbyname(IPV4) == IPV4
        assert socket.gethostbyname_ex(IPV4)[2] == [IPV4]


def test_ipv6_addresses_are_redirected(server: RecordingServer) -> None:
    """An IPv6 address is redirected to a server that listens on IPv4, whatever form it has."""
    with server.redirect("2001:DB8:0:0::25", 25):
        assert greeting(IPV6, 25) == "redirected.example"
        assert read_greeting(connected((IPV6, 25, 0, 0), socket.AF_INET6)) == "redirected.example"


def test_who_wants_ipv6_gets_it(server: RecordingServer) -> None:
    """Who asks for the IPv6 address of a name gets one, which leads to the server as well."""
    with server.redirect(HOST, 25):
        [(family, *_, address)] = socket.getaddrinfo(HOST, 25, socket.AF_INET6)
        assert (family, address[1:]) == (socket.AF_INET6, (25, 0, 0))
        assert read_greeting(connected(address, family)) == "redirected.example"


def test_a_server_on_ipv6_is_reached_by_ipv6_only() -> None:
    """Clients get to a server on ::1; those that want IPv4 are told that there is none."""
    with RecordingServer("::1", hostname="redirected.example") as server, server.redirect(HOST, 25):
        assert greeting(HOST, 25) == by_open_connection(HOST, 25) == "redirected.example"
        for look_up in (
            lambda: socket.gethostbyname(HOST),
            lambda: socket.gethostbyname_ex(HOST),
            lambda: socket.getaddrinfo(HOST, 25, socket.AF_INET),
            lambda: connected((HOST, 25)),
        ):
            with pytest.raises(socket.gaierror, match=rf"{HOST} is redirected to ::1, which can't be reached by IPv4"):
                look_up()


def test_a_server_everywhere_is_reached_on_the_loopback_interface() -> None:
    """A server that listens on 0.0.0.0 has clients come to 127.0.0.1."""
    with RecordingServer("0.0.0.0", hostname="redirected.example") as server, server.redirect(HOST, 25):  # noqa: S104
        assert greeting(HOST, 25) == "redirected.example"


@pytest.mark.parametrize("name", ["MAIL.Example.INVALID", f"{HOST}.", HOST.encode(), bytearray(HOST.encode())])
def test_names_are_compared_without_case_and_last_dot(server: RecordingServer, name: Any) -> None:
    """A name is the same in upper case, with a dot at its end, and in octets."""
    with server.redirect(HOST, 25):
        assert by_connect(name, 25) == "redirected.example"
    with server.redirect("Mail.EXAMPLE.invalid.", 25):
        assert by_connect(name, 25) == "redirected.example"


def test_internationalized_names_are_the_same_in_ascii(server: RecordingServer) -> None:
    """A name with more than ASCII is the same as what DNS has for it (RFC 3490)."""
    with server.redirect("bücher.invalid", 25):
        assert greeting("xn--bcher-kva.invalid", 25) == greeting("Bücher.invalid", 25) == "redirected.example"


@pytest.mark.parametrize("port", ["smtp", "25", b"smtp", b"25"])
def test_ports_may_be_names_of_services(server: RecordingServer, port: Any) -> None:
    """The function getaddrinfo takes a port as text, or by the name of its service."""
    with server.redirect(HOST, 25):
        [(*_, address)] = socket.getaddrinfo(HOST, port)
        assert address[1] == 25
        assert read_greeting(connected(address)) == "redirected.example"


def test_any_port_is_redirected_without_a_port(server: RecordingServer) -> None:
    """Without a port, all ports of the host lead to the server."""
    with server.redirect(HOST):
        assert {greeting(HOST, port) for port in (1, 25, 465, 65_535)} == {"redirected.example"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the calls that functions of `socket` get, whose results are their names."""
    calls: list[tuple[Any, ...]] = []

    def double(name: str) -> Callable[..., str]:
        def called(*args: Any, **kwargs: Any) -> str:
            calls.append((name, *args, *kwargs.items()))
            return name

        return called

    for name in FUNCTIONS[:3]:
        monkeypatch.setattr(socket, name, double(name))
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, double(name))
    return calls


def test_other_hosts_are_called_through(server: RecordingServer, calls: list[tuple[Any, ...]]) -> None:
    """For other hosts, and other ports of the host, the original functions get the same arguments and answer."""
    function: Any = socket.socket
    with server.redirect(HOST, 25), socket.socket() as sock:
        for name in FUNCTIONS[1:3]:
            function = getattr(socket, name)
            assert function("example.org") == name
            assert calls.pop() == (name, "example.org")
        for host, port in (("example.org", 25), (HOST, 587), ("example.org", None), (HOST, "no-such-service")):
            function = socket.getaddrinfo
            assert function(host, port, type=socket.SOCK_STREAM) == "getaddrinfo"
            assert calls.pop()[:5] == ("getaddrinfo", host, port, 0, socket.SOCK_STREAM)
        address: Any
        for address in (("example.org", 25), (HOST, 587), ("example.org",), "/run/socket", (None, 25)):
            for name in ("connect", "connect_ex"):
                assert getattr(sock, name)(address) == name
                assert calls.pop() == (name, sock, address)
                assert calls == []


def test_the_redirected_host_is_never_looked_up(server: RecordingServer, calls: list[tuple[Any, ...]]) -> None:
    """Nothing that is asked about the host's port reaches the original functions but the server's address."""
    with server.redirect(HOST, 25):
        address = socket.getaddrinfo(HOST, 25)[0][4]
        assert address[0] == socket.gethostbyname(HOST) == socket.gethostbyname_ex(HOST)[2][0]
        with socket.socket() as sock:
            sock.connect(address)
            sock.connect((HOST, 25))
            assert calls == [("connect", sock, server.address)] * 2


@pytest.mark.parametrize(
    ("type_", "protocol", "flags"),
    [
        (socket.SOCK_DGRAM, 0, 0),
        (0, socket.IPPROTO_UDP, 0),
        (0, 0, socket.AI_PASSIVE),
        (0, 0, socket.AI_NUMERICHOST),
    ],
    ids=["datagrams", "UDP", "passive", "numeric"],
)
def test_only_connections_are_redirected(
    server: RecordingServer, calls: list[tuple[Any, ...]], type_: int, protocol: int, flags: int
) -> None:
    """Who looks up an address for something else than a TCP connection gets the true one."""
    look_up: Any = socket.getaddrinfo
    with server.redirect(HOST):
        look_up = socket.getaddrinfo
        assert look_up(HOST, 25, 0, type_, protocol, flags) == "getaddrinfo"
    assert calls == [("getaddrinfo", HOST, 25, 0, type_, protocol, flags)]


def test_datagrams_are_not_redirected(server: RecordingServer) -> None:
    """A UDP socket connects to the host itself."""
    with server.redirect("127.0.0.1"), socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 5353))
        assert sock.getpeername() == ("127.0.0.1", 5353)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no Unix sockets")
def test_unix_sockets_are_not_redirected(server: RecordingServer, tmp_path: Path) -> None:
    """A Unix socket's path is no host."""
    path = str(tmp_path / "socket")
    with RecordingServer(path, hostname="other.example"), server.redirect("localhost"):
        assert read_greeting(connected(path, socket.AF_UNIX)) == "other.example"


@pytest.mark.parametrize("way", [greeting, by_connect, by_gethostbyname, by_getaddrinfo_without_port, by_smtplib])
def test_other_ports_of_the_host_are_left_alone(
    server: RecordingServer, other: RecordingServer, way: Callable[[str, int], str]
) -> None:
    """A redirect of one port of localhost leaves the others alone, also where the name was looked up before."""
    with server.redirect("localhost", 25):
        assert way("localhost", 25) == "redirected.example"
        assert way("localhost", other.port) == "other.example"
    address = socket.gethostbyname("localhost")
    with server.redirect("localhost", 25):
        assert way("localhost", 25) == "redirected.example"
        assert by_connect(address, other.port) == "other.example"


def test_the_last_one_entered_counts(server: RecordingServer, other: RecordingServer) -> None:
    """Of redirects that overlap, the inner one counts, for the ports that it is for."""
    with server.redirect(HOST):
        with other.redirect(HOST, 25):
            assert (greeting(HOST, 25), greeting(HOST, 26)) == ("other.example", "redirected.example")
            address = socket.gethostbyname(HOST)
            assert (by_connect(address, 25), by_connect(address, 26)) == ("other.example", "redirected.example")
        assert greeting(HOST, 25) == "redirected.example"


def test_redirects_may_end_in_any_order(server: RecordingServer, other: RecordingServer) -> None:
    """Each redirect ends for itself, the first one before the second one, too; two of the same host as well."""
    first, second, third = server.redirect(HOST, 25), other.redirect("mx.example.invalid"), server.redirect(HOST, 25)
    for redirect in (first, second, third):
        redirect.__enter__()
    first.__exit__(None, None, None)
    assert (greeting(HOST, 25), greeting("mx.example.invalid", 25)) == ("redirected.example", "other.example")
    third.__exit__(None, None, None)
    assert greeting("mx.example.invalid", 25) == "other.example"
    second.__exit__(None, None, None)


def test_it_ends_when_the_body_raises(server: RecordingServer) -> None:
    """An exception in the block ends the redirect, and comes out of it."""
    with pytest.raises(LookupError), server.redirect(HOST, 25):
        raise LookupError
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(HOST, 25)


def test_nothing_is_replaced_without_a_redirect(server: RecordingServer) -> None:
    """A redirect that was made and not entered replaces nothing; one that was entered, what it needs."""
    before = patched()
    redirect = server.redirect(HOST, 25)
    assert patched() == before
    with redirect:
        changed = {name for name, value in patched().items() if value is not before[name]}
        assert changed == {"connect", "connect_ex", "getaddrinfo", "gethostbyname", "gethostbyname_ex"}
        assert socket.getaddrinfo.__name__ == "getaddrinfo"


def test_who_has_kept_a_function_has_the_original_again(server: RecordingServer) -> None:
    """A function that was taken while a redirect was active does what the original does afterwards."""
    with server.redirect("127.0.0.1"):
        connect = socket.socket.connect
    with RecordingServer(hostname="other.example") as other:
        sock = socket.socket()
        connect(sock, other.address)
        assert read_greeting(sock) == "other.example"


def test_replacements_of_others_stay(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody replaces during a redirect and leaves there is not undone: that is an error, and is harmless."""
    with monkeypatch.context() as patch:
        original = socket.getaddrinfo
        with pytest.raises(RuntimeError, match="somebody has replaced getaddrinfo of socket"), server.redirect(HOST):  # noqa: PT012
            inner = socket.getaddrinfo
            patch.setattr(socket, "getaddrinfo", functools.partial(inner))
        theirs = socket.getaddrinfo
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST, 25)
        with server.redirect(HOST, 25):
            assert greeting(HOST, 25) == "redirected.example"
        assert socket.getaddrinfo is theirs
    assert socket.getaddrinfo is inner
    socket.getaddrinfo = original


def test_replacements_from_before_are_kept(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody has put in the place of socket's class and methods before is used, and is there afterwards."""
    seen = []
    connect = socket.socket.connect

    def watch(sock: socket.socket, address: Any) -> None:
        seen.append(address)
        connect(sock, address)

    class Guarded(socket.socket):
        """What plugins put there that forbid connections."""

    monkeypatch.setattr(socket.socket, "connect", watch)
    monkeypatch.setattr(socket, "socket", Guarded)
    with server.redirect(HOST, 25):
        assert greeting(HOST, 25) == "redirected.example"
        assert seen == [server.address]
    assert vars(socket.socket.__base__)["connect"] is watch


def test_other_classes_of_sockets_are_replaced_as_well(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that is no subclass of socket's, as gevent has one, connects to the server, too."""
    original = socket.socket

    class Wrapped:
        """A socket that has one instead of being one."""

        family, type = socket.AF_INET, socket.SOCK_STREAM

        def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
            # The server accepts clients meanwhile, and gets sockets as ever.
            return original(*arguments, **keywords) if arguments or keywords else super().__new__(cls)

        def __init__(self) -> None:
            self.sock = original()

        def connect(self, address: Any) -> None:
            """Connect."""
            self.sock.connect(address)

        def connect_ex(self, address: Any) -> int:
            """Connect, return the error number."""
            return self.sock.connect_ex(address)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Wrapped)
        with server.redirect(HOST, 25):
            wrapped = Wrapped()
            wrapped.connect((HOST, 25))
    assert read_greeting(wrapped.sock) == "redirected.example"


def test_other_threads_may_enter_and_leave(server: RecordingServer, other: RecordingServer) -> None:
    """Redirects that come and go in many threads do not disturb each other, and leave nothing behind."""
    failures: list[str] = []

    def use(number: int) -> None:
        target = (server, other)[number % 2]
        for _ in range(20):
            with target.redirect(f"host{number}.invalid", 25):
                if (name := greeting(f"host{number}.invalid", 25)) != target.settings.hostname:
                    failures.append(name)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_mail_gets_there(server: RecordingServer) -> None:
    """Mail that is sent to a hard-coded host is received by the server."""
    with server.redirect(HOST, 25), smtplib.SMTP(HOST) as client:
        client.sendmail("ada@example.org", "bob@example.org", "Subject: Hello\r\n\r\n")
    server.assert_received(subject="Hello")


def test_tls_is_verified_for_the_name_that_the_client_knows() -> None:
    """A client that verifies the host's name refuses the certificate for localhost, and the error names both."""
    with RecordingServer(tls="starttls") as server, server.redirect(HOST, 25), smtplib.SMTP(HOST) as client:
        with pytest.raises(ssl.SSLCertVerificationError, match=f"Hostname mismatch.*'{HOST}'"):
            client.starttls(context=server.client_ssl_context)
        client.close()


@pytest.mark.parametrize(
    "host", ["", "mail.example.org:25", "smtp://mail.example.org", "[::1]", "a b", "a..b", ".", None, b"a", 25]
)
def test_what_is_no_host_is_an_error(server: RecordingServer, host: Any) -> None:
    """A host that can't be one is a ValueError that shows it."""
    with pytest.raises(ValueError, match="host is the name or the IP address of a host") as raised:
        server.redirect(host, 25)
    assert repr(host) in str(raised.value)


@pytest.mark.parametrize("port", [0, -1, 65_536, "25", 25.0])
def test_what_is_no_port_is_an_error(server: RecordingServer, port: Any) -> None:
    """A port that can't be one is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"port is from 1 to 65535, or None for any port, not {port!r}"):
        server.redirect(HOST, port)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no Unix sockets")
def test_a_server_on_a_unix_socket_is_an_error(tmp_path: Path) -> None:
    """Nothing can be redirected to a Unix socket."""
    with RecordingServer(str(tmp_path / "socket")) as server, pytest.raises(ValueError, match="needs a server with"):
        server.redirect(HOST, 25)


def test_a_server_that_is_down_refuses_redirected_connections(server: RecordingServer) -> None:
    """Who is redirected to a server that is down is refused."""
    with server.redirect(HOST, 25), server.down(), socket.socket() as sock:
        assert sock.connect_ex((HOST, 25)) == errno.ECONNREFUSED
