"""Rules in tests: one that never applied fails its test, and no rule outlives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SEND = """
import smtplib
import pytest

def send(server):
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", "bob@example.org", "Subject: Hello\\r\\n\\r\\n")
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Return a function that runs these tests, which can send."""

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=SEND + source)
        return pytester.runpytest_inprocess("-W", "error", *arguments)

    return run


UNUSED = """
def test_unused(smtpd_server):
    smtpd_server.on("RCPT", rcpttos="eve@example.org").reject()
    send(smtpd_server)

def test_next(smtpd_server):
    assert not smtpd_server.rules
    send(smtpd_server)
"""


def test_a_rule_that_never_applied_fails_the_test(run: Callable[..., pytest.RunResult]) -> None:
    """The failure names the rule and where it was given; the next test has no rules."""
    result = run(UNUSED)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines(
        [
            r"Rules that have never applied: 1",
            r"  on\('RCPT', rcpttos='eve@example.org'\).reject\(\): 0 times \(.*test_it.py:9\)",
            r"@pytest.mark.smtpd_server: allow_unused_rules=True lets the test pass",
        ]
    )
    result.stdout.no_fnmatch_line("*plugin.py*")


def test_a_rule_of_another_server_counts_as_well(run: Callable[..., pytest.RunResult]) -> None:
    """Servers that were made for the test have their rules looked at, too."""
    run(
        """
        def test_unused(make_smtpd_server):
            make_smtpd_server().on("RCPT").reject()
        """.replace("\n        ", "\n")
    ).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        (UNUSED.replace("def test_unused", "@pytest.mark.smtpd_server(allow_unused_rules=True)\ndef test_unused"), ()),
        (UNUSED, ("-o", "smtpd_server_allow_unused_rules=true")),
    ],
    ids=["marker", "ini-file"],
)
def test_unused_rules_may_be_allowed(
    run: Callable[..., pytest.RunResult], source: str, arguments: tuple[str, ...]
) -> None:
    """The marker and the ini-file have the switch."""
    run(source, *arguments).assert_outcomes(passed=2)


def test_a_test_that_has_failed_is_not_told_twice(run: Callable[..., pytest.RunResult]) -> None:
    """A test that fails by itself has its own failure; its report has the rules, and the seed of chances."""
    result = run(
        """
def test_failure(smtpd_server):
    smtpd_server.on("DATA").reject()
    smtpd_server.on("RCPT", probability=1e-9, seed=42).reject()
    assert False
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*assert False*", "Rules: 2", "  on('DATA').reject(): 0 times*", "*probability=1e-09, seed=42*"]
    )
    result.stdout.no_fnmatch_line("*never applied*")


def test_who_hangs_is_let_go_by_the_next_test(run: Callable[..., pytest.RunResult]) -> None:
    """A client that waits for a rule hears of the end of its test when the next one begins."""
    run(
        """
@pytest.fixture(scope="module")
def client():
    return []

def test_hang(smtpd_server, client):
    rule = smtpd_server.on("NOOP").hold()
    client.append(smtplib.SMTP(*smtpd_server.address))
    client[0].putcmd("NOOP")
    assert rule.reached.wait(10)

def test_next(smtpd_server, client):
    assert client[0].getreply() == (421, b"4.3.2 Service not available, the test has ended")
    client[0].close()
        """
    ).assert_outcomes(passed=2)
