"""The README is true: its code runs."""

from __future__ import annotations

import ast
import inspect
import re
import smtplib

import pytest
from readme import BLOCKS, README

from pytest_smtpd import RecordingServer
from pytest_smtpd.testing.options import KINDS, Configuration

TEXT = [code for language, code in BLOCKS if language == "text"]
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
    outcomes = pytester.runpytest_inprocess("-W", "error").parseoutcomes()
    assert outcomes.keys() <= {"passed"}
    assert outcomes["passed"] >= tests  # more where one is parametrized


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


def test_the_section_of_a_failed_test_is_as_shown(pytester: pytest.Pytester) -> None:
    """The section that the README shows is what a failed test is told, but for its times and ports."""
    [shown] = [code for code in TEXT if code.startswith("-----")]
    hidden = ["8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN", "HELP"]
    pytester.makepyfile(f"""
        import smtplib, pytest

        @pytest.mark.smtpd_server(hide={hidden})
        def test_failure(smtpd_server):
            with smtplib.SMTP(*smtpd_server.address, local_hostname="client.example") as client:
                client.ehlo()
                client.does_esmtp = False  # so that smtplib sends no SIZE
                client.sendmail("noreply@example.org", "ada@example.org", "Subject: Welcome\\r\\n\\r\\nHello")
            assert not smtpd_server.messages
    """)
    output = pytester.runpytest_inprocess().stdout.str().replace("from:", "FROM:").replace("to:", "TO:")
    text = r"-+( SMTP server .*? )-+\n(.*? Bye\n)"
    [said, expected] = [re.search(text, source, re.DOTALL) for source in (output, shown)]
    assert said
    assert expected
    assert [_without_numbers(part) for part in said.groups()] == [_without_numbers(part) for part in expected.groups()]


def _without_numbers(text: str) -> str:
    return re.sub(r"(?<=127\.0\.0\.1:)\d+|(?<=    )0\.\d+", "N", text)


@pytest.mark.parametrize(("language", "file"), [("toml", "pyproject.toml"), ("ini", "pytest.ini")])
def test_configurations_are_valid(pytester: pytest.Pytester, language: str, file: str) -> None:
    """Each configuration that the README shows is one that pytest takes, and the server with it."""
    [shown] = [code for other, code in BLOCKS if other == language]
    pytester.path.joinpath(file).write_text(shown, "utf-8")
    pytester.makepyfile("def test_server(smtpd_server): pass")
    pytester.runpytest_inprocess("--strict-config").assert_outcomes(passed=1)


def test_the_options_are_all_of_them() -> None:
    """The README's table of options has each option of RecordingServer with its default, and no others."""
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)?) \| (`[^|]+`) \|", README.read_text("utf-8"), re.MULTILINE)
    documented = {
        name: ast.literal_eval(default)
        for names, defaults in rows
        for name, default in zip(names.strip("`").split("`, `"), defaults.strip("`").split("`, `"), strict=True)
    }
    parameters = inspect.signature(RecordingServer).parameters.values()
    address = {parameter.name: parameter.default for parameter in parameters if parameter.name != "options"}
    options = {name: getattr(Configuration, name) for name in KINDS}
    assert documented == address | options
