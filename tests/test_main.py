"""The command line, as a program: what it prints, how it ends, and whose rights it has."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import os
import pwd
import runpy
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import UNMEASURED, RawClient

from pytest_smtpd import smtpd
from pytest_smtpd.__main__ import main
from pytest_smtpd.cli.privileges import Nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 30.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")


class Program:
    """The program, running; it says on standard error where it listens."""

    def __init__(self, directory: Path, *arguments: str, groups: list[int] | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-W", "error", "-m", "pytest_smtpd", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            extra_groups=groups,
            # The package that is tested, also from there.
            env=UNMEASURED | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONIOENCODING": "utf-8"},
        )
        assert self._process.stderr is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.stdout, self.stderr = self._process.stdout, self._process.stderr
        self.announced = self.stderr.readline().decode()
        assert self.announced.startswith("Listening on ")
        host, _, port = self.announced.split()[2].rstrip(";").rpartition(":")
        self.address = (host.strip("[]"), int(port))

    def end(self, number: int = signal.SIGTERM) -> tuple[str, str, int]:
        """Send a signal; return what came on standard output and standard error, and the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[str, str, int]:
        """Wait for its end; return what came on standard output and standard error, and the exit code."""
        output, errors = self._process.communicate(timeout=DEADLINE)
        return output.decode(), errors.decode(), self._process.returncode

    def wait_for_errors(self) -> tuple[str, int]:
        """Wait for its end, without standard output; return what came on standard error, and the exit code."""
        return self.stderr.read().decode(), self._process.wait(DEADLINE)

    def kill(self) -> None:
        """End the process, if it runs, and close its pipes."""
        self._process.kill()
        with self._process:
            pass


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start programs in an empty directory, and end them after the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, groups: list[int] | None = None) -> Program:
            program = Program(tmp_path, *arguments, groups=groups)
            stack.callback(program.kill)
            return program

        yield start


def run(*arguments: str, directory: Path | None = None) -> tuple[str, str, int]:
    """Run the program to its end; return standard output, standard error and exit code."""
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "error", "-m", "pytest_smtpd", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=directory,
        env=UNMEASURED | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    return ran.stdout, ran.stderr, ran.returncode


CONTENT = b"Subject: Hello\r\n\r\n.\r\nHow are you?\r\n"


def send(address: tuple[str, int], content: bytes = CONTENT) -> None:
    """Send a message."""
    with smtplib.SMTP(*address, local_hostname="client.example", timeout=DEADLINE) as client:
        client.sendmail("ada@example.org", ["bob@example.org"], content)


# Messages.


SHOWN = """\
---------- MESSAGE FOLLOWS ----------
Subject: Hello
X-Peer: 127.0.0.1

.
How are you?
------------ END MESSAGE ------------
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_debugging_server_prints_and_ends_in_peace(start: Callable[..., Program], number: int) -> None:
    """Messages are printed; Ctrl-C and SIGTERM end the program with exit code 0, and 421 for who is connected."""
    program = start("-n", "-c", "DebuggingServer", "127.0.0.1:0")
    send(program.address)
    with RawClient(program.address) as client:
        client.read_reply()
        client.ask("HELO client.example")
        client.ask("MAIL FROM:<ada@example.org>")
        assert program.end(number) == (SHOWN, "", 0)
        assert client.read_reply() == "421 Service not available, closing transmission channel"
        assert client.read_reply() == ""


def test_messages_as_lines_of_json(start: Callable[..., Program]) -> None:
    """--json prints each message as a line of JSON at once, with all that the envelope and the content tell."""
    program = start("-n", "--json", "127.0.0.1:0")
    message = EmailMessage()
    message["Subject"], message["To"] = "Grüße", "Bob <bob@example.org>"
    message["Received"] = "one"
    message.add_header("Received", "two")
    message.set_content("Hällo\n")
    message.add_alternative("<p>Hällo</p>\n", subtype="html")
    message.add_attachment(b"GIF", maintype="image", subtype="gif", filename="ü.gif")
    with smtplib.SMTP(*program.address, local_hostname="client.example", timeout=DEADLINE) as client:
        client.send_message(message, "ada@example.org", ["bob@example.org", "eve@example.org"], ["BODY=8BITMIME"])
        described = json.loads(program.stdout.readline())
    data = base64.b64decode(described.pop("data"))
    assert data.startswith(b"Subject: =?utf-8?")
    assert described.pop("headers")["received"] == ["one", "two"]
    assert described.pop("mail_options") == [f"SIZE={len(data)}", "BODY=8BITMIME"]
    assert described.pop("peer")[0] == "127.0.0.1"
    assert described.pop("received_at")[10] == "T"
    assert described == {
        "helo": "client.example",
        "esmtp": True,
        "mailfrom": "ada@example.org",
        "rcpttos": ["bob@example.org", "eve@example.org"],
        "rcpt_options": [[], []],
        "subject": "Grüße",
        "text": "Hällo\n",
        "html": "<p>Hällo</p>\n",
        "attachments": [{"name": "ü.gif", "type": "image/gif", "size": 3}],
        "tls": None,
        "auth": None,
        "file": None,
    }
    assert program.end() == ("", "", 0)


def test_messages_as_files(start: Callable[..., Program], tmp_path: Path) -> None:
    """--save writes each message into a file of its own, as it was sent, replaces none, and tells its name."""
    mails = tmp_path / "new" / "mails"
    mails.mkdir(parents=True)
    (mails / "000002.eml").write_bytes(b"not to be replaced")
    program = start("-n", "--save", "new/mails", "127.0.0.1:0")
    send(program.address, b"Subject: one\r\n\r\n.\r\n")
    send(program.address, b"Subject: two\r\n\r\nno line end")
    printed = (
        "from <ada@example.org> to <bob@example.org>: 'one' (new/mails/000001.eml)\n"
        "from <ada@example.org> to <bob@example.org>: 'two' (new/mails/000003.eml)\n"
    )
    assert program.end() == (printed, "", 0)
    assert {path.name: path.read_bytes() for path in mails.iterdir()} == {
        "000001.eml": b"Subject: one\r\n\r\n.\r\n",
        "000002.eml": b"not to be replaced",
        "000003.eml": b"Subject: two\r\n\r\nno line end\r\n",
    }


def test_files_and_json(start: Callable[..., Program], tmp_path: Path) -> None:
    """With --save and --json each line tells the file, which is there by then; a missing directory is made."""
    program = start("-n", "--json", "--save", "a/b", "127.0.0.1:0")
    send(program.address)
    described = json.loads(program.stdout.readline())
    assert (tmp_path / described["file"]).read_bytes() == CONTENT == base64.b64decode(described["data"])


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_clients_encrypt_and_log_in(start: Callable[..., Program], tls: str) -> None:
    """With --tls clients verify the server with --print-cafile, with --auth they have to log in as one of the users."""
    program = start("-n", "--json", "--tls", tls, "--auth", "ada:secret", "--auth", "bob:a:b", "127.0.0.1:0")
    cafile = run("--print-cafile")[0].removesuffix("\n")
    assert program.announced == f"Listening on 127.0.0.1:{program.address[1]}; clients verify it with {cafile}\n"
    context = ssl.create_default_context(cafile=cafile)
    host, port = program.address
    with contextlib.ExitStack() as stack:
        if tls == "implicit":
            client: smtplib.SMTP = stack.enter_context(smtplib.SMTP_SSL(host, port, context=context, timeout=DEADLINE))
        else:
            client = stack.enter_context(smtplib.SMTP(host, port, timeout=DEADLINE))
            client.starttls(context=context)
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            client.sendmail("ada@example.org", "bob@example.org", CONTENT)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ada", "wrong")
        client.login("bob", "a:b")
        client.sendmail("ada@example.org", "bob@example.org", CONTENT)
    line = program.stdout.readline()
    described = json.loads(line)
    assert described["auth"] == {"mechanism": "PLAIN", "user": "bob", "authzid": ""}
    assert described["tls"]["version"] == "TLSv1.3"
    assert b"a:b" not in line
    assert program.end() == ("", "", 0)


def test_failed_handshakes_and_broken_off_transactions_are_told(start: Callable[..., Program]) -> None:
    """What comes to nothing is told on standard error."""
    program = start("-n", "--tls", "starttls", "127.0.0.1:0")
    with smtplib.SMTP(*program.address, timeout=DEADLINE) as client, pytest.raises(ssl.SSLError):
        client.starttls(context=ssl.create_default_context())
    with RawClient(program.address) as raw:
        raw.read_reply()
        assert [raw.ask(line)[:3] for line in ("HELO x", "MAIL FROM:<a@b>", "QUIT")] == ["250", "250", "221"]
        assert raw.read_reply() == ""
    assert program.stderr.readline().startswith(b"TLSFailure: from 127.0.0.1: ")
    assert program.stderr.readline() == b"AbortedTransaction: from <a@b> to nobody\n"
    assert program.end() == ("", "", 0)


def test_dialogues(start: Callable[..., Program]) -> None:
    """-d prints what is said on standard error, each line with the client's address."""
    program = start("-n", "-d", "-c", "DebuggingServer", "127.0.0.1:0")
    with RawClient(program.address) as client:
        host, port = client.socket.getsockname()
        client.read_reply()
        client.ask("QUIT")
        client.read_reply()
    lines = ["S: 220 localhost ESMTP pytest-smtpd-server", "C: QUIT", "S: 221 Bye"]
    assert program.end() == ("", "".join(f"{host}:{port} {line}\n" for line in lines), 0)


SERVER = """
from pytest_smtpd import smtpd

class Own(smtpd.SMTPServer):
    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        if b"fail" in data:
            raise LookupError("from the hook")
        print(self._localaddr[1], self._remoteaddr, self.data_size_limit, self.enable_SMTPUTF8, flush=True)
"""


def test_a_class_of_ones_own(start: Callable[..., Program], tmp_path: Path) -> None:
    """-c takes a class of a module in the present directory, and makes it with the arguments that smtpd gave."""
    (tmp_path / "own.py").write_text(SERVER, "utf-8")
    program = start("-nu", "-s", "1234", "127.0.0.1:0", "-c", "own.Own", "mail.example.org:26")
    send(program.address)
    assert program.end() == ("0 ('mail.example.org', 26) 1234 True\n", "", 0)


def test_hooks_that_fail(start: Callable[..., Program], tmp_path: Path) -> None:
    """What process_message raises is printed at once, its client is told to try again, and the server goes on."""
    (tmp_path / "own.py").write_text(SERVER, "utf-8")
    program = start("--nosetuid", "--class=own.Own", "127.0.0.1:0")
    with pytest.raises(smtplib.SMTPDataError, match="451"):
        send(program.address, b"fail")
    send(program.address)
    output, errors, code = program.end()
    assert (output, code) == ("0 ('localhost', 25) 33554432 False\n", 0)
    assert "LookupError: from the hook" in errors


def test_who_reads_no_more(start: Callable[..., Program]) -> None:
    """When standard output is closed, the program ends: the message is not accepted, and the error is one line."""
    program = start("-n", "--json", "127.0.0.1:0")
    program.stdout.close()
    with RawClient(program.address) as client:
        client.read_reply()
        for line in ("HELO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"):
            client.ask(line)
        client.send(CONTENT + b".\r\n")
        assert client.read_reply().startswith("421 ")
    errors = (
        "AbortedTransaction: from <a@b> to <c@d>\npytest-smtpd: a message can't be written: [Errno 32] Broken pipe\n"
    )
    assert program.wait_for_errors() == (errors, 1)


# The port.


def test_the_port_file(start: Callable[..., Program], tmp_path: Path) -> None:
    """--port-file has the port as soon as the server can be connected to, and nothing else is left beside it."""
    (tmp_path / "port").write_text("25\n", "ascii")
    program = start("-n", "--port-file", "port", "-c", "DebuggingServer", "127.0.0.1:0")
    send(program.address)
    assert (tmp_path / "port").read_text("ascii") == f"{program.address[1]}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["port"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6(start: Callable[..., Program]) -> None:
    """An address of IPv6 stands in brackets."""
    program = start("-n", "-c", "RecordingServer", "[::1]:0")
    send(program.address)
    output, errors, code = program.end()
    assert program.announced == f"Listening on [::1]:{program.address[1]}\n"
    assert (output, errors, code) == ("from <ada@example.org> to <bob@example.org>: 'Hello'\n", "", 0)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("localhost", "argument localhost:port: 'localhost' is no address such as localhost:8025 or [::1]:8025"),
        ("localhost:x", "argument localhost:port: 'localhost:x' is no address such as"),
        ("localhost:65536", "argument localhost:port: 'localhost:65536' is no address such as"),
        ("::1:25", "argument localhost:port: '::1:25' is no address such as"),
        ("localhost:0 there", "argument remotehost:port: 'there' is no address such as"),
        ("localhost:0 there:25 more", "unrecognized arguments: more"),
        ("--what", "unrecognized arguments: --what"),
        ("-s many", "argument -s/--size: 'many' is no number of bytes"),
        ("-s -1", "argument -s/--size: '-1' is no number of bytes"),
        ("--tls no", "argument --tls: invalid choice: 'no'"),
        ("--auth secret", "argument --auth: it takes USER:PASSWORD"),
        ("-c Nothing", "-c: Nothing is no class of servers; it takes SMTPServer, DebuggingServer"),
        ("-c loop", "-c: loop is no class of servers"),
        ("-c SMTPChannel", "-c: SMTPChannel is no class of servers"),
        ("-c no.such.Server", "-c: no.such can't be imported: ModuleNotFoundError: No module named 'no'"),
        ("-c json.Server", "-c: json.Server is no class of servers"),
        ("-c broken.Server", "-c: broken can't be imported: ZeroDivisionError: division by zero"),
        ("-c strange.Server", "Server: a server like this makes no sense"),
        ("-c strange.Narrow", "Narrow: "),
        (
            "-c DebuggingServer --json --auth a:b",
            "--auth, --json: only RecordingServer can do that, not DebuggingServer",
        ),
        ("-c DebuggingServer 127.0.0.1:{taken}", "127.0.0.1:{taken} can't be listened on: Address already in use"),
        ("-c RecordingServer 127.0.0.1:{taken}", "127.0.0.1:{taken} can't be listened on: Address already in use"),
        ("-c DebuggingServer [::ffff]:25", "[::ffff]:25 can't be listened on: "),
        ("-c DebuggingServer --port-file no/port 127.0.0.1:0", "--port-file: no/port can't be written: No such file"),
        ("-c DebuggingServer --port-file broken.py/port", "--port-file: broken.py/port can't be written: Not a dir"),
        ("--save broken.py 127.0.0.1:0", "--save: broken.py can't be made: File exists"),
        ("--save /proc 127.0.0.1:0", "--save: /proc can't be written to: "),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: str, error: str) -> None:
    """What can't be is told in one line, with exit code 2 and without a traceback."""
    (tmp_path / "broken.py").write_text("1 / 0", "utf-8")
    (tmp_path / "strange.py").write_text(
        "from pytest_smtpd.smtpd import SMTPServer\n"
        "class Server(SMTPServer):\n"
        "    def __init__(self, *args, **kwargs):\n"
        "        raise ValueError('a server like this makes no sense')\n"
        "class Narrow(SMTPServer):\n"
        "    def __init__(self): pass\n",
        "utf-8",
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output, errors, code = run("-n", *arguments.format(taken=port).split(), directory=tmp_path)
    lines = [line for line in errors.splitlines() if not line.startswith("Listening on ")]
    assert (output, code, len(lines)) == ("", 2, 1)
    assert lines[0].startswith(f"pytest-smtpd: error: {error.format(taken=port)}")


def test_help_and_version() -> None:
    """--help shows the options and examples, --version what this is; both are no errors."""
    text, errors, code = run("--help")
    assert (errors, code) == ("", 0)
    for option in ("-n", "-V", "-c CLASS", "-s BYTES", "-u", "-d", "--json", "--save DIR", "--port-file FILE"):
        assert option in text
    assert "pytest-smtpd -n -c DebuggingServer localhost:1025" in text
    text, errors, code = run("-V")
    assert text.startswith("pytest-smtpd-server ")
    assert (errors, code) == ("", 0)


# Nobody.


@as_root
def test_root_becomes_nobody(start: Callable[..., Program], tmp_path: Path) -> None:
    """Without -n root becomes nobody once the server listens, and drops its groups; messages come through."""
    tmp_path.chmod(0o755)
    options = ("--json", "--save", "mails", "--port-file", "port", "--tls", "starttls")
    program = start(*options, "127.0.0.1:0", groups=[0, 1])
    send(program.address)
    described = json.loads(program.stdout.readline())
    status = Path(f"/proc/{program.pid}/status").read_text("ascii")
    ids = {name: values.split() for name, _, values in (line.partition(":") for line in status.splitlines())}
    nobody = pwd.getpwnam("nobody")
    assert (ids["Uid"], ids["Gid"]) == ([str(nobody.pw_uid)] * 4, [str(nobody.pw_gid)] * 4)
    assert ids["Groups"] == []
    assert (tmp_path / described["file"]).stat().st_uid == nobody.pw_uid
    assert (tmp_path / "port").stat().st_uid == 0
    assert program.end() == ("", "", 0)


@as_root
def test_nobody_prints_messages(start: Callable[..., Program]) -> None:
    """The debugging server works with the rights of nobody, too."""
    program = start("-c", "DebuggingServer", "127.0.0.1:0")
    send(program.address)
    assert program.end() == (SHOWN, "", 0)


@as_root
def test_nobody_may_not_write_everywhere(tmp_path: Path) -> None:
    """A directory for messages that nobody can't write to is an error at the start, with a hint."""
    tmp_path.chmod(0o755)
    (tmp_path / "mails").mkdir(mode=0o755)
    errors = run("--save", "mails", "--port-file", "port", "127.0.0.1:0", directory=tmp_path)[1]
    error = '--save: mails can\'t be written to by "nobody"; try running with -n option: Permission denied'
    assert errors == f"pytest-smtpd: error: {error}\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "mails"]


# In this process, where it is measured.


def serve_here(monkeypatch: pytest.MonkeyPatch, use: Callable[[tuple[str, int]], object], *arguments: str) -> str:
    """Call `main`, use the server in another thread, and end it; return what came on standard error."""
    read, write = os.pipe()
    with os.fdopen(read) as told:
        lines: list[str] = []

        def be_client() -> None:
            while line := told.readline():
                lines.append(line)
                if line.startswith("Listening on "):
                    host, _, port = line.split()[2].rstrip(";").rpartition(":")
                    try:
                        use((host, int(port)))
                    finally:
                        signal.pthread_kill(main_thread, signal.SIGTERM)

        main_thread = threading.get_ident()
        thread = threading.Thread(target=be_client)
        with os.fdopen(write, "w") as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            thread.start()
            assert main(arguments) == 0
        thread.join()
    return "".join(lines)


def test_main_serves_until_it_is_told_to_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`main` returns 0, with the handler of SIGTERM and the stream for traces that were there before."""
    handler = signal.getsignal(signal.SIGTERM)
    arguments = ["-n", "-d", "--json", "--save", str(tmp_path / "new"), "--port-file", str(tmp_path / "port")]
    told = serve_here(monkeypatch, send, *arguments, "--tls", "starttls", "127.0.0.1:0")
    assert "C: MAIL FROM:<ada@example.org>" in told.replace("from:", "FROM:")  # as smtplib writes it since 3.13
    assert json.loads(capfd.readouterr().out)["file"] == str(tmp_path / "new" / "000001.eml")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert isinstance(smtpd.DEBUGSTREAM, smtpd.Devnull)


def test_main_serves_with_classic_classes(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`main` serves with any class of smtpd's, here with one that answers every message with 451."""

    def fail(address: tuple[str, int]) -> None:
        with pytest.raises(smtplib.SMTPDataError):
            send(address)

    told = serve_here(monkeypatch, fail, "-n", "-c", "SMTPServer", "127.0.0.1:0")
    assert "NotImplementedError" in told
    assert capfd.readouterr().out == ""


def test_main_becomes_nobody(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Without -n `main` looks for nobody, who is the user of this process here."""
    monkeypatch.setattr(Nobody, "find", lambda: Nobody(os.geteuid(), os.getegid()))
    serve_here(monkeypatch, send, "-c", "RecordingServer", "127.0.0.1:0")
    assert capfd.readouterr().out == "from <ada@example.org> to <bob@example.org>: 'Hello'\n"


def test_main_tells_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """`main` ends the program with exit code 2 and a line on standard error."""
    with pytest.raises(SystemExit) as caught:
        main(["-n", "-c", "Nothing"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("pytest-smtpd: error: -c: Nothing is no class")


def test_main_prints_the_cafile(capsys: pytest.CaptureFixture[str]) -> None:
    """--print-cafile prints the path of a certificate, and serves nothing."""
    assert main(["--print-cafile"]) == 0
    assert "BEGIN CERTIFICATE" in Path(capsys.readouterr().out.rstrip("\n")).read_text("ascii")


def test_the_package_can_be_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m pytest_smtpd` is `main`, and so is the console script."""
    monkeypatch.setattr(sys, "argv", ["pytest-smtpd", "-V"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(sys.modules["pytest_smtpd.__main__"].__file__ or "", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("pytest-smtpd-server ")


# Proxies.


def test_the_default_class_hands_messages_on(start: Callable[..., Program]) -> None:
    """Without -c the program is a proxy: what it receives reaches the other server, with an X-Peer."""
    upstream = start("-n", "--json", "127.0.0.1:0")
    proxy = start("-n", "127.0.0.1:0", f"127.0.0.1:{upstream.address[1]}")
    send(proxy.address)
    described = json.loads(upstream.stdout.readline())
    assert (described["mailfrom"], described["rcpttos"]) == ("ada@example.org", ["bob@example.org"])
    assert described["headers"]["x-peer"] == ["127.0.0.1"]
    assert proxy.end() == ("", "", 0)


@as_root
def test_a_proxy_works_as_nobody(start: Callable[..., Program]) -> None:
    """What a proxy imports late is there when it has become nobody."""
    upstream = start("-n", "--json", "127.0.0.1:0")
    proxy = start("127.0.0.1:0", f"127.0.0.1:{upstream.address[1]}")
    send(proxy.address)
    assert json.loads(upstream.stdout.readline())["subject"] == "Hello"
    assert proxy.end() == ("", "", 0)


def test_nobody_has_all_modules() -> None:
    """Before a server becomes nobody, who may not be able to read them, all modules of ours are imported but pytest's."""
    code = """
import os, pkgutil, sys
import pytest_smtpd
from pytest_smtpd.cli.options import Options
from pytest_smtpd.cli.privileges import Nobody
from pytest_smtpd.cli.serving import prepare

prepare(Options(save=None), Nobody(os.geteuid(), os.getegid()))
print({found.name for found in pkgutil.walk_packages(pytest_smtpd.__path__, "pytest_smtpd.")} - sys.modules.keys())
"""
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)  # noqa: S603 - code from here
    left = {name.removeprefix("pytest_smtpd.").partition(".")[0] for name in ast.literal_eval(printed)}
    assert left == {"__main__", "plugin", "suite"}


def test_an_open_relay_is_an_error() -> None:
    """A proxy that strangers could reach is refused in one line."""
    output, errors, code = run("-n", "0.0.0.0:0", "127.0.0.1:25")
    assert (output, code, errors.count("\n")) == ("", 2, 1)
    assert errors.startswith("pytest-smtpd: error: PureProxy: ")
