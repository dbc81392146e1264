"""The plugin: its fixtures, and what it costs those who do not use it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from inner import run

if TYPE_CHECKING:
    from pathlib import Path

#: Two tests that each send one message and find no other.
TWO_TESTS = """
@pytest.mark.parametrize("subject", ["one", "two"])
def test_mail(smtpd_server, subject):
    send(smtpd_server, subject)
    assert smtpd_server.assert_received().subject == subject
"""


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


def test_who_does_not_use_it_pays_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, modules_file: Path
) -> None:
    """Unused, the plugin imports two small modules of its own, and none that pytest had not imported anyway."""
    # No other plugin may have imported what ours would.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    imported = []
    for arguments in ([], ["-p", "pytest_smtpd.plugin"]):
        pytester.makepyfile("def test_nothing():\n    pass\n")
        result = pytester.runpytest_subprocess(*arguments)
        result.assert_outcomes(passed=1)
        imported.append(set(json.loads(modules_file.read_text("utf-8"))))
    assert imported[1] - imported[0] == {"pytest_smtpd", "pytest_smtpd.plugin"}


#: Modules of ours that only those tests need which use what is in them.
_LATER = {
    *("network.tls", "protocol.notifications", "protocol.proxy_protocol", "protocol.sasl", "smtpd.debugging"),
    *("smtpd.mailman", "smtpd.proxy", "smtpd.relay", "testing.actions", "testing.attachment", "testing.catalogue"),
    *("testing.client", "testing.codes", "testing.comparing", "testing.explanation", "testing.factory"),
    *("testing.faults", "testing.links", "testing.markup", "testing.mime", "testing.mishaps", "testing.redirect"),
    *("testing.users", "testing.window", "suite.reports"),
}
#: What of the standard library the first mail may bring, beside what its client has imported.
_NEEDED = {"email.feedparser", "encodings.ascii", "encodings.idna", "stringprep", "unicodedata"}


def test_the_first_mail_imports_little(pytester: pytest.Pytester, modules_file: Path) -> None:
    """A test that sends a mail and looks for it imports what it needs: nearly nothing of the standard library."""
    imported = []
    for body in ("pass", "send(smtpd_server); smtpd_server.assert_received(subject='Hi', rcpttos=['b@example.org'])"):
        pytester.makepyfile(f"""
            import smtplib

            def send(server):
                with smtplib.SMTP(*server.address) as client:
                    client.sendmail("a@example.org", "b@example.org", "Subject: Hi\\r\\n\\r\\nHello\\r\\n")

            def test_it({"request" if body == "pass" else "smtpd_server"}):
                {body}
        """)
        result = pytester.runpytest_subprocess()
        result.assert_outcomes(passed=1)
        imported.append(set(json.loads(modules_file.read_text("utf-8"))))
    brought = imported[1] - imported[0]
    ours = {name.removeprefix("pytest_smtpd.") for name in brought if name.startswith("pytest_smtpd")}
    assert brought - {f"pytest_smtpd.{name}" for name in ours} <= _NEEDED
    assert not ours & _LATER
    assert len(ours) < 58  # of 94


def test_pytest_s_import_hook_is_passed_by(pytester: pytest.Pytester) -> None:
    """What a mail needs is loaded by Python itself, which is several times as fast as pytest's import hook for plugins."""
    pytester.makeconftest("from pytest_smtpd import Message  # so are imports of yours")
    tests = """
        import sys
        from importlib.machinery import SourceFileLoader

        def test_loaders(smtpd_server):
            send(smtpd_server)
            ours = {name for name in sys.modules if name.startswith("pytest_smtpd.")} - {"pytest_smtpd.plugin"}
            assert {"pytest_smtpd.testing.message", "pytest_smtpd.protocol.session"} < ours
            assert {type(sys.modules[name].__loader__) for name in ours} == {SourceFileLoader}
    """
    run(pytester, tests, subprocess=True).assert_outcomes(passed=1)


def test_nothing_is_left_in_python_s_imports(pytester: pytest.Pytester) -> None:
    """After a run that another program has started, imports are found as before."""
    pytester.makepyfile("def test_nothing():\n    pass\n")
    script = pytester.makepyfile(
        script="""
            import sys

            import pytest

            before = list(sys.meta_path)
            assert pytest.main(["-q"]) == 0
            assert sys.meta_path == before
        """
    )
    assert pytester.runpython(script).ret == 0
