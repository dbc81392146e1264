"""Real clients, each doing what it can: what arrives is what they were given, on every way there is."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools import REQUIRE_TOOLS, find_module, find_tool

from pytest_smtpd import Lint, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd import Message

ADA, BOB, CAROL = "ada@example.org", "bob@example.org", "carol@example.org"
USERS = {"ada": "open sesame"}

#: With all headers that a client might add, with dots to be doubled, and more than ASCII.
LINES = (
    "Date: Mon, 23 Nov 2026 16:00:00 +0000",
    f"From: {ADA}",
    f"To: {BOB}, {CAROL}",
    "Message-ID: <1@example.org>",
    "Subject: Dots",
    "MIME-Version: 1.0",
    'Content-Type: text/plain; charset="utf-8"',
    "Content-Transfer-Encoding: 8bit",
    "",
    ".",
    "..",
    ".hidden",
    "Grüße",
    "",
    "x" * 900,
)
CONTENT = "".join(f"{line}\r\n" for line in LINES).encode()

#: For clients that want the line ends of the system.
TEXT = CONTENT.replace(b"\r\n", b"\n")

PLAIN: dict[str, Any] = {}
STARTTLS: dict[str, Any] = {"tls": "starttls", "require_tls": True}
IMPLICIT: dict[str, Any] = {"tls": "implicit"}
WAYS = [pytest.param(PLAIN, id="plain"), pytest.param(STARTTLS, id="STARTTLS"), pytest.param(IMPLICIT, id="implicit")]


@pytest.fixture
def start() -> Iterator[Callable[..., RecordingServer]]:
    """Return a function that starts a server with the options it is given."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(RecordingServer(*args, **options))


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Return a file with the content, as it goes over the wire."""
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


def run(*command: str | Path, stdin: bytes = b"", status: int = 0) -> str:
    """Run a program, which must end with this status; return all that it wrote."""
    ran = subprocess.run(  # noqa: S603 - clients, called as their manuals say
        [str(part) for part in command],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    output = ran.stdout.decode(errors="backslashreplace")
    assert ran.returncode == status, output
    return output


def check_arrived(server: RecordingServer, *, user: str | None = None, mechanism: str | None = None) -> Message:
    """Hold that the message has arrived as it was given to the client, on the way that the server offers."""
    message = server.messages.one()
    assert (message.mailfrom, message.rcpttos) == (ADA, [BOB, CAROL])
    assert message.data == CONTENT
    assert (message.tls is not None) == (server.ssl_context is not None)
    assert (message.auth and message.auth.user, message.auth and message.auth.mechanism) == (user, mechanism)
    assert message.esmtp
    assert not server.tls_failures
    assert not server.aborted
    return message


def commands(message: Message) -> list[str]:
    """Return the verbs of what the client said in the session, in order."""
    assert message.dialogue is not None
    return [line.text.partition(" ")[0].upper() for line in message.dialogue.lines if line.speaker == "C"]


# Python's smtplib.


@pytest.mark.parametrize("options", WAYS)
def test_smtplib(start: Callable[..., RecordingServer], options: dict[str, Any]) -> None:
    """Python's smtplib sends in the clear, by STARTTLS and by SMTP_SSL, and verifies certificate and name."""
    server = start(**options)
    context = server.client_ssl_context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    with (
        smtplib.SMTP_SSL(*server.address, context=context)
        if server.implicit_tls
        else smtplib.SMTP(*server.address) as client
    ):
        if server.ssl_context and not server.implicit_tls:
            client.starttls(context=context)
        client.sendmail(ADA, [BOB, CAROL], CONTENT)
    message = check_arrived(server)
    if message.tls:
        assert message.tls.version == "TLSv1.3"


def test_smtplib_refuses_a_stranger(start: Callable[..., RecordingServer]) -> None:
    """A client that does not trust the bundled CA gets no further than the handshake, as with any real server."""
    server = start(**STARTTLS)
    with smtplib.SMTP(*server.address) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.starttls(context=ssl.create_default_context())
    assert not server.messages


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN", "LOGIN"])
def test_smtplib_logs_in(start: Callable[..., RecordingServer], mechanism: str) -> None:
    """`smtplib` logs in by each mechanism that it knows; with a wrong password it is refused and may try again."""
    server = start(users=USERS, require_auth=True, auth_mechanisms=[mechanism], **STARTTLS)
    with smtplib.SMTP(*server.address) as client:
        client.starttls(context=server.client_ssl_context)
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login("ada", "wrong")
        assert (caught.value.smtp_code, caught.value.smtp_error[:5]) == (535, b"5.7.8")
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail(ADA, [BOB], CONTENT)
        assert refused.value.smtp_code == 530
        client.login("ada", USERS["ada"])
        client.sendmail(ADA, [BOB, CAROL], CONTENT)
    message = check_arrived(server, user="ada", mechanism=mechanism)
    assert message.auth is not None
    assert message.auth.password == (None if mechanism == "CRAM-MD5" else USERS["ada"])
    assert USERS["ada"] not in str(message.dialogue)


def test_smtplib_tries_one_mechanism_after_the_other(start: Callable[..., RecordingServer]) -> None:
    """With a wrong password smtplib tries all mechanisms in one session, and then sends nothing."""
    server = start(users=USERS, auth_mechanisms=["CRAM-MD5", "PLAIN", "LOGIN"])
    with smtplib.SMTP(*server.address) as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login("ada", "wrong")
    (dialogue,) = server.dialogues
    tried = [line.text.split()[1] for line in dialogue.lines if line.text.startswith("AUTH")]
    assert tried == ["CRAM-MD5", "PLAIN", "LOGIN"]
    assert sum(line.text.startswith("535 5.7.8") for line in dialogue.lines) == 3


def test_smtplib_speaks_lmtp(start: Callable[..., RecordingServer]) -> None:
    """smtplib.LMTP delivers over TCP; it reads one reply to the content, so it has one recipient a message."""
    server = start(protocol="lmtp")
    with smtplib.LMTP(*server.address) as client:
        for recipient in (BOB, CAROL):
            client.sendmail(ADA, [recipient], CONTENT)
    assert [(message.rcpttos, message.data) for message in server.messages] == [([BOB], CONTENT), ([CAROL], CONTENT)]
    assert commands(server.messages[0])[0] == "LHLO"


def test_smtplib_speaks_lmtp_over_a_unix_socket(start: Callable[..., RecordingServer]) -> None:
    """smtplib.LMTP delivers over a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:  # the path of a socket is short: tmp_path's may be too long
        server = start(f"{directory}/lmtp", protocol="lmtp")
        with smtplib.LMTP(server.host) as client:
            client.sendmail(ADA, [BOB], CONTENT)
        assert server.messages.one().data == CONTENT


# openssl s_client.


class OpenSSL:
    """A session through `openssl s_client`, which does no more than TLS."""

    def __init__(self, server: RecordingServer, *options: str) -> None:
        command = [
            *(find_tool("openssl"), "s_client", "-quiet", "-crlf", "-connect", f"{server.host}:{server.port}"),
            *("-CAfile", server.cafile, "-verify_return_error", "-verify_hostname", "localhost", *options),
        ]
        self.process = subprocess.Popen(  # noqa: S603 - as above
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, text: str) -> str:
        """Send lines and return the last line of the reply."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        while (line := self.process.stdout.readline())[3:4] == b"-":
            pass
        return line.decode().rstrip()


@pytest.mark.parametrize("options", [WAYS[1], WAYS[2]])
def test_openssl_s_client(start: Callable[..., RecordingServer], options: dict[str, Any]) -> None:
    """`openssl s_client` verifies the server, with `-starttls smtp` or without, and a session goes through it."""
    server = start(**options)
    starttls = [] if server.implicit_tls else ["-starttls", "smtp", "-name", "client.example"]
    session = OpenSSL(server, *starttls)
    with session.process:
        # It shows what comes behind the handshake: with STARTTLS there is no greeting any more.
        replies = [session.ask("EHLO client.example")]
        if server.implicit_tls:
            assert replies.pop().startswith("220 localhost ESMTP")
            replies.append(session.ask("NOOP"))
        commands = (f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", f"RCPT TO:<{CAROL}>", "DATA")
        replies += [session.ask(command) for command in commands]
        stuffed = TEXT.decode().replace("\n.", "\n..")
        replies += [session.ask(f"{stuffed}."), session.ask("QUIT")]
    message = check_arrived(server)
    assert message.helo == "client.example"
    assert message.tls is not None
    assert message.tls.version == "TLSv1.3"


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_chooses_the_version(start: Callable[..., RecordingServer], option: str) -> None:
    """A client that speaks only TLS 1.2, or only 1.3, is served with that, and the dialogue says when TLS began."""
    server = start(**STARTTLS)
    session = OpenSSL(server, "-starttls", "smtp", option)
    with session.process:
        assert session.ask("EHLO client.example").startswith("250 ")
        for command in (f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA", ".", "QUIT"):
            assert session.ask(command)[0] in "23"
    message = server.messages.one()
    assert message.tls is not None
    assert message.tls.version == option.replace("-tls1_", "TLSv1.")
    lines = str(message.dialogue).splitlines()
    place = lines.index("   (TLS is active)")
    assert lines[place - 2 : place] == ["C: STARTTLS", "S: 220 2.0.0 Ready to start TLS"]
    assert lines[place + 1] == "C: EHLO client.example"


# curl.


def curl(server: RecordingServer, content: Path, *options: str, status: int = 0) -> str:
    """Send with curl, which has to verify the server where there is TLS."""
    scheme = "smtps" if server.implicit_tls else "smtp"
    tls: tuple[str, ...] = ("--cacert", server.cafile, "--ssl-reqd") if server.ssl_context else ()
    return run(
        *(find_tool("curl"), "--silent", "--show-error", "--verbose", *tls),
        *("--url", f"{scheme}://{server.host}:{server.port}/client.example"),
        *("--mail-from", ADA, "--mail-rcpt", BOB, "--mail-rcpt", CAROL, "--upload-file", str(content), *options),
        status=status,
    )


@pytest.mark.parametrize("options", WAYS)
def test_curl(start: Callable[..., RecordingServer], content: Path, options: dict[str, Any]) -> None:
    """`curl` sends by smtp://, by smtp:// with --ssl-reqd, and by smtps://, with the CA by --cacert."""
    server = start(**options)
    curl(server, content)
    message = check_arrived(server)
    assert message.helo == "client.example"
    assert "QUIT" in commands(message)


def test_curl_wants_tls(start: Callable[..., RecordingServer], content: Path) -> None:
    """`curl` with --ssl-reqd gives up at a server that offers no STARTTLS: 64, the manual's status for that."""
    server = start()
    curl(server, content, "--ssl-reqd", status=64)
    assert not server.messages


#: Mechanisms, and what curl is told.
CURL_AUTH = [
    ("PLAIN", ["--user", "ada:open sesame"]),
    ("LOGIN", ["--user", "ada:open sesame"]),
    ("CRAM-MD5", ["--user", "ada:open sesame"]),
    ("XOAUTH2", ["--user", "ada", "--oauth2-bearer", "t0ken"]),
    ("OAUTHBEARER", ["--user", "ada", "--oauth2-bearer", "t0ken"]),
]


@pytest.mark.parametrize("initial", [(), ("--sasl-ir",)], ids=["challenged", "initial response"])
@pytest.mark.parametrize(("mechanism", "options"), CURL_AUTH, ids=[mechanism for mechanism, _ in CURL_AUTH])
def test_curl_authenticates(
    start: Callable[..., RecordingServer], content: Path, mechanism: str, options: list[str], initial: tuple[str, ...]
) -> None:
    """`curl` authenticates by every mechanism it has, with an initial response where it may, and with a challenge."""
    secret = "t0ken" if "--oauth2-bearer" in options else USERS["ada"]
    server = start(users={"ada": secret}, require_auth=True, auth_mechanisms=[mechanism], tls="starttls")
    curl(server, content, *options, "--login-options", f"AUTH={mechanism}", *initial)
    message = check_arrived(server, user="ada", mechanism=mechanism)
    assert secret not in str(message.dialogue)


def test_curl_with_a_wrong_token(start: Callable[..., RecordingServer], content: Path) -> None:
    """A wrong token gets the reason as a challenge (XOAUTH2), and then 535: curl's status 67, login denied."""
    server = start(users={"ada": "t0ken"}, auth_mechanisms=["XOAUTH2"])
    curl(server, content, "--user", "ada", "--oauth2-bearer", "wrong", status=67)
    (dialogue,) = server.dialogues
    lines = [line.text for line in dialogue.lines]
    assert any(line.startswith("334 ") for line in lines)
    assert not server.messages


# swaks.


@pytest.fixture
def unended_content(tmp_path: Path) -> Path:
    """Return a file with the content as swaks wants it: it adds the last line end, whether there is one or not."""
    path = tmp_path / "unended"
    path.write_bytes(CONTENT.removesuffix(b"\r\n"))
    return path


def swaks(server: RecordingServer, content: Path, *options: str, status: int = 0) -> str:
    """Send with swaks."""
    tls = ("--tls-on-connect" if server.implicit_tls else "--tls", "--tls-verify", "--tls-ca-path", server.cafile)
    return run(
        *(find_tool("swaks"), "--server", server.host, "--port", str(server.port), "--helo", "client.example"),
        *(tls if server.ssl_context else ()),
        *("--from", ADA, "--to", f"{BOB},{CAROL}", "--data", f"@{content}", *options),
        status=status,
    )


@pytest.mark.parametrize("pipeline", [(), ("--pipeline",)], ids=["in turn", "PIPELINING"])
@pytest.mark.parametrize("options", WAYS)
def test_swaks(
    start: Callable[..., RecordingServer], unended_content: Path, options: dict[str, Any], pipeline: tuple[str, ...]
) -> None:
    """`swaks` sends in the clear, by STARTTLS and by TLS from the start, with PIPELINING and without."""
    server = start(**options)
    swaks(server, unended_content, *pipeline)
    message = check_arrived(server)
    assert message.helo == "client.example"
    assert message.lints == (Lint.UNDECLARED_8BIT,)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_swaks_authenticates(start: Callable[..., RecordingServer], unended_content: Path, mechanism: str) -> None:
    """`swaks` authenticates by PLAIN, LOGIN and CRAM-MD5."""
    server = start(users=USERS, require_auth=True, auth_mechanisms=[mechanism], **STARTTLS)
    swaks(server, unended_content, "--auth", mechanism, "--auth-user", "ada", "--auth-password", USERS["ada"])
    check_arrived(server, user="ada", mechanism=mechanism)


def test_swaks_with_a_wrong_password(start: Callable[..., RecordingServer], unended_content: Path) -> None:
    """With a wrong password swaks ends with 28, its status for a failed AUTH, and sends nothing."""
    server = start(users=USERS)
    swaks(server, unended_content, "--auth", "PLAIN", "--auth-user", "ada", "--auth-password", "wrong", status=28)
    assert not server.messages


def test_swaks_speaks_lmtp(start: Callable[..., RecordingServer], unended_content: Path) -> None:
    """`swaks` delivers by LMTP, and gets one reply for each recipient."""
    server = start(protocol="lmtp")
    output = swaks(server, unended_content, "--protocol", "LMTP")
    message = check_arrived(server)
    assert commands(message)[0] == "LHLO"
    behind_content = output.split(" -> .\n")[1]
    assert behind_content.count("<-  250 2.0.0 ") == 2


def test_swaks_speaks_lmtp_over_a_unix_socket(start: Callable[..., RecordingServer], unended_content: Path) -> None:
    """`swaks` delivers by LMTP over a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:
        server = start(f"{directory}/lmtp", protocol="lmtp")
        run(
            *(find_tool("swaks"), "--socket", server.host, "--protocol", "LMTP"),
            *("--from", ADA, "--to", f"{BOB},{CAROL}", "--data", f"@{unended_content}"),
        )
        check_arrived(server)


# msmtp.


def msmtp(server: RecordingServer, *options: str, status: int = 0) -> str:
    """Send with msmtp, without any configuration."""
    starttls = f"--tls-starttls={'off' if server.implicit_tls else 'on'}"
    tls = ("--tls=on", starttls, f"--tls-trust-file={server.cafile}") if server.ssl_context else ()
    # It wants a host and a port with a Unix socket, too.
    is_path = server.host.startswith("/")
    host, port = ("localhost", 24) if is_path else server.address
    where = (f"--host={host}", f"--port={port}", *([f"--socket={server.host}"] if is_path else []))
    return run(
        *(find_tool("msmtp"), *where, "--domain=client.example", f"--from={ADA}", *tls, *options, "--", BOB, CAROL),
        stdin=TEXT,
        status=status,
    )


@pytest.mark.parametrize("options", WAYS)
def test_msmtp(start: Callable[..., RecordingServer], options: dict[str, Any]) -> None:
    """`msmtp` sends in the clear, by STARTTLS and by TLS from the start."""
    server = start(**options)
    msmtp(server)
    assert check_arrived(server).helo == "client.example"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2"])
def test_msmtp_authenticates(start: Callable[..., RecordingServer], mechanism: str) -> None:
    """`msmtp` authenticates by every mechanism; with SCRAM it verifies that the server knows the password, too."""
    secret = "t0ken" if "OAUTH" in mechanism else USERS["ada"]
    server = start(users={"ada": secret}, require_auth=True, auth_mechanisms=[mechanism], **STARTTLS)
    msmtp(server, f"--auth={mechanism.lower()}", "--user=ada", f"--passwordeval=echo '{secret}'")
    check_arrived(server, user="ada", mechanism=mechanism)


def test_msmtp_with_a_wrong_password(start: Callable[..., RecordingServer]) -> None:
    """With a wrong password msmtp ends with 77, EX_NOPERM, and sends nothing."""
    server = start(users=USERS, auth_mechanisms=["SCRAM-SHA-256"], **STARTTLS)
    msmtp(server, "--auth=scram-sha-256", "--user=ada", "--passwordeval=echo wrong", status=77)
    assert not server.messages


def test_msmtp_asks_for_notifications(start: Callable[..., RecordingServer]) -> None:
    """`msmtp`'s DSN options arrive as parameters of MAIL and RCPT (RFC 3461)."""
    server = start()
    msmtp(server, "--dsn-notify=failure,delay", "--dsn-return=headers")
    message = check_arrived(server)
    assert "RET=HDRS" in message.mail_options
    assert all("NOTIFY=FAILURE,DELAY" in [option.upper() for option in options] for options in message.rcpt_options)


def test_msmtp_speaks_lmtp(start: Callable[..., RecordingServer]) -> None:
    """`msmtp` delivers by LMTP over TCP."""
    server = start(protocol="lmtp")
    msmtp(server, "--protocol=lmtp")
    assert commands(check_arrived(server))[0] == "LHLO"


def test_msmtp_speaks_lmtp_over_a_unix_socket(start: Callable[..., RecordingServer]) -> None:
    """`msmtp` delivers by LMTP over a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:
        server = start(f"{directory}/lmtp", protocol="lmtp")
        msmtp(server, "--protocol=lmtp")
        check_arrived(server)


# Exim.

EXIM_CONFIGURATION = """
primary_hostname = client.example
exim_path = {exim}
spool_directory = {directory}/spool
log_file_path = {directory}/%slog
deliver_drop_privilege
never_users =
keep_environment =
received_header_text =
tls_advertise_hosts =
begin routers
everything:
  driver = manualroute
  route_list = * {host}
  self = send
  transport = smtp
begin transports
smtp:
  driver = smtp
  protocol = {protocol}
  port = {port}
  {options}
begin authenticators
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  client_name = ada
  client_secret = open sesame
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^ada^open sesame
"""


def exim(server: RecordingServer, *options: str, text: bytes = TEXT) -> None:
    """Send with Exim: it takes the message, relays it at once, and is gone."""
    program = find_tool("exim4")
    tls = [f"tls_verify_certificates = {server.cafile}", "tls_verify_hosts = *", "tls_verify_cert_hostnames ="]
    tls += [] if server.implicit_tls else ["hosts_require_tls = *"]
    lines = "\n  ".join([*options, *(tls if server.ssl_context else [])])
    # Started by root, it works as a user of its own.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)
        configuration = directory / "exim.conf"
        protocol = "lmtp" if server.settings.lmtp else "smtps" if server.implicit_tls else "smtp"
        configuration.write_text(
            EXIM_CONFIGURATION.format(
                exim=program, directory=directory, host=server.host, port=server.port, protocol=protocol, options=lines
            )
        )
        run(program, "-C", configuration, "-odf", "-i", "-f", ADA, BOB, CAROL, stdin=text)
        log = (directory / "mainlog").read_text()
        assert log.rstrip().endswith("Completed"), log


@pytest.mark.parametrize("options", WAYS)
def test_exim(start: Callable[..., RecordingServer], options: dict[str, Any]) -> None:
    """Exim relays in the clear, by STARTTLS and by TLS from the start, with CHUNKING and PIPELINING."""
    server = start(**options)
    exim(server)
    message = check_arrived(server)
    assert message.lints == (Lint.UNDECLARED_8BIT,)
    said = commands(message)
    assert said[said.index("MAIL") :] == ["MAIL", "RCPT", "RCPT", "BDAT", "QUIT"]


def test_exim_sends_a_large_chunk(start: Callable[..., RecordingServer]) -> None:
    """A message of a megabyte and a half comes from Exim in chunks over TLS, and arrives byte by byte."""
    server = start(tls="starttls")
    lines = b"".join(b"%06d %s\n" % (number, b"x" * 70) for number in range(20_000))
    exim(server, text=TEXT + lines)
    assert server.messages.one().data == CONTENT + lines.replace(b"\n", b"\r\n")
    assert "BDAT" in commands(server.messages[0])


def test_exim_without_chunking(start: Callable[..., RecordingServer]) -> None:
    """Where CHUNKING is not offered, Exim sends with DATA."""
    server = start(hide="CHUNKING")
    exim(server)
    said = commands(check_arrived(server))
    assert "DATA" in said
    assert "BDAT" not in said


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN"])
def test_exim_authenticates(start: Callable[..., RecordingServer], mechanism: str) -> None:
    """Exim authenticates by CRAM-MD5 and by PLAIN, behind STARTTLS."""
    server = start(users=USERS, require_auth=True, auth_mechanisms=[mechanism], **STARTTLS)
    exim(server, "hosts_require_auth = *")
    check_arrived(server, user="ada", mechanism=mechanism)


def test_exim_speaks_lmtp(start: Callable[..., RecordingServer]) -> None:
    """Exim delivers by LMTP, and notes a delivery for each recipient."""
    server = start(protocol="lmtp")
    exim(server)
    assert commands(check_arrived(server))[0] == "LHLO"


# aiosmtplib.


@pytest.mark.parametrize("options", WAYS)
def test_aiosmtplib(start: Callable[..., RecordingServer], options: dict[str, Any]) -> None:
    """`aiosmtplib` sends in the clear, by STARTTLS and by TLS from the start."""
    server = start(**options)
    tls = {"use_tls": server.implicit_tls, "start_tls": server.ssl_context is not None and not server.implicit_tls}
    context = server.client_ssl_context if server.ssl_context else None
    send = find_module("aiosmtplib").send(
        CONTENT, sender=ADA, recipients=[BOB, CAROL], hostname=server.host, port=server.port, tls_context=context, **tls
    )
    asyncio.run(send)
    check_arrived(server)


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN", "LOGIN"])
def test_aiosmtplib_logs_in(start: Callable[..., RecordingServer], mechanism: str) -> None:
    """`aiosmtplib` logs in by each mechanism that it knows; a wrong password raises its error."""
    aiosmtplib = find_module("aiosmtplib")
    server = start(users=USERS, require_auth=True, auth_mechanisms=[mechanism])

    async def send(password: str) -> None:
        async with aiosmtplib.SMTP(hostname=server.host, port=server.port) as client:
            await client.login("ada", password)
            await client.sendmail(ADA, [BOB, CAROL], CONTENT)

    with pytest.raises(aiosmtplib.SMTPAuthenticationError):
        asyncio.run(send("wrong"))
    asyncio.run(send(USERS["ada"]))
    check_arrived(server, user="ada", mechanism=mechanism)


# What finds them.


@pytest.mark.parametrize("find", [find_tool, find_module])
@pytest.mark.parametrize(("required", "outcome"), [(False, "Skipped"), (True, "Failed")])
def test_a_missing_tool_skips(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[str], Any], outcome: str, *, required: bool
) -> None:
    """Without a program or module that it needs a test is skipped, or fails where PYTEST_SMTPD_REQUIRE_TOOLS is set."""
    monkeypatch.delenv(REQUIRE_TOOLS, raising=False)
    if required:
        monkeypatch.setenv(REQUIRE_TOOLS, "1")
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="no_such_tool") as caught:
        find("no_such_tool")
    assert type(caught.value).__name__ == outcome


def test_exim_may_be_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTEST_SMTPD_EXIM tells where Exim is; one that is not there is missing, whatever is on the PATH."""
    monkeypatch.setenv("PYTEST_SMTPD_EXIM", sys.executable)
    assert find_tool("exim4") == sys.executable
    monkeypatch.setenv("PYTEST_SMTPD_EXIM", "/no/such/exim4")
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="/no/such/exim4"):
        find_tool("exim4")
