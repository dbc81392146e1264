"""The programs that smtpd is known by, as programs: a server of one's own, the debugging server, and their client."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support import RawClient

from pytest_smtpd import smtpd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 30.0

CUSTOM_SERVER = """
    from pytest_smtpd import smtpd

    class CustomSMTPServer(smtpd.SMTPServer):
        def process_message(self, peer, mailfrom, rcpttos, data):
            print('Receiving message from:', peer)
            print('Message addressed from:', mailfrom)
            print('Message addressed to  :', rcpttos)
            print('Message length        :', len(data))
            return

    server = CustomSMTPServer(('127.0.0.1', 0), None)
    print(server.socket.getsockname()[1], flush=True)
    smtpd.loop()
"""

DEBUGGING_SERVER = """
    from pytest_smtpd import smtpd

    server = smtpd.DebuggingServer(('127.0.0.1', 0), None)
    print(server.socket.getsockname()[1], flush=True)
    smtpd.loop()
"""

CLIENT = """
    import email.utils
    import smtplib
    import sys
    from email.mime.text import MIMEText

    msg = MIMEText('This is the body of the message.')
    msg['To'] = email.utils.formataddr(('Recipient', 'recipient@example.com'))
    msg['From'] = email.utils.formataddr(('Author', 'author@example.com'))
    msg['Subject'] = 'Simple test message'

    server = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), local_hostname='client.example')
    print(server.sock.getsockname()[1])
    try:
        server.sendmail('author@example.com', ['recipient@example.com'], msg.as_string())
    finally:
        server.quit()
"""

CUSTOM_OUTPUT = """\
Receiving message from: ('127.0.0.1', {port})
Message addressed from: author@example.com
Message addressed to  : ['recipient@example.com']
Message length        : 229
"""

DEBUGGING_OUTPUT = """\
---------- MESSAGE FOLLOWS ----------
Content-Type: text/plain; charset="us-ascii"
MIME-Version: 1.0
Content-Transfer-Encoding: 7bit
To: Recipient <recipient@example.com>
From: Author <author@example.com>
Subject: Simple test message
X-Peer: 127.0.0.1

This is the body of the message.
------------ END MESSAGE ------------
"""


class Program:
    """A server program that runs: it says its port in its first line."""

    def __init__(self, source: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def interrupt(self) -> tuple[str, str, int]:
        """Press Ctrl-C; return standard output, standard error and the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> tuple[str, str, int]:
        """Wait for its end; return standard output, standard error and the exit code."""
        output, errors = self._process.communicate(timeout=DEADLINE)
        return output, errors, self._process.returncode

    def end(self) -> None:
        """End the process, if it runs, and close its pipes."""
        self._process.kill()
        with self._process:
            pass


@pytest.fixture
def start() -> Iterator[Callable[[str], Program]]:
    """Start programs, and end them after the test."""
    with contextlib.ExitStack() as stack:

        def start(source: str) -> Program:
            program = Program(source)
            stack.callback(program.end)
            return program

        yield start


def send(program: Program) -> int:
    """Run the client program, and return the port that it had."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(CLIENT), str(program.port)]
    client = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)  # noqa: S603
    assert (client.stderr, client.returncode) == ("", 0)
    return int(client.stdout)


def send_raw(program: Program) -> list[str]:
    """Send a message of one octet, and return the replies to its commands and content."""
    with RawClient(("127.0.0.1", program.port)) as client:
        client.read_reply()
        return [client.ask(command) for command in ("HELO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "x\r\n.")]


def test_a_server_of_ones_own_prints_the_envelope(start: Callable[[str], Program]) -> None:
    """The custom server prints peer, sender, recipients and the length 229, and Ctrl-C ends it with exit code 0."""
    program = start(CUSTOM_SERVER)
    port = send(program)
    assert program.interrupt() == (CUSTOM_OUTPUT.format(port=port), "", 0)


def test_the_debugging_server_prints_the_message(start: Callable[[str], Program]) -> None:
    """DebuggingServer prints the message with X-Peer for the last header, and Ctrl-C ends it with exit code 0."""
    program = start(DEBUGGING_SERVER)
    send(program)
    assert program.interrupt() == (DEBUGGING_OUTPUT, "", 0)


def test_a_server_serves_one_client_after_the_other(start: Callable[[str], Program]) -> None:
    """Each message is printed, in the order in which they came."""
    program = start(CUSTOM_SERVER)
    ports = [send(program), send(program)]
    assert program.interrupt()[0] == "".join(CUSTOM_OUTPUT.format(port=port) for port in ports)


def test_ctrl_c_tells_those_who_are_connected(start: Callable[[str], Program]) -> None:
    """Ctrl-C ends the program without a traceback while clients are connected, who get a 421."""
    program = start(DEBUGGING_SERVER)
    with RawClient(("127.0.0.1", program.port)) as client:
        assert client.read_reply().startswith("220 ")
        assert program.interrupt() == ("", "", 0)
        assert client.read_reply().startswith("421 ")
        assert client.read_reply() == ""


INTERRUPTED_FROM_A_THREAD = """
    import signal
    import socket
    import sys
    import threading
    import time

    from pytest_smtpd import smtpd

    server = smtpd.DebuggingServer(('127.0.0.1', 0), None)
    print(server.socket.getsockname()[1], flush=True)

    def interrupt():
        with socket.create_connection(server.socket.getsockname()[:2]) as client:
            client.recv(1024)  # the greeting
            # Threads switch only where one blocks: what is seen in there is in its system call.
            while sys._current_frames()[threading.main_thread().ident].f_code.co_name != '_poll_in_main_thread':
                time.sleep(0)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            client.recv(1024)  # 421

    sys.setswitchinterval(1000)
    thread = threading.Thread(target=interrupt)
    thread.start()
    smtpd.loop(timeout=3600)
    thread.join()
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system can't send signals to threads")
def test_ctrl_c_that_interrupts_no_system_call_is_noticed(start: Callable[[str], Program]) -> None:
    """A signal that another thread got, or that came just before the main thread waits, ends the program at once."""
    assert start(INTERRUPTED_FROM_A_THREAD).wait() == ("", "", 0)


def test_ctrl_c_shows_what_a_hook_has_raised(start: Callable[[str], Program]) -> None:
    """What process_message has raised ends the program with its traceback when Ctrl-C closes the server."""
    program = start(CUSTOM_SERVER.replace("return", "raise RuntimeError('in the hook')"))
    assert send_raw(program)[-1].startswith("451 ")
    output, errors, code = program.interrupt()
    assert "Message length        : 1\n" in output
    assert "RuntimeError: in the hook" in errors
    assert code == 1


# What the debugging server prints of other messages.


PRINTED = {
    "mail options": (
        {},
        "MAIL FROM:<a@b> SIZE=1 body=8bitmime",
        b"Subject: x\r\n\r\nhello",
        "mail options: ['BODY=8BITMIME']\nSubject: x\nX-Peer: 127.0.0.1\n\nhello\n",
    ),
    "no options but SIZE": ({}, "MAIL FROM:<a@b> SIZE=1", b"A: b\r\n\r\nc", "A: b\nX-Peer: 127.0.0.1\n\nc\n"),
    "headers alone": ({}, "MAIL FROM:<a@b>", b"Subject: x", "Subject: x\n"),
    "no headers": ({}, "MAIL FROM:<a@b>", b"\r\nhello\r\n\r\nbye", "X-Peer: 127.0.0.1\n\nhello\n\nbye\n"),
    "nothing": ({}, "MAIL FROM:<a@b>", b"", ""),
    "empty lines at the end": ({}, "MAIL FROM:<a@b>", b"A: b\r\n\r\nc\r\n\r\n", "A: b\nX-Peer: 127.0.0.1\n\nc\n\n"),
    "UTF-8": ({}, "MAIL FROM:<a@b>", b"A: b\r\n\r\njos\xc3\xa9", "A: b\nX-Peer: 127.0.0.1\n\njosé\n"),
    "no UTF-8": ({}, "MAIL FROM:<a@b>", b"A: b\r\n\r\njos\xe9", "A: b\nX-Peer: 127.0.0.1\n\njos\\xe9\n"),
    "text": (
        {"decode_data": True},
        "MAIL FROM:<a@b> SIZE=1",
        b"A: b\r\n\r\njos\xc3\xa9\r\n\r\nc",
        "A: b\nX-Peer: 127.0.0.1\n\njosé\n\nc\n",
    ),
}


@pytest.mark.parametrize(("options", "mail", "content", "printed"), PRINTED.values(), ids=PRINTED)
def test_the_debugging_server_prints(
    capsys: pytest.CaptureFixture[str], options: dict[str, bool], mail: str, content: bytes, printed: str
) -> None:
    """DebuggingServer prints parameters but for SIZE, X-Peer where headers end, and what is no UTF-8 escaped."""
    server = smtpd.DebuggingServer(("127.0.0.1", 0), None, map={}, **options)
    with server, RawClient(server.socket.getsockname()) as client:
        client.read_reply()
        for command in ("EHLO x", mail, "RCPT TO:<c@d>", "DATA"):
            client.ask(command)
        client.send(content + b"\r\n.\r\n" if content else b".\r\n")
        assert client.read_reply() == "250 OK"
    expected = f"---------- MESSAGE FOLLOWS ----------\n{printed}------------ END MESSAGE ------------\n"
    assert capsys.readouterr().out == expected


def test_the_debugging_server_prints_the_parameters_of_rcpt(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters of RCPT, where an extension brings some, are printed with an empty line behind them."""
    server = smtpd.DebuggingServer(("127.0.0.1", 0), None, map={})
    server.process_message(("192.0.2.1", 1), "a@b", ["c@d"], b"A: b\n\nc", rcpt_options=["NOTIFY=NEVER"])
    server.close()
    assert capsys.readouterr().out.splitlines()[1:5] == [
        "rcpt options: ['NOTIFY=NEVER']",
        "",
        "A: b",
        "X-Peer: 192.0.2.1",
    ]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", rb"jos\xe9 \u20ac \U0001f40d \xff"), ("latin-1", b"jos\xe9 \\u20ac \\U0001f40d \\xff")],
)
def test_the_debugging_server_prints_on_any_terminal(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes
) -> None:
    """What standard output has no encoding for is printed escaped, and the message is accepted."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, newline="\n"))
    server = smtpd.DebuggingServer(("127.0.0.1", 0), None, map={})
    server.process_message(("192.0.2.1", 1), "a@b", ["c@d"], "josé € 🐍 ".encode() + b"\xff")
    server.close()
    assert output.getvalue().splitlines()[1] == shown


def test_messages_are_printed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that several servers print at the same time stay whole, each behind the other."""

    class Terminal(io.StringIO):
        """Takes its time, so that others may come in between."""

        def write(self, text: str) -> int:
            half = len(text) // 2
            super().write(text[:half])
            time.sleep(0)
            return super().write(text[half:])

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())

    def print_some(letter: bytes) -> None:
        server = smtpd.DebuggingServer(("127.0.0.1", 0), None, map={})
        for _ in range(50):
            server.process_message(("192.0.2.1", 1), "a@b", ["c@d"], letter * 100)
        server.close()

    threads = [threading.Thread(target=print_some, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = terminal.getvalue().splitlines()
    assert set(lines[::3]) == {"---------- MESSAGE FOLLOWS ----------"}
    assert set(lines[1::3]) == {"a" * 100, "b" * 100, "c" * 100}
    assert len(lines) == 450
