"""The options for TLS and AUTH: defaults, what follows from what, and what makes no sense."""

from __future__ import annotations

import smtplib
import socket
import ssl
import struct
from typing import Any

import pytest

from pytest_smtpd import RecordingServer, Refusal, Reply
from pytest_smtpd.network.tls import server_context
from pytest_smtpd.protocol.sasl import MECHANISMS
from pytest_smtpd.protocol.state import ENCRYPTION_REQUIRED
from pytest_smtpd.testing.security import Security

USERS = {"ada": "secret"}


def lookup(name: str) -> str | None:
    """Return the password of a user, as a function given as `users` does."""
    return USERS.get(name)


def make_security(**options: Any) -> Security:
    """Return the options of a server that is given these."""
    return Security(**options)


def offered(options: dict[str, Any]) -> tuple[set[str], set[str] | None]:
    """Return what a server offers of STARTTLS, REQUIRETLS and AUTH: at first, and behind STARTTLS if it offers that."""

    def ask(client: smtplib.SMTP) -> set[str]:
        client.ehlo()
        features = client.esmtp_features
        keywords = {keyword.upper() for keyword in features} & {"STARTTLS", "REQUIRETLS"}
        return keywords | ({f"AUTH{features['auth']}"} if "auth" in features else set())

    with RecordingServer(**options) as server:
        context = server.client_ssl_context
        with (
            smtplib.SMTP_SSL(*server.address, context=context)
            if server.implicit_tls
            else smtplib.SMTP(*server.address) as client
        ):
            first = ask(client)
            if "STARTTLS" not in first:
                return first, None
            client.starttls(context=context)
            return first, ask(client)


def describe(options: dict[str, Any]) -> str:
    """Return options as the name of a test, which is the same in every process."""
    return " ".join(f"{name}={'function' if callable(value) else value}" for name, value in options.items()) or "none"


# What is offered.


def test_the_defaults_offer_neither_tls_nor_auth() -> None:
    """Without options there is no TLS and no AUTH, and nothing is required."""
    security = make_security()
    assert (security.tls, security.context, security.extensions) == (None, None, [])
    assert security.security_settings == {
        "users": None,
        "require_auth": False,
        "require_tls": False,
        "auth_mechanisms": (),
        "auth_without_tls": True,
        "encryption_required": ENCRYPTION_REQUIRED,
    }
    assert offered({}) == (set(), None)


TLS_OPTIONS: list[tuple[dict[str, Any], tuple[set[str], set[str] | None]]] = [
    ({"tls": "starttls"}, ({"STARTTLS"}, {"REQUIRETLS"})),
    ({"tls": "implicit"}, ({"REQUIRETLS"}, None)),
    ({"require_tls": True}, ({"STARTTLS"}, {"REQUIRETLS"})),
    ({"client_certificates": "optional"}, ({"STARTTLS"}, {"REQUIRETLS"})),
    ({"tls": "implicit", "require_tls": True}, ({"REQUIRETLS"}, None)),
    ({"tls": "implicit", "client_certificates": "optional"}, ({"REQUIRETLS"}, None)),
    ({"tls": "starttls", "hide": "REQUIRETLS"}, ({"STARTTLS"}, set())),
    ({"tls": "starttls", "hide": "STARTTLS"}, (set(), None)),
]


@pytest.mark.parametrize(("options", "keywords"), TLS_OPTIONS, ids=[describe(options) for options, _ in TLS_OPTIONS])
def test_what_is_offered_of_tls(options: dict[str, Any], keywords: tuple[set[str], set[str] | None]) -> None:
    """STARTTLS is offered before TLS and REQUIRETLS in it; whatever needs TLS stands for `tls="starttls"`."""
    assert offered(options) == keywords


@pytest.mark.parametrize(("options", "first"), [({}, "STARTTLS"), ({"tls": "implicit"}, "REQUIRETLS")], ids=str)
def test_an_ssl_context_is_used(options: dict[str, Any], first: str) -> None:
    """A server's own `ssl_context` stands for `tls="starttls"`, unless `tls` is given, and is the one that is used."""
    context = server_context()
    assert make_security(ssl_context=context, **options).context is context
    assert offered({"ssl_context": context, **options})[0] == {first}


AUTH_OPTIONS: list[tuple[dict[str, Any], tuple[set[str], set[str] | None]]] = [
    ({"users": USERS}, ({"AUTH PLAIN LOGIN"}, None)),
    ({"users": {}}, ({"AUTH PLAIN LOGIN"}, None)),
    ({"users": lookup}, ({"AUTH PLAIN LOGIN"}, None)),
    ({"require_auth": True}, ({"AUTH PLAIN LOGIN"}, None)),
    ({"auth_mechanisms": ["CRAM-MD5"]}, ({"AUTH CRAM-MD5"}, None)),
    ({"auth_mechanisms": ("login", "Plain")}, ({"AUTH LOGIN PLAIN"}, None)),
    ({"auth_mechanisms": "XOAUTH2"}, ({"AUTH XOAUTH2"}, None)),
    ({"users": USERS, "auth_mechanisms": ["SCRAM-SHA-256"]}, ({"AUTH SCRAM-SHA-256"}, None)),
    ({"users": USERS, "auth_mechanisms": []}, (set(), None)),
    ({"users": USERS, "hide": "AUTH"}, (set(), None)),
    ({"users": USERS, "auth_without_tls": False}, (set(), None)),
    (
        {"users": USERS, "auth_without_tls": False, "auth_mechanisms": ["PLAIN", "CRAM-MD5"]},
        ({"AUTH CRAM-MD5"}, None),
    ),
    ({"users": USERS, "tls": "starttls"}, ({"STARTTLS"}, {"REQUIRETLS", "AUTH PLAIN LOGIN"})),
    ({"users": USERS, "tls": "implicit"}, ({"REQUIRETLS", "AUTH PLAIN LOGIN"}, None)),
    (
        {"users": USERS, "tls": "starttls", "auth_mechanisms": ["CRAM-MD5", "PLAIN"]},
        ({"STARTTLS", "AUTH CRAM-MD5"}, {"REQUIRETLS", "AUTH CRAM-MD5 PLAIN"}),
    ),
    (
        {"users": USERS, "tls": "starttls", "auth_without_tls": True},
        ({"STARTTLS", "AUTH PLAIN LOGIN"}, {"REQUIRETLS", "AUTH PLAIN LOGIN"}),
    ),
]


@pytest.mark.parametrize(("options", "keywords"), AUTH_OPTIONS, ids=[describe(options) for options, _ in AUTH_OPTIONS])
def test_what_is_offered_of_auth(options: dict[str, Any], keywords: tuple[set[str], set[str] | None]) -> None:
    """PLAIN and LOGIN are offered where users are known or required; in the clear only without TLS, or on request."""
    assert offered(options) == keywords


def test_all_mechanisms_can_be_offered_at_once() -> None:
    """Any iterable of mechanisms is offered in its order, and read only once."""
    names = [name.lower() for name in reversed(MECHANISMS)]
    security = make_security(users=USERS, auth_mechanisms=iter(names))
    assert security.auth_mechanisms == tuple(reversed(MECHANISMS))
    assert security.security_settings["auth_mechanisms"] == tuple(reversed(MECHANISMS))


# What clients get.


@pytest.mark.parametrize("users", [USERS, lookup], ids=["mapping", "function"])
@pytest.mark.parametrize(
    ("name", "password", "accepted"),
    [("ada", "secret", True), ("ada", "wrong", False), ("bob", "secret", False), ("ada", "", False)],
)
def test_users_are_those_who_may_log_in(users: Any, name: str, password: str, *, accepted: bool) -> None:
    """`users` maps names to passwords, or is a function that does: nobody else is let in."""
    with RecordingServer(users=users) as server, smtplib.SMTP(*server.address) as client:
        if accepted:
            assert client.login(name, password)[0] == 235
        else:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(name, password)


def test_a_mapping_of_users_may_change() -> None:
    """A user who is added to the mapping while the server runs can log in at once."""
    users: dict[str, str] = {}
    with RecordingServer(users=users) as server, smtplib.SMTP(*server.address) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ada", "secret")
        users["ada"] = "secret"
        assert client.login("ada", "secret")[0] == 235


def test_no_users_at_all_let_everybody_in() -> None:
    """With `require_auth` and no `users`, any name and any password will do; without logging in nothing is taken."""
    with RecordingServer(require_auth=True) as server, smtplib.SMTP(*server.address) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            client.sendmail("ada@example.org", "bob@example.org", b"\r\n")
        assert caught.value.smtp_code == 530
        client.login("anybody", "anything")
        client.sendmail("ada@example.org", "bob@example.org", b"\r\n")
        message = server.messages.one()
        assert message.auth is not None
        assert (message.auth.user, message.auth.password) == ("anybody", "anything")


def test_require_tls_takes_nothing_in_the_clear() -> None:
    """With `require_tls`, mail is refused with 530 before STARTTLS, and taken behind it."""
    with RecordingServer(require_tls=True) as server, smtplib.SMTP(*server.address) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            client.sendmail("ada@example.org", "bob@example.org", b"\r\n")
        assert caught.value.smtp_code == 530
        client.starttls(context=server.client_ssl_context)
        client.sendmail("ada@example.org", "bob@example.org", b"\r\n")
        assert server.messages.one().tls is not None


def test_the_bundled_certificate_is_verified_by_the_context_for_clients() -> None:
    """`client_ssl_context` is new each time, verifies certificate and name, and trusts what `cafile` has."""
    with RecordingServer(tls="implicit") as server:
        first, second = server.client_ssl_context, server.client_ssl_context
        assert first is not second
        assert (first.verify_mode, first.check_hostname) == (ssl.CERT_REQUIRED, True)
        for host in ("localhost", "127.0.0.1"):
            context = ssl.create_default_context(cafile=server.cafile)
            with smtplib.SMTP_SSL(host, server.port, context=context) as client:
                assert client.noop()[0] == 250


# What makes no sense.

NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"tls": "ssl"}, r"^tls is 'starttls', 'implicit' or None, not 'ssl'"),
    ({"users": {"ada": b"secret"}}, r"^users: passwords are strings"),
    ({"tls": ""}, r"^tls is .* not ''"),
    ({"certificate": "localhost"}, r"^certificate is 'expired', .*'self-signed' or None, not 'localhost'"),
    ({"maximum_tls_version": "TLSv1.1"}, r"^maximum_tls_version is 'TLSv1.2', 'TLSv1.3' or None, not 'TLSv1.1'"),
    ({"tls": "STARTTLS"}, r"^tls is .* not 'STARTTLS'"),
    ({"client_certificates": "always"}, r"client_certificates is None, 'optional' or 'required', not 'always'"),
    ({"auth_mechanisms": ["DIGEST-MD5"]}, r"^auth_mechanisms: there is no DIGEST-MD5; there are .*CRAM-MD5.*PLAIN"),
    ({"auth_mechanisms": "PLAIN LOGIN"}, r"^auth_mechanisms: there is no PLAIN LOGIN"),
    ({"auth_mechanisms": [""]}, r"^auth_mechanisms: there is no "),
    ({"auth_mechanisms": ["SCRAM-SHA-256"]}, r"^auth_mechanisms: SCRAM-SHA-256 works only with users="),
    (
        {"require_auth": True, "auth_mechanisms": ["PLAIN", "scram-sha-256"]},
        r"^auth_mechanisms: scram-sha-256 works only with users=",
    ),
]


@pytest.mark.parametrize(("options", "error"), NONSENSE, ids=[describe(options) for options, _ in NONSENSE])
def test_values_that_make_no_sense_are_errors(options: dict[str, Any], error: str) -> None:
    """A value that makes no sense raises ValueError in the constructor, and says what would make sense."""
    with pytest.raises(ValueError, match=error):
        RecordingServer(**options).close()


CONTEXT_OPTIONS = ({"client_certificates": "required"}, {"certificate": "expired"}, {"maximum_tls_version": "TLSv1.2"})


@pytest.mark.parametrize("options", CONTEXT_OPTIONS, ids=describe)
def test_a_context_decides_about_tls(options: dict[str, Any]) -> None:
    """Other options of TLS beside `ssl_context` are errors: they would be ignored."""
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: your own ssl_context decides about that"):
        RecordingServer(ssl_context=server_context(), **options).close()


@pytest.mark.parametrize(
    ("certificate", "error"),
    [
        ("expired", "certificate has expired"),
        ("not-yet-valid", "certificate is not yet valid"),
        ("wrong-host", "Hostname mismatch"),
        ("self-signed", "self[- ]signed certificate"),
    ],
)
@pytest.mark.parametrize("tls", [None, "implicit"])
def test_a_bad_certificate_is_refused_by_who_looks(certificate: Any, error: str, tls: Any) -> None:
    """Clients that verify refuse a bad certificate, others take it; without `tls` it comes with STARTTLS."""
    with RecordingServer(certificate=certificate, tls=tls) as server:

        def connect(context: ssl.SSLContext) -> None:
            if tls:
                smtplib.SMTP_SSL("localhost", server.port, context=context).close()
                return
            client = smtplib.SMTP("localhost", server.port)
            try:
                client.starttls(context=context)
            finally:
                client.close()

        with pytest.raises(ssl.SSLCertVerificationError, match=error):
            connect(server.client_ssl_context)
        connect(ssl._create_unverified_context())  # noqa: S323, SLF001 - what careless clients use


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_the_highest_version_of_tls_is_an_option(version: Any) -> None:
    """Clients get no higher version of TLS than the server has."""
    with RecordingServer(maximum_tls_version=version) as server, smtplib.SMTP("localhost", server.port) as client:
        client.starttls(context=server.client_ssl_context)
        client.sendmail("ada@example.org", "bob@example.org", "")
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.version() == version


def test_a_context_for_clients_is_an_error() -> None:
    """An `ssl_context` for clients, as `client_ssl_context` is, can't serve: an error at once, not in the handshake."""
    with RecordingServer() as server, pytest.raises(ValueError, match="ssl_context"):
        RecordingServer(ssl_context=server.client_ssl_context).close()


def test_an_error_leaves_no_socket_behind() -> None:
    """A server that is refused for its options has not bound its port."""
    with RecordingServer() as server:
        port = server.port
    with pytest.raises(ValueError, match="tls"):
        RecordingServer(port=port, tls="ssl")  # type: ignore[arg-type]
    RecordingServer(port=port).close()


# What else AUTH may be answered.


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("454 4.7.0 Temporary authentication failure", id="454: try again"),
        pytest.param("534 5.7.9 Authentication mechanism is too weak", id="534: too weak"),
        pytest.param("432 4.7.12 A password transition is needed", id="432: transition"),
    ],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_function_for_users_may_give_the_answer(reply: str, mechanism: str) -> None:
    """A `users` function that raises a Refusal answers the client with its reply; the session goes on (row 156)."""

    def refuse(_name: str) -> str | None:
        raise Refusal(Reply.parse(reply))

    with (
        RecordingServer(users=refuse, auth_mechanisms=[mechanism]) as server,
        smtplib.SMTP(*server.address) as client,
    ):
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login("ada", "secret")
        code, text = refused.value.smtp_code, refused.value.smtp_error
        assert f"{code} {text if isinstance(text, str) else text.decode()}" == reply
        assert client.noop()[0] == 250


def test_a_password_is_a_string() -> None:
    """A `users` function that returns something else is answered with 454, and the stop says what it is to return."""
    users: Any = lambda _name: 3  # noqa: E731
    server = RecordingServer(users=users, auth_mechanisms=["PLAIN"]).start()
    with server.smtplib_client() as client, pytest.raises(smtplib.SMTPAuthenticationError, match="454"):
        client.login("ada", "secret")
    with pytest.raises(TypeError, match="a password, which is a string, or None, not 3"):
        server.stop()


def test_a_function_for_users_that_fails_reaches_the_test() -> None:
    """An exception in a `users` function is answered with 454, and raised when the server stops."""
    passwords: dict[str, str] = {}
    server = RecordingServer(users=passwords.__getitem__, auth_mechanisms=["PLAIN"]).start()
    with smtplib.SMTP(*server.address) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError, match="454"):
            client.login("ada", "secret")
        assert client.noop()[0] == 250
    with pytest.raises(KeyError, match="ada"):
        server.stop()


@pytest.mark.parametrize("reply", [None, "538 5.7.11 Encryption required", "530 5.7.0 STARTTLS first"])
def test_what_passwords_in_the_clear_are_answered_can_be_chosen(reply: str | None) -> None:
    """A mechanism that needs TLS is refused without with `encryption_required`, by default 504 5.5.4 (row 153)."""
    server = RecordingServer(users={"ada": "secret"}, tls="starttls", encryption_required=reply)
    with server, smtplib.SMTP(*server.address) as client:
        client.ehlo()
        code, text = client.docmd("AUTH", "PLAIN")
        assert f"{code} {text.decode()}".startswith(reply or "504 5.5.4 ")


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this system acknowledges as it likes")
def test_the_end_of_a_handshake_is_acknowledged_at_once() -> None:
    """A client that sends only what is acknowledged, as Nagle has it, needs not wait behind the handshake."""
    with RecordingServer(tls="starttls") as server, smtplib.SMTP(*server.address) as smtp:
        smtp.starttls(context=server.client_ssl_context)
        server.call(lambda: None)  # it has read all of the handshake
        assert smtp.sock is not None
        info = smtp.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert struct.unpack_from("I", info, 24) == (0,)  # tcpi_unacked
