"""The pytest plugin: fixtures, a server as new for each test, options, and what a failed test is told.

pytest imports this module at every start, whether a test wants mail or not, so it imports nothing that
pytest has not imported already; all else is imported when a fixture is first used.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from _pytest._code.code import ExceptionRepr  # what a report has, though pytest does not export it

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from pytest_smtpd.testing.factory import ServerFactory
    from pytest_smtpd.testing.recording import RecordingServer

#: The session's server, once it runs.
_SERVER = pytest.StashKey["RecordingServer"]()
#: The test that runs.
_ITEM = pytest.StashKey[pytest.Item]()
#: What makes servers for a test.
_FACTORY = pytest.StashKey["ServerFactory"]()

MARKER = (
    "smtpd_server(**options): options of the smtpd_server for this test, those of RecordingServer but host and port"
)

#: What an option of the ini-file is that is not there.
_UNSET: Final = object()
#: The options of the ini-file: the type that pytest gives them, and the help.
INI_OPTIONS = {
    "host": ("string", "Where smtpd_server listens: an address, or the path of a Unix socket (127.0.0.1)"),
    "port": ("string", "The port of smtpd_server; 0: any free one (0)"),
    "wait_timeout": ("string", "How many seconds wait_for and its like wait at the most (5)"),
    "hostname": ("string", "What smtpd_server calls itself (localhost)"),
    "protocol": ("string", "smtp or lmtp (smtp)"),
    "hide": ("args", "Keywords of the extensions that smtpd_server does not offer"),
    "hide_after_tls": ("args", "What to hide instead of that where TLS is active"),
    "advertise": ("args", "Lines that smtpd_server adds to its reply to EHLO"),
    "advertise_after_tls": ("args", "What to add instead of that where TLS is active"),
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
    "data_size_limit": ("string", "Octets of a message; 0: any number (33554432)"),
    "command_size_limit": ("string", "Octets of a command line (512)"),
    "line_size_limit": ("string", "Octets of a content line that is taken with strict (1000)"),
    "max_recipients": ("string", "Recipients of a message"),
    "max_messages": ("string", "Messages of a session"),
    "max_commands": ("string", "Commands of a session (1000000)"),
    "max_errors": ("string", "Refused commands of a session; 0: any number (0)"),
    "max_connections": ("string", "Clients at the same time (2000)"),
    "timeout": ("string", "Seconds that a client may be silent (300)"),
    "proxy_protocol": ("bool", "Whether clients come with HAProxy's PROXY header (false)"),
    "allow_unused_rules": ("bool", "Whether tests may have rules that never applied (false)"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line and of the ini-file."""
    group = parser.getgroup("smtpd_server", "SMTP server (pytest-smtpd-server)")
    group.addoption("--smtpd-server-host", metavar="HOST", help=INI_OPTIONS["host"][1])
    group.addoption("--smtpd-server-port", metavar="PORT", type=_parse_port, help=INI_OPTIONS["port"][1])
    for name, (kind, text) in INI_OPTIONS.items():
        parser.addini(f"smtpd_server_{name}", text, type=kind, default=_UNSET)  # type: ignore[arg-type]


def _parse_port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65_535:  # noqa: PLR2004
        return int(text)
    msg = f"a port is from 0 to 65535, not {text}"
    raise argparse.ArgumentTypeError(msg)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", MARKER)


# The fixtures.


@pytest.fixture(scope="session")
def smtpd_server_options() -> dict[str, Any]:
    """Override this in the top-level conftest.py to configure `smtpd_server`: return options of RecordingServer."""
    return {}


@pytest.fixture(scope="session")
def smtpd_server(pytestconfig: pytest.Config, smtpd_server_options: Mapping[str, Any]) -> Iterator[RecordingServer]:
    """Return the session's SMTP server, which records what it receives; each test finds it empty.

    Its options come from @pytest.mark.smtpd_server(…), from the command line, from the fixture
    smtpd_server_options and from the ini-file, the first of them first.
    """
    from pytest_smtpd.testing.recording import RecordingServer

    options = _session_options(pytestconfig, smtpd_server_options)
    try:
        server = RecordingServer(**options)
    except OSError as error:
        address = f"{options.get('host', '127.0.0.1')}:{options.get('port', 0)}"
        hint = "; each worker of pytest-xdist starts one: let the port be 0" if "xdist" in sys.modules else ""
        raise _failure(f"smtpd_server can't listen on {address}: {error}{hint}") from None
    with server:
        pytestconfig.stash[_SERVER] = server
        _begin(server, pytestconfig.stash[_ITEM])
        yield server
        del pytestconfig.stash[_SERVER]
    _warn_of_late_mail(server, pytestconfig.stash[_ITEM])


@pytest.fixture
def make_smtpd_server(request: pytest.FixtureRequest) -> Iterator[ServerFactory]:
    """Return a function that starts one more server, until the test ends.

    It takes the options of RecordingServer, and before them a subclass of it.
    """
    from pytest_smtpd.testing.factory import ServerFactory

    factory = ServerFactory(_read_ini(request.config, "wait_timeout"))
    request.node.stash[_FACTORY] = factory
    yield factory
    factory.stop()


# Options.


def _failure(text: str) -> BaseException:
    """Return the failure of a test whose author has written something wrong elsewhere: no traceback leads there."""
    return pytest.fail.Exception(text, pytrace=False)


def _read_ini(config: pytest.Config, *names: str) -> dict[str, Any]:
    """Return what the ini-file has of these options."""
    from pytest_smtpd.testing.options import parse_option

    options = {}
    for name in names:
        value = config.getini(f"smtpd_server_{name}")
        if value is not _UNSET:
            try:
                options[name] = parse_option(name, value) if isinstance(value, str) else value
            except ValueError as error:
                raise _failure(f"{config.inipath or 'ini-file'}: smtpd_server_{error}") from None
    return options


def _session_options(config: pytest.Config, overridden: Mapping[str, Any]) -> dict[str, Any]:
    """Join the options of the session's server; the later source wins."""
    from pytest_smtpd.testing.options import check_options

    given = {name: config.getoption(f"smtpd_server_{name}") for name in ("host", "port")}
    sources = {
        f"{config.inipath or 'ini-file'}, smtpd_server_*": _read_ini(config, *INI_OPTIONS),
        "the fixture smtpd_server_options": overridden,
        "the command line": {name: value for name, value in given.items() if value is not None},
    }
    options: dict[str, Any] = {}
    for source, more in sources.items():
        try:
            options |= more
            check_options(options)
        except (TypeError, ValueError) as error:
            raise _failure(f"{source}: {error}") from None
    return options


def _marked_options(item: pytest.Item) -> dict[str, Any]:
    """Return the options of the test's markers; the nearest one wins."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("smtpd_server"))):
        options |= mark.kwargs
        if mark.args:
            raise _failure(f"@pytest.mark.smtpd_server: options go by name, not {mark.args}")
        if fixed := {"host", "port"} & mark.kwargs.keys():
            raise _failure(
                f"@pytest.mark.smtpd_server: {', '.join(sorted(fixed))} can't change, the server is the same for the "
                "whole session; make_smtpd_server makes another one"
            )
    return options


# A server as new for each test.


def _begin(server: RecordingServer, item: pytest.Item) -> None:
    """Give the test a server as new."""
    try:
        server.reset(item.nodeid, **_marked_options(item))
    except (TypeError, ValueError) as error:
        raise _failure(f"@pytest.mark.smtpd_server: {error}") from None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test a server as new, before any fixture of the test can send mail."""
    item.config.stash[_ITEM] = item
    if (server := item.config.stash.get(_SERVER, None)) is not None:
        _begin(server, item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test whose servers' hooks have raised something."""
    result = yield
    for server in _servers_of(item):
        server.raise_errors()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Warn of mail that came for an earlier test; fail the test whose servers' hooks have raised something since."""
    result = yield
    if (server := item.config.stash.get(_SERVER, None)) is not None:
        _warn_of_late_mail(server, item)
        server.raise_errors()
    return result


def _warn_of_late_mail(server: RecordingServer, item: pytest.Item) -> None:
    for late in server.take_late():
        from pytest_smtpd.testing.recording import LateMailWarning

        item.warn(LateMailWarning(f"late mail came in {item.nodeid}, and is in no mailbox: {late}"))


def _servers_of(item: pytest.Item) -> list[RecordingServer]:
    """Return the servers that the test can know: the session's, those made for it, those of its own fixtures."""
    if "pytest_smtpd.testing.recording" not in sys.modules:
        return []
    from pytest_smtpd.testing.recording import RecordingServer

    factory = item.stash.get(_FACTORY, None)
    session_server = item.config.stash.get(_SERVER, None)
    servers = [
        *([session_server] if session_server else ()),
        *(factory.servers if factory else ()),
        *(value for value in getattr(item, "funcargs", {}).values() if isinstance(value, RecordingServer)),
    ]
    return list(dict.fromkeys(servers))


# What a failed test is told.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell a test that has failed what happened on its servers."""
    report = yield
    if report.failed:
        for server in _servers_of(item):
            if server.is_used or "smtpd_server" in getattr(item, "fixturenames", ()):
                _add_section(report, f"SMTP server {server.url}", server.report())
            server.take_errors()  # told: they are not to fail another test
    return report


def _add_section(report: pytest.TestReport, title: str, text: str) -> None:
    longrepr = report.longrepr
    if isinstance(longrepr, ExceptionRepr):
        longrepr.addsection(title, text)  # so that JUnit's XML has it, too
    elif isinstance(longrepr, str):
        report.longrepr = f"{longrepr}\n\n{title}\n{text}"
    else:
        report.sections.append((title, text))
