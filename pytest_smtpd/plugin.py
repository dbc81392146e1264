"""The pytest plugin: fixtures, a server as new for each test, options, and what a failed test is told.

pytest imports this module at every start, whether a test wants mail or not, so it imports nothing that
pytest has not imported already; all else is imported when a fixture is first used.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import TypeGuard

    from pytest_smtpd.testing.factory import ServerFactory
    from pytest_smtpd.testing.recording import RecordingServer

#: The session's server, since it was started.
_SERVER = pytest.StashKey["RecordingServer"]()
#: The test that runs.
_ITEM = pytest.StashKey[pytest.Item]()
#: What makes servers for a test.
_FACTORY = pytest.StashKey["ServerFactory"]()

#: How errors name the marker.
_MARKER = "@pytest.mark.smtpd_server"

#: What an option of the ini-file is that is not there.
_UNSET: Final = object()
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
        parser.addini(f"smtpd_server_{name}", text, type=known, default=_UNSET)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    text = "options of smtpd_server for this test, those of RecordingServer but host and port"
    config.addinivalue_line("markers", f"smtpd_server(**options): {text}")


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
    except (OSError, OverflowError, ValueError) as error:
        address = f"{options.get('host', '127.0.0.1')}:{options.get('port', 0)}"
        is_worker = hasattr(pytestconfig, "workerinput")  # pytest-xdist's way to tell
        hint = "; each worker of pytest-xdist starts one: let the port be 0" if is_worker else ""
        _fail(f"smtpd_server can't listen on {address}", f"{error}{hint}")
    with server:
        pytestconfig.stash[_SERVER] = server
        yield server


@pytest.fixture
def make_smtpd_server(request: pytest.FixtureRequest) -> Iterator[ServerFactory]:
    """Return a function that starts one more server, until the test ends.

    It takes the options of RecordingServer, and before them a subclass of it.
    """
    from pytest_smtpd.testing.factory import ServerFactory

    factory = ServerFactory(_read_ini(request.config, ["wait_timeout"]))
    request.node.stash[_FACTORY] = factory
    yield factory
    factory.stop()


# Options.


def _fail(where: str, error: object) -> NoReturn:
    """Fail the test because of what is wrong elsewhere: no traceback leads there."""
    text = f"{where}: {error}"
    raise pytest.fail.Exception(text, pytrace=False) from None


def _check_marker(item: pytest.Item) -> None:
    """Look at the options of a marker while there is no server."""
    from pytest_smtpd.testing.options import check_options

    options = _marked_options(item)
    try:
        check_options(options)
    except TypeError as error:
        _fail(_MARKER, error)
    except ValueError:
        pass  # they may make sense together with the server's


def _read_ini(config: pytest.Config, names: Iterable[str]) -> dict[str, Any]:
    """Return what the ini-file has of these options."""
    from pytest_smtpd.testing.options import parse_option

    options = {}
    for name in names:
        try:
            value = config.getini(f"smtpd_server_{name}")
            if value is not _UNSET:
                options[name] = parse_option(name, value) if isinstance(value, str) else value
        except (TypeError, ValueError, pytest.UsageError) as error:
            text = str(error).removeprefix(f"{config.inipath}: ")
            _fail(f"{config.inipath or '-o'}, smtpd_server_{name}", text)
    return options


def _session_options(config: pytest.Config, overridden: Mapping[str, Any]) -> dict[str, Any]:
    """Join the options of the session's server; the later source wins."""
    from pytest_smtpd.testing.options import check_options

    given = {name: config.getoption(f"smtpd_server_{name}") for name in ("host", "port")}
    sources = {
        f"{config.inipath or 'the ini-file'}, or -o: smtpd_server_*": _read_ini(config, INI_OPTIONS),
        "the fixture smtpd_server_options": overridden,
        "the command line": {name: value for name, value in given.items() if value is not None},
    }
    options: dict[str, Any] = {}
    for source, more in sources.items():
        if more == {}:
            continue
        try:
            options = {**options, **more}
            check_options(options)
        except (TypeError, ValueError) as error:
            _fail(source, error)
    return options


def _marked_options(item: pytest.Item) -> dict[str, Any]:
    """Return the options of the test's markers; the nearest one wins."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("smtpd_server"))):
        options |= mark.kwargs
        if mark.args:
            _fail(_MARKER, f"options go by name, not {mark.args}")
        if fixed := {"host", "port"} & mark.kwargs.keys():
            names = ", ".join(sorted(fixed))
            text = f"{names} can't change, the server is the same for the session; make_smtpd_server makes another one"
            _fail(_MARKER, text)
    return options


# A server as new for each test.


def _begin(server: RecordingServer, item: pytest.Item) -> None:
    """Give the test a server as new."""
    try:
        server.reset(item.nodeid, **_marked_options(item))
    except (TypeError, ValueError) as error:
        _fail(_MARKER, error)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test a server as new, before any fixture of the test can send mail."""
    item.config.stash[_ITEM] = item
    if (server := item.config.stash.get(_SERVER, None)) is not None:
        _begin(server, item)
    elif item.get_closest_marker("smtpd_server"):
        _check_marker(item)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Give the test that has the server started its options, too.

    Not in the fixture: what fails there fails for the whole session.
    """
    result = yield
    server = request.config.stash.get(_SERVER, None)
    if server is not None and not server.messages.generation.owner:
        _begin(server, request.config.stash[_ITEM])
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test whose servers' hooks have raised something, or whose rules have never applied."""
    result = yield
    servers = _servers_of(item)
    _raise_errors(servers)
    _check_rules(servers, item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Warn of mail that came for an earlier test; fail the test whose servers' hooks have raised something since."""
    try:
        result = yield
    finally:
        _warn_of_late_mail(item)
    _raise_errors(_servers_of(item))
    return result


def _warn_of_late_mail(item: pytest.Item) -> None:
    server = item.config.stash.get(_SERVER, None)
    if server is not None and (late := server.take_late()):
        from pytest_smtpd.testing.recording import LateMailWarning

        mails = "".join(f"\n  {mail}" for mail in late)
        item.warn(LateMailWarning(f"late mail came in {item.nodeid}, and is in no mailbox:{mails}"))


def _raise_errors(servers: list[RecordingServer]) -> None:
    """Raise what the hooks of the test's servers have raised; it is forgotten when it is reported."""
    __tracebackhide__ = True
    errors = [error for server in servers for error in server.errors]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        msg = "several hooks of SMTP servers have failed"
        raise BaseExceptionGroup(msg, errors)


def _check_rules(servers: list[RecordingServer], item: pytest.Item) -> None:
    """Fail the test that has given rules for nothing: it has not tested what it says."""
    for server in servers:
        if not server.allow_unused_rules:
            try:
                server.assert_rules_applied()
            except AssertionError as error:
                of_session = server is item.config.stash.get(_SERVER, None)
                place = _MARKER if of_session else "where this server is made"
                _fail(f"{error}\n{place}", "allow_unused_rules=True lets the test pass")


def _servers_of(item: pytest.Item) -> list[RecordingServer]:
    """Return the servers that the test can know: the session's, those made for it, those of its own fixtures."""
    if "pytest_smtpd.testing.recording" not in sys.modules:
        return []
    from pytest_smtpd.testing.recording import RecordingServer

    factory = item.stash.get(_FACTORY, None)
    known = [
        item.config.stash.get(_SERVER, None),
        *(factory.servers if factory else ()),
        *(getattr(item, "funcargs", None) or {}).values(),
    ]
    return list(dict.fromkeys(server for server in known if isinstance(server, RecordingServer)))


# What a failed test is told.


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Say how two messages differ that should be equal, and how the recipients of a message do."""
    if op != "==" or "pytest_smtpd.testing.message" not in sys.modules:
        return None
    from pytest_smtpd.testing.comparing import compare_messages
    from pytest_smtpd.testing.message import Message

    if isinstance(left, Message) and isinstance(right, Message):
        return [f"Message {left} == Message {right}", *compare_messages(left, right)]
    if _is_mailboxes(left) and _is_mailboxes(right) and _ITEM in config.stash:
        return _explain_rcpttos(config.stash[_ITEM], left, right)
    return None


def _is_mailboxes(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(mailbox, str) for mailbox in value)


def _explain_rcpttos(item: pytest.Item, left: list[str], right: list[str]) -> list[str] | None:
    """Say how the lists differ if one of them is the very `rcpttos` of a message that a server of the test has."""
    from pytest_smtpd.testing.comparing import compare_mailboxes
    from pytest_smtpd.testing.shown import show

    known = {id(message.rcpttos) for server in _servers_of(item) for message in server.messages}
    if not known & {id(left), id(right)}:
        return None
    differences = compare_mailboxes(left, right) if id(left) in known else compare_mailboxes(right, left)
    return [f"{show(left)} == {show(right)}", *differences]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell a test that has failed what happened on its servers."""
    report = yield
    if report.failed or hasattr(report, "wasxfail"):
        shown = call.excinfo.value if call.excinfo else None
        for server in _servers_of(item):
            _forget(server, [shown, *getattr(shown, "exceptions", ())])
            told = server.errors[:]
            if report.failed and (server.is_used or _has_asked_for(item, server)):
                _add_section(report, f"SMTP server {server.public_url}", server.report())
            _forget(server, told)  # they are not to fail another test
    return report


def _has_asked_for(item: pytest.Item, server: RecordingServer) -> bool:
    """Whether the test knows the server: one that nobody has connected to is worth knowing, too."""
    return server is not item.config.stash.get(_SERVER, None) or "smtpd_server" in getattr(item, "fixturenames", ())


def _forget(server: RecordingServer, errors: Iterable[BaseException | None]) -> None:
    for error in errors:
        if error in server.errors:
            server.errors.remove(error)


def _add_section(report: pytest.TestReport, title: str, text: str) -> None:
    """Add it to the very representation of the failure, so that JUnit's XML has it, too."""
    longrepr: Any = report.longrepr
    if hasattr(longrepr, "addsection"):
        longrepr.addsection(title, text)
    else:  # of pytest.fail(…, pytrace=False), of a doctest, of a fixture that is not there
        report.longrepr = f"{longrepr}\n\n{title}\n{text}"
