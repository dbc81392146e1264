"""What a failed test is told of its servers, and who is blamed for the exceptions of hooks."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree as ET

import pytest
from inner import run

#: The title of a section.
SECTION = "*SMTP server smtp://127.0.0.1:*"


def test_a_failure_shows_the_users_line_and_what_came(pytester: pytest.Pytester) -> None:
    """A failed assertion points at the line of the test, not into the plugin, and shows the explanation."""
    tests = """
        def test_mail(smtpd_server):
            send(smtpd_server, "Hello")
            smtpd_server.assert_received(subject="Goodbye")

        def test_none(smtpd_server):
            smtpd_server.assert_not_received()
            smtpd_server.messages.one()
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            '>*smtpd_server.assert_received(subject="Goodbye")',
            "E *AssertionError: expected exactly one message with subject='Goodbye', found none",
            "E *Messages received: 1",
            "E *[[]0[]] from <ada@example.org> to <bob@example.org>: 'Hello'",
            "E *subject: expected 'Goodbye', got 'Hello'",
            ">*smtpd_server.messages.one()",
            "E *AssertionError: expected exactly one message, found none",
            "E *The server has received no message.",
        ]
    )
    result.stdout.no_fnmatch_line("*recording.py*")
    result.stdout.no_fnmatch_line("*outbox.py*")


@pytest.mark.parametrize(
    ("comparison", "lines"),
    [
        (
            "first == second",
            [
                "E *assert Message from <ada@example.org> to * == Message from *",
                "E *headers[[]'Subject'[]]: expected 'two', got 'one'",
            ],
        ),
        ("first.rcpttos == ['eve@example.org']", ["E *missing: 'eve@example.org'", "E *unexpected: 'bob@example.org'"]),
        ("['eve@example.org'] == first.rcpttos", ["E *missing: 'eve@example.org'", "E *unexpected: 'bob@example.org'"]),
        ("['other@example.org'] == ['bob@example.org']", ["E *At index 0 diff: *"]),
        ("first.rcpttos == ['bob@EXAMPLE.org']", ["E *the same mailbox, but == compares the spelling"]),
        ("first.rcpttos == 'bob@example.org'", ["E *assert [[]'bob@example.org'[]] == 'bob@example.org'"]),
        ("first.rcpttos == [1]", ["E *At index 0 diff: 'bob@example.org' != 1"]),
        ("first.mail_options == ['BODY=7BIT']", ["E *At index 0 diff: *"]),
        ("first.rcpttos != ['bob@example.org']", ["E *assert [[]'bob@example.org'[]] != [[]'bob@example.org'[]]"]),
    ],
)
def test_comparisons_are_explained(pytester: pytest.Pytester, comparison: str, lines: list[str]) -> None:
    """A failed `==` of messages says in what they differ, one of recipients which are missing and unexpected; others stay."""
    tests = f"""
        def test_mail(smtpd_server):
            send(smtpd_server, "one")
            send(smtpd_server, "two")
            first, second = smtpd_server.messages
            assert {comparison}

        def test_other():
            assert [1] == [2]
    """
    result = run(pytester, tests, "-v")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(lines)
    result.stdout.fnmatch_lines(["E *At index 0 diff: 1 != 2"])


# The section.


def test_a_failed_test_shows_messages_and_dialogues(pytester: pytest.Pytester) -> None:
    """The report of a failed test has the messages and who said what, and when, with content shortened, secrets masked."""
    tests = """
        @pytest.mark.smtpd_server(users={"ada": "secret"})
        def test_mail(smtpd_server):
            with smtplib.SMTP(*smtpd_server.address) as client:
                client.login("ada", "secret")
                client.sendmail("ada@example.org", ["bob@example.org"], "Subject: Hello\\r\\n\\r\\nContent\\r\\n")
            assert smtpd_server.messages[0].subject == "Goodbye"
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*SMTP server smtp://127.0.0.1:* -*",
            "Messages received: 1",
            "  [[]0[]] from <ada@example.org> to <bob@example.org>: 'Hello'",
            "Dialogue with 127.0.0.1:*:",
            " *0.0?? S: 220 localhost ESMTP*",
            " *0.0?? C: EHLO *",
            " *0.0?? C: AUTH PLAIN [*][*][*][*]",
            " *0.0?? S: 235 2.7.0 Authentication successful",
            " *0.0?? C: (* octets of content)",
            " *0.0?? S: 221 2.0.0 Bye",
        ]
    )
    result.stdout.no_fnmatch_line("*C: *Content*")
    assert len(re.findall("SMTP server smtp:", result.stdout.str())) == 1


QUIET = {
    "passed": "",
    "skipped": "pytest.skip('not now')",
    "xfailed": "pytest.xfail('known')",
    "xpassed": "pass",
}


@pytest.mark.parametrize("outcome", QUIET)
def test_other_outcomes_show_nothing(pytester: pytest.Pytester, outcome: str) -> None:
    """Tests that pass, are skipped or fail as expected show no dialogue, not even with -rA."""
    tests = f"""
        {"@pytest.mark.xfail" if outcome == "xpassed" else ""}
        def test_mail(smtpd_server):
            send(smtpd_server)
            {QUIET[outcome]}
    """
    result = run(pytester, tests, "-rA")
    assert result.parseoutcomes() == {outcome: 1}
    result.stdout.no_fnmatch_line(SECTION)


def test_a_strict_xfail_that_passes_shows_it(pytester: pytest.Pytester) -> None:
    """A test that should have failed, and did not, is told what happened."""
    tests = """
        @pytest.mark.xfail(strict=True, reason="known")
        def test_mail(smtpd_server):
            send(smtpd_server)
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*", SECTION, "Messages received: 1"])


@pytest.mark.parametrize("phase", ["setup", "call", "teardown"])
def test_each_phase_that_fails_shows_it(pytester: pytest.Pytester, phase: str) -> None:
    """Whichever phase of a test fails, its report has the section."""
    tests = f"""
        PHASE = "{phase}"

        @pytest.fixture
        def phases(smtpd_server):
            send(smtpd_server)
            assert PHASE != "setup"
            yield
            assert PHASE != "teardown"

        def test_mail(phases):
            assert PHASE != "call"
    """
    result = run(pytester, tests)
    assert result.parseoutcomes() == {
        "setup": {"errors": 1}, "call": {"failed": 1}, "teardown": {"passed": 1, "errors": 1}
    }[phase]  # fmt: skip
    result.stdout.fnmatch_lines([SECTION, "Messages received: 1"])


def test_a_test_that_used_no_server_shows_nothing(pytester: pytest.Pytester) -> None:
    """A failed test that has nothing to do with mail shows no section, even if the server runs."""
    tests = """
        def test_mail(smtpd_server):
            send(smtpd_server)

        def test_other():
            assert 1 == 2
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line(SECTION)


def test_a_failure_without_any_server_imports_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no test has used a server, a failure is reported as without the plugin, and none of our modules imported."""
    recording = "pytest_smtpd.testing.recording"
    monkeypatch.delitem(sys.modules, recording)
    pytester.makepyfile(f"""
        import sys

        def test_other():
            assert {recording!r} in sys.modules
    """)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line(SECTION)


def test_a_test_that_asked_for_the_server_learns_that_nobody_came(pytester: pytest.Pytester) -> None:
    """Where a failed test has asked for the server and no client has connected, the section says so."""
    result = run(pytester, "def test_mail(smtpd_server):\n    assert smtpd_server.messages\n")
    result.stdout.fnmatch_lines([SECTION, "The server has received no message.", "No client has connected to smtp://*"])


def test_each_server_of_a_test_has_its_section(pytester: pytest.Pytester) -> None:
    """The session's server, those of `make_smtpd_server` and those of the user's fixtures are all shown, each once."""
    tests = """
        @pytest.fixture
        def own():
            with RecordingServer() as server:
                yield server

        @pytest.fixture
        def alias(own):
            return own

        def test_mail(smtpd_server, make_smtpd_server, own, alias):
            send(smtpd_server, "one")
            send(make_smtpd_server(), "two")
            send(own, "three")
            make_smtpd_server()
            assert 1 == 2
    """
    result = run(pytester, tests)
    nobody = "No client has connected to *"
    result.stdout.fnmatch_lines([SECTION, "*'one'", SECTION, "*'two'", SECTION, nobody, SECTION, "*'three'"])
    assert len(re.findall("SMTP server smtp:", result.stdout.str())) == 4


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--tb=short"], True),
        (["--tb=native"], True),
        (["--tb=long", "-x"], True),
        (["--show-capture=no", "-p", "no:logging", "--capture=no"], True),
        (["-n", "1"], True),
        (["--tb=no"], False),
    ],
    ids=["short", "native", "long", "no capture", "xdist", "no"],
)
@pytest.mark.parametrize("failure", ["assert 1 == 2", "pytest.fail('No', pytrace=False)"])
def test_options_of_reporting(pytester: pytest.Pytester, arguments: list[str], failure: str, shown: bool) -> None:  # noqa: FBT001 - a parameter
    """The section is part of the traceback: it is shown where tracebacks are, and not where they aren't."""
    tests = f"""
        def test_mail(smtpd_server):
            send(smtpd_server)
            {failure}
    """
    result = run(pytester, tests, *arguments)
    result.assert_outcomes(failed=1)
    (
        result.stdout.fnmatch_lines([SECTION, "Messages received: 1"])
        if shown
        else result.stdout.no_fnmatch_line(SECTION)
    )


def test_a_test_that_failed_runs_again_by_itself(pytester: pytest.Pytester) -> None:
    """With `--lf`, the section of a failed test tells of that test only, be it the first that runs."""
    tests = """
        def test_one(smtpd_server):
            send(smtpd_server, "one")

        def test_two(smtpd_server):
            send(smtpd_server, "two")
            assert 1 == 2
    """
    run(pytester, tests).assert_outcomes(passed=1, failed=1)
    result = pytester.runpytest_inprocess("--lf")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([SECTION, "Messages received: 1"])


@pytest.mark.parametrize("failure", ["assert 1 == 2", "pytest.fail('No', pytrace=False)"])
def test_junit_xml_has_it(pytester: pytest.Pytester, failure: str) -> None:
    """The failure in JUnit's XML has the section, and that of a test that passed nothing."""
    tests = f"""
        def test_mail(smtpd_server):
            send(smtpd_server)
            {failure}

        def test_passes(smtpd_server):
            send(smtpd_server)
    """
    run(pytester, tests, "--junit-xml=report.xml").assert_outcomes(failed=1, passed=1)
    text = pytester.path.joinpath("report.xml").read_text("utf-8")
    [failed] = ET.fromstring(text).iter("failure")  # noqa: S314 - pytest wrote it
    assert (
        "c: mail from:<ada@example.org>" in (failed.text or "").casefold()
    )  # smtplib writes "from:" since Python 3.13
    assert text.count("S: 220 ") == 1


def test_unittest_and_doctest_have_it(pytester: pytest.Pytester) -> None:
    """Failures of a `unittest.TestCase` and of a doctest have the section, too."""
    pytester.maketxtfile(
        test_doc="""
        >>> import smtplib
        >>> with smtplib.SMTP(*getfixture("smtpd_server").address) as client:
        ...     client.noop()
    """
    )
    tests = """
        class TestMail(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _server(self, smtpd_server):
                self.server = smtpd_server

            def test_one(self):
                send(self.server)
                self.assertEqual(1, 2)
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*test_doc.txt:*", "SMTP server smtp://*", "* C: NOOP"])
    result.stdout.fnmatch_lines(["*AssertionError: 1 != 2", SECTION, "Messages received: 1"])


def test_items_that_are_no_functions(pytester: pytest.Pytester) -> None:
    """Items of other plugins, which have no fixtures, run and fail as ever, while the server runs, too."""
    pytester.makeconftest("""
        import pytest

        class Item(pytest.Item):
            def runtest(self):
                assert self.name == "good"

        class File(pytest.File):
            def collect(self):
                return [Item.from_parent(self, name=name) for name in ("good", "bad")]

        def pytest_collect_file(file_path, parent):
            return File.from_parent(parent, path=file_path) if file_path.suffix == ".custom" else None
    """)
    pytester.makefile(".custom", test_a="", test_z="")
    result = run(pytester, "def test_mail(smtpd_server):\n    send(smtpd_server)\n")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.no_fnmatch_line(SECTION)


# Exceptions of hooks.


def test_a_broken_hook_fails_the_test_that_used_it(pytester: pytest.Pytester) -> None:
    """An exception of `process_message` fails the test that would have passed, with its traceback, once."""
    tests = """
        def test_mail(make_smtpd_server):
            send_to_broken(make_smtpd_server(Broken))

        def test_next(make_smtpd_server, smtpd_server):
            send(smtpd_server)
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        ['>*raise LookupError("the hook is broken")', "E *LookupError: the hook is broken", SECTION]
    )
    assert result.stdout.str().count("raise LookupError") == 1


def test_a_broken_hook_of_the_session_s_server(pytester: pytest.Pytester) -> None:
    """An exception of a function in the options fails the test whose client met it, and no later one."""
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def smtpd_server_options():
            return {"users": lambda name: {}[name], "auth_mechanisms": ["PLAIN"]}
    """)
    tests = """
        def test_login(smtpd_server):
            with smtplib.SMTP(*smtpd_server.address) as client, pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("eve", "secret")

        def test_next(smtpd_server):
            send(smtpd_server)
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["E *KeyError: 'eve'"])


@pytest.mark.parametrize("style", ["function", "unittest"])
def test_a_broken_hook_in_a_failing_test_is_told_in_its_report(pytester: pytest.Pytester, style: str) -> None:
    """Where the test fails itself, its failure is the test's, the section has the hook's traceback, and that is all."""
    tests = {
        "function": """
            def test_mail(make_smtpd_server):
                send_to_broken(make_smtpd_server(Broken))
                assert 1 == 2
        """,
        "unittest": """
            class TestMail(unittest.TestCase):
                @pytest.fixture(autouse=True)
                def _server(self, make_smtpd_server):
                    self.server = make_smtpd_server(Broken)

                def test_mail(self):
                    send_to_broken(self.server)
                    assert 1 == 2
        """,
    }
    result = run(pytester, tests[style])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *assert 1 == 2", SECTION, "Traceback *", "LookupError: the hook is broken"])
    assert result.stdout.str().count("raise LookupError") == 1


def test_a_broken_hook_fails_a_unittest(pytester: pytest.Pytester) -> None:
    """A method of a `unittest.TestCase` that would have passed fails by a broken hook."""
    tests = """
        class TestMail(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _server(self, make_smtpd_server):
                self.server = make_smtpd_server(Broken)

            def test_mail(self):
                send_to_broken(self.server)
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *LookupError: the hook is broken"])


@pytest.mark.parametrize("server", ["own", "made"])
def test_a_hook_that_breaks_in_the_teardown(pytester: pytest.Pytester, server: str) -> None:
    """A hook that breaks while fixtures are torn down is an error of this test's teardown."""
    tests = f"""
        @pytest.fixture(scope="module")
        def own():
            with Broken() as server:
                yield server

        @pytest.fixture
        def made(make_smtpd_server):
            return make_smtpd_server(Broken)

        @pytest.fixture
        def parting({server}):
            yield
            send_to_broken({server})

        def test_mail(parting):
            pass

        def test_next(own):
            pass
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_mail*", "E *LookupError: the hook is broken"])


def test_a_hook_that_breaks_in_the_setup(pytester: pytest.Pytester) -> None:
    """A hook that breaks while fixtures are set up fails the test."""
    tests = """
        @pytest.fixture
        def welcome(make_smtpd_server):
            send_to_broken(make_smtpd_server(Broken))

        def test_mail(welcome):
            pass
    """
    run(pytester, tests).assert_outcomes(failed=1)


def test_several_broken_hooks_are_a_group(pytester: pytest.Pytester) -> None:
    """Several exceptions, of one or of several servers, are raised as one group."""
    tests = """
        def test_mail(make_smtpd_server):
            one, two = make_smtpd_server(Broken), make_smtpd_server(Broken)
            for server in (one, two, two):
                send_to_broken(server)
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ExceptionGroup: several hooks of SMTP servers have failed (3 sub-exceptions)"])
    assert result.stdout.str().count('raise LookupError("the hook is broken")') == 3


@pytest.mark.parametrize("failure", ["pass", "assert 1 == 2"])
def test_a_broken_hook_of_a_test_that_may_fail(pytester: pytest.Pytester, failure: str) -> None:
    """Where a test is expected to fail, so is the hook: the test is xfailed, and nothing else is told."""
    tests = f"""
        @pytest.mark.xfail
        def test_mail(make_smtpd_server):
            send_to_broken(make_smtpd_server(Broken))
            {failure}
    """
    assert run(pytester, tests).parseoutcomes() == {"xfailed": 1}


def test_a_broken_hook_of_a_skipped_test(pytester: pytest.Pytester) -> None:
    """A test that is skipped in mid-test hides no broken hook: it is an error of the teardown."""
    tests = """
        def test_mail(make_smtpd_server):
            send_to_broken(make_smtpd_server(Broken))
            pytest.skip("not now")
    """
    result = run(pytester, tests)
    result.assert_outcomes(skipped=1, errors=1)
    result.stdout.fnmatch_lines(["E *LookupError: the hook is broken"])


def test_a_test_may_take_the_exceptions_itself(pytester: pytest.Pytester) -> None:
    """A test that is about a broken hook takes the exceptions, and passes."""
    tests = """
        def test_mail(make_smtpd_server):
            server = make_smtpd_server(Broken)
            send_to_broken(server)
            [error] = server.take_errors()
            assert isinstance(error, LookupError)
    """
    run(pytester, tests).assert_outcomes(passed=1)
