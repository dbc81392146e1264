"""The pytest plugin: fixtures, and a clean mailbox for each test.

pytest imports this module at every start, whether a test wants mail or not, so it imports nothing that
pytest has not imported already; all else is imported when a fixture is first used.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.testing.recording import RecordingServer

#: The session's server, once it runs.
_SERVER = pytest.StashKey["RecordingServer"]()


@pytest.fixture(scope="session")
def smtpd_server_options() -> dict[str, Any]:
    """Override this in the top-level conftest.py to configure `smtpd_server`: return options of RecordingServer."""
    return {}


@pytest.fixture(scope="session")
def smtpd_server(pytestconfig: pytest.Config, smtpd_server_options: dict[str, Any]) -> Iterator[RecordingServer]:
    """Return the session's SMTP server, which records what it receives; each test finds it empty."""
    from pytest_smtpd.testing.recording import RecordingServer

    with RecordingServer(**smtpd_server_options) as server:
        pytestconfig.stash[_SERVER] = server
        yield server
        del pytestconfig.stash[_SERVER]


@pytest.fixture
def make_smtpd_server() -> Iterator[Callable[..., RecordingServer]]:
    """Return a function that starts one more server, until the test ends.

    It takes the options of RecordingServer, and a subclass of it as `server_class`.
    """
    from pytest_smtpd.testing.recording import RecordingServer

    with ExitStack() as stack:

        def make(server_class: type[RecordingServer] = RecordingServer, **options: Any) -> RecordingServer:
            return stack.enter_context(server_class(**options))

        yield make


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test a server as new, before any fixture of the test can send mail."""
    server = item.config.stash.get(_SERVER, None)
    if server is not None:
        server.clear()
