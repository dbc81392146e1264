"""The README is true: its command lines run, and so does what replaces smtpd's programs."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import pytest

from pytest_smtpd.cli.output import SAMPLE, describe

TEXT = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
CONSOLE = re.findall(r"^```console\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
JSON = re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

#: The rows of the table for who comes from smtpd: the name, and the code that works now.
MIGRATION = {
    name: "\n".join(re.findall(r"`([^`]+)`", now))
    for name, now in re.findall(r"^\| (\w[\w ]*) \| `.*` \| (`.*`) \|$", TEXT, re.MULTILINE)
    if name in {"thread", "loop", "unittest", "command line", "aiosmtpd"}
}

#: What the code in that table is embedded in; `...` stands for the use of the server.
PROGRAM = """
import smtplib
import threading
import unittest
from pytest_smtpd import smtpd

received = []

class Server(smtpd.SMTPServer):
    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        received.append(mailfrom)

def use(server):
    with smtplib.SMTP(*server.socket.getsockname()) as client:
        client.sendmail("ada@example.org", "bob@example.org", "Hello")

{code}

assert received == ["ada@example.org"], received
assert threading.active_count() == 1
"""
MIGRATED = {
    "thread": 'server = Server(("127.0.0.1", 0), None)\n{}',
    "loop": """
server = Server(("127.0.0.1", 0), None)
client = threading.Thread(target=use, args=(server,))
client.start()
def done():
    return not client.is_alive()
{}
smtpd.close_all()
""",
    "unittest": """
class Test(unittest.TestCase):
    {}
    def test(self):
        use(self.server)
unittest.main(exit=False)
""",
    "aiosmtpd": "{}",
}


def test_the_table_for_who_comes_from_smtpd_is_complete() -> None:
    """The five ways in which smtpd was used have a row each."""
    assert [*MIGRATION] == ["thread", "loop", "unittest", "command line", "aiosmtpd"]


@pytest.mark.parametrize("name", MIGRATED)
def test_what_replaces_smtpd_runs(pytester: pytest.Pytester, name: str) -> None:
    """The code that the table gives in place of smtpd's receives a message, and leaves no thread."""
    code = MIGRATION[name].replace("...", "use(server)").replace("8025", "0")
    indent = "\n    " if name == "unittest" else "\n"
    code = MIGRATED[name].format(code.replace("\n", indent))
    result = pytester.runpython(pytester.makepyfile(PROGRAM.format(code=code)))
    assert result.ret == 0, result.stderr.str()


COMMANDS = [line.removeprefix("$ ") for code in CONSOLE for line in code.splitlines()] + [MIGRATION["command line"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(pytester: pytest.Pytester, command: str) -> None:
    """Each command line that the README shows, on a free port, serves until SIGTERM."""
    _, _, arguments = command.replace(":1025", ":0").partition(" -n ")
    process = pytester.popen(
        [sys.executable, "-W", "error", "-m", "pytest_smtpd", "-n", *arguments.split()], stdin=pytester.CLOSE_STDIN
    )
    with process:
        assert process.stderr.readline().startswith(b"Listening on ")
        process.terminate()
        assert process.wait() == 0


def test_the_line_of_json_is_as_shown() -> None:
    """The line of JSON that the README shows has the keys that lines have, in their order, and such values."""
    [shown] = map(json.loads, JSON)
    described = describe(SAMPLE)
    assert list(shown) == list(described)
    for key, value in described.items():
        assert value is None or type(value) is type(shown[key])
    assert base64.b64decode(shown["data"]) == b"Subject: Hi\r\n\r\nHello\r\n"
