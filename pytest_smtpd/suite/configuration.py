"""Where the options of a test suite's server come from, and what is wrong with them: told to who has written them there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_smtpd.testing.options import check_mapping, check_options, parse_option
from pytest_smtpd.testing.recording import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: How errors name the marker.
MARKER = "@pytest.mark.smtpd_server"


def fail(where: str, error: object) -> NoReturn:
    """Fail the test because of what is wrong elsewhere: no traceback leads there."""
    text = f"{where}: {error}"
    raise pytest.fail.Exception(text, pytrace=False) from None


def make_server(config: pytest.Config, ini_names: Iterable[str], overridden: Mapping[str, Any]) -> RecordingServer:
    """Return the session's server; `overridden` are the options of the fixture smtpd_server_options."""
    options = _join_options(config, ini_names, overridden)
    try:
        return RecordingServer(**options)
    except (OSError, OverflowError, ValueError) as error:
        address = f"{options.get('host', '127.0.0.1')}:{options.get('port', 0)}"
        is_worker = hasattr(config, "workerinput")  # pytest-xdist's way to tell
        hint = "; each worker of pytest-xdist starts one: let the port be 0" if is_worker else ""
        fail(f"smtpd_server can't listen on {address}", f"{error}{hint}")


def _join_options(config: pytest.Config, ini_names: Iterable[str], overridden: Mapping[str, Any]) -> dict[str, Any]:
    """Join the options of the session's server; the later source wins."""
    given = {name: config.getoption(f"smtpd_server_{name}") for name in ("host", "port")}
    sources = {
        f"{config.inipath or 'the ini-file'}, or -o: smtpd_server_*": read_ini(config, ini_names),
        "the fixture smtpd_server_options": overridden,
        "the command line": {name: value for name, value in given.items() if value is not None},
    }
    options: dict[str, Any] = {}
    for source, more in sources.items():
        if more == {}:
            continue
        try:
            options = {**options, **check_mapping(more)}
            check_options(options)
        except (TypeError, ValueError) as error:
            fail(source, error)
    return options


def read_ini(config: pytest.Config, names: Iterable[str]) -> dict[str, Any]:
    """Return what the ini-file has of these options."""
    options = {}
    for name in names:
        try:
            value = config.getini(f"smtpd_server_{name}")
            if value is not ...:
                options[name] = parse_option(name, value) if isinstance(value, str) else value
        except (TypeError, ValueError, pytest.UsageError) as error:
            text = str(error).removeprefix(f"{config.inipath}: ")
            fail(f"{config.inipath or '-o'}, smtpd_server_{name}", text)
    return options


def reset_for(item: pytest.Item, server: RecordingServer) -> None:
    """Have a server as new for this test, with the options of its markers; an earlier one may have stopped it."""
    if server.loop is None:
        _start_again(server)
    try:
        server.reset(item.nodeid, **_marked_options(item))
    except (TypeError, ValueError) as error:
        fail(MARKER, error)


def check_marker(item: pytest.Item) -> None:
    """Look at the options of a test's markers while there is no server."""
    options = _marked_options(item)
    try:
        check_options(options)
    except TypeError as error:
        fail(MARKER, error)
    except ValueError:
        pass  # they may make sense together with the server's


def _start_again(server: RecordingServer) -> None:
    try:
        server.start()
    except OSError as error:
        fail(f"smtpd_server can't listen again on {server.host}:{server.port}", error)


def _marked_options(item: pytest.Item) -> dict[str, Any]:
    """Return the options of the test's markers; the nearest one wins."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("smtpd_server"))):
        options |= mark.kwargs
        if mark.args:
            fail(MARKER, f"options go by name, not {mark.args}")
        if fixed := {"host", "port"} & mark.kwargs.keys():
            names = ", ".join(sorted(fixed))
            text = f"{names} can't change, the server is the same for the session; make_smtpd_server makes another one"
            fail(MARKER, text)
    return options
