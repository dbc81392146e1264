"""What the recipes have in common: the README's code is run, and what it leaves out is configured as its table says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from readme import find_block

from pytest_smtpd import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USERS = {"ada": "secret"}


@pytest.fixture
def run_recipe(pytester: pytest.Pytester) -> Callable[[str, str], None]:
    """Return a function that runs a test, in a process of its own, with the README's code that contains a text."""

    def run(text: str, test: str) -> None:
        pytester.makeconftest(find_block(text))
        pytester.makepyfile(test)
        result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=1)

    return run


@pytest.fixture(params=["starttls", "implicit"])
def server(request: pytest.FixtureRequest) -> Iterator[RecordingServer]:
    """Return a server that takes nothing without TLS and login; `tls` says which TLS."""
    options: Any = {"tls": request.param, "require_tls": True, "require_auth": True}
    with RecordingServer(users=USERS, **options) as server:
        yield server


@pytest.fixture
def check(server: RecordingServer) -> Callable[[], None]:
    """Return a function that holds that the message came, encrypted and from Ada."""

    def check() -> None:
        message = server.assert_received(subject="Hello", rcpttos=["bob@example.org"], body="How are you?")
        assert message.tls is not None
        assert message.auth is not None
        assert message.auth.user == "ada"

    return check
