"""The README is true: its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]

#: What the README's examples call without showing it.
CONFTEST = '''
import smtplib
import pytest

@pytest.fixture
def send(smtpd_server):
    def send(mailfrom, rcpttos, subject):
        with smtplib.SMTP(*smtpd_server.address) as client:
            client.sendmail(mailfrom, rcpttos, f"Subject: {subject}\\r\\n\\r\\nHello\\r\\n")
    return send
'''


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
    [shown] = [code for language, code in BLOCKS if language == "text"]
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


def test_the_options_are_all_of_them() -> None:
    """The README's table of options names each option of RecordingServer with its default."""
    import inspect

    from pytest_smtpd import RecordingServer

    text = README.read_text("utf-8")
    for name, parameter in inspect.signature(RecordingServer).parameters.items():
        assert f"`{name}`" in text
        assert parameter.default is not parameter.empty
