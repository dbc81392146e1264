"""Each test finds the session's server as new; mail that comes too late is told of."""

from __future__ import annotations

import sys

import pytest
from inner import run


def test_each_test_starts_with_an_empty_mailbox(pytester: pytest.Pytester) -> None:
    """What an earlier test received is gone when a later one begins, and when its fixtures are set up."""
    tests = """
        @pytest.fixture
        def mailbox_at_setup(smtpd_server):
            return subjects(smtpd_server)

        @pytest.fixture
        def parting_mail(smtpd_server):
            yield
            send(smtpd_server, "sent in the teardown")

        @pytest.mark.parametrize("number", range(3))
        def test_mail(smtpd_server, mailbox_at_setup, parting_mail, number):
            assert mailbox_at_setup == subjects(smtpd_server) == []
            assert not smtpd_server.dialogues and not smtpd_server.aborted
            send(smtpd_server)

        def test_without_the_fixture():
            pass

        class TestUnittestStyle:
            def setup_method(self):
                self.sent = None

            def test_mail(self, smtpd_server):
                assert subjects(smtpd_server) == []
    """
    run(pytester, tests).assert_outcomes(passed=5)


def test_mail_sent_while_fixtures_are_set_up_is_kept(pytester: pytest.Pytester) -> None:
    """What fixtures send is, whatever their scope, in the mailbox of the test that has them set up, and in no later one."""
    tests = """
        @pytest.fixture(scope="session", autouse=True)
        def session_mail(smtpd_server):
            send(smtpd_server, "session")

        @pytest.fixture(scope="module", autouse=True)
        def module_mail(smtpd_server):
            send(smtpd_server, "module")

        @pytest.fixture(autouse=True)
        def function_mail(smtpd_server):
            send(smtpd_server, "function")

        @pytest.fixture(scope="session")
        def later_mail(smtpd_server):
            send(smtpd_server, "later")

        def test_first(smtpd_server):
            assert subjects(smtpd_server) == ["session", "module", "function"]

        def test_second(smtpd_server):
            assert subjects(smtpd_server) == ["function"]

        def test_third(smtpd_server, later_mail):
            assert subjects(smtpd_server) == ["later", "function"]

        def test_dynamic(request, smtpd_server):
            send(smtpd_server, "test")
            assert subjects(smtpd_server) == ["function", "test"]
    """
    run(pytester, tests).assert_outcomes(passed=4)


def test_a_server_that_starts_in_mid_test_has_the_test_s_options(pytester: pytest.Pytester) -> None:
    """A test that asks for the server no earlier than in its body finds it empty, and with the marker's options."""
    tests = """
        @pytest.mark.smtpd_server(hostname="mx.example.org")
        def test_dynamic(request):
            server = request.getfixturevalue("smtpd_server")
            with smtplib.SMTP(*server.address) as client:
                assert client.ehlo()[1].startswith(b"mx.example.org")
            send(server)
            assert request.getfixturevalue("smtpd_server").assert_received()
    """
    run(pytester, tests).assert_outcomes(passed=1)


def test_an_override_that_wraps_smtpd_server_may_send(pytester: pytest.Pytester) -> None:
    """What a user's fixture that overrides `smtpd_server`, and uses it, has sent is not taken for an earlier test's."""
    pytester.makeconftest("""
        import smtplib
        import pytest

        @pytest.fixture(scope="session")
        def smtpd_server(smtpd_server):
            with smtplib.SMTP(*smtpd_server.address) as client:
                client.sendmail("ada@example.org", ["bob@example.org"], b"Subject: fixture\\r\\n\\r\\n")
            return smtpd_server
    """)
    tests = """
        def test_first(smtpd_server):
            assert subjects(smtpd_server) == ["fixture"]

        def test_second(smtpd_server):
            assert subjects(smtpd_server) == []
    """
    run(pytester, tests).assert_outcomes(passed=2)


#: Ways to leave the session's server stopped.
STOPS = {
    "with": "with smtpd_server: send(smtpd_server)",
    "stop": "smtpd_server.stop()",
    "down": "breaks.enter_context(smtpd_server.down())",
    "fixture": "request.getfixturevalue('stopping')",
}


@pytest.mark.parametrize(
    ("way", "arguments"), [*((way, ()) for way in STOPS), ("with", ("-n", "1")), ("with", ("-x",))]
)
def test_who_leaves_the_server_stopped_is_told(pytester: pytest.Pytester, way: str, arguments: tuple[str, ...]) -> None:
    """A test that stops the session's server, or whose fixture does, has an error; the next one finds it as new."""
    tests = f"""
        breaks = contextlib.ExitStack()

        @pytest.fixture
        def stopping(smtpd_server):
            with smtpd_server:
                yield

        def test_stops(request, smtpd_server):
            {STOPS[way]}

        def test_next(smtpd_server):
            assert not smtpd_server.dialogues
            send(smtpd_server)
            assert subjects(smtpd_server) == ["Hello"]

        def test_last(request, smtpd_server):
            {STOPS[way]}
    """
    result = run(pytester, tests, "-W", "error", *arguments)
    errors = 1 if "-x" in arguments else 2
    result.assert_outcomes(passed=2 * errors - 1, errors=errors)
    said = (
        "this test has left smtpd_server stopped: "
        "use smtpd_server.down() for a break, and make_smtpd_server for a server to stop"
    )
    assert result.stdout.lines.count(said) == errors
    result.stdout.fnmatch_lines("*ERROR at teardown of test_stops*")


def test_a_server_may_be_stopped_and_started_again(pytester: pytest.Pytester) -> None:
    """A test that stops the session's server may do so if it starts it again, on the same port."""
    tests = """
        @pytest.mark.parametrize("number", range(2))
        def test_stops(smtpd_server, number):
            smtpd_server.stop()
            with pytest.raises(ConnectionRefusedError):
                send(smtpd_server)
            smtpd_server.start()
            send(smtpd_server)
            assert subjects(smtpd_server) == ["Hello"]
    """
    run(pytester, tests).assert_outcomes(passed=2)


def test_a_port_that_is_taken_meanwhile_is_told(pytester: pytest.Pytester) -> None:
    """Where the session's server cannot be started again, the tests that should find it running say why it is not."""
    tests = """
        @pytest.fixture(scope="module")
        def taken():
            with contextlib.ExitStack() as taken:
                yield taken

        def test_stops(smtpd_server, taken):
            smtpd_server.stop()
            taken.enter_context(socket.create_server(smtpd_server.address))

        def test_cannot_have_it(smtpd_server):
            pass
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of test_cannot_have_it *", "smtpd_server can't listen again on 127.0.0.1:*: *in use*"]
    )


# Late mail.


def test_a_pooled_connection_brings_no_mail_from_an_earlier_test(pytester: pytest.Pytester) -> None:
    """A message whose MAIL came in an earlier test never shows up, but a warning that names both tests does."""
    tests = """
        def test_begins(pooled):
            pooled.begin()

        def test_goes_on(pooled):
            pooled.ask("NOOP")

        def test_ends(pooled, smtpd_server):
            pooled.end()
            assert not smtpd_server.messages
            pooled.begin()
            pooled.end("new")
            assert smtpd_server.assert_received().subject == "new"

        def test_next(pooled, smtpd_server):
            assert not smtpd_server.messages
    """
    result = run(pytester, tests, "-W", "default")
    result.assert_outcomes(passed=4, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_ends",
            "  *.py:*: LateMailWarning: late mail came in *::test_ends, and is in no mailbox:",
            "    from <ada@example.org> to <bob@example.org>: 'late', begun in *::test_begins",
        ]
    )


def test_late_mail_of_a_thread_is_told(pytester: pytest.Pytester) -> None:
    """A background thread that is late brings a warning at the test that runs then, even if that one is the last."""
    tests = """
        go, done = threading.Event(), threading.Event()

        def send_late(client):
            go.wait(10)
            client.end()
            done.set()

        def test_thread(pooled):
            pooled.begin()
            threading.Thread(target=send_late, args=[pooled]).start()

        def test_other():
            go.set()
            assert done.wait(10)
    """
    result = run(pytester, tests, "-W", "default")
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*LateMailWarning: late mail came in *::test_other*", "*begun in *::test_thread"])


def test_late_mail_is_an_error_where_warnings_are(pytester: pytest.Pytester) -> None:
    """With `-W error`, late mail is an error at the teardown of the test in which it came: all of it, and once."""
    tests = """
        def test_begins(pooled, pooled_too):
            pooled.begin()
            pooled_too.begin()

        def test_ends(pooled, pooled_too):
            pooled.end("one")
            pooled_too.end("two")

        def test_next(smtpd_server):
            pass
    """
    result = run(pytester, tests, "-W", "error")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_ends*", "E *LateMailWarning: *", "E *'one', begun in *", "E *'two', begun in *"]
    )


def test_late_mail_can_be_made_an_error_by_its_name(pytester: pytest.Pytester) -> None:
    """The warning has a public name, for the `filterwarnings` of the ini-file."""
    pytester.makeini("[pytest]\nfilterwarnings = error::pytest_smtpd.LateMailWarning\n")
    tests = """
        def test_begins(pooled):
            pooled.begin()

        def test_ends(pooled):
            warnings.warn("another one", stacklevel=1)
            pooled.end()
    """
    run(pytester, tests, subprocess=True).assert_outcomes(passed=2, errors=1, warnings=1)


def test_late_mail_is_told_beside_a_failing_teardown(pytester: pytest.Pytester) -> None:
    """A teardown that fails hides no late mail, and the next test is not accused of it."""
    tests = """
        @pytest.fixture
        def broken():
            yield
            raise LookupError("broken teardown")

        def test_begins(pooled):
            pooled.begin()

        def test_ends(pooled, broken):
            pooled.end()

        def test_next(smtpd_server):
            pass
    """
    result = run(pytester, tests, "-W", "default")
    result.assert_outcomes(passed=3, errors=1, warnings=1)
    result.stdout.fnmatch_lines(
        ["E *LookupError: broken teardown", "*LateMailWarning: late mail came in *::test_ends*"]
    )


@pytest.mark.parametrize("clear", ["smtpd_server.clear()", "smtpd_server.messages.clear()"])
def test_clearing_in_mid_test_makes_no_mail_late(pytester: pytest.Pytester, clear: str) -> None:
    """Whoever clears the mailbox in mid-test wants to forget what was begun: no warning, and nothing later."""
    tests = f"""
        def test_clears(pooled, smtpd_server):
            pooled.begin()
            {clear}
            pooled.end()
            assert not smtpd_server.messages
            pooled.begin()

        def test_next(pooled, smtpd_server):
            pooled.end()
    """
    result = run(pytester, tests, "-W", "default")
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*LateMailWarning: late mail came in *::test_next*", "*begun in *::test_clears"])


# unittest and doctest.


def test_usefixtures_with_unittest(pytester: pytest.Pytester) -> None:
    """A `unittest.TestCase` gets the server by a fixture of its own, each test with an empty mailbox and its options."""
    tests = """
        @pytest.mark.usefixtures("smtpd_server")
        class TestMail(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _server(self, smtpd_server):
                self.server = smtpd_server

            def test_one(self):
                send(self.server, "one")
                self.assertEqual(subjects(self.server), ["one"])

            @pytest.mark.smtpd_server(hostname="mx.example.org")
            def test_two(self):
                with smtplib.SMTP(*self.server.address) as client:
                    self.assertIn(b"mx.example.org", client.ehlo()[1])
                self.assertFalse(self.server.messages)
    """
    run(pytester, tests, "-W", "error").assert_outcomes(passed=2)


def test_context_manager_with_unittest(pytester: pytest.Pytester) -> None:
    """A `unittest.TestCase` may have a server of its own, by `enterContext`, under pytest and under unittest."""
    tests = """
        class TestMail(unittest.TestCase):
            def setUp(self):
                self.server = self.enterContext(RecordingServer())

            def test_one(self):
                send(self.server, "one")
                self.assertEqual(self.server.assert_received().subject, "one")

            def test_two(self):
                self.server.assert_nothing_received()
    """
    run(pytester, tests, "-W", "error").assert_outcomes(passed=2)
    path = next(pytester.path.glob("test_*.py"))
    result = pytester.run(sys.executable, "-W", "error", "-m", "unittest", path.name)
    assert result.ret == 0
    result.stderr.fnmatch_lines(["Ran 2 tests*", "OK"])


def test_doctests(pytester: pytest.Pytester) -> None:
    """A doctest gets the server by `getfixture`, and finds it empty."""
    doctest = """
        >>> import smtplib
        >>> server = getfixture("smtpd_server")
        >>> len(server.messages)
        0
        >>> with smtplib.SMTP(*server.address) as client:
        ...     client.sendmail("ada@example.org", "bob@example.org", "Subject: Hi")
        {}
        >>> server.assert_received().subject
        'Hi'
    """
    pytester.maketxtfile(test_one=doctest, test_two=doctest)
    pytester.runpytest_inprocess("-W", "error").assert_outcomes(passed=2)
