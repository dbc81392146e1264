"""PureProxy: what its users see of it, and its subclasses."""

from __future__ import annotations

import contextlib
import gc
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scripted import ScriptedServer
from support import RawClient

from pytest_smtpd import RecordingServer, Reply, smtpd
from pytest_smtpd.smtpd.proxy import ProxyChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADA, BOB, CAROL = "ada@example.org", "bob@example.org", "carol@example.org"
CONTENT = b"Subject: hello\r\n\r\n.world\r\n"
RELAYED = b"Subject: hello\r\nX-Peer: 127.0.0.1\r\n\r\n.world\r\n"
CLOSING = "421 Service not available, closing transmission channel"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Hold that no thread is left; sockets that are would be a ResourceWarning, which is an error."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    assert set(threading.enumerate()) <= before


@pytest.fixture
def upstream() -> Iterator[RecordingServer]:
    """Return a real server."""
    with RecordingServer() as server:
        yield server


@contextlib.contextmanager
def proxied(server: Any, cls: type[smtpd.PureProxy] = smtpd.PureProxy, **options: Any) -> Iterator[smtpd.PureProxy]:
    """Return a proxy that runs before this server."""
    with cls(("127.0.0.1", 0), server.address, map={}, **options) as proxy:
        yield proxy


def connect(proxy: smtpd.PureProxy) -> smtplib.SMTP:
    """Return a client of the proxy."""
    return smtplib.SMTP(*proxy.socket.getsockname()[:2])


def send(
    proxy: smtpd.PureProxy, content: bytes = CONTENT, rcpttos: str | list[str] = BOB
) -> dict[str, tuple[int, bytes]]:
    """Send a message through the proxy; return the recipients it refused."""
    with connect(proxy) as client:
        return client.sendmail(ADA, rcpttos, content)


class DataClient(RawClient):
    """A client that sends content as it is."""

    def deliver(self, wire: bytes) -> str:
        """Send what follows the 354, and return the reply to it."""
        self.read_reply()
        for command in ("EHLO client.example", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA"):
            assert self.ask(command)[0] in "23"
        self.send(wire)
        return self.read_reply()


# Relaying.


def test_a_message_is_relayed(upstream: RecordingServer) -> None:
    """A message arrives with its envelope and one header more."""
    with proxied(upstream) as proxy:
        assert send(proxy, rcpttos=[BOB, CAROL]) == {}
    message = upstream.messages.one()
    assert (message.mailfrom, message.rcpttos, message.data) == (ADA, [BOB, CAROL], RELAYED)


@pytest.mark.parametrize(
    ("wire", "received"),
    [
        (b"A: b\r\n\r\n..\r\n...\r\n....x\r\n.\r\n", b"A: b\r\n%b\r\n.\r\n..\r\n...x\r\n"),
        (b"A: b\n\nbare\nline\rends\r\r\n.\r\n", b"A: b\n%b\nbare\nline\rends\r\r\n"),
        (b"A: \xe9\0\r\n\r\n\xff\0\r\n.\r\n", b"A: \xe9\0\r\n%b\r\n\xff\0\r\n"),
        (b"A: b\r\n\r\na\n.\nb\n.\r\nc\r\n.\r\n", b"A: b\r\n%b\r\na\n.\nb\n.\r\nc\r\n"),
        (b"no header\r\n.\r\n", b"no header\r\n%b"),
        (b".\r\n", b"%b"),
        (b"\r\nbody\r\n.\r\n", b"%b\r\nbody\r\n"),
        (b"A: b\r\n\r\n" + b"x" * 5000 + b"\r\n.\r\n", b"A: b\r\n%b\r\n" + b"x" * 5000 + b"\r\n"),
        (b"A: b\r\n\r\n" + b"..\r\n" * 300_000 + b".\r\n", b"A: b\r\n%b\r\n" + b".\r\n" * 300_000),
    ],
    ids=[
        "dots",
        "bare line ends",
        "8-bit and NUL",
        "false ends",
        "no header",
        "nothing",
        "no headers",
        "long",
        "large",
    ],
)
def test_content_passes_as_it_is(upstream: RecordingServer, wire: bytes, received: bytes) -> None:
    """Content passes octet by octet, apart from X-Peer."""
    with proxied(upstream) as proxy, DataClient(proxy.socket.getsockname()) as client:
        assert client.deliver(wire) == "250 2.0.0 OK"
    line_end = b"\n" if b"\n%b\n" in received else b"\r\n"
    assert upstream.messages.one().data == received.replace(b"%b", b"X-Peer: 127.0.0.1" + line_end)


def test_some_recipients_are_refused() -> None:
    """A recipient that the upstream refuses is refused with its reply, and the others get the message."""
    with ScriptedServer() as server, proxied(server) as proxy:
        server.once["RCPT"] = b"550-5.1.1 No such\r\n550 5.1.1 user\r\n"
        assert send(proxy, rcpttos=[BOB, CAROL]) == {BOB: (550, b"5.1.1 No such\n5.1.1 user")}
        assert [line for line in server.said[0] if line.startswith("RCPT")] == [
            f"RCPT TO:<{BOB}>",
            f"RCPT TO:<{CAROL}>",
        ]
        assert len(server.contents) == 1


def test_a_client_that_says_helo(upstream: RecordingServer) -> None:
    """A client that says HELO is served, without parameters and status codes."""
    with proxied(upstream) as proxy, connect(proxy) as client:
        assert client.helo() == (250, b"localhost")
        assert client.docmd(f"MAIL FROM:<{ADA}> SIZE=1")[0] == 501
        assert client.docmd(f"MAIL FROM:<{ADA}>") == (250, b"2.1.0 OK")
        assert client.docmd(f"RCPT TO:<{BOB}>") == (250, b"2.1.5 OK")
        assert client.data(CONTENT) == (250, b"2.0.0 OK")
        assert client.docmd("NOOP") == (250, b"OK")
    assert upstream.messages.one().data == RELAYED


def test_what_is_refused_here_is_not_asked_there(upstream: RecordingServer) -> None:
    """What the proxy refuses itself the upstream does not hear of."""
    with proxied(upstream, data_size_limit=100) as proxy, connect(proxy) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "100"
        for command in ("MAIL FROM", f"MAIL FROM:<{ADA}> SIZE=101", f"RCPT TO:<{BOB}>", "DATA", "FOO"):
            assert client.docmd(command)[0] >= 500
        client.docmd(f"MAIL FROM:<{ADA}>")
        client.docmd(f"RCPT TO:<{BOB}>")
        assert client.data(b"x" * 101)[0] == 552
        assert client.docmd("NOOP")[0] == 250
    said = [line.text.split()[0] for line in upstream.dialogues[0].lines if line.speaker == "C"]
    assert said[:4] == ["EHLO", "MAIL", "RCPT", "RSET"]
    assert not upstream.messages


def test_the_next_client_uses_the_connection(upstream: RecordingServer) -> None:
    """One connection to the upstream serves clients one after the other, and several at once when need be."""
    with proxied(upstream) as proxy:
        for _ in range(3):
            send(proxy)
        assert len(upstream.dialogues) == 1
        with connect(proxy) as one, connect(proxy) as two:
            for client in (one, two):
                client.ehlo()
                client.docmd(f"MAIL FROM:<{ADA}>")
            assert len(upstream.dialogues) == 2
    assert len(upstream.messages) == 3


def test_pipelined_commands(upstream: RecordingServer) -> None:
    """A client may send all commands at once: each is answered when its turn comes."""
    with proxied(upstream) as proxy, RawClient(proxy.socket.getsockname()) as client:
        client.read_reply()
        assert "250-PIPELINING" in client.ask("EHLO client.example")
        client.send(f"MAIL FROM:<{ADA}>\r\nRCPT TO:<{BOB}>\r\nRCPT TO:<{CAROL}>\r\nDATA\r\n".encode())
        assert [client.read_reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        client.send(b".\r\nQUIT\r\n")
        assert [client.read_reply()[:3] for _ in range(2)] == ["250", "221"]
    assert upstream.messages.one().rcpttos == [BOB, CAROL]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_tls_and_auth(tls: Any) -> None:
    """The upstream is spoken to over TLS, and logged in to, as the options say."""
    users = {"ada": "secret"}
    with RecordingServer(tls=tls, require_tls=True, users=users, require_auth=True) as server:
        options = {"upstream_tls": tls, "upstream_ssl_context": server.client_ssl_context}
        with proxied(server, **options, upstream_username="ada", upstream_password="secret") as proxy:  # noqa: S106 - a test's
            assert send(proxy) == {}
        message = server.messages.one()
        assert message.tls is not None
        assert message.auth is not None
        assert message.auth.user == "ada"


def test_a_unix_socket_on_both_sides() -> None:
    """Proxy and upstream may listen on Unix sockets; the client there has no address."""
    with (
        tempfile.TemporaryDirectory() as directory,
        RecordingServer(f"{directory}/up") as server,
        smtpd.PureProxy((f"{directory}/in", 0), (f"{directory}/up", 0), map={}),
        contextlib.closing(socket.socket(socket.AF_UNIX)) as client,
    ):
        client.connect(f"{directory}/in")
        with client.makefile("rwb") as file:
            commands = ("EHLO x", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA", ".", "QUIT")
            file.write("".join(f"{command}\r\n" for command in commands).encode())
            file.flush()
            assert file.read().endswith(b"250 2.0.0 OK\r\n221 2.0.0 Bye\r\n")
    assert server.messages.one().data == b"X-Peer: unix\r\n"


def test_the_loop_serves_proxies(upstream: RecordingServer) -> None:
    """A proxy is served by `smtpd.loop`, too."""
    servers: dict[int, smtpd.SMTPServer] = {}
    proxy = smtpd.PureProxy(("127.0.0.1", 0), upstream.address, map=servers)
    looping = threading.Thread(target=lambda: smtpd.loop(map=servers))
    looping.start()
    assert send(proxy) == {}
    proxy.stop()
    looping.join()
    assert len(upstream.messages) == 1


def test_a_proxy_is_started_again(upstream: RecordingServer) -> None:
    """A proxy that was stopped serves again, on the same port."""
    with proxied(upstream) as proxy:
        send(proxy)
        proxy.stop()
        proxy.start()
        send(proxy)
    assert len(upstream.messages) == 2


# Ending.


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."])
def test_stopping_does_not_wait_for_the_upstream(verb: str) -> None:
    """A proxy whose upstream is silent stops at once, says so to its clients, and leaves nothing behind."""
    with ScriptedServer(**{verb: b""}) as server:
        with proxied(server) as proxy, RawClient(proxy.socket.getsockname()) as client:
            client.read_reply()
            commands = ("EHLO x", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA", "", ".")
            client.send("".join(f"{command}\r\n" for command in commands).encode())
            server.await_answer(verb)
            proxy.stop()
            replies = list(iter(client.read_reply, ""))
        assert replies[-1].endswith(CLOSING[3:])
        assert len(server.contents) == (1 if verb == "." else 0)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_client_that_goes_away(count: int) -> None:
    """When a client goes in the midst of a transaction, so does the connection to the upstream, and nothing is sent."""
    with ScriptedServer() as server, proxied(server) as proxy:
        with RawClient(proxy.socket.getsockname()) as client:
            client.read_reply()
            for command in ("EHLO x", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA")[:count]:
                client.ask(command)
            client.send(b"Subject: x\r\n" if count == 4 else b"")
        send(proxy)
        assert len(server.said) == 2
        assert len(server.contents) == 1


def test_a_client_that_goes_away_while_the_upstream_is_asked() -> None:
    """A client that does not wait for the answer costs nothing but its transaction."""
    with ScriptedServer(RCPT=b"") as server, proxied(server, upstream_timeout=0.5) as proxy:
        with RawClient(proxy.socket.getsockname()) as client:
            client.read_reply()
            for command in ("EHLO x", f"MAIL FROM:<{ADA}>"):
                client.ask(command)
            client.send(f"RCPT TO:<{BOB}>\r\n".encode())
            server.await_answer("RCPT")
        server.script.clear()
        send(proxy)
        assert len(server.contents) == 1


def test_a_client_that_says_nothing() -> None:
    """A client may be silent for five minutes, then it is told so, and what it had begun is over."""

    class Hasty(smtpd.PureProxy):
        timeout = 0.2

    assert smtpd.PureProxy.timeout == 300
    with ScriptedServer() as server, proxied(server, Hasty) as proxy, RawClient(proxy.socket.getsockname()) as client:
        client.read_reply()
        client.ask("EHLO x")
        client.ask(f"MAIL FROM:<{ADA}>")
        assert client.read_reply() == "421 Error: timeout"


def test_too_many_clients() -> None:
    """A proxy has a limit for its clients by itself, as each may cost a thread and a connection."""

    class Small(smtpd.PureProxy):
        max_connections = 1

    with ScriptedServer() as server, proxied(server, Small) as proxy, connect(proxy) as client:
        with pytest.raises(smtplib.SMTPConnectError, match="421"):
            connect(proxy)
        assert client.noop()[0] == 250


# Loops.


@pytest.mark.parametrize(("hops", "code"), [(99, 250), (100, 554)])
@pytest.mark.parametrize("header", [b"Received: from x by y\r\n", b"X-Peer: 127.0.0.1\r\n"])
def test_mail_that_goes_in_circles(upstream: RecordingServer, header: bytes, hops: int, code: int) -> None:
    """A message that has passed a hundred relays is refused (RFC 5321 6.3)."""
    with proxied(upstream) as proxy, DataClient(proxy.socket.getsockname()) as client:
        reply = client.deliver(header * hops + b"\r\n" + header * 100 + b".\r\n")
    assert int(reply[:3]) == code
    assert len(upstream.messages) == (code == 250)


@pytest.mark.parametrize(("limit", "code"), [(1, 554), (2, 250), (0, 250)])
def test_the_limit_of_hops(upstream: RecordingServer, limit: int, code: int) -> None:
    """`max_received` says how many relays are too many; 0 for any number."""
    with proxied(upstream, max_received=limit) as proxy, DataClient(proxy.socket.getsockname()) as client:
        assert int(client.deliver(b"Received: x\r\n.\r\n")[:3]) == code


def test_a_proxy_that_leads_to_itself() -> None:
    """A proxy whose upstream leads back to it runs full and answers 451, all the way back."""

    class Small(smtpd.PureProxy):
        max_connections = 5

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as reserved:
        address = reserved.getsockname()
    with Small(address, address, map={}) as proxy, connect(proxy) as client:
        client.ehlo()
        assert client.docmd(f"MAIL FROM:<{ADA}>")[0] == 451


# Options.


def test_an_open_relay() -> None:
    """A proxy that strangers can reach needs a restriction, or the word that it may be open."""
    for host in ("0.0.0.0", ""):  # noqa: S104 - just the point
        with pytest.raises(ValueError, match=r"would be an open relay: .*allow_open_relay=True"):
            smtpd.PureProxy((host, 0), ("127.0.0.1", 25), map={})
        for option in (
            {"allow_open_relay": True},
            {"relay_domains": ["example.org"]},
            {"relay_from": ["192.0.2.0/24"]},
        ):
            smtpd.PureProxy((host, 0), ("127.0.0.1", 25), map={}, **option).close()


def test_a_refused_open_relay_is_gone() -> None:
    """A proxy that is refused leaves the port alone, and no server for `smtpd.loop`."""
    servers: dict[int, smtpd.SMTPServer] = {}
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(ValueError, match="open relay"):
        smtpd.PureProxy(("0.0.0.0", port), ("127.0.0.1", 25), map=servers)  # noqa: S104 - just the point
    assert not servers
    socket.create_server(("127.0.0.1", port)).close()


def test_restrictions(upstream: RecordingServer) -> None:
    """A recipient beyond the restrictions is refused here, and the upstream does not hear of it."""
    with proxied(upstream, relay_domains=["example.org"]) as proxy:
        refused = send(proxy, rcpttos=[BOB, "eve@example.com"])
        assert refused == {"eve@example.com": (550, b"5.7.1 Error: relaying denied")}
    with proxied(upstream, relay_domains=["example.org"], relay_from=["127.0.0.0/8"]) as proxy:
        assert send(proxy, rcpttos=[BOB, "eve@example.com"]) == {}
    assert [message.rcpttos for message in upstream.messages] == [[BOB], [BOB, "eve@example.com"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode_data": True}, "decode_data makes text of the content"),
        ({"max_received": -1}, "max_received is 0"),
        ({"remoteaddr": None}, "the next hop's address"),
        ({"upstream_tls": True}, "upstream_tls is"),
        ({"relay_from": ["x"]}, "relay_from has networks"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    """What makes no sense is a ValueError, before anything listens."""
    servers: dict[int, smtpd.SMTPServer] = {}
    arguments = {"localaddr": ("127.0.0.1", 0), "remoteaddr": ("127.0.0.1", 25), "map": servers, **options}
    with pytest.raises(ValueError, match=message):
        smtpd.PureProxy(**arguments)
    assert not servers


def test_enable_smtputf8_makes_no_difference(upstream: RecordingServer) -> None:
    """SMTPUTF8 is offered where the upstream offers it, whatever `enable_SMTPUTF8` says."""
    for enable in (True, False):
        with proxied(upstream, enable_SMTPUTF8=enable) as proxy, connect(proxy) as client:
            client.ehlo()
            assert client.has_extn("SMTPUTF8")


def test_the_module_has_its_names() -> None:
    """The module has smtpd's names, says so of others, and imports smtplib only for who uses a proxy."""
    code = """
import sys
from pytest_smtpd import smtpd
assert "smtplib" not in sys.modules
assert not hasattr(smtpd, "smtplib")
from pytest_smtpd.smtpd import *
assert smtpd.PureProxy is PureProxy and issubclass(MailmanProxy, PureProxy)
assert "smtplib" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)  # noqa: S603 - code from this file
    assert {"DebuggingServer", "MailmanProxy", "PureProxy", "SMTPChannel", "SMTPServer"} <= set(smtpd.__all__)
    with pytest.raises(AttributeError, match=r"^module 'pytest_smtpd\.smtpd' has no attribute 'Proxy'$"):
        smtpd.Proxy  # noqa: B018 - reading the attribute is the test


# Subclasses.


class Hooked(smtpd.PureProxy):
    """Calls a function with what would be relayed, in the place of process_message."""

    hook: Callable[..., Any]

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> Any:
        """Call the function, with what relays as its first argument."""

        def relay(mailfrom: str = mailfrom, rcpttos: Any = rcpttos, data: Any = data) -> str | Reply | None:
            return super(Hooked, self).process_message(peer, mailfrom, rcpttos, data, **kwargs)

        return type(self).hook(relay, mailfrom, rcpttos, data)


def hooked(hook: Callable[..., Any]) -> type[Hooked]:
    """Return a proxy whose process_message is this function."""
    return type("WithHook", (Hooked,), {"hook": staticmethod(hook)})


def deliver(proxy: smtpd.PureProxy, *, wire: bytes = b"Subject: hello\r\n\r\n..a\nb\r\n.\r\n") -> str:
    """Send a message through the proxy and return the reply."""
    with DataClient(proxy.socket.getsockname()) as client:
        return client.deliver(wire)


def test_an_override_that_changes_nothing(upstream: RecordingServer) -> None:
    """An override that hands on what it got hands it on as it came, bare line ends and all, in the open transaction."""
    seen: list[Any] = []

    def hook(relay: Callable[[], Any], *args: Any) -> Any:
        seen.append(args)
        return relay()

    with proxied(upstream, hooked(hook)) as proxy:
        assert deliver(proxy) == "250 2.0.0 OK"
    assert seen == [(ADA, [BOB], b"Subject: hello\n\n.a\nb")]
    assert upstream.messages.one().data == b"Subject: hello\r\nX-Peer: 127.0.0.1\r\n\r\n.a\nb\r\n"
    commands = [line.text.split()[0] for line in upstream.dialogues[0].lines if line.speaker == "C"]
    assert commands[:4] == ["EHLO", "MAIL", "RCPT", "DATA"]
    assert "RSET" not in commands


@pytest.mark.parametrize("data", [b"Subject: x\n\n.new\n", b"Subject: x\r\n\r\n.new\r\n", "Subject: x\n\n.new"])
def test_an_override_that_changes_the_content(upstream: RecordingServer, data: Any) -> None:
    """What an override makes of the content is sent with the line ends of SMTP, and X-Peer."""
    with proxied(upstream, hooked(lambda relay, *_args: relay(data=data))) as proxy, connect(proxy) as client:
        client.sendmail(ADA, BOB, CONTENT)
    message = upstream.messages.one()
    assert message.data == b"Subject: x\r\nX-Peer: 127.0.0.1\r\n\r\n.new\r\n"
    assert message.mail_options == []


def test_an_override_that_leaves_nothing(upstream: RecordingServer) -> None:
    """Content may become empty."""
    with proxied(upstream, hooked(lambda relay, *_args: relay(data=b""))) as proxy:
        deliver(proxy)
    assert upstream.messages.one().data == b"X-Peer: 127.0.0.1\r\n"


def test_an_override_that_changes_the_envelope(upstream: RecordingServer) -> None:
    """An override may hand on to others, from another one; parameters of who remains stay."""
    with (
        proxied(upstream, hooked(lambda relay, *_args: relay("eve@example.org", [CAROL, BOB]))) as proxy,
        connect(proxy) as client,
    ):
        client.sendmail(ADA, BOB, CONTENT, rcpt_options=["NOTIFY=NEVER"])
    message = upstream.messages.one()
    assert (message.mailfrom, message.rcpttos) == ("eve@example.org", [CAROL, BOB])
    assert message.rcpt_options == [[], ["NOTIFY=NEVER"]]


def test_an_override_whose_recipient_is_refused() -> None:
    """When an override's own recipient is refused nothing is relayed, and the client hears it; so nothing is lost."""
    with (
        ScriptedServer() as server,
        proxied(server, hooked(lambda relay, *_args: relay(rcpttos=[BOB, CAROL]))) as proxy,
    ):
        with DataClient(proxy.socket.getsockname()) as client:
            client.read_reply()
            for command in ("EHLO x", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA"):
                client.ask(command)
            server.script["RCPT"] = b"550 No\r\n"
            assert client.ask(".") == "550 No"
        assert not server.contents


def test_an_override_that_returns_nothing() -> None:
    """An override that returns nothing, as one did in smtpd, leaves the answer to the upstream."""

    def hook(relay: Callable[[], None], *_args: Any) -> None:
        relay()

    with ScriptedServer(**{".": b"554 5.7.1 Spam\r\n"}) as server, proxied(server, hooked(hook)) as proxy:
        assert deliver(proxy) == "554 5.7.1 Spam"


def test_an_override_that_relays_nothing(upstream: RecordingServer) -> None:
    """An override that neither relays nor refuses has taken the message; the upstream's transaction is reset."""
    with proxied(upstream, hooked(lambda *_args: None)) as proxy:
        assert deliver(proxy) == "250 2.0.0 OK"
    assert not upstream.messages
    assert not upstream.aborted


def test_an_override_that_refuses(upstream: RecordingServer) -> None:
    """An override may refuse, also what it has relayed."""
    with proxied(upstream, hooked(lambda *_args: "554 5.7.1 Spam")) as proxy:
        assert deliver(proxy) == "554 5.7.1 Spam"
    with proxied(upstream, hooked(lambda relay, *_args: relay() and "550 Anyway")) as proxy:
        assert deliver(proxy) == "550 5.0.0 Anyway"
    assert len(upstream.messages) == 1


def test_an_override_that_relays_twice() -> None:
    """An override may relay more than once; returning nothing, it answers with the first refusal."""

    def hook(relay: Callable[..., None], *_args: Any) -> None:
        relay()
        relay(rcpttos=[CAROL])

    with ScriptedServer() as server, proxied(server, hooked(hook)) as proxy:
        assert deliver(proxy) == "250 OK"
        assert len(server.contents) == 2
        server.once["."] = b"554 No\r\n"
        assert deliver(proxy) == "554 No"
        assert len(server.contents) == 4


def test_an_override_that_fails(upstream: RecordingServer) -> None:
    """An override that raises is answered with 451, nothing is relayed, and who stops the proxy gets the exception."""
    with (
        pytest.raises(ZeroDivisionError),
        proxied(upstream, hooked(lambda *_args: 1 / 0)) as proxy,
    ):
        assert deliver(proxy).startswith("451 ")
    assert not upstream.messages


def test_a_function_in_the_place_of_process_message(upstream: RecordingServer) -> None:
    """Who replaces process_message in one proxy alone is asked as well."""
    with proxied(upstream) as proxy:
        proxy.process_message = lambda *_args, **_kwargs: "550 No"  # type: ignore[method-assign] # as tests do
        assert deliver(proxy) == "550 5.0.0 No"


def test_process_message_without_a_session(upstream: RecordingServer) -> None:
    """Anybody may have a proxy relay a message, which goes out with a connection of its own."""
    proxy = smtpd.PureProxy(("127.0.0.1", 0), upstream.address, map={})
    reply = proxy.process_message(("192.0.2.1", 1), ADA, [BOB], b"Subject: x\n\nHello\n")
    assert str(reply) == "250 2.0.0 OK"
    proxy.close()
    assert upstream.messages.one().data == b"Subject: x\r\nX-Peer: 192.0.2.1\r\n\r\nHello\r\n"


class Copied(smtpd.PureProxy):
    """Has a process_message as smtpd's was, copied and changed."""

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> None:
        """Relay, and forget what was refused."""
        self.refused = self._deliver(mailfrom, rcpttos, data)


def test_a_copy_of_the_old_process_message() -> None:
    """Who calls `_deliver`, as process_message did, gets the refusals; and so does the client."""
    with ScriptedServer() as server, proxied(server, Copied) as proxy:
        assert isinstance(proxy, Copied)
        assert deliver(proxy) == "250 OK"
        assert proxy.refused == {}
        server.script["."] = b"554 No\r\n"
        assert deliver(proxy) == "554 No"
        assert proxy.refused == {BOB: (554, b"No")}


def test_an_override_that_would_never_be_called() -> None:
    """Who overrides `_deliver` is told what to do instead."""
    with pytest.raises(TypeError, match=r"Mine\._deliver would never be called: .*upstream_tls"):

        class Mine(smtpd.PureProxy):
            def _deliver(self, mailfrom: str, rcpttos: list[str], data: Any) -> dict[str, tuple[int, bytes]]:
                return {}


class Channel(ProxyChannel):
    """Has something to say about each command."""

    def smtp_EHLO(self, arg: str | None) -> None:  # noqa: N802 - a command's name
        """Answer as usual."""
        super().smtp_EHLO(arg)

    def smtp_HELO(self, arg: str | None) -> None:  # noqa: N802 - a command's name
        """Answer otherwise."""
        self.push(f"250 Hello {arg}")

    def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - a command's name
        """Refuse Eve, accept Bob by name, and everybody else as usual; Mallory later."""
        if "eve" in str(arg):
            self.push("550 Not Eve")
        elif "bob" in str(arg):
            self.push("250 Bob is welcome")
        elif "mallory" in str(arg):
            assert self.smtp_server.loop is not None
            self.smtp_server.loop.call_later(0, lambda: self.push("250 Mallory as well"))
        else:
            super().smtp_RCPT(str(arg).replace("carol", "dan"))


class WithChannel(smtpd.PureProxy):
    """Has channels of its own."""

    channel_class = Channel


def test_a_channel_that_answers_commands(upstream: RecordingServer) -> None:
    """What a channel's own methods accept the upstream is asked about all the same, and what they refuse it isn't."""
    with proxied(upstream, WithChannel) as proxy, connect(proxy) as client:
        assert client.helo("x") == (250, b"Hello x")
        client.ehlo()
        assert client.has_extn("DSN")
        client.docmd(f"MAIL FROM:<{ADA}>")
        replies = [client.docmd(f"RCPT TO:<{name}@example.org>") for name in ("eve", "bob", "carol", "mallory")]
        assert replies == [
            (550, b"5.0.0 Not Eve"),
            (250, b"2.1.5 OK"),
            (250, b"2.1.5 OK"),
            (250, b"2.0.0 Mallory as well"),
        ]
        assert client.data(CONTENT)[0] == 250
    # Mallory, whom the upstream was not asked about, is not forgotten.
    assert upstream.messages.one().rcpttos == [BOB, "dan@example.org", "mallory@example.org"]
