"""The plugin: its fixtures, a clean mailbox for each test, and what it costs those who do not use it."""

from __future__ import annotations

import json
import threading
from importlib.metadata import entry_points
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

# Imported here and not only by the runs in this process, which take back what they have imported.
import pytest_smtpd.testing.recording  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

#: Stands at the start of each test file that is run.
HELPERS = """\
import smtplib, socket, threading
import pytest

MAIL, RCPT, DATA = b"MAIL FROM:<ada@example.org>", b"RCPT TO:<bob@example.org>", b"DATA"

def send(server, subject="Hello"):
    with smtplib.SMTP(*server.address) as client:
        client.sendmail("ada@example.org", ["bob@example.org"], f"Subject: {subject}\\r\\n\\r\\n".encode())

def subjects(server):
    return [message.subject for message in server.messages]
"""

#: Two tests that each send one message and find no other.
TWO_TESTS = """
@pytest.mark.parametrize("subject", ["one", "two"])
def test_mail(smtpd_server, subject):
    send(smtpd_server, subject)
    assert smtpd_server.assert_received().subject == subject
"""


def run(pytester: pytest.Pytester, tests: str, *arguments: str, subprocess: bool = False) -> pytest.RunResult:
    """Run tests in a directory of their own."""
    pytester.makepyfile(HELPERS + dedent(tests))
    return (pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess)(*arguments)


# The fixtures.


def test_smtpd_server_receives_mail(pytester: pytest.Pytester) -> None:
    """`smtpd_server` is a running server with an empty mailbox."""
    tests = """
        def test_mail(smtpd_server):
            assert not smtpd_server.messages
            send(smtpd_server, "Welcome")
            message = smtpd_server.assert_received(rcpttos=["bob@example.org"], subject="Welcome")
            assert message.mailfrom == "ada@example.org"
    """
    run(pytester, tests).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="none"),
        pytest.param(("-W", "error"), id="-W error"),
        pytest.param(("-p", "no:cacheprovider"), id="-p no:cacheprovider"),
        pytest.param(("-p", "no:logging", "--capture=no"), id="-s"),
        pytest.param(("--import-mode=importlib",), id="--import-mode=importlib"),
        pytest.param(("-n", "2"), id="-n 2"),
    ],
)
def test_fixtures_work_with_options(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    """The fixtures do their work whatever options pytest is given, pytest-xdist's included."""
    result = run(pytester, TWO_TESTS, *arguments, subprocess=True)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK


def test_the_server_is_the_same_for_the_whole_session(pytester: pytest.Pytester) -> None:
    """A session-scoped fixture may depend on `smtpd_server`, whose address then holds for all tests."""
    tests = """
        @pytest.fixture(scope="session")
        def app(smtpd_server):
            return {"server": smtpd_server, "address": smtpd_server.address}

        @pytest.mark.parametrize("subject", ["one", "two"])
        def test_mail(app, smtpd_server, subject):
            assert app["server"] is smtpd_server
            assert app["address"] == smtpd_server.address
            send(app["server"], subject)
            assert subjects(smtpd_server) == [subject]
    """
    run(pytester, tests).assert_outcomes(passed=2)


def test_the_server_stops_with_the_session(pytester: pytest.Pytester) -> None:
    """At the end of the session, its servers' threads are gone."""
    before = set(threading.enumerate())
    tests = """
        before = set(threading.enumerate())

        def test_mail(smtpd_server, make_smtpd_server):
            make_smtpd_server()
            assert len(set(threading.enumerate()) - before) == 2
    """
    run(pytester, tests).assert_outcomes(passed=1)
    assert set(threading.enumerate()) == before


def test_smtpd_server_options_can_be_overridden(pytester: pytest.Pytester) -> None:
    """A fixture `smtpd_server_options` of the user's gives the options of `smtpd_server`."""
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def smtpd_server_options():
            return {"hostname": "mx.example.org", "hide": ["SIZE"]}
    """)
    tests = """
        def test_options(smtpd_server):
            with smtplib.SMTP(*smtpd_server.address) as client:
                assert client.ehlo()[1].startswith(b"mx.example.org\\n")
                assert not client.has_extn("SIZE")
    """
    run(pytester, tests).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"hide": "NONSENSE"}, "hide: no extension is called NONSENSE*"),
        ({"hostnam": "x"}, "there is no option 'hostnam': did you mean hostname?"),
    ],
    ids=["value", "name"],
)
def test_wrong_options_are_errors(pytester: pytest.Pytester, options: dict[str, str], error: str) -> None:
    """Options that are wrong are an error of the test that first asks for the server, and say what is wrong."""
    tests = f"""
        @pytest.fixture(scope="session")
        def smtpd_server_options():
            return {options}

        def test_options(smtpd_server):
            pass
    """
    result = run(pytester, tests)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"the fixture smtpd_server_options: {error}"])


# Each test finds the server as new.


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
    """What fixtures of a test send, of whatever scope and in whatever order, is in its mailbox."""
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

        def test_first(smtpd_server):
            assert subjects(smtpd_server) == ["session", "module", "function"]

        def test_second(smtpd_server):
            assert subjects(smtpd_server) == ["function"]
    """
    run(pytester, tests).assert_outcomes(passed=2)


def test_a_pooled_connection_brings_no_mail_from_an_earlier_test(pytester: pytest.Pytester) -> None:
    """On a connection that stays open across tests, a message whose MAIL came in an earlier test never shows up."""
    tests = """
        @pytest.fixture(scope="session")
        def ask(smtpd_server):
            with socket.create_connection(smtpd_server.address, timeout=10) as pooled, pooled.makefile("rb") as replies:
                def ask(line, code):
                    if line:
                        pooled.sendall(line + b"\\r\\n")
                    while (reply := replies.readline())[3:4] == b"-":
                        pass
                    assert reply[:3] == code, reply
                ask(b"", b"220")
                ask(b"EHLO client.example", b"250")
                yield ask

        def test_begins(ask, smtpd_server):
            ask(MAIL, b"250")
            ask(RCPT, b"250")

        def test_goes_on(ask, smtpd_server):
            ask(DATA, b"354")

        def test_ends(ask, smtpd_server):
            ask(b"Subject: late\\r\\n.", b"250")
            assert not smtpd_server.messages
            for line, code in ((MAIL, b"250"), (RCPT, b"250"), (DATA, b"354"), (b"Subject: new\\r\\n.", b"250")):
                ask(line, code)
            assert smtpd_server.assert_received().subject == "new"

        def test_next(ask, smtpd_server):
            assert not smtpd_server.messages
    """
    result = run(pytester, tests, "-W", "always")
    result.assert_outcomes(passed=4, warnings=1)
    result.stdout.fnmatch_lines(["*LateMailWarning: late mail came in *::test_ends*'late'*begun in *::test_begins"])


# make_smtpd_server.


def test_make_smtpd_server_starts_servers_with_options(pytester: pytest.Pytester) -> None:
    """`make_smtpd_server` starts as many servers as it is called, each with its options and its own mailbox."""
    tests = """
        def test_servers(smtpd_server, make_smtpd_server):
            plain, limited = make_smtpd_server(), make_smtpd_server(hostname="mx.example.org", data_size_limit=1000)
            with smtplib.SMTP(*limited.address) as client:
                assert client.ehlo()[1].startswith(b"mx.example.org\\n")
                assert client.esmtp_features["size"] == "1000"
            send(plain, "plain")
            send(limited, "limited")
            assert (subjects(plain), subjects(limited), subjects(smtpd_server)) == (["plain"], ["limited"], [])
            assert len({plain.port, limited.port, smtpd_server.port}) == 3
    """
    run(pytester, tests).assert_outcomes(passed=1)


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_made_servers_stop_with_the_test(pytester: pytest.Pytester, outcome: str) -> None:
    """All servers of `make_smtpd_server` are stopped at the end of the test, be it passed or failed."""
    tests = f"""
        servers = []

        def test_first(make_smtpd_server):
            servers.extend([make_smtpd_server(), make_smtpd_server()])
            for server in servers:
                send(server)
            assert {outcome == "passed"}

        def test_second():
            for server in servers:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(server.address)
            assert not [thread for thread in threading.enumerate() if "RecordingServer" in thread.name]
    """
    result = run(pytester, tests, subprocess=True)
    result.assert_outcomes(passed=2 if outcome == "passed" else 1, failed=0 if outcome == "passed" else 1)


def test_make_smtpd_server_needs_no_smtpd_server(pytester: pytest.Pytester) -> None:
    """A test that only makes its own servers starts no other."""
    tests = """
        def test_servers(make_smtpd_server):
            make_smtpd_server()
            assert len([thread for thread in threading.enumerate() if "RecordingServer" in thread.name]) == 1
    """
    run(pytester, tests, subprocess=True).assert_outcomes(passed=1)


# What users see.


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


def test_fixtures_are_described(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` shows each fixture with its scope and what it is good for."""
    result = pytester.runpytest_inprocess("--fixtures")
    for name, text in {
        "smtpd_server [[]session scope[]]": "*the session's SMTP server, which records what it receives*",
        "smtpd_server_options [[]session scope[]]": "*conftest.py to configure `smtpd_server`*options of RecordingServer*",
        "make_smtpd_server": "*starts one more server, until the test ends*",
    }.items():
        result.stdout.fnmatch_lines([f"{name} -- *plugin.py:*", text], consecutive=True)


def test_a_plugin_with_the_entry_point_smtpd_works_beside_it(pytester: pytest.Pytester) -> None:
    """The fixtures are there although another distribution, such as smtpdfix, has the entry point "smtpd"."""
    metadata = pytester.mkdir("other-1.0.dist-info")
    metadata.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", "utf-8")
    metadata.joinpath("entry_points.txt").write_text("[pytest11]\nsmtpd = other_smtpd\n", "utf-8")
    pytester.makepyfile(other_smtpd="import pytest\n\n@pytest.fixture\ndef smtpd():\n    return 'the other'\n")
    tests = """
        def test_both(smtpd_server, smtpd):
            assert smtpd == "the other"
            send(smtpd_server)
            assert len(smtpd_server.messages) == 1
    """
    run(pytester, tests, subprocess=True).assert_outcomes(passed=1)


# What it costs.


@pytest.fixture
def modules_file(pytester: pytest.Pytester) -> Path:
    """Return the file to which runs write the names of the modules that are imported in the end."""
    path = pytester.path / "modules.json"
    pytester.makeconftest(f"""
        import json, pathlib, sys

        def pytest_unconfigure():
            pathlib.Path({str(path)!r}).write_text(json.dumps(list(sys.modules)))
    """)
    return path


def test_who_does_not_use_it_pays_nothing(pytester: pytest.Pytester, modules_file: Path) -> None:
    """Unused, the plugin imports two small modules of its own, and none that pytest had not imported anyway."""
    # No other plugin may have imported what ours would.
    others = {point.name for point in entry_points(group="pytest11")} - {"pytest_smtpd"}
    blocked = [argument for name in sorted(others) for argument in ("-p", f"no:{name}")]
    imported = []
    for arguments in (["-p", "no:pytest_smtpd"], []):
        result = run(pytester, "def test_nothing():\n    pass\n", *blocked, *arguments, subprocess=True)
        result.assert_outcomes(passed=1)
        imported.append(set(json.loads(modules_file.read_text("utf-8"))))
    assert imported[1] - imported[0] == {"pytest_smtpd", "pytest_smtpd.plugin"}
