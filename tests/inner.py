"""Runs of pytest in tests of the plugin, and what the test files that they run have in common."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

# Imported here and not only by the runs in this process, which take back what they have imported.
import pytest_smtpd.testing.recording  # noqa: F401

if TYPE_CHECKING:
    import pytest

#: Stands at the start of each test file that is run.
HELPERS = """\
import contextlib, smtplib, socket, threading, unittest, warnings
import pytest
from pytest_smtpd import RecordingServer

def send(server, subject="Hello"):
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", ["bob@example.org"], f"Subject: {subject}\\r\\n\\r\\n".encode())

def subjects(server):
    return [message.subject for message in server.messages]

class Broken(RecordingServer):
    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        raise LookupError("the hook is broken")

def send_to_broken(server):
    with pytest.raises(smtplib.SMTPDataError):
        send(server)

class Pooled:
    def __init__(self, server):
        self.socket = socket.create_connection(server.address, timeout=10)
        self.replies = self.socket.makefile("rb")
        self.read("220")
        self.ask("EHLO client.example")

    def read(self, code):
        while (reply := self.replies.readline())[3:4] == b"-":
            pass
        assert reply[:3].decode() == code, reply

    def ask(self, line, code="250"):
        self.socket.sendall(line.encode() + b"\\r\\n")
        self.read(code)

    def begin(self):
        self.ask("MAIL FROM:<ada@example.org>")
        self.ask("RCPT TO:<bob@example.org>")

    def end(self, subject="late"):
        self.ask("DATA", "354")
        self.ask(f"Subject: {subject}\\r\\n.")

    def close(self):
        self.replies.close()
        self.socket.close()

@pytest.fixture(scope="session")
def pooled(smtpd_server):
    with contextlib.closing(Pooled(smtpd_server)) as client:
        yield client

@pytest.fixture(scope="session")
def pooled_too(smtpd_server):
    with contextlib.closing(Pooled(smtpd_server)) as client:
        yield client
"""


def run(pytester: pytest.Pytester, tests: str, *arguments: str, subprocess: bool = False) -> pytest.RunResult:
    """Run tests in a directory of their own."""
    pytester.makepyfile(HELPERS + dedent(tests))
    return (pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess)(*arguments)
