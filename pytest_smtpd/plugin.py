"""The pytest plugin: fixtures, a server as new for each test, options, and what a failed test is told.

pytest imports this module at every start, whether a test wants mail or not, and slowly, so it is small and imports
nothing that pytest has not imported already; all else is imported when it is first used.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec

    from pytest_smtpd.testing.factory import ServerFactory
    from pytest_smtpd.testing.recording import RecordingServer

#: The session's server, since it was started.
_SERVER = pytest.StashKey["RecordingServer"]()
#: Whether it was stopped before the session's end.
_WAS_STOPPED = pytest.StashKey[bool]()
#: The test that runs.
_ITEM = pytest.StashKey[pytest.Item]()
#: What makes servers for a test.
_FACTORY = pytest.StashKey["ServerFactory"]()

#: The options of the ini-file: the type that pytest gives them, and the help.
INI_OPTIONS: Final[dict[str, tuple[Literal["string", "int", "float", "bool", "args", "linelist"], str]]] = {
    "host": ("string", "Where smtpd_server listens: an address, or the path of a Unix socket (127.0.0.1)"),
    "port": ("int", "The port of smtpd_server; 0: any free one (0)"),
    "wait_timeout": ("float", "How many seconds wait_for and its like wait at the most (5)"),
    "hostname": ("string", "What smtpd_server calls itself (localhost)"),
    "protocol": ("string", "smtp or lmtp (smtp)"),
    "hide": ("args", "Keywords of the extensions that smtpd_server does not offer"),
    "hide_after_tls": ("args", "What to hide instead of that where TLS is active"),
    "advertise": ("linelist", "Lines that smtpd_server adds to its reply to EHLO"),
    "advertise_after_tls": ("linelist", "What to add instead of that where TLS is active"),
    "strict": ("bool", "Whether smtpd_server refuses what clients must not send (false)"),
    "tls": ("string", "starttls or implicit"),
    "require_tls": ("bool", "Whether smtpd_server refuses mail before STARTTLS (false)"),
    "certificate": ("string", "A bad one: expired, not-yet-valid, wrong-host or self-signed"),
    "maximum_tls_version": ("string", "TLSv1.2 or TLSv1.3"),
    "client_certificates": ("string", "Ask clients for a certificate: optional or required"),
    "require_auth": ("bool", "Whether smtpd_server refuses mail before AUTH (false)"),
    "auth_mechanisms": ("args", "The mechanisms of AUTH that smtpd_server offers"),
    "auth_without_tls": ("bool", "Whether passwords may be sent in the clear"),
    "encryption_required": ("string", "The reply to who sends a password where it may not be (504 5.5.4 …)"),
    "data_size_limit": ("int", "Octets of a message; 0: any number (33554432)"),
    "command_size_limit": ("int", "Octets of a command line (512)"),
    "line_size_limit": ("int", "Octets of a content line that is taken with strict (1000)"),
    "max_recipients": ("int", "Recipients of a message"),
    "max_messages": ("int", "Messages of a session"),
    "max_commands": ("int", "Commands of a session (1000000)"),
    "max_errors": ("int", "Refused commands of a session; 0: any number (0)"),
    "max_connections": ("int", "Clients at the same time (2000)"),
    "timeout": ("float", "Seconds that a client may be silent (300)"),
    "proxy_protocol": ("bool", "Whether clients come with HAProxy's PROXY header (false)"),
    "allow_unused_rules": ("bool", "Whether tests may have rules that never applied (false)"),
}


class _Finder:
    """Finds this package's modules before pytest's import hook does.

    The hook rewrites assertions, of which there are none here, and loads what it keeps of a module twice to ten times
    as slowly as Python does: that was half of what a session's first mail took.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module as Python does."""
        return PathFinder.find_spec(name, path, target) if name.startswith("pytest_smtpd.") else None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Have the package imported fast, also by conftest.py files."""
    sys.meta_path.insert(0, _Finder)
    early_config.add_cleanup(partial(sys.meta_path.remove, _Finder))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line and of the ini-file."""
    group = parser.getgroup("smtpd_server", "SMTP server (pytest-smtpd-server)")
    group.addoption("--smtpd-server-host", metavar="HOST", help=INI_OPTIONS["host"][1])
    group.addoption("--smtpd-server-port", metavar="PORT", type=int, help=INI_OPTIONS["port"][1])
    knows_numbers = pytest.version_tuple >= (8, 4)
    for name, (kind, text) in INI_OPTIONS.items():
        known = kind if knows_numbers or kind not in {"int", "float"} else "string"
        parser.addini(f"smtpd_server_{name}", text, type=known, default=...)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixture that needs the config."""
    text = "options of smtpd_server for this test, those of RecordingServer but host and port"
    config.addinivalue_line("markers", f"smtpd_server(**options): {text}")
    config.pluginmanager.register(_fixtures_of(config))


# The fixtures.


@pytest.fixture(scope="session")
def smtpd_server_options() -> dict[str, Any]:
    """Override this in the top-level conftest.py to configure `smtpd_server`: return options of RecordingServer."""
    return {}


def _fixtures_of(config: pytest.Config) -> ModuleType:
    """Return a module for pytest to register, with the fixture that goes by this config.

    A fixture that requests `pytestconfig` instead costs each of its tests as much again as all hooks of this plugin.
    """

    @pytest.fixture(scope="session")
    def smtpd_server(smtpd_server_options: Mapping[str, Any]) -> Iterator[RecordingServer]:
        """Return the session's SMTP server, which records what it receives; each test finds it empty.

        Its options come from @pytest.mark.smtpd_server(…), from the command line, from the fixture
        smtpd_server_options and from the ini-file, the first of them first.
        """
        from .suite.configuration import make_server

        with make_server(config, INI_OPTIONS, smtpd_server_options) as server:
            config.stash[_SERVER] = server
            yield server
            config.stash[_WAS_STOPPED] = server.loop is None  # by the last test: behind this `with` it is anyway

    fixtures = ModuleType(f"{__name__}.fixtures")
    vars(fixtures)["smtpd_server"] = smtpd_server
    return fixtures


@pytest.fixture
def make_smtpd_server(request: pytest.FixtureRequest) -> Iterator[ServerFactory]:
    """Return a function that starts one more server, until the test ends.

    It takes the options of RecordingServer, and before them a subclass of it.
    """
    from pytest_smtpd.testing.factory import ServerFactory

    from .suite.configuration import read_ini

    factory = ServerFactory(read_ini(request.config, ["wait_timeout"]))
    request.node.stash[_FACTORY] = factory
    yield factory
    factory.stop()


# A server as new for each test.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test a server as new, before any fixture of the test can send mail."""
    item.config.stash[_ITEM] = item
    if (server := item.config.stash.get(_SERVER, None)) is not None:
        from .suite.configuration import reset_for

        reset_for(item, server)
    elif item.get_closest_marker("smtpd_server"):
        from .suite.configuration import check_marker

        check_marker(item)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Give the test that has the server started its options, too.

    Not in the fixture: what fails there fails for the whole session.
    """
    result = yield
    server = request.config.stash.get(_SERVER, None)
    if server is not None and not server.messages.generation.owner:
        from .suite.configuration import reset_for

        reset_for(request.config.stash[_ITEM], server)
    return result


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail the test whose servers' hooks have raised something, or whose rules have never applied."""
    if servers := _servers_of(item):
        from .suite.checks import check_rules, raise_errors

        raise_errors(servers)
        check_rules(servers, item.config.stash.get(_SERVER, None))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Warn of mail that came for an earlier test; fail the test whose servers' hooks have raised something since.

    Or that leaves the next one a server that is stopped.
    """
    try:
        result = yield
    finally:
        if (server := item.config.stash.get(_SERVER, None)) is not None:
            from .suite.checks import warn_of_late_mail

            warn_of_late_mail(item, server)
    if servers := _servers_of(item):
        from .suite.checks import raise_errors

        raise_errors(servers)
    if server is not None and (server.loop is None if nextitem else item.config.stash.get(_WAS_STOPPED, False)):
        from .suite.checks import fail_for_stopped

        fail_for_stopped()
    return result


def _servers_of(item: pytest.Item) -> list[RecordingServer]:
    """Return the servers that the test can know: the session's, those made for it, those of its own fixtures."""
    if "pytest_smtpd.testing.recording" not in sys.modules:
        return []
    from .suite.checks import servers_among

    factory = item.stash.get(_FACTORY, None)
    known = [item.config.stash.get(_SERVER, None), *(factory.servers if factory else ())]
    return servers_among([*known, *(getattr(item, "funcargs", None) or {}).values()])


# What a failed test is told.


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Say how two messages differ that should be equal, and how the recipients of a message do."""
    if op != "==" or "pytest_smtpd.testing.message" not in sys.modules:
        return None
    from .suite.reports import explain_difference

    return explain_difference(_servers_of(config.stash[_ITEM]) if _ITEM in config.stash else [], left, right)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell a test that has failed what happened on its servers."""
    report = yield
    if (report.failed or hasattr(report, "wasxfail")) and (servers := _servers_of(item)):
        from .suite.reports import tell

        failure = call.excinfo.value if call.excinfo else None
        asks = "smtpd_server" in getattr(item, "fixturenames", ())
        for server in servers:
            # One that nobody has connected to is worth knowing, too, where the test knows it.
            is_known = asks or server is not item.config.stash.get(_SERVER, None)
            tell(report, server, failure, is_known=is_known)
    return report
