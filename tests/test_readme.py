"""The README is true: its code runs."""

from __future__ import annotations

import ast
import base64
import inspect
import json
import re
import smtplib
import sys
from pathlib import Path

import pytest

from pytest_smtpd import RecordingServer
from pytest_smtpd.cli.output import SAMPLE, describe

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
TEXT = [code for language, code in BLOCKS if language == "text"]
CONSOLE = [code for language, code in BLOCKS if language == "console"]
JSON = [code for language, code in BLOCKS if language == "json"]
PYTHON = [code for language, code in BLOCKS if language == "python"]

#: What the README's examples call without showing it.
CONFTEST = """
import smtplib
import pytest

@pytest.fixture
def send(smtpd_server):
    def send(mailfrom, rcpttos, subject):
        with smtplib.SMTP(*smtpd_server.address) as client:
            client.sendmail(mailfrom, rcpttos, f"Subject: {subject}\\r\\n\\r\\nHello\\r\\n")
    return send
"""


@pytest.mark.parametrize("code", [code for code in PYTHON if "def test_" in code])
def test_examples_of_tests_pass(pytester: pytest.Pytester, code: str) -> None:
    """Each test that the README shows passes."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(code)
    tests = code.count("def test_")
    pytester.runpytest_inprocess("-W", "error").assert_outcomes(passed=tests)


@pytest.mark.parametrize("code", [code for code in PYTHON if "def test_" not in code])
def test_programs_run(pytester: pytest.Pytester, code: str) -> None:
    """Each program that the README shows runs to its end without an error."""
    result = pytester.runpython(pytester.makepyfile(code))
    assert result.ret == 0
    result.stderr.no_fnmatch_line("*")


def test_the_failure_is_as_shown(pytester: pytest.Pytester) -> None:
    """The failure that the README shows is what a failed assertion says, to the letter."""
    [shown] = [code for code in TEXT if code.startswith("expected")]
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        def test_failure(smtpd_server, send):
            send("noreply@example.org", ["ada@example.org"], "Welcome")
            send("noreply@example.org", ["eve@example.org"], "Goodbye")
            smtpd_server.assert_received(rcpttos="eve@example.org", subject="Welcome")
        """
    )
    output = pytester.runpytest_inprocess().stdout.str()
    said = "\n".join(re.sub(r"^E +(AssertionError: )?", "", line) for line in output.splitlines() if line[:1] == "E")
    assert re.sub(r"^ +", "", shown, flags=re.MULTILINE).strip() == said


def test_the_dialogue_is_as_shown() -> None:
    """The dialogue that the README shows is what `message.dialogue` prints, to the letter."""
    [shown] = [code for code in TEXT if code.startswith("S: 220")]
    hidden = ["8BITMIME", "PIPELINING", "CHUNKING", "DSN", "HELP"]
    with RecordingServer(hide=hidden, users={"ada": "secret"}) as server:
        client = smtplib.SMTP(*server.address, local_hostname="client.example")
        client.login("ada", "secret")
        client.does_esmtp = False  # so that smtplib sends no SIZE
        client.sendmail("ada@example.org", "bob@example.org", "Subject: Hi\r\n\r\nHello Bob, it works!\r\n")
        client.quit()
    said = str(server.messages.one().dialogue)
    # smtplib writes "from:" since Python 3.13.
    assert said.replace("from:", "FROM:").replace("to:", "TO:") == shown.strip()


def test_the_options_are_all_of_them() -> None:
    """The README's table of options has each option of RecordingServer with its default, and no others."""
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)?) \| (`[^|]+`) \|", README.read_text("utf-8"), re.MULTILINE)
    documented = {
        name: ast.literal_eval(default)
        for names, defaults in rows
        for name, default in zip(names.strip("`").split("`, `"), defaults.strip("`").split("`, `"), strict=True)
    }
    parameters = inspect.signature(RecordingServer).parameters.values()
    assert documented == {parameter.name: parameter.default for parameter in parameters}


#: The rows of the table for who comes from smtpd: the name, and the code that works now.
MIGRATION = {
    name: "\n".join(re.findall(r"`([^`]+)`", now))
    for name, now in re.findall(r"^\| (\w[\w ]*) \| `.*` \| (`.*`) \|$", README.read_text("utf-8"), re.MULTILINE)
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
