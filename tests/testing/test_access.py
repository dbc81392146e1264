"""Access: the URL, environment variables and clients that lead to a server, and a server that is down for a while."""

from __future__ import annotations

import contextlib
import errno
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer
from pytest_smtpd.network.tls import certfile, server_context
from pytest_smtpd.smtpd import SMTPServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USERS = {"ada": "secret", "bob": "other"}
CONTENT = "Subject: Hello\r\n\r\nHow are you?\r\n"
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no Unix sockets")


@pytest.fixture
def make() -> Iterator[Callable[..., RecordingServer]]:
    """Return a function that starts a server with the options it is given."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(RecordingServer(*args, **options))


def send(client: smtplib.SMTP) -> None:
    """Send a message."""
    client.sendmail("ada@example.org", "bob@example.org", CONTENT)


# The URL.


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({}, "smtp"),
        ({"tls": "starttls"}, "smtp+starttls"),
        ({"tls": "starttls", "require_tls": True}, "smtp+starttls"),
        ({"tls": "starttls", "hide": ["STARTTLS"]}, "smtp"),
        ({"tls": "implicit"}, "smtps"),
        ({"protocol": "lmtp"}, "lmtp"),
        ({"protocol": "lmtp", "tls": "starttls"}, "lmtp+starttls"),
        ({"protocol": "lmtp", "tls": "implicit"}, "lmtps"),
    ],
)
def test_the_scheme_says_how_the_connection_is_secured(
    make: Callable[..., RecordingServer], options: Any, scheme: str
) -> None:
    """The scheme of the URL has the protocol, and whether TLS is offered or comes first."""
    server = make(**options)
    assert server.url == f"{scheme}://127.0.0.1:{server.port}"


def test_the_url_has_the_first_user(make: Callable[..., RecordingServer]) -> None:
    """The URL has name and password of the first of `users`."""
    server = make(users=USERS)
    assert server.url == f"smtp://ada:secret@127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    "options", [{"users": {}}, {"users": USERS.get}, {"require_auth": True}, {"users": USERS, "hide": ["AUTH"]}]
)
def test_the_url_has_no_user_where_none_is_known(make: Callable[..., RecordingServer], options: Any) -> None:
    """Where passwords come from a function, anybody is accepted, or there is no AUTH, the URL names nobody."""
    server = make(**options)
    assert server.url == f"smtp://127.0.0.1:{server.port}"


def test_the_url_survives_any_name_and_password(make: Callable[..., RecordingServer]) -> None:
    """Name and password are percent-encoded, so that parsers find them whatever is in them."""
    user, password = "ada@example.org", "a:/?#[]@!$&'()*+,;= %ü"
    server = make(users={user: password}, tls="starttls")
    url = urlsplit(server.url)
    assert (url.scheme, url.hostname, url.port) == ("smtp+starttls", "127.0.0.1", server.port)
    assert (unquote(url.username or ""), unquote(url.password or "")) == (user, password)
    assert "+" not in server.url.removeprefix("smtp+")  # which some parsers take for a space


def test_the_url_of_a_server_that_listens_everywhere_leads_to_it(make: Callable[..., RecordingServer]) -> None:
    """A server that listens on all addresses is told to be where clients on this machine find it."""
    server, server6 = make("0.0.0.0"), make("::")  # noqa: S104
    assert (server.host, server.url) == ("0.0.0.0", f"smtp://127.0.0.1:{server.port}")  # noqa: S104
    assert (server6.host, server6.url) == ("::", f"smtp://[::1]:{server6.port}")
    for one in (server, server6):
        with one.smtplib_client() as client:
            assert client.noop()[0] == 250


@posix
def test_the_url_of_a_unix_socket_has_its_path(make: Callable[..., RecordingServer], tmp_path: Path) -> None:
    """A Unix socket's URL has the path instead of host and port, and the user as well."""
    path = str(tmp_path / "socket")
    assert make(path, protocol="lmtp", users=USERS).url == f"lmtp://ada:secret@{path}"


# The environment.


def test_the_environment_names_the_server(make: Callable[..., RecordingServer]) -> None:
    """`environ` has host, port and URL, and nothing that the server doesn't have."""
    server = make()
    assert server.environ() == {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.port), "SMTP_URL": server.url}


def test_the_environment_has_user_and_ca(make: Callable[..., RecordingServer]) -> None:
    """With users and TLS, there are variables for name, password and the CA certificate."""
    server = make(users=USERS, tls="starttls")
    assert server.environ() == {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(server.port),
        "SMTP_URL": server.url,
        "SMTP_USERNAME": "ada",
        "SMTP_PASSWORD": "secret",
        "SSL_CERT_FILE": server.cafile,
    }


def test_a_certificate_of_ones_own_leaves_the_trusted_ones_alone(make: Callable[..., RecordingServer]) -> None:
    """With an `ssl_context` of the test's own, the bundled CA would be of no use, and SSL_CERT_FILE is not set."""
    assert "SSL_CERT_FILE" not in make(ssl_context=server_context()).environ()


def test_the_variables_can_be_renamed(make: Callable[..., RecordingServer]) -> None:
    """A prefix changes all names but SSL_CERT_FILE, which is OpenSSL's, and single ones can be chosen."""
    server = make(users=USERS, tls="implicit")
    environ = server.environ("MAIL_", host="MAIL_SERVER", cafile="MAIL_CA")
    assert environ.keys() == {"MAIL_SERVER", "MAIL_PORT", "MAIL_URL", "MAIL_USERNAME", "MAIL_PASSWORD", "MAIL_CA"}
    assert server.environ(prefix="")["HOST"] == "127.0.0.1"


def test_a_misspelt_variable_is_an_error(make: Callable[..., RecordingServer]) -> None:
    """A keyword that is none is a TypeError that has it, and those that are."""
    with pytest.raises(TypeError, match="can rename host, port, url, username, password, cafile, and not prot"):
        make().environ(prot="MAIL_PORT")


def test_a_program_finds_the_server_by_its_environment(make: Callable[..., RecordingServer]) -> None:
    """A program that verifies certificates in the usual way and logs in needs nothing but the variables."""
    server = make(users=USERS, require_auth=True, require_tls=True)
    program = """
import os, smtplib, ssl
with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"]), "localhost", timeout=30) as client:
    client.starttls(context=ssl.create_default_context())
    client.login(os.environ["SMTP_USERNAME"], os.environ["SMTP_PASSWORD"])
    client.sendmail("ada@example.org", "bob@example.org", "Subject: Hello\\r\\n\\r\\n")
"""
    subprocess.run([sys.executable, "-c", program], env=os.environ | server.environ(), check=True)  # noqa: S603 - ours
    message = server.assert_received(subject="Hello")
    assert (message.tls is not None, message.auth and message.auth.user) == (True, "ada")


# The client.


@pytest.mark.parametrize(
    ("options", "class_name", "verb"),
    [
        ({}, "SMTP", "EHLO"),
        ({"tls": "starttls", "require_tls": True}, "SMTP", "EHLO"),
        ({"tls": "implicit"}, "SMTP_SSL", "EHLO"),
        ({"protocol": "lmtp"}, "LMTP", "LHLO"),
        ({"protocol": "lmtp", "tls": "starttls", "require_tls": True}, "LMTP", "LHLO"),
        ({"protocol": "lmtp", "tls": "implicit"}, "LMTPS", "LHLO"),
    ],
)
def test_the_client_suits_the_server(
    make: Callable[..., RecordingServer], options: Any, class_name: str, verb: str
) -> None:
    """The client is of the class that the server needs, encrypted where there is TLS, and logged in."""
    server = make(users=USERS, require_auth=True, **options)
    with server.smtplib_client() as client:
        assert type(client).__name__ == class_name
        send(client)
    message = server.assert_received(subject="Hello")
    assert (message.tls is None, message.auth and message.auth.user) == ("tls" not in options, "ada")
    assert f"C: {verb} localhost" in str(message.dialogue)


@posix
def test_the_client_speaks_lmtp_on_unix_sockets(make: Callable[..., RecordingServer], tmp_path: Path) -> None:
    """The LMTP of smtplib gets to a Unix socket."""
    server = make(str(tmp_path / "socket"), protocol="lmtp", users=USERS)
    with server.smtplib_client() as client:
        send(client)
    assert server.assert_received(subject="Hello").auth is not None


@posix
@pytest.mark.parametrize(
    "options", [{}, {"protocol": "lmtp", "tls": "starttls"}, {"protocol": "lmtp", "tls": "implicit"}]
)
def test_there_is_no_client_for_more_on_unix_sockets(
    make: Callable[..., RecordingServer], tmp_path: Path, options: Any
) -> None:
    """For SMTP and TLS on Unix sockets smtplib has nothing, which is a ValueError."""
    with pytest.raises(ValueError, match="nothing but LMTP without TLS on Unix sockets"):
        make(str(tmp_path / "socket"), **options).smtplib_client()


@posix
def test_lmtp_on_unix_sockets_may_do_without_an_offered_tls(
    make: Callable[..., RecordingServer], tmp_path: Path
) -> None:
    """Where TLS is only offered, the client can be told to do without."""
    server = make(str(tmp_path / "socket"), protocol="lmtp", tls="starttls")
    with server.smtplib_client(starttls=False) as client:
        send(client)
    assert server.assert_received(subject="Hello").tls is None


def test_there_is_no_client_for_the_proxy_protocol(make: Callable[..., RecordingServer]) -> None:
    """A server that waits for a proxy's header would wait for ever, which is a ValueError."""
    with pytest.raises(ValueError, match="can't send the header of the PROXY protocol"):
        make(proxy_protocol=True).smtplib_client()


def test_the_client_can_leave_out_tls_and_login(make: Callable[..., RecordingServer]) -> None:
    """Without STARTTLS and login, the client is connected, and that is all."""
    server = make(users=USERS, tls="starttls")
    with server.smtplib_client(starttls=False, login=False, local_hostname="client.example") as client:
        send(client)
    message = server.assert_received(subject="Hello")
    assert (message.tls, message.auth, message.helo) == (None, None, "client.example")


def test_the_client_can_log_in_as_somebody_else(make: Callable[..., RecordingServer]) -> None:
    """With a user and password the client logs in as this one, also where anybody may."""
    for server in (make(users=USERS), make(users=USERS.get), make(require_auth=True)):
        with server.smtplib_client(login=("bob", "other")) as client:
            send(client)
        auth = server.assert_received(subject="Hello").auth
        assert auth is not None
        assert auth.user == "bob"


@pytest.mark.parametrize("login", ["ada", ("ada",), ("ada", 5), None], ids=repr)
def test_a_login_has_user_and_password(make: Callable[..., RecordingServer], login: Any) -> None:
    """What is neither True nor False nor a user with a password is a TypeError, and nobody connects."""
    server = make(users=USERS)
    with pytest.raises(TypeError, match=r"^login is True, False or \(user, password\), not "):
        server.smtplib_client(login=login)
    assert not server.dialogues


def test_a_refused_login_raises_and_leaves_nothing_open(make: Callable[..., RecordingServer]) -> None:
    """A wrong password raises smtplib's error, and the connection is closed."""
    server = make(users=USERS)
    with pytest.raises(smtplib.SMTPAuthenticationError):
        server.smtplib_client(login=("ada", "wrong"))
    assert server.assert_received(count=0) == []


def test_the_client_verifies_the_server(make: Callable[..., RecordingServer]) -> None:
    """The client refuses a certificate that it should not trust; with a context that trusts it, it doesn't."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile("self-signed"))
    for tls in ("starttls", "implicit"):
        server = make(ssl_context=context, tls=tls)
        with pytest.raises(ssl.SSLCertVerificationError):
            server.smtplib_client()
        trusting = ssl.create_default_context(cafile=certfile("self-signed"))
        trusting.check_hostname = False
        with server.smtplib_client(context=trusting) as client:
            send(client)
        assert server.assert_received(subject="Hello").tls is not None


def test_the_client_shows_a_certificate_where_one_is_required(make: Callable[..., RecordingServer]) -> None:
    """A server that requires client certificates accepts the client's."""
    server = make(tls="implicit", client_certificates="required")
    with server.smtplib_client() as client:
        send(client)
    tls = server.assert_received(subject="Hello").tls
    assert tls is not None
    assert tls.peer_certificate is not None


def test_the_client_waits_no_longer_than_it_is_told(make: Callable[..., RecordingServer]) -> None:
    """`timeout` is for how many seconds the client waits for an answer, 30 if nothing is said."""
    server = make()
    with server.smtplib_client() as client, server.smtplib_client(timeout=2.5) as impatient:
        assert client.sock is not None
        assert impatient.sock is not None
        assert (client.sock.gettimeout(), impatient.sock.gettimeout()) == (30.0, 2.5)


# A server that is down.


@pytest.fixture
def server(make: Callable[..., RecordingServer]) -> RecordingServer:
    """Return a server."""
    return make()


def connect(server: RecordingServer) -> int:
    """Return the error number of an attempt to connect, 0 if it works."""
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as sock:
        return sock.connect_ex(server.address)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])  # noqa: S104
def test_a_server_that_is_down_refuses_connections(make: Callable[..., RecordingServer], host: str) -> None:
    """Connections are refused in the block; afterwards the server is there again, with its port and its messages."""
    server = make(host)
    address = server.address
    for _ in range(2):
        with server.smtplib_client() as client:
            send(client)
        with server.down():
            assert connect(server) == errno.ECONNREFUSED
            assert server.address == address
        assert connect(server) == 0
    assert server.address == address
    assert len(server.messages) == 2


def test_open_sessions_are_ended(server: RecordingServer) -> None:
    """Clients that are connected are told with 421 that it ends, and their connection is closed."""
    with RawClient(server.address) as client:
        assert client.read_reply().startswith("220")
        with server.down():
            assert client.read_reply() == "421 4.3.2 Service not available, closing transmission channel"
            assert client.read_reply() == ""
    with RawClient(server.address) as client:
        assert client.read_reply().startswith("220")


@pytest.mark.parametrize("reuse", [False, True])
def test_nobody_else_gets_the_port(server: RecordingServer, *, reuse: bool) -> None:
    """While the server is down, others can't bind its port, not even those that would share it with a closed one."""
    with server.down(), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        with pytest.raises(OSError, match="in use"):
            sock.bind(server.address)
    assert connect(server) == 0


def test_it_comes_back_when_the_body_raises(server: RecordingServer) -> None:
    """An exception in the block comes out of it, and the server is up again."""
    with pytest.raises(LookupError), server.down():
        raise LookupError
    assert connect(server) == 0


def test_a_server_that_is_down_cannot_go_down(server: RecordingServer) -> None:
    """`down` in `down` is an error, and does not end the outer one."""
    with server.down():
        with pytest.raises(RuntimeError, match="down already"):
            server.down().__enter__()
        assert connect(server) == errno.ECONNREFUSED
    assert connect(server) == 0


def test_a_server_that_does_not_run_cannot_go_down() -> None:
    """A server that was not started, or was stopped, has nothing to interrupt."""
    server = RecordingServer()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="for a server that start"):
            server.down().__enter__()
        server.stop()


def test_who_runs_the_server_in_a_thread_of_his_own_cannot_take_it_down() -> None:
    """Where `serve_forever` serves in a thread of somebody's, nobody could bring the server back."""
    server = RecordingServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with RawClient(server.address) as client:
        assert client.read_reply().startswith("220")
    with pytest.raises(RuntimeError, match="for a server that start"):
        server.down().__enter__()
    server.stop()
    thread.join()


def test_a_hook_cannot_take_its_server_down() -> None:
    """In a hook, `down` is an error, which reaches the test."""

    class Leaving(RecordingServer):
        """A server that tries."""

        def process_message(self, *args: Any, **kwargs: Any) -> None:
            """Go down."""
            with self.down():
                pass  # pragma: no cover - it isn't entered

    server = Leaving().start()
    with server.smtplib_client() as client, pytest.raises(smtplib.SMTPDataError):
        send(client)
    with pytest.raises(RuntimeError, match="not for its hooks"):
        server.stop()


def test_start_ends_it_early(server: RecordingServer) -> None:
    """Who starts a server that is down has it back, and may take it down again."""
    with server.down():
        server.start()
        assert connect(server) == 0
        with server.down():
            assert connect(server) == errno.ECONNREFUSED
        assert connect(server) == 0
    assert connect(server) == 0


def test_stop_ends_it_for_good(server: RecordingServer) -> None:
    """A server that is stopped while it is down does not come back by itself, and gives the port away."""
    with server.down():
        server.stop()
        socket.create_server(server.address).close()
    assert connect(server) == errno.ECONNREFUSED
    server.start()
    assert connect(server) == 0


@posix
def test_the_path_of_a_unix_socket_vanishes(make: Callable[..., RecordingServer], tmp_path: Path) -> None:
    """While a server on a Unix socket is down, there is no such path; it is back afterwards."""
    path = tmp_path / "socket"
    server = make(str(path), protocol="lmtp")
    with server.down():
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            server.smtplib_client()
    with server.smtplib_client() as client:
        send(client)
    server.assert_received(subject="Hello")


def test_the_classic_server_can_go_down() -> None:
    """The classes of `smtpd` have it, too, where they serve in a thread of their own."""
    with SMTPServer(("127.0.0.1", 0), None, map={}) as server:
        address = server.socket.getsockname()
        with server.down(), socket.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED
        assert server.socket.getsockname() == address


def test_what_is_sent_again_later_arrives(server: RecordingServer) -> None:
    """A client that tries again after it was refused gets its message delivered."""
    with server.down(), pytest.raises(ConnectionRefusedError):
        server.smtplib_client()
    with server.smtplib_client() as client:
        send(client)
    server.assert_received(subject="Hello")
